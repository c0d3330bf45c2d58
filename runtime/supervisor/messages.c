#include "runtime/supervisor/messages.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/channel/channel.h"
#include "runtime/supervisor/control.h"
#include "runtime/supervisor/relay.h"
#include "runtime/supervisor/supervisor.h"
#include "runtime/supervisor/tables.h"

enum {
        LIST_SANDBOXES_MAX = 64,
        LIST_BYTES_MAX = 48 << 10, /* then the rest follows in another packet */
};

#define BODY(name) HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name

static Hotcell__Runtime__V1__FromRuntime
new_message(Hotcell__Runtime__V1__FromRuntime__BodyCase body)
{
        Hotcell__Runtime__V1__FromRuntime message;

        hotcell__runtime__v1__from_runtime__init(&message);
        message.body_case = body;
        return message;
}

static void close_all(const int *fds, size_t n_fds)
{
        for (size_t i = 0; i < n_fds; i++)
                (void)close(fds[i]);
}

static void send_message(struct supervisor *supervisor,
                         const Hotcell__Runtime__V1__FromRuntime *message, const int *fds,
                         size_t n_fds)
{
        /* One thread, and the channel copies what it must keep. */
        static uint8_t bytes[CONTROL_PACKET_MAX];
        size_t n_bytes = hotcell__runtime__v1__from_runtime__get_packed_size(message);

        if (n_bytes > sizeof(bytes)) {
                /* The peer would wait for ever for it. */
                log_error("cannot send a message: bytes=%zu", n_bytes);
                close_all(fds, n_fds);
                channel_drop(supervisor->channel);
                return;
        }
        (void)hotcell__runtime__v1__from_runtime__pack(message, bytes);
        channel_send(supervisor->channel, bytes, n_bytes, fds, n_fds);
}

void messages_answer(struct supervisor *supervisor, struct ticket ticket,
                     Hotcell__Runtime__V1__FromRuntime *message, const int *fds, size_t n_fds)
{
        if (!ticket.request || !supervisor->channel ||
            ticket.connection != channel_connection(supervisor->channel)) {
                close_all(fds, n_fds);
                return;
        }
        message->request = ticket.request;
        send_message(supervisor, message, fds, n_fds);
}

static void send_event(struct supervisor *supervisor,
                       const Hotcell__Runtime__V1__FromRuntime *message)
{
        if (supervisor->is_greeted)
                send_message(supervisor, message, NULL, 0);
}

void messages_answer_done(struct supervisor *supervisor, struct ticket ticket)
{
        Hotcell__Runtime__V1__Done done;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(DONE));

        hotcell__runtime__v1__done__init(&done);
        message.done = &done;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}

void messages_answer_destroyed(struct supervisor *supervisor, struct ticket ticket,
                               struct sandbox *sandbox)
{
        struct usage_message usage;
        Hotcell__Runtime__V1__Done done;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(DONE));

        hotcell__runtime__v1__done__init(&done);
        metering_fill(&sandbox->usage, &usage);
        traffic_fill_sandbox(sandbox, &usage);
        if (sandbox->has_usage)
                done.usage = &usage.usage;
        message.done = &done;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}

static void answer_failure(struct supervisor *supervisor, struct ticket ticket,
                           const struct failure *failure,
                           Hotcell__Runtime__V1__SandboxLimits *limits)
{
        static struct log_quota quota;
        Hotcell__Runtime__V1__Failure body;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(FAILURE));

        hotcell__runtime__v1__failure__init(&body);
        log_info_of(&quota, "refused or failed: request=%llu reason=%d error=%d message=%s",
                    (unsigned long long)ticket.request, (int)failure->reason, failure->error_number,
                    failure->message);
        body.reason = failure->reason;
        body.message = unconst(failure->message);
        body.error_number = failure->error_number;
        body.limits = limits;
        message.failure = &body;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}

void messages_answer_failure(struct supervisor *supervisor, struct ticket ticket,
                             const struct failure *failure)
{
        answer_failure(supervisor, ticket, failure, NULL);
}

void messages_answer_limits(struct supervisor *supervisor, struct ticket ticket,
                            const struct sandbox *sandbox, const struct failure *failure)
{
        Hotcell__Runtime__V1__SandboxLimits limits = limits_to_message(&sandbox->limits);
        Hotcell__Runtime__V1__Done done;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(DONE));

        if (failure) {
                answer_failure(supervisor, ticket, failure, &limits);
                return;
        }
        hotcell__runtime__v1__done__init(&done);
        done.limits = &limits;
        message.done = &done;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}

