/*
 * The connection to hotcell-runtime: requests and their answers, events, descriptors. Connects by
 * itself and again after a loss.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "hotcell/runtime/v1/runtime.pb-c.h"
#include "runtime/base/cleanup.h"

struct runtime_client;

enum {
        RUNTIME_CLIENT_E_DISCONNECTED = 1, /* there is no runtime now */
        RUNTIME_CLIENT_E_BUSY,             /* too many requests are unanswered */
        RUNTIME_FDS_MAX = 16,              /* in one packet */
};

/* Descriptors that came with an answer. Whoever wants one takes it with take_fd; the others are
 * closed. */
struct runtime_fds {
        int fds[RUNTIME_FDS_MAX];
        size_t n;
};

/* @answer NULL: the connection was lost. */
typedef void (*runtime_on_answer)(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                                  struct runtime_fds *fds);

struct runtime_client_observer {
        /* @welcome is good until on_lost: it is kept. */
        void (*on_connected)(void *userdata, const Hotcell__Runtime__V1__Welcome *welcome);
        /* After all pending requests were answered with NULL. */
        void (*on_lost)(void *userdata);
        void (*on_process_ended)(void *userdata, const Hotcell__Runtime__V1__ProcessEnded *ended);
        void (*on_sandbox_ended)(void *userdata, const Hotcell__Runtime__V1__SandboxEnded *ended);
        void (*on_pressure)(void *userdata, const Hotcell__Runtime__V1__Pressure *pressure);
        /* hotcell-egress can be spoken to; takes @fd. It may be another one than before. */
        void (*on_egress_ready)(void *userdata, int fd);
};

/* Begins to connect from the loop. Copies @path. */
int runtime_client_new(sd_event *loop, const char *path,
                       const struct runtime_client_observer *observer, void *userdata,
                       struct runtime_client **ret_client);

/* Pending requests are not answered any more. */
struct runtime_client *runtime_client_free(struct runtime_client *client);

/* Drops the connection and makes a new one after a while, from the loop. */
void runtime_client_reconnect(struct runtime_client *client);

/* Takes what has come, so that it is known now whether the runtime is lost. */
void runtime_client_look(struct runtime_client *client);

/* Of the runtime that is connected, else NULL. */
const Hotcell__Runtime__V1__Welcome *runtime_client_welcome(const struct runtime_client *client);

/*
 * Sends @request, whose body is set; `request` is chosen here. @on_answer (may be NULL) comes once,
 * later. On an outcome or an error it never comes.
 */
int runtime_client_request(struct runtime_client *client, Hotcell__Runtime__V1__ToRuntime *request,
                           runtime_on_answer on_answer, void *userdata);

/* The same with descriptors, which are only borrowed. */
int runtime_client_request_with(struct runtime_client *client,
                                Hotcell__Runtime__V1__ToRuntime *request, const int *fds,
                                size_t n_fds, runtime_on_answer on_answer, void *userdata);

DEFINE_CLEANUP(struct runtime_client, runtime_client_free)
