/* What all owners share: how much one may have, how that shrinks, and what a refusal says. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/shares.h"
#include "test/unit/session/fixture.h"

/* Key owners that take one by one in turn, until none may; @ret_n: how many each got. */
static void take_in_turns(const struct session_share_rules *rules, size_t n_owners, int64_t *ret_n)
{
        struct shares shares;
        struct share_owner *owners[16];
        bool goes_on = true;

        shares_init(&shares, rules);
        for (size_t i = 0; i < n_owners; i++) {
                char name[32];

                (void)snprintf(name, sizeof(name), "key-%zu", i);
                owners[i] = shares_hold(&shares, name);
        }
        while (goes_on) {
                goes_on = false;
                for (size_t i = 0; i < n_owners; i++) {
                        if (shares_check(&shares, owners[i]->name, 0, 1))
                                continue;
                        share_owner_take(owners[i], 0, 1);
                        goes_on = true;
                }
        }
        for (size_t i = 0; i < n_owners; i++) {
                ret_n[i] = owners[i]->used[0];
                ck_assert_int_eq(shares_limit_of(&shares, owners[i]->name, 0), ret_n[i]);
                ck_assert_int_ne(shares_check(&shares, owners[i]->name, 0, 1), 0);
        }
        for (size_t i = 0; i < n_owners; i++) {
                share_owner_take(owners[i], 0, -ret_n[i]);
                (void)share_owner_release(owners[i]);
        }
        ck_assert_uint_eq(map_count(&shares.owners), 0);
        ck_assert_int_eq(shares.used[0], 0);
}

static const struct {
        int64_t total;
        int owner_percent, operator_percent;
        size_t n_owners;
        int64_t n_each; /* one more or less may come of the order */
} cases[] = {
        { 100, 50, 0, 1, 50 },   { 100, 50, 0, 2, 33 },  { 100, 50, 0, 4, 20 },
        { 100, 50, 0, 9, 10 },   { 1, 50, 0, 1, 1 },     { 2, 50, 0, 1, 1 },
        { 12, 50, 10, 1, 6 },    { 100, 50, 10, 1, 45 }, { 100, 50, 10, 2, 30 },
        { 100, 100, 0, 1, 100 }, { 100, 100, 0, 2, 50 }, { 100, 100, 20, 1, 80 },
        { 100, 80, 0, 1, 80 },   { 100, 20, 0, 1, 20 },  { 100, 20, 0, 4, 12 },
};

static void check_case(size_t i)
{
        struct session_share_rules rules = { .owner_percent = cases[i].owner_percent,
                                             .operator_percent = cases[i].operator_percent };
        int64_t kept = cases[i].total * cases[i].operator_percent / 100;
        int64_t n[16], sum = 0;

        rules.total[0] = cases[i].total;
        take_in_turns(&rules, cases[i].n_owners, n);
        for (size_t k = 0; k < cases[i].n_owners; k++) {
                ck_assert_int_ge(n[k], cases[i].n_each - 1);
                ck_assert_int_le(n[k], cases[i].n_each + 1);
                sum += n[k];
        }
        /* What is kept for operators is left in any case. */
        ck_assert_int_le(sum, cases[i].total - kept);
        if (cases[i].owner_percent < 100 && cases[i].total > 2)
                ck_assert_int_lt(sum, cases[i].total);
}

START_TEST(one_owner_gets_its_part_and_several_leave_something)
{
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                check_case(i);
}
END_TEST

