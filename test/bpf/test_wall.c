/* What the egress wall refuses, counts and tells, from within groups and networks of one's own. */

#include <arpa/inet.h>
#include <check.h>
#include <errno.h>
#include <netinet/in.h>
#include <sched.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <bpf/bpf.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/container/egress_probe.h"
#include "runtime/supervisor/probe.h"
#include "test/bpf/fixture.h"
#include "test/lib/suite.h"

enum { MANY = 5000 };

static const struct {
        enum bpf_attach_type type;
        bool is_v6;
} hooks[] = {
        { BPF_CGROUP_INET4_CONNECT, false },
        { BPF_CGROUP_INET6_CONNECT, true },
        { BPF_CGROUP_UDP4_SENDMSG, false },
        { BPF_CGROUP_UDP6_SENDMSG, true },
};

static struct fixture f;

static void setup(void)
{
        fixture_init(&f);
}

static void teardown(void)
{
        fixture_deinit(&f);
}

/* Where to, and how. */
struct attempt {
        const char *address;
        uint16_t port;
        int type;       /* SOCK_… */
        bool is_sent;   /* by sendto() on a socket that is not connected */
        bool is_mapped; /* IPv4 through a socket of IPv6 */
};

static socklen_t address_of(const struct attempt *attempt, struct sockaddr_storage *storage)
{
        return fill_address(attempt->address, attempt->port, attempt->is_mapped, storage);
}

/* The errno, or 0. */
static int try_it(const void *data)
{
        const struct attempt *attempt = data;
        struct sockaddr_storage storage;
        socklen_t size = address_of(attempt, &storage);
        int fd = socket(storage.ss_family, attempt->type, 0);

        if (fd < 0)
                return errno;
        if (attempt->is_sent)
                return sendto(fd, "x", 1, 0, (struct sockaddr *)&storage, size) < 0 ? errno : 0;
        return connect(fd, (struct sockaddr *)&storage, size) < 0 ? errno : 0;
}

static const struct attempt refused[] = {
        { "192.0.2.1", 80, SOCK_STREAM, false, false },
        { "192.0.2.1", 80, SOCK_DGRAM, false, false },
        { "192.0.2.1", 53, SOCK_DGRAM, true, false },
        { "192.0.2.1", 80, SOCK_STREAM, false, true },
        { "192.0.2.1", 80, SOCK_DGRAM, false, true },
        { "192.0.2.1", 80, SOCK_DGRAM, true, true },
        { "2001:db8::1", 80, SOCK_STREAM, false, false },
        { "2001:db8::1", 80, SOCK_DGRAM, false, false },
        { "2001:db8::1", 53, SOCK_DGRAM, true, false },
        { "169.254.169.254", 80, SOCK_STREAM, false, false },
        { "224.0.0.1", 5353, SOCK_DGRAM, true, false },
        { "255.255.255.255", 67, SOCK_DGRAM, false, false },
        { "ff02::1", 5353, SOCK_DGRAM, true, false },
        /* The relay's addresses, in which a token would be: local to the network, yet refused. */
        { "127.64.0.1", 80, SOCK_STREAM, false, false },
        { "127.127.255.255", 80, SOCK_DGRAM, true, false },
        { "127.64.0.1", 80, SOCK_STREAM, false, true },
        { "fd68:6365:6c6c::1", 80, SOCK_STREAM, false, false },
};

START_TEST(what_leaves_is_refused_counted_and_told)
{
        const struct attempt *attempt = &refused[_i];
        struct egress_counts counts;
        struct egress_event event;
        uint8_t address[16] = { 0 };

        ck_assert_int_eq(in_box(&f.boxes[0], try_it, attempt), EPERM);
        counts = counts_of(&f, &f.boxes[0]);
        ck_assert_uint_eq(counts.n_denied, 1);
        ck_assert_uint_eq(counts.n_logged, 1);
        ck_assert_uint_eq(counts.n_dropped, 0);
        event = next_event(&f);
        ck_assert_uint_eq(event.serial, 1);
        ck_assert_uint_eq(event.cgroup_id, f.boxes[0].group.id);
        ck_assert_uint_eq(event.leaf_id, f.boxes[0].leaf.id);
        ck_assert_uint_eq(event.port, attempt->port);
        ck_assert_uint_eq(event.protocol, attempt->type == SOCK_STREAM ? IPPROTO_TCP : IPPROTO_UDP);
        ck_assert_uint_eq(event.is_v6, strchr(attempt->address, ':') != NULL);
        (void)inet_pton(event.is_v6 ? AF_INET6 : AF_INET, attempt->address, address);
        ck_assert_mem_eq(event.address, address, sizeof(address));
        ck_assert_int_ne(event.pid, 0);
        ck_assert_str_ne(event.command, "");
        ck_assert_uint_gt(event.time_nsec, 0);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[1]).n_denied, 0);
}
END_TEST

