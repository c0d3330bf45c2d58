#include "runtime/base/address_port.h"

#include <arpa/inet.h>
#include <string.h>

#include "runtime/base/text.h"

enum { TEXT_BUFFER = INET6_ADDRSTRLEN + sizeof("[]:65535") };

/* Cuts @text into an address, which is returned, and a port, which is NULL if there is none. */
static char *split(char *text, char **ret_port)
{
        char *end;

        *ret_port = NULL;
        if (*text == '[') {
                text++;
                end = strchr(text, ']');
                if (!end || (end[1] != '\0' && end[1] != ':'))
                        return NULL;
                if (end[1] == ':')
                        *ret_port = end + 2;
                *end = '\0';
                return strchr(text, ':') ? text : NULL;
        }
        end = strchr(text, ':');
        if (end && !strchr(end + 1, ':')) {
                *ret_port = end + 1;
                *end = '\0';
        }
        return text;
}

bool address_port_parse(const char *text, uint16_t port, struct address_port *ret_address)
{
        struct address_port parsed = { 0 };
        char copy[TEXT_BUFFER];
        char *address, *port_text;
        uint64_t number = port;

        if (strlen(text) >= sizeof(copy))
                return false;
        memcpy(copy, text, strlen(text) + 1);
        address = split(copy, &port_text);
        if (!address ||
            (port_text && (!text_to_uint64(port_text, UINT16_MAX, &number) || number == 0)))
                return false;
        parsed.is_v6 = strchr(address, ':') != NULL;
        parsed.port = (uint16_t)number;
        if (inet_pton(parsed.is_v6 ? AF_INET6 : AF_INET, address, parsed.bytes) != 1)
                return false;
        *ret_address = parsed;
        return true;
}
