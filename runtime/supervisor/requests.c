#include "runtime/supervisor/requests.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/resource.h>

#include "bpf/egress.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/supervisor/control.h"
#include "runtime/supervisor/messages.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/relay.h"
#include "runtime/supervisor/supervisor.h"
#include "runtime/supervisor/tables.h"

/* Each either answers or, with a request that goes on, leaves the answer to the observer. */
typedef void handler(struct supervisor *supervisor, struct ticket ticket,
                     const Hotcell__Runtime__V1__ToRuntime *message);

#define refuse(supervisor, ticket, ...)                                                            \
        do {                                                                                       \
                struct failure refusal;                                                            \
                                                                                                   \
                messages_answer_failure((supervisor), (ticket),                                    \
                                        failure_set(&refusal, __VA_ARGS__));                       \
        } while (0)

/* NULL after answering. */
static struct sandbox *find_sandbox(struct supervisor *supervisor, struct ticket ticket,
                                    const char *id)
{
        struct sandbox *sandbox = sandbox_table_find(supervisor->sandboxes, id);

        if (!sandbox)
                refuse(supervisor, ticket, FAILURE(NOT_FOUND), 0, "no sandbox %s", id);
        return sandbox;
}

static struct process *find_process(struct supervisor *supervisor, struct ticket ticket,
                                    const char *sandbox_id, const char *process_id)
{
        struct sandbox *sandbox = find_sandbox(supervisor, ticket, sandbox_id);
        struct process *process;

        if (!sandbox)
                return NULL;
        process = process_table_find(sandbox->processes, process_id);
        if (!process)
                refuse(supervisor, ticket, FAILURE(NOT_FOUND), 0, "no process %s in sandbox %s",
                       process_id, sandbox_id);
        return process;
}

static void handle_hello(struct supervisor *supervisor, struct ticket ticket,
                         const Hotcell__Runtime__V1__ToRuntime *message)
{
        const Hotcell__Runtime__V1__Hello *hello = message->hello;
        uint32_t protocol = MIN(hello->protocol_newest, (uint32_t)CONTROL_PROTOCOL_NEWEST);

        if (protocol < hello->protocol_oldest || protocol < CONTROL_PROTOCOL_OLDEST) {
                refuse(supervisor, ticket, FAILURE(PROTOCOL), 0,
                       "hotcelld speaks versions %u to %u, this runtime speaks %d to %d",
                       hello->protocol_oldest, hello->protocol_newest, CONTROL_PROTOCOL_OLDEST,
                       CONTROL_PROTOCOL_NEWEST);
                return;
        }
        log_info("hotcelld said hello: version=%s protocol=%u", hello->version, protocol);
        supervisor_load_templates(supervisor);
        messages_answer_welcome(supervisor, ticket, protocol);
        supervisor->is_greeted = true;
        supervisor->protocol = protocol;
        messages_egress_ready(supervisor);
        messages_repeat_ends(supervisor);
}

/* NULL: it was refused. A template may have been built since the store was read. */
static const struct template *find_template(struct supervisor *supervisor, struct ticket ticket,
                                            const char *digest)
{
        const struct template_store *store = &supervisor->templates;
        const struct template *template = template_store_find(store, digest);

        if (template)
                return template;
        supervisor_load_templates(supervisor);
        template = template_store_find(store, digest);
        if (!template && store->missing[0])
                refuse(supervisor, ticket, FAILURE(TEMPLATE_NOT_FOUND), 0, "no template %s: %s",
                       digest, store->missing);
        else if (!template)
                refuse(supervisor, ticket, FAILURE(TEMPLATE_NOT_FOUND), 0, "no template %s in %s",
                       digest, store->path);
        return template;
}

/* Nobody can set a higher one than the host lets the runtime have. */
static int check_open_files(const Hotcell__Runtime__V1__SandboxLimits *limits,
                            struct failure *failure)
{
        struct rlimit open_files = { 0 };

        (void)getrlimit(RLIMIT_NOFILE, &open_files);
        if (limits->open_files <= open_files.rlim_max)
                return 0;
        failure_set(failure, FAILURE(INVALID), 0,
                    "limits.open_files is above this host's limit of %llu",
                    (unsigned long long)open_files.rlim_max);
        return 1;
}

