/* What a flow holds, what it does without, and what it costs others. Each test has a network of its
 * own. */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/egress/direction.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"
#include "test/unit/egress_relay/steps.h"

enum {
        /* Of each direction, on its way: what four buffers, which the kernel doubles, and a pipe
         * may hold. Each buffer takes the last segment whole. */
        SEGMENT_BYTES = 64 * 1024,
        HELD_MAX = 4 * (2 * BUFFER_BYTES + SEGMENT_BYTES) + 256 * 1024,
        PIPE_DESCRIPTORS = 4,
};

static bool is_calloc_broken;
static unsigned n_splices_left; /* until one is broken; 0: none is */
static int splice_error;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
ssize_t __real_splice(int fd_in, off64_t *off_in, int fd_out, off64_t *off_out, size_t len,
                      unsigned flags);
ssize_t __wrap_splice(int fd_in, off64_t *off_in, int fd_out, off64_t *off_out, size_t len,
                      unsigned flags);

void *__wrap_calloc(size_t n, size_t size)
{
        return is_calloc_broken ? NULL : __real_calloc(n, size);
}

ssize_t __wrap_splice(int fd_in, off64_t *off_in, int fd_out, off64_t *off_out, size_t len,
                      unsigned flags)
{
        if (n_splices_left > 0 && --n_splices_left == 0) {
                errno = splice_error;
                return -1;
        }
        return __real_splice(fd_in, off_in, fd_out, off_out, len, flags);
}

static void expect_little_held(const struct relay *relay)
{
        const struct far_end *inside = &relay->ends[FLOW_INSIDE];
        const struct far_end *outside = &relay->ends[FLOW_OUTSIDE];

        ck_assert_uint_le(inside->n_sent - outside->n_received, HELD_MAX);
        ck_assert_uint_le(outside->n_sent - inside->n_received, HELD_MAX);
}

/* Both ends read only when nothing else happens. */
START_TEST(slow_readers_slow_the_writers)
{
        static uint8_t bytes[65536];
        struct relay relay;
        size_t n_stalls = 0;
        size_t heap_before;

        if (!start(&relay, BUFFER_BYTES))
                return;
        heap_before = mallinfo2().uordblks;
        for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                relay.ends[i].is_reading = false;
                send_bytes(&relay.ends[i], MIB(64), true);
        }
        while (relay.n_told == 0) {
                int r = sd_event_run(relay.event, relay.ends[0].is_reading ? 1000 : 0);
                bool is_stalled = r == 0;

                ck_assert_int_ge(r, 0);
                expect_little_held(&relay);
                ck_assert_uint_le(mallinfo2().uordblks, heap_before + sizeof(bytes));
                n_stalls += is_stalled && !relay.ends[0].is_reading;
                for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                        set_reading(&relay.ends[i], is_stalled);
                }
        }
        for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                set_reading(&relay.ends[i], true);
                relay_run_until_ended(&relay, &relay.ends[i]);
                ck_assert_uint_eq(relay.ends[i].n_received, MIB(64));
        }
        expect_told(&relay, FLOW_CLOSED, FLOW_INSIDE, 0);
        ck_assert_uint_eq(relay.told.sent.bytes, MIB(64));
        ck_assert_uint_eq(relay.told.received.bytes, MIB(64));
        ck_assert_uint_gt(n_stalls, MIB(64) / HELD_MAX);
        relay_deinit(&relay);
}
END_TEST

/* One direction by itself: from the far end of one connection to that of another. */
struct lane {
        struct direction direction;
        int from[2];
        int to[2];
};

static bool lane_init(struct lane *lane, int n_buffer)
{
        if (!net_enter())
                return false;
        net_connect(n_buffer, lane->from);
        net_connect(n_buffer, lane->to);
        ck_assert_int_eq(direction_init(&lane->direction, lane->from[1], lane->to[0]), 0);
        return true;
}

static void lane_deinit(struct lane *lane)
{
        direction_deinit(&lane->direction);
        for (size_t i = 0; i < 2; i++) {
                (void)close(lane->from[i]);
                (void)close(lane->to[i]);
        }
}

/* Without the loop, which would tell of the urgent byte first. */
START_TEST(urgent_data_is_not_taken_for_the_end)
{
        struct direction_turn turn;
        struct lane lane;

        if (!lane_init(&lane, 0))
                return;
        ck_assert_int_eq(send(lane.from[0], "ab", 2, 0), 2);
        ck_assert_int_eq(send(lane.from[0], "!", 1, MSG_OOB), 1);
        ck_assert_int_eq(send(lane.from[0], "cd", 2, 0), 2);
        ck_assert_int_eq(shutdown(lane.from[0], SHUT_WR), 0);
        ck_assert_int_eq(direction_pump(&lane.direction, &turn), DIRECTION_E_URGENT);
        lane_deinit(&lane);
}
END_TEST

static bool may_have_large_buffers(void)
{
        if (geteuid() != 0)
                (void)fprintf(stderr, "# skipped: large buffers need root\n");
        return geteuid() == 0;
}

