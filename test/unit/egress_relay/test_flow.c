/* What a flow passes on, and how it ends. Each test has a network of its own. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/direction.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"
#include "test/unit/egress_relay/steps.h"

START_TEST(bytes_pass_both_ways_and_are_counted)
{
        struct relay relay;
        uint64_t start_usec = clock_monotonic_usec();

        if (!start(&relay, 0))
                return;
        send_bytes(&relay.ends[FLOW_INSIDE], 1, false);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], 1);
        send_bytes(&relay.ends[FLOW_OUTSIDE], 300000, true);
        relay_run_until_ended(&relay, &relay.ends[FLOW_INSIDE]);
        ck_assert_uint_eq(relay.ends[FLOW_INSIDE].n_received, 300000);
        send_bytes(&relay.ends[FLOW_INSIDE], 70000, true);
        relay_run_until_ended(&relay, &relay.ends[FLOW_OUTSIDE]);
        expect_closed(&relay);
        ck_assert_uint_eq(relay.told.sent.bytes, 70001);
        ck_assert_uint_eq(relay.told.received.bytes, 300000);
        ck_assert_uint_gt(relay.told.duration_usec, 0);
        ck_assert_uint_le(relay.told.duration_usec, relay.told_usec - start_usec);
        relay_deinit(&relay);
}
END_TEST

START_TEST(bytes_that_were_looked_at_before_pass_too)
{
        struct relay relay;
        int near[_FLOW_SIDE_N];
        char bytes[16];

        if (!relay_init(&relay, 0, near))
                return;
        send_bytes(&relay.ends[FLOW_INSIDE], 10, false);
        while (relay.ends[FLOW_INSIDE].n_sent < 10)
                ck_assert_int_ge(sd_event_run(relay.event, UINT64_MAX), 0);
        ck_assert_int_eq(recv(near[FLOW_INSIDE], bytes, sizeof(bytes), MSG_PEEK), 10);
        ck_assert_int_eq(relay_start(&relay, near), 0);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], 10);
        send_bytes(&relay.ends[FLOW_INSIDE], 1, false);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], 11);
        flow_cut(relay.flow);
        relay_deinit(&relay);
}
END_TEST

START_TEST(what_was_closed_before_the_flow_began_is_passed_on)
{
        struct relay relay;
        int near[_FLOW_SIDE_N];

        if (!relay_init(&relay, 0, near))
                return;
        send_bytes(&relay.ends[_i], 1000, true);
        while (!relay.ends[_i].was_shut)
                ck_assert_int_ge(sd_event_run(relay.event, UINT64_MAX), 0);
        ck_assert_int_eq(relay_start(&relay, near), 0);
        relay_run_until_ended(&relay, &relay.ends[far_of(_i)]);
        ck_assert_uint_eq(relay.ends[far_of(_i)].n_received, 1000);
        send_bytes(&relay.ends[far_of(_i)], 0, true);
        expect_closed(&relay);
        relay_deinit(&relay);
}
END_TEST

START_TEST(end_of_one_direction_leaves_the_other_open)
{
        struct relay relay;
        struct far_end *near = &relay.ends[_i];
        struct far_end *far = &relay.ends[far_of(_i)];

        if (!start(&relay, 0))
                return;
        send_bytes(near, 100, true);
        relay_run_until_ended(&relay, far);
        ck_assert_uint_eq(far->n_received, 100);
        relay_settle(&relay);
        ck_assert_uint_eq(relay.n_told, 0);
        ck_assert_uint_eq(net_n_descriptors(), relay.n_descriptors + FLOW_DESCRIPTORS - 2);
        send_bytes(far, 1000000, false);
        relay_run_until_received(&relay, near, 1000000);
        relay_settle(&relay);
        ck_assert_uint_eq(relay.n_told, 0);
        ck_assert(!near->has_end);
        send_bytes(far, 0, true);
        relay_run_until_ended(&relay, near);
        expect_closed(&relay);
        relay_settle(&relay);
        ck_assert_int_eq(near->error, 0);
        ck_assert_int_eq(far->error, 0);
        relay_deinit(&relay);
}
END_TEST

START_TEST(end_comes_behind_what_a_slow_reader_has_not_read)
{
        struct relay relay;
        struct far_end *near = &relay.ends[_i];
        struct far_end *far = &relay.ends[far_of(_i)];

        if (!start(&relay, BUFFER_BYTES))
                return;
        set_reading(far, false);
        send_bytes(near, MIB(16), true);
        relay_settle(&relay);
        ck_assert(!near->was_shut);
        set_reading(far, true);
        relay_run_until_ended(&relay, far);
        ck_assert_uint_eq(far->n_received, MIB(16));
        send_bytes(far, 0, true);
        expect_closed(&relay);
        relay_deinit(&relay);
}
END_TEST

START_TEST(reset_is_passed_on_as_a_reset)
{
        struct relay relay;
        struct far_end *near = &relay.ends[_i];
        struct far_end *far = &relay.ends[far_of(_i)];

        if (!start(&relay, 0))
                return;
        send_bytes(near, 100, false);
        relay_run_until_received(&relay, far, 100);
        far_end_reset(near);
        relay_run_until_broken(&relay, far);
        ck_assert_int_eq(far->error, ECONNRESET);
        expect_reset(&relay, _i);
        relay_deinit(&relay);
}
END_TEST

START_TEST(reset_after_the_end_of_a_direction_is_passed_on)
{
        struct relay relay;
        struct far_end *near = &relay.ends[_i];
        struct far_end *far = &relay.ends[far_of(_i)];

        if (!start(&relay, 0))
                return;
        send_bytes(near, 100, true);
        relay_run_until_ended(&relay, far);
        far_end_reset(near);
        relay_run_until_told(&relay);
        ck_assert_int_eq(relay.told.how, FLOW_RESET);
        ck_assert_int_eq(relay.told.side, _i);
        far->has_end = false; /* read on, beyond it */
        far_end_update(far);
        send_bytes(far, 1, false);
        while (!far->error)
                ck_assert_int_ge(sd_event_run(relay.event, UINT64_MAX), 0);
        relay_deinit(&relay);
}
END_TEST