static int be_proven(const void *data)
{
        (void)data;
        return -egress_probe();
}

START_TEST(the_probe_is_refused_twice)
{
        ck_assert_int_eq(in_box(&f.boxes[0], be_proven, NULL), 0);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, 2);
}
END_TEST

/* Without the wall the kernel refuses, too, but says another thing. */
START_TEST(the_probe_tells_a_network_without_a_way_out_from_the_wall)
{
        ck_assert_int_eq(unshare(CLONE_NEWNET), 0);
        ck_assert_int_ne(egress_probe(), 0);
        ck_assert_int_ne(egress_probe(), -EPERM);
        ck_assert_int_eq(setns(f.home_fd, CLONE_NEWNET), 0);
}
END_TEST

/* Off the parent group, as somebody with the right to do so could: those of IPv6, or all. */
static void detach(bool is_v6_only)
{
        size_t n;
        const uint32_t *ids = egress_wall_program_ids(f.wall, &n);
        int cgroup_fd = f.tree.parents[0].fd;
        unsigned n_detached = 0;

        for (size_t i = 0; i < n; i++) {
                int fd = bpf_prog_get_fd_by_id(ids[i]);

                ck_assert_int_ge(fd, 0);
                for (size_t k = 0; k < ARRAY_SIZE(hooks); k++)
                        if (hooks[k].is_v6 || !is_v6_only)
                                n_detached += bpf_prog_detach2(fd, cgroup_fd, hooks[k].type) == 0;
                (void)close(fd);
        }
        ck_assert_uint_ge(n_detached, 2);
}

/* As doctor asks. The wall of the test has room for its boxes only. */
static int prove(struct egress_counts *ret_counts)
{
        egress_wall_forget(f.wall, f.boxes[1].group.id);
        return probe_egress(&f.tree, f.wall, f.home_fd, ret_counts);
}

START_TEST(doctor_is_refused_twice)
{
        struct egress_counts counts = { 0 };

        ck_assert_int_eq(prove(&counts), 0);
        ck_assert_uint_eq(counts.n_denied, 2);
}
END_TEST

START_TEST(a_wall_for_one_family_or_none_proves_nothing)
{
        const bool is_v6_only = _i == 0;
        struct egress_counts counts = { 0 };
        int r;

        detach(is_v6_only);
        r = in_box(&f.boxes[0], be_proven, NULL);
        ck_assert_int_ne(r, 0);
        ck_assert_int_ne(r, EPERM);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, is_v6_only ? 1 : 0);
        ck_assert_int_eq(prove(&counts), -r);
}
END_TEST

struct pair {
        const char *listen_at;
        const char *connect_to;
        int type;
};

static int meet(const void *data)
{
        const struct pair *pair = data;
        struct attempt attempt = { pair->listen_at, 0, pair->type, false, false };
        struct sockaddr_storage storage;
        socklen_t size = address_of(&attempt, &storage);
        int fd = socket(storage.ss_family, pair->type, 0);

        if (bind(fd, (struct sockaddr *)&storage, size) < 0)
                return errno;
        if (pair->type == SOCK_STREAM && listen(fd, 1) < 0)
                return errno;
        (void)getsockname(fd, (struct sockaddr *)&storage, &size);
        attempt.address = pair->connect_to;
        attempt.port = ntohs(((struct sockaddr_in *)&storage)->sin_port);
        return try_it(&attempt);
}

static const struct pair local[] = {
        { "127.0.0.1", "127.0.0.1", SOCK_STREAM },
        { "127.1.2.3", "127.1.2.3", SOCK_STREAM },
        { "0.0.0.0", "0.0.0.0", SOCK_STREAM },
        { "::1", "::1", SOCK_STREAM },
        { "::", "::", SOCK_STREAM },
        { "127.0.0.1", "127.0.0.1", SOCK_DGRAM },
        { "::1", "::1", SOCK_DGRAM },
};

START_TEST(what_stays_in_the_network_is_free)
{
        ck_assert_int_eq(in_box(&f.boxes[0], meet, &local[_i]), 0);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, 0);
}
END_TEST

struct kind {
        int family;
        int type;
        int protocol;
};

static int make_socket(const void *data)
{
        const struct kind *kind = data;

        return socket(kind->family, kind->type, kind->protocol) < 0 ? errno : 0;
}

static const struct kind odd_sockets[] = {
        { AF_INET, SOCK_RAW, IPPROTO_ICMP },       { AF_INET6, SOCK_RAW, IPPROTO_ICMPV6 },
        { AF_INET, SOCK_RAW, IPPROTO_RAW },        { AF_INET, SOCK_DGRAM, IPPROTO_UDPLITE },
        { AF_INET6, SOCK_DGRAM, IPPROTO_UDPLITE },
};

/* Root in the initial user namespace may have them; in a sandbox seccomp and capabilities refuse
 * them first. */
