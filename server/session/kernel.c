/*
 * A kernel's life, from the request to start it to its end. All that it says goes through the
 * channel's observer to the execution that runs, or, when none does, to nowhere.
 */
#include "server/session/kernel.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/context.h"
#include "server/session/journal.h"
#include "server/session/kernel_request.h"
#include "server/session/meters.h"
#include "server/session/outcome.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

enum {
        CLOSED_GRACE_USEC = 1000 * 1000,  /* between a closed channel and the end of its process */
        N_STARTED_FDS = 1 + KERNEL_PIPES, /* a pidfd first */
        SCRATCH = 64 << 10,
};

static const struct {
        const char *name;
        unsigned next;
} kernel_states[] = {
        [KERNEL_NONE] = { "none", BIT(KERNEL_ASKED) | BIT(KERNEL_STARTING) | BIT(KERNEL_READY) |
                                          BIT(KERNEL_KILLED) },
        [KERNEL_ASKED] = { "asked", BIT(KERNEL_NONE) | BIT(KERNEL_UNWANTED) | BIT(KERNEL_MISSED) |
                                            BIT(KERNEL_STARTING) | BIT(KERNEL_KILLED) },
        [KERNEL_UNWANTED] = { "unwanted",
                              BIT(KERNEL_NONE) | BIT(KERNEL_MISSED) | BIT(KERNEL_KILLED) },
        [KERNEL_MISSED] = { "missed", BIT(KERNEL_NONE) | BIT(KERNEL_DRAINING) },
        [KERNEL_STARTING] = { "starting",
                              BIT(KERNEL_READY) | BIT(KERNEL_KILLED) | BIT(KERNEL_DRAINING) },
        [KERNEL_READY] = { "ready", BIT(KERNEL_KILLED) | BIT(KERNEL_DRAINING) },
        [KERNEL_KILLED] = { "killed", BIT(KERNEL_DRAINING) },
        [KERNEL_DRAINING] = { "draining", BIT(KERNEL_NONE) },
};
static_assert(ARRAY_SIZE(kernel_states) == _KERNEL_STATE_N, "every state has a row");

static uint8_t scratch[SCRATCH]; /* thrown away; loop thread only */

static void kernel_check(const struct kernel *kernel)
{
        bool has_channel = kernel->state == KERNEL_STARTING || kernel->state == KERNEL_READY;
        bool may_have_channel =
                has_channel || kernel->state == KERNEL_KILLED || kernel->state == KERNEL_DRAINING;

        assert(!has_channel || kernel->channel);
        assert(may_have_channel || !kernel->channel);
        assert(has_channel || kernel->state == KERNEL_ASKED || !kernel->timer);
}

static void kernel_enter(struct context *context, enum kernel_state next)
{
        struct kernel *kernel = &context->kernel;

        assert(kernel_states[kernel->state].next & BIT(next));

        log_debug("a kernel moves context=%s from=%s to=%s", context->record.context_id,
                  kernel_states[kernel->state].name, kernel_states[next].name);
        /* Only the timer of the start goes on, from ASKED to STARTING. */
        if (next != KERNEL_STARTING)
                kernel->timer = sd_event_source_disable_unref(kernel->timer);
        kernel->state = next;
        kernel_check(kernel);
}

/* The execution whose output this is; NULL between executions. */
static struct execution *running(struct context *context)
{
        struct execution *execution = context->current;

        return execution && execution->phase == PHASE_RUNNING ? execution : NULL;
}

/* What comes between executions is dropped. */
static int take_background(struct context *context, enum channel_stream stream, int fd,
                           size_t limit, size_t *ret_n)
{
        ssize_t n;

        do
                n = read(fd, scratch, MIN(limit, sizeof(scratch)));
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        *ret_n = (size_t)n;
        context->n_background_bytes += (uint64_t)n;
        if (context->kernel.state != KERNEL_READY && stream == CHANNEL_STDERR)
                last_words_add(&context->kernel.last_words, scratch, (size_t)n);
        return 0;
}

