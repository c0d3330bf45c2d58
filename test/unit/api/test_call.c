/* What a client is told when a session's function or the store did not do it, with the gRPC layer
 * replaced by one that remembers. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "hotcell/v1/server_service.pb-c.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/api/call.h"
#include "server/rpc/rpc.h"
#include "server/session/session.h"
#include "server/store/store.h"
#include "test/lib/suite.h"

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata);
void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details);
bool __wrap_rpc_call_has_room(const struct rpc_call *call, size_t n_bytes);

static size_t room_bytes;

bool __wrap_rpc_call_has_room(const struct rpc_call *call, size_t n_bytes)
{
        ck_assert_ptr_nonnull(call);
        return n_bytes <= room_bytes;
}

static struct answer {
        unsigned n;
        enum rpc_code code;
        Google__Rpc__Status *status;
} answer;

void __wrap_rpc_call_observe(struct rpc_call *call, const struct rpc_call_observer *observer,
                             void *userdata)
{
        ck_assert_ptr_nonnull(call);
        ck_assert_ptr_null(observer);
        ck_assert_ptr_null(userdata);
}

void __wrap_rpc_call_fail(struct rpc_call *call, enum rpc_code code, const char *message,
                          const void *details, size_t n_details)
{
        ck_assert_ptr_nonnull(call);
        ck_assert_uint_gt(strlen(message), 0);
        google__rpc__status__free_unpacked(answer.status, NULL);
        answer.n++;
        answer.code = code;
        answer.status = google__rpc__status__unpack(NULL, n_details, details);
        ck_assert_ptr_nonnull(answer.status);
}

static const struct api_method method = { .path = "/hotcell.v1.ServerService/GetServerInfo" };

/* A call that waits for its answer, and is held by the test. */
static struct api_call *open_call(void)
{
        struct api_call *call = calloc(1, sizeof(*call));
        static char rpc;

        ck_assert_ptr_nonnull(call);
        call->method = &method;
        call->rpc = (void *)&rpc; /* never looked into */
        call->n_holders = 2;
        return call;
}

static const Google__Protobuf__Any *detail(const char *type)
{
        for (size_t i = 0; i < answer.status->n_details; i++)
                if (strcmp(strrchr(answer.status->details[i]->type_url, '/') + 1, type) == 0)
                        return answer.status->details[i];
        return NULL;
}

static void assert_answer(enum rpc_code code, const char *reason)
{
        const Google__Protobuf__Any *any;
        Google__Rpc__ErrorInfo *info;
        bool may_pass = code == RPC_UNAVAILABLE || code == RPC_RESOURCE_EXHAUSTED;

        ck_assert_uint_eq(answer.n, 1);
        ck_assert_int_eq(answer.code, code);
        ck_assert_int_eq(answer.status->code, code);
        any = detail("google.rpc.ErrorInfo");
        ck_assert_ptr_nonnull(any);
        info = google__rpc__error_info__unpack(NULL, any->value.len, any->value.data);
        ck_assert_str_eq(info->reason, reason);
        google__rpc__error_info__free_unpacked(info, NULL);
        /* When to try again, if that helps. */
        ck_assert_int_eq(detail("google.rpc.RetryInfo") != NULL, may_pass);
        google__rpc__status__free_unpacked(answer.status, NULL);
        answer = (struct answer){ 0 };
}

