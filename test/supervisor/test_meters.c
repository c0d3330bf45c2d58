/* What hotcell-runtime measures and tells, with the programs of BPF and without. */

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/dns_label.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "test/lib/suite.h"
#include "test/supervisor/peer.h"

#define REQUEST(name) HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_##name
#define ANSWER(name)  HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name
#define PART(name)    HOTCELL__RUNTIME__V1__METER_PART__METER_PART_##name

/* Uses a CPU for a while. */
#define SPIN                                                                                       \
        "/usr/bin/python3 -c '\n"                                                                  \
        "import time\n"                                                                            \
        "while time.process_time() < 0.3: pass'"
#define CPU_USEC 300000

static struct daemon runtime;
static struct peer peer;
static char output[OUTPUT_MAX];

static void set_up_with(char *const arguments[])
{
        daemon_start(&runtime, arguments);
        peer_connect(&peer, &runtime);
        peer_hello(&peer);
}

static void setup(void)
{
        set_up_with(NULL);
}

static void setup_without_programs(void)
{
        static char option[] = "--no-meter-programs";
        static char *const arguments[] = { option, NULL };

        set_up_with(arguments);
}

/* The init's, and one process's. */
static void setup_with_two_slots(void)
{
        static char option[] = "--meter-slots=2";
        static char *const arguments[] = { option, NULL };

        set_up_with(arguments);
}

static void teardown(void)
{
        peer_disconnect(&peer);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
        ck_assert_uint_eq(daemon_groups_left(&runtime), 0);
}

static bool misses(const Hotcell__Runtime__V1__Usage *usage, Hotcell__Runtime__V1__MeterPart part)
{
        for (size_t i = 0; i < usage->n_missing; i++)
                if (usage->missing[i] == part)
                        return true;
        return false;
}

static void check_same_time(uint64_t ours_usec, uint64_t theirs_usec)
{
        uint64_t difference = MAX(ours_usec, theirs_usec) - MIN(ours_usec, theirs_usec);

        ck_assert_msg(difference <= MAX(theirs_usec / 100, 2000U), "%llu us and %llu us",
                      (unsigned long long)ours_usec, (unsigned long long)theirs_usec);
}

static struct answer destroy(const char *id)
{
        Hotcell__Runtime__V1__DestroySandbox destroy;
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer answer;

        hotcell__runtime__v1__destroy_sandbox__init(&destroy);
        hotcell__runtime__v1__to_runtime__init(&message);
        destroy.sandbox_id = unconst(id);
        message.body_case = REQUEST(DESTROY_SANDBOX);
        message.destroy_sandbox = &destroy;
        answer = peer_ask(&peer, &message);
        ck_assert_int_eq(answer.message->body_case, ANSWER(DONE));
        ck_assert_ptr_nonnull(answer.message->done->usage);
        return answer;
}

static struct answer read_usage(const char *sandbox_id, const char *process_id, bool reset_peak)
{
        Hotcell__Runtime__V1__ReadUsage read;
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer answer;

        hotcell__runtime__v1__read_usage__init(&read);
        hotcell__runtime__v1__to_runtime__init(&message);
        read.sandbox_id = unconst(sandbox_id);
        read.process_id = unconst(process_id);
        read.reset_peak = reset_peak;
        message.body_case = REQUEST(READ_USAGE);
        message.read_usage = &read;
        answer = peer_ask(&peer, &message);
        ck_assert_int_eq(answer.message->body_case, ANSWER(USAGE));
        return answer;
}

static struct answer read_meters_of(const char *after, char **ids, size_t n)
{
        Hotcell__Runtime__V1__ReadMeters read;
        Hotcell__Runtime__V1__ToRuntime message;
        struct answer answer;

        hotcell__runtime__v1__read_meters__init(&read);
        hotcell__runtime__v1__to_runtime__init(&message);
        read.after_sandbox_id = unconst(after);
        read.sandbox_ids = ids;
        read.n_sandbox_ids = n;
        message.body_case = REQUEST(READ_METERS);
        message.read_meters = &read;
        answer = peer_ask(&peer, &message);
        ck_assert_int_eq(answer.message->body_case, ANSWER(METER_LIST));
        return answer;
}

static struct answer read_meters(const char *after)
{
        return read_meters_of(after, NULL, 0);
}

