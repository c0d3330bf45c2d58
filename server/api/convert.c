#include "server/api/convert.h"

#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/key_quotas.h"
#include "server/auth/auth.h"

/* Records keep the numbers of the public enums. */
static_assert((int)SANDBOX_ENDED == (int)HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_ENDED,
              "same numbers");
static_assert((int)EXECUTION_ENDED == (int)HOTCELL__V1__EXECUTION_STATE__EXECUTION_STATE_ENDED,
              "same numbers");
static_assert((int)OUTCOME_LOST == (int)HOTCELL__V1__OUTCOME__OUTCOME_LOST, "same numbers");
static_assert((int)CAUSE_HOST_LOST == (int)HOTCELL__V1__CAUSE__CAUSE_HOST_LOST, "same numbers");
static_assert((int)CONTEXT_STOPPED == (int)HOTCELL__V1__CONTEXT_STATE__CONTEXT_STATE_STOPPED,
              "same numbers");
static_assert((int)SANDBOX_EVENT_ENDED ==
                      (int)HOTCELL__V1__SANDBOX_EVENT_TYPE__SANDBOX_EVENT_TYPE_ENDED,
              "same numbers");
static_assert((int)EGRESS_EVENT_FLOW_ENDED ==
                      (int)HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FLOW_ENDED,
              "same numbers");
static_assert((int)EGRESS_PROTOCOL_ICMP == (int)HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_ICMP,
              "same numbers");
static_assert((int)EGRESS_REASON_NAME_ABSENT ==
                      (int)HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_NAME_ABSENT,
              "same numbers");
static_assert((int)KEY_REVOKED == (int)HOTCELL__V1__KEY_STATE__KEY_STATE_REVOKED, "same numbers");

enum { USEC_PER_SEC = 1000000, NSEC_PER_USEC = 1000 };

Google__Protobuf__Timestamp *convert_time(struct arena *arena, int64_t time_usec)
{
        Google__Protobuf__Timestamp *message;

        if (time_usec == 0)
                return NULL;
        message = arena_new(arena, Google__Protobuf__Timestamp);
        if (!message)
                return NULL;
        google__protobuf__timestamp__init(message);
        message->seconds = time_usec / USEC_PER_SEC;
        message->nanos = (int32_t)(time_usec % USEC_PER_SEC) * NSEC_PER_USEC;
        return message;
}

Google__Protobuf__Duration *convert_duration(struct arena *arena, int64_t duration_usec)
{
        Google__Protobuf__Duration *message = arena_new(arena, Google__Protobuf__Duration);

        if (!message)
                return NULL;
        google__protobuf__duration__init(message);
        message->seconds = duration_usec / USEC_PER_SEC;
        message->nanos = (int32_t)(duration_usec % USEC_PER_SEC) * NSEC_PER_USEC;
        return message;
}

static Hotcell__V1__Limits *convert_limits(struct arena *arena,
                                           const struct execution_limits *limits)
{
        Hotcell__V1__Limits *message = arena_new(arena, Hotcell__V1__Limits);

        if (!message)
                return NULL;
        hotcell__v1__limits__init(message);
        message->timeout = convert_duration(arena, limits->timeout_usec);
        message->_output_bytes_case = HOTCELL__V1__LIMITS___OUTPUT_BYTES_OUTPUT_BYTES;
        message->output_bytes = limits->output_bytes;
        return message;
}

Hotcell__V1__SandboxLimits *convert_sandbox_limits(struct arena *arena,
                                                   const struct sandbox_limits *limits)
{
        Hotcell__V1__SandboxLimits *message = arena_new(arena, Hotcell__V1__SandboxLimits);

        if (!message)
                return NULL;
        hotcell__v1__sandbox_limits__init(message);
        message->_memory_bytes_case = HOTCELL__V1__SANDBOX_LIMITS___MEMORY_BYTES_MEMORY_BYTES;
        message->memory_bytes = limits->memory_bytes;
        message->_cpu_millis_case = HOTCELL__V1__SANDBOX_LIMITS___CPU_MILLIS_CPU_MILLIS;
        message->cpu_millis = limits->cpu_millis;
        message->_processes_case = HOTCELL__V1__SANDBOX_LIMITS___PROCESSES_PROCESSES;
        message->processes = limits->processes;
        message->_disk_bytes_case = HOTCELL__V1__SANDBOX_LIMITS___DISK_BYTES_DISK_BYTES;
        message->disk_bytes = limits->disk_bytes;
        message->_open_files_case = HOTCELL__V1__SANDBOX_LIMITS___OPEN_FILES_OPEN_FILES;
        message->open_files = limits->open_files;
        message->execution = convert_limits(arena, &limits->execution);
        message->_cpu_weight_case = HOTCELL__V1__SANDBOX_LIMITS___CPU_WEIGHT_CPU_WEIGHT;
        message->cpu_weight = limits->cpu_weight;
        message->_disk_inodes_case = HOTCELL__V1__SANDBOX_LIMITS___DISK_INODES_DISK_INODES;
        message->disk_inodes = limits->disk_inodes;
        message->_io_bytes_per_second_case =
                HOTCELL__V1__SANDBOX_LIMITS___IO_BYTES_PER_SECOND_IO_BYTES_PER_SECOND;
        message->io_bytes_per_second = limits->io_bytes_per_second;
        return message;
}

