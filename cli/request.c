#include "cli/request.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "cli/client.h"
#include "cli/error.h"
#include "cli/exit_code.h"
#include "cli/retry.h"
#include "cli/spinner.h"
#include "cli/target.h"
#include "runtime/base/macros.h"

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

/* Reads can be repeated as they are. GetServerInfo is not among them: it asks whether there is a
 * server. */
static bool is_read(const char *method)
{
        static const char *const reads[] = { "GetExecution", "GetSandbox",       "GetUsage",
                                             "ListContexts", "ListEgressEvents", "ListExecutions",
                                             "ListSandboxes" };

        for (size_t i = 0; i < ARRAY_SIZE(reads); i++) {
                if (strcmp(method, reads[i]) == 0)
                        return true;
        }
        return false;
}

/* Waits until the failed call may be made again. False: it may not, or a signal came. */
static bool wait_to_repeat(struct retry *retry, struct client *client,
                           const struct client_call *call)
{
        return retry_is_due(retry, client, client_call_error(call)) &&
               retry_pause(retry, client) == 0;
}

int request(struct client *client, const ProtobufCServiceDescriptor *service, const char *method,
            void *message, const char *waiting_for, void *ret_answer)
{
        bool may_repeat = retry_identify(message) || is_read(method);
        _cleanup_(client_call_freep) struct client_call *call =
                client_call_new(client, service, method, message, TIMEOUT_MSEC);
        struct retry retry = { 0 };
        int r = read_answer(call, waiting_for, ret_answer);

        while (r == CLIENT_E_END && may_repeat && wait_to_repeat(&retry, client, call)) {
                (void)client_call_free(call);
                call = client_call_new(client, service, method, message, TIMEOUT_MSEC);
                r = read_answer(call, waiting_for, ret_answer);
        }
        if (r == 0)
                return 0;
        r = client_take_signal(client);
        if (r)
                return EXIT_SIGNAL_BASE + r;
        request_say_error(client, client_call_error(call));
        return EXIT_OURS;
}