START_TEST(an_end_comes_with_all_meters)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;
        const Hotcell__Runtime__V1__Usage *used;
        const Hotcell__Runtime__V1__Usage *total;
        uint64_t begin_usec = clock_monotonic_usec();

        peer_create(&peer, "sbx-a");
        event = peer_run(&peer, "sbx-a", SPIN, output);
        used = event->process_ended->usage;
        ck_assert_uint_ge(used->cpu_usec, CPU_USEC);
        check_same_time(used->scheduled_usec, used->cpu_usec);
        check_same_time(used->cpu_user_usec + used->cpu_system_usec, used->cpu_usec);
        ck_assert_uint_gt(used->cpu_user_usec, 0);
        ck_assert_uint_gt(used->n_switches, 0);
        ck_assert_uint_ge(used->rss_peak_bytes, MIB(4));
        ck_assert_uint_eq(used->n_missing, 0);
        ck_assert_ptr_null(event->process_ended->victim);
        answer = destroy("sbx-a");
        total = answer.message->done->usage;
        ck_assert_uint_ge(total->cpu_usec, used->cpu_usec);
        check_same_time(total->scheduled_usec, total->cpu_usec);
        ck_assert_uint_ge(total->scheduled_usec, used->scheduled_usec);
        ck_assert_uint_ge(total->rss_peak_bytes, used->rss_peak_bytes);
        ck_assert_uint_ge(total->memory_byte_seconds, used->memory_byte_seconds);
        ck_assert_uint_ge(total->wait_usec, used->wait_usec);
        ck_assert_uint_ge(total->n_switches, used->n_switches);
        ck_assert_uint_eq(used->wall_usec, 0);
        ck_assert_uint_ge(total->wall_usec, CPU_USEC); /* of one thread */
        ck_assert_uint_le(total->wall_usec, clock_monotonic_usec() - begin_usec);
        event_free(event);
        answer_deinit(&answer);
}
END_TEST

START_TEST(the_victim_of_a_want_of_memory_is_told)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        const Hotcell__Runtime__V1__Victim *victim;

        peer_create(&peer, "sbx-a");
        event = peer_run(&peer, "sbx-a", "/usr/bin/python3 -c 'x = bytearray(1 << 30)'; true",
                         output);
        ck_assert(event->process_ended->oom);
        ck_assert_uint_ge(event->process_ended->usage->oom_kills, 1);
        victim = event->process_ended->victim;
        ck_assert_ptr_nonnull(victim);
        ck_assert_uint_eq(victim->command.len, strlen("python3"));
        ck_assert_mem_eq(victim->command.data, "python3", victim->command.len);
        ck_assert_uint_gt(victim->rss_bytes, MIB(64));
        event_free(event);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

/* 100 MiB, from before it says so. */
#define HOLD                                                                                       \
        "exec /usr/bin/python3 -c '\n"                                                             \
        "import time, sys\n"                                                                       \
        "held = bytearray(100 << 20)\n"                                                            \
        "print(\"held\", flush=True)\n"                                                            \
        "time.sleep(1000)'"

static void check_held(const Hotcell__Runtime__V1__Usage *held)
{
        ck_assert_uint_ge(held->memory_bytes, MIB(100));
        if (!misses(held, PART(RSS_PEAK)))
                ck_assert_uint_ge(held->rss_peak_bytes, MIB(100));
}

/* Whatever else the machine does: by the time that went by between two readings. */
static void check_time_held(const Hotcell__Runtime__V1__Usage *before,
                            const Hotcell__Runtime__V1__Usage *after, uint64_t msec)
{
        uint64_t byte_seconds = after->memory_byte_seconds - before->memory_byte_seconds;

        ck_assert_uint_ge(byte_seconds, MIB(50) * msec / 1000);
        ck_assert_uint_le(byte_seconds, MIB(200) * (msec + 1000) / 1000);
}

