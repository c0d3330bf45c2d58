/*
 * What only this server holds to, the limits of executions, is in force with the record. All else
 * is asked of the runtime, which changes all or nothing, and refuses what would be below what is
 * used. A row may say something else than the runtime after a crash, or when a change was taken
 * back; then the row is the truth, and the runtime is asked until it has it, for each limit by
 * itself: programs that hold on to memory keep that, and nothing else. Until then the owner is
 * charged with what is in force.
 */
#include "server/session/limiting.h"

#include <errno.h>
#include <inttypes.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/admission.h"
#include "server/session/session_private.h"

enum {
        RETRY_FIRST_USEC = 1000 * 1000,
        RETRY_DOUBLED_MAX = 5,
};

struct sandbox_limits limits_merge(const struct sandbox_limits *present,
                                   const struct sandbox_update *update)
{
        const struct sandbox_limits *wanted = &update->limits;
        struct sandbox_limits merged = *present;

#define MERGE(which, field)                                                                        \
        if (update->set_limits & BIT(SANDBOX_LIMIT_##which))                                       \
        merged.field = wanted->field
        MERGE(MEMORY, memory_bytes);
        MERGE(CPU, cpu_millis);
        MERGE(PROCESSES, processes);
        MERGE(OPEN_FILES, open_files);
        MERGE(DISK, disk_bytes);
        MERGE(INODES, disk_inodes);
        MERGE(WEIGHT, cpu_weight);
        MERGE(IO, io_bytes_per_second);
        MERGE(TIMEOUT, execution.timeout_usec);
        MERGE(OUTPUT, execution.output_bytes);
#undef MERGE
        return merged;
}

/* Those that the runtime holds to. */
static bool are_same_in_runtime(const struct sandbox_limits *a, const struct sandbox_limits *b)
{
        return a->memory_bytes == b->memory_bytes && a->cpu_millis == b->cpu_millis &&
               a->processes == b->processes && a->open_files == b->open_files &&
               a->disk_bytes == b->disk_bytes && a->disk_inodes == b->disk_inodes &&
               a->cpu_weight == b->cpu_weight && a->io_bytes_per_second == b->io_bytes_per_second;
}

bool limits_are_same(const struct sandbox_limits *a, const struct sandbox_limits *b)
{
        return are_same_in_runtime(a, b) &&
               a->execution.timeout_usec == b->execution.timeout_usec &&
               a->execution.output_bytes == b->execution.output_bytes;
}

/* --- an update --- */

struct session_result admit_limits(struct sandbox *sandbox, const struct sandbox_update *update)
{
        const struct sandbox_record *record = &sandbox->record;
        struct sandbox_limits limits = limits_merge(&record->limits, update);

        if (update->set_limits == 0)
                return (struct session_result){ 0 };
        if (sandbox->limiting.is_changing)
                return result_of(SESSION_E_CONFLICT,
                                 "Other limits of sandbox %s are just being put in force; read it "
                                 "and try again.",
                                 record->sandbox_id);
        if (limits.disk_bytes > limits.memory_bytes - SESSION_DISK_HEADROOM_BYTES)
                return result_of(SESSION_E_LIMIT,
                                 "limits.disk_bytes of sandbox %s would be %" PRId64
                                 " then, and must stay 64 MiB below limits.memory_bytes, which "
                                 "would be %" PRId64 ": files count as memory.",
                                 record->sandbox_id, limits.disk_bytes, limits.memory_bytes);
        return admit_promise(sandbox, &limits);
}

/* Which are what owners are charged with. */
static void raise_memory_and_cpu(struct sandbox_limits *limits, const struct sandbox_limits *to)
{
        limits->memory_bytes = MAX(limits->memory_bytes, to->memory_bytes);
        limits->cpu_millis = MAX(limits->cpu_millis, to->cpu_millis);
}

static void charge(struct sandbox *sandbox)
{
        const struct limiting *limiting = &sandbox->limiting;
        struct sandbox_limits charged = sandbox->record.limits;

        raise_memory_and_cpu(&charged, &limiting->in_force);
        if (limiting->is_changing)
                raise_memory_and_cpu(&charged, &limiting->asked);
        sandbox_promise(sandbox, &charged);
}

static int ask(struct sandbox *sandbox, const struct sandbox_limits *limits, bool each,
               runtime_on_answer on_answer, void *userdata)
{
        Hotcell__Runtime__V1__SandboxLimits wire = limits_to_runtime(limits);
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__UpdateLimits update;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__update_limits__init(&update);
        update.sandbox_id = sandbox->record.sandbox_id;
        update.limits = &wire;
        update.each = each;
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_UPDATE_LIMITS;
        request.update_limits = &update;
        return session_request(sandbox->session, &request, on_answer, userdata);
}

struct session_result limiting_begin(struct sandbox *sandbox, const struct sandbox_limits *limits,
                                     runtime_on_answer on_answer, void *userdata)
{
        int r;

        if (!session_can_limit(sandbox->session))
                return result_of(SESSION_E_RUNTIME_UNAVAILABLE,
                                 "The runtime is an older one, which cannot change limits.");
        r = ask(sandbox, limits, false, on_answer, userdata);
        if (r)
                return result_of(r, "The runtime cannot be asked for other limits of sandbox %s.",
                                 sandbox->record.sandbox_id);
        sandbox->limiting.asked = *limits;
        sandbox->limiting.is_changing = true;
        charge(sandbox);
        return (struct session_result){ 0 };
}

static bool is_done(const Hotcell__Runtime__V1__FromRuntime *answer)
{
        return answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_DONE;
}

struct session_result limiting_on_answer(struct sandbox *sandbox,
                                         const struct sandbox_limits *limits,
                                         const Hotcell__Runtime__V1__FromRuntime *answer)
{
        struct sandbox_limits highest = { 0 };

        if (!answer) { /* either may be */
                raise_memory_and_cpu(&highest, &sandbox->limiting.in_force);
                raise_memory_and_cpu(&highest, limits);
                sandbox->limiting.in_force = highest;
        }
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE &&
            answer->failure->limits)
                sandbox->limiting.in_force = limits_from_runtime(answer->failure->limits);
        if (!is_done(answer))
                return result_of_runtime(answer, "the limits");
        sandbox->limiting.in_force = *limits;
        return (struct session_result){ 0 };
}

void limiting_end(struct sandbox *sandbox)
{
        sandbox->limiting.is_changing = false;
        charge(sandbox);
        limiting_restore(sandbox);
}

void limiting_adopt(struct sandbox *sandbox, const struct sandbox_limits *in_force)
{
        sandbox->limiting.in_force = *in_force;
        charge(sandbox);
}

void limiting_made(struct sandbox *sandbox)
{
        sandbox->limiting.in_force = sandbox->record.limits;
}

/* --- restoring --- */

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        limiting_restore(userdata);
        return 0;
}

