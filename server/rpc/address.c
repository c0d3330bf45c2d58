#include "server/rpc/address.h"

#include <arpa/inet.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/rpc/rpc.h"

/* Splits `HOST:PORT` or `[HOST]:PORT`. */
static bool split(const char *text, char host[static INET6_ADDRSTRLEN], in_port_t *ret_port)
{
        const char *colon = strrchr(text, ':');
        size_t n_host = colon ? (size_t)(colon - text) : 0;
        uint64_t port;

        if (n_host > 1 && text[0] == '[' && text[n_host - 1] == ']') {
                text++;
                n_host -= 2;
        } else if (memchr(text, ':', n_host)) {
                return false; /* IPv6 without brackets: which colon is the port's? */
        }
        if (n_host == 0 || n_host >= INET6_ADDRSTRLEN)
                return false;
        if (!text_to_uint64(colon + 1, UINT16_MAX, &port))
                return false;

        memcpy(host, text, n_host);
        host[n_host] = '\0';
        *ret_port = htons((uint16_t)port);
        return true;
}

int address_parse_loopback(const char *text, struct sockaddr_storage *ret_address,
                           socklen_t *ret_size)
{
        struct sockaddr_in v4 = { .sin_family = AF_INET };
        struct sockaddr_in6 v6 = { .sin6_family = AF_INET6 };
        char host[INET6_ADDRSTRLEN];
        in_port_t port;

        if (!split(text, host, &port))
                return RPC_E_BAD_ADDRESS;
        if (strcmp(host, "localhost") == 0)
                memcpy(host, "127.0.0.1", sizeof("127.0.0.1"));

        *ret_address = (struct sockaddr_storage){ 0 };
        if (inet_pton(AF_INET, host, &v4.sin_addr) == 1) {
                if (ntohl(v4.sin_addr.s_addr) >> 24 != IN_LOOPBACKNET)
                        return RPC_E_NOT_LOOPBACK;
                v4.sin_port = port;
                memcpy(ret_address, &v4, sizeof(v4));
                *ret_size = sizeof(v4);
                return 0;
        }
        if (inet_pton(AF_INET6, host, &v6.sin6_addr) == 1) {
                if (!IN6_IS_ADDR_LOOPBACK(&v6.sin6_addr))
                        return RPC_E_NOT_LOOPBACK;
                v6.sin6_port = port;
                memcpy(ret_address, &v6, sizeof(v6));
                *ret_size = sizeof(v6);
                return 0;
        }
        return RPC_E_NOT_LOOPBACK; /* a name: whatever it means, it is no loopback literal */
}
