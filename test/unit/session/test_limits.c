/* Limits that are changed on a sandbox that runs: in force, recorded, charged, and taken back. */
#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/limiting.h"
#include "server/session/session_private.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name
#define SIZE_MIB(n)  ((int64_t)(n) << 20)

/* The fixture's runtime speaks an older version unless it is told. */
static void setup(void)
{
        fixture_setup();
        stop_session();
        fake_runtime_script(f.runtime)->protocol = 4;
        start_session();
        run_until(session_serves, NULL);
}

static struct sandbox_update memory_update(int64_t memory_bytes)
{
        return (struct sandbox_update){ .set_limits = BIT(SANDBOX_LIMIT_MEMORY),
                                        .limits = { .memory_bytes = memory_bytes } };
}

static struct answer a_sandbox_of(const char *owner)
{
        struct sandbox_request request = sandbox_request();

        request.owner = owner;
        return create_sandbox(&request);
}

static int64_t used(const char *owner, enum session_share share)
{
        struct session_info info;

        session_info(f.session, owner, &info);
        return info.quotas[share].owner_used;
}

static bool is_charged(void *userdata)
{
        return used("uid:1", SESSION_SHARE_MEMORY) == *(int64_t *)userdata;
}

static const struct sandbox_limits limits_before = { 1, 2, 3, 4, 5, { 6, 7 }, 8, 9, 10 };
static const struct sandbox_limits limits_wanted = { 11, 12, 13, 14, 15, { 16, 17 }, 18, 19, 20 };

/* As @limits_before, but for the one of that number. */
static struct sandbox_limits with_wanted(enum sandbox_limit limit)
{
        struct sandbox_limits limits = limits_before;

#define CASE(which, field)                                                                         \
        case SANDBOX_LIMIT_##which:                                                                \
                limits.field = limits_wanted.field;                                                \
                break
        switch (limit) {
                CASE(MEMORY, memory_bytes);
                CASE(CPU, cpu_millis);
                CASE(PROCESSES, processes);
                CASE(OPEN_FILES, open_files);
                CASE(DISK, disk_bytes);
                CASE(INODES, disk_inodes);
                CASE(WEIGHT, cpu_weight);
                CASE(IO, io_bytes_per_second);
                CASE(TIMEOUT, execution.timeout_usec);
                CASE(OUTPUT, execution.output_bytes);
        case _SANDBOX_LIMIT_N:
        default:
                ck_abort();
        }
#undef CASE
        return limits;
}

static void check_limits(const struct sandbox_limits *is, const struct sandbox_limits *should_be)
{
        ck_assert_int_eq(is->memory_bytes, should_be->memory_bytes);
        ck_assert_int_eq(is->cpu_millis, should_be->cpu_millis);
        ck_assert_int_eq(is->processes, should_be->processes);
        ck_assert_int_eq(is->open_files, should_be->open_files);
        ck_assert_int_eq(is->disk_bytes, should_be->disk_bytes);
        ck_assert_int_eq(is->disk_inodes, should_be->disk_inodes);
        ck_assert_int_eq(is->cpu_weight, should_be->cpu_weight);
        ck_assert_int_eq(is->io_bytes_per_second, should_be->io_bytes_per_second);
        ck_assert_int_eq(is->execution.timeout_usec, should_be->execution.timeout_usec);
        ck_assert_int_eq(is->execution.output_bytes, should_be->execution.output_bytes);
}

START_TEST(each_limit_is_changed_by_itself)
{
        const enum sandbox_limit limit = (enum sandbox_limit)_i;
        const struct sandbox_update update = { .set_limits = BIT(limit), .limits = limits_wanted };
        const struct sandbox_limits expected = with_wanted(limit);
        const struct sandbox_limits merged = limits_merge(&limits_before, &update);

        check_limits(&merged, &expected);
        ck_assert(limits_are_same(&limits_before, &limits_before));
        ck_assert(!limits_are_same(&limits_before, &merged));
}
END_TEST

