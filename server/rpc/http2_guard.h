/*
 * What one connection sends, looked at frame by frame before gRPC reads it: gRPC 1.51 keeps a
 * message until it is whole, however long it says that it will be, parses headers that do not end
 * in quadratic time, and makes a call of each stream that is opened, also if it is reset at once.
 *
 * A guard belongs to the thread that reads the connection, except for http2_guard_trust and the
 * two questions below it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"

struct http2_guard;

enum http2_verdict {
        HTTP2_FINE = 0,
        HTTP2_NOT_SPOKEN,       /* it does not begin as HTTP/2 does */
        HTTP2_MALFORMED,        /* a frame that gRPC does not take either */
        HTTP2_HEADERS_TOO_LONG, /* of one stream */
        HTTP2_TOO_MANY_FRAMES,  /* that carry nothing: pings, settings, empty data … */
        HTTP2_TOO_MANY_RESETS,  /* far more than a client that changes its mind */
        HTTP2_MESSAGE_TOO_LONG,
        HTTP2_MESSAGE_IN_CRUMBS, /* each frame costs more than its bytes */
        HTTP2_LOST_TRACK,        /* far more messages at once than there may be streams */
        _HTTP2_VERDICT_N,
};

struct http2_limits {
        size_t message_max_bytes;
        unsigned streams_max;
};

int http2_guard_new(const struct http2_limits *limits, struct http2_guard **ret_guard);
struct http2_guard *http2_guard_free(struct http2_guard *guard);
DEFINE_CLEANUP(struct http2_guard, http2_guard_free)

/* The connection's next bytes. Anything but HTTP2_FINE is for good: gRPC must not see them. */
enum http2_verdict http2_guard_take(struct http2_guard *guard, const void *bytes, size_t n_bytes,
                                    uint64_t now_msec);

/* Whoever is there has shown who they are: they may change their mind more often. */
void http2_guard_trust(struct http2_guard *guard);

/* Whether it has seen the beginning: else what comes from there went past the guard. */
bool http2_guard_has_begun(const struct http2_guard *guard);
enum http2_verdict http2_guard_verdict(const struct http2_guard *guard);
const char *http2_verdict_text(enum http2_verdict verdict);
