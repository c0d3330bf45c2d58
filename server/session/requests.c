/* What is asked of the runtime in few words, and how its refusals are told to people. */
#include <errno.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/session_private.h"

/* First versions of the runtime's protocol with KeepDescriptors, and with UpdateLimits. */
enum { PROTOCOL_KEEPS = 2, PROTOCOL_LIMITS = 4 };

static const int outcomes_of_reasons[] = {
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_UNSPECIFIED] =
                SESSION_E_RUNTIME_UNAVAILABLE,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_INVALID] =
                SESSION_E_RUNTIME_UNAVAILABLE,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_NOT_FOUND] = SESSION_E_SANDBOX_ENDED,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_EXISTS] =
                SESSION_E_RUNTIME_UNAVAILABLE,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_TEMPLATE_NOT_FOUND] =
                SESSION_E_UNKNOWN_TEMPLATE,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_WALL_MISSING] =
                SESSION_E_WALL_MISSING,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_EGRESS] = SESSION_E_EGRESS,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_LIMIT] = SESSION_E_LIMIT,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_EXHAUSTED] = SESSION_E_HOST_EXHAUSTED,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_SANDBOX_ENDED] =
                SESSION_E_SANDBOX_ENDED,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_EXEC] = SESSION_E_KERNEL_FAILED,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_SYSTEM] =
                SESSION_E_RUNTIME_UNAVAILABLE,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_PROTOCOL] =
                SESSION_E_RUNTIME_UNAVAILABLE,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_TIMEOUT] =
                SESSION_E_RUNTIME_UNAVAILABLE,
        [HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_WORKING_DIRECTORY] =
                SESSION_E_WORKING_DIRECTORY,
};

struct session_result result_of_runtime(const Hotcell__Runtime__V1__FromRuntime *answer,
                                        const char *what)
{
        const Hotcell__Runtime__V1__Failure *failure;
        int outcome = SESSION_E_RUNTIME_UNAVAILABLE;

        if (!answer)
                return result_of(outcome, "The runtime went away while it was asked for %s.", what);
        if (answer->body_case != HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE)
                return result_of(outcome, "The runtime gave a wrong answer about %s.", what);

        failure = answer->failure;
        if ((unsigned)failure->reason < ARRAY_SIZE(outcomes_of_reasons))
                outcome = outcomes_of_reasons[failure->reason];
        return result_of(outcome, "The runtime refused %s: %.160s", what, failure->message);
}

Hotcell__Runtime__V1__SandboxLimits limits_to_runtime(const struct sandbox_limits *limits)
{
        Hotcell__Runtime__V1__SandboxLimits wire;

        hotcell__runtime__v1__sandbox_limits__init(&wire);
        wire.memory_bytes = (uint64_t)limits->memory_bytes;
        wire.cpu_millis = (uint32_t)limits->cpu_millis;
        wire.processes = (uint32_t)limits->processes;
        wire.disk_bytes = (uint64_t)limits->disk_bytes;
        wire.open_files = (uint32_t)limits->open_files;
        wire.cpu_weight = (uint32_t)limits->cpu_weight;
        wire.disk_inodes = (uint64_t)limits->disk_inodes;
        wire.io_bytes_per_second = (uint64_t)limits->io_bytes_per_second;
        return wire;
}

struct sandbox_limits limits_from_runtime(const Hotcell__Runtime__V1__SandboxLimits *wire)
{
        return (struct sandbox_limits){
                .memory_bytes = (int64_t)MIN(wire->memory_bytes, (uint64_t)INT64_MAX),
                .cpu_millis = (int32_t)wire->cpu_millis,
                .processes = (int32_t)wire->processes,
                .disk_bytes = (int64_t)MIN(wire->disk_bytes, (uint64_t)INT64_MAX),
                .open_files = (int32_t)wire->open_files,
                .cpu_weight = (int32_t)wire->cpu_weight,
                .disk_inodes = (int64_t)MIN(wire->disk_inodes, (uint64_t)INT64_MAX),
                .io_bytes_per_second = (int64_t)MIN(wire->io_bytes_per_second, (uint64_t)INT64_MAX),
        };
}