static const struct {
        int outcome;
        enum rpc_code code;
        const char *reason;
} outcomes[] = {
        { SESSION_E_SANDBOX_NOT_FOUND, RPC_NOT_FOUND, "SANDBOX_NOT_FOUND" },
        { SESSION_E_CONTEXT_NOT_FOUND, RPC_NOT_FOUND, "CONTEXT_NOT_FOUND" },
        { SESSION_E_EXECUTION_NOT_FOUND, RPC_NOT_FOUND, "EXECUTION_NOT_FOUND" },
        { SESSION_E_SANDBOX_ENDED, RPC_FAILED_PRECONDITION, "SANDBOX_ENDED" },
        { SESSION_E_EXECUTION_ENDED, RPC_FAILED_PRECONDITION, "EXECUTION_ENDED" },
        { SESSION_E_NAME_IN_USE, RPC_ALREADY_EXISTS, "NAME_IN_USE" },
        { SESSION_E_UNKNOWN_TEMPLATE, RPC_INVALID_ARGUMENT, "UNKNOWN_TEMPLATE" },
        { SESSION_E_UNKNOWN_LANGUAGE, RPC_INVALID_ARGUMENT, "UNKNOWN_LANGUAGE" },
        { SESSION_E_SANDBOX_LIMIT, RPC_RESOURCE_EXHAUSTED, "SANDBOX_LIMIT" },
        { SESSION_E_CONTEXT_LIMIT, RPC_RESOURCE_EXHAUSTED, "CONTEXT_LIMIT" },
        { SESSION_E_QUEUE_FULL, RPC_RESOURCE_EXHAUSTED, "QUEUE_FULL" },
        { SESSION_E_HOST_EXHAUSTED, RPC_RESOURCE_EXHAUSTED, "HOST_EXHAUSTED" },
        { SESSION_E_WALL_MISSING, RPC_FAILED_PRECONDITION, "WALL_MISSING" },
        { SESSION_E_EGRESS, RPC_FAILED_PRECONDITION, "EGRESS_UNAVAILABLE" },
        { SESSION_E_RULE_TOO_COMPLEX, RPC_INVALID_ARGUMENT, "RULE_TOO_COMPLEX" },
        { SESSION_E_RUNTIME_UNAVAILABLE, RPC_UNAVAILABLE, "RUNTIME_UNAVAILABLE" },
        { SESSION_E_STORE_UNAVAILABLE, RPC_UNAVAILABLE, "STORE_UNAVAILABLE" },
        { SESSION_E_SHUTTING_DOWN, RPC_UNAVAILABLE, "SHUTTING_DOWN" },
        { SESSION_E_KERNEL_FAILED, RPC_FAILED_PRECONDITION, "KERNEL_FAILED" },
        { SESSION_E_WORKING_DIRECTORY, RPC_INVALID_ARGUMENT, "INVALID_FIELD" },
        { SESSION_E_CONFLICT, RPC_ABORTED, "CONFLICT" },
        { SESSION_E_MEMORY_LIMIT, RPC_RESOURCE_EXHAUSTED, "MEMORY_LIMIT" },
        { SESSION_E_CREATION_LIMIT, RPC_RESOURCE_EXHAUSTED, "CREATION_LIMIT" },
        { SESSION_E_EXECUTION_LIMIT, RPC_RESOURCE_EXHAUSTED, "EXECUTION_LIMIT" },
        { SESSION_E_QUEUE_LIMIT, RPC_RESOURCE_EXHAUSTED, "QUEUE_LIMIT" },
        { SESSION_E_STREAM_LIMIT, RPC_RESOURCE_EXHAUSTED, "STREAM_LIMIT" },
        { SESSION_E_UPDATE_RATE, RPC_RESOURCE_EXHAUSTED, "UPDATE_RATE" },
        { SESSION_E_EGRESS_LIMIT, RPC_RESOURCE_EXHAUSTED, "EGRESS_LIMIT" },
        { SESSION_E_CPU_LIMIT, RPC_RESOURCE_EXHAUSTED, "CPU_LIMIT" },
        { SESSION_E_LIMIT, RPC_FAILED_PRECONDITION, "LIMIT_NOT_POSSIBLE" },
};

