/*
 * What hotcelld said of a policy, made into one: read, digested and compiled. Neither the digest
 * nor what it compiles to can be made piece by piece, so for a large one that takes a thread of its
 * own.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <systemd/sd-event.h>

#include "runtime/base/inbox.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_reader.h"

enum policy_making_state {
        MAKING_TO_DO,
        MAKING_DONE,        /* there is a policy */
        MAKING_INVALID,     /* what hotcelld said is none */
        MAKING_TOO_COMPLEX, /* at `rule` */
        MAKING_FAILED,      /* `error` says why */
};

struct policy_maker;

struct policy_making {
        struct policy_head head;
        int fd;
        enum policy_making_state state;
        int error; /* a negative errno */
        size_t rule;
        struct network_policy policy; /* its number is the owner's to give */

        struct inbox_task task; /* private, as what follows */
        struct policy_maker *maker;
        void (*on_made)(struct policy_making *making);
};

/* Of those that are made in a thread, one at a time. */
struct policy_maker {
        struct inbox *inbox;
        pthread_t thread;
        bool has_thread;
};

/* Takes @fd, which has the rules. */
void policy_making_init(struct policy_making *making, const struct policy_head *head, int fd);
void policy_making_deinit(struct policy_making *making);

/* Here and now. Its state says how that went. */
void policy_making_run(struct policy_making *making);

int policy_maker_init(struct policy_maker *maker, sd_event *event);

/* After policy_maker_wait(). */
void policy_maker_deinit(struct policy_maker *maker);

/* In a thread. Until @on_made, which comes later on the loop, @making belongs to it. A negative
 * errno: there is no thread. */
int policy_maker_begin(struct policy_maker *maker, struct policy_making *making,
                       void (*on_made)(struct policy_making *making));

/* The loop ends: what is on its way is waited for, and on_made comes before it returns. */
void policy_maker_wait(struct policy_maker *maker);
