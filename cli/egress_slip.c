#include "cli/egress_slip.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "cli/memory.h"
#include "runtime/base/macros.h"

/* Of the scheme in front of `://`, whose length is @n; empty: it is not known. */
static const char *port_of(const char *scheme, size_t n)
{
        if (n == strlen("https") && strncmp(scheme, "https", n) == 0)
                return ":443";
        if (n == strlen("http") && strncmp(scheme, "http", n) == 0)
                return ":80";
        return "";
}

static char *slip_of_url(const char *text, const char *scheme_end)
{
        const char *host = scheme_end + strlen("://");
        const char *end = host + strcspn(host, "/?#");
        const char *at = memrchr(host, '@', (size_t)(end - host));
        bool has_port;

        if (at)
                host = at + 1; /* who one is there has no place in a rule */
        has_port = host[0] == '[' ? strstr(host, "]:") != NULL
                                  : memchr(host, ':', (size_t)(end - host)) != NULL;
        return format_text("is a URL: write only its host and port, %.*s%s", (int)(end - host),
                           host, has_port ? "" : port_of(text, (size_t)(scheme_end - text)));
}

static bool is_like_address(const char *text, size_t n)
{
        bool is_v6 = memchr(text, ':', n) != NULL;

        return n > 0 && strspn(text, is_v6 ? "0123456789abcdefABCDEF:." : "0123456789.") >= n;
}

/* @slash is the first one in @text, which is behind @protocol. */
static char *slip_of_slash(const char *protocol, const char *text, const char *slash)
{
        size_t n = (size_t)(slash - text);
        const char *colon = strchr(slash, ':');

        if (*text == '[') {
                if (slash[-1] != ']' || !is_like_address(text + 1, n - 2))
                        return NULL;
                return format_text("has its length behind the bracket: write %s[%.*s%.*s]%s",
                                   protocol, (int)n - 2, text + 1, (int)strcspn(slash, ":"), slash,
                                   colon ? colon : "");
        }
        if (!is_like_address(text, n))
                return format_text("has a path: write only the host and its ports, %s%.*s",
                                   protocol, (int)n, text);
        if (memchr(text, ':', n) && colon)
                return format_text("has ports behind an IPv6 prefix: write that in brackets, "
                                   "%s[%.*s]%s",
                                   protocol, (int)(colon - text), text, colon);
        return NULL;
}

/* @ports: with the colon before them, or empty. */
static char *slip_of_all(const char *protocol, const char *ports, bool is_deny)
{
        bool is_tcp = !*protocol || strcmp(protocol, "tcp:") == 0;

        if (!is_deny && is_tcp)
                return duplicate("is no host: for all public ones use --egress-default "
                                 "allow-public");
        if (!is_deny)
                return format_text("is no host: for all addresses use --allow %s0.0.0.0/0%s "
                                   "--allow '%s[::/0]%s'",
                                   protocol, ports, protocol, ports);
        return format_text("is no host: nothing leaves that is not allowed; against what is "
                           "allowed use --deny %s0.0.0.0/0%s --deny '%s[::/0]%s'",
                           protocol, ports, protocol, ports);
}

/* As in 0x7f.1 and 1.2.3.4-1.2.3.9. What are digits and dots alone, the server judges. */
static bool ends_in_number(const char *host, size_t n)
{
        const char *dot, *label;
        size_t n_label;

        if (n > 0 && host[n - 1] == '.')
                n--;
        if (strspn(host, "0123456789.") >= n)
                return false;
        dot = memrchr(host, '.', n);
        label = dot ? dot + 1 : host;
        n_label = n - (size_t)(label - host);
        if (n_label > 2 && label[0] == '0' && (label[1] | 0x20) == 'x')
                return strspn(label + 2, "0123456789abcdefABCDEF") >= n_label - 2;
        return n_label > 0 && strspn(label, "0123456789") >= n_label;
}

/* @text has no slash. */
static char *slip_of_host(const char *text, bool is_deny)
{
        const char *colon = strchr(text, ':');
        size_t n = strcspn(text, ":");

        if (*text == '[')
                return NULL;
        if (colon && strchr(colon + 1, ':'))
                return is_like_address(text, strlen(text))
                               ? NULL
                               : duplicate("has more than one colon, but is no IPv6 address: write "
                                           "ports behind one, such as example.org:443,8000-8080");
        if (memchr(text, '*', n) && (strncmp(text, "*.", 2) != 0 || memchr(text + 1, '*', n - 1)))
                return format_text("may have a `*` only as the whole first label, like "
                                   "*.example.org%s",
                                   is_deny ? ""
                                           : "; for all public names use --egress-default "
                                             "allow-public");
        if (ends_in_number(text, n))
                return duplicate("ends in a number, as no name does: write an address like "
                                 "93.184.216.34 or a prefix like 93.184.216.0/24");
        return NULL;
}

char *egress_slip(const char *whole, size_t n_protocol, bool is_deny)
{
        _cleanup_(freep) char *protocol = format_text("%.*s", (int)n_protocol, whole);
        const char *text = whole + n_protocol;
        const char *scheme_end = strstr(text, "://");
        const char *slash = strchr(text, '/');

        if (scheme_end)
                return slip_of_url(text, scheme_end);
        if (text[0] == '*' && (!text[1] || text[1] == ':'))
                return slip_of_all(protocol, text + 1, is_deny);
        if (!slash)
                return slip_of_host(text, is_deny);
        return slash > text ? slip_of_slash(protocol, text, slash) : NULL;
}
