/* A server with a few test methods, on a loop thread of its own. */
#pragma once

#include <stdatomic.h>
#include <stdint.h>

#include "server/rpc/rpc.h"

struct health;
struct reflection;

/*
 *   /test.Test/Echo   unary: answers with the request
 *   /test.Test/Who    unary: answers with "unix UID PID" or "tcp", and the `x-test` metadata
 *   /test.Test/Fail   unary: fails with SANDBOX_LIMIT and every kind of detail
 *   /test.Test/Hold   unary: observed, never answered
 *   /test.Test/Blind  unary: not observed; harness_answer_blind or harness_observe_blind take it
 *   /test.Test/Pour   stream: 64 KiB messages for ever
 *   /test.Test/Chat   bidi: answers each message with itself
 *   /test.Test/Refused     unary: not admitted
 *   /test.Test/OwnedEcho, OwnedHold, OwnedPour   the same, charged to one owner; OwnedHold is
 *                          observed from its admission on
 *   /test.Test/OwnedLarge  unary: answers with so many zeroes, if there is room
 */
struct harness {
        struct rpc_server_config config;
        struct health *health;
        struct reflection *reflection;
        struct rpc_server *server;
        uint16_t port;

        atomic_uint n_held;
        atomic_uint n_gone;
        atomic_uint n_written;
        atomic_uint n_poured; /* streams that began */
        atomic_uint n_blind;
        atomic_uint n_ended; /* chats, by half-close */
        atomic_bool is_stopped;

        struct harness_thread *thread;
};

/* Defaults of `config`; may be changed before harness_start. */
void harness_init(struct harness *harness);

/* Listens on a unix socket (may be NULL) and on `127.0.0.1:0` (when @tcp). Asserts that it can. */
void harness_start(struct harness *harness, const char *unix_path, bool tcp);

/* Runs on the loop thread, and waits for it. */
void harness_run(struct harness *harness, void (*run)(struct harness *harness));
void harness_answer_blind(struct harness *harness);
void harness_observe_blind(struct harness *harness);

/* Stops, without waiting; `is_stopped` tells. */
void harness_begin_stop(struct harness *harness, uint64_t grace_usec);

/* Stops unless that was begun, waits for it and frees everything. */
void harness_stop(struct harness *harness);

/* True when @condition comes true within a few seconds. */
#define harness_eventually(condition)                                                              \
        __extension__({                                                                            \
                bool is_true = (condition);                                                        \
                                                                                                   \
                for (int tries = 0; tries < 5000 && !is_true; tries++) {                           \
                        harness_pause();                                                           \
                        is_true = (condition);                                                     \
                }                                                                                  \
                is_true;                                                                           \
        })
void harness_pause(void);
