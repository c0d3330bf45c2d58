#include "runtime/egress/server_list.h"

#include <arpa/inet.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/base/text.h"

enum { PORT = 53, ENTRY_BUFFER = INET6_ADDRSTRLEN + sizeof("[]:65535") };

/* Cuts @entry into an address, which is returned, and a port, which is NULL if there is none. */
static char *split_entry(char *entry, char **ret_port)
{
        char *end;

        *ret_port = NULL;
        if (*entry == '[') {
                entry++;
                end = strchr(entry, ']');
                if (!end || (end[1] != '\0' && end[1] != ':'))
                        return NULL;
                if (end[1] == ':')
                        *ret_port = end + 2;
                *end = '\0';
                return strchr(entry, ':') ? entry : NULL;
        }
        end = strchr(entry, ':');
        if (end && !strchr(end + 1, ':')) {
                *ret_port = end + 1;
                *end = '\0';
        }
        return entry;
}

static bool parse_entry(char *entry, struct ares_addr_port_node *node)
{
        char *port_text;
        char *address = split_entry(entry, &port_text);
        uint64_t port = PORT;

        if (!address || (port_text && (!text_to_uint64(port_text, UINT16_MAX, &port) || port == 0)))
                return false;
        node->udp_port = (int)port;
        node->tcp_port = (int)port;
        node->family = strchr(address, ':') ? AF_INET6 : AF_INET;
        return inet_pton(node->family, address, &node->addr) == 1;
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
