/*
 * What leaves cost in which nothing happens: the runtime's own CPU time while many of them sleep,
 * also of those for which there is no slot.
 * HOTCELL_TEST_LEAVES says how many; `./dev bench meter` asks for 5,000. A runtime has at most
 * 2,500, for each keeps four descriptors: so there are as many runtimes as that takes, and what
 * they use is added up.
 */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/supervisor/peer.h"

enum {
        LEAVES = 2500, /* beside which what a runtime costs anyway is little */
        LEAVES_OF_RUNTIME = 2500,
        LEAVES_OF_SANDBOX = 500,
        RUNTIMES_MAX = 4,
        WINDOW_SECONDS = 5,
        LEAVES_OF_PERCENT = 5000, /* so many may cost a hundredth of a CPU */
};

/* Reads of files in a second, by a runtime: some 30 for each sandbox, whatever is in it; and those
 * of leaves without a slot, of which chance may have it read three times as many as on average. */
static const double READS_BAR = 500;
static const double BLIND_READS_BAR = 3000;
static const double BLIND_BAR = 0.015; /* of a runtime, which reads at most 1,000 files a second */

#define must(condition) ck_assert_msg((condition), "%s: %s", #condition, strerror(errno))

static struct daemon runtimes[RUNTIMES_MAX];
static struct peer peers[RUNTIMES_MAX];
static size_t n_runtimes;
static char *enough_slots[] = { (char *)(uintptr_t) "--meter-slots", (char *)(uintptr_t) "4096",
                                NULL };
static char *few_slots[] = { (char *)(uintptr_t) "--meter-slots", (char *)(uintptr_t) "16", NULL };

static size_t wanted(void)
{
        const char *text = getenv("HOTCELL_TEST_LEAVES");
        long n = text ? strtol(text, NULL, 10) : LEAVES;

        ck_assert_int_ge(n, 1);
        ck_assert_int_le(n, (long)RUNTIMES_MAX * LEAVES_OF_RUNTIME);
        return (size_t)n;
}

static void setup(char **arguments)
{
        n_runtimes = (wanted() + LEAVES_OF_RUNTIME - 1) / LEAVES_OF_RUNTIME;
        for (size_t i = 0; i < n_runtimes; i++) {
                daemon_start(&runtimes[i], arguments);
                peer_connect(&peers[i], &runtimes[i]);
                peer_hello(&peers[i]);
        }
}

static void setup_enough_slots(void)
{
        setup(enough_slots);
}

static void setup_few_slots(void)
{
        setup(few_slots);
}

static void teardown(void)
{
        for (size_t i = 0; i < n_runtimes; i++) {
                int status;

                peer_disconnect(&peers[i]);
                status = daemon_stop(&runtimes[i]);
                ck_assert(WIFEXITED(status));
                ck_assert_int_eq(WEXITSTATUS(status), 0);
        }
}

static void create(struct peer *peer, const char *id)
{
        Hotcell__Runtime__V1__ToRuntime *message = create_request(id);
        struct answer answer;

        message->create_sandbox->limits->processes = LEAVES_OF_SANDBOX + 10;
        message->create_sandbox->limits->memory_bytes = 1 << 30;
        answer = peer_ask(peer, message);
        ck_assert_int_eq(answer.message->body_case,
                         HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_SANDBOX_CREATED);
        answer_deinit(&answer);
}

/* Processes that sleep, each in a leaf of its own. */
static void fill(struct peer *peer, size_t n)
{
        char sandbox[32], process[32];

        for (size_t i = 0; i < n; i++) {
                struct answer started;

                (void)snprintf(sandbox, sizeof(sandbox), "sbx-%zu", i / LEAVES_OF_SANDBOX);
                (void)snprintf(process, sizeof(process), "prc-%zu", i);
                if (i % LEAVES_OF_SANDBOX == 0)
                        create(peer, sandbox);
                started = peer_shell(peer, sandbox, process, "exec sleep 1000");
                answer_deinit(&started);
        }
}

