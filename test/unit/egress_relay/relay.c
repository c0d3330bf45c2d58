#include "test/unit/egress_relay/relay.h"

#include <check.h>
#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "test/unit/egress_relay/net.h"

enum { CHUNK = 65536, QUIET_USEC = 50000, ROUNDS_MAX = 1000000 };

/* Each byte depends on its place, and no two places near each other are alike. */
static uint8_t pattern_at(uint8_t pattern, uint64_t at)
{
        return (uint8_t)((at ^ (at >> 8) ^ (at >> 16)) + pattern);
}

static void break_off(struct far_end *end, int error)
{
        end->error = error;
        end->source = sd_event_source_disable_unref(end->source);
}

static void shut_if_done(struct far_end *end)
{
        if (!end->ends_then || end->was_shut || end->n_sent < end->n_to_send)
                return;
        ck_assert_int_eq(shutdown(end->fd, SHUT_WR), 0);
        end->was_shut = true;
}

static void send_some(struct far_end *end)
{
        uint8_t bytes[CHUNK];
        size_t n = MIN(sizeof(bytes), end->n_to_send - end->n_sent);
        ssize_t n_sent;

        for (size_t i = 0; i < n; i++)
                bytes[i] = pattern_at(end->sent_pattern, end->n_sent + i);
        n_sent = n > 0 ? send(end->fd, bytes, n, MSG_NOSIGNAL) : 0;
        if (n_sent > 0)
                end->n_sent += (uint64_t)n_sent;
        if (n_sent < 0 && errno != EAGAIN)
                break_off(end, errno);
        else
                shut_if_done(end);
}

static void receive_some(struct far_end *end)
{
        uint8_t bytes[CHUNK];
        ssize_t n = recv(end->fd, bytes, sizeof(bytes), 0);

        if (n < 0 && errno != EAGAIN)
                break_off(end, errno);
        if (n == 0)
                end->has_end = true;
        for (ssize_t i = 0; i < n; i++)
                if (bytes[i] != pattern_at(end->received_pattern, end->n_received + (size_t)i))
                        ck_abort_msg("byte %zu is another", (size_t)end->n_received + (size_t)i);
        if (n > 0)
                end->n_received += (uint64_t)n;
}

static int on_far_end(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct far_end *end = userdata;

        (void)source;
        (void)fd;
        if (events & (EPOLLIN | EPOLLERR | EPOLLHUP) && end->is_reading && !end->has_end)
                receive_some(end);
        if (!end->error && events & EPOLLOUT)
                send_some(end);
        if (!end->error && events & EPOLLERR) {
                int error = 0;
                socklen_t size = sizeof(error);

                ck_assert_int_eq(getsockopt(end->fd, SOL_SOCKET, SO_ERROR, &error, &size), 0);
                if (error)
                        break_off(end, error);
        }
        far_end_update(end);
        return 0;
}

void far_end_update(struct far_end *end)
{
        uint32_t events = 0;

        if (!end->source)
                return;
        shut_if_done(end);
        if (end->is_reading && !end->has_end)
                events |= EPOLLIN;
        if (end->n_sent < end->n_to_send)
                events |= EPOLLOUT;
        ck_assert_int_ge(sd_event_source_set_io_events(end->source, events), 0);
        /* That both sides were shut down is told for ever. */
        ck_assert_int_ge(sd_event_source_set_enabled(end->source, end->was_shut && end->has_end
                                                                          ? SD_EVENT_OFF
                                                                          : SD_EVENT_ON),
                         0);
}

void far_end_reset(struct far_end *end)
{
        const struct linger none = { .l_onoff = 1, .l_linger = 0 };

        ck_assert_int_eq(setsockopt(end->fd, SOL_SOCKET, SO_LINGER, &none, sizeof(none)), 0);
        end->source = sd_event_source_disable_unref(end->source);
        end->fd = close_fd(end->fd);
}

static void init_end(struct relay *relay, enum flow_side side, int fd)
{
        struct far_end *end = &relay->ends[side];

        *end = (struct far_end){
                .fd = fd,
                .is_reading = true,
                .sent_pattern = (uint8_t)(side * 101 + 1),
                .received_pattern = (uint8_t)((1 - side) * 101 + 1),
        };
        ck_assert_int_ge(sd_event_add_io(relay->event, &end->source, fd, EPOLLIN, on_far_end, end),
                         0);
}

