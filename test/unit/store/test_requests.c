/* Requests with a request_id: remembered with their change or not at all, found, bounded, pruned.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"

static struct fixture fixture;

static void set_up(void)
{
        fixture = fixture_new();
        fixture_open(&fixture);
}

static void tear_down(void)
{
        fixture_free(&fixture);
}

static struct request_record make_request(const char *method, const char *request_id,
                                          const char *object_id)
{
        struct request_record request = { .owner = "uid:1000", .created = true };

        (void)snprintf(request.method, sizeof(request.method), "%s", method);
        (void)snprintf(request.request_id, sizeof(request.request_id), "%s", request_id);
        (void)snprintf(request.object_id, sizeof(request.object_id), "%s", object_id);
        memset(request.request_sha256, 7, sizeof(request.request_sha256));
        return request;
}

static int remember(const struct request_record *request)
{
        struct answer answer = { 0 };

        store_remember_request(fixture.store, request, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

struct known {
        int n_calls;
        int result;
        struct request_record record;
};

static void on_known(void *userdata, int result, const struct request_record *record)
{
        struct known *known = userdata;

        known->n_calls++;
        known->result = result;
        if (record)
                known->record = *record;
}

static struct known look_up(const struct request_record *request)
{
        struct known known = { 0 };

        store_get_request(fixture.store, request, on_known, &known);
        wait_for(&fixture, &known.n_calls, 1);
        return known;
}

START_TEST(a_request_comes_back_as_it_was_after_a_restart)
{
        struct request_record request = make_request("CreateSandbox", "a-1", "sbx-1");
        struct request_record key = make_request("CreateSandbox", "a-1", "");
        struct known known;

        ck_assert_int_eq(look_up(&key).result, STORE_E_NOT_FOUND);
        ck_assert_int_eq(remember(&request), 0);
        fixture_close(&fixture);
        fixture_open(&fixture);
        known = look_up(&key);
        ck_assert_int_eq(known.result, 0);
        ck_assert_mem_eq(&known.record, &request, sizeof(request));
}
END_TEST

START_TEST(each_owner_and_method_has_ids_of_its_own)
{
        struct request_record request = make_request("CreateSandbox", "a-1", "sbx-1");
        struct request_record other_method = make_request("Execute", "a-1", "exe-1");
        struct request_record other_owner = make_request("CreateSandbox", "a-1", "sbx-2");

        (void)strcpy(other_owner.owner, "key-2");
        ck_assert_int_eq(remember(&request), 0);
        ck_assert_int_eq(look_up(&other_method).result, STORE_E_NOT_FOUND);
        ck_assert_int_eq(look_up(&other_owner).result, STORE_E_NOT_FOUND);
        ck_assert_int_eq(remember(&other_method), 0);
        ck_assert_int_eq(remember(&other_owner), 0);
        ck_assert_str_eq(look_up(&request).record.object_id, "sbx-1");
        ck_assert_str_eq(look_up(&other_method).record.object_id, "exe-1");
        ck_assert_str_eq(look_up(&other_owner).record.object_id, "sbx-2");
}
END_TEST

static int insert_execution_for(const struct request_record *request,
                                const struct execution_record *record)
{
        struct answer answer = { 0 };

        store_insert_execution_for(fixture.store, request, record, NULL, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

static int insert_context_for(const struct request_record *request,
                              const struct context_record *record)
{
        struct answer answer = { 0 };

        store_insert_context_for(fixture.store, request, record, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

static int update_sandbox_for(const struct request_record *request,
                              const struct sandbox_record *record)
{
        struct answer answer = { 0 };

        store_update_sandbox_for(fixture.store, request, record, SANDBOX_EVENT_RUNNING, on_answer,
                                 &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer.result;
}

START_TEST(a_request_is_remembered_with_its_change)
{
        struct sandbox_record sandbox = make_sandbox(1, 1);
        struct context_record context = make_context(1, sandbox.sandbox_id);
        struct execution_record execution =
                make_execution(1, sandbox.sandbox_id, context.context_id, 1);
        struct request_record create = make_request("CreateSandbox", "s", sandbox.sandbox_id);
        struct request_record make = make_request("CreateContext", "c", context.context_id);
        struct request_record run = make_request("Execute", "e", execution.execution_id);

        ck_assert_int_eq(insert_sandbox(&fixture, &sandbox), 0);
        ck_assert_int_eq(update_sandbox_for(&create, &sandbox), 0);
        ck_assert_int_eq(insert_context_for(&make, &context), 0);
        ck_assert_int_eq(insert_execution_for(&run, &execution), 0);
        ck_assert_str_eq(look_up(&create).record.object_id, sandbox.sandbox_id);
        ck_assert_str_eq(look_up(&make).record.object_id, context.context_id);
        ck_assert_str_eq(look_up(&run).record.object_id, execution.execution_id);
}
END_TEST

START_TEST(a_change_that_fails_remembers_no_request)
{
        struct sandbox_record sandbox = make_sandbox(1, 1);
        struct context_record context = make_context(1, sandbox.sandbox_id);
        struct execution_record execution =
                make_execution(1, sandbox.sandbox_id, context.context_id, 1);
        struct request_record request = make_request("Execute", "e", execution.execution_id);

        ck_assert_int_eq(update_sandbox_for(&request, &sandbox), STORE_E_NOT_FOUND);
        ck_assert_int_eq(look_up(&request).result, STORE_E_NOT_FOUND);
        ck_assert_int_eq(insert_context_for(&request, &context), STORE_E_NOT_FOUND);
        ck_assert_int_eq(look_up(&request).result, STORE_E_NOT_FOUND);
        ck_assert_int_eq(insert_execution_for(&request, &execution), STORE_E_NOT_FOUND);
        ck_assert_int_eq(look_up(&request).result, STORE_E_NOT_FOUND);
}
END_TEST

/* The session never lets it come to this; if it did, nothing would run twice. */
START_TEST(a_change_for_a_request_that_is_known_is_undone)
{
        struct sandbox_record sandbox = make_sandbox(1, 1);
        struct context_record context = make_context(1, sandbox.sandbox_id);
        struct execution_record execution =
                make_execution(1, sandbox.sandbox_id, context.context_id, 1);
        struct request_record request = make_request("Execute", "e", "exe-before");
        struct execution_record found;

        ck_assert_int_eq(insert_sandbox(&fixture, &sandbox), 0);
        ck_assert_int_eq(insert_context(&fixture, &context), 0);
        ck_assert_int_eq(remember(&request), 0);
        ck_assert_int_eq(insert_execution_for(&request, &execution), -EEXIST);
        ck_assert_int_eq(get_execution(&fixture, NULL, execution.execution_id, &found),
                         STORE_E_NOT_FOUND);
        ck_assert_str_eq(look_up(&request).record.object_id, "exe-before");
}
END_TEST

