/* The peer that hotcelld is to a hotcell-runtime, for tests of it. */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "test/supervisor/daemon.h"

enum {
        PEER_FDS_MAX = 16, /* in a packet */
        PEER_EVENTS_MAX = 256,
        PEER_EARLY_MAX = 8,
        OUTPUT_MAX = 64 << 10,
};

/* An answer and what came with it. */
struct answer {
        Hotcell__Runtime__V1__FromRuntime *message;
        int fds[PEER_FDS_MAX];
        size_t n_fds;
};

/* A connection to it. */
struct peer {
        int fd;
        uint64_t next_request;
        Hotcell__Runtime__V1__FromRuntime *events[PEER_EVENTS_MAX]; /* that nobody asked for yet */
        size_t n_events;
        struct answer early[PEER_EARLY_MAX]; /* answers that nobody awaits yet */
        size_t n_early;
};

int peer_try_connect(const struct daemon *daemon);
void peer_connect(struct peer *peer, const struct daemon *daemon);
void peer_disconnect(struct peer *peer);
void peer_send_bytes(struct peer *peer, const void *bytes, size_t n_bytes);

/* Sends a message with the next request number, which it returns. */
uint64_t peer_send(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message);

/* With descriptors, which stay the caller's. */
uint64_t peer_send_with(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message, const int *fds,
                        size_t n_fds);

/* Waits for the answer to @request; events and other answers on the way are kept. */
struct answer peer_await(struct peer *peer, uint64_t request);
/* Waits for the answers to all of them, in any order; the last is Done. */
void peer_await_all(struct peer *peer, uint64_t *requests, size_t n_requests);
struct answer peer_ask(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message);
void answer_deinit(struct answer *answer);

/* Waits for the next event of a kind; others are kept. The caller frees it. */
Hotcell__Runtime__V1__FromRuntime *
peer_await_event(struct peer *peer, Hotcell__Runtime__V1__FromRuntime__BodyCase body);
void event_free(Hotcell__Runtime__V1__FromRuntime *event);

/* Asks, and expects to be refused for this reason. */
void peer_expect_failure(struct peer *peer, Hotcell__Runtime__V1__ToRuntime *message,
                         Hotcell__Runtime__V1__FailureReason reason);

/* The usual requests; they expect success. */
void peer_hello(struct peer *peer);
struct answer peer_say_hello(struct peer *peer);
void peer_create(struct peer *peer, const char *id);
void peer_destroy(struct peer *peer, const char *id);
void peer_acknowledge(struct peer *peer, const char *sandbox_id, const char *process_id);
void peer_signal(struct peer *peer, const char *sandbox_id, const char *process_id, int signal);

/* A request to create a sandbox with usual limits, to be changed and sent. Static memory. */
Hotcell__Runtime__V1__ToRuntime *create_request(const char *id);

/* A request to run /bin/sh -c @code as user 1000. Static memory. */
Hotcell__Runtime__V1__ToRuntime *shell_request(const char *sandbox_id, const char *process_id,
                                               const char *code);

/* Starts a shell; the answer has its descriptors. */
struct answer peer_shell(struct peer *peer, const char *sandbox_id, const char *process_id,
                         const char *code);

/* Runs a shell to its end: its output, and the event of its end, acknowledged. */
Hotcell__Runtime__V1__FromRuntime *peer_run(struct peer *peer, const char *sandbox_id,
                                            const char *code, char output[static OUTPUT_MAX]);

/* Reads until end of file. */
void read_all(int fd, char output[static OUTPUT_MAX]);

/* Reads until @text was seen. */
void read_until(int fd, const char *text);
