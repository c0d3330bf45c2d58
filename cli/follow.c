/*
 * Execute and AttachExecution answer with the same events; which of the two calls runs shows only
 * where a message is taken apart. After a lost connection it is AttachExecution; as long as no
 * event has told the execution's id, Execute with the same request_id, which joins what the first
 * began.
 */
#include "cli/follow.h"

#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "hotcell/v1/execution_service.pb-c.h"

#include "cli/client.h"
#include "cli/error.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/print_events.h"
#include "cli/request.h"
#include "cli/retry.h"
#include "cli/sandbox_usage.h"
#include "cli/say.h"
#include "cli/spinner.h"
#include "runtime/base/macros.h"

enum {
        REQUEST_TIMEOUT_MSEC = 5000,
        NOT_YET = -1, /* no exit code: it goes on */
};

struct follow {
        struct follow_config config;
        const Hotcell__V1__ExecuteRequest *request; /* NULL: it only attaches */
        struct client_call *call;
        struct spinner spinner;
        char *execution_id; /* known from `queued` on */
        char *sandbox_id;   /* likewise */
        bool has_ended;
        int64_t last_sequence;
        int n_before;    /* of its context, when it was queued */
        bool has_events; /* it was connected */
        bool has_started;
        int exit_code; /* or NOT_YET */
        unsigned n_interrupts;
        struct retry retry;
};

static void follow_deinit(struct follow *follow)
{
        spinner_stop(&follow->spinner);
        (void)client_call_free(follow->call);
        free(follow->execution_id);
        free(follow->sandbox_id);
}

static void call_start(struct follow *follow, const char *method, const void *request)
{
        follow->call = client_call_free(follow->call);
        follow->call =
                client_call_new(follow->config.client, &hotcell__v1__execution_service__descriptor,
                                method, request, -1);
}

static void attach(struct follow *follow)
{
        Hotcell__V1__AttachExecutionRequest request;

        hotcell__v1__attach_execution_request__init(&request);
        request.execution_id = follow->execution_id;
        request.after_sequence = follow->last_sequence;
        call_start(follow, "AttachExecution", &request);
}

static void take_ended(struct follow *follow, const Hotcell__V1__Ended *ended)
{
        follow->exit_code = exit_code_of(ended);
        follow->has_ended = true;
}

static void take_event(struct follow *follow, const Hotcell__V1__ExecutionEvent *event)
{
        if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_QUEUED && !follow->sandbox_id)
                follow->sandbox_id = duplicate(event->queued->sandbox_id);
        if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_QUEUED &&
            !follow->execution_id) {
                follow->execution_id = duplicate(event->queued->execution_id);
                follow->n_before = event->queued->position;
        }
        if (event->event_case != HOTCELL__V1__EXECUTION_EVENT__EVENT_QUEUED)
                follow->has_started = true;
        if (follow->has_started)
                spinner_stop(&follow->spinner);

        if (!follow->config.prints_id)
                event_printer_event(follow->config.printer, event);
        if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED)
                take_ended(follow, event->ended);
        else if (follow->config.until_sequence && event->sequence >= follow->config.until_sequence)
                follow->exit_code = 0;
}

static void take_events(struct follow *follow, Hotcell__V1__ExecutionEvent **events, size_t n)
{
        follow->has_events = true;
        retry_reset(&follow->retry);
        for (size_t i = 0; i < n && follow->exit_code == NOT_YET; i++) {
                if (events[i]->sequence <= follow->last_sequence)
                        continue; /* seen before the connection was lost */
                follow->last_sequence = events[i]->sequence;
                take_event(follow, events[i]);
        }
}

static void take_message(struct follow *follow, ProtobufCMessage *message)
{
        spinner_erase(&follow->spinner);
        if (message->descriptor == &hotcell__v1__execute_response__descriptor) {
                Hotcell__V1__ExecuteResponse *response = (Hotcell__V1__ExecuteResponse *)message;

                take_events(follow, response->events, response->n_events);
        } else {
                Hotcell__V1__AttachExecutionResponse *response =
                        (Hotcell__V1__AttachExecutionResponse *)message;

                take_events(follow, response->events, response->n_events);
        }
        message_free(message);
}

