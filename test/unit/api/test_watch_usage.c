/* WatchUsage on its way to a client, with the session's watch and the gRPC layer replaced by ones
 * that play along. */
#include <check.h>
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
#include "server/session/usage_watch.h"
#include "test/lib/suite.h"

/* What the client got. */
static struct {
        bool is_busy; /* a message is on its way */
        unsigned n_messages, n_sandboxes;
        unsigned n_ends;
        size_t largest;
        enum rpc_code code;
        Hotcell__V1__WatchUsageResponse *last;
        char last_id[ID_BUFFER];
        char field[64];
} client;

/* What the session plays. */
static struct {
        void (*on_measured)(void *userdata);
        void (*on_event)(void *userdata);
        void *userdata;
        uint64_t period_usec;
        unsigned n_sandboxes, n_executions, n_going_on, n_watches, n_streams;
        bool is_over;
        enum sandbox_state state;
        int stream_outcome;
} played;

static struct api api;

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata);
void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details);
bool __wrap_rpc_call_is_writable(struct rpc_call *call);
void __wrap_rpc_call_write(struct rpc_call *call, const void *message, size_t n_message);
void __wrap_rpc_call_finish(struct rpc_call *call);
int __wrap_usage_watch_new(struct session *session, const char *owner, const char *sandbox_id,
                           uint64_t period_usec, void (*on_measured)(void *userdata),
                           void *userdata, struct usage_watch **ret_watch);
struct usage_watch *__wrap_usage_watch_free(struct usage_watch *watch);
int __wrap_usage_watch_go_on(struct usage_watch *watch);
bool __wrap_usage_watch_is_over(const struct usage_watch *watch);
int64_t __wrap_usage_watch_time_usec(const struct usage_watch *watch);
int __wrap_usage_watch_each(const struct usage_watch *watch,
                            void (*on_sandbox)(void *userdata, const struct sandbox_now *now),
                            void *userdata);
void __wrap_session_get_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                                session_on_sandbox on_done, void *userdata);
int __wrap_session_watch_new(struct session *session, const char *owner,
                             void (*on_event)(void *userdata), void *userdata,
                             struct session_watch **ret_watch);
struct session_watch *__wrap_session_watch_free(struct session_watch *watch);
struct session_result __wrap_session_stream_new(struct session *session, const char *owner,
                                                struct session_stream **ret_stream);
struct session_stream *__wrap_session_stream_free(struct session_stream *stream);

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata)
{
        (void)call, (void)observer, (void)userdata;
}

void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details)
{
        Google__Rpc__Status *status = google__rpc__status__unpack(NULL, n_details, details);

        (void)call;
        ck_assert_ptr_nonnull(status);
        (void)snprintf(client.field, sizeof(client.field), "%.*s", (int)strcspn(message, " "),
                       message);
        google__rpc__status__free_unpacked(status, NULL);
        client.code = code;
        client.n_ends++;
}

bool __wrap_rpc_call_is_writable(struct rpc_call *call)
{
        (void)call;
        return !client.is_busy;
}

void __wrap_rpc_call_write(struct rpc_call *call, const void *message, size_t n_message)
{
        Hotcell__V1__WatchUsageResponse *response =
                hotcell__v1__watch_usage_response__unpack(NULL, n_message, message);

        (void)call;
        ck_assert(!client.is_busy);
        ck_assert_ptr_nonnull(response);
        client.is_busy = true;
        client.n_messages++;
        client.largest = MAX(client.largest, n_message);
        for (size_t i = 0; i < response->n_sandboxes; i++) {
                ck_assert_str_gt(response->sandboxes[i]->sandbox_id, client.last_id);
                (void)snprintf(client.last_id, sizeof(client.last_id), "%s",
                               response->sandboxes[i]->sandbox_id);
                client.n_sandboxes++;
        }
        hotcell__v1__watch_usage_response__free_unpacked(client.last, NULL);
        client.last = response;
}

void __wrap_rpc_call_finish(struct rpc_call *call)
{
        (void)call;
        client.code = RPC_OK;
        client.n_ends++;
}

