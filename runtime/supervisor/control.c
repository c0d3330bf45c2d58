#include "runtime/supervisor/control.h"

#include <signal.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/base/dns_label.h"
#include "runtime/base/macros.h"

static int invalid(struct failure *failure, const char *field, const char *rule)
{
        failure_set(failure, FAILURE(INVALID), 0, "%s %s", field, rule);
        return CONTROL_E_INVALID;
}

static bool is_path(const char *text)
{
        return text[0] == '/' && strlen(text) <= CONTROL_PATH_MAX;
}

static bool is_digest(const char *text)
{
        static const char prefix[] = "sha256-";

        if (strncmp(text, prefix, sizeof(prefix) - 1) != 0)
                return false;
        text += sizeof(prefix) - 1;
        return strlen(text) == 64 && strspn(text, "0123456789abcdef") == 64;
}

static int check_sandbox_id(const char *id, struct failure *failure)
{
        return dns_label_is_valid(id) ? 0 : invalid(failure, "sandbox_id", "must be a DNS label");
}

static int check_process_id(const char *id, struct failure *failure)
{
        return dns_label_is_valid(id) ? 0 : invalid(failure, "process_id", "must be a DNS label");
}

static int check_hello(const Hotcell__Runtime__V1__ToRuntime *message, struct failure *failure)
{
        const Hotcell__Runtime__V1__Hello *hello = message->hello;

        if (hello->protocol_oldest == 0)
                return invalid(failure, "protocol_oldest", "must not be zero");
        if (hello->protocol_newest < hello->protocol_oldest)
                return invalid(failure, "protocol_newest", "must not be below protocol_oldest");
        return 0;
}

static int check_limits(const Hotcell__Runtime__V1__SandboxLimits *limits, struct failure *failure)
{
        if (!limits)
                return invalid(failure, "limits", "must be set");

        const struct {
                const char *field;
                uint64_t value;
                uint64_t min;
                uint64_t max;
        } ranges[] = {
                { "limits.memory_bytes", limits->memory_bytes, CONTROL_DISK_ROOM + 1,
                  CONTROL_MEMORY_MAX },
                { "limits.cpu_millis", limits->cpu_millis, CONTROL_CPU_MILLIS_MIN,
                  CONTROL_CPU_MILLIS_MAX },
                { "limits.processes", limits->processes, 1, CONTROL_PROCESSES_MAX },
                { "limits.disk_bytes", limits->disk_bytes, 1, CONTROL_MEMORY_MAX },
                { "limits.open_files", limits->open_files, CONTROL_OPEN_FILES_MIN,
                  CONTROL_OPEN_FILES_MAX },
                { "limits.cpu_weight", limits->cpu_weight, 0, CONTROL_CPU_WEIGHT_MAX },
                { "limits.disk_inodes", limits->disk_inodes, 0, CONTROL_DISK_INODES_MAX },
                { "limits.io_bytes_per_second", limits->io_bytes_per_second, 0,
                  CONTROL_MEMORY_MAX },
        };

        for (size_t i = 0; i < ARRAY_SIZE(ranges); i++) {
                if (ranges[i].value < ranges[i].min)
                        return invalid(failure, ranges[i].field, "is too small");
                if (ranges[i].value > ranges[i].max)
                        return invalid(failure, ranges[i].field, "is too large");
        }
        /* Files are memory: without this room a full disk would end as a kill. */
        if (limits->disk_bytes > limits->memory_bytes - CONTROL_DISK_ROOM)
                return invalid(failure, "limits.disk_bytes",
                               "must be at least 64 MiB below limits.memory_bytes");
        return 0;
}

static int check_create_sandbox(const Hotcell__Runtime__V1__ToRuntime *message,
                                struct failure *failure)
{
        const Hotcell__Runtime__V1__CreateSandbox *create = message->create_sandbox;
        int r = check_sandbox_id(create->sandbox_id, failure);