static void convert_labels(struct arena *arena, const struct pairs *labels,
                           Hotcell__V1__Sandbox *message)
{
        message->labels = arena_new_array(arena, Hotcell__V1__Sandbox__LabelsEntry *, labels->n);
        if (!message->labels)
                return;
        for (size_t i = 0; i < labels->n; i++) {
                Hotcell__V1__Sandbox__LabelsEntry *entry =
                        arena_new(arena, Hotcell__V1__Sandbox__LabelsEntry);

                if (!entry)
                        return;
                hotcell__v1__sandbox__labels_entry__init(entry);
                entry->key = labels->items[i].name;
                entry->value = labels->items[i].value;
                message->labels[message->n_labels++] = entry;
        }
}

Hotcell__V1__Sandbox *convert_sandbox(struct arena *arena, const struct sandbox_record *record)
{
        Hotcell__V1__Sandbox *message = arena_new(arena, Hotcell__V1__Sandbox);
        char etag[ETAG_BUFFER];

        if (!message)
                return NULL;
        hotcell__v1__sandbox__init(message);
        message->sandbox_id = unconst(record->sandbox_id);
        message->name = unconst(record->name);
        message->state = (Hotcell__V1__SandboxState)record->state;
        message->template_ = unconst(record->template_name);
        message->template_digest = unconst(record->template_digest);
        message->create_time = convert_time(arena, record->create_time_usec);
        message->expire_time = convert_time(arena, record->expire_time_usec);
        if (record->idle_timeout_usec > 0)
                message->idle_timeout = convert_duration(arena, record->idle_timeout_usec);
        message->end_time = convert_time(arena, record->end_time_usec);
        message->end_cause = (Hotcell__V1__Cause)record->end_cause;
        message->end_message = unconst(record->end_message);
        message->limits = convert_sandbox_limits(arena, &record->limits);
        message->usage = convert_sandbox_usage(arena, &record->usage);
        convert_labels(arena, &record->labels, message);
        sandbox_etag(record, etag);
        message->etag = arena_text(arena, etag);
        message->egress_status = convert_egress_status(arena, record, false);
        return message;
}

Hotcell__V1__Sandbox *convert_whole_sandbox(struct arena *arena,
                                            const struct sandbox_record *record)
{
        Hotcell__V1__Sandbox *message = convert_sandbox(arena, record);

        if (!message)
                return NULL;
        message->egress_status = convert_egress_status(arena, record, true);
        if (record->state != SANDBOX_ENDED)
                message->egress = convert_egress(arena, record->egress);
        return message;
}

Hotcell__V1__Context *convert_context(struct arena *arena, const struct context_view *view)
{
        const struct context_record *record = view->record;
        Hotcell__V1__Context *message = arena_new(arena, Hotcell__V1__Context);

        if (!message)
                return NULL;
        hotcell__v1__context__init(message);
        message->context_id = unconst(record->context_id);
        message->sandbox_id = unconst(record->sandbox_id);
        message->language = unconst(record->language);
        message->is_default = record->is_default;
        message->generation = record->generation;
        message->state = (Hotcell__V1__ContextState)view->state;
        message->create_time = convert_time(arena, record->create_time_usec);
        message->working_directory = unconst(record->working_directory);
        return message;
}

