#include "runtime/egress/server_list.h"

#include <string.h>
#include <sys/socket.h>

#include "runtime/base/address_port.h"

enum { PORT = 53, ENTRY_BUFFER = 64 }; /* longer than any */

static bool parse_entry(const char *entry, struct ares_addr_port_node *node)
{
        struct address_port server;

        if (!address_port_parse(entry, PORT, &server))
                return false;
        node->udp_port = server.port;
        node->tcp_port = server.port;
        node->family = server.is_v6 ? AF_INET6 : AF_INET;
        memcpy(&node->addr, server.bytes,
               server.is_v6 ? sizeof(node->addr.addr6) : sizeof(node->addr.addr4));
        return true;
}

bool server_list_parse(const char *text, struct server_list *ret_list)
{
        *ret_list = (struct server_list){ 0 };
        for (;;) {
                struct ares_addr_port_node *node = &ret_list->nodes[ret_list->n_nodes];
                size_t n = strcspn(text, ",");
                char entry[ENTRY_BUFFER];

                if (ret_list->n_nodes == SERVER_LIST_MAX || n >= sizeof(entry))
                        return false;
                memcpy(entry, text, n);
                entry[n] = '\0';
                if (!parse_entry(entry, node))
                        return false;
                if (ret_list->n_nodes++ > 0)
                        node[-1].next = node;
                if (text[n] == '\0')
                        return true;
                text += n + 1;
        }
}