/* The pipe is full, so nothing is read, and nothing can be written: only the loop tells of it. */
START_TEST(reset_is_seen_while_nothing_moves)
{
        struct relay relay;
        struct far_end *near = &relay.ends[_i];
        struct far_end *far = &relay.ends[far_of(_i)];

        if (!start(&relay, BUFFER_BYTES))
                return;
        set_reading(far, false);
        send_bytes(near, MIB(16), false);
        relay_settle(&relay);
        ck_assert_uint_eq(relay.n_told, 0);
        ck_assert_uint_lt(near->n_sent, MIB(16));
        far_end_reset(near);
        expect_reset(&relay, _i);
        set_reading(far, true);
        relay_run_until_broken(&relay, far);
        ck_assert_int_eq(far->error, ECONNRESET);
        relay_deinit(&relay);
}
END_TEST

/* It had sent all it wanted to, so what follows is no reset but a closed window to it. */
START_TEST(end_that_is_gone_resets_who_goes_on_sending)
{
        struct relay relay;
        struct far_end *near = &relay.ends[_i];
        struct far_end *far = &relay.ends[far_of(_i)];

        if (!start(&relay, 0))
                return;
        far->source = sd_event_source_disable_unref(far->source);
        far->fd = close_fd(far->fd);
        relay_run_until_ended(&relay, near);
        ck_assert_uint_eq(relay.n_told, 0);
        send_bytes(near, MIB(1), false);
        relay_run_until_told(&relay);
        ck_assert_int_eq(relay.told.how, FLOW_RESET);
        ck_assert_int_eq(relay.told.side, far_of(_i));
        ck_assert(relay.told.error == ECONNRESET || relay.told.error == EPIPE);
        while (!near->error)
                ck_assert_int_ge(sd_event_run(relay.event, UINT64_MAX), 0);
        relay_deinit(&relay);
}
END_TEST

