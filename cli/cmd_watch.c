/* watch: what happens to sandboxes, resumed where it was when the connection is lost. */

#include <stdio.h>

#include "hotcell/v1/sandbox_service.pb-c.h"
#include "runtime/base/clock.h"

#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/enum_name.h"
#include "cli/error.h"
#include "cli/escape.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/say.h"
#include "cli/spinner.h"
#include "runtime/base/macros.h"

enum {
        AGAIN_MSEC = 30 * 1000,
        BACKOFF_MSEC = 500,
};

struct watch_options {
        int format;
        const char *after;
};

struct watch {
        const struct watch_options *options;
        struct client *client;
        struct client_call *call;
        Hotcell__V1__WatchSandboxesRequest *ask; /* its token moves on with the events */
        bool has_events;
        int64_t lost_since_msec; /* 0: connected */
};

static void print_event(const Hotcell__V1__SandboxEvent *event)
{
        const Hotcell__V1__Sandbox *sandbox = event->sandbox;
        _cleanup_(freep) char *id = escape_line(sandbox ? sandbox->sandbox_id : "");
        _cleanup_(freep) char *name = escape_line(sandbox ? sandbox->name : "");
        char when[MESSAGE_TIME_SIZE];

        (void)printf("%s  %-8s %s  %s", message_time(event->event_time, when),
                     enum_name(&hotcell__v1__sandbox_event_type__descriptor, (int)event->type), id,
                     name);
        if (event->type == HOTCELL__V1__SANDBOX_EVENT_TYPE__SANDBOX_EVENT_TYPE_ENDED && sandbox) {
                _cleanup_(freep) char *message = escape_line(sandbox->end_message);

                (void)printf("  %s: %s",
                             enum_name(&hotcell__v1__cause__descriptor, (int)sandbox->end_cause),
                             message);
        }
        (void)printf("\n");
        (void)fflush(stdout);
}

static void take_message(struct watch *watch, Hotcell__V1__WatchSandboxesResponse *message)
{
        watch->lost_since_msec = 0;
        for (size_t i = 0; i < message->n_events; i++) {
                const Hotcell__V1__SandboxEvent *event = message->events[i];

                watch->has_events = true;
                if (*event->watch_token)
                        message_set_text(&watch->ask->watch_token, event->watch_token);
                if (watch->options->format == OUTPUT_TEXT)
                        print_event(event);
                else
                        output_message(OUTPUT_JSONL, event);
        }
        message_free(message);
}

static void start(struct watch *watch)
{
        watch->call = client_call_free(watch->call);
        watch->call = client_call_new(watch->client, &hotcell__v1__sandbox_service__descriptor,
                                      "WatchSandboxes", &watch->ask->base, -1);
}

/* Starts again where it was, or gives up: then not 0. */
static int take_end(struct watch *watch)
{
        const struct rpc_error *error = client_call_error(watch->call);
        int64_t now = (int64_t)clock_monotonic_msec();
        bool is_lost = error->code == RPC_OK || error->code == RPC_UNAVAILABLE;

        if (!watch->has_events || !is_lost ||
            (watch->lost_since_msec && now - watch->lost_since_msec > AGAIN_MSEC)) {
                if (error->code == RPC_OK)
                        say("the server ended the stream");
                else
                        request_say_error(watch->client, error);
                return EXIT_OURS;
        }
        if (!watch->lost_since_msec)
                watch->lost_since_msec = now;
        if (client_sleep(watch->client, BACKOFF_MSEC) == 0)
                start(watch);
        return 0;
}

static int run(struct watch *watch)
{
        int exit_code = 0;

        start(watch);
        while (exit_code == 0) {
                Hotcell__V1__WatchSandboxesResponse *message = NULL;

                switch (client_call_read(watch->call, -1, &message)) {
                case 0:
                        take_message(watch, message);
                        break;
                case CLIENT_E_SIGNAL:
                        exit_code = EXIT_SIGNAL_BASE + client_take_signal(watch->client);
                        break;
                default:
                        exit_code = take_end(watch);
                        break;
                }
                if (ferror(stdout))
                        exit_code = EXIT_OURS;
        }
        watch->call = client_call_free(watch->call);
        return exit_code;
}

static int watch_sandboxes(const struct watch_options *options, const struct operands *operands)
{
        _cleanup_(message_freep) Hotcell__V1__WatchSandboxesRequest *ask =
                message_new(&hotcell__v1__watch_sandboxes_request__descriptor);
        _cleanup_(client_freep) struct client *client = NULL;
        struct watch watch = { .options = options, .ask = ask };
        int r = connect_open(&client);

        if (r == 0 && operands->n)
                r = resolve_sandbox(client, operands->items[0], false, &ask->sandbox_id);
        if (r)
                return r;
        if (options->after)
                message_set_text(&ask->watch_token, options->after);
        watch.client = client;
        return run(&watch);
}

int cmd_watch(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "watch",
                .operands = "[OPTIONS] [SANDBOX]",
                .summary = "Prints what happens to one's sandboxes, as it happens, until Ctrl-C.",
                .examples = "  hotcell watch\n"
                            "  hotcell watch -o jsonl my-box\n",
                .operands_max = 1,
        };
        static const struct option_row rows[] = {
                { 0, "after", OPTION_TEXT, offsetof(struct watch_options, after), "TOKEN",
                  "go on after the event with this watch_token", NULL, 0 },
                OUTPUT_ROW(offsetof(struct watch_options, format)),
        };
        struct watch_options options = { 0 };
        const struct option_group groups[] = { OPTION_GROUP("Options", rows, &options) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        return watch_sandboxes(&options, &operands);
}