/* Waits for the answer, but a further signal goes before. */
static void interrupt(struct follow *follow, Hotcell__V1__InterruptLevel level)
{
        Hotcell__V1__InterruptExecutionRequest request;
        _cleanup_(client_call_freep) struct client_call *call = NULL;
        _cleanup_(message_freep) Hotcell__V1__InterruptExecutionResponse *answer = NULL;
        _cleanup_(freep) char *reason = NULL;

        hotcell__v1__interrupt_execution_request__init(&request);
        request.execution_id = follow->execution_id;
        request.level = level;
        call = client_call_new(follow->config.client, &hotcell__v1__execution_service__descriptor,
                               "InterruptExecution", &request.base, REQUEST_TIMEOUT_MSEC);
        if (client_call_read(call, -1, &answer) != CLIENT_E_END)
                return;
        /* It may have ended on its own a moment ago: the stream tells. */
        reason = rpc_error_reason(client_call_error(call));
        if (!reason || strcmp(reason, "EXECUTION_ENDED") != 0)
                request_say_error(follow->config.client, client_call_error(call));
}

static void interrupt_by_user(struct follow *follow)
{
        spinner_erase(&follow->spinner);
        /* The terminal has written ^C, wherever the program's line had come to. */
        if (say_is_terminal())
                (void)fputc('\n', stderr);
        if (++follow->n_interrupts == 1) {
                if (say_is_terminal())
                        say("interrupting; Ctrl-C again kills");
                interrupt(follow, HOTCELL__V1__INTERRUPT_LEVEL__INTERRUPT_LEVEL_INTERRUPT);
        } else {
                if (say_is_terminal())
                        say("killing; Ctrl-C again leaves at once");
                interrupt(follow, HOTCELL__V1__INTERRUPT_LEVEL__INTERRUPT_LEVEL_KILL);
        }
}

/* Nobody will see the rest: ends the code now rather than after the server's grace. */
static void give_up(struct follow *follow)
{
        if (follow->config.is_only_watching || !follow->execution_id)
                return;
        interrupt(follow, follow->config.is_one_shot
                                  ? HOTCELL__V1__INTERRUPT_LEVEL__INTERRUPT_LEVEL_KILL
                                  : HOTCELL__V1__INTERRUPT_LEVEL__INTERRUPT_LEVEL_INTERRUPT);
}

static void take_signal(struct follow *follow)
{
        int signal = client_take_signal(follow->config.client);

        if (signal == SIGINT && follow->execution_id && !follow->config.is_only_watching) {
                interrupt_by_user(follow);
                return;
        }
        if (signal != SIGINT)
                give_up(follow);
        follow->exit_code = EXIT_SIGNAL_BASE + signal;
}

/* It is told once: some of them may have ended since. */
static void draw_queue(struct follow *follow)
{
        char text[80];

        (void)snprintf(text, sizeof(text), "waiting, %d execution%s came before it",
                       follow->n_before, follow->n_before == 1 ? "" : "s");
        spinner_draw(&follow->spinner, text);
}

static void draw_spinner(struct follow *follow)
{
        if (follow->retry.since_msec)
                spinner_draw(&follow->spinner, "connecting again");
        else if (!follow->execution_id)
                spinner_draw(&follow->spinner, "starting the sandbox");
        else if (follow->n_before > 0)
                draw_queue(follow);
        else
                spinner_draw(&follow->spinner, "waiting for the interpreter");
}

static void say_unknown_outcome(const struct follow *follow)
{
        say("how %s ended is unknown here; `hotcell logs --after %" PRId64 " %s` asks again",
            follow->execution_id, follow->last_sequence, follow->execution_id);
}

/* One that has not been connected yet attaches to what may not be there at all. */
static bool may_go_on(struct follow *follow, const struct rpc_error *error)
{
        if (!follow->request && !follow->has_events)
                return false;
        return retry_is_due(&follow->retry, follow->config.client, error);
}