void messages_answer_created(struct supervisor *supervisor, const struct sandbox *sandbox)
{
        Hotcell__Runtime__V1__SandboxCreated created;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(SANDBOX_CREATED));

        hotcell__runtime__v1__sandbox_created__init(&created);
        created.cgroup_id = sandbox->group.id;
        created.id_base = sandbox->id_base;
        created.elapsed_ns = clock_monotonic_nsec() - sandbox->created_nsec;
        message.sandbox_created = &created;
        messages_answer(supervisor, sandbox->create_ticket, &message, NULL, 0);
}

/* Copies of a process's descriptors, for the channel to take. 0, or a negative errno with none. */
static int copy_fds(const int *fds, size_t n_fds, int *copies, size_t *n_copies)
{
        for (size_t i = 0; i < n_fds; i++) {
                copies[*n_copies] = fcntl(fds[i], F_DUPFD_CLOEXEC, 3);
                if (copies[*n_copies] < 0) {
                        int r = -errno;

                        close_all(copies, *n_copies);
                        *n_copies = 0;
                        return error_origin(r);
                }
                (*n_copies)++;
        }
        return 0;
}

static void answer_exhausted(struct supervisor *supervisor, struct ticket ticket, int r)
{
        struct failure failure;

        messages_answer_failure(supervisor, ticket,
                                failure_set(&failure, FAILURE(EXHAUSTED), r,
                                            "cannot hand descriptors over: %s",
                                            strerrordesc_np(-r)));
}

void messages_answer_started(struct supervisor *supervisor, struct process *process)
{
        Hotcell__Runtime__V1__ProcessStarted started;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(PROCESS_STARTED));
        int copies[PROCESS_FDS_MAX];
        size_t n_copies = 0;
        int r = copy_fds(process->fds, process->n_fds, copies, &n_copies);

        if (r) {
                answer_exhausted(supervisor, process->ticket, r);
                process_kill(process);
                return;
        }
        hotcell__runtime__v1__process_started__init(&started);
        started.pid = (uint32_t)process->child.pid;
        started.cgroup_id = process->leaf.id;
        message.process_started = &started;
        messages_answer(supervisor, process->ticket, &message, copies, n_copies);
}

void messages_answer_taken(struct supervisor *supervisor, struct ticket ticket,
                           const struct process *process)
{
        Hotcell__Runtime__V1__ProcessTaken taken;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(PROCESS_TAKEN));
        int copies[PROCESS_FDS_MAX + PROCESS_KEPT_MAX];
        size_t n_copies = 0;
        int r = copy_fds(process->fds, process->n_fds, copies, &n_copies);

        if (!r)
                r = copy_fds(process->kept, process->n_kept, copies, &n_copies);
        if (r) {
                answer_exhausted(supervisor, ticket, r);
                return;
        }
        hotcell__runtime__v1__process_taken__init(&taken);
        taken.pid = (uint32_t)process->child.pid;
        taken.cgroup_id = process->leaf.id;
        taken.n_pipes = (uint32_t)process->n_fds;
        message.process_taken = &taken;
        messages_answer(supervisor, ticket, &message, copies, n_copies);
}

static void fill_walls(const struct wall_list *walls, Hotcell__Runtime__V1__Wall *bodies,
                       Hotcell__Runtime__V1__Wall **pointers)
{
        for (size_t i = 0; i < walls->n_walls; i++) {
                const struct wall *wall = &walls->walls[i];

                hotcell__runtime__v1__wall__init(&bodies[i]);
                bodies[i].name = unconst(wall->name);
                bodies[i].holds = wall->holds;
                bodies[i].required = wall->is_required;
                bodies[i].detail = unconst(wall->detail);
                bodies[i].fix = unconst(wall->fix);
                pointers[i] = &bodies[i];
        }
}

void messages_answer_walls(struct supervisor *supervisor, struct ticket ticket)
{
        Hotcell__Runtime__V1__Wall bodies[WALLS_MAX];
        Hotcell__Runtime__V1__Wall *pointers[WALLS_MAX];
        Hotcell__Runtime__V1__WallList list;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(WALL_LIST));

        hotcell__runtime__v1__wall_list__init(&list);
        fill_walls(&supervisor->walls, bodies, pointers);
        list.walls = pointers;
        list.n_walls = supervisor->walls.n_walls;
        message.wall_list = &list;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}