static void retry_later(struct sandbox *sandbox, const Hotcell__Runtime__V1__FromRuntime *answer)
{
        struct limiting *limiting = &sandbox->limiting;
        struct session_result result = { 0 };

        if (!is_done(answer))
                result = result_of_runtime(answer, "the limits");
        if (limiting->n_tries == 0)
                log_warning("limits of a sandbox cannot be put in force yet sandbox=%s "
                            "reason=\"%s\"",
                            sandbox->record.sandbox_id,
                            result.outcome ? result.message : "it uses more");
        (void)session_arm(sandbox->session, &limiting->retry,
                          (uint64_t)RETRY_FIRST_USEC
                                  << MIN(limiting->n_tries, (unsigned)RETRY_DOUBLED_MAX),
                          on_retry, sandbox);
        limiting->n_tries++;
}

static void on_restored(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                        struct runtime_fds *fds)
{
        struct sandbox *sandbox = userdata;
        struct limiting *limiting = &sandbox->limiting;

        (void)fds;
        sandbox->n_pending--;
        limiting->is_restoring = false;
        if (is_done(answer)) {
                limiting->in_force = answer->done->limits
                                             ? limits_from_runtime(answer->done->limits)
                                             : limiting->restoring;
                charge(sandbox);
        }
        if (is_done(answer) && are_same_in_runtime(&limiting->in_force, &limiting->restoring)) {
                limiting->n_tries = 0;
                limiting_restore(sandbox);
        } else if (sandbox->record.state == SANDBOX_RUNNING && answer) {
                retry_later(sandbox, answer);
        }
        sandbox_check(sandbox);
}

void limiting_restore(struct sandbox *sandbox)
{
        struct limiting *limiting = &sandbox->limiting;

        /* Whoever is under way comes here again at its end. */
        if (sandbox->record.state != SANDBOX_RUNNING || limiting->is_changing ||
            limiting->is_restoring || !session_can_limit(sandbox->session) ||
            are_same_in_runtime(&limiting->in_force, &sandbox->record.limits))
                return;
        limiting->restoring = sandbox->record.limits;
        if (ask(sandbox, &limiting->restoring, true, on_restored, sandbox))
                return; /* without a connection: the next one begins with all of them */
        limiting->is_restoring = true;
        sandbox->n_pending++;
}

void session_restore_limits(struct session *session)
{
        struct map_node *node, *next;

        for (node = map_first(&session->sandboxes); node; node = next) {
                next = map_next(node);
                limiting_restore(CONTAINER_OF(node, struct sandbox, by_id));
        }
}
