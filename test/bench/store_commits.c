/*
 * How long it takes until a change of the store is told as done, one at a time and with many in
 * flight. `store_commits FOLDER [N]`: FOLDER is on the disk in question.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "server/store/store.h"

struct run {
        struct store *store;
        int n_wanted, n_sent, n_done;
        int64_t *started_usec; /* by number */
        int64_t *took_usec;
};

struct insert {
        struct run *run;
        int number;
};

static int64_t now_usec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

static void send_next(struct run *run);

static void on_inserted(void *userdata, int result)
{
        struct insert *insert = userdata;
        struct run *run = insert->run;

        if (result) {
                (void)fprintf(stderr, "an insert failed: %d\n", result);
                exit(1);
        }
        run->took_usec[run->n_done++] = now_usec() - run->started_usec[insert->number];
        free(insert);
        send_next(run);
}

static void send_next(struct run *run)
{
        struct sandbox_record record = {
                .owner = "uid:1000",
                .state = SANDBOX_CREATING,
                .create_time_usec = time_now_usec(),
        };
        struct insert *insert;

        if (run->n_sent == run->n_wanted)
                return;
        insert = calloc(1, sizeof(*insert));
        if (!insert || id_generate("sbx", record.sandbox_id))
                exit(1);
        *insert = (struct insert){ .run = run, .number = run->n_sent++ };
        run->started_usec[insert->number] = now_usec();
        store_insert_sandbox(run->store, &record, on_inserted, insert);
}

static int compare(const void *a, const void *b)
{
        int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;

        return (left > right) - (left < right);
}

static void measure(sd_event *loop, struct store *store, int n, int n_in_flight)
{
        struct run run = { .store = store, .n_wanted = n };
        int64_t started_usec = now_usec(), took_usec;

        run.started_usec = calloc((size_t)n, sizeof(*run.started_usec));
        run.took_usec = calloc((size_t)n, sizeof(*run.took_usec));
        if (!run.started_usec || !run.took_usec)
                exit(1);
        for (int i = 0; i < n_in_flight; i++)
                send_next(&run);
        while (run.n_done < n)
                if (sd_event_run(loop, UINT64_MAX) < 0)
                        exit(1);
        took_usec = now_usec() - started_usec;
        qsort(run.took_usec, (size_t)n, sizeof(*run.took_usec), compare);
        printf("in flight %4d: %7.0f commits/s, p50 %6lld us, p99 %6lld us, max %6lld us\n",
               n_in_flight, n * 1e6 / (double)took_usec, (long long)run.took_usec[n / 2],
               (long long)run.took_usec[n * 99 / 100], (long long)run.took_usec[n - 1]);
        free(run.started_usec);
        free(run.took_usec);
}

int main(int argc, char **argv)
{
        static const int in_flight[] = { 1, 4, 16, 64, 256 };
        int n = argc > 2 ? atoi(argv[2]) : 2000;
        char message[MESSAGE_BUFFER];
        struct store *store = NULL;
        sd_event *loop = NULL;

        if (argc < 2 || n < 1) {
                (void)fprintf(stderr, "usage: store_commits FOLDER [N]\n");
                return 2;
        }
        if (sd_event_new(&loop) < 0 || store_open(loop, argv[1], &store, message)) {
                (void)fprintf(stderr, "cannot open the store: %s\n", message);
                return 1;
        }
        for (size_t i = 0; i < sizeof(in_flight) / sizeof(in_flight[0]); i++)
                measure(loop, store, n, in_flight[i]);
        (void)store_close(store);
        (void)sd_event_unref(loop);
        return 0;
}