START_TEST(odd_sockets_are_not_made)
{
        ck_assert_int_eq(in_box(&f.boxes[0], make_socket, &odd_sockets[_i]), EPERM);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[0]).n_denied, 1);
        ck_assert_uint_eq(next_event(&f).verdict, EGRESS_DENIED_SOCKET);
}
END_TEST

static int try_many(const void *data)
{
        const struct attempt *attempt = data;
        struct sockaddr_storage storage;
        socklen_t size = address_of(attempt, &storage);
        int fd = socket(storage.ss_family, attempt->type, 0);

        for (size_t i = 0; i < MANY; i++)
                if (connect(fd, (struct sockaddr *)&storage, size) == 0 || errno != EPERM)
                        return UNEXPECTED;
        return 0;
}

START_TEST(a_flood_is_counted_to_the_last_and_leaves_room_for_the_neighbour)
{
        uint64_t start_nsec = clock_monotonic_nsec(), took_nsec;
        struct egress_counts counts;

        ck_assert_int_eq(in_box(&f.boxes[0], try_many, &refused[0]), 0);
        took_nsec = clock_monotonic_nsec() - start_nsec;
        counts = counts_of(&f, &f.boxes[0]);
        ck_assert_uint_eq(counts.n_denied, MANY);
        ck_assert_uint_eq(counts.n_logged + counts.n_dropped, MANY);
        ck_assert_uint_ge(counts.n_logged, EGRESS_EVENT_BURST);
        ck_assert_uint_le(counts.n_logged,
                          EGRESS_EVENT_BURST + took_nsec / EGRESS_EVENT_INTERVAL_NSEC + 1);
        ck_assert_uint_gt(counts.n_dropped, 0);
        for (uint64_t i = 1; i <= counts.n_logged; i++)
                ck_assert_uint_eq(next_event(&f).serial, i);
        ck_assert_int_eq(in_box(&f.boxes[1], try_it, &refused[1]), EPERM);
        ck_assert_uint_eq(counts_of(&f, &f.boxes[1]).n_logged, 1);
        ck_assert_uint_eq(next_event(&f).cgroup_id, f.boxes[1].group.id);
}
END_TEST

START_TEST(what_was_not_admitted_is_refused_all_the_same)
{
        struct egress_counts counts;

        egress_wall_forget(f.wall, f.boxes[0].group.id);
        ck_assert_int_eq(in_box(&f.boxes[0], try_it, &refused[0]), EPERM);
        ck_assert_int_eq(egress_wall_read_counts(f.wall, f.boxes[0].group.id, &counts), -ENOENT);
}
END_TEST

START_TEST(the_wall_stands_when_nobody_holds_it)
{
        f.wall = egress_wall_free(f.wall);
        for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
                ck_assert_int_eq(in_box(&f.boxes[0], try_it, &refused[i]), EPERM);
}
END_TEST

START_TEST(programs_have_ids)
{
        size_t n;
        const uint32_t *ids = egress_wall_program_ids(f.wall, &n);

        ck_assert_uint_eq(n, EGRESS_PROGRAMS_DIRECT);
        for (size_t i = 0; i < n; i++)
                ck_assert_uint_ne(ids[i], 0);
}
END_TEST

START_TEST(a_wall_that_cannot_be_attached_says_why)
{
        const struct egress_wall_config config = { .cgroup_fd = f.home_fd, .n_sandboxes = 1 };
        char why[EGRESS_WHY_BUFFER] = "";
        struct egress_wall *wall = NULL;

        ck_assert_int_lt(egress_wall_new(&config, &wall, why), 0);
        ck_assert_ptr_null(wall);
        ck_assert_msg(strstr(why, "cannot be attached"), "%s", why);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("wall");
        TCase *tests = tcase_create("wall");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 60);
        tcase_add_loop_test(tests, what_leaves_is_refused_counted_and_told, 0, ARRAY_SIZE(refused));
        tcase_add_test(tests, the_probe_is_refused_twice);
        tcase_add_test(tests, the_probe_tells_a_network_without_a_way_out_from_the_wall);
        tcase_add_test(tests, doctor_is_refused_twice);
        tcase_add_loop_test(tests, a_wall_for_one_family_or_none_proves_nothing, 0, 2);
        tcase_add_loop_test(tests, what_stays_in_the_network_is_free, 0, ARRAY_SIZE(local));
        tcase_add_loop_test(tests, odd_sockets_are_not_made, 0, ARRAY_SIZE(odd_sockets));
        tcase_add_test(tests, a_flood_is_counted_to_the_last_and_leaves_room_for_the_neighbour);
        tcase_add_test(tests, what_was_not_admitted_is_refused_all_the_same);
        tcase_add_test(tests, the_wall_stands_when_nobody_holds_it);
        tcase_add_test(tests, programs_have_ids);
        tcase_add_test(tests, a_wall_that_cannot_be_attached_says_why);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
