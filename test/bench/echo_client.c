/*
 * Measures echo_server: unary round trips of 32 bytes one after the other, and a stream of 64 KiB
 * messages. Usage: echo_client TARGET [CALLS [MESSAGES]], with TARGET as `unix:/path`.
 * Prints `unary_p50_usec=N unary_p99_usec=N stream_mib_per_s=N`.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/text.h"
#include "test/unit/rpc/client.h"

static double now_usec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (double)now.tv_sec * 1e6 + (double)now.tv_nsec / 1e3;
}

static int compare(const void *a, const void *b)
{
        const double *left = a;
        const double *right = b;

        return (*left > *right) - (*left < *right);
}

static void require(bool holds, const char *what)
{
        if (holds)
                return;
        (void)fprintf(stderr, "echo_client: %s\n", what);
        exit(EXIT_FAILURE);
}

static void measure_unary(struct client *client, size_t n)
{
        static const char request[32];
        double *usec = calloc(n, sizeof(*usec));

        require(usec, "out of memory");
        for (size_t i = 0; i < n; i++) {
                double start = now_usec();
                struct client_result result = client_unary(client, "/hotcell.bench.Echo/Unary",
                                                           request, sizeof(request), 0);

                usec[i] = now_usec() - start;
                require(result.code == GRPC_STATUS_OK && result.n_bytes == sizeof(request),
                        "the echo failed");
                client_result_deinit(&result);
        }
        qsort(usec, n, sizeof(*usec), compare);
        (void)printf("unary_p50_usec=%.1f unary_p99_usec=%.1f ", usec[n / 2], usec[n * 99 / 100]);
        free(usec);
}

static void measure_stream(struct client *client, const char *n_messages)
{
        struct client_call call;
        double start = now_usec();
        double n_bytes = 0;

        client_open(client, &call, "/hotcell.bench.Echo/Stream", 0);
        client_send(&call, n_messages, strlen(n_messages));
        client_half_close(&call);
        while (client_read(&call))
                n_bytes += (double)call.result.n_bytes;
        client_finish(&call);
        require(call.result.code == GRPC_STATUS_OK, "the stream failed");
        client_result_deinit(&call.result);
        (void)printf("stream_mib_per_s=%.0f\n", n_bytes / (1 << 20) / ((now_usec() - start) / 1e6));
}

int main(int argc, char **argv)
{
        const char *n_messages = argc > 3 ? argv[3] : "16000";
        struct client client;
        uint64_t n_calls = 20000;

        require(argc >= 2 && (argc < 3 || text_to_uint64(argv[2], 10000000, &n_calls)) &&
                        n_calls > 0,
                "usage: echo_client TARGET [CALLS [MESSAGES]]");
        grpc_init();
        client_init(&client, argv[1]);
        measure_unary(&client, n_calls);
        measure_stream(&client, n_messages);
        client_deinit(&client);
        grpc_shutdown();
        return EXIT_SUCCESS;
}