/* With its first timer the loop opens a descriptor, which it keeps. */
static void warm_up(sd_event *event)
{
        sd_event_source *timer;

        ck_assert_int_ge(
                sd_event_add_time_relative(event, &timer, CLOCK_MONOTONIC, 0, 0, NULL, NULL), 0);
        sd_event_source_disable_unref(timer);
}

bool relay_init(struct relay *relay, int n_buffer, int ret_near[static _FLOW_SIDE_N])
{
        *relay = (struct relay){ 0 };
        if (!net_enter())
                return false;
        ck_assert(signal(SIGPIPE, SIG_IGN) != SIG_ERR);
        ck_assert_int_ge(sd_event_new(&relay->event), 0);
        warm_up(relay->event);
        for (enum flow_side side = FLOW_INSIDE; side < _FLOW_SIDE_N; side++) {
                int fds[2];

                net_connect(n_buffer, fds);
                init_end(relay, side, fds[0]);
                ret_near[side] = fds[1];
        }
        relay->n_descriptors = net_n_descriptors() - _FLOW_SIDE_N;
        return true;
}

void relay_deinit(struct relay *relay)
{
        ck_assert_ptr_null(relay->flow);
        for (size_t i = 0; i < _FLOW_SIDE_N; i++) {
                relay->ends[i].source = sd_event_source_disable_unref(relay->ends[i].source);
                relay->ends[i].fd = close_fd(relay->ends[i].fd);
        }
        sd_event_unref(relay->event);
}

static void on_end(struct flow *flow, const struct flow_end *end, void *userdata)
{
        struct relay *relay = userdata;

        ck_assert_ptr_eq(flow, relay->flow);
        relay->n_told++;
        relay->told = *end;
        ck_assert_uint_eq(relay->n_moved[FLOW_INSIDE], end->sent.bytes);
        ck_assert_uint_eq(relay->n_moved[FLOW_OUTSIDE], end->received.bytes);
        relay->told_usec = clock_monotonic_usec();
        relay->flow = flow_free(flow);
        for (size_t i = 0; i < _FLOW_SIDE_N; i++)
                relay->n_descriptors -= relay->ends[i].fd < 0;
        ck_assert_uint_eq(net_n_descriptors(), relay->n_descriptors);
}

static void on_moved(enum flow_side side, size_t n_bytes, void *userdata)
{
        struct relay *relay = userdata;

        relay->n_moved[side] += n_bytes;
}

int relay_start(struct relay *relay, const int near[static _FLOW_SIDE_N])
{
        const struct flow_config config = {
                .event = relay->event,
                .n_wide = &relay->n_wide,
                .on_moved = on_moved,
                .on_end = on_end,
                .userdata = relay,
        };

        return flow_new(&config, near[FLOW_INSIDE], near[FLOW_OUTSIDE], &relay->flow);
}

static void run_once(struct relay *relay)
{
        ck_assert_int_ge(sd_event_run(relay->event, UINT64_MAX), 0);
}

void relay_run_until_told(struct relay *relay)
{
        while (relay->n_told == 0)
                run_once(relay);
        ck_assert_uint_eq(relay->n_told, 1);
}

void relay_run_until_received(struct relay *relay, struct far_end *end, uint64_t n_bytes)
{
        while (end->n_received < n_bytes)
                run_once(relay);
        ck_assert_uint_eq(end->n_received, n_bytes);
}

void relay_run_until_ended(struct relay *relay, struct far_end *end)
{
        while (!end->has_end) {
                ck_assert_int_eq(end->error, 0);
                run_once(relay);
        }
}

void relay_run_until_broken(struct relay *relay, struct far_end *end)
{
        while (!end->error) {
                ck_assert(!end->has_end);
                run_once(relay);
        }
}

void relay_settle(struct relay *relay)
{
        for (unsigned i = 0; i < ROUNDS_MAX; i++) {
                int r = sd_event_run(relay->event, QUIET_USEC);

                ck_assert_int_ge(r, 0);
                if (r == 0)
                        return;
        }
        ck_abort_msg("the loop is busy for ever");
}
