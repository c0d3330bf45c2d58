/* GetUsage: what the store is asked, and what the client gets of it; the store and the gRPC layer
 * are replaced by ones that play along. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/status.pb-c.h"
#include "hotcell/v1/usage_service.pb-c.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/rpc/rpc.h"
#include "server/store/store.h"
#include "test/lib/suite.h"

/* What the client got. */
static struct {
        unsigned n_answers;
        enum rpc_code code;
        char message[256];
        bool has_retry;
        Hotcell__V1__GetUsageResponse *answer;
} client;

/* What the store is asked and says. */
static struct {
        unsigned n_lists, n_sums, n_destinations;
        struct usage_scope scope;
        int scope_result;
        char owner[OWNER_BUFFER], sandbox_id[ID_BUFFER], execution_id[ID_BUFFER];
        struct usage_query query;
        int list_result, sum_result, destinations_result;
        struct usage_record records[2];
        struct usage_list list;
        unsigned n_steps;   /* of a sum */
        uint64_t cost_usec; /* of each step of a call */
        bool is_busy;       /* all is said later */
        bool is_partial;    /* each step misses all of memory, or the peak of it, once */
        unsigned n_asked;   /* when busy */
        struct asked {      /* likewise, the last of them */
                char owner[OWNER_BUFFER];
                store_on_usage_scope on_scope; /* one of these */
                store_on_usage on_list;
                store_on_usage_sums on_sums;
                store_on_usage_destinations on_destinations;
                void *userdata;
        } asked;
        struct api_call *leaves; /* its client is gone after the first of them */
        int64_t after[8];        /* of each step */
} database;

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata);
void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details);
void __wrap_rpc_call_reply(struct rpc_call *call, const void *message, size_t n_message);
bool __wrap_rpc_call_has_room(const struct rpc_call *call, size_t n);
void __wrap_store_list_usage(struct store *store, const struct usage_query *query,
                             store_on_usage on_done, void *userdata);
void __wrap_store_sum_usage(struct store *store, const struct usage_query *query,
                            store_on_usage_sums on_done, void *userdata);
void __wrap_store_find_usage_scope(struct store *store, const struct usage_query *query,
                                   store_on_usage_scope on_done, void *userdata);
void __wrap_store_list_usage_destinations(struct store *store, const char *owner,
                                          const char *sandbox_id, const char *execution_id,
                                          store_on_usage_destinations on_done, void *userdata);

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata)
{
        (void)call, (void)observer, (void)userdata;
}

void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details)
{
        static const char retry[] = "google.rpc.RetryInfo";

        (void)call;
        client.has_retry = details && memmem(details, n_details, retry, strlen(retry));
        client.n_answers++;
        client.code = code;
        (void)snprintf(client.message, sizeof(client.message), "%s", message);
}

void __wrap_rpc_call_reply(struct rpc_call *call, const void *message, size_t n_message)
{
        (void)call;
        client.n_answers++;
        hotcell__v1__get_usage_response__free_unpacked(client.answer, NULL);
        client.answer = hotcell__v1__get_usage_response__unpack(NULL, n_message, message);
        ck_assert_ptr_nonnull(client.answer);
}

bool __wrap_rpc_call_has_room(const struct rpc_call *call, size_t n)
{
        (void)call, (void)n;
        return true;
}

static void note(char *text, size_t size, const char *value)
{
        (void)snprintf(text, size, "%s", value ? value : "(all)");
}

/* False: it is said now. */
static bool ask_later(const char *owner, struct asked asked)
{
        if (!database.is_busy)
                return false;
        database.n_asked++;
        database.asked = asked;
        note(database.asked.owner, OWNER_BUFFER, owner);
        return true;
}