/* What must be so before anything is made. */
static int check_create(struct supervisor *supervisor,
                        const Hotcell__Runtime__V1__CreateSandbox *create, struct failure *failure)
{
        const struct wall *missing = walls_missing(&supervisor->walls);

        if (supervisor->is_stopping) {
                failure_set(failure, FAILURE(EXHAUSTED), 0, "the runtime is stopping");
                return 1;
        }
        if (missing) {
                failure_set(failure,
                            strcmp(missing->name, WALL_EGRESS) == 0 ? FAILURE(EGRESS)
                                                                    : FAILURE(WALL_MISSING),
                            0, "%s: %s", missing->name, missing->detail);
                return 1;
        }
        if (sandbox_table_find(supervisor->sandboxes, create->sandbox_id)) {
                failure_set(failure, FAILURE(EXISTS), 0, "sandbox %s exists", create->sandbox_id);
                return 1;
        }
        return check_open_files(create->limits, failure);
}

static void handle_create_sandbox(struct supervisor *supervisor, struct ticket ticket,
                                  const Hotcell__Runtime__V1__ToRuntime *message)
{
        struct sandbox_spec spec = { .request = message->create_sandbox, .ticket = ticket };
        struct sandbox *sandbox = NULL;
        struct failure failure;

        if (check_create(supervisor, spec.request, &failure)) {
                messages_answer_failure(supervisor, ticket, &failure);
                return;
        }
        spec.template = find_template(supervisor, ticket, spec.request->template_digest);
        if (!spec.template)
                return;
        supervisor_ensure_spawner(supervisor);
        if (sandbox_create(&supervisor->host, &spec, &sandbox, &failure)) {
                messages_answer_failure(supervisor, ticket, &failure);
                return;
        }
        sandbox_table_add(&supervisor->sandboxes, sandbox);
}

static void forget(struct supervisor *supervisor, struct sandbox *sandbox)
{
        sandbox_table_remove(&supervisor->sandboxes, sandbox);
        (void)sandbox_free(sandbox);
}

static void handle_destroy_sandbox(struct supervisor *supervisor, struct ticket ticket,
                                   const Hotcell__Runtime__V1__ToRuntime *message)
{
        struct sandbox *sandbox =
                find_sandbox(supervisor, ticket, message->destroy_sandbox->sandbox_id);

        if (!sandbox)
                return;
        if (sandbox->state == SANDBOX_ENDED) {
                messages_answer_destroyed(supervisor, ticket, sandbox);
                forget(supervisor, sandbox);
                return;
        }
        if (sandbox->destroy_ticket.request &&
            sandbox->destroy_ticket.connection == ticket.connection) {
                refuse(supervisor, ticket, FAILURE(INVALID), 0, "sandbox %s is being destroyed",
                       sandbox->id);
                return;
        }
        sandbox->destroy_ticket = ticket;
        sandbox_end(sandbox, "destroyed");
}

static void handle_update_limits(struct supervisor *supervisor, struct ticket ticket,
                                 const Hotcell__Runtime__V1__ToRuntime *message)
{
        const Hotcell__Runtime__V1__UpdateLimits *update = message->update_limits;
        const struct runtime_limits limits = limits_from_message(update->limits);
        struct sandbox *sandbox = find_sandbox(supervisor, ticket, update->sandbox_id);
        struct failure failure;
        int r;

        if (!sandbox)
                return;
        if (sandbox->state != SANDBOX_RUNNING) {
                refuse(supervisor, ticket, FAILURE(SANDBOX_ENDED), 0, "sandbox %s is %s",
                       sandbox->id, sandbox_state_name(sandbox->state));
                return;
        }
        if (update->each)
                r = limits_approach(sandbox, &limits);
        else
                r = check_open_files(update->limits, &failure)
                            ? 1
                            : limits_update(sandbox, &limits, &failure);
        if (r == LIMITS_E_LATER) {
                sandbox->limits_ticket = ticket;
                sandbox->is_approaching = update->each;
                return;
        }
        messages_answer_limits(supervisor, ticket, sandbox, r ? &failure : NULL);
}

