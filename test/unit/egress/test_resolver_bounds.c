/* What many queries may cost, and how those end that nobody waits for any more. */
#include <check.h>
#include <malloc.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/macros.h"
#include "runtime/egress/resolver.h"
#include "test/lib/suite.h"
#include "test/unit/egress/packet.h"
#include "test/unit/egress/resolver.h"

START_TEST(more_than_the_rate_is_refused_and_counted)
{
        struct waiter waiter = { 0 };

        f.config.queries = (struct token_rate){ .interval_usec = HOUR_USEC, .burst = 3 };
        start_with(give_one_address);
        for (unsigned i = 0; i < 3; i++)
                ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        for (unsigned i = 0; i < 50; i++) {
                begin(&waiter, "www.example", DNS_TYPE_A);
                ck_assert(waiter.is_answered);
                ck_assert_uint_eq(get_rcode(waiter.bytes), DNS_REFUSED);
        }
        expect_sole_event(RESOLVER_RATE, "www.example", DNS_TYPE_A);
        f.client = resolver_client_free(f.client);
        ck_assert_uint_eq(f.n_events, 2);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 50);
        ck_assert_uint_eq(f.upstream.n_udp, 3);
}
END_TEST

/* Beyond the rate, too: a response that is answered would be answered again. */
START_TEST(what_is_malformed_is_answered_as_such_beyond_the_rate)
{
        struct waiter waiter = { 0 };

        f.config.queries = (struct token_rate){ .interval_usec = HOUR_USEC, .burst = 1 };
        start_with(give_one_address);
        ck_assert_uint_eq(ask(&waiter, "www.example", DNS_TYPE_A), DNS_NOERROR);
        put_header(&packet, PACKET_ID, PACKET_ANSWER, 0);
        ck_assert_int_eq(send_packet(&waiter), RESOLVER_E_SILENT);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 0);
}
END_TEST

static bool has_events(const void *userdata)
{
        return f.n_events >= *(const size_t *)userdata;
}

START_TEST(counted_denials_are_reported_in_time)
{
        struct waiter waiter = { 0 };
        size_t n_events = 2;

        f.config.queries = (struct token_rate){ .interval_usec = HOUR_USEC, .burst = 1 };
        start_with(give_one_address);
        for (unsigned i = 0; i < 11; i++)
                begin(&waiter, "other.example", DNS_TYPE_A);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 1);
        n_events = f.n_events + 1;
        run_until(has_events, &n_events);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 10);
        /* And again after the next pause, in which there is one that is not reported at once. */
        begin(&waiter, "other.example", DNS_TYPE_A);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 10);
        n_events = f.n_events + 1;
        run_until(has_events, &n_events);
        ck_assert_uint_eq(sum_of(RESOLVER_RATE), 11);
}
END_TEST

START_TEST(too_many_in_flight_are_refused)
{
        static struct waiter waiters[3];

        f.config.in_flight_max = 2;
        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "www.example", DNS_TYPE_A);
        begin(&waiters[2], "two.example", DNS_TYPE_A);
        ck_assert(!waiters[0].is_answered && !waiters[1].is_answered && waiters[2].is_answered);
        ck_assert_uint_eq(get_rcode(waiters[2].bytes), DNS_REFUSED);
        expect_sole_event(RESOLVER_IN_FLIGHT, "two.example", DNS_TYPE_A);
        resolver_cancel(&waiters[1].request);
        begin(&waiters[2], "two.example", DNS_TYPE_A);
        ck_assert(!waiters[2].is_answered);
}
END_TEST

/* As a client of TCP does that hangs up after each question. */
START_TEST(questions_that_nobody_waits_for_count_until_they_are_answered)
{
        static struct waiter waiters[4];

        f.config.in_flight_max = 2;
        start_with(hold);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        resolver_cancel(&waiters[0].request);
        begin(&waiters[1], "two.example", DNS_TYPE_A);
        resolver_cancel(&waiters[1].request);
        wait_for_queries(2);
        begin(&waiters[2], "three.example", DNS_TYPE_A);
        ck_assert(waiters[2].is_answered);
        ck_assert_uint_eq(get_rcode(waiters[2].bytes), DNS_REFUSED);
        expect_sole_event(RESOLVER_IN_FLIGHT, "three.example", DNS_TYPE_A);
        /* There is a place again when the last one is answered, and nobody heard it. */
        give_one_address(&held);
        f.upstream.script = give_one_address;
        do
                begin(&waiters[3], "three.example", DNS_TYPE_A);
        while (waiters[3].is_answered && sd_event_run(f.loop, 100000) >= 0);
        finish(&waiters[3]);
        ck_assert_uint_eq(get_rcode(waiters[3].bytes), DNS_NOERROR);
        ck_assert_uint_eq(f.n_admitted, 1);
        ck_assert_str_eq(f.admitted_name, "three.example");
        ck_assert(!waiters[0].is_answered && !waiters[1].is_answered);
}
END_TEST