START_TEST(an_operator_has_all_that_is_free_and_uses_its_reserve_first)
{
        struct session_share_rules rules = { .total = { 100 },
                                             .owner_percent = 50,
                                             .operator_percent = 10 };
        struct share_owner *operator, * key;
        struct shares shares;

        shares_init(&shares, &rules);
        operator= shares_hold(&shares, "uid:0");
        key = shares_hold(&shares, "key-a");
        ck_assert_int_eq(shares_check(&shares, "uid:0", 0, 100), 0);
        ck_assert_int_eq(shares_check(&shares, "uid:0", 0, 101), SHARES_E_TOTAL);
        share_owner_take(operator, 0, 8);
        ck_assert_int_eq(shares_limit_of(&shares, "key-a", 0), 45);
        ck_assert_int_eq(shares_limit_of(&shares, "uid:0", 0), 100);
        share_owner_take(operator, 0, 62);
        ck_assert_int_eq(shares_limit_of(&shares, "key-a", 0), 15);
        share_owner_take(key, 0, 15);
        ck_assert_int_eq(shares_check(&shares, "key-a", 0, 1), SHARES_E_OWNER);
        ck_assert_int_eq(shares_check(&shares, "key-b", 0, 1), 0);
        ck_assert_int_eq(shares_check(&shares, "key-b", 0, 16), SHARES_E_TOTAL);
        ck_assert_int_eq(shares_limit_of(&shares, "uid:0", 0), 85);
        share_owner_take(key, 0, -15);
        share_owner_take(operator, 0, -70);
        (void)share_owner_release(key);
        (void)share_owner_release(operator);
}
END_TEST

static struct answer create_for(const char *owner, int64_t memory_bytes)
{
        struct sandbox_request request = sandbox_request();

        request.owner = owner;
        request.limits.memory_bytes = memory_bytes;
        return create_sandbox(&request);
}

static struct session_quota quota(const char *owner, enum session_share share)
{
        struct session_info info;

        session_info(f.session, owner, &info);
        return info.quotas[share];
}

static void assert_refused(const struct session_result *result, int outcome, const char *quota)
{
        ck_assert_int_eq(result->outcome, outcome);
        ck_assert_str_eq(result->quota, quota);
        ck_assert_int_gt(result->retry_usec, 0);
        ck_assert_uint_gt(strlen(result->message), 10);
}

START_TEST(memory_is_promised_only_once)
{
        struct answer mine = create_for("key-a", INT64_C(8) << 30);
        struct answer answer;

        ck_assert_int_eq(mine.result.outcome, 0);
        answer = create_for("key-a", INT64_C(1) << 30);
        assert_refused(&answer.result, SESSION_E_MEMORY_LIMIT, "key-a");
        answer = create_for("key-b", INT64_C(5) << 30);
        assert_refused(&answer.result, SESSION_E_MEMORY_LIMIT, "key-b");
        ck_assert_int_eq(create_for("key-b", INT64_C(4) << 30).result.outcome, 0);
        answer = create_for("uid:0", INT64_C(5) << 30);
        assert_refused(&answer.result, SESSION_E_MEMORY_LIMIT, "");
        ck_assert_int_eq(create_for("uid:0", INT64_C(4) << 30).result.outcome, 0);
        ck_assert_int_eq(quota("key-a", SESSION_SHARE_MEMORY).used, INT64_C(16) << 30);
        ck_assert_int_eq(quota("key-a", SESSION_SHARE_MEMORY).owner_used, INT64_C(8) << 30);
        /* A refusal has made nothing. */
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 3);

        answer.is_done = false;
        session_delete_sandbox(f.session, "key-a", mine.sandbox.sandbox_id, NULL, CAUSE_CLIENT,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(quota("key-a", SESSION_SHARE_MEMORY).owner_used, 0);
        ck_assert_int_eq(create_for("key-b", INT64_C(2) << 30).result.outcome, 0);
}
END_TEST