static int on_take(void *userdata, enum channel_stream stream, int fd, size_t limit, size_t *ret_n)
{
        struct context *context = userdata;
        struct execution *execution = running(context);

        if (execution)
                return execution_take(execution, stream, fd, limit, ret_n);
        return take_background(context, stream, fd, limit, ret_n);
}

static bool on_has_room(void *userdata, size_t n_payload)
{
        struct execution *execution = running(userdata);

        return !execution || execution_has_room(execution, n_payload);
}

void kernel_save(struct context *context)
{
        struct kernel *kernel = &context->kernel;
        struct journal *journal = kernel->journal;
        struct journal_state *state;

        /* What is half done is saved when it is done. */
        if (!journal || !kernel->channel || channel_is_handling(kernel->channel))
                return;
        state = &journal->state;
        state->is_ready = kernel->has_said_ready;
        state->is_killed = kernel->state == KERNEL_KILLED;
        state->cgroup_id = kernel->cgroup_id;
        (void)snprintf(state->protocol_error, sizeof(state->protocol_error), "%s",
                       kernel->end.protocol_error ? kernel->end.protocol_error : "");
        channel_save(kernel->channel, &state->channel);
        for (size_t i = 0; i < JOURNAL_RINGS; i++)
                if (journal->holders[i])
                        execution_save(journal->holders[i], &state->executions[i]);
        journal_commit(journal);
}

static void on_progress(void *userdata)
{
        kernel_save(userdata);
}

/* It said so, and no restart of the server can lose it any more. */
static void check_ready(struct context *context)
{
        struct kernel *kernel = &context->kernel;

        if (kernel->state != KERNEL_STARTING || !kernel->has_said_ready ||
            !kernel->journal->is_kept)
                return;
        kernel_enter(context, KERNEL_READY);
        log_debug("an interpreter is ready context=%s sandbox=%s generation=%lld",
                  context->record.context_id, context->record.sandbox_id,
                  (long long)context->record.generation);
        context_on_kernel_ready(context);
}

static void on_frame(void *userdata, const struct kernel_frame *frame, bool is_too_large)
{
        struct context *context = userdata;
        struct execution *execution = running(context);

        if (frame->type == HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_READY)
                context->kernel.has_said_ready = true;
        else if (execution)
                execution_on_frame(execution, frame, is_too_large);
        check_ready(context);
}

/* It will never be ready; what to say about it comes with its end. */
static void fail_start(struct kernel *kernel, enum start_failure failure)
{
        if (kernel->end.failure.outcome)
                return;
        kernel->end.failure.outcome = SESSION_E_KERNEL_FAILED;
        kernel->end.failure_cause = outcome_of_start(failure)->cause;
}

static void break_protocol(struct context *context, const char *why)
{
        struct kernel *kernel = &context->kernel;

        log_warning_of(&context->sandbox->holder->log,
                       "an interpreter broke its protocol context=%s sandbox=%s reason=\"%s\"",
                       context->record.context_id, context->record.sandbox_id, why);
        if (!kernel->end.protocol_error)
                kernel->end.protocol_error = why;
        if (kernel->state == KERNEL_STARTING)
                fail_start(kernel, START_PROTOCOL);
        kernel_kill(context);
}

static void on_malformed(void *userdata, const char *why)
{
        break_protocol(userdata, why);
}

static int on_closed_too_long(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        break_protocol(userdata, "it closed its channel");
        return 0;
}

/* A process that ends closes its pipes first: wait for the word of its parent. */
static void on_closed(void *userdata)
{
        struct context *context = userdata;

        if (context->kernel.state == KERNEL_STARTING || context->kernel.state == KERNEL_READY)
                (void)session_arm(context->session, &context->kernel.timer, CLOSED_GRACE_USEC,
                                  on_closed_too_long, context);
}

static void kernel_over(struct context *context);