START_TEST(cut_resets_both_sides_at_once)
{
        struct relay relay;
        uint64_t start_usec;

        if (!start(&relay, BUFFER_BYTES))
                return;
        for (size_t i = 0; i < _FLOW_SIDE_N; i++)
                send_bytes(&relay.ends[i], MIB(64), true);
        while (relay.ends[FLOW_INSIDE].n_received < MIB(4) ||
               relay.ends[FLOW_OUTSIDE].n_received < MIB(4))
                ck_assert_int_ge(sd_event_run(relay.event, UINT64_MAX), 0);
        start_usec = clock_monotonic_usec();
        flow_cut(relay.flow);
        expect_told(&relay, FLOW_CUT, FLOW_INSIDE, 0);
        expect_both_broken(&relay);
        ck_assert_uint_lt(clock_monotonic_usec() - start_usec, 100000U * (unsigned)test_patience());
        ck_assert_uint_ge(relay.told.sent.bytes, MIB(4));
        ck_assert_uint_lt(relay.told.sent.bytes, MIB(64));
        relay_deinit(&relay);
}
END_TEST

START_TEST(cut_does_not_wait_for_who_does_not_read)
{
        struct relay relay;

        if (!start(&relay, BUFFER_BYTES))
                return;
        for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                relay.ends[i].is_reading = false;
                send_bytes(&relay.ends[i], MIB(16), true);
        }
        relay_settle(&relay);
        flow_cut(relay.flow);
        for (size_t i = 0; i < _FLOW_SIDE_N; i++)
                while (!relay.ends[i].error)
                        ck_assert_int_ge(sd_event_run(relay.event, UINT64_MAX), 0);
        relay_deinit(&relay);
}
END_TEST

/* A process of its own with the flow, which tells its first byte's arrival by @ready_fd. */
static void run_flow_alone(const int near[static _FLOW_SIDE_N], int ready_fd)
{
        struct relay own = { 0 };

        if (sd_event_new(&own.event) >= 0 && relay_start(&own, near) == 0 &&
            write(ready_fd, "!", 1) == 1)
                (void)sd_event_loop(own.event);
        _exit(EXIT_FAILURE);
}

START_TEST(killed_process_resets_both_sides)
{
        struct relay relay;
        int near[_FLOW_SIDE_N], ready[2];
        char byte;
        pid_t child;

        if (!relay_init(&relay, BUFFER_BYTES, near))
                return;
        ck_assert_int_eq(pipe(ready), 0);
        child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
                for (size_t i = 0; i < _FLOW_SIDE_N; i++)
                        (void)close(relay.ends[i].fd);
                run_flow_alone(near, ready[1]);
        }
        for (size_t i = 0; i < _FLOW_SIDE_N; i++)
                (void)close(near[i]);
        (void)close(ready[1]);
        ck_assert_int_eq(read(ready[0], &byte, 1), 1);
        send_bytes(&relay.ends[FLOW_OUTSIDE], MIB(1), false);
        relay_run_until_received(&relay, &relay.ends[FLOW_INSIDE], MIB(1));
        ck_assert_int_eq(kill(child, SIGKILL), 0);
        ck_assert_int_eq(waitpid(child, NULL, 0), child);
        expect_both_broken(&relay);
        ck_assert(!relay.ends[FLOW_INSIDE].has_end);
        (void)close(ready[0]);
        relay_deinit(&relay);
}
END_TEST

START_TEST(freed_flow_resets_both_sides_and_tells_nobody)
{
        struct relay relay;

        if (!start(&relay, 0))
                return;
        send_bytes(&relay.ends[FLOW_INSIDE], 10, false);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], 10);
        relay.flow = flow_free(relay.flow);
        ck_assert_uint_eq(net_n_descriptors(), relay.n_descriptors);
        expect_both_broken(&relay);
        ck_assert_uint_eq(relay.n_told, 0);
        relay_deinit(&relay);
}
END_TEST

