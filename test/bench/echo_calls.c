/* Calls of the bare server: what gRPC alone costs, in the same client. */
#include <inttypes.h>
#include <stdio.h>

#include "echo.pb-c.h"

#include "cli/client.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "test/bench/client.h"

enum { TIMEOUT_MSEC = 120 * 1000 };

void call_unary(struct client *client, char *arguments)
{
        Hotcell__Bench__Message request = HOTCELL__BENCH__MESSAGE__INIT;
        Hotcell__Bench__Message *answer;
        uint64_t n_bytes = next_number(&arguments);
        _cleanup_(freep) uint8_t *bytes = allocate(n_bytes + 1, 1);
        struct client_call *call;
        int64_t start, end;
        int r;

        request.data.data = bytes;
        request.data.len = n_bytes;
        start = now_nsec();
        call = client_call_new(client, &hotcell__bench__echo__descriptor, "Unary", &request.base,
                               TIMEOUT_MSEC);
        r = client_call_read(call, -1, &answer);
        end = now_nsec();

        if (r)
                say_failure(call, r);
        else
                (void)printf("ok %" PRId64 "\n", end - start);
        if (r == 0)
                message_free(answer);
        drain(call);
        (void)client_call_free(call);
}

void call_stream(struct client *client, char *arguments)
{
        Hotcell__Bench__StreamRequest request = HOTCELL__BENCH__STREAM_REQUEST__INIT;
        Hotcell__Bench__Message *message;
        struct client_call *call;
        uint64_t n_bytes = 0;
        int64_t first = 0, last = 0;

        request.n_messages = next_number(&arguments);
        call = client_call_new(client, &hotcell__bench__echo__descriptor, "Stream", &request.base,
                               TIMEOUT_MSEC);
        while (client_call_read(call, -1, &message) == 0) {
                last = now_nsec();
                /* Its bytes came before the clock started. */
                if (first == 0)
                        first = last;
                else
                        n_bytes += message->data.len;
                message_free(message);
        }
        if (n_bytes > 0)
                (void)printf("ok %" PRId64 " %" PRIu64 "\n", last - first, n_bytes);
        else
                say_failure(call, CLIENT_E_END);
        (void)client_call_free(call);
}