START_TEST(only_so_many_are_made_at_once)
{
        struct sandbox_request request = sandbox_request();
        struct answer answers[3] = { 0 };

        stop_session();
        f.config.shares.total[SESSION_SHARE_CREATIONS] = 2;
        start_session();
        run_until(session_serves, NULL);
        fake_runtime_script(f.runtime)->hold_create = true;
        for (size_t i = 0; i < ARRAY_SIZE(answers); i++)
                session_create_sandbox(f.session, &request, on_sandbox_answer, &answers[i]);
        ck_assert(answers[2].is_done); /* at once */
        assert_refused(&answers[2].result, SESSION_E_CREATION_LIMIT, "");
        run_turns(100);
        fake_runtime_script(f.runtime)->hold_create = false;
        fake_runtime_release(f.runtime);
        run_until_true(&answers[0].is_done);
        run_until_true(&answers[1].is_done);
        ck_assert_int_eq(quota("uid:1", SESSION_SHARE_CREATIONS).used, 0);
        ck_assert_int_eq(create_sandbox(&request).result.outcome, 0);
}
END_TEST

START_TEST(only_so_many_run_and_wait)
{
        struct answer one, two, three, running, refused;
        struct execute_request request;
        struct seen a = { 0 }, b = { 0 }, waiting = { 0 };

        stop_session();
        f.config.shares.total[SESSION_SHARE_EXECUTIONS] = 2;
        f.config.shares.total[SESSION_SHARE_QUEUED] = 1;
        start_session();
        run_until(session_serves, NULL);
        one = new_sandbox();
        two = new_sandbox();
        three = new_sandbox();
        request = execute_request(one.sandbox.sandbox_id, "out x\nsleep");
        execute(&request, &a);
        request.sandbox_id = two.sandbox.sandbox_id;
        running = execute(&request, &b);
        wait_for_text(&b, "stdout:x");

        request = execute_request(three.sandbox.sandbox_id, "out y");
        refused = execute(&request, NULL);
        assert_refused(&refused.result, SESSION_E_EXECUTION_LIMIT, "");
        /* No context was made for it. */
        ck_assert_uint_eq(list_contexts(three.sandbox.sandbox_id).n, 0);

        request.sandbox_id = two.sandbox.sandbox_id;
        execute(&request, &waiting);
        refused = execute(&request, NULL);
        assert_refused(&refused.result, SESSION_E_QUEUE_LIMIT, "");
        ck_assert_int_eq(quota("uid:1", SESSION_SHARE_EXECUTIONS).used, 2);
        ck_assert_int_eq(quota("uid:1", SESSION_SHARE_QUEUED).used, 1);

        /* The one behind it takes the place of what ends. */
        session_interrupt_execution(f.session, "uid:1", running.execution.execution_id, true,
                                    CAUSE_CLIENT, on_execution_answer, &refused);
        wait_for_end(&waiting);
        (void)delete_sandbox(one.sandbox.sandbox_id);
        ck_assert_int_eq(quota("uid:1", SESSION_SHARE_EXECUTIONS).used, 0);
        ck_assert_int_eq(run_code(three.sandbox.sandbox_id, "out z").ended.outcome, OUTCOME_OK);
        (void)delete_sandbox(two.sandbox.sandbox_id);
        ck_assert_int_eq(quota("uid:1", SESSION_SHARE_EXECUTIONS).used, 0);
        ck_assert_int_eq(quota("uid:1", SESSION_SHARE_QUEUED).used, 0);
        ck_assert_int_eq(quota("uid:1", SESSION_SHARE_QUEUED_BYTES).used, 0);
        detach(&a);
        detach(&b);
        detach(&waiting);
}
END_TEST

/* The fixture has 4 MiB for all. */
START_TEST(code_of_one_owner_leaves_room_for_anothers)
{
        static char code[(1 << 20) - 64];
        struct answer mine, yours, answer;
        struct execute_request waiting, other;

        stop_session();
        f.config.queue_max = 10;
        start_session();
        run_until(session_serves, NULL);
        mine = create_for("key-a", 1 << 28);
        yours = create_for("key-b", 1 << 28);
        waiting = execute_request(mine.sandbox.sandbox_id, code);
        other = execute_request(yours.sandbox.sandbox_id, "out y");

        memset(code, '#', sizeof(code) - 1);
        waiting.code = code;
        waiting.n_code = sizeof(code) - 1;
        waiting.owner = "key-a";
        fake_runtime_script(f.runtime)->kernel_mode = "silent"; /* it is never ready */
        ck_assert_int_eq(execute(&waiting, NULL).result.outcome, 0);
        ck_assert_int_eq(execute(&waiting, NULL).result.outcome, 0);
        answer = execute(&waiting, NULL);
        assert_refused(&answer.result, SESSION_E_QUEUE_LIMIT, "key-a");
        fake_runtime_script(f.runtime)->kernel_mode = NULL;
        other.owner = "key-b";
        ck_assert_int_eq(execute(&other, NULL).result.outcome, 0);
}
END_TEST

