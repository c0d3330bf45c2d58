#include "test/bpf/asking.h"

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <sched.h>
#include <sys/socket.h>
#include <unistd.h>

#include "test/bpf/egress_loop.h"
#include "test/unit/egress/fake_upstream.h"

#define ADDRESS   "93.184.216.34"
#define HOUR_USEC UINT64_C(3600000000)

enum { QUERY_BYTES = 512 };

const struct wanted wild = { .n_rules4 = 3, .n_rules6 = 2, .domain = "*.wild.test" };

struct fake_upstream asking_upstream;
uint32_t asking_ttl_sec; /* of what it answers */
static int client_fd;    /* of a program in the box */

static void answer_it(const struct asked *asked)
{
        static struct packet packet;

        answer_begin(&packet, asked, 0, 1);
        put_address(&packet, asked->name, asking_ttl_sec, ADDRESS);
        answer_send(&packet, asked);
}

static void configure(struct resolver_config *config)
{
        fake_upstream_init(&asking_upstream, egress.event);
        asking_upstream.script = answer_it;
        config->upstream.servers = asking_upstream.server;
        config->new_names.interval_usec = HOUR_USEC;
        config->new_names.burst = ASKING_NEW_NAMES;
}

/* Of a program in the box. */
int connect_client(int type)
{
        const struct sockaddr_in to = { .sin_family = AF_INET,
                                        .sin_port = htons(53),
                                        .sin_addr.s_addr = inet_addr("127.0.0.53") };
        int fd;

        ck_assert_int_eq(setns(f.boxes[0].netns.fd, CLONE_NEWNET), 0);
        fd = socket(AF_INET, type | SOCK_CLOEXEC, 0);
        ck_assert_int_eq(setns(f.home_fd, CLONE_NEWNET), 0);
        ck_assert_int_eq(connect(fd, (const struct sockaddr *)&to, sizeof(to)), 0);
        return fd;
}

void asking_setup(void)
{
        egress_loop_init(configure);
        asking_ttl_sec = 60;
        client_fd = connect_client(SOCK_DGRAM | SOCK_NONBLOCK);
}

void asking_teardown(void)
{
        (void)close(client_fd);
        fake_upstream_deinit(&asking_upstream);
        egress_loop_deinit();
}

static bool has_answer(const void *userdata)
{
        (void)userdata;
        return recv(client_fd, NULL, 0, MSG_PEEK | MSG_TRUNC) > 0;
}

/* The answer's code. */
unsigned ask_type(const char *name, unsigned type)
{
        static struct packet packet;
        uint8_t bytes[QUERY_BYTES];

        packet = (struct packet){ 0 };
        put_query(&packet, name, type);
        ck_assert_int_eq(send(client_fd, packet.bytes, packet.n_bytes, 0), packet.n_bytes);
        run_until(has_answer, NULL);
        ck_assert_int_gt(recv(client_fd, bytes, sizeof(bytes), 0), 12);
        return get_rcode(bytes);
}

unsigned ask_name(const char *name)
{
        return ask_type(name, DNS_A);
}

void enforce(uint64_t request, const struct wanted *wanted)
{
        ask_for(request, wanted);
        expect_answer(request, TO_SERVER_ENFORCED);
}

const struct event *last_event(void)
{
        return &egress.events.ring[egress.events.n_pushed % EVENTS_MAX].event;
}
