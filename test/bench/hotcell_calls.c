/* Calls of hotcelld. Each checks that the answer is what was asked for: a fast failure is no
 * figure. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "hotcell/v1/execution_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/client.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "runtime/base/macros.h"
#include "test/bench/client.h"

enum {
        TIMEOUT_MSEC = 120 * 1000,
        RUN_TIMEOUT_MSEC = 600 * 1000,
        RESULT_SIZE = 64,
};

static const ProtobufCServiceDescriptor *const sandboxes =
        &hotcell__v1__sandbox_service__descriptor;

void call_create(struct client *client, char *arguments)
{
        Hotcell__V1__CreateSandboxRequest request;
        Hotcell__V1__SandboxSpec spec;
        _cleanup_(message_freep) Hotcell__V1__EgressPolicy *egress = NULL;
        _cleanup_(message_freep) Hotcell__V1__CreateSandboxResponse *answer = NULL;
        struct client_call *call;
        int64_t start, end;
        int r;

        hotcell__v1__create_sandbox_request__init(&request);
        hotcell__v1__sandbox_spec__init(&spec);
        egress = next_policy(&arguments);
        spec.egress = egress;
        request.spec = &spec;
        start = now_nsec();
        call = client_call_new(client, sandboxes, "CreateSandbox", &request.base, TIMEOUT_MSEC);
        r = client_call_read(call, -1, &answer);
        end = now_nsec();

        if (r)
                say_failure(call, r);
        else if (answer->sandbox->state != HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING)
                (void)printf("error the sandbox was answered in state %d\n",
                             (int)answer->sandbox->state);
        else
                (void)printf("ok %" PRId64 " %s\n", end - start, answer->sandbox->sandbox_id);
        drain(call);
        (void)client_call_free(call);
}

void call_delete(struct client *client, char *arguments)
{
        Hotcell__V1__DeleteSandboxRequest request;
        _cleanup_(message_freep) Hotcell__V1__DeleteSandboxResponse *answer = NULL;
        struct client_call *call;
        int64_t start, end;
        int r;

        hotcell__v1__delete_sandbox_request__init(&request);
        request.sandbox_id = next_word(&arguments);
        start = now_nsec();
        call = client_call_new(client, sandboxes, "DeleteSandbox", &request.base, TIMEOUT_MSEC);
        r = client_call_read(call, -1, &answer);
        end = now_nsec();

        if (r)
                say_failure(call, r);
        else
                (void)printf("ok %" PRId64 "\n", end - start);
        drain(call);
        (void)client_call_free(call);
}

void call_usage(struct client *client, char *arguments)
{
        Hotcell__V1__GetSandboxRequest request;
        _cleanup_(message_freep) Hotcell__V1__GetSandboxResponse *answer = NULL;
        struct client_call *call;
        const Hotcell__V1__SandboxUsage *usage;
        int r;

        hotcell__v1__get_sandbox_request__init(&request);
        request.sandbox_id = next_word(&arguments);
        call = client_call_new(client, sandboxes, "GetSandbox", &request.base, TIMEOUT_MSEC);
        r = client_call_read(call, -1, &answer);
        usage = r ? NULL : answer->sandbox->usage;
        if (r)
                say_failure(call, r);
        else if (!usage)
                (void)printf("error the sandbox has no usage\n");
        else
                (void)printf("ok %" PRId64 " %" PRId64 " %d\n", usage->memory_bytes,
                             usage->memory_peak_bytes, usage->processes);
        drain(call);
        (void)client_call_free(call);
}

/* What became of one execution. */
struct run {
        int64_t result_nsec, ended_nsec;
        int64_t first_stdout_nsec, last_stdout_nsec;
        uint64_t n_stdout_bytes; /* without the first chunk's, which came before its time */
        int outcome;             /* 0: not ended */
        char result[RESULT_SIZE];
};

static void take_result(struct run *run, const Hotcell__V1__Result *result)
{
        run->result_nsec = now_nsec();
        for (size_t i = 0; i < result->bundle->n_parts; i++) {
                const Hotcell__V1__MimePart *part = result->bundle->parts[i];

                if (strcmp(part->type, "text/plain") != 0)
                        continue;
                memcpy(run->result, part->data.data, MIN(part->data.len, sizeof(run->result) - 1));
        }
}

static void take_stdout(struct run *run, const Hotcell__V1__OutputChunk *chunk)
{
        run->last_stdout_nsec = now_nsec();
        if (run->first_stdout_nsec == 0)
                run->first_stdout_nsec = run->last_stdout_nsec;
        else
                run->n_stdout_bytes += chunk->data.len;
}

static void take_event(struct run *run, const Hotcell__V1__ExecutionEvent *event)
{
        if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_RESULT) {
                take_result(run, event->result);
        } else if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_STDOUT) {
                take_stdout(run, event->stdout);
        } else if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED) {
                run->ended_nsec = now_nsec();
                run->outcome = (int)event->ended->outcome;
        }
}

static int follow(struct client_call *call, struct run *run)
{
        Hotcell__V1__ExecuteResponse *response;
        int r;

        while (run->outcome == 0) {
                r = client_call_read(call, -1, &response);
                if (r)
                        return r;
                for (size_t i = 0; i < response->n_events; i++)
                        take_event(run, response->events[i]);
                message_free(response);
        }
        return 0;
}

static void say_run(struct run *run, int64_t start)
{
        /* The answer is one line. */
        run->result[strcspn(run->result, "\n")] = '\0';
        (void)printf("ok %" PRId64 " %" PRId64 " %d %" PRIu64 " %" PRId64 " %s\n",
                     run->result_nsec ? run->result_nsec - start : 0, run->ended_nsec - start,
                     run->outcome, run->n_stdout_bytes,
                     run->last_stdout_nsec - run->first_stdout_nsec, run->result);
}

void call_run(struct client *client, char *arguments)
{
        Hotcell__V1__ExecuteRequest request;
        Hotcell__V1__SandboxSpec spec;
        Hotcell__V1__Limits limits;
        struct client_call *call;
        struct run run = { 0 };
        char *sandbox_id = next_word(&arguments);
        int64_t start;
        int r;

        hotcell__v1__execute_request__init(&request);
        hotcell__v1__sandbox_spec__init(&spec);
        hotcell__v1__limits__init(&limits);
        request.target_case = HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX_ID;
        request.sandbox_id = sandbox_id;
        if (strcmp(sandbox_id, "-") == 0) {
                request.target_case = HOTCELL__V1__EXECUTE_REQUEST__TARGET_SANDBOX;
                request.sandbox = &spec;
        }
        limits.output_bytes = (int64_t)next_number(&arguments);
        if (limits.output_bytes > 0)
                limits._output_bytes_case = HOTCELL__V1__LIMITS___OUTPUT_BYTES_OUTPUT_BYTES;
        request.limits = &limits;
        request.code = arguments;

        start = now_nsec();
        call = client_call_new(client, &hotcell__v1__execution_service__descriptor, "Execute",
                               &request.base, RUN_TIMEOUT_MSEC);
        r = follow(call, &run);
        if (r)
                say_failure(call, r);
        else
                say_run(&run, start);
        drain(call);
        (void)client_call_free(call);
}