START_TEST(what_runs_at_once_does_not_count_as_waiting)
{
        static char code[(1 << 20) - 64];
        struct answer sandbox;
        struct execute_request request;
        struct seen seen = { 0 };

        stop_session();
        f.config.shares.total[SESSION_SHARE_QUEUED_BYTES] = 1000;
        start_session();
        run_until(session_serves, NULL);
        sandbox = new_sandbox();
        memset(code, '#', sizeof(code) - 1);
        request = execute_request(sandbox.sandbox.sandbox_id, code);
        ck_assert_int_eq(execute(&request, NULL).result.outcome, SESSION_E_QUEUE_LIMIT);
        (void)run_code(sandbox.sandbox.sandbox_id, "out x"); /* the interpreter is there now */
        ck_assert_int_eq(execute(&request, &seen).result.outcome, 0);
        wait_for_end(&seen);
}
END_TEST

static void on_events(void *userdata, int result, const struct sandbox_event_list *list)
{
        ck_assert_int_eq(result, 0);
        *(int64_t *)userdata = (int64_t)list->n;
}

static int64_t events_of(const char *sandbox_id)
{
        const struct sandbox_event_query query = { .sandbox_id = sandbox_id, .limit = 100 };
        int64_t n = -1;

        store_list_sandbox_events(f.store, &query, on_events, &n);
        while (n < 0)
                run_turns(1);
        return n;
}

static struct session_result update_labels(const char *sandbox_id, char *value)
{
        struct pair item = { unconst("a"), value };
        struct pairs labels = { &item, 1 };
        struct sandbox_update update = { .set_labels = true, .labels = &labels };
        struct answer answer = { 0 };

        session_update_sandbox(f.session, "uid:1", sandbox_id, &update, on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        return answer.result;
}

START_TEST(updates_have_a_rate_and_none_that_changes_nothing_is_told)
{
        struct session_result result = { 0 };
        struct answer sandbox;
        const char *id;
        unsigned n;

        stop_session();
        f.config.updates_per_second = 10;
        start_session();
        run_until(session_serves, NULL);
        sandbox = new_sandbox();
        id = sandbox.sandbox.sandbox_id;
        for (n = 0; result.outcome == 0; n++)
                result = update_labels(id, unconst("b"));
        ck_assert_uint_gt(n, 20);
        assert_refused(&result, SESSION_E_UPDATE_RATE, "uid:1");
        ck_assert_int_le(result.retry_usec, 100 * 1000);
        ck_assert_int_eq(events_of(id), 3); /* made, runs, updated once */
        while (update_labels(id, unconst("c")).outcome == SESSION_E_UPDATE_RATE)
                ;
        ck_assert_int_eq(events_of(id), 4);
}
END_TEST

START_TEST(only_so_many_streams_are_open)
{
        struct session_stream *streams[8];
        struct session_stream *others[2], *one_more;
        struct session_result result;

        for (size_t i = 0; i < 4; i++)
                ck_assert_int_eq(session_stream_new(f.session, "key-a", &streams[i]).outcome, 0);
        result = session_stream_new(f.session, "key-a", &one_more);
        assert_refused(&result, SESSION_E_STREAM_LIMIT, "key-a");
        for (size_t i = 0; i < 2; i++)
                ck_assert_int_eq(session_stream_new(f.session, "key-b", &others[i]).outcome, 0);
        streams[0] = session_stream_free(streams[0]);
        ck_assert_int_eq(session_stream_new(f.session, "key-a", &streams[0]).outcome,
                         SESSION_E_STREAM_LIMIT); /* there is less, now that b has some */
        for (size_t i = 0; i < 2; i++)
                (void)session_stream_free(others[i]);
        ck_assert_int_eq(session_stream_new(f.session, "key-a", &streams[0]).outcome, 0);
        for (size_t i = 0; i < 4; i++)
                (void)session_stream_free(streams[i]);
        ck_assert_int_eq(quota("key-a", SESSION_SHARE_STREAMS).used, 0);
}
END_TEST

static struct seen run_for(const char *owner, const char *sandbox_id, const char *code)
{
        struct execute_request request = execute_request(sandbox_id, code);
        struct seen seen = { 0 };