int __wrap_usage_watch_new(struct session *session, const char *owner, const char *sandbox_id,
                           uint64_t period_usec, void (*on_measured)(void *userdata),
                           void *userdata, struct usage_watch **ret_watch)
{
        static char watch;

        (void)session, (void)sandbox_id;
        ck_assert_str_eq(owner, "key-a");
        played.on_measured = on_measured;
        played.userdata = userdata;
        played.period_usec = period_usec;
        played.n_watches++;
        *ret_watch = (void *)&watch; /* never looked into */
        return 0;
}

struct usage_watch *__wrap_usage_watch_free(struct usage_watch *watch)
{
        played.n_watches -= watch != NULL;
        return NULL;
}

int __wrap_usage_watch_go_on(struct usage_watch *watch)
{
        (void)watch;
        played.n_going_on++;
        return 0;
}

bool __wrap_usage_watch_is_over(const struct usage_watch *watch)
{
        (void)watch;
        return played.is_over;
}

int64_t __wrap_usage_watch_time_usec(const struct usage_watch *watch)
{
        (void)watch;
        return 1700000000123456;
}

int __wrap_usage_watch_each(const struct usage_watch *watch,
                            void (*on_sandbox)(void *userdata, const struct sandbox_now *now),
                            void *userdata)
{
        static struct sandbox_record records[2000];
        static struct sandbox_now now;

        (void)watch;
        for (unsigned i = 0; i < played.n_sandboxes; i++) {
                struct sandbox_record *record = &records[i];

                (void)snprintf(record->sandbox_id, sizeof(record->sandbox_id), "sbx-%08u", i);
                (void)strcpy(record->name, "name");
                record->state = SANDBOX_RUNNING;
                record->limits.memory_bytes = 1 << 30;
                now = (struct sandbox_now){ .record = record, .is_measured = i % 2 == 0 };
                now.usage = (struct sandbox_usage){
                        .memory_bytes = 5,
                        .processes = 6,
                        .total = { .cpu_usec = INT64_MAX / 2, .memory_peak_bytes = INT64_MAX },
                };
                now.pressures[0] = (struct sandbox_pressure){
                        .kind = PRESSURE_PROCESSES, .used = 250, .limit = 256, .time_usec = 1
                };
                now.n_pressures = 1;
                for (unsigned j = 0; j < played.n_executions; j++) {
                        now.executions[now.n_executions++] = (struct execution_now){
                                .execution_id = "exe-aaaaaaaaaaaaaaaaaaaaaaaaaa",
                                .context_id = "ctx-aaaaaaaaaaaaaaaaaaaaaaaaaa",
                                .memory_bytes = INT64_MAX,
                                .usage = { .cpu_usec = 1200000, .missing = ~0U },
                        };
                }
                on_sandbox(userdata, &now);
        }
        return played.is_over ? USAGE_WATCH_E_OVER : 0;
}

void __wrap_session_get_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                                session_on_sandbox on_done, void *userdata)
{
        struct session_result result = { 0 };
        struct sandbox_record record = { .state = played.state };

        (void)session, (void)owner;
        (void)snprintf(record.sandbox_id, sizeof(record.sandbox_id), "%s", sandbox_id);
        if (!played.state)
                result.outcome = SESSION_E_SANDBOX_NOT_FOUND;
        on_done(userdata, &result, played.state ? &record : NULL, false);
}

int __wrap_session_watch_new(struct session *session, const char *owner,
                             void (*on_event)(void *userdata), void *userdata,
                             struct session_watch **ret_watch)
{
        static char watch;

        (void)session, (void)owner;
        ck_assert_ptr_eq(userdata, played.userdata);
        played.on_event = on_event;
        *ret_watch = (void *)&watch;
        return 0;
}

struct session_watch *__wrap_session_watch_free(struct session_watch *watch)
{
        (void)watch;
        return NULL;
}

struct session_result __wrap_session_stream_new(struct session *session, const char *owner,
                                                struct session_stream **ret_stream)
{
        static char stream;

        (void)session, (void)owner;
        if (played.stream_outcome == 0) {
                *ret_stream = (void *)&stream;
                played.n_streams++;
        }
        return (struct session_result){ .outcome = played.stream_outcome };
}

struct session_stream *__wrap_session_stream_free(struct session_stream *stream)
{
        played.n_streams -= stream != NULL;
        return NULL;
}

