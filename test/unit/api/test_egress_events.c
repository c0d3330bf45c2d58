/* Egress events on their way to a client, with the store, the session's reader and the gRPC layer
 * replaced by ones that play along. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/status.pb-c.h"
#include "hotcell/v1/egress_service.pb-c.h"
#include "hotcell/v1/execution_service.pb-c.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/event_stream.h"
#include "server/rpc/rpc.h"
#include "server/session/session.h"
#include "server/store/store.h"
#include "test/lib/suite.h"

/* What the client got. */
static struct {
        unsigned n_answers;
        enum rpc_code code;
        Google__Rpc__Status *status;
        Hotcell__V1__ListEgressEventsResponse *list;
        Hotcell__V1__AttachExecutionResponse *events;
} client;

/* What the store is asked and says. */
static struct {
        bool is_asked;
        struct egress_query query;
        char owner[OWNER_BUFFER], sandbox_id[ID_BUFFER], execution_id[ID_BUFFER];
        int result;
        struct egress_record records[3];
        struct egress_list list;
} database;

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata);
void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details);
void __wrap_rpc_call_reply(struct rpc_call *call, const void *message, size_t n_message);
bool __wrap_rpc_call_has_room(const struct rpc_call *call, size_t n);
bool __wrap_rpc_call_is_writable(struct rpc_call *call);
void __wrap_rpc_call_write(struct rpc_call *call, const void *message, size_t n_message);
void __wrap_rpc_call_finish(struct rpc_call *call);
void __wrap_store_list_egress_events(struct store *store, const struct egress_query *query,
                                     store_on_egress_events on_done, void *userdata);
int __wrap_execution_reader_new(struct session *session, const char *owner,
                                const char *execution_id, int64_t after_sequence,
                                void (*on_readable)(void *userdata), void *userdata,
                                struct execution_reader **ret_reader,
                                struct session_result *ret_result);
int __wrap_execution_reader_next(struct execution_reader *reader,
                                 struct execution_event *ret_event);
struct execution_reader *__wrap_execution_reader_free(struct execution_reader *reader);

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata)
{
        (void)call;
        ck_assert_ptr_null(observer);
        ck_assert_ptr_null(userdata);
}

void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details)
{
        (void)call;
        (void)message;
        client.n_answers++;
        client.code = code;
        client.status = google__rpc__status__unpack(NULL, n_details, details);
        ck_assert_ptr_nonnull(client.status);
}

void __wrap_rpc_call_reply(struct rpc_call *call, const void *message, size_t n_message)
{
        (void)call;
        client.n_answers++;
        client.list = hotcell__v1__list_egress_events_response__unpack(NULL, n_message, message);
        ck_assert_ptr_nonnull(client.list);
}

bool __wrap_rpc_call_has_room(const struct rpc_call *call, size_t n)
{
        (void)call;
        return n < 1 << 20;
}

bool __wrap_rpc_call_is_writable(struct rpc_call *call)
{
        (void)call;
        return true;
}

void __wrap_rpc_call_write(struct rpc_call *call, const void *message, size_t n_message)
{
        (void)call;
        client.events = hotcell__v1__attach_execution_response__unpack(NULL, n_message, message);
        ck_assert_ptr_nonnull(client.events);
}

void __wrap_rpc_call_finish(struct rpc_call *call)
{
        (void)call;
        client.n_answers++;
}

void __wrap_store_list_egress_events(struct store *store, const struct egress_query *query,
                                     store_on_egress_events on_done, void *userdata)
{
        (void)store;
        database.is_asked = true;
        database.query = *query;
        (void)snprintf(database.owner, sizeof(database.owner), "%s", query->owner);
        (void)snprintf(database.sandbox_id, sizeof(database.sandbox_id), "%s", query->sandbox_id);
        (void)snprintf(database.execution_id, sizeof(database.execution_id), "%s",
                       query->execution_id ? query->execution_id : "");
        on_done(userdata, database.result, database.result ? NULL : &database.list);
}

int __wrap_execution_reader_new(struct session *session, const char *owner,
                                const char *execution_id, int64_t after_sequence,
                                void (*on_readable)(void *userdata), void *userdata,
                                struct execution_reader **ret_reader,
                                struct session_result *ret_result)
{
        static char reader;

        (void)session, (void)owner, (void)execution_id, (void)after_sequence, (void)on_readable;
        (void)userdata;
        *ret_reader = (void *)&reader; /* never looked into */
        *ret_result = (struct session_result){ 0 };
        return 0;
}

static unsigned n_read;

int __wrap_execution_reader_next(struct execution_reader *reader, struct execution_event *ret_event)
{
        (void)reader;
        if (n_read++ > 0)
                return READER_E_END;
        *ret_event = (struct execution_event){
                .sequence = 4,
                .event_time_usec = 5000000,
                .kind = EXECUTION_EVENT_EGRESS,
                .egress = { .record = &database.records[0], .left_out = 6 },
        };
        return 0;
}

