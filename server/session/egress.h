/*
 * Egress events on their way: to the stream of the execution that caused them (execution_egress.c),
 * and to the database, in batches, with a bound on what waits for that (egress.c).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "runtime/base/log.h"
#include "server/store/records.h"

struct context;
struct execution;
struct session;

enum {
        EGRESS_WAITING_MAX = 1024, /* events that are not stored yet; what is beyond is lost */
        EGRESS_TOLD_MAX = 1000,    /* events in the stream of one execution */
        EGRESS_WINDOW_USEC = 1000 * 1000, /* equal ones within it are one */
};

/* What waits to be stored. All zeros is empty. */
struct egress_queue {
        struct egress_record *records; /* room for EGRESS_WAITING_MAX */
        struct egress_owner *owners;   /* of each of them */
        size_t n;
        size_t n_sent; /* the first ones, which are being stored */
        unsigned n_tries;
        uint64_t n_lost;
        struct log_quota log;
        sd_event_source *retry_timer;
};

/* What an owner has may grow up to what is free: there is always some for the next. */
bool egress_queue_has_room(const struct egress_queue *queue, const char *owner);

/* The number of the first one that is not stored; zero: of none. */
uint64_t egress_queue_first(const struct egress_queue *queue);

/* They are not acknowledged any more; or, told again by another number, they are by that. */
void egress_queue_forget_numbers(struct egress_queue *queue);
void egress_queue_renumber(struct egress_queue *queue, const char *sandbox_id,
                           const struct egress_record *record, uint64_t number);

/* At the stop: what waits for another try is tried now. */
void egress_queue_flush(struct session *session);
void egress_queue_deinit(struct egress_queue *queue);

/* What of an execution's stream is about egress. It has no pointers: it is saved as it is. */
struct execution_egress {
        struct egress_record last; /* the newest; sequence 0: there was none */
        int64_t n_held;            /* how often it came since it was told last */
        int64_t left_out;          /* others before it that will not be told */
        int64_t n_told;            /* records in the ring, or evicted from it */
};

/* Denials, failures and what a new policy cut are shown, others and those that were seen are not.
 */
void execution_on_egress(struct execution *execution, const struct egress_record *record);

/* Tells what is held: nothing comes after it but `ended`. */
void execution_finish_egress(struct execution *execution);

/* A predecessor's: what its ring says and what it saved become one. */
void execution_restore_egress(struct execution *execution);

/* Equal ones are counted for a while again. */
void execution_arm_egress(struct execution *execution);

/* The record of a ring. False: it is none. */
bool egress_payload_read(const uint8_t *payload, size_t n_payload, struct egress_record *ret_record,
                         int64_t *ret_left_out, int64_t *ret_number);
