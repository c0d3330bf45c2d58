/* A hotcell-egress that is started anew is told of all networks, however many there are. */

#include <check.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/channel/traffic_table.h"
#include "runtime/supervisor/id_ranges.h"
#include "runtime/supervisor/relay.h"
#include "runtime/supervisor/sandbox.h"
#include "test/bpf/fixture.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"

/* More than 4,096 descriptors, which is what may wait in a channel. */
enum { SANDBOXES = 3000, PATIENCE_SEC = 30, ID_BASE = 1 << 20 };

static struct fixture f;
static sd_event *loop;
static struct reaper *reaper;
static struct relay *relay;
static struct traffic_table *traffic;
static struct id_ranges ids;
static struct sandbox_host host = { .ids = &ids };
static struct sandbox *sandboxes;
static bool has_stopped;

static void on_started(void *userdata)
{
        (void)userdata;
}

static void on_stopped(void *userdata)
{
        (void)userdata;
        has_stopped = true;
}

static void make_sandboxes(void)
{
        int fd = eventfd(0, EFD_CLOEXEC);

        ck_assert_int_ge(fd, 0);
        sandboxes = calloc(SANDBOXES, sizeof(*sandboxes));
        ck_assert_ptr_nonnull(sandboxes);
        for (size_t i = 0; i < SANDBOXES; i++) {
                sandboxes[i].host = &host;
                sandboxes[i].state = SANDBOX_RUNNING;
                sandboxes[i].id_base = ID_BASE;
                (void)snprintf(sandboxes[i].id, sizeof(sandboxes[i].id), "s%zu", i);
                for (size_t j = 0; j < _NETNS_SOCKET_N; j++)
                        sandboxes[i].netns.sockets[j] = fd;
        }
}

static void setup(void)
{
        static char *no_arguments[] = { NULL };
        struct relay_config config = {
                .service = { .name = "the stub",
                             .program = RELAY_STUB_PATH,
                             .arguments = no_arguments,
                             .user = "root",
                             .home = "/nonexistent" },
                .n_slots = BOXES,
                .on_started = on_started,
                .on_stopped = on_stopped,
        };
        sigset_t blocked;

        fixture_init(&f);
        config.wall = f.wall;
        ck_assert_int_eq(traffic_table_new(BOXES, &traffic), 0);
        config.traffic = traffic;
        (void)sigemptyset(&blocked);
        (void)sigaddset(&blocked, SIGCHLD);
        ck_assert_int_eq(sigprocmask(SIG_BLOCK, &blocked, NULL), 0);
        ck_assert_int_ge(sd_event_new(&loop), 0);
        ck_assert_int_eq(reaper_new(loop, &reaper), 0);
        ck_assert_int_eq(id_ranges_init(&ids, ID_BASE, 1), 0);
        make_sandboxes();
        has_stopped = false;
        ck_assert_int_eq(relay_new(loop, reaper, &config, &relay), 0);
}

static void run_until(bool (*condition)(const void *userdata), const void *userdata)
{
        time_t end = time(NULL) + (time_t)PATIENCE_SEC * test_patience();

        while (!condition(userdata)) {
                ck_assert_int_ge(sd_event_run(loop, 100000), 0);
                ck_assert_msg(time(NULL) < end, "waited for too long");
        }
}

static bool is_stopped(const void *userdata)
{
        (void)userdata;
        return has_stopped;
}

static void teardown(void)
{
        relay_stop(relay);
        run_until(is_stopped, NULL);
        relay = relay_free(relay);
        traffic = traffic_table_free(traffic);
        reaper = reaper_free(reaper);
        loop = sd_event_unref(loop);
        (void)close(sandboxes[0].netns.sockets[0]);
        free(sandboxes);
        id_ranges_deinit(&ids);
        fixture_deinit(&f);
}

/* The stub, which has stopped itself. */
static pid_t wait_for_stub(void)
{
        siginfo_t stopped = { 0 };

        ck_assert_int_eq(waitid(P_ALL, 0, &stopped, WSTOPPED | WNOWAIT), 0);
        return stopped.si_pid;
}

static uint32_t n_told;

static bool is_told(const void *userdata)
{
        return recv(*(const int *)userdata, &n_told, sizeof(n_told), MSG_DONTWAIT) ==
               (ssize_t)sizeof(n_told);
}

/* How many networks it was told of before it had the server's socket, once it reads. */
static uint32_t count_told(void)
{
        pid_t stub = wait_for_stub();
        int fd;

        for (size_t i = 0; i < SANDBOXES; i++)
                relay_add_network(relay, &sandboxes[i]);
        ck_assert_int_eq(relay_open_server_socket(relay, &fd), 0);
        for (size_t i = 0; i < SANDBOXES; i++)
                if (sandboxes[i].state == SANDBOX_ENDED)
                        relay_remove_network(relay, &sandboxes[i]);
        ck_assert_int_eq(kill(stub, SIGCONT), 0);
        run_until(is_told, &fd);
        (void)close(fd);
        return n_told;
}

START_TEST(thousands_of_networks_are_told_as_they_are_taken)
{
        ck_assert_uint_eq(count_told(), SANDBOXES);
}
END_TEST

/* Its sockets are closed by then. */
START_TEST(a_network_that_ended_while_it_waited_is_not_told)
{
        sandboxes[SANDBOXES - 1].state = SANDBOX_ENDED;
        sandboxes[SANDBOXES - 1].netns = NETNS_NONE;
        sandboxes[SANDBOXES - 2].state = SANDBOX_ENDING;
        sandboxes[SANDBOXES - 2].netns = NETNS_NONE;
        ck_assert_uint_eq(count_told(), SANDBOXES - 2);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("relay");
        TCase *tests = tcase_create("relay");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_set_timeout(tests, 120);
        tcase_add_test(tests, thousands_of_networks_are_told_as_they_are_taken);
        tcase_add_test(tests, a_network_that_ended_while_it_waited_is_not_told);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