void messages_answer_welcome(struct supervisor *supervisor, struct ticket ticket, uint32_t protocol)
{
        Hotcell__Runtime__V1__Wall bodies[WALLS_MAX];
        Hotcell__Runtime__V1__Wall *walls[WALLS_MAX];
        Hotcell__Runtime__V1__Template *templates[TEMPLATES_MAX];
        struct meter_state_message meters;
        Hotcell__Runtime__V1__Welcome welcome;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(WELCOME));

        hotcell__runtime__v1__welcome__init(&welcome);
        fill_walls(&supervisor->walls, bodies, walls);
        for (size_t i = 0; i < supervisor->templates.n_templates; i++)
                templates[i] = &supervisor->templates.templates[i]->message;
        welcome.protocol = protocol;
        welcome.version = unconst(HOTCELL_VERSION);
        welcome.boot_id = supervisor->boot_id;
        welcome.instance_id = supervisor->instance_id;
        welcome.walls = walls;
        welcome.n_walls = supervisor->walls.n_walls;
        welcome.templates = templates;
        welcome.n_templates = supervisor->templates.n_templates;
        welcome.sandboxes_max = supervisor->options->sandboxes_max;
        welcome.direct_mode = supervisor->direct != NULL;
        metering_fill_state(supervisor->metering, &meters);
        welcome.meters = &meters.state;
        message.welcome = &welcome;
        messages_answer(supervisor, ticket, &message, NULL, 0);
}

static void fill_victim(const struct meter_victim *found, Hotcell__Runtime__V1__Victim *ret_victim)
{
        hotcell__runtime__v1__victim__init(ret_victim);
        ret_victim->pid = found->pid;
        ret_victim->rss_bytes = found->rss_bytes;
        ret_victim->command.data = (uint8_t *)unconst(found->command);
        ret_victim->command.len = strlen(found->command);
}

void messages_process_ended(struct supervisor *supervisor, struct process *process)
{
        const struct meter_victim *found = &process->usage.programs.victim;
        struct usage_message usage;
        Hotcell__Runtime__V1__Victim victim;
        Hotcell__Runtime__V1__ProcessEnded ended;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(PROCESS_ENDED));
        int status = process->wait_status;

        hotcell__runtime__v1__process_ended__init(&ended);
        metering_fill(&process->usage, &usage);
        traffic_fill_process(process, &usage);
        ended.sandbox_id = unconst(process->sandbox->id);
        ended.process_id = unconst(process->id);
        ended.exit_code = WIFEXITED(status) ? (uint32_t)WEXITSTATUS(status) : 0;
        ended.signal = WIFSIGNALED(status) ? (uint32_t)WTERMSIG(status) : 0;
        ended.oom = process->usage.files.oom_kills > 0;
        ended.usage = &usage.usage;
        ended.memory_limit_bytes = ended.oom ? process->oom_limit_bytes : 0;
        ended.with_sandbox = process->ended_with_sandbox && !ended.oom;
        if (ended.oom && found->pid > 0) {
                fill_victim(found, &victim);
                ended.victim = &victim;
        }
        message.process_ended = &ended;
        send_event(supervisor, &message);
}

void messages_sandbox_ended(struct supervisor *supervisor, struct sandbox *sandbox)
{
        struct usage_message usage;
        Hotcell__Runtime__V1__SandboxEnded ended;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(SANDBOX_ENDED));

        hotcell__runtime__v1__sandbox_ended__init(&ended);
        metering_fill(&sandbox->usage, &usage);
        traffic_fill_sandbox(sandbox, &usage);
        if (sandbox->has_usage)
                ended.usage = &usage.usage;
        ended.sandbox_id = unconst(sandbox->id);
        ended.oom = sandbox->is_oom;
        ended.detail = unconst(sandbox->detail);
        message.sandbox_ended = &ended;
        send_event(supervisor, &message);
}

