/*
 * Policies come into the wall's tables in turns of the loop and are in force once they are whole;
 * what does not come in leaves the one before in force, and nothing behind.
 */

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/network_tables.h"
#include "runtime/egress/policy_turns.h"
#include "test/bpf/egress_loop.h"
#include "test/lib/suite.h"

enum { RULES = 10 * POLICY_TURN_ENTRIES + 7 };

static void setup(void)
{
        egress_loop_init(NULL);
}

static size_t count(void)
{
        return count_entries(EGRESS_MAP_PREFIXES4);
}

static bool has_entries(const void *userdata)
{
        return count() == *(const size_t *)userdata;
}

static bool has_any(const void *userdata)
{
        (void)userdata;
        return count() > 0;
}

START_TEST(a_policy_waits_for_the_refusals_that_prove_the_wall)
{
        static const struct {
                bool has_v6;
                uint64_t n_denied, n_logged;
                bool is_proven;
        } cases[] = {
                { true, 0, 0, false },  { true, 1, 1, false }, { true, 2, 1, false },
                { true, 2, 2, true },   { true, 9, 3, true },  { false, 0, 0, false },
                { false, 1, 0, false }, { false, 1, 1, true },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                egress.has_v6 = cases[i].has_v6;
                count_refusals(cases[i].n_denied, cases[i].n_logged);
                ask(i + 1, 1);
                expect_answer(i + 1, cases[i].is_proven ? TO_SERVER_ENFORCED : TO_SERVER_FAILURE);
                if (!cases[i].is_proven)
                        ck_assert_int_eq(
                                (int)answer->failure->reason,
                                HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_NOT_PROVEN);
        }
}
END_TEST

START_TEST(a_large_policy_comes_in_turns_and_is_in_force_when_it_is_whole)
{
        size_t n_before, n = 3;
        unsigned n_turns = 0;
        uint32_t old;

        put_in_force(1, n);
        old = policy_in_force();
        ask(2, RULES);
        while (!hear()) {
                n_before = n;
                ck_assert_uint_eq(policy_in_force(), old);
                turn();
                n = count();
                ck_assert_uint_le(n, n_before + POLICY_TURN_ENTRIES);
                n_turns += n > n_before;
        }
        ck_assert_int_eq((int)answer->body_case, TO_SERVER_ENFORCED);
        ck_assert_uint_ge(n_turns, RULES / POLICY_TURN_ENTRIES);
        ck_assert_uint_ne(policy_in_force(), old);
        ck_assert_uint_eq(count(), RULES);
        ck_assert_int_eq(network->policy.version, 2);
}
END_TEST

START_TEST(a_large_policy_goes_in_turns_too)
{
        size_t n_before, n;

        put_in_force(1, RULES);
        put_in_force(2, 3);
        for (n = count(); n > 3; n = count()) {
                n_before = n;
                turn();
                ck_assert_uint_ge(count() + POLICY_TURN_ENTRIES, n_before);
        }
        put_in_force(3, RULES);
        remove_network();
        n = 0;
        run_until(has_entries, &n);
}
END_TEST

/* The wall's own tables are large: here are smaller ones. */
static void shrink_tables(uint32_t n_entries)
{
        LIBBPF_OPTS(bpf_map_create_opts, options, .map_flags = BPF_F_NO_PREALLOC);
        int *fd = &egress.tables.fds[EGRESS_MAP_PREFIXES4];

        (void)close(*fd);
        *fd = bpf_map_create(BPF_MAP_TYPE_LPM_TRIE, "small", sizeof(struct egress_prefix4),
                             sizeof(struct egress_ranges), n_entries, &options);
        ck_assert_int_ge(*fd, 0);
}

START_TEST(full_tables_refuse_a_policy_and_leave_the_one_before_in_force)
{
        size_t n_first = 2 * POLICY_TURN_ENTRIES;
        uint32_t first;

        shrink_tables(5 * POLICY_TURN_ENTRIES);
        put_in_force(1, n_first);
        first = policy_in_force();
        ask(2, 4 * POLICY_TURN_ENTRIES);
        expect_answer(2, TO_SERVER_FAILURE);
        ck_assert_int_eq((int)answer->failure->reason,
                         HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_EXHAUSTED);
        ck_assert_ptr_nonnull(strstr(answer->failure->message, "the tables of the wall are full"));
        ck_assert_uint_eq(policy_in_force(), first);
        ck_assert_int_eq(network->policy.version, 1);
        run_until(has_entries, &n_first);
        /* What fits still comes in. */
        put_in_force(3, 3 * POLICY_TURN_ENTRIES);
        ck_assert_uint_ne(policy_in_force(), first);
}
END_TEST