void __wrap_store_list_usage(struct store *store, const struct usage_query *query,
                             store_on_usage on_done, void *userdata)
{
        struct usage_record given[ARRAY_SIZE(database.records)];
        struct usage_list list = database.list;

        (void)store;
        if (ask_later(query->owner, (struct asked){ .on_list = on_done, .userdata = userdata }))
                return;
        list.cost_usec = database.cost_usec;
        database.n_lists++;
        database.query = *query;
        note(database.owner, sizeof(database.owner), query->owner);
        note(database.sandbox_id, sizeof(database.sandbox_id), query->sandbox_id);
        note(database.execution_id, sizeof(database.execution_id), query->execution_id);
        memcpy(given, database.records, sizeof(given));
        list.records = given;
        on_done(userdata, database.list_result, database.list_result ? NULL : &list);
        memset(given, 'x', sizeof(given)); /* good in the callback only */
}

void __wrap_store_sum_usage(struct store *store, const struct usage_query *query,
                            store_on_usage_sums on_done, void *userdata)
{
        unsigned step = database.n_sums++;
        struct usage_sums sums = {
                .cost_usec = database.cost_usec,
                .usage = { .cpu_usec = 1000000, .memory_peak_bytes = 10 - (int64_t)step },
                .n = 3,
                .gaps = { .n_incomplete = 1 },
                .last_id = (int64_t)(step + 1) * 4096,
                .more = step + 1 < database.n_steps,
        };
        struct api_call *leaves = take(database.leaves);

        (void)store;
        if (database.is_partial)
                usage_gaps_count(&sums.gaps, sums.usage.missing = BIT(USAGE_PART_MEMORY + step % 2),
                                 false);
        if (ask_later(query->owner, (struct asked){ .on_sums = on_done, .userdata = userdata }))
                return;
        ck_assert_uint_lt(step, ARRAY_SIZE(database.after));
        database.after[step] = query->after_id;
        if (leaves)
                api_call_fail(leaves, REASON_SHUTTING_DOWN, "gone");
        on_done(userdata, database.sum_result, database.sum_result ? NULL : &sums);
}

void __wrap_store_list_usage_destinations(struct store *store, const char *owner,
                                          const char *sandbox_id, const char *execution_id,
                                          store_on_usage_destinations on_done, void *userdata)
{
        struct usage_destination destination = { .name = "example.org",
                                                 .port = 443,
                                                 .connections = 2,
                                                 .sent_bytes = 3,
                                                 .received_bytes = 4 };
        struct usage_destinations found = { &destination, 1, database.cost_usec };

        (void)store, (void)execution_id;
        ck_assert_str_eq(sandbox_id, "sbx-a");
        database.n_destinations++;
        if (ask_later(owner, (struct asked){ .on_destinations = on_done, .userdata = userdata }))
                return;
        on_done(userdata, database.destinations_result,
                database.destinations_result ? NULL : &found);
        memset(&destination, 'x', sizeof(destination));
}

void __wrap_store_find_usage_scope(struct store *store, const struct usage_query *query,
                                   store_on_usage_scope on_done, void *userdata)
{
        struct usage_scope scope = database.scope;

        (void)store;
        if (ask_later(query->owner, (struct asked){ .on_scope = on_done, .userdata = userdata }))
                return;
        scope.cost_usec = database.cost_usec;
        on_done(userdata, database.scope_result, database.scope_result ? NULL : &scope);
}

static struct api api;

static void set_up(void)
{
        ck_assert_int_ge(sd_event_new(&api.loop), 0);
        usage_turns_init(&api.usage_turns, api.loop);
        memset(&client, 0, sizeof(client));
        memset(&database, 0, sizeof(database));
        database.records[0] = (struct usage_record){
                .sandbox_id = "sbx-a",
                .sequence = 7,
                .type = USAGE_RECORD_EXECUTION,
                .execution_id = "exe-a",
                .context_id = "ctx-a",
                .owner = "key-a",
                .start_time_usec = 1700000000000000,
                .end_time_usec = 1700000001000000,
                .usage = { .cpu_usec = 1500000, .missing = BIT(USAGE_PART_TRAFFIC) },
                .outcome = OUTCOME_OOM,
                .cause = CAUSE_LIMIT,
                .is_incomplete = true,
        };
        database.list = (struct usage_list){ .n = 1, .last_time_usec = 42 };
        database.n_steps = 1;
        database.scope = (struct usage_scope){ .is_owner_known = true,
                                               .is_sandbox_known = true,
                                               .is_execution_known = true };
}

