/*
 * Strict where two readers of the same bytes might see different hosts: a name that ends in a
 * number is an address to some (`127.1`, `0x7f000001`), so it is no name here; nothing is decoded.
 */
#include "runtime/egress/host_name.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "runtime/base/macros.h"

enum {
        LABEL_MAX = 63,   /* bytes, RFC 1035 2.3.4 */
        PORT_DIGITS = 5,  /* and none above 65535 */
        ADDRESS_MAX = 45, /* bytes of an IPv6 address in text */
};

/* Of ASCII, whatever the locale. */
static char to_lower(char c)
{
        static const char letters[] = "abcdefghijklmnopqrstuvwxyz";

        if (c < 'A' || c > 'Z')
                return c;
        return letters[c - 'A'];
}

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

/* RFC 1123 2.1, and underscores, which real names have (RFC 2181 11). */
static bool is_of_a_label(char c)
{
        return (c >= 'a' && c <= 'z') || is_digit(c) || c == '-' || c == '_';
}

static bool is_label(const char *label, size_t n)
{
        if (n == 0 || n > LABEL_MAX || label[0] == '-' || label[n - 1] == '-')
                return false;
        for (size_t i = 0; i < n; i++)
                if (!is_of_a_label(label[i]))
                        return false;
        return true;
}

/* Of digits only, or hexadecimal: a part of an address to inet_aton(3) and to browsers. */
static bool is_number(const char *label)
{
        if (label[0] == '0' && label[1] == 'x')
                return label[2 + strspn(label + 2, "0123456789abcdef")] == '\0';
        return label[strspn(label, "0123456789")] == '\0';
}

static bool is_name(const char *text)
{
        const char *label = text;
        const char *dot;

        while ((dot = strchr(label, '.'))) {
                if (!is_label(label, (size_t)(dot - label)))
                        return false;
                label = dot + 1;
        }
        return is_label(label, strlen(label)) && !is_number(label);
}

bool host_name_read(const char *bytes, size_t n_bytes, char ret_name[static HOST_BUFFER])
{
        if (n_bytes > 0 && bytes[n_bytes - 1] == '.')
                n_bytes--; /* the root, which every name is below */
        if (n_bytes >= HOST_BUFFER || memchr(bytes, '\0', n_bytes))
                return false;
        for (size_t i = 0; i < n_bytes; i++)
                ret_name[i] = to_lower(bytes[i]);
        ret_name[n_bytes] = '\0';
        return is_name(ret_name);
}

static bool read_address(int family, const char *bytes, size_t n_bytes, struct host *ret_host)
{
        char text[ADDRESS_MAX + 1] = { 0 };
        struct in6_addr address; /* large enough for both */

        if (n_bytes > ADDRESS_MAX || memchr(bytes, '\0', n_bytes))
                return false;
        memcpy(text, bytes, n_bytes);
        if (inet_pton(family, text, &address) != 1)
                return false;
        *ret_host = (struct host){ .kind = family == AF_INET ? HOST_V4 : HOST_V6 };
        return inet_ntop(family, &address, ret_host->text, sizeof(ret_host->text)) != NULL;
}

/* After the colon. Nothing there is as good as no port (RFC 3986 3.2.3). */
static bool read_port(const char *bytes, size_t n_bytes, uint16_t *ret_port)
{
        unsigned port = 0;

        if (n_bytes > PORT_DIGITS)
                return false;
        for (size_t i = 0; i < n_bytes; i++) {
                if (!is_digit(bytes[i]))
                        return false;
                port = port * 10 + (unsigned)(bytes[i] - '0');
        }
        if (port > UINT16_MAX || (port == 0 && n_bytes > 0))
                return false;
        *ret_port = (uint16_t)port;
        return true;
}

/* The bytes before the port, brackets included. */
static size_t length_of_host(const char *bytes, size_t n_bytes)
{
        const char *bracket = n_bytes > 0 && bytes[0] == '[' ? memchr(bytes, ']', n_bytes) : NULL;
        const char *colon = bracket ? bracket + 1 : memchr(bytes, ':', n_bytes);

        return colon ? (size_t)(colon - bytes) : n_bytes;
}

static bool read_host(const char *bytes, size_t n_bytes, struct host *ret_host)
{
        if (n_bytes > 2 && bytes[0] == '[')
                return read_address(AF_INET6, bytes + 1, n_bytes - 2, ret_host);
        if (read_address(AF_INET, bytes, n_bytes, ret_host))
                return true;
        ret_host->kind = HOST_NAME;
        return host_name_read(bytes, n_bytes, ret_host->text);
}

bool host_read(const char *bytes, size_t n_bytes, struct host *ret_host, uint16_t *ret_port)
{
        size_t n_host = length_of_host(bytes, n_bytes);
        struct host host = { 0 };
        uint16_t port = 0;

        if (n_host < n_bytes &&
            (bytes[n_host] != ':' || !read_port(bytes + n_host + 1, n_bytes - n_host - 1, &port)))
                return false;
        if (!read_host(bytes, n_host, &host))
                return false;
        *ret_host = host;
        *ret_port = port;
        return true;
}