START_TEST(turn_ends_although_there_is_more)
{
        static uint8_t bytes[1 << 20];
        struct direction_turn turn;
        size_t n_turns = 0;
        struct lane lane;

        if (!may_have_large_buffers() || !lane_init(&lane, 8 << 20))
                return;
        ck_assert_int_eq(send(lane.from[0], bytes, sizeof(bytes), 0), sizeof(bytes));
        do {
                ck_assert_int_eq(direction_pump(&lane.direction, &turn), 0);
                ck_assert_uint_le(turn.n_moved, KIB(512));
                n_turns++;
        } while (turn.is_cut_short);
        ck_assert_uint_eq(lane.direction.n_bytes, sizeof(bytes));
        ck_assert_uint_ge(n_turns, 4);
        lane_deinit(&lane);
}
END_TEST

/* All bytes are there before the flow begins, and nothing else happens later. */
START_TEST(turn_that_was_cut_short_goes_on)
{
        struct relay relay;
        int near[_FLOW_SIDE_N];

        if (!may_have_large_buffers() || !relay_init(&relay, 8 << 20, near))
                return;
        send_bytes(&relay.ends[FLOW_INSIDE], MIB(2), false);
        relay_settle(&relay);
        ck_assert_uint_eq(relay.ends[FLOW_INSIDE].n_sent, MIB(2));
        ck_assert_int_eq(relay_start(&relay, near), 0);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], MIB(2));
        flow_cut(relay.flow);
        relay_deinit(&relay);
}
END_TEST

/* Ends of pipes of this process with so many bytes. */
static unsigned count_pipe_ends(int n_bytes)
{
        unsigned n = 0;

        for (int fd = 0; fd < 1024; fd++)
                n += fcntl(fd, F_GETPIPE_SZ) == n_bytes;
        return n;
}

START_TEST(who_carries_much_has_a_wide_pipe)
{
        enum { NARROW = 8 << 10, WIDE = 128 << 10 };
        unsigned n_narrow = count_pipe_ends(NARROW), n_wide = count_pipe_ends(WIDE);
        struct relay relay;

        if (!start(&relay, 0))
                return;
        ck_assert_uint_eq(count_pipe_ends(NARROW), n_narrow + 4);
        relay.n_wide = (size_t)_i;
        send_bytes(&relay.ends[FLOW_INSIDE], MIB(64), false);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], MIB(64));
        if (_i == FLOW_WIDE_MAX) { /* others have all of them */
                ck_assert_uint_eq(count_pipe_ends(WIDE), n_wide);
                ck_assert_uint_eq(relay.n_wide, FLOW_WIDE_MAX);
        } else {
                ck_assert_uint_eq(count_pipe_ends(WIDE), n_wide + 2);
                ck_assert_uint_eq(relay.n_wide, (size_t)_i + 1);
        }
        send_bytes(&relay.ends[FLOW_INSIDE], 0, true);
        relay_run_until_ended(&relay, &relay.ends[FLOW_OUTSIDE]);
        ck_assert_uint_eq(relay.n_wide, (size_t)_i);
        flow_cut(relay.flow);
        ck_assert_uint_eq(relay.n_wide, (size_t)_i);
        relay_deinit(&relay);
}
END_TEST

START_TEST(flow_holds_six_descriptors)
{
        struct relay relay;

        if (!start(&relay, 0))
                return;
        ck_assert_uint_eq(net_n_descriptors(), relay.n_descriptors + FLOW_DESCRIPTORS);
        flow_cut(relay.flow); /* on_end counts again */
        relay_deinit(&relay);
}
END_TEST

START_TEST(want_of_descriptors_is_told_and_resets_both_sides)
{
        struct relay relay;
        int near[_FLOW_SIDE_N];

        if (!relay_init(&relay, 0, near))
                return;
        net_limit_descriptors((size_t)_i);
        ck_assert_int_eq(relay_start(&relay, near), FLOW_E_NO_ROOM);
        net_limit_descriptors(100);
        ck_assert_ptr_null(relay.flow);
        ck_assert_uint_eq(net_n_descriptors(), relay.n_descriptors);
        expect_both_broken(&relay);
        ck_assert_uint_eq(relay.n_told, 0);
        relay_deinit(&relay);
}
END_TEST

START_TEST(as_many_descriptors_as_it_needs_are_enough)
{
        struct relay relay;
        int near[_FLOW_SIDE_N];

        if (!relay_init(&relay, 0, near))
                return;
        net_limit_descriptors(PIPE_DESCRIPTORS);
        ck_assert_int_eq(relay_start(&relay, near), 0);
        net_limit_descriptors(100);
        send_bytes(&relay.ends[FLOW_INSIDE], 100, false);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], 100);
        flow_cut(relay.flow);
        relay_deinit(&relay);
}
END_TEST

START_TEST(want_of_memory_is_told_and_resets_both_sides)
{
        struct relay relay;
        int near[_FLOW_SIDE_N];

        if (!relay_init(&relay, 0, near))
                return;
        is_calloc_broken = true;
        ck_assert_int_eq(relay_start(&relay, near), FLOW_E_NO_ROOM);
        is_calloc_broken = false;
        ck_assert_uint_eq(net_n_descriptors(), relay.n_descriptors);
        expect_both_broken(&relay);
        relay_deinit(&relay);
}
END_TEST