static void tear_down(void)
{
        usage_turns_deinit(&api.usage_turns);
        api.loop = sd_event_unref(api.loop);
        hotcell__v1__get_usage_response__free_unpacked(client.answer, NULL);
}

static struct api_call *open_call(Hotcell__V1__GetUsageRequest *request, bool is_operator)
{
        static const struct api_method method = { .path = "/hotcell.v1.UsageService/GetUsage" };
        struct api_call *call = calloc(1, sizeof(*call));
        size_t n = hotcell__v1__get_usage_request__get_packed_size(request);
        uint8_t *packed = malloc(n + 1);
        static char rpc;

        ck_assert_ptr_nonnull(call);
        (void)hotcell__v1__get_usage_request__pack(request, packed);
        call->api = &api;
        call->method = &method;
        call->rpc = (void *)&rpc; /* never looked into */
        call->n_holders = 2;
        call->identity.is_operator = is_operator;
        (void)strcpy(call->identity.owner, is_operator ? "uid:0" : "key-a");
        call->request = protobuf_c_message_unpack(request->base.descriptor, NULL, n, packed);
        free(packed);
        return call;
}

static void ask_as(Hotcell__V1__GetUsageRequest *request, bool is_operator)
{
        struct api_call *call = open_call(request, is_operator);

        client.n_answers = 0;
        client.code = RPC_OK;
        hotcell__v1__get_usage_response__free_unpacked(client.answer, NULL);
        client.answer = NULL;
        api_get_usage(call, call->request);
        ck_assert_uint_eq(client.n_answers, 1);
        api_call_release(call);
}

static void ask(Hotcell__V1__GetUsageRequest *request)
{
        ask_as(request, false);
}

START_TEST(a_page_has_all_of_each_record)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        const Hotcell__V1__UsageRecord *record;

        ask(&request);
        ck_assert_uint_eq(client.answer->n_records, 1);
        record = client.answer->records[0];
        ck_assert_str_eq(record->sandbox_id, "sbx-a");
        ck_assert_int_eq(record->sequence, 7);
        ck_assert_int_eq(record->type, HOTCELL__V1__USAGE_RECORD_TYPE__USAGE_RECORD_TYPE_EXECUTION);
        ck_assert_str_eq(record->execution_id, "exe-a");
        ck_assert_str_eq(record->context_id, "ctx-a");
        ck_assert_str_eq(record->owner, "key-a");
        ck_assert_int_eq(record->start_time->seconds, 1700000000);
        ck_assert_int_eq(record->end_time->seconds, 1700000001);
        ck_assert_int_eq(record->usage->cpu_time->nanos, 500000000);
        ck_assert_uint_eq(record->usage->n_missing, 2);
        ck_assert_int_eq(record->outcome, HOTCELL__V1__OUTCOME__OUTCOME_OOM);
        ck_assert_int_eq(record->cause, HOTCELL__V1__CAUSE__CAUSE_LIMIT);
        ck_assert(record->incomplete);
        ck_assert_str_eq(client.answer->next_page_token, "");
        ck_assert_uint_eq(database.query.limit, 50);
        ck_assert_str_eq(database.sandbox_id, "(all)");
}
END_TEST

START_TEST(sums_are_taken_step_by_step)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        database.n_steps = 4;
        ask(&request);
        ck_assert_uint_eq(database.n_sums, 4);
        for (int i = 0; i < 4; i++)
                ck_assert_int_eq(database.after[i], i * 4096);
        ck_assert_int_eq(client.answer->sums->cpu_time->seconds, 4);
        ck_assert_int_eq(client.answer->sums->memory_peak_bytes, 10);
        ck_assert_int_eq(client.answer->records_total, 12);
        ck_assert_uint_eq(client.answer->sums->n_missing, 0);
        ck_assert_uint_eq(database.n_destinations, 0);
}
END_TEST

