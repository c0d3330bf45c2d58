#include "cli/request.h"

#include <signal.h>

#include "cli/client.h"
#include "cli/error.h"
#include "cli/exit_code.h"
#include "cli/spinner.h"
#include "cli/target.h"

/* The server's own limits are shorter; this one is for a server that hangs. */
enum { TIMEOUT_MSEC = 120 * 1000 };

void request_say_error(const struct client *client, const struct rpc_error *error)
{
        /* Without details it is gRPC that speaks, not the server. */
        if (error->code == RPC_UNAVAILABLE && !error->status) {
                target_explain(client_target(client), stderr);
                (void)fputs("  `hotcell doctor` looks further.\n", stderr);
        } else {
                rpc_error_print(error, stderr);
        }
}

static int read_answer(struct client_call *call, const char *waiting_for, void *ret_answer)
{
        struct spinner spinner;
        int r;

        spinner_start(&spinner, true);
        for (;;) {
                r = client_call_read(call, spinner_due_msec(&spinner), ret_answer);
                if (r != CLIENT_E_TIMEOUT)
                        break;
                spinner_draw(&spinner, waiting_for);
        }
        spinner_stop(&spinner);
        return r;
}

int request(struct client *client, const ProtobufCServiceDescriptor *service, const char *method,
            const void *message, const char *waiting_for, void *ret_answer)
{
        _cleanup_(client_call_freep) struct client_call *call =
                client_call_new(client, service, method, message, TIMEOUT_MSEC);
        int r = read_answer(call, waiting_for, ret_answer);

        if (r == 0)
                return 0;
        if (r == CLIENT_E_SIGNAL)
                return EXIT_SIGNAL_BASE + client_take_signal(client);
        request_say_error(client, client_call_error(call));
        return EXIT_OURS;
}