        request.owner = owner;
        ck_assert_int_eq(execute(&request, &seen).result.outcome, 0);
        wait_for_end(&seen);
        detach(&seen);
        return seen;
}

START_TEST(outputs_of_one_owner_do_not_push_out_anothers)
{
        struct answer mine, yours;
        struct seen first, kept;

        stop_session();
        f.config.shares.total[SESSION_SHARE_RINGS] = 20 * 1000;
        start_session();
        run_until(session_serves, NULL);
        mine = create_for("key-a", 1 << 28);
        yours = create_for("key-b", 1 << 28);
        kept = run_for("key-b", yours.sandbox.sandbox_id, "out kept");
        first = run_for("key-a", mine.sandbox.sandbox_id, "out first");
        for (unsigned i = 0; i < 30; i++)
                (void)run_for("key-a", mine.sandbox.sandbox_id, "out more");
        ck_assert_int_eq(session_first_sequence(f.session, first.ended.execution_id), 0);
        ck_assert_int_eq(session_first_sequence(f.session, kept.ended.execution_id), 1);
        ck_assert_int_le(quota("key-a", SESSION_SHARE_RINGS).used, 20 * 1000);
}
END_TEST

START_TEST(no_output_is_retained_when_there_is_no_room)
{
        struct answer sandbox;
        struct seen seen;

        stop_session();
        f.config.shares.total[SESSION_SHARE_RINGS] = 0;
        start_session();
        run_until(session_serves, NULL);
        sandbox = new_sandbox();
        for (unsigned i = 0; i < 3; i++)
                (void)run_code(sandbox.sandbox.sandbox_id, "out x");
        seen = run_code(sandbox.sandbox.sandbox_id, "out x");
        ck_assert_int_eq(session_first_sequence(f.session, seen.ended.execution_id), 0);
}
END_TEST

static struct key_quotas quotas; /* of key-a */

static int64_t quota_of_key_a(void *userdata, const char *owner, enum session_share share)
{
        (void)userdata;
        if (strcmp(owner, "key-a") != 0)
                return 0;
        return share == SESSION_SHARE_SANDBOXES    ? quotas.most[KEY_QUOTA_SANDBOXES]
               : share == SESSION_SHARE_MEMORY     ? quotas.most[KEY_QUOTA_MEMORY]
               : share == SESSION_SHARE_CPU        ? quotas.most[KEY_QUOTA_CPU]
               : share == SESSION_SHARE_EXECUTIONS ? quotas.most[KEY_QUOTA_EXECUTIONS]
                                                   : 0;
}

static void start_with_quotas(struct key_quotas wanted)
{
        quotas = wanted;
        stop_session();
        f.config.shares.quota_of = quota_of_key_a;
        start_session();
        run_until(session_serves, NULL);
}

START_TEST(an_owner_may_have_its_quotas)
{
        static const struct {
                struct key_quotas quotas;
                int outcome;
                const char *limit;
        } bounds[] = {
                { { .most[KEY_QUOTA_SANDBOXES] = 2 }, SESSION_E_SANDBOX_LIMIT, "sandboxes" },
                { { .most[KEY_QUOTA_MEMORY] = INT64_C(2) << 30 },
                  SESSION_E_MEMORY_LIMIT,
                  "memory_bytes" },
                { { .most[KEY_QUOTA_CPU] = 2999 }, SESSION_E_CPU_LIMIT, "cpu_millis" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
                struct answer answer;

                start_with_quotas(bounds[i].quotas);
                for (unsigned k = 0; k < 2; k++) {
                        answer = create_for("key-a", INT64_C(1) << 30);
                        ck_assert_int_eq(answer.result.outcome, 0);
                }
                answer = create_for("key-a", INT64_C(1) << 30);
                assert_refused(&answer.result, bounds[i].outcome, "key-a");
                ck_assert_str_eq(answer.result.limit, bounds[i].limit);
                ck_assert_int_eq(create_for("key-b", INT64_C(1) << 30).result.outcome, 0);
        }
        /* A lower one ends nothing; without one there is room again. */
        quotas = (struct key_quotas){ .most[KEY_QUOTA_SANDBOXES] = 1 };
        ck_assert_int_eq(create_for("key-a", INT64_C(1) << 30).result.outcome,
                         SESSION_E_SANDBOX_LIMIT);
        ck_assert_int_eq(quota("key-a", SESSION_SHARE_SANDBOXES).owner_used, 2);
        quotas = (struct key_quotas){ 0 };
        ck_assert_int_eq(create_for("key-a", INT64_C(1) << 30).result.outcome, 0);
}
END_TEST

/* The operator's for all, and the key's own: the lower one counts, and is what is told. */
START_TEST(of_two_bounds_the_lower_one_holds)
{
        static const struct {
                int64_t of_all, of_key, holds;
        } bounds[] = { { 3, 2, 2 }, { 2, 3, 2 }, { 2, 0, 2 }, { 0, 2, 2 } };

        struct answer answer;

        for (size_t i = 0; i < ARRAY_SIZE(bounds); i++) {
                f.config.shares.owner_max[SESSION_SHARE_SANDBOXES] = bounds[i].of_all;
                start_with_quotas(
                        (struct key_quotas){ .most[KEY_QUOTA_SANDBOXES] = bounds[i].of_key });
                ck_assert_int_eq(quota("key-a", SESSION_SHARE_SANDBOXES).owner_limit,
                                 bounds[i].holds);
                for (int64_t n = 0; n < bounds[i].holds; n++)
                        ck_assert_int_eq(create_for("key-a", INT64_C(1) << 28).result.outcome, 0);
                answer = create_for("key-a", INT64_C(1) << 28);
                assert_refused(&answer.result, SESSION_E_SANDBOX_LIMIT, "key-a");
                /* The operator is asked for what would help. */
                ck_assert_int_eq(strstr(answer.result.message, "hotcell key update") != NULL,
                                 bounds[i].of_key == bounds[i].holds);
        }
}
END_TEST

/* What it says is what to do, and whether it helps to ask again. */
START_TEST(a_refusal_says_what_is_used_and_what_to_do)
{
        struct answer answer;

        start_with_quotas((struct key_quotas){ .most[KEY_QUOTA_MEMORY] = INT64_C(1) << 30 });
        ck_assert_int_eq(create_for("key-a", INT64_C(600) << 20).result.outcome, 0);
        answer = create_for("key-a", INT64_C(600) << 20);
        assert_refused(&answer.result, SESSION_E_MEMORY_LIMIT, "key-a");
        ck_assert_str_eq(answer.result.message,
                         "Your quota of memory is 1024 MiB: 600 MiB used, 600 MiB more asked for. "
                         "Delete a sandbox or lower its memory limit, or ask the operator for: "
                         "hotcell key update --max-memory N key-a");

        answer = create_for("key-a", INT64_C(2) << 30);
        ck_assert_str_eq(answer.result.message,
                         "Of memory you may have 1024 MiB at most: 2048 MiB asked for. Ask for "
                         "less (limits.memory_bytes), or ask the operator for: hotcell key update "
                         "--max-memory N key-a");
        ck_assert_int_eq(answer.result.retry_usec, SESSION_RETRY_NEVER);
        ck_assert_str_eq(answer.result.quota, "key-a");

        answer = create_for("uid:0", INT64_C(1) << 50);
        ck_assert_int_eq(answer.result.retry_usec, SESSION_RETRY_NEVER);
        ck_assert_ptr_nonnull(strstr(answer.result.message, "Ask for less (limits.memory_bytes)."));
}
END_TEST

/* Half of it no key ever gets, however much is free. */
START_TEST(to_ask_for_more_than_the_part_of_a_key_is_hopeless)
{
        struct answer answer = create_for("key-a", INT64_C(12) << 30);

        ck_assert_int_eq(answer.result.outcome, SESSION_E_MEMORY_LIMIT);
        ck_assert_int_eq(answer.result.retry_usec, SESSION_RETRY_NEVER);
        ck_assert_int_eq(create_for("key-b", INT64_C(6) << 30).result.outcome, 0);
        answer = create_for("key-a", INT64_C(7) << 30);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_MEMORY_LIMIT);
        ck_assert_int_gt(answer.result.retry_usec, 0);
}
END_TEST

static void delete_of(const char *owner, const char *sandbox_id)
{
        struct answer answer = { 0 };

        session_delete_sandbox(f.session, owner, sandbox_id, NULL, CAUSE_CLIENT, on_sandbox_answer,
                               &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, 0);
}

static bool nobody_has_any(void *userdata)
{
        (void)userdata;
        return quota("key-a", SESSION_SHARE_SANDBOXES).owner_used == 0;
}

static void assert_used(const char *owner, int64_t n_sandboxes)
{
        ck_assert_int_eq(quota(owner, SESSION_SHARE_SANDBOXES).owner_used, n_sandboxes);
        ck_assert_int_eq(quota(owner, SESSION_SHARE_MEMORY).owner_used, n_sandboxes << 30);
        ck_assert_int_eq(quota(owner, SESSION_SHARE_CPU).owner_used, n_sandboxes * 1000);
        ck_assert_int_eq(quota(owner, SESSION_SHARE_CREATIONS).owner_used, 0);
        ck_assert_int_eq(quota(owner, SESSION_SHARE_EXECUTIONS).owner_used, 0);
}

/* Of what fails nothing stays charged, and after a crash it is what is there. */
START_TEST(what_is_used_is_what_is_there)
{
        struct answer kept, gone = { 0 };

        start_with_quotas((struct key_quotas){ .most[KEY_QUOTA_SANDBOXES] = 2 });
        fake_runtime_script(f.runtime)->fail_create =
                HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_SYSTEM;
        for (unsigned i = 0; i < 5; i++)
                ck_assert_int_ne(create_for("key-a", INT64_C(1) << 30).result.outcome, 0);
        fake_runtime_script(f.runtime)->fail_create = 0;
        run_until(nobody_has_any, NULL); /* its end is still recorded when that is answered */
        assert_used("key-a", 0);
        kept = create_for("key-a", INT64_C(1) << 30);
        for (unsigned i = 0; i < 5; i++) {
                gone = create_for("key-a", INT64_C(1) << 30);
                ck_assert_int_eq(gone.result.outcome, 0);
                delete_of("key-a", gone.sandbox.sandbox_id);
        }
        assert_used("key-a", 1);
        crash_server();
        start_session();
        run_until(session_serves, NULL);
        assert_used("key-a", 1);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 1);
        delete_of("key-a", kept.sandbox.sandbox_id);
        assert_used("key-a", 0);
}
END_TEST