START_TEST(ids_of_nothing_are_not_found)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        request.sandbox_id = unconst("sbx-b");
        request.execution_id = unconst("exe-b");
        database.scope.is_execution_known = false;
        ask(&request);
        ck_assert_int_eq(client.code, RPC_NOT_FOUND);
        ck_assert_str_eq(client.message, "There is no execution exe-b.");
        database.scope.is_sandbox_known = false;
        ask(&request);
        ck_assert_int_eq(client.code, RPC_NOT_FOUND);
        ck_assert_str_eq(client.message, "There is no sandbox sbx-b.");
        ck_assert_uint_eq(database.n_lists, 0);
        ck_assert_uint_eq(database.n_sums, 0);
        database.scope_result = -EIO;
        ask(&request);
        ck_assert_int_eq(client.code, RPC_UNAVAILABLE);
        ck_assert_uint_eq(api.usage_turns.n, 0);
}
END_TEST

START_TEST(an_owner_that_never_was_is_not_found)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        request.owner = unconst("key-zzz");
        database.scope.is_owner_known = false;
        ask_as(&request, true);
        ck_assert_int_eq(client.code, RPC_NOT_FOUND);
        ck_assert_str_eq(client.message, "there is and was no key key-zzz");
        ck_assert_uint_eq(database.n_sums, 0);
        request.owner = unconst("uid:77");
        ask_as(&request, true);
        ck_assert_int_eq(client.code, RPC_OK);
}
END_TEST

START_TEST(an_owner_that_is_none_is_refused)
{
        static const char *const wrong[] = { "ci", "uid:", "uid:x", "uid:4294967296", "key-A" };
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                request.owner = unconst(wrong[i]);
                ask_as(&request, true);
                ck_assert_int_eq(client.code, RPC_INVALID_ARGUMENT);
                ck_assert_ptr_nonnull(strstr(client.message, "owner"));
        }
}
END_TEST

START_TEST(it_is_told_until_when_records_are_complete)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        ask(&request);
        ck_assert_ptr_null(client.answer->complete_until);
        database.scope.complete_until_usec = 1700000001000000;
        ask(&request);
        ck_assert_int_eq(client.answer->complete_until->seconds, 1700000001);
}
END_TEST

START_TEST(the_mean_of_memory_is_not_above_its_peak)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        struct usage *usage = &database.records[0].usage;

        *usage = (struct usage){ .wall_usec = 2000000,
                                 .memory_byte_seconds = 3000,
                                 .memory_peak_bytes = 2000 };
        ask(&request);
        ck_assert_int_eq(client.answer->records[0]->usage->memory_mean_bytes, 1500);
        usage->memory_byte_seconds = 9000;
        ask(&request);
        ck_assert_int_eq(client.answer->records[0]->usage->memory_mean_bytes, 2000);
        usage->missing = BIT(USAGE_PART_MEMORY_PEAK); /* it is not known */
        usage->memory_peak_bytes = 0;
        ask(&request);
        ck_assert_int_eq(client.answer->records[0]->usage->memory_mean_bytes, 4500);
}
END_TEST

START_TEST(sums_tell_what_is_missing_in_how_many_records)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        database.n_steps = 5;
        database.is_partial = true;
        ask(&request);
        ck_assert_int_eq(client.answer->records_incomplete, 5);
        ck_assert_uint_eq(client.answer->n_gaps, client.answer->sums->n_missing);
        ck_assert_uint_eq(client.answer->n_gaps, 4);
        for (size_t i = 0; i < client.answer->n_gaps; i++) {
                const Hotcell__V1__UsageGap *gap = client.answer->gaps[i];
                bool is_peak = strcmp(gap->field, "memory_peak_bytes") == 0;

                ck_assert_str_eq(gap->field, client.answer->sums->missing[i]);
                ck_assert_int_eq(gap->records, is_peak ? 5 : 3);
        }
}
END_TEST