START_TEST(changed_limits_are_in_force_recorded_and_charged)
{
        struct answer made = new_sandbox(), answer;
        struct sandbox_update update = memory_update(SIZE_MIB(512));
        char before[ETAG_BUFFER], after[ETAG_BUFFER];

        sandbox_etag(&made.sandbox, before);
        update.set_limits |= BIT(SANDBOX_LIMIT_CPU) | BIT(SANDBOX_LIMIT_TIMEOUT);
        update.limits.cpu_millis = 2500;
        update.limits.execution.timeout_usec = 7;
        answer = update_sandbox(made.sandbox.sandbox_id, &update);
        ck_assert_int_eq(answer.result.outcome, 0);
        ck_assert_uint_eq(fake_runtime_memory_bytes(f.runtime), SIZE_MIB(512));
        ck_assert_int_eq(answer.sandbox.limits.memory_bytes, SIZE_MIB(512));
        ck_assert_int_eq(answer.sandbox.limits.cpu_millis, 2500);
        ck_assert_int_eq(answer.sandbox.limits.execution.timeout_usec, 7);
        ck_assert_int_eq(answer.sandbox.limits.processes, made.sandbox.limits.processes);
        sandbox_etag(&answer.sandbox, after);
        ck_assert_str_ne(before, after);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), SIZE_MIB(512));
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_CPU), 2500);

        update = memory_update(SIZE_MIB(128));
        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome, 0);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), SIZE_MIB(128));
        ck_assert_int_eq(delete_sandbox(made.sandbox.sandbox_id).result.outcome, 0);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), 0);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_CPU), 0);
}
END_TEST

START_TEST(what_the_runtime_refuses_changes_nothing)
{
        struct answer made = new_sandbox(), answer;
        struct sandbox_update update = memory_update(SIZE_MIB(512));

        update.set_idle_timeout = true;
        update.idle_timeout_usec = 5;
        fake_runtime_script(f.runtime)->fail_limits = REASON(LIMIT);
        answer = update_sandbox(made.sandbox.sandbox_id, &update);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_LIMIT);
        answer = get_sandbox(made.sandbox.sandbox_id);
        ck_assert_int_eq(answer.sandbox.limits.memory_bytes, SIZE_MIB(256));
        ck_assert_int_eq(answer.sandbox.idle_timeout_usec, 0);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), SIZE_MIB(256));
        /* It is over: others may change them. */
        fake_runtime_script(f.runtime)->fail_limits = 0;
        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome, 0);
}
END_TEST

/* The runtime could not put all back. */
START_TEST(what_a_refused_change_leaves_is_charged)
{
        struct answer made = new_sandbox();
        struct sandbox_update update = memory_update(SIZE_MIB(512));
        int64_t before = SIZE_MIB(256);

        fake_runtime_script(f.runtime)->fail_limits = REASON(LIMIT);
        fake_runtime_script(f.runtime)->memory_in_use = (uint64_t)SIZE_MIB(400);
        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome,
                         SESSION_E_LIMIT);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), SIZE_MIB(400));
        fake_runtime_script(f.runtime)->fail_limits = 0;
        fake_runtime_script(f.runtime)->memory_in_use = 0;
        run_until(is_charged, &before);
        ck_assert_uint_eq(fake_runtime_memory_bytes(f.runtime), SIZE_MIB(256));
}
END_TEST

START_TEST(nobody_raises_limits_beyond_its_share)
{
        struct answer made = a_sandbox_of("key-a"), answer = { 0 };
        struct sandbox_update update = memory_update(INT64_C(9) << 30);

        session_update_sandbox(f.session, "key-a", made.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_MEMORY_LIMIT);
        ck_assert_str_eq(answer.result.quota, "key-a");
        update = (struct sandbox_update){ .set_limits = BIT(SANDBOX_LIMIT_CPU),
                                          .limits = { .cpu_millis = 40000 } };
        answer = (struct answer){ 0 };
        session_update_sandbox(f.session, "key-a", made.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_CPU_LIMIT);
        ck_assert_uint_eq(fake_runtime_n_limits(f.runtime), 0);
}
END_TEST

