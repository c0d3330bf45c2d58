/*
 * How long a sandbox and a process take from the call to the executed program: back to back, and
 * with idle gaps of 60 ms. Usage: start_bench [COUNT]
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "test/container/fixture.h"

enum { COUNT_MAX = 2000 };

struct series {
        double answered_us[COUNT_MAX];
        double executed_us[COUNT_MAX];
        size_t n;
};

static double now_us(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
        const double *x = a;
        const double *y = b;

        return (*x > *y) - (*x < *y);
}

static void print(const char *name, struct series *series)
{
        size_t n = series->n;

        qsort(series->answered_us, n, sizeof(double), compare);
        qsort(series->executed_us, n, sizeof(double), compare);
        (void)printf("%-24s n=%zu answered p50=%.0f, executed p10=%.0f p50=%.0f p99=%.0f us\n",
                     name, n, series->answered_us[n / 2], series->executed_us[n / 10],
                     series->executed_us[n / 2], series->executed_us[n * 99 / 100]);
}

static void fail(const struct spawn_failure *failure)
{
        (void)fprintf(stderr, "start_bench: %s: errno %d\n", failure->step, failure->error_number);
        exit(1);
}

static void measure_sandboxes(struct fixture *f, size_t count, useconds_t gap_us,
                              struct series *ret_series)
{
        ret_series->n = count;
        for (size_t i = 0; i < count; i++) {
                struct spawn_sandbox sandbox = fixture_sandbox(f);
                struct spawn_failure failure = { 0 };
                struct box box;
                double start;

                (void)usleep(gap_us);
                start = now_us();
                if (spawner_start_sandbox(f->spawner, &sandbox, &box.init, &failure))
                        fail(&failure);
                ret_series->answered_us[i] = now_us() - start;
                if (status_wait(box.init.status_fd, &failure))
                        fail(&failure);
                ret_series->executed_us[i] = now_us() - start;
                (void)close(box.init.status_fd);
                box_end(&box);
        }
}

static void measure_process(struct fixture *f, struct spawn_process *process, useconds_t gap_us,
                            double *ret_answered_us, double *ret_executed_us)
{
        struct spawn_failure failure = { 0 };
        struct spawned spawned;
        double start;

        for (size_t n = 0; n < process->n_fds; n++)
                process->fds[n] = open("/dev/null", O_RDWR | O_CLOEXEC);
        (void)usleep(gap_us);
        start = now_us();
        if (spawner_start_process(f->spawner, process, &spawned, &failure))
                fail(&failure);
        *ret_answered_us = now_us() - start;
        if (status_wait(spawned.status_fd, &failure))
                fail(&failure);
        *ret_executed_us = now_us() - start;

        for (size_t n = 0; n < process->n_fds; n++)
                (void)close(process->fds[n]);
        (void)waitpid(spawned.pid, NULL, 0);
        (void)close(spawned.status_fd);
        (void)close(spawned.pidfd);
}

static void measure_processes(struct fixture *f, size_t count, useconds_t gap_us,
                              struct series *ret_series)
{
        static const char *const argv[] = { "/bin/true", NULL };
        struct spawn_process process;
        struct box box;

        box_start(f, &box);
        process = fixture_process(f, &box);
        process.argv = argv;
        ret_series->n = count;
        for (size_t i = 0; i < count; i++)
                measure_process(f, &process, gap_us, &ret_series->answered_us[i],
                                &ret_series->executed_us[i]);
        box_end(&box);
}

int main(int argc, char **argv)
{
        static struct series series;
        size_t count = argc > 1 ? strtoul(argv[1], NULL, 10) : 200;
        const char *missing = fixture_missing();
        struct fixture f;

        if (missing || count == 0 || count > COUNT_MAX) {
                (void)fprintf(stderr, "start_bench: %s\n",
                              missing ? missing : "COUNT is from 1 to 2000");
                return 1;
        }
        fixture_init_cgroups(&f);
        fixture_init(&f);
        measure_sandboxes(&f, count, 0, &series);
        print("sandbox, back to back", &series);
        measure_sandboxes(&f, count, 60000, &series);
        print("sandbox, 60 ms gaps", &series);
        measure_processes(&f, count, 0, &series);
        print("process, back to back", &series);
        measure_processes(&f, count, 60000, &series);
        print("process, 60 ms gaps", &series);
        fixture_deinit(&f);
        fixture_deinit_cgroups(&f);
        return 0;
}