void messages_pressure(struct supervisor *supervisor, const struct sandbox *sandbox,
                       const struct pressure_level *level)
{
        Hotcell__Runtime__V1__Pressure pressure;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(PRESSURE));

        if (supervisor->protocol < CONTROL_PROTOCOL_PRESSURE)
                return;
        hotcell__runtime__v1__pressure__init(&pressure);
        pressure.sandbox_id = unconst(sandbox->id);
        pressure.kind = level->kind;
        pressure.used = level->used;
        pressure.limit = level->limit;
        message.pressure = &pressure;
        send_event(supervisor, &message);
}

void messages_repeat_ends(struct supervisor *supervisor)
{
        struct sandbox *sandbox;
        struct sandbox *next_sandbox;
        struct process *process;
        struct process *next_process;

        HASH_ITER(hh, supervisor->sandboxes, sandbox, next_sandbox)
        {
                HASH_ITER(hh, sandbox->processes, process, next_process)
                {
                        if (!process_is_alive(process))
                                messages_process_ended(supervisor, process);
                }
                if (sandbox->state == SANDBOX_ENDED)
                        messages_sandbox_ended(supervisor, sandbox);
        }
}

/* Returns the bytes that it will take, or zero without memory. */
static size_t fill_state(Hotcell__Runtime__V1__SandboxState *state,
                         Hotcell__Runtime__V1__SandboxLimits *limits, const struct sandbox *sandbox)
{
        size_t n_bytes = sizeof(*state) + sizeof(*limits);
        struct process *process;
        struct process *following;

        hotcell__runtime__v1__sandbox_state__init(state);
        state->sandbox_id = unconst(sandbox->id);
        state->cgroup_id = sandbox->group.id;
        state->running = sandbox->state == SANDBOX_RUNNING;
        *limits = limits_to_message(&sandbox->limits);
        state->limits = limits;
        state->process_ids = calloc(HASH_COUNT(sandbox->processes) + 1, sizeof(char *));
        if (!state->process_ids)
                return 0;
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                state->process_ids[state->n_process_ids++] = process->id;
                n_bytes += sizeof(process->id) + 2;
        }
        return n_bytes;
}

void messages_answer_list(struct supervisor *supervisor, struct ticket ticket,
                          const char *after_sandbox_id)
{
        Hotcell__Runtime__V1__SandboxState states[LIST_SANDBOXES_MAX] = { 0 };
        Hotcell__Runtime__V1__SandboxState *pointers[LIST_SANDBOXES_MAX];
        Hotcell__Runtime__V1__SandboxLimits limits[LIST_SANDBOXES_MAX];
        Hotcell__Runtime__V1__SandboxList list;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(SANDBOX_LIST));
        size_t n_bytes = 0;
        struct sandbox *sandbox;
        struct sandbox *following;

        hotcell__runtime__v1__sandbox_list__init(&list);
        sandbox_table_sort(&supervisor->sandboxes);
        HASH_ITER(hh, supervisor->sandboxes, sandbox, following)
        {
                if (strcmp(sandbox->id, after_sandbox_id) <= 0)
                        continue;
                if (list.n_sandboxes == LIST_SANDBOXES_MAX || n_bytes > LIST_BYTES_MAX) {
                        list.more = true;
                        break;
                }
                n_bytes +=
                        fill_state(&states[list.n_sandboxes], &limits[list.n_sandboxes], sandbox);
                pointers[list.n_sandboxes] = &states[list.n_sandboxes];
                list.n_sandboxes++;
        }
        list.sandboxes = pointers;
        message.sandbox_list = &list;
        messages_answer(supervisor, ticket, &message, NULL, 0);
        for (size_t i = 0; i < list.n_sandboxes; i++)
                free(states[i].process_ids);
} /* NOLINT(clang-analyzer-unix.Malloc): freed in the loop above */

void messages_egress_ready(struct supervisor *supervisor)
{
        Hotcell__Runtime__V1__EgressReady ready;
        Hotcell__Runtime__V1__FromRuntime message = new_message(BODY(EGRESS_READY));
        int fd;

        if (!supervisor->relay || !supervisor->is_greeted ||
            supervisor->protocol < CONTROL_PROTOCOL_EGRESS)
                return;
        /* A want of descriptors: hotcelld is better started anew, when some are free. */
        if (relay_open_server_socket(supervisor->relay, &fd)) {
                channel_drop(supervisor->channel);
                return;
        }
        hotcell__runtime__v1__egress_ready__init(&ready);
        message.egress_ready = &ready;
        send_message(supervisor, &message, &fd, 1);
}