static void handle_start_process(struct supervisor *supervisor, struct ticket ticket,
                                 const Hotcell__Runtime__V1__ToRuntime *message)
{
        const Hotcell__Runtime__V1__StartProcess *start = message->start_process;
        struct sandbox *sandbox = find_sandbox(supervisor, ticket, start->sandbox_id);
        struct failure failure;

        if (!sandbox)
                return;
        if (sandbox->state != SANDBOX_RUNNING) {
                refuse(supervisor, ticket,
                       sandbox->state == SANDBOX_CREATING ? FAILURE(INVALID)
                                                          : FAILURE(SANDBOX_ENDED),
                       0, "sandbox %s is %s", sandbox->id, sandbox_state_name(sandbox->state));
                return;
        }
        supervisor_ensure_spawner(supervisor);
        if (process_start(sandbox, start, ticket, &failure))
                messages_answer_failure(supervisor, ticket, &failure);
}

static void handle_signal_process(struct supervisor *supervisor, struct ticket ticket,
                                  const Hotcell__Runtime__V1__ToRuntime *message)
{
        const Hotcell__Runtime__V1__SignalProcess *request = message->signal_process;
        struct process *process =
                find_process(supervisor, ticket, request->sandbox_id, request->process_id);
        int r = 0;

        if (!process)
                return;
        if (process->state == PROCESS_RUNNING)
                r = process_signal(process, (int)request->signal);
        else if (process->state == PROCESS_STARTING && request->signal == SIGKILL)
                process_kill(process);
        else {
                refuse(supervisor, ticket, FAILURE(NOT_FOUND), ESRCH, "process %s %s", process->id,
                       process->state == PROCESS_STARTING ? "does not run yet" : "is over");
                return;
        }
        if (r)
                refuse(supervisor, ticket, FAILURE(SYSTEM), r, "cannot signal process %s: %s",
                       process->id, strerrordesc_np(-r));
        else
                messages_answer_done(supervisor, ticket);
}

static void handle_acknowledge_end(struct supervisor *supervisor, struct ticket ticket,
                                   const Hotcell__Runtime__V1__ToRuntime *message)
{
        const Hotcell__Runtime__V1__AcknowledgeEnd *request = message->acknowledge_end;
        struct process *process =
                find_process(supervisor, ticket, request->sandbox_id, request->process_id);

        if (!process)
                return;
        if (process_is_alive(process)) {
                refuse(supervisor, ticket, FAILURE(INVALID), 0, "process %s is not over",
                       process->id);
                return;
        }
        (void)process_free(process);
        messages_answer_done(supervisor, ticket);
}

/* Memory files, which can neither block us nor be written to by a sandbox. */
static bool are_memfds(const int *fds, size_t n_fds)
{
        for (size_t i = 0; i < n_fds; i++)
                if (fcntl(fds[i], F_GET_SEALS) < 0)
                        return false;
        return true;
}

/* Alone among the requests it comes with descriptors. */
static void handle_keep_descriptors(struct supervisor *supervisor, struct ticket ticket,
                                    const Hotcell__Runtime__V1__ToRuntime *message, int *fds,
                                    size_t n_fds)
{
        const Hotcell__Runtime__V1__KeepDescriptors *keep = message->keep_descriptors;
        struct process *process =
                find_process(supervisor, ticket, keep->sandbox_id, keep->process_id);

        if (!process)
                return;
        if (n_fds == 0 || n_fds > PROCESS_KEPT_MAX || !are_memfds(fds, n_fds)) {
                refuse(supervisor, ticket, FAILURE(INVALID), 0,
                       "1 to %d memory files can be kept with process %s", PROCESS_KEPT_MAX,
                       process->id);
                return;
        }
        process_keep(process, fds, n_fds);
        messages_answer_done(supervisor, ticket);
}

static void handle_take_process(struct supervisor *supervisor, struct ticket ticket,
                                const Hotcell__Runtime__V1__ToRuntime *message)
{
        const Hotcell__Runtime__V1__TakeProcess *take = message->take_process;
        struct process *process =
                find_process(supervisor, ticket, take->sandbox_id, take->process_id);

        if (!process)
                return;
        if (process->state == PROCESS_STARTING)
                refuse(supervisor, ticket, FAILURE(INVALID), 0, "process %s does not run yet",
                       process->id);
        else
                messages_answer_taken(supervisor, ticket, process);
}

static uint64_t count_asked(const struct sandbox *sandbox)
{
        struct egress_counts counts;

        if (!sandbox->host->egress ||
            egress_wall_read_counts(sandbox->host->egress, sandbox->group.id, &counts))
                return 0;
        return counts.n_logged + counts.n_tokens + 1;
}