static void on_drained(void *userdata)
{
        kernel_over(userdata);
}

static const struct channel_observer observer = {
        .take_output = on_take,
        .has_room = on_has_room,
        .on_frame = on_frame,
        .on_progress = on_progress,
        .on_malformed = on_malformed,
        .on_closed = on_closed,
        .on_drained = on_drained,
};

void kernel_deinit(struct kernel *kernel)
{
        kernel->timer = sd_event_source_disable_unref(kernel->timer);
        kernel->channel = channel_free(kernel->channel);
        if (kernel->journal)
                kernel->journal->context = NULL;
        kernel->journal = journal_unref(kernel->journal);
}

/* Why an interpreter that was not ready yet came to its end. */
static void explain_failure(struct context *context)
{
        struct kernel *kernel = &context->kernel;
        const struct process_end *end = &kernel->end.process;
        char said[LAST_WORDS_BUFFER];
        char how[64];

        last_words_print(&kernel->last_words, said);
        if (outcome_start_failure(end) == START_OOM)
                (void)snprintf(how, sizeof(how), "ran out of memory");
        else if (kernel->end.protocol_error)
                (void)snprintf(how, sizeof(how), "broke its protocol");
        else if (end->signal)
                (void)snprintf(how, sizeof(how), "was ended by signal %d", end->signal);
        else
                (void)snprintf(how, sizeof(how), "exited with code %d", end->exit_code);
        kernel->end.failure =
                result_of(SESSION_E_KERNEL_FAILED,
                          "The interpreter of context %.40s %s while it started%s%.100s",
                          context->record.context_id, how, said[0] ? ": " : ".", said);
}

/* Nothing of it is left. */
static void kernel_over(struct context *context)
{
        struct kernel *kernel = &context->kernel;
        const struct process_end *end = &kernel->end.process;
        uint64_t n_dropped = kernel->channel ? channel_n_dropped(kernel->channel) : 0;
        struct kernel_end told; /* the next start may begin while it is told */

        if (kernel->end.failure.outcome && !kernel->end.failure.message[0])
                explain_failure(context);
        if (kernel->journal)
                kernel->journal->is_end_seen = end->kind == PROCESS_END_SEEN;
        else if (end->kind == PROCESS_END_SEEN)
                session_acknowledge_end(context->session, context->record.sandbox_id,
                                        kernel->process_id);
        kernel_deinit(kernel);
        kernel_enter(context, KERNEL_NONE);
        log_debug("an interpreter is gone context=%s sandbox=%s exit_code=%d signal=%d oom=%d "
                  "background_bytes=%llu dropped_frames=%llu",
                  context->record.context_id, context->record.sandbox_id, end->exit_code,
                  end->signal, end->oom, (unsigned long long)context->n_background_bytes,
                  (unsigned long long)n_dropped);
        told = kernel->end;
        context_on_kernel_over(context, &told);
}

static int on_start_timeout(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct context *context = userdata;
        struct kernel *kernel = &context->kernel;

        (void)source;
        (void)usec;
        kernel->end.failure = result_of(SESSION_E_KERNEL_FAILED,
                                        "The interpreter of context %s was not ready in time.",
                                        context->record.context_id);
        kernel->end.failure_cause = outcome_of_start(START_TOO_SLOW)->cause;
        kernel_kill(context);
        return 0;
}

static int arm_start(struct context *context)
{
        int64_t usec = context->session->config.kernel_start_timeout_usec;

        return session_arm(context->session, &context->kernel.timer,
                           (uint64_t)MAX(usec, (int64_t)1), on_start_timeout, context);
}

static enum start_failure refusal_of(const struct session_result *result)
{
        if (result->outcome == SESSION_E_RUNTIME_UNAVAILABLE)
                return START_RUNTIME_LOST;
        return result->outcome == SESSION_E_HOST_EXHAUSTED || result->outcome == -ENOMEM
                       ? START_NO_ROOM
                       : START_REFUSED;
}