START_TEST(memory_over_time_is_never_less_than_that_of_the_parts)
{
        struct answer started;
        struct answer first;
        struct answer list;
        const Hotcell__Runtime__V1__SandboxMeters *meters;
        uint64_t msec;

        peer_create(&peer, "sbx-a");
        started = peer_shell(&peer, "sbx-a", "p", HOLD);
        read_until(started.fds[1], "held");
        first = read_meters("");
        msec = clock_monotonic_msec();
        (void)usleep(2000000); /* much more than until the first look */
        msec = clock_monotonic_msec() - msec;
        list = read_meters("");
        ck_assert_uint_eq(list.message->meter_list->n_sandboxes, 1);
        ck_assert(!list.message->meter_list->more);
        meters = list.message->meter_list->sandboxes[0];
        ck_assert_str_eq(meters->sandbox_id, "sbx-a");
        ck_assert_uint_eq(meters->n_processes, 1);
        ck_assert_str_eq(meters->processes[0]->process_id, "p");
        check_held(meters->processes[0]->usage);
        check_time_held(first.message->meter_list->sandboxes[0]->processes[0]->usage,
                        meters->processes[0]->usage, msec);
        check_time_held(first.message->meter_list->sandboxes[0]->usage, meters->usage, msec);
        ck_assert_uint_ge(meters->usage->memory_byte_seconds,
                          meters->processes[0]->usage->memory_byte_seconds);
        ck_assert_uint_eq(meters->usage->processes, 2);
        answer_deinit(&list);
        answer_deinit(&first);
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(a_new_peak_begins_with_what_is_held)
{
        struct answer started;
        struct answer first;
        struct answer second;

        peer_create(&peer, "sbx-a");
        started = peer_shell(&peer, "sbx-a", "p", HOLD);
        read_until(started.fds[1], "held");
        first = read_usage("sbx-a", "p", true);
        second = read_usage("sbx-a", "p", false);
        check_held(first.message->usage);
        check_held(second.message->usage);
        ck_assert_uint_lt(second.message->usage->rss_peak_bytes, MIB(160));
        ck_assert_uint_eq(second.message->usage->earlier_usec, 0);
        answer_deinit(&first);
        answer_deinit(&second);
        answer_deinit(&started);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

/* 100 MiB, of which nothing is left. */
#define HAVE_HELD                                                                                  \
        "exec /usr/bin/python3 -c '\n"                                                             \
        "import time\n"                                                                            \
        "held = bytearray(100 << 20)\n"                                                            \
        "del held\n"                                                                               \
        "print(\"held\", flush=True)\n"                                                            \
        "time.sleep(1000)'"

START_TEST(a_peak_that_is_over_stays_the_sandboxs)
{
        struct answer started;
        struct answer before, after, total;

        peer_create(&peer, "sbx-a");
        started = peer_shell(&peer, "sbx-a", "p", HAVE_HELD);
        read_until(started.fds[1], "held");
        before = read_usage("sbx-a", "p", true);
        after = read_usage("sbx-a", "p", false);
        ck_assert_uint_ge(before.message->usage->rss_peak_bytes, MIB(100));
        ck_assert_uint_ge(before.message->usage->memory_peak_bytes, MIB(100));
        ck_assert_uint_lt(after.message->usage->rss_peak_bytes, MIB(50));
        /* Pure cgroup2 can do it from Linux 6.12 on. */
        if (runtime.n_groups > 1)
                ck_assert_uint_lt(after.message->usage->memory_peak_bytes, MIB(50));
        total = destroy("sbx-a");
        ck_assert_uint_ge(total.message->done->usage->rss_peak_bytes, MIB(100));
        ck_assert_uint_ge(total.message->done->usage->memory_peak_bytes, MIB(100));
        answer_deinit(&total);
        answer_deinit(&after);
        answer_deinit(&before);
        answer_deinit(&started);
}
END_TEST

START_TEST(meters_come_in_order_and_in_pages)
{
        struct answer first;
        struct answer second;
        char id[ID_BUFFER];

        for (int i = 0; i < 70; i++) {
                (void)snprintf(id, sizeof(id), "sbx-%02d", i);
                peer_create(&peer, id);
        }
        first = read_meters("");
        ck_assert_uint_eq(first.message->meter_list->n_sandboxes, 64);
        ck_assert(first.message->meter_list->more);
        ck_assert_str_eq(first.message->meter_list->sandboxes[63]->sandbox_id, "sbx-63");
        ck_assert_uint_gt(first.message->meter_list->sandboxes[63]->usage->cpu_usec, 0);
        second = read_meters("sbx-63");
        ck_assert_uint_eq(second.message->meter_list->n_sandboxes, 6);
        ck_assert(!second.message->meter_list->more);
        ck_assert_str_eq(second.message->meter_list->sandboxes[0]->sandbox_id, "sbx-64");
        ck_assert_uint_eq(second.message->meter_list->state->slots_used, 70);
        answer_deinit(&first);
        answer_deinit(&second);
        for (int i = 0; i < 70; i++) {
                (void)snprintf(id, sizeof(id), "sbx-%02d", i);
                peer_destroy(&peer, id);
        }
        first = read_meters("");
        ck_assert_uint_eq(first.message->meter_list->n_sandboxes, 0);
        ck_assert_uint_eq(first.message->meter_list->state->slots_used, 0);
        ck_assert_uint_gt(first.message->meter_list->state->cpu_usec, 0);
        check_same_time(first.message->meter_list->state->scheduled_usec,
                        first.message->meter_list->state->cpu_usec);
        answer_deinit(&first);
}
END_TEST

START_TEST(only_what_is_asked_for_is_read)
{
        char *ids[] = { unconst("sbx-a"), unconst("sbx-b"), unconst("sbx-d"), unconst("sbx-e") };
        struct answer answer;

        for (char name = 'a'; name <= 'd'; name++)
                peer_create(&peer, (char[]){ 's', 'b', 'x', '-', name, '\0' });
        answer = read_meters_of("", ids, ARRAY_SIZE(ids));
        ck_assert_uint_eq(answer.message->meter_list->n_sandboxes, 3);
        ck_assert_str_eq(answer.message->meter_list->sandboxes[2]->sandbox_id, "sbx-d");
        ck_assert(!answer.message->meter_list->more);
        answer_deinit(&answer);
        answer = read_meters_of("sbx-b", ids, ARRAY_SIZE(ids));
        ck_assert_uint_eq(answer.message->meter_list->n_sandboxes, 1);
        answer_deinit(&answer);
        for (char name = 'a'; name <= 'd'; name++)
                peer_destroy(&peer, (char[]){ 's', 'b', 'x', '-', name, '\0' });
}
END_TEST

enum { SANDBOXES = 256, LEAVES_OF_SANDBOX = 1 + 16 }; /* init and contexts, of each by default */

START_TEST(there_is_a_slot_for_each_leaf_that_all_sandboxes_may_have)
{
        struct answer list = read_meters("");

        ck_assert_uint_eq(list.message->meter_list->state->slots, SANDBOXES * LEAVES_OF_SANDBOX);
        answer_deinit(&list);
}
END_TEST

START_TEST(throttling_is_told)
{
        Hotcell__Runtime__V1__ToRuntime *request = create_request("sbx-a");
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;

        request->create_sandbox->limits->cpu_millis = 20;
        answer = peer_ask(&peer, request);
        ck_assert_int_eq(answer.message->body_case, ANSWER(SANDBOX_CREATED));
        answer_deinit(&answer);
        event = peer_run(&peer, "sbx-a", "i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
                         output);
        ck_assert(!misses(event->process_ended->usage, PART(THROTTLED)));
        ck_assert_uint_gt(event->process_ended->usage->n_throttled, 0);
        ck_assert_uint_gt(event->process_ended->usage->throttled_usec, 0);
        event_free(event);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(without_programs_the_files_are_enough_and_the_rest_is_named)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;
        const Hotcell__Runtime__V1__Usage *used;

        peer_create(&peer, "sbx-a");
        event = peer_run(&peer, "sbx-a", SPIN, output);
        used = event->process_ended->usage;
        ck_assert_uint_ge(used->cpu_usec, CPU_USEC);
        ck_assert_uint_gt(used->memory_peak_bytes, 0);
        ck_assert(misses(used, PART(SCHEDULED)) && misses(used, PART(RSS_PEAK)));
        ck_assert(!misses(used, PART(MEMORY)) && !misses(used, PART(THROTTLED)));
        ck_assert_uint_eq(used->scheduled_usec, 0);
        event_free(event);
        answer = read_meters("");
        ck_assert(!answer.message->meter_list->state->programs);
        ck_assert_ptr_nonnull(
                strstr(answer.message->meter_list->state->detail, "--no-meter-programs"));
        ck_assert_uint_eq(answer.message->meter_list->state->slots, 0);
        answer_deinit(&answer);
        answer = destroy("sbx-a");
        ck_assert(misses(answer.message->done->usage, PART(SCHEDULED)));
        ck_assert_uint_ge(answer.message->done->usage->cpu_usec, CPU_USEC);
        answer_deinit(&answer);
}
END_TEST

START_TEST(a_leaf_without_a_slot_goes_on_by_its_files)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer held;
        struct answer answer;

        peer_create(&peer, "sbx-a");
        held = peer_shell(&peer, "sbx-a", "p", "echo ready; sleep 1000");
        read_until(held.fds[1], "ready");
        event = peer_run(&peer, "sbx-a", SPIN, output);
        ck_assert(misses(event->process_ended->usage, PART(SCHEDULED)));
        ck_assert_uint_ge(event->process_ended->usage->cpu_usec, CPU_USEC);
        event_free(event);
        answer = read_usage("sbx-a", "p", false);
        ck_assert(!misses(answer.message->usage, PART(SCHEDULED)));
        answer_deinit(&answer);
        answer = read_meters("");
        ck_assert_uint_eq(answer.message->meter_list->state->slots, 2);
        ck_assert_uint_eq(answer.message->meter_list->state->slots_used, 2);
        ck_assert_uint_eq(answer.message->meter_list->state->slots_refused, 1);
        ck_assert(misses(answer.message->meter_list->sandboxes[0]->usage, PART(SCHEDULED)));
        answer_deinit(&answer);
        ck_assert(daemon_log_has(&runtime, "see --meter-slots"));
        answer_deinit(&held);
        peer_destroy(&peer, "sbx-a");
}
END_TEST

START_TEST(a_sandbox_that_ends_by_itself_comes_with_its_meters)
{
        Hotcell__Runtime__V1__FromRuntime *event;
        struct answer answer;
        char command[640];

        peer_create(&peer, "sbx-a");
        event_free(peer_run(&peer, "sbx-a", SPIN, output));
        (void)snprintf(command, sizeof(command),
                       "kill -KILL $(cat %s/sandbox-sbx-a/init/cgroup.procs)", runtime.groups[0]);
        ck_assert_int_eq(system(command), 0); /* NOLINT(cert-env33-c): of the host */
        event = peer_await_event(&peer, ANSWER(SANDBOX_ENDED));
        ck_assert_ptr_nonnull(event->sandbox_ended->usage);
        ck_assert_uint_ge(event->sandbox_ended->usage->cpu_usec, CPU_USEC);
        answer = destroy("sbx-a");
        ck_assert_uint_eq(answer.message->done->usage->cpu_usec,
                          event->sandbox_ended->usage->cpu_usec);
        event_free(event);
        answer_deinit(&answer);
}
END_TEST

static TCase *new_case(const char *name, void (*set_up)(void))
{
        TCase *tests = tcase_create(name);

        tcase_add_checked_fixture(tests, set_up, teardown);
        tcase_set_timeout(tests, 120);
        return tests;
}

int main(void)
{
        Suite *suite = suite_create("runtime-meters");
        TCase *tests = new_case("programs", setup);

        tcase_add_test(tests, an_end_comes_with_all_meters);
        tcase_add_test(tests, the_victim_of_a_want_of_memory_is_told);
        tcase_add_test(tests, memory_over_time_is_never_less_than_that_of_the_parts);
        tcase_add_test(tests, a_new_peak_begins_with_what_is_held);
        tcase_add_test(tests, a_peak_that_is_over_stays_the_sandboxs);
        tcase_add_test(tests, meters_come_in_order_and_in_pages);
        tcase_add_test(tests, only_what_is_asked_for_is_read);
        tcase_add_test(tests, there_is_a_slot_for_each_leaf_that_all_sandboxes_may_have);
        tcase_add_test(tests, throttling_is_told);
        tcase_add_test(tests, a_sandbox_that_ends_by_itself_comes_with_its_meters);
        suite_add_tcase(suite, tests);
        tests = new_case("files", setup_without_programs);
        tcase_add_test(tests, without_programs_the_files_are_enough_and_the_rest_is_named);
        tcase_add_test(tests, memory_over_time_is_never_less_than_that_of_the_parts);
        suite_add_tcase(suite, tests);
        tests = new_case("slots", setup_with_two_slots);
        tcase_add_test(tests, a_leaf_without_a_slot_goes_on_by_its_files);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