static void answer_usage(struct supervisor *supervisor, struct ticket ticket, int r,
                         const struct sandbox *sandbox, struct usage_message *usage)
{
        Hotcell__Runtime__V1__FromRuntime message;

        hotcell__runtime__v1__from_runtime__init(&message);
        if (r) {
                refuse(supervisor, ticket, FAILURE(SYSTEM), r, "cannot read the meters: %s",
                       strerrordesc_np(abs(r)));
                return;
        }
        message.body_case = HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_USAGE;
        usage->usage.n_asked = count_asked(sandbox);
        message.usage = &usage->usage;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}

/* Zero: it was reaped, and its number may be another's. */
static pid_t living_pid(const struct process *process)
{
        return process->state == PROCESS_DRAINING ? 0 : process->child.pid;
}

static void read_process_usage(struct supervisor *supervisor, struct ticket ticket,
                               const Hotcell__Runtime__V1__ReadUsage *request)
{
        struct process *process =
                find_process(supervisor, ticket, request->sandbox_id, request->process_id);
        struct usage_message usage;
        struct metered metered;
        int r = 0;

        if (!process)
                return;
        if (!process_is_alive(process)) {
                metering_fill(&process->usage, &usage);
                traffic_fill_process(process, &usage);
                answer_usage(supervisor, ticket, 0, process->sandbox, &usage);
                return;
        }
        r = metering_read_leaf(&process->meter, &metered);
        metering_add_resident(living_pid(process), &metered);
        if (!r && request->reset_peak)
                metering_begin_peak(&process->meter, living_pid(process));
        metering_fill(&metered, &usage);
        traffic_fill_process(process, &usage);
        answer_usage(supervisor, ticket, r, process->sandbox, &usage);
}

static void handle_read_usage(struct supervisor *supervisor, struct ticket ticket,
                              const Hotcell__Runtime__V1__ToRuntime *message)
{
        const Hotcell__Runtime__V1__ReadUsage *request = message->read_usage;
        struct usage_message usage;
        struct sandbox *sandbox;
        int r;

        if (request->process_id[0]) {
                read_process_usage(supervisor, ticket, request);
                return;
        }
        sandbox = find_sandbox(supervisor, ticket, request->sandbox_id);
        if (!sandbox)
                return;
        if (sandbox->state != SANDBOX_RUNNING) {
                refuse(supervisor, ticket, FAILURE(SANDBOX_ENDED), 0, "sandbox %s is %s",
                       sandbox->id, sandbox_state_name(sandbox->state));
                return;
        }
        r = sandbox_read_usage(sandbox, &usage);
        if (!r && request->reset_peak)
                (void)cgroup_reset_peak(&sandbox->group);
        answer_usage(supervisor, ticket, r, sandbox, &usage);
}

static void handle_list_sandboxes(struct supervisor *supervisor, struct ticket ticket,
                                  const Hotcell__Runtime__V1__ToRuntime *message)
{
        messages_answer_list(supervisor, ticket, message->list_sandboxes->after_sandbox_id);
}

static void handle_read_meters(struct supervisor *supervisor, struct ticket ticket,
                               const Hotcell__Runtime__V1__ToRuntime *message)
{
        messages_answer_meters(supervisor, ticket, message->read_meters);
}

static void handle_probe_walls(struct supervisor *supervisor, struct ticket ticket,
                               const Hotcell__Runtime__V1__ToRuntime *message)
{
        (void)message;
        supervisor_probe_walls(supervisor);
        messages_answer_walls(supervisor, ticket);
}

#define BODY(name) HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_##name

static const struct {
        Hotcell__Runtime__V1__ToRuntime__BodyCase body;
        handler *handle;
} handlers[] = {
        { BODY(HELLO), handle_hello },
        { BODY(CREATE_SANDBOX), handle_create_sandbox },
        { BODY(DESTROY_SANDBOX), handle_destroy_sandbox },
        { BODY(START_PROCESS), handle_start_process },
        { BODY(SIGNAL_PROCESS), handle_signal_process },
        { BODY(ACKNOWLEDGE_END), handle_acknowledge_end },
        { BODY(READ_USAGE), handle_read_usage },
        { BODY(LIST_SANDBOXES), handle_list_sandboxes },
        { BODY(PROBE_WALLS), handle_probe_walls },
        { BODY(TAKE_PROCESS), handle_take_process },
        { BODY(READ_METERS), handle_read_meters },
        { BODY(UPDATE_LIMITS), handle_update_limits },
};