static void set_up(void)
{
        memset(&client, 0, sizeof(client));
        memset(&played, 0, sizeof(played));
        played.n_sandboxes = 1;
        played.state = SANDBOX_RUNNING;
        LIST_INIT(&api.usage_streams);
}

static void tear_down(void)
{
        hotcell__v1__watch_usage_response__free_unpacked(client.last, NULL);
        ck_assert(LIST_EMPTY(&api.usage_streams));
        ck_assert_uint_eq(played.n_watches, 0);
        ck_assert_uint_eq(played.n_streams, 0);
}

/* A call that is held by the test. */
static struct api_call *ask(const char *sandbox_id, int64_t period_msec)
{
        static const struct api_method method = { .path = "/hotcell.v1.UsageService/WatchUsage" };
        struct api_call *call = calloc(1, sizeof(*call));
        Hotcell__V1__WatchUsageRequest request = HOTCELL__V1__WATCH_USAGE_REQUEST__INIT;
        Google__Protobuf__Duration period = GOOGLE__PROTOBUF__DURATION__INIT;
        uint8_t packed[128];
        size_t n;
        static char rpc;

        ck_assert_ptr_nonnull(call);
        request.sandbox_id = unconst(sandbox_id);
        period.seconds = period_msec / 1000;
        period.nanos = (int32_t)(period_msec % 1000 * 1000000);
        if (period_msec >= 0)
                request.period = &period;
        n = hotcell__v1__watch_usage_request__pack(&request, packed);
        call->api = &api;
        call->method = &method;
        call->rpc = (void *)&rpc; /* never looked into */
        call->n_holders = 2;
        (void)strcpy(call->identity.owner, "key-a");
        call->request = protobuf_c_message_unpack(request.base.descriptor, NULL, n, packed);
        api_watch_usage(call, call->request);
        return call;
}

/* The message that was on its way went out. */
static void go_out(struct api_call *call)
{
        client.is_busy = false;
        call->on_writable(call);
}

static void end(struct api_call *call)
{
        if (api_call_is_open(call))
                api_call_finish(call);
        api_call_release(call);
}

START_TEST(a_measurement_is_told_and_the_next_one_asked_for_when_it_is_out)
{
        struct api_call *call = ask("", -1);
        const Hotcell__V1__SandboxUsageNow *now;

        ck_assert_uint_eq(played.period_usec, 1000000);
        ck_assert_uint_eq(client.n_messages, 0);
        played.n_executions = 1;
        played.on_measured(played.userdata);
        ck_assert_uint_eq(client.n_messages, 1);
        ck_assert_uint_eq(played.n_going_on, 0);
        go_out(call);
        ck_assert_uint_eq(played.n_going_on, 1);
        call->on_writable(call); /* told again: nothing is to be done */
        ck_assert_uint_eq(played.n_going_on, 1);

        ck_assert(!client.last->more);
        ck_assert_int_eq(client.last->time->seconds, 1700000000);
        now = client.last->sandboxes[0];
        ck_assert_str_eq(now->name, "name");
        ck_assert_int_eq(now->usage->memory_bytes, 5);
        ck_assert_int_eq(now->usage->processes, 6);
        ck_assert_int_eq(now->usage->total->memory_peak_bytes, INT64_MAX);
        ck_assert_int_eq(now->limits->memory_bytes, 1 << 30);
        ck_assert_uint_eq(now->n_pressures, 1);
        ck_assert_int_eq(now->pressures[0]->kind,
                         HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_PROCESSES);
        ck_assert_int_eq(now->pressures[0]->used, 250);
        ck_assert_int_eq(now->executions[0]->usage->cpu_time->seconds, 1);
        ck_assert_int_eq(now->executions[0]->memory_bytes, INT64_MAX);
        end(call);
}
END_TEST

START_TEST(what_was_not_measured_has_no_usage)
{
        struct api_call *call = ask("", 100);

        played.n_sandboxes = 2;
        played.on_measured(played.userdata);
        ck_assert_ptr_nonnull(client.last->sandboxes[0]->usage);
        ck_assert_ptr_null(client.last->sandboxes[1]->usage);
        end(call);
}
END_TEST

START_TEST(nobody_lives_is_told_too)
{
        struct api_call *call = ask("", 60000);

        played.n_sandboxes = 0;
        played.on_measured(played.userdata);
        ck_assert_uint_eq(client.n_messages, 1);
        ck_assert_uint_eq(client.n_sandboxes, 0);
        end(call);
}
END_TEST