START_TEST(nothing_is_summed_for_who_left)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        struct api_call *call = open_call(&request, false);

        database.n_steps = 8;
        database.leaves = call;
        api_get_usage(call, call->request);
        ck_assert_uint_eq(database.n_sums, 1);
        ck_assert_uint_eq(client.n_answers, 1);
        api_call_release(call);
}
END_TEST

/* The clock is the loop's: a pause is over when that has waited for it. */
START_TEST(a_call_rests_after_each_step)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        struct api_call *call;
        uint64_t start, end;

        request.sandbox_id = unconst("sbx-a");
        request.destinations = true;
        call = open_call(&request, false);
        database.n_steps = 3;
        database.cost_usec = 5000;
        ck_assert_int_ge(sd_event_now(api.loop, CLOCK_MONOTONIC, &start), 0);
        api_get_usage(call, call->request);
        ck_assert_uint_eq(database.n_lists, 0); /* it has found the scope */
        while (client.n_answers == 0)
                ck_assert_int_gt(sd_event_run(api.loop, UINT64_MAX), 0);
        ck_assert_int_ge(sd_event_now(api.loop, CLOCK_MONOTONIC, &end), 0);
        ck_assert_uint_eq(database.n_sums, 3);
        ck_assert_uint_ge(end - start, 5ULL * 4 * 5000);
        ck_assert(api.usage_turns.is_resting); /* whoever comes next */
        api_call_release(call);
}
END_TEST

START_TEST(a_next_page_waits_for_its_turn_and_rests)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        struct api_call *call;
        char token[128];

        database.list.more = true;
        ask(&request);
        (void)snprintf(token, sizeof(token), "%s", client.answer->next_page_token);
        request.page_token = token;
        database.cost_usec = 5000;
        for (unsigned i = 2; i < 4; i++) {
                call = open_call(&request, false);
                client.n_answers = 0;
                api_get_usage(call, call->request);
                while (client.n_answers == 0)
                        ck_assert_int_gt(sd_event_run(api.loop, UINT64_MAX), 0);
                ck_assert_uint_eq(database.n_lists, i);
                ck_assert(api.usage_turns.is_resting);
                api_call_release(call);
        }
        call = open_call(&request, false);
        api_get_usage(call, call->request);
        ck_assert_uint_eq(database.n_lists, 3); /* not yet */
        api_call_fail(call, REASON_SHUTTING_DOWN, "gone");
        while (api.usage_turns.n > 0)
                ck_assert_int_gt(sd_event_run(api.loop, UINT64_MAX), 0);
        ck_assert_uint_eq(database.n_lists, 3);
        api_call_release(call);
}
END_TEST

/* Says the step that was asked for last. */
static void say_step(bool more)
{
        const struct asked asked = database.asked;
        const struct usage_scope scope = { .is_owner_known = true,
                                           .is_sandbox_known = true,
                                           .is_execution_known = true };
        const struct usage_list list = { .n = 0 };
        const struct usage_sums sums = { .more = more };
        const struct usage_destinations found = { .n = 0 };

        if (asked.on_scope)
                asked.on_scope(asked.userdata, 0, &scope);
        else if (asked.on_list)
                asked.on_list(asked.userdata, 0, &list);
        else if (asked.on_sums)
                asked.on_sums(asked.userdata, 0, &sums);
        else
                asked.on_destinations(asked.userdata, 0, &found);
}

static struct api_call *call_of(const char *owner)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        struct api_call *call = open_call(&request, false);

        (void)snprintf(call->identity.owner, sizeof(call->identity.owner), "%s", owner);
        api_get_usage(call, call->request);
        return call;
}