/* Asks how it ended, when its events cannot be had any more but the server still knows that. */
static bool learn_end(struct follow *follow)
{
        Hotcell__V1__GetExecutionRequest get;
        _cleanup_(client_call_freep) struct client_call *call = NULL;
        _cleanup_(message_freep) Hotcell__V1__GetExecutionResponse *answer = NULL;
        Hotcell__V1__ExecutionEvent event;

        hotcell__v1__get_execution_request__init(&get);
        get.execution_id = follow->execution_id;
        call = client_call_new(follow->config.client, &hotcell__v1__execution_service__descriptor,
                               "GetExecution", &get.base, REQUEST_TIMEOUT_MSEC);
        if (client_call_read(call, -1, &answer) != 0 || !answer->execution ||
            !answer->execution->ended)
                return false;

        say("the events after %" PRId64 " are lost", follow->last_sequence);
        hotcell__v1__execution_event__init(&event);
        event.sequence = MAX(answer->execution->last_sequence, follow->last_sequence + 1);
        event.event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED;
        event.ended = answer->execution->ended;
        take_event(follow, &event);
        return true;
}

static void end_with_error(struct follow *follow, const struct rpc_error *error)
{
        if (follow->has_events && error->code == RPC_NOT_FOUND && learn_end(follow))
                return;
        if (error->code == RPC_OK)
                say("the server ended the stream before the execution");
        else
                request_say_error(follow->config.client, error);
        if (follow->has_events)
                say_unknown_outcome(follow);
        follow->exit_code = EXIT_OURS;
}

/* The stream is over without `ended`: decides whether to go on. */
static void take_end(struct follow *follow)
{
        const struct rpc_error *error = client_call_error(follow->call);
        bool is_first = !follow->retry.since_msec;

        spinner_erase(&follow->spinner);
        if (!may_go_on(follow, error)) {
                end_with_error(follow, error);
                return;
        }
        if (is_first)
                spinner_start(&follow->spinner, follow->config.shows_progress);
        if (retry_pause(&follow->retry, follow->config.client) == CLIENT_E_SIGNAL)
                return; /* the dead call's next read tells */
        draw_spinner(follow);
        if (follow->execution_id)
                attach(follow);
        else
                call_start(follow, "Execute", follow->request);
}

static void turn(struct follow *follow)
{
        ProtobufCMessage *message = NULL;

        switch (client_call_read(follow->call, spinner_due_msec(&follow->spinner), &message)) {
        case 0:
                take_message(follow, message);
                break;
        case CLIENT_E_TIMEOUT:
                draw_spinner(follow);
                break;
        case CLIENT_E_SIGNAL:
                take_signal(follow);
                break;
        case CLIENT_E_END:
                take_end(follow);
                break;
        default:
                assert(false);
        }
}

static int run(struct follow *follow)
{
        spinner_start(&follow->spinner, follow->config.shows_progress);
        while (follow->exit_code == NOT_YET) {
                turn(follow);
                if (follow->config.is_detached && follow->execution_id)
                        follow->exit_code = 0;
                if (follow->exit_code == NOT_YET &&
                    event_printer_is_broken(follow->config.printer)) {
                        give_up(follow);
                        follow->exit_code = EXIT_SIGNAL_BASE + SIGPIPE;
                }
        }
        spinner_stop(&follow->spinner);
        if (follow->config.prints_id && follow->execution_id)
                (void)printf("%s\n", follow->execution_id);
        else
                event_printer_finish(follow->config.printer, follow->exit_code);
        if (follow->config.shows_sandbox_usage && follow->has_ended && follow->sandbox_id)
                sandbox_usage_say(follow->config.client, follow->sandbox_id,
                                  follow->config.is_one_shot);
        return follow->exit_code;
}

int follow_execute(const struct follow_config *config, Hotcell__V1__ExecuteRequest *request)
{
        _cleanup_(follow_deinit) struct follow follow = {
                .config = *config,
                .request = request,
                .exit_code = NOT_YET,
        };

        (void)retry_identify(&request->base);
        call_start(&follow, "Execute", request);
        return run(&follow);
}

int follow_attach(const struct follow_config *config, const char *execution_id,
                  int64_t after_sequence)
{
        _cleanup_(follow_deinit) struct follow follow = {
                .config = *config,
                .exit_code = NOT_YET,
        };

        follow.execution_id = duplicate(execution_id);
        follow.last_sequence = after_sequence;
        attach(&follow);
        return run(&follow);
}