START_TEST(a_refusal_says_whose_limit_it_was_and_when_to_ask_again)
{
        struct session_result result = { .outcome = SESSION_E_MEMORY_LIMIT,
                                         .quota = "key-a",
                                         .retry_usec = 250000,
                                         .message = "You have 2 of 2." };
        struct api_call *call = open_call();
        const Google__Protobuf__Any *any;
        Google__Rpc__QuotaFailure *failure;
        Google__Rpc__RetryInfo *retry;

        ck_assert(api_call_fail_result(call, &result, NULL));
        any = detail("google.rpc.QuotaFailure");
        ck_assert_ptr_nonnull(any);
        failure = google__rpc__quota_failure__unpack(NULL, any->value.len, any->value.data);
        ck_assert_uint_eq(failure->n_violations, 1);
        ck_assert_str_eq(failure->violations[0]->subject, "key-a");
        ck_assert_str_eq(failure->violations[0]->description, "You have 2 of 2.");
        google__rpc__quota_failure__free_unpacked(failure, NULL);
        any = detail("google.rpc.RetryInfo");
        ck_assert_ptr_nonnull(any);
        retry = google__rpc__retry_info__unpack(NULL, any->value.len, any->value.data);
        ck_assert_int_eq(retry->retry_delay->nanos, 250000000);
        google__rpc__retry_info__free_unpacked(retry, NULL);
        assert_answer(RPC_RESOURCE_EXHAUSTED, "MEMORY_LIMIT");
        api_call_release(call);
}
END_TEST

START_TEST(who_asks_for_more_than_there_may_be_is_not_told_to_ask_again)
{
        struct session_result result = { .outcome = SESSION_E_MEMORY_LIMIT,
                                         .quota = "key-a",
                                         .limit = "memory_bytes",
                                         .retry_usec = SESSION_RETRY_NEVER,
                                         .message = "Ask for less." };
        struct api_call *call = open_call();

        ck_assert(api_call_fail_result(call, &result, NULL));
        ck_assert_ptr_nonnull(detail("google.rpc.QuotaFailure"));
        ck_assert_ptr_null(detail("google.rpc.RetryInfo"));
        ck_assert_int_eq(answer.code, RPC_RESOURCE_EXHAUSTED);
        google__rpc__status__free_unpacked(answer.status, NULL);
        answer = (struct answer){ 0 };
        api_call_release(call);
}
END_TEST

START_TEST(each_outcome_of_a_session_has_its_reason)
{
        struct session_result result = { .outcome = outcomes[_i].outcome };
        struct api_call *call = open_call();

        (void)snprintf(result.message, sizeof(result.message), "It is so about %d.", _i);
        ck_assert(api_call_fail_result(call, &result, "sbx-a"));
        /* Some tell where more is to be read. */
        ck_assert_int_eq(strncmp(answer.status->message, result.message, strlen(result.message)),
                         0);
        assert_answer(outcomes[_i].code, outcomes[_i].reason);
        /* The second answer goes nowhere. */
        ck_assert(api_call_fail_result(call, &result, "sbx-a"));
        ck_assert_uint_eq(answer.n, 0);
        api_call_release(call);
}
END_TEST

/* Of a precondition that comes back by itself. */
START_TEST(when_to_ask_again_is_told_where_it_is_known)
{
        struct session_result result = { .outcome = SESSION_E_EGRESS, .retry_usec = 2000000 };
        struct api_call *call = open_call();
        Google__Rpc__RetryInfo *retry;
        const Google__Protobuf__Any *any;

        ck_assert(api_call_fail_result(call, &result, NULL));
        ck_assert_int_eq(answer.code, RPC_FAILED_PRECONDITION);
        any = detail("google.rpc.RetryInfo");
        ck_assert_ptr_nonnull(any);
        retry = google__rpc__retry_info__unpack(NULL, any->value.len, any->value.data);
        ck_assert_int_eq(retry->retry_delay->seconds, 2);
        google__rpc__retry_info__free_unpacked(retry, NULL);
        google__rpc__status__free_unpacked(answer.status, NULL);
        answer = (struct answer){ 0 };
        api_call_release(call);
}
END_TEST

