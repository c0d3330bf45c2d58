/*
 * The server name that a TLS client asks for in the first bytes of its connection. They are given
 * as they come: how they are cut into reads, and the ClientHello into records, makes no difference.
 * Pure, no allocation.
 *
 * Only the first ClientHello is looked at. What comes after it is not: neither the second one,
 * which a server may ask for (RFC 8446 4.1.4), nor a renegotiation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/egress/host_name.h"

enum { TLS_HELLO_MAX = 16384 }; /* bytes of the connection that are looked at */

enum tls_hello_state {
        TLS_HELLO_NEED_MORE, /* goes on with the next bytes */
        TLS_HELLO_FOUND,     /* there is a name */
        TLS_HELLO_ABSENT,    /* a ClientHello without name */
        TLS_HELLO_NOT_TLS,   /* another protocol */
        TLS_HELLO_MALFORMED, /* begins like TLS, but is not what a client may send; or is too long
                              */
};

/* Of zeros it is a fresh one. */
struct tls_hello {
        enum tls_hello_state state;
        /*
         * When FOUND: lower case, no dot at the end, no address. There may be another name that
         * only the server can read (RFC 9849, or the draft before it); this is the outer one.
         */
        char name[HOST_BUFFER];

        /* How far it is; see tls_hello.c. */
        size_t n_seen;
        uint8_t n_record_header;
        uint16_t record_left;
        bool has_record;
        uint8_t field;
        uint32_t left;
        uint32_t value;
        uint32_t message_left;
        uint32_t extension_left;
        bool has_name;
        uint16_t n_name;
};

/* Takes the next bytes and returns the state; one that was reached does not change any more. */
enum tls_hello_state tls_hello_take(struct tls_hello *hello, const void *bytes, size_t n_bytes);