START_TEST(owners_take_turns_and_each_has_one_call_at_a_time)
{
        static const char *const owners[] = { "key-a", "key-b", "key-c" };
        struct api_call *calls[4];

        database.is_busy = true;
        calls[0] = call_of("key-a");
        calls[1] = call_of("key-a");
        calls[2] = call_of("key-b");
        calls[3] = call_of("key-c");
        ck_assert_uint_eq(database.n_asked, 1);
        /* The scope, the page, two steps of the sum: that of the first call is over before. */
        for (unsigned i = 0; i < 4 * ARRAY_SIZE(owners); i++) {
                ck_assert_str_eq(database.asked.owner, owners[i % ARRAY_SIZE(owners)]);
                say_step(i != 2 * ARRAY_SIZE(owners));
                ck_assert_uint_eq(client.n_answers, i < 2 * ARRAY_SIZE(owners) ? 0 : 1);
        }
        while (client.n_answers < ARRAY_SIZE(calls)) /* also the second one of key-a */
                say_step(false);
        ck_assert_uint_eq(database.n_asked, 3 * ARRAY_SIZE(calls) + 4);
        ck_assert_uint_eq(api.usage_turns.n, 0);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                api_call_release(calls[i]);
}
END_TEST

START_TEST(too_many_calls_are_refused)
{
        struct api_call *calls[USAGE_TURNS_OF_OWNER_MAX], *other;

        database.is_busy = true;
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                calls[i] = call_of("key-a");
        ck_assert_uint_eq(client.n_answers, 0);
        api_call_release(call_of("key-a"));
        ck_assert_uint_eq(client.n_answers, 1);
        ck_assert_int_eq(client.code, RPC_RESOURCE_EXHAUSTED);
        ck_assert(client.has_retry);
        other = call_of("key-b");
        ck_assert_uint_eq(client.n_answers, 1);
        for (size_t i = 0; i < 3 * (ARRAY_SIZE(calls) + 1); i++)
                say_step(false);
        ck_assert_uint_eq(client.n_answers, ARRAY_SIZE(calls) + 2);
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                api_call_release(calls[i]);
        api_call_release(other);
}
END_TEST

static void ignore_turn(struct usage_turn *turn)
{
        (void)turn;
}

/* However many owners there are. */
START_TEST(all_turns_together_are_bounded)
{
        static struct usage_turn turns[USAGE_TURNS_MAX];
        static char owners[USAGE_TURNS_MAX][8];
        static struct usage_turn other = { .owner = "other", .on_turn = ignore_turn };

        for (size_t i = 0; i < ARRAY_SIZE(turns); i++) {
                (void)snprintf(owners[i], sizeof(owners[i]), "%zu", i);
                turns[i] = (struct usage_turn){ .owner = owners[i], .on_turn = ignore_turn };
                ck_assert_int_eq(usage_turns_ask(&api.usage_turns, &turns[i]), 0);
        }
        ck_assert_int_eq(usage_turns_ask(&api.usage_turns, &other), USAGE_TURNS_E_FULL);
        ck_assert_ptr_null(other.turns);
        usage_turn_end(&turns[0], 0);
        ck_assert_int_eq(usage_turns_ask(&api.usage_turns, &other), 0);
        ck_assert_ptr_eq(api.usage_turns.current, &turns[1]);
}
END_TEST

START_TEST(who_left_has_no_turn_and_a_stop_ends_the_others)
{
        struct api_call *calls[3];

        database.is_busy = true;
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                calls[i] = call_of("key-a");
        api_call_fail(calls[1], REASON_KEY_REVOKED, "gone");
        ck_assert_uint_eq(database.n_asked, 1);
        api.is_shutting_down = true;
        say_step(true);
        ck_assert_uint_eq(database.n_asked, 1);
        ck_assert_uint_eq(client.n_answers, 3);
        ck_assert_int_eq(client.code, RPC_UNAVAILABLE);
        ck_assert_uint_eq(api.usage_turns.n, 0);
        api.is_shutting_down = false;
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                api_call_release(calls[i]);
}
END_TEST