Hotcell__V1__Ended *convert_ended(struct arena *arena, const struct execution_record *record)
{
        Hotcell__V1__Ended *message = arena_new(arena, Hotcell__V1__Ended);

        if (!message)
                return NULL;
        hotcell__v1__ended__init(message);
        message->outcome = (Hotcell__V1__Outcome)record->outcome;
        message->cause = (Hotcell__V1__Cause)record->cause;
        if (record->has_exit_code) {
                message->_exit_code_case = HOTCELL__V1__ENDED___EXIT_CODE_EXIT_CODE;
                message->exit_code = record->exit_code;
        }
        message->signal = record->signal;
        message->state_lost = record->state_lost;
        message->message = unconst(record->message);
        message->usage = convert_usage(arena, &record->usage);
        message->truncated_bytes = record->truncated_bytes;
        return message;
}

Hotcell__V1__Execution *convert_execution(struct arena *arena,
                                          const struct execution_record *record,
                                          int64_t first_sequence)
{
        Hotcell__V1__Execution *message = arena_new(arena, Hotcell__V1__Execution);

        if (!message)
                return NULL;
        hotcell__v1__execution__init(message);
        message->execution_id = unconst(record->execution_id);
        message->sandbox_id = unconst(record->sandbox_id);
        message->context_id = unconst(record->context_id);
        message->context_generation = record->context_generation;
        message->state = (Hotcell__V1__ExecutionState)record->state;
        message->create_time = convert_time(arena, record->create_time_usec);
        message->start_time = convert_time(arena, record->start_time_usec);
        message->end_time = convert_time(arena, record->end_time_usec);
        message->limits = convert_limits(arena, &record->limits);
        if (record->state == EXECUTION_ENDED)
                message->ended = convert_ended(arena, record);
        message->last_sequence = record->last_sequence;
        message->first_sequence = first_sequence;
        return message;
}

Hotcell__V1__EgressEvent *convert_egress_event(struct arena *arena,
                                               const struct egress_record *record, int64_t left_out)
{
        Hotcell__V1__EgressEvent *message = arena_new(arena, Hotcell__V1__EgressEvent);
        const char *error = record->error_number ? strerrorname_np(record->error_number) : NULL;

        if (!message)
                return NULL;
        hotcell__v1__egress_event__init(message);
        message->sequence = record->sequence;
        message->event_time = convert_time(arena, record->event_time_usec);
        message->sandbox_id = unconst(record->sandbox_id);
        message->execution_id = unconst(record->execution_id);
        message->type = (Hotcell__V1__EgressEventType)record->type;
        message->address = unconst(record->address);
        message->port = record->port;
        message->protocol = (Hotcell__V1__EgressProtocol)record->protocol;
        message->name = unconst(record->name);
        message->reason = (Hotcell__V1__EgressReason)record->reason;
        message->rule_index = record->rule_index;
        message->rule = unconst(record->rule);
        message->policy_version = record->policy_version;
        message->pid = record->pid;
        message->command = unconst(record->command);
        message->count = record->count;
        message->error_number = record->error_number;
        if (error)
                message->error = unconst(error);
        message->sent_bytes = record->sent_bytes;
        message->received_bytes = record->received_bytes;
        if (record->type == EGRESS_EVENT_FLOW_ENDED)
                message->duration = convert_duration(arena, record->duration_usec);
        message->left_out = left_out;
        return message;
}

Hotcell__V1__Key *convert_key(struct arena *arena, const struct session *session,
                              const struct key_record *record)
{
        Hotcell__V1__Key *message = arena_new(arena, Hotcell__V1__Key);

        if (!message)
                return NULL;
        hotcell__v1__key__init(message);
        message->key_id = unconst(record->key_id);
        message->name = unconst(record->name);
        message->create_time = convert_time(arena, record->create_time_usec);
        message->revoke_time = convert_time(arena, record->revoke_time_usec);
        message->expire_time = convert_time(arena, record->expire_time_usec);
        message->last_used_time = convert_time(arena, record->last_used_time_usec);
        message->state = (Hotcell__V1__KeyState)key_state(record, time_now_usec());
        message->owner = unconst(record->owner);
        message->quotas = convert_quotas(arena, &record->quotas);
        message->used = convert_used_quotas(arena, session, record->owner);
        message->scopes = arena_new_array(arena, char *, _SCOPE_KEY_N);
        for (int i = 0; message->scopes && i < _SCOPE_KEY_N; i++)
                if (record->scopes & BIT(i))
                        message->scopes[message->n_scopes++] = unconst(scope_name((enum scope)i));
        return message;
}