/* The first splice(2) reads from the side that sends, the second writes to the other one. */
START_TEST(failures_of_the_kernel_are_told_with_side_and_errno)
{
        struct relay relay;
        enum flow_side sender = _i % 2 ? FLOW_OUTSIDE : FLOW_INSIDE;
        bool is_write = _i >= 2;

        if (!start(&relay, 0))
                return;
        relay_settle(&relay);
        splice_error = EHOSTUNREACH;
        n_splices_left = is_write ? 2 : 1;
        send_bytes(&relay.ends[sender], 100, false);
        relay_run_until_told(&relay);
        expect_told(&relay, FLOW_FAILED, is_write ? far_of(sender) : sender, EHOSTUNREACH);
        ck_assert_uint_eq(relay.told.sent.bytes + relay.told.received.bytes, 0);
        expect_both_broken(&relay);
        relay_deinit(&relay);
}
END_TEST

START_TEST(quiet_flow_leaves_the_loop_alone)
{
        struct relay relay;

        if (!start(&relay, 0))
                return;
        send_bytes(&relay.ends[FLOW_INSIDE], 100, false);
        relay_run_until_received(&relay, &relay.ends[FLOW_OUTSIDE], 100);
        relay_settle(&relay);
        ck_assert_int_eq(sd_event_run(relay.event, 20000), 0);
        send_bytes(&relay.ends[FLOW_OUTSIDE], 0, true);
        relay_run_until_ended(&relay, &relay.ends[FLOW_INSIDE]);
        relay_settle(&relay);
        flow_cut(relay.flow);
        relay_deinit(&relay);
}
END_TEST

/* Both ends are so fast that the flow never comes to its end: as much as goes is sent to it and
 * taken from it. */
static void keep_busy(const struct relay *relay)
{
        static uint8_t bytes[64 * 1024];

        while (send(relay->ends[FLOW_INSIDE].fd, bytes, sizeof(bytes), MSG_NOSIGNAL) > 0)
                ;
        while (recv(relay->ends[FLOW_OUTSIDE].fd, bytes, sizeof(bytes), 0) > 0)
                ;
}

static int on_bell(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        (void)fd;
        (void)events;
        *(bool *)userdata = true;
        return sd_event_source_set_enabled(source, SD_EVENT_OFF);
}

START_TEST(flow_that_never_rests_leaves_turns_to_others)
{
        enum { TURNS_BEFORE = 20, TURNS_MAX = 10 };
        _cleanup_(closep) int bell = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
        struct relay relay;
        sd_event_source *source;
        bool has_rung = false;
        unsigned n_turns = 0;

        if (!start(&relay, 0))
                return;
        ck_assert_int_ge(sd_event_add_io(relay.event, &source, bell, EPOLLIN, on_bell, &has_rung),
                         0);
        for (size_t i = 0; i < _FLOW_SIDE_N; i++)
                relay.ends[i].source = sd_event_source_disable_unref(relay.ends[i].source);
        for (size_t i = 0; i < TURNS_BEFORE; i++) {
                keep_busy(&relay);
                ck_assert_int_gt(sd_event_run(relay.event, 0), 0);
        }
        ck_assert_int_eq(eventfd_write(bell, 1), 0);
        for (; !has_rung && n_turns < TURNS_MAX; n_turns++) {
                keep_busy(&relay);
                ck_assert_int_gt(sd_event_run(relay.event, 0), 0);
        }
        ck_assert(has_rung);
        sd_event_source_unref(source);
        flow_cut(relay.flow);
        relay_deinit(&relay);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("flow_bounds");
        TCase *tests = tcase_create("flow_bounds");

        tcase_set_timeout(tests, 60.0 * test_patience());
        tcase_add_test(tests, slow_readers_slow_the_writers);
        tcase_add_test(tests, urgent_data_is_not_taken_for_the_end);
        tcase_add_test(tests, turn_ends_although_there_is_more);
        tcase_add_test(tests, turn_that_was_cut_short_goes_on);
        tcase_add_loop_test(tests, who_carries_much_has_a_wide_pipe, FLOW_WIDE_MAX - 1,
                            FLOW_WIDE_MAX + 1);
        tcase_add_test(tests, flow_holds_six_descriptors);
        tcase_add_loop_test(tests, want_of_descriptors_is_told_and_resets_both_sides, 0,
                            PIPE_DESCRIPTORS);
        tcase_add_test(tests, as_many_descriptors_as_it_needs_are_enough);
        tcase_add_test(tests, want_of_memory_is_told_and_resets_both_sides);
        tcase_add_loop_test(tests, failures_of_the_kernel_are_told_with_side_and_errno, 0, 4);
        tcase_add_test(tests, quiet_flow_leaves_the_loop_alone);
        tcase_add_test(tests, flow_that_never_rests_leaves_turns_to_others);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
