/*
 * The baseline of the benchmarks: hotcelld's gRPC layer with nothing behind it. Serves echo.proto.
 *
 * Usage: echo_server unix:PATH | HOST:PORT; ends on SIGTERM or SIGINT.
 */
#include <assert.h>
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <systemd/sd-event.h>

#include "echo.pb-c.h"

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/rpc.h"

enum {
        CHUNK_BYTES = 64 << 10,
        CHUNK_HEADER_MAX = 16,
};

/* A Message of CHUNK_BYTES, packed once: what is measured is gRPC, not protobuf. */
static uint8_t chunk[CHUNK_BYTES + CHUNK_HEADER_MAX];
static size_t n_chunk;

static void pack_chunk(void)
{
        static uint8_t zeros[CHUNK_BYTES];
        Hotcell__Bench__Message message = HOTCELL__BENCH__MESSAGE__INIT;

        message.data.data = zeros;
        message.data.len = sizeof(zeros);
        assert(hotcell__bench__message__get_packed_size(&message) <= sizeof(chunk));
        n_chunk = hotcell__bench__message__pack(&message, chunk);
}

struct stream {
        uint64_t n_left;
};

static void on_unary(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        (void)userdata;
        rpc_call_reply(call, request, n_request);
}

static void stream_next(struct rpc_call *call, void *userdata)
{
        struct stream *stream = userdata;

        if (stream->n_left > 0) {
                stream->n_left--;
                rpc_call_write(call, chunk, n_chunk);
                return;
        }
        rpc_call_finish(call);
        free(stream);
}

static void stream_gone(struct rpc_call *call, void *userdata)
{
        (void)call;
        free(userdata);
}

static const struct rpc_call_observer stream_observer = {
        .on_writable = stream_next,
        .on_gone = stream_gone,
};

static void on_stream(struct rpc_call *call, const void *request, size_t n_request, void *userdata)
{
        Hotcell__Bench__StreamRequest *wanted =
                hotcell__bench__stream_request__unpack(NULL, n_request, request);
        struct stream *stream;

        (void)userdata;
        if (!wanted) {
                rpc_call_fail(call, RPC_INVALID_ARGUMENT, "This is no StreamRequest.", NULL, 0);
                return;
        }
        stream = malloc(sizeof(*stream));
        if (!stream) {
                hotcell__bench__stream_request__free_unpacked(wanted, NULL);
                rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "Out of memory.", NULL, 0);
                return;
        }
        stream->n_left = wanted->n_messages;
        hotcell__bench__stream_request__free_unpacked(wanted, NULL);
        rpc_call_observe(call, &stream_observer, stream);
        stream_next(call, stream);
}

static const struct rpc_method methods[] = {
        { .path = "/hotcell.bench.Echo/Unary", .handle = on_unary },
        { .path = "/hotcell.bench.Echo/Stream", .handle = on_stream },
};

static void on_stopped(void *userdata)
{
        (void)sd_event_exit(userdata, EXIT_SUCCESS);
}

static int on_signal(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        (void)info;
        rpc_server_stop(userdata, 1000000, on_stopped, sd_event_source_get_event(source));
        return 0;
}

static int listen_on(struct rpc_server *server, const char *address)
{
        if (strncmp(address, "unix:", 5) == 0)
                return rpc_server_listen_unix(server, address + 5, (gid_t)-1);
        return rpc_server_listen_tcp(server, address, NULL);
}

static void block_signals(void)
{
        sigset_t signals;

        (void)sigemptyset(&signals);
        (void)sigaddset(&signals, SIGTERM);
        (void)sigaddset(&signals, SIGINT);
        (void)sigprocmask(SIG_BLOCK, &signals, NULL);
}

static int serve(sd_event *loop, const char *address)
{
        const struct rpc_service service = { .methods = methods, .n_methods = ARRAY_SIZE(methods) };
        const struct rpc_server_config config = {
                .services = &service,
                .n_services = 1,
                .receive_max_bytes = MIB(4),
                .connections_max = 1024,
                .streams_max = 1024,
        };
        struct rpc_server *server;
        int r;

        r = rpc_server_new(loop, &config, &server);
        if (r)
                return r;
        r = listen_on(server, address);
        if (r == 0)
                r = rpc_server_start(server);
        if (r == 0)
                r = sd_event_add_signal(loop, NULL, SIGTERM, on_signal, server);
        if (r >= 0)
                r = sd_event_add_signal(loop, NULL, SIGINT, on_signal, server);
        if (r >= 0) {
                (void)printf("ready\n");
                (void)fflush(stdout);
                r = sd_event_loop(loop);
        }
        (void)rpc_server_free(server);
        return r;
}

int main(int argc, char **argv)
{
        sd_event *loop = NULL;
        int r;

        if (argc != 2) {
                (void)fprintf(stderr, "usage: %s unix:PATH | HOST:PORT\n", argv[0]);
                return 2;
        }
        log_init("echo_server", LOG_LEVEL_WARNING);
        block_signals();
        pack_chunk();
        r = sd_event_new(&loop);
        if (r >= 0)
                r = serve(loop, argv[1]);
        (void)sd_event_unref(loop);
        if (r != 0)
                log_error("cannot serve address=%s error=%d", argv[1], r);
        return r == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
