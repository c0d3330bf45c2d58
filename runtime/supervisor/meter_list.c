/* The meters of many sandboxes in one packet, or some. */
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/meters/metering.h"
#include "runtime/supervisor/control.h"
#include "runtime/supervisor/messages.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/supervisor.h"
#include "runtime/supervisor/tables.h"

enum {
        SANDBOXES_MAX = CONTROL_METERS_MAX,
        PROCESSES_MAX = 16,    /* of a sandbox */
        LIST_BYTES = 96 << 10, /* then the rest follows in another packet */
};

/* A sandbox's part, not to be moved. */
struct part {
        Hotcell__Runtime__V1__SandboxMeters message;
        struct usage_message usage;
        size_t n_processes;
        Hotcell__Runtime__V1__ProcessMeters processes[PROCESSES_MAX];
        Hotcell__Runtime__V1__ProcessMeters *pointers[PROCESSES_MAX];
        struct usage_message usages[PROCESSES_MAX];
};

static void add_process(struct part *part, struct process *process)
{
        Hotcell__Runtime__V1__ProcessMeters *message = &part->processes[part->n_processes];
        struct usage_message *usage = &part->usages[part->n_processes];
        struct metered metered;

        if (metering_read_leaf(&process->meter, &metered))
                return;
        hotcell__runtime__v1__process_meters__init(message);
        metering_fill(&metered, usage);
        traffic_fill_process(process, usage);
        message->process_id = process->id;
        message->usage = &usage->usage;
        part->pointers[part->n_processes++] = message;
}

/* False: it cannot be read, since it ends. */
static bool fill_part(struct part *part, struct sandbox *sandbox)
{
        struct process *process;
        struct process *following;

        if (sandbox->state != SANDBOX_RUNNING)
                return false;
        hotcell__runtime__v1__sandbox_meters__init(&part->message);
        part->n_processes = 0;
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (part->n_processes == PROCESSES_MAX)
                        break;
                if (process->state == PROCESS_RUNNING)
                        add_process(part, process);
        }
        /* Last, so that it is no less than its processes. */
        if (sandbox_read_usage(sandbox, &part->usage))
                return false;
        part->message.sandbox_id = sandbox->id;
        part->message.usage = &part->usage.usage;
        part->message.processes = part->pointers;
        part->message.n_processes = part->n_processes;
        return true;
}

/* False: it is full. */
static bool add_sandbox(struct sandbox *sandbox, struct part *parts,
                        Hotcell__Runtime__V1__MeterList *list, size_t *n_bytes)
{
        struct part *part = &parts[list->n_sandboxes];

        if (list->n_sandboxes == SANDBOXES_MAX || *n_bytes >= LIST_BYTES) {
                list->more = true;
                return false;
        }
        if (fill_part(part, sandbox)) {
                *n_bytes += hotcell__runtime__v1__sandbox_meters__get_packed_size(&part->message);
                list->sandboxes[list->n_sandboxes++] = &part->message;
        }
        return true;
}

static void fill_all(struct supervisor *supervisor, const char *after_sandbox_id,
                     struct part *parts, Hotcell__Runtime__V1__MeterList *list)
{
        size_t n_bytes = 0;
        struct sandbox *sandbox;
        struct sandbox *following;

        sandbox_table_sort(&supervisor->sandboxes);
        HASH_ITER(hh, supervisor->sandboxes, sandbox, following)
        {
                if (strcmp(sandbox->id, after_sandbox_id) > 0 &&
                    !add_sandbox(sandbox, parts, list, &n_bytes))
                        return;
        }
}

static void fill_some(struct supervisor *supervisor, const Hotcell__Runtime__V1__ReadMeters *read,
                      struct part *parts, Hotcell__Runtime__V1__MeterList *list)
{
        size_t n_bytes = 0;

        for (size_t i = 0; i < read->n_sandbox_ids; i++) {
                const char *id = read->sandbox_ids[i];
                struct sandbox *sandbox = sandbox_table_find(supervisor->sandboxes, id);

                if (sandbox && strcmp(id, read->after_sandbox_id) > 0 &&
                    !add_sandbox(sandbox, parts, list, &n_bytes))
                        return;
        }
}

void messages_answer_meters(struct supervisor *supervisor, struct ticket ticket,
                            const Hotcell__Runtime__V1__ReadMeters *read)
{
        static struct part parts[SANDBOXES_MAX]; /* large, and there is one thread */
        Hotcell__Runtime__V1__SandboxMeters *pointers[SANDBOXES_MAX];
        Hotcell__Runtime__V1__MeterList list;
        Hotcell__Runtime__V1__FromRuntime message;
        struct meter_state_message state;

        hotcell__runtime__v1__from_runtime__init(&message);
        hotcell__runtime__v1__meter_list__init(&list);
        list.sandboxes = pointers;
        list.time_usec = (uint64_t)time_now_usec();
        list.clock_usec = clock_monotonic_usec();
        if (read->n_sandbox_ids > 0)
                fill_some(supervisor, read, parts, &list);
        else
                fill_all(supervisor, read->after_sandbox_id, parts, &list);
        metering_fill_state(supervisor->metering, &state);
        list.state = &state.state;
        message.body_case = HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_METER_LIST;
        message.meter_list = &list;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}