struct execution_reader *__wrap_execution_reader_free(struct execution_reader *reader)
{
        (void)reader;
        return NULL;
}

static const struct api_method method = { .path = "/hotcell.v1.EgressService/ListEgressEvents" };
static struct api api;

static void set_up(void)
{
        struct egress_record *record = &database.records[0];

        memset(&client, 0, sizeof(client));
        memset(&database, 0, sizeof(database));
        n_read = 0;
        database.list.records = database.records;
        database.list.n = 1;
        *record = (struct egress_record){
                .sequence = 12,
                .event_time_usec = 1700000000123456,
                .sandbox_id = "sbx-a",
                .execution_id = "exe-a",
                .type = EGRESS_EVENT_FAILED,
                .protocol = EGRESS_PROTOCOL_TCP,
                .address = "2001:db8::1",
                .port = 443,
                .name = "example.org",
                .reason = EGRESS_REASON_RULE,
                .rule_index = 2,
                .policy_version = 3,
                .pid = 4,
                .command = "curl",
                .count = 5,
                .error_number = ECONNREFUSED,
                .sent_bytes = 6,
                .received_bytes = 7,
                .duration_usec = 1500000,
                .rule = "deny 2001:db8::/32",
        };
        database.records[1] = *record;
        database.records[1].sequence = 13;
        database.records[1].type = EGRESS_EVENT_FLOW_ENDED;
        database.records[1].error_number = 0;
}

/* A call that waits for its answer, and is held by the test. */
static struct api_call *open_call(void)
{
        struct api_call *call = calloc(1, sizeof(*call));
        static char rpc;

        ck_assert_ptr_nonnull(call);
        call->api = &api;
        call->method = &method;
        call->rpc = (void *)&rpc; /* never looked into */
        call->n_holders = 2;
        (void)strcpy(call->identity.owner, "key-a");
        return call;
}

/* Asks; what was answered is in `client`. */
static void ask(Hotcell__V1__ListEgressEventsRequest *request)
{
        struct api_call *call = open_call();
        size_t n = hotcell__v1__list_egress_events_request__get_packed_size(request);
        uint8_t *packed = malloc(n + 1);

        (void)hotcell__v1__list_egress_events_request__pack(request, packed);
        google__rpc__status__free_unpacked(client.status, NULL);
        client.status = NULL;
        client.n_answers = 0;
        database.is_asked = false;
        call->request = protobuf_c_message_unpack(request->base.descriptor, NULL, n, packed);
        api_list_egress_events(call, call->request);
        ck_assert_uint_eq(client.n_answers, 1);
        api_call_release(call);
        free(packed);
}

static Hotcell__V1__ListEgressEventsRequest request_of(const char *sandbox_id)
{
        Hotcell__V1__ListEgressEventsRequest request =
                HOTCELL__V1__LIST_EGRESS_EVENTS_REQUEST__INIT;

        request.sandbox_id = unconst(sandbox_id);
        return request;
}

static void check_event(const Hotcell__V1__EgressEvent *event)
{
        ck_assert_int_eq(event->sequence, 12);
        ck_assert_int_eq(event->event_time->seconds, 1700000000);
        ck_assert_int_eq(event->event_time->nanos, 123456000);
        ck_assert_str_eq(event->sandbox_id, "sbx-a");
        ck_assert_str_eq(event->execution_id, "exe-a");
        ck_assert_int_eq(event->type, HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FAILED);
        ck_assert_str_eq(event->address, "2001:db8::1");
        ck_assert_int_eq(event->port, 443);
        ck_assert_int_eq(event->protocol, HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_TCP);
        ck_assert_str_eq(event->name, "example.org");
        ck_assert_int_eq(event->reason, HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_RULE);
        ck_assert_int_eq(event->rule_index, 2);
        ck_assert_str_eq(event->rule, "deny 2001:db8::/32");
        ck_assert_int_eq(event->policy_version, 3);
        ck_assert_int_eq(event->pid, 4);
        ck_assert_str_eq(event->command, "curl");
        ck_assert_int_eq(event->count, 5);
        ck_assert_int_eq(event->error_number, ECONNREFUSED);
        ck_assert_str_eq(event->error, "ECONNREFUSED");
        ck_assert_int_eq(event->sent_bytes, 6);
        ck_assert_int_eq(event->received_bytes, 7);
        ck_assert_ptr_null(event->duration);
}