        if (r)
                return r;
        if (!is_digest(create->template_digest))
                return invalid(failure, "template_digest",
                               "must be `sha256-` and 64 hexadecimal digits");
        if (!dns_label_is_valid(create->hostname))
                return invalid(failure, "hostname", "must be a DNS label");
        return check_limits(create->limits, failure);
}

static int check_update_limits(const Hotcell__Runtime__V1__ToRuntime *message,
                               struct failure *failure)
{
        int r = check_sandbox_id(message->update_limits->sandbox_id, failure);

        return r ? r : check_limits(message->update_limits->limits, failure);
}

static int check_destroy_sandbox(const Hotcell__Runtime__V1__ToRuntime *message,
                                 struct failure *failure)
{
        return check_sandbox_id(message->destroy_sandbox->sandbox_id, failure);
}

static int check_argv(const Hotcell__Runtime__V1__StartProcess *start, struct failure *failure)
{
        if (start->n_argv == 0 || start->n_argv > CONTROL_ARGV_MAX)
                return invalid(failure, "argv", "must have 1 to 256 words");
        if (!is_path(start->argv[0]))
                return invalid(failure, "argv[0]", "must be an absolute path");
        for (size_t i = 0; i < start->n_argv; i++)
                if (strlen(start->argv[i]) > CONTROL_WORD_MAX)
                        return invalid(failure, "argv", "has a word that is too long");
        return 0;
}

static int check_environment(const Hotcell__Runtime__V1__StartProcess *start,
                             struct failure *failure)
{
        size_t n_bytes = 0;

        if (start->n_environment > CONTROL_VARIABLES_MAX)
                return invalid(failure, "environment", "has more than 1024 variables");
        for (size_t i = 0; i < start->n_environment; i++) {
                const Hotcell__Runtime__V1__Variable *variable = start->environment[i];

                if (!variable->name[0] || strchr(variable->name, '='))
                        return invalid(failure, "environment",
                                       "has a name that is empty or contains `=`");
                n_bytes += strlen(variable->name) + strlen(variable->value) + 2;
        }
        if (n_bytes > CONTROL_ENVIRONMENT_MAX)
                return invalid(failure, "environment", "is larger than 64 KiB");
        return 0;
}

static int check_start_process(const Hotcell__Runtime__V1__ToRuntime *message,
                               struct failure *failure)
{
        const Hotcell__Runtime__V1__StartProcess *start = message->start_process;
        int r = check_sandbox_id(start->sandbox_id, failure);

        if (!r)
                r = check_process_id(start->process_id, failure);
        if (!r)
                r = check_argv(start, failure);
        if (!r)
                r = check_environment(start, failure);
        if (r)
                return r;
        if (!is_path(start->working_directory))
                return invalid(failure, "working_directory", "must be an absolute path");
        if (start->uid > CONTROL_ID_MAX)
                return invalid(failure, "uid", "must be below 65533");
        if (start->gid > CONTROL_ID_MAX)
                return invalid(failure, "gid", "must be below 65533");
        return 0;
}

static int check_signal_process(const Hotcell__Runtime__V1__ToRuntime *message,
                                struct failure *failure)
{
        const Hotcell__Runtime__V1__SignalProcess *signal = message->signal_process;
        int r = check_sandbox_id(signal->sandbox_id, failure);

        if (!r)
                r = check_process_id(signal->process_id, failure);
        if (r)
                return r;
        if (signal->signal == 0 || signal->signal >= (uint32_t)NSIG)
                return invalid(failure, "signal", "must be a signal's number");
        return 0;
}

static int check_acknowledge_end(const Hotcell__Runtime__V1__ToRuntime *message,
                                 struct failure *failure)
{
        int r = check_sandbox_id(message->acknowledge_end->sandbox_id, failure);

        return r ? r : check_process_id(message->acknowledge_end->process_id, failure);
}

static int check_keep_descriptors(const Hotcell__Runtime__V1__ToRuntime *message,
                                  struct failure *failure)
{
        int r = check_sandbox_id(message->keep_descriptors->sandbox_id, failure);

        return r ? r : check_process_id(message->keep_descriptors->process_id, failure);
}