START_TEST(what_is_no_policy_is_refused_as_that)
{
        put_in_force(1, 3);
        ask_for(2, &(struct wanted){ .n_rules4 = _i ? RULES : 1, .domain = "no..domain" });
        expect_answer(2, TO_SERVER_FAILURE);
        ck_assert_int_eq((int)answer->failure->reason,
                         HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_INVALID);
        ck_assert_int_eq(network->policy.version, 1);
        ck_assert_uint_eq(count(), 3);
}
END_TEST

/* Small ones are written at once, so nothing of the first has gone when the third comes. */
START_TEST(what_is_still_in_full_tables_and_goes_makes_room)
{
        size_t n_first = 4 * POLICY_TURN_ENTRIES, n_second = 100, n_third = 150;

        shrink_tables((uint32_t)(n_first + n_second));
        put_in_force(1, n_first);
        ask(2, n_second);
        ask(3, n_third);
        expect_answer(2, TO_SERVER_ENFORCED);
        expect_answer(3, TO_SERVER_ENFORCED);
        run_until(has_entries, &n_third);
}
END_TEST

START_TEST(a_network_that_goes_takes_its_policy_with_it)
{
        const size_t none = 0;

        ask(1, RULES);
        run_until(has_any, NULL);
        remove_network();
        expect_answer(1, TO_SERVER_FAILURE);
        ck_assert_int_eq((int)answer->failure->reason,
                         HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_NOT_FOUND);
        ck_assert_uint_eq(policy_in_force(), EGRESS_POLICY_ALWAYS);
        run_until(has_entries, &none);
        make_network();
        put_in_force(2, RULES);
}
END_TEST

/* Also while its policy waits, or is with the thread. */
START_TEST(a_network_may_go_before_its_policy_is_made)
{
        const size_t n = 3;

        ask(1, RULES);
        for (unsigned i = 0; i < 1 + (unsigned)_i; i++)
                turn();
        remove_network();
        expect_answer(1, TO_SERVER_FAILURE);
        make_network();
        put_in_force(2, n);
        run_until(has_entries, &n);
        /* By its turn the first one is over. */
        put_in_force(3, RULES);
}
END_TEST

START_TEST(another_hotcelld_hears_no_answer_that_it_did_not_ask_for)
{
        ask(1, RULES);
        run_until(has_any, NULL);
        (void)close(server_fd);
        connect_server();
        put_in_force(2, 3);
        ck_assert_uint_eq(answer->request, 2);
}
END_TEST

START_TEST(for_a_hotcelld_that_is_gone_nothing_is_begun)
{
        const struct network *neighbour;

        make_neighbour();
        neighbour = network_tables_find_group(&egress.networks, f.boxes[1].group.id);
        ck_assert_ptr_nonnull(neighbour);
        ask(1, RULES);
        ask_for(2, &(struct wanted){ .n_rules4 = RULES, .is_neighbours = true });
        ask_for(3, &(struct wanted){ .n_rules4 = RULES, .is_neighbours = true });
        run_until(has_any, NULL);
        (void)close(server_fd);
        connect_server();
        /* It would be its turn before theirs. */
        put_in_force(4, RULES);
        put_in_force(5, 2 * RULES);
        ck_assert(!neighbour->has_policy);
}
END_TEST

START_TEST(what_is_asked_meanwhile_is_answered_in_its_order)
{
        ask(1, RULES);
        ask(2, 3);
        ask(3, RULES);
        for (uint64_t i = 1; i <= 3; i++)
                expect_answer(i, TO_SERVER_ENFORCED);
        ck_assert_int_eq(network->policy.version, 3);
}
END_TEST

/* How many answers came before that to @request. */
static unsigned count_before(uint64_t request)
{
        for (unsigned n = 0;; n++) {
                expect_any_answer();
                if (answer->request == request)
                        return n;
        }
}

START_TEST(a_small_policy_does_not_wait_for_anothers_large_ones)
{
        make_neighbour();
        for (uint64_t i = 1; i <= 20; i++)
                ask(i, POLICY_RULES_MAX);
        ask_for(21, &(struct wanted){ .n_rules4 = 1, .is_neighbours = true });
        ck_assert_uint_eq(count_before(21), 0);
        ck_assert_int_eq((int)answer->body_case, TO_SERVER_ENFORCED);
}
END_TEST

START_TEST(a_large_policy_waits_for_few_that_are_larger)
{
        make_neighbour();
        for (uint64_t i = 1; i <= 20; i++)
                ask(i, 2 * RULES);
        ask_for(21, &(struct wanted){ .n_rules4 = RULES, .is_neighbours = true });
        ck_assert_uint_le(count_before(21), 2);
        ck_assert_int_eq((int)answer->body_case, TO_SERVER_ENFORCED);
}
END_TEST