START_TEST(the_disk_stays_below_the_memory)
{
        struct answer made = new_sandbox();
        struct sandbox_update update = { .set_limits = BIT(SANDBOX_LIMIT_DISK),
                                         .limits = { .disk_bytes = SIZE_MIB(193) } };

        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome,
                         SESSION_E_LIMIT);
        update.limits.disk_bytes = SIZE_MIB(192);
        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome, 0);
}
END_TEST

START_TEST(limits_are_changed_by_one_at_a_time)
{
        struct answer made = new_sandbox(), first = { 0 }, second = { 0 };
        struct sandbox_update update = memory_update(SIZE_MIB(512));
        const char *id = made.sandbox.sandbox_id;

        update.set_limits |= BIT(SANDBOX_LIMIT_CPU);
        update.limits.cpu_millis = 2500;
        session_update_sandbox(f.session, "uid:1", id, &update, on_sandbox_answer, &first);
        ck_assert(!first.is_done);
        /* Nobody else is promised the same meanwhile. */
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), SIZE_MIB(512));
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_CPU), 2500);
        update = memory_update(SIZE_MIB(300));
        session_update_sandbox(f.session, "uid:1", id, &update, on_sandbox_answer, &second);
        ck_assert(second.is_done);
        ck_assert_int_eq(second.result.outcome, SESSION_E_CONFLICT);
        run_until_true(&first.is_done);
        ck_assert_int_eq(first.result.outcome, 0);
        ck_assert_int_eq(update_sandbox(id, &update).result.outcome, 0);
}
END_TEST

static bool has_memory(void *userdata)
{
        return fake_runtime_memory_bytes(f.runtime) == (uint64_t) * (int64_t *)userdata;
}

static int64_t quota_of_two(void *userdata, const char *owner, enum session_share share)
{
        (void)userdata;
        (void)owner;
        return share == SESSION_SHARE_MEMORY ? SIZE_MIB(1024)
               : share == SESSION_SHARE_CPU  ? 2000
                                             : 0;
}

static struct answer update_of_key_a(const struct answer *made, struct sandbox_update update)
{
        struct answer answer = { 0 };

        session_update_sandbox(f.session, "key-a", made->sandbox.sandbox_id, &update,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

/* What counts is what it would have in all, not how much more that is. */
START_TEST(to_grow_above_all_of_a_quota_is_hopeless)
{
        struct sandbox_update cpus = { .set_limits = BIT(SANDBOX_LIMIT_CPU),
                                       .limits = { .cpu_millis = 3000 } };
        struct answer made, answer;

        stop_session();
        f.config.shares.quota_of = quota_of_two;
        start_session();
        run_until(session_serves, NULL);
        made = a_sandbox_of("key-a");
        answer = update_of_key_a(&made, memory_update(SIZE_MIB(512)));
        ck_assert_int_eq(answer.result.outcome, 0);

        answer = update_of_key_a(&made, memory_update(SIZE_MIB(1280)));
        ck_assert_int_eq(answer.result.outcome, SESSION_E_MEMORY_LIMIT);
        ck_assert_int_eq(answer.result.retry_usec, SESSION_RETRY_NEVER);
        ck_assert_str_eq(answer.result.message,
                         "Of memory you may have 1024 MiB at most: 1280 MiB asked for. Ask for "
                         "less (limits.memory_bytes), or ask the operator for: hotcell key update "
                         "--max-memory N key-a");

        answer = update_of_key_a(&made, cpus);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_CPU_LIMIT);
        ck_assert_int_eq(answer.result.retry_usec, SESSION_RETRY_NEVER);
        ck_assert_ptr_nonnull(
                strstr(answer.result.message, "2 at most: 3 asked for. Ask for less"));

        /* What another holds of it may be given back. */
        (void)a_sandbox_of("key-a");
        answer = update_of_key_a(&made, memory_update(SIZE_MIB(1024)));
        ck_assert_int_eq(answer.result.outcome, SESSION_E_MEMORY_LIMIT);
        ck_assert_int_gt(answer.result.retry_usec, 0);
}
END_TEST

/* Its etag was good when it came, and is not any more once the limits are in force. */
START_TEST(who_was_overtaken_has_its_limits_taken_back)
{
        struct answer made = new_sandbox(), first = { 0 };
        struct sandbox_update update = memory_update(SIZE_MIB(512));
        struct sandbox_update other = { .set_idle_timeout = true, .idle_timeout_usec = 77000000 };
        int64_t before = SIZE_MIB(256);
        char etag[ETAG_BUFFER];

        sandbox_etag(&made.sandbox, etag);
        update.etag = etag;
        session_update_sandbox(f.session, "uid:1", made.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &first);
        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &other).result.outcome, 0);
        run_until_true(&first.is_done);
        ck_assert_int_eq(first.result.outcome, SESSION_E_CONFLICT);
        run_until(has_memory, &before);
        run_until(is_charged, &before);
        ck_assert_int_eq(get_sandbox(made.sandbox.sandbox_id).sandbox.limits.memory_bytes,
                         SIZE_MIB(256));
}
END_TEST

