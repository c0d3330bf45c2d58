/*
 * The servers that the host asks, by c-ares: by UDP, again by TCP what did not fit, and the next
 * server when one is silent, refuses or is broken. Answers come as the bytes that were received.
 *
 * c-ares takes an answer only from the address that was asked, with the id of the question and with
 * the question itself; what comes else is passed over as if it had not come. Ids are random, and so
 * are ports: each question has one of its own, unless there are more than `channels_max` in flight.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>
#include <systemd/sd-event.h>

enum {
        UPSTREAM_E_BUSY = 1, /* too many questions are in flight */
        UPSTREAM_E_SERVERS,  /* the text is no list of addresses */
};

struct upstream_config {
        const char *servers; /* `address[:port]`, `[v6]:port`, with commas; NULL: /etc/resolv.conf,
                                read once */
        uint32_t timeout_msec; /* of the first attempt; each further one has twice as long */
        uint32_t n_attempts;   /* with each server */
        size_t in_flight_max;  /* questions */
        size_t channels_max;   /* some 80 KiB each, and a descriptor for each server */
};

struct upstream;
struct upstream_query;

/*
 * @bytes is NULL when there was no answer; else good until it returns. Then @error says why, as an
 * errno: ETIMEDOUT; EREMOTEIO when the servers said that they failed or refuse, or nothing listens
 * there, which c-ares does not tell apart; ENOMEM; or EBADMSG for what else came.
 */
typedef void (*upstream_on_answer)(void *userdata, int error, const uint8_t *bytes, size_t n_bytes);

/* The process ignores SIGPIPE from here on. */
int upstream_new(sd_event *loop, const struct upstream_config *config,
                 struct upstream **ret_upstream);

/* Not from a callback. Every question was answered or is forgotten. */
struct upstream *upstream_free(struct upstream *upstream);

/*
 * Asks for @name (text of dns_name.h). On success @on_answer is called once unless the question is
 * forgotten; maybe before this returns, so *@ret_query is set before.
 */
int upstream_ask(struct upstream *upstream, const char *name, uint16_t type,
                 upstream_on_answer on_answer, void *userdata, struct upstream_query **ret_query);

/* Its answer is nobody's; it counts as in flight until it came or is given up. */
void upstream_forget(struct upstream_query *query);
