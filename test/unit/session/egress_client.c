#include "test/unit/session/egress_client.h"

#include <check.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/log.h"

enum { PATIENCE_USEC = 60 * 1000 * 1000, IMPATIENCE_USEC = 300 * 1000 };

struct egress_client *client;
struct fake_egress *egress;
unsigned n_lost, n_told;
struct egress_event events[EVENTS_MAX];
size_t n_events, n_room;
uint64_t counted_cgroup;
struct egress_refusals counted;
unsigned n_counts;
struct heard outcomes[EGRESS_REQUESTS_MAX + 8];
size_t n_outcomes;

static void on_lost(void *userdata)
{
        ck_assert_ptr_eq(userdata, &client);
        n_lost++;
}

static bool on_event(void *userdata, const struct egress_event *event)
{
        ck_assert_ptr_eq(userdata, &client);
        if (n_room == 0)
                return false;
        n_room--;
        ck_assert_uint_lt(n_events, EVENTS_MAX);
        events[n_events++] = *event;
        return true;
}

static void on_events_told(void *userdata)
{
        ck_assert_ptr_eq(userdata, &client);
        n_told++;
}

static void on_count(void *userdata, uint64_t cgroup_id, const struct egress_refusals *refusals)
{
        ck_assert_ptr_eq(userdata, &client);
        counted_cgroup = cgroup_id;
        counted = *refusals;
        n_counts++;
}

static const struct egress_client_observer observer = {
        .on_lost = on_lost,
        .on_event = on_event,
        .on_count = on_count,
        .on_events_told = on_events_told,
};

static void on_answer(void *userdata, const struct egress_answer *answer)
{
        struct heard *outcome = &outcomes[n_outcomes++];

        outcome->tag = *(unsigned *)userdata;
        outcome->result = answer->result;
        outcome->enforced = answer->enforced;
        (void)snprintf(outcome->message, sizeof(outcome->message), "%s",
                       answer->message ? answer->message : "");
}

static void set_up_with(uint64_t answer_usec)
{
        log_init("test", LOG_LEVEL_ERROR);
        memset(&f, 0, sizeof(f));
        n_lost = n_told = 0;
        n_events = n_outcomes = 0;
        n_room = EVENTS_MAX;
        ck_assert_int_ge(sd_event_new(&f.loop), 0);
        egress = fake_egress_new();
        ck_assert_int_eq(egress_client_new(f.loop, answer_usec, &observer, &client, &client), 0);
        egress_client_resume(client);
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
}

void set_up(void)
{
        set_up_with(PATIENCE_USEC);
}

void set_up_impatient(void)
{
        set_up_with(IMPATIENCE_USEC);
}

void tear_down(void)
{
        client = egress_client_free(client);
        egress = fake_egress_free(egress);
        f.loop = sd_event_unref(f.loop);
}

static unsigned tags[EGRESS_REQUESTS_MAX + 8];

int ask(unsigned tag, const struct egress *policy, struct egress_request **ret_request)
{
        const struct egress_order order = { .sandbox_id = "sbx-a",
                                            .version = tag + 1,
                                            .egress = policy };

        tags[tag] = tag;
        return egress_client_set_policy(client, &order, on_answer, &tags[tag], ret_request);
}

int ping(unsigned tag, struct egress_request **ret_request)
{
        tags[tag] = tag;
        return egress_client_ping(client, on_answer, &tags[tag], ret_request);
}

void ask_surely(unsigned tag)
{
        struct egress_request *request;

        ck_assert_int_eq(ask(tag, NULL, &request), 0);
}

static bool has_outcomes(void *userdata)
{
        return n_outcomes >= *(const size_t *)userdata;
}

void wait_for_outcomes(size_t n)
{
        run_until(has_outcomes, &n);
        run_turns(4);
        ck_assert_uint_eq(n_outcomes, n);
}

static bool is_lost(void *userdata)
{
        (void)userdata;
        return n_lost > 0;
}

void wait_for_loss(void)
{
        run_until(is_lost, NULL);
        ck_assert(!egress_client_is_connected(client));
}