/* As when the server is freed before its store. */
START_TEST(a_step_may_outlive_the_turns)
{
        struct api_call *calls[] = { NULL, NULL };

        database.is_busy = true;
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                calls[i] = call_of("key-a");
        for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
                api_call_fail(calls[i], REASON_SHUTTING_DOWN, "gone");
        usage_turns_deinit(&api.usage_turns);
        api_call_release(calls[1]); /* its last */
        calls[0]->api = NULL;
        say_step(true);
        ck_assert_uint_eq(database.n_asked, 1);
        api_call_release(calls[0]);
        usage_turns_init(&api.usage_turns, api.loop);
}
END_TEST

START_TEST(a_token_goes_on_with_the_same_filter_only)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        char token[128];

        request.sandbox_id = unconst("sbx-a");
        database.list.more = true;
        ask(&request);
        (void)snprintf(token, sizeof(token), "%s", client.answer->next_page_token);
        ck_assert_str_ne(token, "");

        request.page_token = token;
        request.page_size = 5000;
        ask(&request);
        ck_assert_int_eq(database.query.after_time_usec, 42);
        ck_assert_uint_eq(database.query.limit, 1000);
        ck_assert_uint_eq(database.n_sums, 1); /* those of the first page */
        ck_assert_ptr_null(client.answer->sums);

        request.execution_id = unconst("exe-a");
        ask(&request);
        ck_assert_int_eq(client.code, RPC_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(client.message, "page_token"));
}
END_TEST

/* Clients write a map in any order, and Go in another one each time. */
START_TEST(a_token_goes_on_with_the_same_labels_in_any_order)
{
        static Hotcell__V1__GetUsageRequest__LabelsEntry entries[4];
        Hotcell__V1__GetUsageRequest__LabelsEntry *order[] = { &entries[0], &entries[1],
                                                               &entries[2] };
        static char *const labels[][2] = { { "a", "1" }, { "b", "2" }, { "c", "3" }, { "b", "0" } };
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        char token[128];

        for (size_t i = 0; i < ARRAY_SIZE(entries); i++) {
                hotcell__v1__get_usage_request__labels_entry__init(&entries[i]);
                entries[i].key = labels[i][0];
                entries[i].value = labels[i][1];
        }
        request.labels = order;
        request.n_labels = 3;
        database.list.more = true;
        ask(&request);
        (void)snprintf(token, sizeof(token), "%s", client.answer->next_page_token);
        request.page_token = token;
        for (size_t i = 0; i < 3; i++) {
                Hotcell__V1__GetUsageRequest__LabelsEntry *last = order[2];

                memmove(&order[1], &order[0], 2 * sizeof(*order));
                order[0] = last;
                ask(&request);
                ck_assert_int_eq(client.code, RPC_OK);
                ck_assert_str_eq(client.answer->next_page_token, token);
        }
        for (size_t i = 0; i < 3; i++)
                order[i] = order[i] == &entries[1] ? &entries[3] : order[i];
        ask(&request);
        ck_assert_int_eq(client.code, RPC_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(client.message, "page_token"));
}
END_TEST

START_TEST(others_are_for_operators)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        ask(&request);
        ck_assert_str_eq(database.owner, "key-a");
        request.owner = unconst("key-a");
        ask(&request);
        ck_assert_str_eq(database.owner, "key-a");
        request.owner = unconst("key-b");
        ask(&request);
        ck_assert_int_eq(client.code, RPC_PERMISSION_DENIED);
        ck_assert_uint_eq(database.n_lists, 2);
        ask_as(&request, true);
        ck_assert_str_eq(database.owner, "key-b");
        request.owner = unconst("");
        ask_as(&request, true);
        ck_assert_str_eq(database.owner, "(all)");
}
END_TEST

