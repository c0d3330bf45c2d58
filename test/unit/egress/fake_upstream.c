#include "test/unit/egress/fake_upstream.h"

#include <check.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>

#include "runtime/base/cleanup.h"

static void serve(struct fake_upstream *upstream, const uint8_t *bytes, size_t n_bytes,
                  struct asked *asked)
{
        size_t at = 12;
        size_t n = 0;

        ck_assert_uint_gt(n_bytes, at);
        asked->upstream = upstream;
        asked->id = get_u16(bytes, 0);
        while (bytes[at]) {
                ck_assert_uint_lt(at + bytes[at], n_bytes);
                if (n > 0)
                        asked->name[n++] = '.';
                memcpy(asked->name + n, bytes + at + 1, bytes[at]);
                n += bytes[at];
                at += 1U + bytes[at];
        }
        asked->type = get_u16(bytes, at + 1);
        upstream->last = *asked;
        upstream->script(asked);
}

static int on_udp(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct fake_upstream *upstream = userdata;
        struct asked asked = { 0 };
        socklen_t n_peer = sizeof(asked.peer);
        uint8_t bytes[4096];
        ssize_t n = recvfrom(fd, bytes, sizeof(bytes), 0, (struct sockaddr *)&asked.peer, &n_peer);

        (void)source;
        (void)events;
        if (n < 0)
                return 0;
        upstream->n_udp++;
        serve(upstream, bytes, (size_t)n, &asked);
        return 0;
}

void fake_upstream_hang_up(struct fake_upstream *upstream)
{
        upstream->sources[2] = sd_event_source_disable_unref(upstream->sources[2]);
        upstream->tcp_fd = close_fd(upstream->tcp_fd);
}

static int on_tcp(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct fake_upstream *upstream = userdata;
        struct asked asked = { .is_tcp = true };
        uint8_t bytes[4096];
        ssize_t n = recv(fd, bytes, 2, MSG_WAITALL);

        (void)source;
        (void)events;
        if (n != 2) {
                fake_upstream_hang_up(upstream);
                return 0;
        }
        n = recv(fd, bytes, get_u16(bytes, 0), MSG_WAITALL);
        upstream->n_tcp++;
        serve(upstream, bytes, (size_t)n, &asked);
        return 0;
}

static int on_connection(sd_event_source *source, int fd, uint32_t events, void *userdata)
{
        struct fake_upstream *upstream = userdata;

        (void)events;
        fake_upstream_hang_up(upstream);
        upstream->tcp_fd = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        ck_assert_int_ge(upstream->tcp_fd, 0);
        ck_assert_int_ge(sd_event_add_io(sd_event_source_get_event(source), &upstream->sources[2],
                                         upstream->tcp_fd, EPOLLIN, on_tcp, upstream),
                         0);
        return 0;
}

/* A port that is free for UDP may be taken for TCP. */
static bool bind_both(struct fake_upstream *upstream)
{
        struct sockaddr_in address = { .sin_family = AF_INET,
                                       .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
        socklen_t n = sizeof(address);

        upstream->udp_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        upstream->listener_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(bind(upstream->udp_fd, (struct sockaddr *)&address, n), 0);
        ck_assert_int_eq(getsockname(upstream->udp_fd, (struct sockaddr *)&address, &n), 0);
        (void)snprintf(upstream->server, sizeof(upstream->server), "127.0.0.1:%u",
                       (unsigned)ntohs(address.sin_port));
        return bind(upstream->listener_fd, (struct sockaddr *)&address, n) == 0 &&
               listen(upstream->listener_fd, 10) == 0;
}

void fake_upstream_init(struct fake_upstream *upstream, sd_event *loop)
{
        *upstream = (struct fake_upstream){ .tcp_fd = -1 };
        for (unsigned i = 0; !bind_both(upstream); i++) {
                ck_assert_uint_lt(i, 100);
                (void)close_fd(upstream->udp_fd);
                (void)close_fd(upstream->listener_fd);
        }
        ck_assert_int_ge(sd_event_add_io(loop, &upstream->sources[0], upstream->udp_fd, EPOLLIN,
                                         on_udp, upstream),
                         0);
        ck_assert_int_ge(sd_event_add_io(loop, &upstream->sources[1], upstream->listener_fd,
                                         EPOLLIN, on_connection, upstream),
                         0);
}

void fake_upstream_deinit(struct fake_upstream *upstream)
{
        fake_upstream_hang_up(upstream);
        for (size_t i = 0; i < 2; i++)
                upstream->sources[i] = sd_event_source_disable_unref(upstream->sources[i]);
        upstream->udp_fd = close_fd(upstream->udp_fd);
        upstream->listener_fd = close_fd(upstream->listener_fd);
}

void answer_begin(struct packet *packet, const struct asked *asked, unsigned flags,
                  unsigned n_answers)
{
        put_header(packet, asked->id, PACKET_ANSWER | flags, n_answers);
        put_question(packet, asked->name, asked->type);
}

void answer_send(const struct packet *packet, const struct asked *asked)
{
        const uint8_t length[2] = { (uint8_t)(packet->n_bytes >> 8), (uint8_t)packet->n_bytes };

        if (!asked->is_tcp) {
                ck_assert_int_eq(sendto(asked->upstream->udp_fd, packet->bytes, packet->n_bytes, 0,
                                        (const struct sockaddr *)&asked->peer, sizeof(asked->peer)),
                                 (ssize_t)packet->n_bytes);
                return;
        }
        ck_assert_int_eq(send(asked->upstream->tcp_fd, length, 2, MSG_NOSIGNAL | MSG_MORE), 2);
        ck_assert_int_eq(
                send(asked->upstream->tcp_fd, packet->bytes, packet->n_bytes, MSG_NOSIGNAL),
                (ssize_t)packet->n_bytes);
}