/* The runtime refused to start it, or could not be asked. */
static void start_failed(struct context *context, const struct session_result *result)
{
        context->kernel.end = (struct kernel_end){
                .process.kind = PROCESS_END_NOT_STARTED,
                .failure = *result,
                .failure_cause = outcome_of_start(refusal_of(result))->cause,
        };
        kernel_over(context);
}

static struct channel_config channel_config(struct context *context)
{
        return (struct channel_config){
                .loop = context->session->loop,
                .inlet = context->kernel.journal->inlet,
                .part_max_bytes = (uint64_t)context->session->config.rich_part_max_bytes,
                .observer = &observer,
                .userdata = context,
        };
}

static struct channel_fds take_pipes(int fds[static KERNEL_PIPES])
{
        return (struct channel_fds){
                .outputs = { [CHANNEL_STDOUT] = take_fd(&fds[0]),
                             [CHANNEL_STDERR] = take_fd(&fds[1]) },
                .commands = take_fd(&fds[2]),
                .events = take_fd(&fds[3]),
        };
}

/* A channel that cannot be written to is kept, too: what comes from it can be read. */
static int open_channel(struct context *context, struct runtime_fds *fds)
{
        struct kernel *kernel = &context->kernel;
        struct channel_config config;
        struct channel_fds pipes;
        int r;

        if (fds->n != N_STARTED_FDS)
                return error_origin(-EPROTO);
        r = journal_new(context->session, context->record.sandbox_id, kernel->process_id,
                        (size_t)context->session->config.ring_bytes, &kernel->journal);
        if (r)
                return error_fold(r);
        kernel->journal->context = context;
        pipes = take_pipes(fds->fds + 1);
        config = channel_config(context);
        r = channel_new(&config, &pipes, &kernel->channel);
        if (r)
                return error_fold(r);
        r = channel_queue_hello(kernel->channel, context->record.working_directory);
        if (r)
                return error_fold(r);
        kernel_save(context);
        channel_flush(kernel->channel);
        return 0;
}

static void send_kill(struct context *context)
{
        session_signal_process(context->session, context->record.sandbox_id,
                               context->kernel.process_id, SIGKILL);
        if (context->kernel.state != KERNEL_KILLED)
                kernel_enter(context, KERNEL_KILLED);
        kernel_save(context);
}

/* Its end is known: what is left in its pipes first, then its end. */
static void drain(struct context *context)
{
        kernel_enter(context, KERNEL_DRAINING);
        if (context->kernel.channel)
                channel_finish(context->kernel.channel);
        else
                kernel_over(context);
}

/* A restart of the server would lose what runs in it: so nothing runs in it. */
static void not_kept(struct context *context, const char *why)
{
        struct kernel *kernel = &context->kernel;
        struct execution *execution = running(context);

        if (kernel->state != KERNEL_STARTING && kernel->state != KERNEL_READY)
                return; /* it ends anyway */
        log_error("an interpreter's journal is not kept context=%s reason=\"%s\"",
                  context->record.context_id, why);
        if (!kernel->end.failure.outcome) {
                kernel->end.failure = result_of(SESSION_E_KERNEL_FAILED,
                                                "The interpreter of context %s cannot "
                                                "be used: %s",
                                                context->record.context_id, why);
                kernel->end.failure_cause = outcome_of_start(START_NO_ROOM)->cause;
        }
        if (execution)
                execution_stop(execution, OUTCOME_KILLED, CAUSE_LIMIT, true);
        kernel_kill(context);
}

static void on_kept(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                    struct runtime_fds *fds)
{
        struct journal *journal = userdata;
        struct context *context = journal->context;

        (void)fds;
        journal->n_keeping--;
        /* Without an answer the runtime is lost, and with it all of this. */
        if (context && answer &&
            answer->body_case != HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_DONE) {
                struct session_result result = result_of_runtime(answer, "what outlives a restart");

                not_kept(context, result.message);
        } else if (context && answer && journal->n_keeping == 0) {
                journal->is_kept = true;
                check_ready(context);
                context_pump(context);
        }
        (void)journal_unref(journal);
}