START_TEST(success_answers_nothing)
{
        struct api_call *call = open_call();

        ck_assert(!api_call_fail_result(call, &(struct session_result){ 0 }, "sbx-a"));
        ck_assert_uint_eq(answer.n, 0);
        ck_assert(api_call_is_open(call));
        api_call_fail(call, REASON_CODE_TOO_LARGE, "over");
        assert_answer(RPC_INVALID_ARGUMENT, "CODE_TOO_LARGE");
        api_call_release(call);
}
END_TEST

START_TEST(an_error_of_our_own_is_internal_and_tells_no_details)
{
        struct session_result result = { .outcome = -EIO, .message = "secret of /var/lib" };
        struct api_call *call = open_call();

        ck_assert(api_call_fail_result(call, &result, "sbx-a"));
        ck_assert_ptr_null(strstr(answer.status->message, "secret"));
        assert_answer(RPC_INTERNAL, "INTERNAL");
        api_call_release(call);
}
END_TEST

START_TEST(an_answer_without_memory_says_so)
{
        Hotcell__V1__GetServerInfoResponse response;
        struct api_call *call = open_call();

        hotcell__v1__get_server_info_response__init(&response);
        call->arena.failed = true;
        api_call_reply(call, &response.base);
        assert_answer(RPC_RESOURCE_EXHAUSTED, "HOST_EXHAUSTED");
        api_call_release(call);

        /* A check that failed and could not say of what. */
        call = open_call();
        api_call_fail_blamed(call);
        assert_answer(RPC_RESOURCE_EXHAUSTED, "HOST_EXHAUSTED");
        api_call_release(call);
}
END_TEST

/* Small answers are sent in any case; before a large one it can be asked. */
START_TEST(whether_an_answer_has_room_can_be_asked)
{
        static char text[200000];
        Hotcell__V1__GetServerInfoResponse response;
        struct api_call *call = open_call();

        hotcell__v1__get_server_info_response__init(&response);
        (void)memset(text, 'x', sizeof(text) - 1);
        room_bytes = 0;
        ck_assert(api_call_has_room(call, &response.base));
        response.version = text;
        ck_assert(!api_call_has_room(call, &response.base));
        room_bytes = sizeof(text) + 100;
        ck_assert(api_call_has_room(call, &response.base));
        room_bytes = 0;
        api_call_reply(call, &response.base);
        assert_answer(RPC_RESOURCE_EXHAUSTED, "ANSWERS_UNREAD");
        ck_assert(api_call_has_room(call, &response.base)); /* nobody waits */
        api_call_release(call);
}
END_TEST

START_TEST(a_store_that_fails_is_unavailable_unless_the_token_is_old)
{
        struct api_call *call = open_call();

        api_call_fail_store(call, -EIO);
        assert_answer(RPC_UNAVAILABLE, "STORE_UNAVAILABLE");
        api_call_release(call);
        call = open_call();
        api_call_fail_store(call, STORE_E_TOKEN_EXPIRED);
        assert_answer(RPC_OUT_OF_RANGE, "WATCH_TOKEN_EXPIRED");
        api_call_release(call);
}
END_TEST

int main(void)
{
        Suite *all = suite_create("call");
        TCase *told = tcase_create("told");

        log_init("test_call", LOG_LEVEL_ERROR);
        tcase_add_loop_test(told, each_outcome_of_a_session_has_its_reason, 0,
                            ARRAY_SIZE(outcomes));
        tcase_add_test(told, a_refusal_says_whose_limit_it_was_and_when_to_ask_again);
        tcase_add_test(told, who_asks_for_more_than_there_may_be_is_not_told_to_ask_again);
        tcase_add_test(told, when_to_ask_again_is_told_where_it_is_known);
        tcase_add_test(told, success_answers_nothing);
        tcase_add_test(told, an_error_of_our_own_is_internal_and_tells_no_details);
        tcase_add_test(told, an_answer_without_memory_says_so);
        tcase_add_test(told, whether_an_answer_has_room_can_be_asked);
        tcase_add_test(told, a_store_that_fails_is_unavailable_unless_the_token_is_old);
        suite_add_tcase(all, told);
        return suite_main(all);
}