/* Its programs hold what they got meanwhile: that is charged for as long as they do. */
START_TEST(what_cannot_be_taken_back_stays_charged)
{
        struct answer made = new_sandbox(), first = { 0 };
        struct sandbox_update update = memory_update(SIZE_MIB(512));
        struct sandbox_update other = { .set_idle_timeout = true, .idle_timeout_usec = 77000000 };
        int64_t held = SIZE_MIB(400), before = SIZE_MIB(256);
        char etag[ETAG_BUFFER];

        sandbox_etag(&made.sandbox, etag);
        update.etag = etag;
        update.set_limits |= BIT(SANDBOX_LIMIT_CPU);
        update.limits.cpu_millis = 2500;
        fake_runtime_script(f.runtime)->memory_in_use = (uint64_t)held;
        session_update_sandbox(f.session, "uid:1", made.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &first);
        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &other).result.outcome, 0);
        run_until_true(&first.is_done);
        ck_assert_int_eq(first.result.outcome, SESSION_E_CONFLICT);
        ck_assert_int_ge(used("uid:1", SESSION_SHARE_MEMORY), held);
        run_until(is_charged, &held);
        run_turns(50);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), held);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_CPU), made.sandbox.limits.cpu_millis);
        fake_runtime_script(f.runtime)->memory_in_use = 0;
        run_until(is_charged, &before); /* it is asked again */
        ck_assert_uint_eq(fake_runtime_memory_bytes(f.runtime), SIZE_MIB(256));
        ck_assert_int_eq(delete_sandbox(made.sandbox.sandbox_id).result.outcome, 0);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), 0);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_CPU), 0);
}
END_TEST

static struct limiting *limiting_of(const char *id)
{
        return &session_find_sandbox(f.session, NULL, id)->limiting;
}

struct tries {
        const struct limiting *limiting;
        unsigned n;
};

static bool has_tried(void *userdata)
{
        const struct tries *tries = userdata;

        return tries->limiting->n_tries == tries->n;
}

/* Twice as long each time, up to half a minute; and from the beginning the next time. */
START_TEST(what_cannot_be_taken_back_is_tried_less_and_less)
{
        struct answer made = new_sandbox();
        struct sandbox_update update = memory_update(SIZE_MIB(512));
        struct tries tries = { limiting_of(made.sandbox.sandbox_id), 0 };

        for (int round = 0; round < 2; round++) {
                fake_runtime_script(f.runtime)->fail_limits = REASON(LIMIT);
                fake_runtime_script(f.runtime)->memory_in_use = (uint64_t)SIZE_MIB(400);
                ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome,
                                 SESSION_E_LIMIT);
                for (tries.n = 1; tries.n <= 8; tries.n++) {
                        uint64_t pause_usec = UINT64_C(1000000) << MIN(tries.n - 1, 5U);
                        uint64_t before_usec = clock_monotonic_usec(), due_usec;

                        run_until(has_tried, &tries);
                        (void)sd_event_source_get_time(tries.limiting->retry, &due_usec);
                        ck_assert_uint_ge(due_usec, before_usec + pause_usec);
                        ck_assert_uint_le(due_usec, clock_monotonic_usec() + pause_usec);
                        (void)sd_event_source_set_time(tries.limiting->retry, 0);
                }
                fake_runtime_script(f.runtime)->fail_limits = 0;
                fake_runtime_script(f.runtime)->memory_in_use = 0;
                tries.n = 0;
                run_until(has_tried, &tries);
        }
}
END_TEST