static int check_take_process(const Hotcell__Runtime__V1__ToRuntime *message,
                              struct failure *failure)
{
        int r = check_sandbox_id(message->take_process->sandbox_id, failure);

        return r ? r : check_process_id(message->take_process->process_id, failure);
}

static int check_read_usage(const Hotcell__Runtime__V1__ToRuntime *message, struct failure *failure)
{
        int r = check_sandbox_id(message->read_usage->sandbox_id, failure);

        if (r || !message->read_usage->process_id[0])
                return r;
        return check_process_id(message->read_usage->process_id, failure);
}

static int check_after(const char *after, struct failure *failure)
{
        if (after[0] && !dns_label_is_valid(after))
                return invalid(failure, "after_sandbox_id", "must be empty or a DNS label");
        return 0;
}

static int check_list_sandboxes(const Hotcell__Runtime__V1__ToRuntime *message,
                                struct failure *failure)
{
        return check_after(message->list_sandboxes->after_sandbox_id, failure);
}

static int check_read_meters(const Hotcell__Runtime__V1__ToRuntime *message,
                             struct failure *failure)
{
        const Hotcell__Runtime__V1__ReadMeters *read = message->read_meters;
        int r = check_after(read->after_sandbox_id, failure);

        if (r == 0 && read->n_sandbox_ids > CONTROL_METERS_MAX)
                return invalid(failure, "sandbox_ids", "are too many");
        for (size_t i = 0; i < read->n_sandbox_ids && r == 0; i++) {
                if (!dns_label_is_valid(read->sandbox_ids[i]))
                        r = invalid(failure, "sandbox_ids", "must be DNS labels");
        }
        return r;
}

static int check_nothing(const Hotcell__Runtime__V1__ToRuntime *message, struct failure *failure)
{
        (void)message;
        (void)failure;
        return 0;
}

#define BODY(name) HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_##name

static const struct {
        Hotcell__Runtime__V1__ToRuntime__BodyCase body;
        int (*check)(const Hotcell__Runtime__V1__ToRuntime *message, struct failure *failure);
} checks[] = {
        { BODY(HELLO), check_hello },
        { BODY(CREATE_SANDBOX), check_create_sandbox },
        { BODY(DESTROY_SANDBOX), check_destroy_sandbox },
        { BODY(START_PROCESS), check_start_process },
        { BODY(SIGNAL_PROCESS), check_signal_process },
        { BODY(ACKNOWLEDGE_END), check_acknowledge_end },
        { BODY(READ_USAGE), check_read_usage },
        { BODY(LIST_SANDBOXES), check_list_sandboxes },
        { BODY(PROBE_WALLS), check_nothing },
        { BODY(KEEP_DESCRIPTORS), check_keep_descriptors },
        { BODY(TAKE_PROCESS), check_take_process },
        { BODY(READ_METERS), check_read_meters },
        { BODY(UPDATE_LIMITS), check_update_limits },
};

static int check_body(const Hotcell__Runtime__V1__ToRuntime *message, struct failure *failure)
{
        for (size_t i = 0; i < ARRAY_SIZE(checks); i++)
                if (checks[i].body == message->body_case)
                        return checks[i].check(message, failure);
        return invalid(failure, "body", "is missing or unknown");
}

int control_decode(struct wire_arena *arena, const uint8_t *bytes, size_t n_bytes,
                   struct control_request *ret_request, struct failure *ret_failure)
{
        struct control_request *request = ret_request;

        if (n_bytes > CONTROL_PACKET_MAX)
                return CONTROL_E_MALFORMED;

        request->arena = arena;
        request->message =
                hotcell__runtime__v1__to_runtime__unpack(&arena->allocator, n_bytes, bytes);
        if (!request->message || request->message->request == 0) {
                control_request_deinit(request);
                return CONTROL_E_MALFORMED;
        }
        request->number = request->message->request;
        return check_body(request->message, ret_failure);
}

void control_request_deinit(struct control_request *request)
{
        wire_arena_reset(request->arena);
        request->message = NULL;
}