static int outcome_of_client(int r)
{
        if (r == RUNTIME_CLIENT_E_BUSY)
                return SESSION_E_HOST_EXHAUSTED;
        return r > 0 ? SESSION_E_RUNTIME_UNAVAILABLE : r;
}

int session_request(struct session *session, Hotcell__Runtime__V1__ToRuntime *request,
                    runtime_on_answer on_answer, void *userdata)
{
        return outcome_of_client(
                runtime_client_request(session->runtime, request, on_answer, userdata));
}

static int ask_usage(struct session *session, const char *sandbox_id, const char *process_id,
                     bool reset_peak, runtime_on_answer on_answer, void *userdata)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__ReadUsage read;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__read_usage__init(&read);
        read.sandbox_id = unconst(sandbox_id);
        read.process_id = unconst(process_id);
        read.reset_peak = reset_peak;
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_READ_USAGE;
        request.read_usage = &read;
        return session_request(session, &request, on_answer, userdata);
}

int session_read_usage(struct session *session, const char *sandbox_id, const char *process_id,
                       runtime_on_answer on_answer, void *userdata)
{
        return ask_usage(session, sandbox_id, process_id, false, on_answer, userdata);
}

int session_begin_usage(struct session *session, const char *sandbox_id, const char *process_id,
                        runtime_on_answer on_answer, void *userdata)
{
        return ask_usage(session, sandbox_id, process_id, true, on_answer, userdata);
}

void session_signal_process(struct session *session, const char *sandbox_id, const char *process_id,
                            int signal)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__SignalProcess message;
        static struct log_quota quota;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__signal_process__init(&message);
        message.sandbox_id = unconst(sandbox_id);
        message.process_id = unconst(process_id);
        message.signal = (uint32_t)signal;
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_SIGNAL_PROCESS;
        request.signal_process = &message;
        if (session_request(session, &request, NULL, NULL))
                log_warning_of(&quota, "a signal could not be sent sandbox=%s process=%s signal=%d",
                               sandbox_id, process_id, signal);
}

bool session_can_keep(const struct session *session)
{
        const Hotcell__Runtime__V1__Welcome *welcome = runtime_client_welcome(session->runtime);

        return welcome && welcome->protocol >= PROTOCOL_KEEPS;
}

bool session_can_limit(const struct session *session)
{
        const Hotcell__Runtime__V1__Welcome *welcome = runtime_client_welcome(session->runtime);

        return welcome && welcome->protocol >= PROTOCOL_LIMITS;
}

int session_keep(struct session *session, const char *sandbox_id, const char *process_id,
                 const int *fds, size_t n_fds, runtime_on_answer on_answer, void *userdata)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__KeepDescriptors keep;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__keep_descriptors__init(&keep);
        keep.sandbox_id = unconst(sandbox_id);
        keep.process_id = unconst(process_id);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_KEEP_DESCRIPTORS;
        request.keep_descriptors = &keep;
        return outcome_of_client(runtime_client_request_with(session->runtime, &request, fds, n_fds,
                                                             on_answer, userdata));
}

int session_take_process(struct session *session, const char *sandbox_id, const char *process_id,
                         runtime_on_answer on_answer, void *userdata)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__TakeProcess message;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__take_process__init(&message);
        message.sandbox_id = unconst(sandbox_id);
        message.process_id = unconst(process_id);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_TAKE_PROCESS;
        request.take_process = &message;
        return session_request(session, &request, on_answer, userdata);
}

void session_acknowledge_end(struct session *session, const char *sandbox_id,
                             const char *process_id)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__AcknowledgeEnd message;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__acknowledge_end__init(&message);
        message.sandbox_id = unconst(sandbox_id);
        message.process_id = unconst(process_id);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_ACKNOWLEDGE_END;
        request.acknowledge_end = &message;
        (void)session_request(session, &request, NULL, NULL);
}

int session_destroy_sandbox(struct session *session, const char *sandbox_id,
                            runtime_on_answer on_answer, void *userdata)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__DestroySandbox destroy;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__destroy_sandbox__init(&destroy);
        destroy.sandbox_id = unconst(sandbox_id);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_DESTROY_SANDBOX;
        request.destroy_sandbox = &destroy;
        return session_request(session, &request, on_answer, userdata);
}