/* The runtime has them, the row has not: what was not answered for does not count. */
START_TEST(after_a_crash_the_row_is_the_truth)
{
        struct answer made = new_sandbox(), answer = { 0 };
        struct sandbox_update update = memory_update(SIZE_MIB(512));
        int64_t wanted = SIZE_MIB(512), before = SIZE_MIB(256);

        session_update_sandbox(f.session, "uid:1", made.sandbox.sandbox_id, &update,
                               on_sandbox_answer, &answer);
        run_until(has_memory, &wanted);
        crash_server();
        fake_runtime_script(f.runtime)->fail_limits = _i ? REASON(LIMIT) : 0;
        start_session();
        run_until(session_serves, NULL);
        run_turns(50);
        if (_i)
                ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), wanted);
        fake_runtime_script(f.runtime)->fail_limits = 0; /* what was refused is tried again */
        run_until(has_memory, &before);
        ck_assert_uint_eq(fake_runtime_n_limits(f.runtime), _i ? 3 : 2);
        ck_assert_int_eq(get_sandbox(made.sandbox.sandbox_id).sandbox.limits.memory_bytes,
                         SIZE_MIB(256));
        run_until(is_charged, &before);
}
END_TEST

START_TEST(what_was_answered_for_is_there_after_a_crash)
{
        struct answer made = new_sandbox();
        struct sandbox_update update = memory_update(SIZE_MIB(512));

        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome, 0);
        crash_server();
        start_session();
        run_until(session_serves, NULL);
        ck_assert_int_eq(get_sandbox(made.sandbox.sandbox_id).sandbox.limits.memory_bytes,
                         SIZE_MIB(512));
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), SIZE_MIB(512));
        ck_assert_uint_eq(fake_runtime_memory_bytes(f.runtime), SIZE_MIB(512));
}
END_TEST

START_TEST(an_older_runtime_changes_no_limits)
{
        struct answer made;
        struct sandbox_update update = memory_update(SIZE_MIB(512));

        stop_session();
        fake_runtime_script(f.runtime)->protocol = 3;
        start_session();
        run_until(session_serves, NULL);
        made = new_sandbox();
        ck_assert_int_eq(update_sandbox(made.sandbox.sandbox_id, &update).result.outcome,
                         SESSION_E_RUNTIME_UNAVAILABLE);
        ck_assert_uint_eq(fake_runtime_n_limits(f.runtime), 0);
        ck_assert_int_eq(used("uid:1", SESSION_SHARE_MEMORY), SIZE_MIB(256));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("limits");
        TCase *tests = tcase_create("limits");

        tcase_add_checked_fixture(tests, setup, fixture_teardown);
        tcase_set_timeout(tests, 60);
        tcase_add_loop_test(tests, each_limit_is_changed_by_itself, 0, _SANDBOX_LIMIT_N);
        tcase_add_test(tests, changed_limits_are_in_force_recorded_and_charged);
        tcase_add_test(tests, what_the_runtime_refuses_changes_nothing);
        tcase_add_test(tests, what_a_refused_change_leaves_is_charged);
        tcase_add_test(tests, nobody_raises_limits_beyond_its_share);
        tcase_add_test(tests, the_disk_stays_below_the_memory);
        tcase_add_test(tests, limits_are_changed_by_one_at_a_time);
        tcase_add_test(tests, to_grow_above_all_of_a_quota_is_hopeless);
        tcase_add_test(tests, who_was_overtaken_has_its_limits_taken_back);
        tcase_add_test(tests, what_cannot_be_taken_back_stays_charged);
        tcase_add_test(tests, what_cannot_be_taken_back_is_tried_less_and_less);
        tcase_add_loop_test(tests, after_a_crash_the_row_is_the_truth, 0, 2);
        tcase_add_test(tests, what_was_answered_for_is_there_after_a_crash);
        tcase_add_test(tests, an_older_runtime_changes_no_limits);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