START_TEST(a_list_has_all_of_each_event)
{
        Hotcell__V1__ListEgressEventsRequest request = request_of("sbx-a");
        Hotcell__V1__EgressEventType types[] = {
                HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_DENIED,
                HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FLOW_ENDED,
        };

        request.execution_id = unconst("exe-a");
        request.types = types;
        request.n_types = 2;
        database.list.n = 2;
        ask(&request);
        ck_assert(database.is_asked);
        ck_assert_str_eq(database.owner, "key-a");
        ck_assert_str_eq(database.sandbox_id, "sbx-a");
        ck_assert_str_eq(database.execution_id, "exe-a");
        ck_assert_uint_eq(database.query.types,
                          BIT(EGRESS_EVENT_DENIED) | BIT(EGRESS_EVENT_FLOW_ENDED));
        ck_assert_uint_eq(database.query.limit, 50);
        ck_assert_int_eq(database.query.after_sequence, 0);
        ck_assert_uint_eq(client.list->n_events, 2);
        check_event(client.list->events[0]);
        ck_assert_int_eq(client.list->events[0]->left_out, 0);
        ck_assert_int_eq(client.list->events[1]->duration->seconds, 1);
        ck_assert_int_eq(client.list->events[1]->duration->nanos, 500000000);
        ck_assert_str_eq(client.list->events[1]->error, "");
        ck_assert_str_eq(client.list->next_page_token, "");
}
END_TEST

START_TEST(a_token_goes_on_after_the_last_event)
{
        Hotcell__V1__ListEgressEventsRequest request = request_of("sbx-a");
        Hotcell__V1__ListEgressEventsResponse *first;

        database.list.more = true;
        request.page_size = 1;
        ask(&request);
        ck_assert_uint_eq(database.query.limit, 1);
        first = client.list;
        request.page_token = first->next_page_token;
        request.page_size = 7;
        ask(&request);
        ck_assert_int_eq(database.query.after_sequence, 12);

        request.execution_id = unconst("exe-a"); /* another filter */
        ask(&request);
        ck_assert(!database.is_asked);
        ck_assert_int_eq(client.code, RPC_INVALID_ARGUMENT);
        ck_assert_ptr_nonnull(strstr(client.status->message, "page_token"));
        hotcell__v1__list_egress_events_response__free_unpacked(first, NULL);
}
END_TEST

START_TEST(what_is_wrong_is_said)
{
        Hotcell__V1__ListEgressEventsRequest request = request_of("");
        Hotcell__V1__EgressEventType types[] = { (Hotcell__V1__EgressEventType)4 };

        ask(&request);
        ck_assert_ptr_nonnull(strstr(client.status->message, "sandbox_id"));
        request = request_of("sbx-a");
        request.page_size = -1;
        ask(&request);
        ck_assert_ptr_nonnull(strstr(client.status->message, "page_size"));
        request.page_size = 0;
        request.types = types;
        request.n_types = 1;
        ask(&request);
        ck_assert_ptr_nonnull(strstr(client.status->message, "unknown type 4"));
        types[0] = HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_UNSPECIFIED;
        ask(&request);
        ck_assert_int_eq(client.code, RPC_INVALID_ARGUMENT);
        ck_assert(!database.is_asked);
}
END_TEST

START_TEST(what_is_not_there_is_not_found)
{
        Hotcell__V1__ListEgressEventsRequest request = request_of("sbx-a");

        database.result = STORE_E_NOT_FOUND;
        ask(&request);
        ck_assert_int_eq(client.code, RPC_NOT_FOUND);
        ck_assert_str_eq(client.status->message, "There is no sandbox sbx-a.");
        database.result = STORE_E_NO_EXECUTION;
        request.execution_id = unconst("exe-b");
        ask(&request);
        ck_assert_int_eq(client.code, RPC_NOT_FOUND);
        ck_assert_str_eq(client.status->message, "There is no execution exe-b in sandbox sbx-a.");
        database.result = -EIO;
        ask(&request);
        ck_assert_int_eq(client.code, RPC_UNAVAILABLE);
}
END_TEST

START_TEST(a_stream_has_all_of_it_too)
{
        struct api_call *call = open_call();
        const Hotcell__V1__ExecutionEvent *event;

        event_stream_start(call, "exe-a", 0);
        ck_assert_uint_eq(client.n_answers, 1);
        ck_assert_uint_eq(client.events->n_events, 1);
        event = client.events->events[0];
        ck_assert_int_eq(event->sequence, 4);
        ck_assert_int_eq(event->event_time->seconds, 5);
        ck_assert_int_eq(event->event_case, HOTCELL__V1__EXECUTION_EVENT__EVENT_EGRESS);
        check_event(event->egress);
        ck_assert_int_eq(event->egress->left_out, 6);
        hotcell__v1__attach_execution_response__free_unpacked(client.events, NULL);
        api_call_release(call);
}
END_TEST

static void tear_down(void)
{
        google__rpc__status__free_unpacked(client.status, NULL);
}

int main(void)
{
        Suite *all = suite_create("egress");
        TCase *told = tcase_create("told");

        log_init("test_egress", LOG_LEVEL_ERROR);
        tcase_add_checked_fixture(told, set_up, tear_down);
        tcase_add_test(told, a_list_has_all_of_each_event);
        tcase_add_test(told, a_token_goes_on_after_the_last_event);
        tcase_add_test(told, what_is_wrong_is_said);
        tcase_add_test(told, what_is_not_there_is_not_found);
        tcase_add_test(told, a_stream_has_all_of_it_too);
        suite_add_tcase(all, told);
        return suite_main(all);
}