/* Has the runtime keep what a successor needs. Until then nothing runs. */
static void keep_journal(struct context *context)
{
        struct journal *journal = context->kernel.journal;
        int fds[JOURNAL_FDS];
        int r;

        if (!session_can_keep(context->session)) {
                journal->is_kept = true; /* an older runtime: a restart will lose what runs */
                return;
        }
        journal->is_kept = false;
        if (!journal_fds(journal, fds))
                return;
        r = session_keep(context->session, context->record.sandbox_id, context->kernel.process_id,
                         fds, JOURNAL_FDS, on_kept, journal_ref(journal));
        if (r) {
                (void)journal_unref(journal);
                not_kept(context, "the runtime cannot be asked to keep its state.");
                return;
        }
        journal->n_keeping++;
}

void kernel_on_ring_released(struct context *context)
{
        struct journal *journal = context->kernel.journal;
        size_t n_missing = 0;
        int r = 0;

        for (size_t i = 0; i < JOURNAL_RINGS; i++) {
                if (journal->rings[i])
                        continue;
                n_missing++;
                r = ring_new((size_t)context->session->config.ring_bytes, &journal->rings[i]);
        }
        if (r && n_missing == JOURNAL_RINGS)
                not_kept(context, "there is no memory for its output."); /* nobody will try again */
        else if (r)
                log_error("there is no memory for the output of a context context=%s",
                          context->record.context_id);
        else if (n_missing > 0)
                keep_journal(context);
}

static void on_process_started(struct context *context, struct runtime_fds *fds)
{
        struct kernel *kernel = &context->kernel;
        int r;

        r = open_channel(context, fds);
        if (r) {
                kernel->end.failure =
                        result_of(r, "The interpreter of context %s cannot be spoken to: %s.",
                                  context->record.context_id, strerror(-r));
                kernel->end.failure_cause = outcome_of_start(START_NO_ROOM)->cause;
        }
        if (kernel->state == KERNEL_MISSED)
                drain(context);
        else if (kernel->state == KERNEL_UNWANTED || r)
                send_kill(context);
        else {
                kernel_enter(context, KERNEL_STARTING);
                keep_journal(context);
        }
}

int kernel_take_over(struct context *context, struct journal *journal, int fds[static KERNEL_PIPES],
                     const Hotcell__Sandbox__V1__Execute *execute)
{
        struct kernel *kernel = &context->kernel;
        const struct journal_state *state = &journal->state;
        struct channel_fds pipes = take_pipes(fds);
        struct channel_config config;
        int r;

        assert(kernel->state == KERNEL_NONE);
        *kernel = (struct kernel){ .state = KERNEL_NONE };
        (void)snprintf(kernel->process_id, sizeof(kernel->process_id), "%s", state->process_id);
        kernel->journal = journal;
        journal->context = context;
        kernel->cgroup_id = state->cgroup_id;
        kernel->has_said_ready = state->is_ready;
        if (state->protocol_error[0])
                kernel->end.protocol_error =
                        state->protocol_error; /* the journal is the kernel's */
        config = channel_config(context);
        r = channel_restore(&config, &pipes, &state->channel, context->record.working_directory,
                            execute, &kernel->channel);
        if (r) {
                kernel_deinit(kernel);
                return error_fold(r);
        }
        kernel_enter(context, state->is_killed  ? KERNEL_KILLED
                              : state->is_ready ? KERNEL_READY
                                                : KERNEL_STARTING);
        return 0;
}

void kernel_go_on(struct context *context)
{
        struct kernel *kernel = &context->kernel;

        if (kernel->state == KERNEL_KILLED)
                send_kill(context);
        if (kernel->state == KERNEL_STARTING)
                (void)arm_start(context);
        channel_flush(kernel->channel);
        channel_resume(kernel->channel);
}