START_TEST(a_forgotten_request_may_come_again)
{
        struct request_record request = make_request("CreateContext", "c", "ctx-1");
        struct answer answer = { 0 };

        ck_assert_int_eq(remember(&request), 0);
        store_forget_request(fixture.store, &request, on_answer, &answer);
        store_forget_request(fixture.store, &request, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, 0);
        ck_assert_int_eq(look_up(&request).result, STORE_E_NOT_FOUND);
        (void)strcpy(request.object_id, "ctx-2");
        ck_assert_int_eq(remember(&request), 0);
        ck_assert_str_eq(look_up(&request).record.object_id, "ctx-2");
}
END_TEST

static struct request_record numbered(int i)
{
        char request_id[16];

        (void)snprintf(request_id, sizeof(request_id), "r-%d", i);
        return make_request("Execute", request_id, "exe-1");
}

START_TEST(an_owner_has_the_newest_requests_remembered)
{
        const struct store_retention retention = { .requests_max = 10 };
        struct request_record others = make_request("Execute", "r-0", "exe-1");

        (void)strcpy(others.owner, "uid:2");
        ck_assert_int_eq(store_set_retention(fixture.store, &retention), 0);
        ck_assert_int_eq(remember(&others), 0);
        for (int i = 0; i < 25; i++) {
                struct request_record request = numbered(i);

                ck_assert_int_eq(remember(&request), 0);
        }
        for (int i = 0; i < 25; i++) {
                struct request_record request = numbered(i);

                ck_assert_int_eq(look_up(&request).result, i < 15 ? STORE_E_NOT_FOUND : 0);
        }
        ck_assert_int_eq(look_up(&others).result, 0);
}
END_TEST

START_TEST(a_request_is_pruned_when_it_is_old)
{
        struct store_retention retention = { .kept_usec = 1, .requests_kept_usec = 1000000 };
        struct request_record request = make_request("Execute", "e", "exe-1");
        struct answer answer = { 0 };
        int64_t now = time_now_usec();

        ck_assert_int_eq(remember(&request), 0);
        store_prune(fixture.store, &retention, now + 900000, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        ck_assert_int_eq(look_up(&request).result, 0);

        retention.requests_kept_usec = 0; /* no bound */
        store_prune(fixture.store, &retention, INT64_MAX / 2, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(look_up(&request).result, 0);

        retention.requests_kept_usec = 1000000;
        store_prune(fixture.store, &retention, time_now_usec() + 1000001, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 3);
        ck_assert_int_eq(look_up(&request).result, STORE_E_NOT_FOUND);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                a_request_comes_back_as_it_was_after_a_restart,
                each_owner_and_method_has_ids_of_its_own,
                a_request_is_remembered_with_its_change,
                a_change_that_fails_remembers_no_request,
                a_change_for_a_request_that_is_known_is_undone,
                a_forgotten_request_may_come_again,
                an_owner_has_the_newest_requests_remembered,
                a_request_is_pruned_when_it_is_old,
        };
        TCase *tcase = tcase_create("requests");
        Suite *suite = suite_create("store requests");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