START_TEST(who_asks_again_waits_for_the_question_that_was_given_up)
{
        static struct waiter waiters[4];

        f.config.in_flight_max = 2;
        start_with(hold);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        resolver_cancel(&waiters[0].request);
        begin(&waiters[1], "www.example", DNS_TYPE_A);
        give_one_address(&held);
        finish(&waiters[1]);
        ck_assert_uint_eq(get_rcode(waiters[1].bytes), DNS_NOERROR);
        ck_assert_uint_eq(f.upstream.n_udp, 1);
        /* And it does not count any more. */
        begin(&waiters[2], "two.example", DNS_TYPE_A);
        begin(&waiters[3], "three.example", DNS_TYPE_A);
        ck_assert(!waiters[2].is_answered && !waiters[3].is_answered);
}
END_TEST

START_TEST(all_sandboxes_together_are_bounded)
{
        static struct waiter waiters[2];

        f.config.upstream.in_flight_max = 1;
        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "two.example", DNS_TYPE_A);
        ck_assert(!waiters[0].is_answered && waiters[1].is_answered);
        ck_assert_uint_eq(get_rcode(waiters[1].bytes), DNS_SERVFAIL);
        expect_sole_event(RESOLVER_BUSY, "two.example", DNS_TYPE_A);
}
END_TEST

START_TEST(equal_questions_in_flight_are_asked_once)
{
        struct waiter waiters[3] = { 0 };

        start_with(hold);
        begin(&waiters[2], "www.example", DNS_TYPE_AAAA);
        wait_for_queries(1);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "WWW.example", DNS_TYPE_A);
        wait_for_queries(2);
        give_one_address(&held);
        finish(&waiters[0]);
        finish(&waiters[1]);
        ck_assert_mem_eq(waiters[0].bytes + 13, "www", 3);
        ck_assert_mem_eq(waiters[1].bytes + 13, "WWW", 3);
        ck_assert_uint_eq(f.n_admitted, 1);
        ck_assert_uint_eq(f.upstream.n_udp, 2);
        /* Another type is another question. */
        ck_assert(!waiters[2].is_answered);
        resolver_cancel(&waiters[2].request);
}
END_TEST

START_TEST(sandboxes_do_not_share_questions)
{
        static struct waiter waiters[2];
        struct resolver_client *first;

        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        first = f.client;
        ck_assert_int_eq(resolver_client_new(f.resolver, &policy, &f, &f.client), 0);
        begin(&waiters[1], "www.example", DNS_TYPE_A);
        wait_for_queries(2);
        resolver_client_free(first);
        ck_assert(waiters[0].is_answered && !waiters[1].is_answered);
}
END_TEST

START_TEST(cancelled_request_is_not_answered)
{
        struct waiter waiters[2] = { 0 };

        start_with(hold);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        resolver_cancel(&waiters[0].request);
        give_one_address(&held);
        /* Its answer has been passed over when that of a later question is there. */
        f.upstream.script = give_one_address;
        ck_assert_uint_eq(ask(&waiters[1], "two.example", DNS_TYPE_A), DNS_NOERROR);
        ck_assert(!waiters[0].is_answered);
        ck_assert_uint_eq(f.n_admitted, 1);
        ck_assert_str_eq(f.admitted_name, "two.example");
}
END_TEST

START_TEST(requests_end_with_their_client)
{
        struct waiter waiters[3] = { 0 };

        start_with(stay_silent);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        begin(&waiters[1], "www.example", DNS_TYPE_A);
        begin(&waiters[2], "two.example", DNS_TYPE_A);
        f.client = resolver_client_free(f.client);
        for (size_t i = 0; i < ARRAY_SIZE(waiters); i++) {
                ck_assert_uint_eq(waiters[i].n_answers, 1);
                ck_assert_uint_eq(waiters[i].n_bytes, 0);
        }
}
END_TEST

static struct waiter *others; /* three */

static void begin_and_cancel(struct waiter *waiter)
{
        (void)waiter;
        resolver_cancel(&others[0].request);
        begin(&others[1], "www.example", DNS_TYPE_A);
        begin(&others[2], "two.example", DNS_TYPE_A);
}