static void on_start_answer(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                            struct runtime_fds *fds)
{
        struct context *context = userdata;
        struct sandbox *sandbox = context->sandbox;

        context->n_pending--;
        if (answer &&
            answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_PROCESS_STARTED) {
                context->kernel.cgroup_id = answer->process_started->cgroup_id;
                on_process_started(context, fds);
        } else {
                struct session_result result = kernel_explain_refusal(context, answer);

                start_failed(context, &result);
        }
        context_check_gone(context);
        sandbox_check(sandbox);
}

void kernel_start(struct context *context)
{
        struct kernel *kernel = &context->kernel;
        int r;

        assert(kernel->state == KERNEL_NONE);
        *kernel = (struct kernel){ .state = KERNEL_NONE };
        (void)snprintf(kernel->process_id, sizeof(kernel->process_id), "%.40s-g%lld",
                       context->record.context_id, (long long)context->record.generation);
        kernel_enter(context, KERNEL_ASKED);
        r = kernel_request_start(context, on_start_answer);
        if (r) {
                struct session_result result = result_of(
                        r, "The interpreter of context %s cannot be started%s.",
                        context->record.context_id,
                        r == SESSION_E_UNKNOWN_LANGUAGE ? ": its template has no such language"
                                                        : " without the runtime");

                start_failed(context, &result);
                return;
        }
        context->n_pending++;
        (void)arm_start(context);
}

void kernel_kill(struct context *context)
{
        switch (context->kernel.state) {
        case KERNEL_ASKED:
                kernel_enter(context, KERNEL_UNWANTED);
                break;
        case KERNEL_STARTING:
        case KERNEL_READY:
        case KERNEL_KILLED: /* again: the last one may not have reached the runtime */
                send_kill(context);
                break;
        case KERNEL_NONE:
        case KERNEL_UNWANTED:
        case KERNEL_MISSED:
        case KERNEL_DRAINING:
        case _KERNEL_STATE_N:
                break;
        }
}

void kernel_interrupt(struct context *context)
{
        if (context->kernel.state == KERNEL_READY)
                session_signal_process(context->session, context->record.sandbox_id,
                                       context->kernel.process_id, SIGINT);
}

/* The process is gone. */
static void finish(struct context *context, const struct process_end *end)
{
        struct kernel *kernel = &context->kernel;
        enum kernel_state state = kernel->state;

        if (state == KERNEL_NONE || state == KERNEL_MISSED || state == KERNEL_DRAINING)
                return;
        kernel->end.process = *end;
        if (state == KERNEL_ASKED || state == KERNEL_STARTING)
                fail_start(kernel, outcome_start_failure(end));
        if (state == KERNEL_ASKED || state == KERNEL_UNWANTED)
                kernel_enter(context, KERNEL_MISSED);
        else
                drain(context);
}

void kernel_on_process_ended(struct context *context,
                             const Hotcell__Runtime__V1__ProcessEnded *ended)
{
        struct execution *execution = running(context);
        struct process_end end = {
                .kind = PROCESS_END_SEEN,
                .exit_code = (int32_t)ended->exit_code,
                .signal = (int32_t)ended->signal,
                .oom = ended->oom,
                .oom_limit_bytes = meter_amount(ended->memory_limit_bytes),
        };

        if (ended->with_sandbox) {
                /* Why is told with the sandbox's end, the meters are gone with that. */
                if (execution && ended->usage)
                        execution_take_meters(execution, ended->usage);
                return;
        }
        if (ended->usage) {
                end.has_usage = true;
                usage_from_meters(ended->usage, &end.usage);
        }
        if (ended->victim) {
                end.has_victim = true;
                outcome_take_victim(ended->victim, &end.victim);
        }
        finish(context, &end);
}

void kernel_on_gone(struct context *context, enum process_end_kind kind)
{
        struct process_end end = { .kind = kind, .signal = SIGKILL };

        finish(context, &end);
}