START_TEST(many_sandboxes_are_told_in_messages_that_are_small_enough)
{
        struct api_call *call = ask("", -1);
        unsigned n = 0;

        played.n_sandboxes = 2000;
        played.n_executions = USAGE_EXECUTIONS_MAX;
        played.on_measured(played.userdata);
        while (client.last->more) {
                ck_assert_uint_eq(played.n_going_on, 0);
                go_out(call);
                ck_assert_uint_eq(client.n_messages, ++n + 1);
        }
        ck_assert_uint_eq(client.n_sandboxes, 2000);
        ck_assert_uint_gt(client.n_messages, 5);
        ck_assert_uint_lt(client.largest, 1 << 20);
        go_out(call);
        ck_assert_uint_eq(played.n_going_on, 1);
        end(call);
}
END_TEST

START_TEST(who_leaves_in_the_middle_leaves_nothing)
{
        struct api_call *call = ask("", -1);

        played.n_sandboxes = 2000;
        played.on_measured(played.userdata);
        ck_assert(client.last->more);
        end(call);
}
END_TEST

START_TEST(periods_are_bounded)
{
        static const int64_t wrong[] = { 0, 99, 60001, 3600000 };

        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
                client.n_ends = 0;
                end(ask("", wrong[i]));
                ck_assert_uint_eq(client.n_ends, 1);
                ck_assert_int_eq(client.code, RPC_INVALID_ARGUMENT);
                ck_assert_str_eq(client.field, "period");
        }
}
END_TEST

START_TEST(it_is_a_stream_of_which_there_may_be_no_more)
{
        played.stream_outcome = SESSION_E_STREAM_LIMIT;
        end(ask("", -1));
        ck_assert_int_eq(client.code, RPC_RESOURCE_EXHAUSTED);
        ck_assert_uint_eq(client.n_ends, 1);
}
END_TEST

START_TEST(a_sandbox_that_is_not_there_or_over_is_refused)
{
        played.state = (enum sandbox_state)0;
        end(ask("sbx-a", -1));
        ck_assert_int_eq(client.code, RPC_NOT_FOUND);
        played.state = SANDBOX_ENDED;
        end(ask("sbx-a", -1));
        ck_assert_int_eq(client.code, RPC_FAILED_PRECONDITION);
        ck_assert_uint_eq(client.n_ends, 2);
}
END_TEST

START_TEST(the_stream_of_a_sandbox_ends_with_it)
{
        struct api_call *call = ask("sbx-a", -1);

        played.on_measured(played.userdata);
        played.on_event(played.userdata);
        ck_assert_uint_eq(client.n_ends, 0);
        played.is_over = true;
        played.on_event(played.userdata);
        ck_assert_uint_eq(client.n_ends, 1);
        ck_assert_int_eq(client.code, RPC_OK);
        end(call);

        call = ask("sbx-a", -1); /* it ended before it was measured */
        played.on_measured(played.userdata);
        ck_assert_uint_eq(client.n_ends, 2);
        ck_assert_int_eq(client.code, RPC_OK);
        end(call);
}
END_TEST

START_TEST(a_stop_of_the_server_ends_them)
{
        struct api_call *all = ask("", -1), *one = ask("sbx-a", -1);

        api_end_usage_streams(&api);
        ck_assert_uint_eq(client.n_ends, 2);
        ck_assert_int_eq(client.code, RPC_UNAVAILABLE);
        end(all);
        end(one);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &a_measurement_is_told_and_the_next_one_asked_for_when_it_is_out,
                &what_was_not_measured_has_no_usage,
                &nobody_lives_is_told_too,
                &many_sandboxes_are_told_in_messages_that_are_small_enough,
                &who_leaves_in_the_middle_leaves_nothing,
                &periods_are_bounded,
                &it_is_a_stream_of_which_there_may_be_no_more,
                &a_sandbox_that_is_not_there_or_over_is_refused,
                &the_stream_of_a_sandbox_ends_with_it,
                &a_stop_of_the_server_ends_them,
        };
        Suite *suite = suite_create("watch_usage");
        TCase *tcase = tcase_create("calls");

        log_init("test", LOG_LEVEL_ERROR);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, *tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