START_TEST(destinations_need_something_that_they_are_of)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;

        request.destinations = true;
        ask(&request);
        ck_assert_int_eq(client.code, RPC_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(client.message, "destinations"));
        request.sandbox_id = unconst("sbx-a");
        ask(&request);
        ck_assert_uint_eq(client.answer->n_destinations, 1);
        ck_assert_str_eq(client.answer->destinations[0]->name, "example.org");
        ck_assert_int_eq(client.answer->destinations[0]->port, 443);
        ck_assert_int_eq(client.answer->destinations[0]->received_bytes, 4);
}
END_TEST

START_TEST(times_are_a_span)
{
        static const struct {
                int64_t start, end;
                const char *blamed;
        } cases[] = {
                { 5, 6, NULL },        { 0, 1, NULL },
                { 5, 5, "end_time" },  { 6, 5, "end_time" },
                { 0, 0, "end_time" },  { -1, 5, "start_time" },
                { 0, -1, "end_time" }, { INT64_MAX, INT64_MAX, "start_time" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
                Google__Protobuf__Timestamp start = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
                Google__Protobuf__Timestamp end = GOOGLE__PROTOBUF__TIMESTAMP__INIT;

                start.seconds = cases[i].start;
                end.seconds = cases[i].end;
                request.start_time = &start;
                request.end_time = &end;
                ask(&request);
                ck_assert_int_eq(client.code, cases[i].blamed ? RPC_INVALID_ARGUMENT : RPC_OK);
                if (cases[i].blamed)
                        ck_assert_ptr_nonnull(strstr(client.message, cases[i].blamed));
                else
                        ck_assert_int_eq(database.query.end_time_usec, cases[i].end * 1000000);
        }
}
END_TEST

START_TEST(a_store_that_fails_is_said)
{
        Hotcell__V1__GetUsageRequest request = HOTCELL__V1__GET_USAGE_REQUEST__INIT;
        int *const results[] = { &database.list_result, &database.sum_result,
                                 &database.destinations_result };

        request.sandbox_id = unconst("sbx-a");
        request.destinations = true;
        for (size_t i = 0; i < ARRAY_SIZE(results); i++) {
                *results[i] = -EIO;
                ask_as(&request, false);
                ck_assert_int_eq(client.code, RPC_UNAVAILABLE);
                *results[i] = 0;
        }
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("get_usage");
        TCase *tcase = tcase_create("calls");

        log_init("test", LOG_LEVEL_ERROR);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        tcase_add_test(tcase, a_page_has_all_of_each_record);
        tcase_add_test(tcase, sums_are_taken_step_by_step);
        tcase_add_test(tcase, sums_tell_what_is_missing_in_how_many_records);
        tcase_add_test(tcase, ids_of_nothing_are_not_found);
        tcase_add_test(tcase, an_owner_that_never_was_is_not_found);
        tcase_add_test(tcase, an_owner_that_is_none_is_refused);
        tcase_add_test(tcase, it_is_told_until_when_records_are_complete);
        tcase_add_test(tcase, the_mean_of_memory_is_not_above_its_peak);
        tcase_add_test(tcase, nothing_is_summed_for_who_left);
        tcase_add_test(tcase, a_call_rests_after_each_step);
        tcase_add_test(tcase, a_next_page_waits_for_its_turn_and_rests);
        tcase_add_test(tcase, owners_take_turns_and_each_has_one_call_at_a_time);
        tcase_add_test(tcase, too_many_calls_are_refused);
        tcase_add_test(tcase, all_turns_together_are_bounded);
        tcase_add_test(tcase, who_left_has_no_turn_and_a_stop_ends_the_others);
        tcase_add_test(tcase, a_step_may_outlive_the_turns);
        tcase_add_test(tcase, a_token_goes_on_with_the_same_filter_only);
        tcase_add_test(tcase, a_token_goes_on_with_the_same_labels_in_any_order);
        tcase_add_test(tcase, others_are_for_operators);
        tcase_add_test(tcase, destinations_need_something_that_they_are_of);
        tcase_add_test(tcase, times_are_a_span);
        tcase_add_test(tcase, a_store_that_fails_is_said);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