static void on_room(void *userdata)
{
        *(bool *)userdata = true;
}

static bool is_ending(void *userdata)
{
        (void)userdata;
        return create_for("key-a", INT64_C(1) << 30).result.may_pass;
}

/* Of what ends its client may know before all that it held is free: then it is worth to wait. */
START_TEST(who_is_refused_for_what_ends_is_told_when_it_is_gone)
{
        struct answer made, deleted = { 0 }, refused;
        bool is_told = false, is_out_of_patience = false;

        start_with_quotas((struct key_quotas){ .most[KEY_QUOTA_SANDBOXES] = 1 });
        made = create_for("key-a", INT64_C(1) << 30);
        ck_assert(!create_for("key-a", INT64_C(1) << 30).result.may_pass);

        fake_runtime_script(f.runtime)->deaf_destroy = true;
        session_delete_sandbox(f.session, "key-a", made.sandbox.sandbox_id, NULL, CAUSE_CLIENT,
                               on_sandbox_answer, &deleted);
        run_until(is_ending, NULL);
        refused = create_for("key-a", INT64_C(1) << 30);
        ck_assert_int_eq(refused.result.outcome, SESSION_E_SANDBOX_LIMIT);
        ck_assert_int_eq(
                session_await_room(f.session, &refused.result, 1, on_room, &is_out_of_patience), 0);
        ck_assert_int_eq(
                session_await_room(f.session, &refused.result, 3600000000, on_room, &is_told), 0);
        ck_assert(!is_out_of_patience); /* never at once */
        run_until_true(&is_out_of_patience);
        ck_assert(!is_told && !deleted.is_done);

        fake_runtime_script(f.runtime)->deaf_destroy = false;
        fake_runtime_break(f.runtime);
        run_until_true(&is_told);
        run_until(session_serves, NULL);
        ck_assert_int_eq(create_for("key-a", INT64_C(1) << 30).result.outcome, 0);
}
END_TEST