START_TEST(answers_may_begin_and_cancel_requests)
{
        struct waiter first = { .on_answered = begin_and_cancel };
        struct waiter waiters[3] = { 0 };

        others = waiters;
        start_with(hold);
        begin(&first, "www.example", DNS_TYPE_A);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        wait_for_queries(1);
        f.upstream.script = give_one_address;
        give_one_address(&held);
        finish(&waiters[1]);
        finish(&waiters[2]);
        ck_assert_uint_eq(first.n_answers, 1);
        ck_assert_uint_eq(waiters[0].n_answers, 0);
        ck_assert_uint_eq(f.upstream.n_udp, 3);
}
END_TEST

static void cancel_others(struct waiter *waiter)
{
        (void)waiter;
        resolver_cancel(&others[0].request);
        resolver_cancel(&others[1].request);
}

START_TEST(requests_that_end_with_their_client_may_cancel_others)
{
        struct waiter first = { .on_answered = cancel_others };
        struct waiter waiters[3] = { 0 };

        others = waiters;
        start_with(stay_silent);
        begin(&waiters[1], "two.example", DNS_TYPE_A);
        begin(&waiters[2], "three.example", DNS_TYPE_A);
        begin(&first, "www.example", DNS_TYPE_A);
        begin(&waiters[0], "www.example", DNS_TYPE_A);
        f.client = resolver_client_free(f.client);
        ck_assert_uint_eq(first.n_answers, 1);
        ck_assert_uint_eq(waiters[0].n_answers + waiters[1].n_answers, 0);
        ck_assert_uint_eq(waiters[2].n_answers, 1);
}
END_TEST

/* Each kind of query of which a sandbox can send as many as it likes. */
static void flood(struct waiter *waiters, size_t n_waiters, unsigned n_rounds)
{
        for (unsigned i = 0; i < n_rounds; i++) {
                struct waiter *waiter = &waiters[i % n_waiters];
                char name[64];

                if (waiter->request.lookup)
                        resolver_cancel(&waiter->request);
                (void)snprintf(name, sizeof(name), "n%u.%s", i, i % 2 ? "wild.example" : "other");
                begin(waiter, name, i % 3 ? DNS_TYPE_A : DNS_TYPE_TXT);
                ck_assert_int_ge(sd_event_run(f.loop, 0), 0);
                f.n_events = 0;
        }
}

START_TEST(memory_is_bounded)
{
        static struct waiter waiters[100];
        size_t before;

        f.config.queries = (struct token_rate){ .interval_usec = 0, .burst = 1 };
        f.config.new_names = (struct token_rate){ .interval_usec = 0, .burst = 1 };
        f.config.upstream.in_flight_max = 200;
        start_with(_i ? give_one_address : stay_silent);
        flood(waiters, ARRAY_SIZE(waiters), 2000);
        before = mallinfo2().uordblks;
        flood(waiters, ARRAY_SIZE(waiters), 20000);
        ck_assert_uint_le(mallinfo2().uordblks, before + 65536);
}
END_TEST

static void add_tests(TCase *all)
{
        tcase_add_checked_fixture(all, setup, teardown);
        tcase_add_test(all, more_than_the_rate_is_refused_and_counted);
        tcase_add_test(all, what_is_malformed_is_answered_as_such_beyond_the_rate);
        tcase_add_test(all, counted_denials_are_reported_in_time);
        tcase_add_test(all, too_many_in_flight_are_refused);
        tcase_add_test(all, all_sandboxes_together_are_bounded);
        tcase_add_test(all, questions_that_nobody_waits_for_count_until_they_are_answered);
        tcase_add_test(all, who_asks_again_waits_for_the_question_that_was_given_up);
        tcase_add_test(all, equal_questions_in_flight_are_asked_once);
        tcase_add_test(all, sandboxes_do_not_share_questions);
        tcase_add_test(all, cancelled_request_is_not_answered);
        tcase_add_test(all, requests_end_with_their_client);
        tcase_add_test(all, requests_that_end_with_their_client_may_cancel_others);
        tcase_add_test(all, answers_may_begin_and_cancel_requests);
        tcase_add_loop_test(all, memory_is_bounded, 0, 2);
}

int main(void)
{
        Suite *suite = suite_create("resolver_bounds");
        TCase *all = tcase_create("all");

        tcase_set_timeout(all, 60);
        add_tests(all);
        suite_add_tcase(suite, all);
        return suite_main(suite);
}