static uint64_t cpu_nsec_of(pid_t pid)
{
        struct timespec used;
        clockid_t clock;

        must(clock_getcpuclockid(pid, &clock) == 0);
        must(clock_gettime(clock, &used) == 0);
        return (uint64_t)used.tv_sec * 1000000000 + (uint64_t)used.tv_nsec;
}

static uint64_t cpu_nsec(void)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < n_runtimes; i++)
                sum += cpu_nsec_of(runtimes[i].pid);
        return sum;
}

static uint64_t reads_of(pid_t pid)
{
        char path[32], line[64];
        unsigned long long n = 0;
        FILE *file;

        (void)snprintf(path, sizeof(path), "/proc/%d/io", (int)pid);
        file = fopen(path, "re");
        must(file);
        while (fgets(line, sizeof(line), file))
                if (strncmp(line, "syscr: ", 7) == 0)
                        n = strtoull(line + 7, NULL, 10);
        (void)fclose(file);
        ck_assert_uint_gt(n, 0);
        return n;
}

static uint64_t n_reads(void)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < n_runtimes; i++)
                sum += reads_of(runtimes[i].pid);
        return sum;
}

/* What the runtimes used: a share of a CPU, and reads a second. */
struct cost {
        double share;
        double reads;
};

static struct cost measure(size_t n)
{
        struct cost cost;
        uint64_t before, reads_before;

        for (size_t i = 0, left = n; i < n_runtimes; i++) {
                size_t here = MIN(left, (size_t)LEAVES_OF_RUNTIME);

                fill(&peers[i], here);
                left -= here;
        }
        /* The last ones have just begun to sleep. */
        (void)sleep(1);
        before = cpu_nsec();
        reads_before = n_reads();
        (void)sleep(WINDOW_SECONDS);
        cost.share = (double)(cpu_nsec() - before) / WINDOW_SECONDS / 1e9;
        cost.reads = (double)(n_reads() - reads_before) / WINDOW_SECONDS;
        printf("# %zu leaves: %.3f %% of a CPU, %.0f reads a second\n", n, cost.share * 100,
               cost.reads);
        (void)fflush(stdout);
        return cost;
}

/* Time only for the benchmark, which says how many leaves: a busy machine tells other times. */
static void check_cost(struct cost cost, double reads_bar, double share_bar)
{
        ck_assert_msg(cost.reads < reads_bar * (double)n_runtimes, "%.0f reads a second",
                      cost.reads);
        if (getenv("HOTCELL_TEST_LEAVES"))
                ck_assert_msg(cost.share < share_bar, "%.3f %% of a CPU, more than %.3f %%",
                              cost.share * 100, share_bar * 100);
}

START_TEST(leaves_in_which_nothing_happens_cost_next_to_nothing)
{
        size_t n = wanted();

        check_cost(measure(n), READS_BAR, 0.01 * (double)n / LEAVES_OF_PERCENT);
}
END_TEST

START_TEST(leaves_without_slots_cost_little_however_many_they_are)
{
        check_cost(measure(wanted()), BLIND_READS_BAR, BLIND_BAR * (double)n_runtimes);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("meter");
        TCase *idle = tcase_create("idle");
        TCase *blind = tcase_create("blind");
        const char *missing = daemon_missing();

        if (missing) {
                printf("1..0 # SKIP %s\n", missing);
                return EXIT_SUCCESS;
        }
        tcase_set_timeout(idle, 300);
        tcase_add_checked_fixture(idle, setup_enough_slots, teardown);
        tcase_add_test(idle, leaves_in_which_nothing_happens_cost_next_to_nothing);
        suite_add_tcase(suite, idle);
        tcase_set_timeout(blind, 300);
        tcase_add_checked_fixture(blind, setup_few_slots, teardown);
        tcase_add_test(blind, leaves_without_slots_cost_little_however_many_they_are);
        suite_add_tcase(suite, blind);
        return suite_main(suite);
}