START_TEST(a_large_policy_does_not_wait_for_all_that_are_smaller)
{
        make_neighbour();
        ask(1, RULES);
        ask_for(2, &(struct wanted){ .n_rules4 = 2 * RULES, .is_neighbours = true });
        for (uint64_t i = 3; i <= 20; i++)
                ask(i, RULES);
        ck_assert_uint_le(count_before(2), 2);
}
END_TEST

START_TEST(what_is_asked_besides_is_answered_meanwhile)
{
        for (uint64_t i = 1; i <= 20; i++)
                ask(i, POLICY_RULES_MAX);
        ping(21);
        ck_assert_uint_le(count_before(21), 1);
}
END_TEST

/* What waits in hotcell-egress is bounded; what is more waits in the socket. */
START_TEST(more_than_may_wait_are_put_in_force_all_the_same)
{
        const uint64_t n = POLICY_WAITING_MAX + 60;
        uint64_t n_asked = 0, n_heard = 0;

        while (n_heard < n) {
                for (unsigned i = 0; i < 5 && n_asked < n; i++) {
                        n_asked++;
                        ask(n_asked, 1 + n_asked % 2);
                }
                turn();
                n_heard += hear();
        }
        ck_assert_int_eq(network->policy.version, (int64_t)n);
        ck_assert_uint_eq(count(), 1 + n % 2);
}
END_TEST

/* So what is asked behind them waits, too, until some of them are in force. */
START_TEST(no_more_than_may_wait_are_taken)
{
        enum { MORE = 60 };
        const uint64_t n = POLICY_WAITING_MAX + MORE;
        uint64_t n_before = 0;

        for (uint64_t i = 1; i <= n; i++) {
                ask(i, RULES);
                if (i % 5 == 0) {
                        turn();
                        n_before += hear();
                }
        }
        ping(n + 1);
        n_before += count_before(n + 1);
        ck_assert_uint_ge(n_before, MORE - 1);
}
END_TEST

/* A figure for people. */
START_TEST(the_longest_policy_and_its_longest_turn)
{
        uint64_t start_usec = clock_monotonic_usec();
        size_t n = POLICY_RULES_MAX;

        put_in_force(1, POLICY_RULES_MAX);
        printf("# %d rules: %.1f ms in all, the longest turn of the loop %.1f ms\n",
               POLICY_RULES_MAX, (double)(clock_monotonic_usec() - start_usec) / 1000,
               (double)longest_usec / 1000);
        put_in_force(2, POLICY_RULES_MAX);
        run_until(has_entries, &n);
        printf("# and again: the longest turn %.1f ms\n", (double)longest_usec / 1000);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("policy_turns");
        TCase *tests = tcase_create("policy_turns");

        tcase_add_checked_fixture(tests, setup, egress_loop_deinit);
        tcase_set_timeout(tests, 120);
        tcase_add_test(tests, a_policy_waits_for_the_refusals_that_prove_the_wall);
        tcase_add_test(tests, a_large_policy_comes_in_turns_and_is_in_force_when_it_is_whole);
        tcase_add_test(tests, a_large_policy_goes_in_turns_too);
        tcase_add_test(tests, full_tables_refuse_a_policy_and_leave_the_one_before_in_force);
        tcase_add_loop_test(tests, what_is_no_policy_is_refused_as_that, 0, 2);
        tcase_add_test(tests, what_is_still_in_full_tables_and_goes_makes_room);
        tcase_add_test(tests, a_network_that_goes_takes_its_policy_with_it);
        tcase_add_loop_test(tests, a_network_may_go_before_its_policy_is_made, 0, 5);
        tcase_add_test(tests, another_hotcelld_hears_no_answer_that_it_did_not_ask_for);
        tcase_add_test(tests, for_a_hotcelld_that_is_gone_nothing_is_begun);
        tcase_add_test(tests, what_is_asked_meanwhile_is_answered_in_its_order);
        tcase_add_test(tests, a_small_policy_does_not_wait_for_anothers_large_ones);
        tcase_add_test(tests, a_large_policy_waits_for_few_that_are_larger);
        tcase_add_test(tests, a_large_policy_does_not_wait_for_all_that_are_smaller);
        tcase_add_test(tests, what_is_asked_besides_is_answered_meanwhile);
        tcase_add_test(tests, more_than_may_wait_are_put_in_force_all_the_same);
        tcase_add_test(tests, no_more_than_may_wait_are_taken);
        tcase_add_test(tests, the_longest_policy_and_its_longest_turn);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