/* A server that stops has no room to wait for, and waits for nobody who does. */
START_TEST(who_waits_for_room_is_told_when_the_server_stops)
{
        struct answer made, deleted = { 0 }, refused;
        bool is_told = false;

        start_with_quotas((struct key_quotas){ .most[KEY_QUOTA_SANDBOXES] = 1 });
        made = create_for("key-a", INT64_C(1) << 30);
        fake_runtime_script(f.runtime)->deaf_destroy = true;
        session_delete_sandbox(f.session, "key-a", made.sandbox.sandbox_id, NULL, CAUSE_CLIENT,
                               on_sandbox_answer, &deleted);
        run_until(is_ending, NULL);
        refused = create_for("key-a", INT64_C(1) << 30);
        ck_assert_int_eq(
                session_await_room(f.session, &refused.result, 3600000000, on_room, &is_told), 0);
        session_leave(f.session);
        run_until_true(&is_told);
        ck_assert(!create_for("key-a", INT64_C(1) << 30).result.may_pass);
        fake_runtime_script(f.runtime)->deaf_destroy = false;
        fake_runtime_break(f.runtime);
        run_until_true(&deleted.is_done);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &one_owner_gets_its_part_and_several_leave_something,
                &an_operator_has_all_that_is_free_and_uses_its_reserve_first,
                &memory_is_promised_only_once,
                &only_so_many_are_made_at_once,
                &only_so_many_run_and_wait,
                &code_of_one_owner_leaves_room_for_anothers,
                &what_runs_at_once_does_not_count_as_waiting,
                &updates_have_a_rate_and_none_that_changes_nothing_is_told,
                &only_so_many_streams_are_open,
                &outputs_of_one_owner_do_not_push_out_anothers,
                &no_output_is_retained_when_there_is_no_room,
                &an_owner_may_have_its_quotas,
                &of_two_bounds_the_lower_one_holds,
                &a_refusal_says_what_is_used_and_what_to_do,
                &to_ask_for_more_than_the_part_of_a_key_is_hopeless,
                &what_is_used_is_what_is_there,
                &who_is_refused_for_what_ends_is_told_when_it_is_gone,
                &who_waits_for_room_is_told_when_the_server_stops,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("shares", all, ARRAY_SIZE(all));
}