START_TEST(urgent_data_ends_the_flow)
{
        struct relay relay;

        if (!start(&relay, 0))
                return;
        send_bytes(&relay.ends[_i], 10, false);
        relay_run_until_received(&relay, &relay.ends[far_of(_i)], 10);
        ck_assert_int_eq(send(relay.ends[_i].fd, "!", 1, MSG_OOB), 1);
        relay_run_until_told(&relay);
        expect_told(&relay, FLOW_URGENT, (enum flow_side)_i, 0);
        expect_both_broken(&relay);
        relay_deinit(&relay);
}
END_TEST

START_TEST(peers_that_say_nothing_are_asked)
{
        static const struct {
                int level, name, value;
        } options[] = {
                { SOL_SOCKET, SO_KEEPALIVE, 1 },
                { IPPROTO_TCP, TCP_KEEPIDLE, 120 },
                { IPPROTO_TCP, TCP_KEEPINTVL, 30 },
                { IPPROTO_TCP, TCP_KEEPCNT, 4 },
        };
        struct relay relay;
        int near[_FLOW_SIDE_N];

        if (!relay_init(&relay, 0, near))
                return;
        ck_assert_int_eq(relay_start(&relay, near), 0);
        for (size_t i = 0; i < _FLOW_SIDE_N * ARRAY_SIZE(options); i++) {
                int value = -1;
                socklen_t n_value = sizeof(value);

                ck_assert_int_eq(getsockopt(near[i % _FLOW_SIDE_N], options[i / 2].level,
                                            options[i / 2].name, &value, &n_value),
                                 0);
                ck_assert_int_eq(value, options[i / 2].value);
        }
        flow_cut(relay.flow);
        relay_deinit(&relay);
}
END_TEST

/* The inside is in this kernel, so only outside a peer can vanish. */
START_TEST(a_peer_outside_that_takes_nothing_is_given_up)
{
        static const unsigned msec[_FLOW_SIDE_N] = { [FLOW_OUTSIDE] = 240000 };
        struct relay relay;
        int near[_FLOW_SIDE_N];

        if (!relay_init(&relay, 0, near))
                return;
        ck_assert_int_eq(relay_start(&relay, near), 0);
        for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                unsigned value = 1;
                socklen_t n_value = sizeof(value);

                ck_assert_int_eq(
                        getsockopt(near[i], IPPROTO_TCP, TCP_USER_TIMEOUT, &value, &n_value), 0);
                ck_assert_uint_eq(value, msec[i]);
        }
        flow_cut(relay.flow);
        relay_deinit(&relay);
}
END_TEST

static void add_tests_of_sides(TCase *tests)
{
        tcase_add_loop_test(tests, what_was_closed_before_the_flow_began_is_passed_on, 0, 2);
        tcase_add_loop_test(tests, end_of_one_direction_leaves_the_other_open, 0, 2);
        tcase_add_loop_test(tests, end_comes_behind_what_a_slow_reader_has_not_read, 0, 2);
        tcase_add_loop_test(tests, reset_is_passed_on_as_a_reset, 0, 2);
        tcase_add_loop_test(tests, reset_after_the_end_of_a_direction_is_passed_on, 0, 2);
        tcase_add_loop_test(tests, reset_is_seen_while_nothing_moves, 0, 2);
        tcase_add_loop_test(tests, end_that_is_gone_resets_who_goes_on_sending, 0, 2);
        tcase_add_loop_test(tests, urgent_data_ends_the_flow, 0, 2);
}

int main(void)
{
        Suite *suite = suite_create("flow");
        TCase *tests = tcase_create("flow");

        tcase_set_timeout(tests, 60.0 * test_patience());
        tcase_add_test(tests, bytes_pass_both_ways_and_are_counted);
        tcase_add_test(tests, bytes_that_were_looked_at_before_pass_too);
        add_tests_of_sides(tests);
        tcase_add_test(tests, cut_resets_both_sides_at_once);
        tcase_add_test(tests, cut_does_not_wait_for_who_does_not_read);
        tcase_add_test(tests, killed_process_resets_both_sides);
        tcase_add_test(tests, freed_flow_resets_both_sides_and_tells_nobody);
        tcase_add_test(tests, peers_that_say_nothing_are_asked);
        tcase_add_test(tests, a_peer_outside_that_takes_nothing_is_given_up);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
