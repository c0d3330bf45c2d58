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
        return slash && slash > text ? slip_of_slash(protocol, text, slash) : NULL;
}
