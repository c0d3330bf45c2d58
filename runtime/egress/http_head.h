/*
 * The host that a client of HTTP/1 asks in the head of its first request (RFC 9112). The bytes are
 * given as they come: how they are cut makes no difference. Pure, no allocation.
 *
 * Where two readers of the same bytes could see different hosts nothing is found: what is not
 * exactly of the form that RFC 9112 asks of a client is MALFORMED, also where a server may be
 * lenient. Only the first request is looked at; later ones on the connection may name other hosts.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/egress/host_name.h"

enum { HTTP_HEAD_MAX = 16384 }; /* bytes of the connection that are looked at */

enum http_head_state {
        HTTP_HEAD_NEED_MORE, /* goes on with the next bytes */
        HTTP_HEAD_FOUND,     /* there is a host */
        HTTP_HEAD_ABSENT,    /* a request of HTTP/1.0 that names none */
        HTTP_HEAD_CONNECT,   /* asks for a tunnel: whose name it has is not who will be talked to */
        HTTP_HEAD_NOT_HTTP,  /* another protocol; also HTTP/2 without TLS (RFC 9113 3.4) */
        HTTP_HEAD_MALFORMED, /* begins like HTTP/1, but see above; or is too long */
};

enum {
        HTTP_HEAD_WORD_MAX = 32,       /* bytes of a method; longer ones are another protocol's */
        HTTP_HEAD_AUTHORITY_MAX = 272, /* bytes of a host with its port and blanks around it */
};

/* Of zeros it is a fresh one. */
struct http_head {
        enum http_head_state state;
        struct host host; /* when FOUND */

        /* How far it is; see http_head.c. */
        size_t n_seen;
        uint8_t place;
        bool has_version_0; /* 1.0 */
        bool has_header_host;
        bool has_target_host; /* absolute form */
        bool is_https;        /* likewise */
        uint8_t n_word;
        uint16_t n_authority;
        uint16_t port;        /* of the header; 0: none */
        uint16_t target_port; /* likewise */
        char word[HTTP_HEAD_WORD_MAX + 1];
        char authority[HTTP_HEAD_AUTHORITY_MAX];
        struct host target;
};

/* Takes the next bytes and returns the state; one that was reached does not change any more. */
enum http_head_state http_head_take(struct http_head *head, const void *bytes, size_t n_bytes);