static void dispatch(struct supervisor *supervisor, struct ticket ticket,
                     const Hotcell__Runtime__V1__ToRuntime *message)
{
        if (!supervisor->is_greeted && message->body_case != BODY(HELLO)) {
                refuse(supervisor, ticket, FAILURE(INVALID), 0, "Hello must come first");
                return;
        }
        for (size_t i = 0; i < ARRAY_SIZE(handlers); i++) {
                if (handlers[i].body != message->body_case)
                        continue;
                handlers[i].handle(supervisor, ticket, message);
                return;
        }
}

void requests_handle(struct supervisor *supervisor, const uint8_t *bytes, size_t n_bytes, int *fds,
                     size_t n_fds)
{
        struct control_request request;
        struct ticket ticket = { .connection = channel_connection(supervisor->channel) };
        struct failure failure;
        int r = control_decode(&supervisor->arena, bytes, n_bytes, &request, &failure);

        if (r == CONTROL_E_MALFORMED) {
                log_warning("hotcelld sent a packet that is no message: bytes=%zu", n_bytes);
                return;
        }
        ticket.request = request.number;
        if (r == CONTROL_E_INVALID)
                messages_answer_failure(supervisor, ticket, &failure);
        else if (supervisor->is_greeted && request.message->body_case == BODY(KEEP_DESCRIPTORS))
                handle_keep_descriptors(supervisor, ticket, request.message, fds, n_fds);
        else
                dispatch(supervisor, ticket, request.message);
        control_request_deinit(&request);
}

/* Whoever asked is connected no more: what was made for it has no owner. */
static bool is_orphan(const struct supervisor *supervisor, struct ticket ticket)
{
        return ticket.connection != channel_connection(supervisor->channel);
}

static void on_created(struct sandbox *sandbox, const struct failure *failure)
{
        struct supervisor *supervisor = sandbox->host->userdata;

        if (!failure) {
                if (is_orphan(supervisor, sandbox->create_ticket)) {
                        sandbox_end(sandbox, "hotcelld disconnected while it was created");
                        return;
                }
                /* First: hotcelld asks the relay for it at once. */
                if (supervisor->relay)
                        relay_add_network(supervisor->relay, sandbox);
                messages_answer_created(supervisor, sandbox);
                return;
        }
        messages_answer_failure(supervisor, sandbox->create_ticket, failure);
        messages_answer_done(supervisor, sandbox->destroy_ticket);
        forget(supervisor, sandbox);
}

static void on_ended(struct sandbox *sandbox)
{
        struct supervisor *supervisor = sandbox->host->userdata;

        if (supervisor->relay)
                relay_remove_network(supervisor->relay, sandbox);
        if (!sandbox->is_unwanted) {
                messages_sandbox_ended(supervisor, sandbox);
                return;
        }
        messages_answer_destroyed(supervisor, sandbox->destroy_ticket, sandbox);
        forget(supervisor, sandbox);
}

static void on_process_started(struct process *process, const struct failure *failure)
{
        struct supervisor *supervisor = process->sandbox->host->userdata;

        if (failure)
                messages_answer_failure(supervisor, process->ticket, failure);
        else if (is_orphan(supervisor, process->ticket))
                process_kill(process);
        else
                messages_answer_started(supervisor, process);
}

static void on_process_ended(struct process *process)
{
        messages_process_ended(process->sandbox->host->userdata, process);
}

static void on_limits_changed(struct sandbox *sandbox, const struct failure *failure)
{
        messages_answer_limits(sandbox->host->userdata, sandbox->limits_ticket, sandbox,
                               sandbox->is_approaching ? NULL : failure);
}

static void on_pressure(struct sandbox *sandbox, const struct pressure_level *level)
{
        messages_pressure(sandbox->host->userdata, sandbox, level);
}

const struct sandbox_observer requests_observer = {
        .on_created = on_created,
        .on_ended = on_ended,
        .on_process_started = on_process_started,
        .on_process_ended = on_process_ended,
        .on_pressure = on_pressure,
        .on_limits_changed = on_limits_changed,
};
