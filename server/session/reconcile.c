/*
 * What the database says lives is compared with what the runtime has: first the runtime is asked
 * for everything, then the database, then for each process what is kept with it. Only when all of
 * that is here it is decided, in one go and without waiting, what becomes of each sandbox, kernel
 * and execution; until then nothing of it is in the session, so nobody can find, end or use it
 * half-way. Whatever fails before that begins anew after a second.
 *
 * A sandbox that both know goes on, with its interpreters and what runs in them (takeover.c).
 * Everything that is gone is recorded as lost, with the reason (reconcile_losses.c). Whatever the
 * runtime has that nobody knows is destroyed. Ends that the runtime tells meanwhile wait until it
 * is known whose they are.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/limiting.h"
#include "server/session/living_copy.h"
#include "server/session/meters.h"
#include "server/session/reconcile_private.h"

enum {
        RETRY_USEC = 1000 * 1000,
        TAKING_MAX = 32, /* asked for at once: their descriptors wait in the runtime's queue */
};

static const struct {
        const char *name;
        unsigned next;
} steps[] = {
        [RECONCILE_LISTING] = { "listing", BIT(RECONCILE_LISTING) | BIT(RECONCILE_LOADING) |
                                                   BIT(RECONCILE_SETTLED) },
        [RECONCILE_LOADING] = { "loading", BIT(RECONCILE_LISTING) | BIT(RECONCILE_TAKING) },
        [RECONCILE_TAKING] = { "taking", BIT(RECONCILE_LISTING) | BIT(RECONCILE_SETTLED) },
        [RECONCILE_SETTLED] = { "settled", 0 },
};
static_assert(ARRAY_SIZE(steps) == _RECONCILIATION_STEP_N, "every step has a row");

static void enter(struct reconciliation *reconciliation, enum reconciliation_step next)
{
        assert(steps[reconciliation->step].next & BIT(next));

        log_debug("the reconciliation moves from=%s to=%s", steps[reconciliation->step].name,
                  steps[next].name);
        reconciliation->step = next;
}

static void free_found(struct reconciliation *reconciliation)
{
        struct map_node *node;

        while ((node = map_first(&reconciliation->found))) {
                struct found *found = CONTAINER_OF(node, struct found, by_id);

                map_remove(&reconciliation->found, node);
                free(found->process_ids);
                free(found);
        }
}

/* What was asked for: it is asked for again. What was heard is not told twice. */
static void forget_answers(struct reconciliation *reconciliation)
{
        free_found(reconciliation);
        living_deinit(&reconciliation->living);
        takeover_deinit(&reconciliation->takeover);
        takeover_init(&reconciliation->takeover, reconciliation->session);
        while (!STAILQ_EMPTY(&reconciliation->to_take)) {
                struct taking *taking = STAILQ_FIRST(&reconciliation->to_take);

                STAILQ_REMOVE_HEAD(&reconciliation->to_take, link);
                free(taking);
        }
}

static void free_reconciliation(struct reconciliation *reconciliation)
{
        forget_answers(reconciliation);
        for (size_t i = 0; i < reconciliation->n_heard; i++)
                hotcell__runtime__v1__from_runtime__free_unpacked(reconciliation->heard[i], NULL);
        free(reconciliation->heard);
        free(reconciliation->heard_sandboxes);
        (void)sd_event_source_disable_unref(reconciliation->retry);
        free(reconciliation);
}

void reconciliation_hold(struct reconciliation *reconciliation)
{
        reconciliation->n_pending++;
        reconciliation->owner->n_pending++;
}

bool reconciliation_release(struct reconciliation *reconciliation)
{
        struct session *owner = reconciliation->owner;
        bool is_alive = reconciliation->session;

        owner->n_pending--;
        reconciliation->n_pending--;
        if (!is_alive && reconciliation->n_pending == 0)
                free_reconciliation(reconciliation);
        if (!is_alive)
                session_check_stopped(owner);
        return is_alive;
}

static void list_after(struct reconciliation *reconciliation, const char *sandbox_id);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct reconciliation *reconciliation = userdata;

        (void)source;
        (void)usec;
        list_after(reconciliation, "");
        return 0;
}

/* Begins anew once nothing is awaited any more. */
static void fail(struct reconciliation *reconciliation, const char *what)
{
        if (!reconciliation->has_failed)
                log_error(
                        "the database and the runtime cannot be compared, trying again reason=\"%s\"",
                        what);
        reconciliation->has_failed = true;
        reconciliation_check(reconciliation);
}

static void begin_anew(struct reconciliation *reconciliation)
{
        reconciliation->has_failed = false;
        enter(reconciliation, RECONCILE_LISTING);
        forget_answers(reconciliation);
        /* Without a timer only the next connection begins anew. */
        (void)session_arm(reconciliation->session, &reconciliation->retry, RETRY_USEC, on_retry,
                          reconciliation);
}

static void finish(struct reconciliation *reconciliation)
{
        struct session *session = reconciliation->session;

        log_info("the database and the runtime agree sandboxes_kept=%zu sandboxes_lost=%zu "
                 "sandboxes_destroyed=%zu executions_resumed=%zu executions_requeued=%zu "
                 "executions_lost=%zu",
                 reconciliation->n_kept, reconciliation->n_lost, reconciliation->n_destroyed,
                 reconciliation->takeover.n_resumed, reconciliation->takeover.n_requeued,
                 reconciliation->n_executions_lost);
        session->was_reconciled = true;
        session->reconciliation = NULL;
        free_reconciliation(reconciliation);
        session_on_reconciled(session);
}

static void settle(struct reconciliation *reconciliation);

void reconciliation_check(struct reconciliation *reconciliation)
{
        if (reconciliation->n_pending > 0)
                return;
        if (reconciliation->has_failed) {
                begin_anew(reconciliation);
                return;
        }
        if (reconciliation->step == RECONCILE_TAKING) {
                reconciliation_hold(reconciliation); /* while it is settled */
                settle(reconciliation);
                if (!reconciliation_release(reconciliation))
                        return;
        }
        if (reconciliation->step == RECONCILE_SETTLED && reconciliation->n_pending == 0)
                finish(reconciliation);
}

/* Deciding. */

static void on_destroyed(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                         struct runtime_fds *fds)
{
        (void)fds;
        if (answer && answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE)
                log_warning("a sandbox that nobody knows could not be destroyed message=\"%s\"",
                            answer->failure->message);
        if (reconciliation_release(userdata))
                reconciliation_check(userdata);
}

static void destroy_found(struct reconciliation *reconciliation, const struct found *found)
{
        log_warning("the runtime has a sandbox that is not known, it is destroyed sandbox=%s",
                    found->sandbox_id);
        reconciliation->n_destroyed++;
        if (session_destroy_sandbox(reconciliation->session, found->sandbox_id, on_destroyed,
                                    reconciliation) == 0)
                reconciliation_hold(reconciliation);
}

static void destroy_unknown(struct reconciliation *reconciliation)
{
        struct map_node *node;

        for (node = map_first(&reconciliation->found); node; node = map_next(node)) {
                const struct found *found = CONTAINER_OF(node, struct found, by_id);

                if (!found->is_known)
                        destroy_found(reconciliation, found);
        }
}

/* Process ids are never used twice: go on after the highest that the runtime knows. */
static int64_t last_generation(const struct found *found, const struct context_record *record)
{
        char context_id[ID_BUFFER];
        int64_t last = record->generation;
        int64_t generation;

        for (size_t i = 0; i < found->n_processes; i++)
                if (takeover_parse_process(found->process_ids[i], context_id, &generation) &&
                    strcmp(context_id, record->context_id) == 0)
                        last = MAX(last, generation);
        return last;
}

static int adopt_contexts(struct sandbox *sandbox, const struct living *living,
                          const struct found *found)
{
        for (size_t i = 0; i < living->n_contexts; i++) {
                const struct context_record *record = &living->contexts[i];
                int r;

                if (strcmp(record->sandbox_id, sandbox->record.sandbox_id) != 0)
                        continue;
                r = context_adopt(sandbox, record, last_generation(found, record));
                if (r)
                        return error_fold(r);
        }
        return 0;
}

/* All of it or nothing. */
static int adopt(struct reconciliation *reconciliation, const struct sandbox_record *record,
                 struct found *found)
{
        struct sandbox *sandbox;
        int r;

        r = sandbox_adopt(reconciliation->session, record, &sandbox);
        if (r)
                return error_fold(r);
        limiting_adopt(sandbox, &found->limits);
        r = adopt_contexts(sandbox, &reconciliation->living, found);
        if (r) {
                (void)sandbox_free(sandbox);
                return error_fold(r);
        }
        log_info("a sandbox goes on sandbox=%s processes=%zu", record->sandbox_id,
                 found->n_processes);
        found->is_known = true;
        reconciliation->n_kept++;
        return 0;
}

static struct found *find_found(const struct reconciliation *reconciliation, const char *sandbox_id)
{
        struct map_node *node = map_find(&reconciliation->found, sandbox_id, strlen(sandbox_id));

        return MAP_ITEM(node, struct found, by_id);
}

/* The runtime has it as it was made, and nobody has told of its end. */
static bool lives(const struct reconciliation *reconciliation, const struct sandbox_record *record)
{
        const char *boot_id = runtime_client_welcome(reconciliation->session->runtime)->boot_id;
        const struct found *found = find_found(reconciliation, record->sandbox_id);
        bool was_made = record->state == SANDBOX_RUNNING || record->state == SANDBOX_ENDING;

        return found && found->is_running && was_made && strcmp(record->boot_id, boot_id) == 0 &&
               !find_heard(reconciliation, record->sandbox_id);
}

static void decide_sandboxes(struct reconciliation *reconciliation)
{
        const struct living *living = &reconciliation->living;

        for (size_t i = 0; i < living->n_sandboxes; i++) {
                const struct sandbox_record *record = &living->sandboxes[i];

                /* What a lost connection ended may still be on its way to its row. */
                if (session_find_sandbox(reconciliation->session, NULL, record->sandbox_id))
                        continue;
                if (!lives(reconciliation, record) ||
                    adopt(reconciliation, record, find_found(reconciliation, record->sandbox_id)))
                        record_loss(reconciliation, record);
        }
        destroy_unknown(reconciliation);
}

static void decide_executions(struct reconciliation *reconciliation)
{
        const struct living *living = &reconciliation->living;
        const struct run_evidence no_memory = {
                .end = RUN_END_HOST_LOST,
                .words = "The server had no memory to go on with it.",
        };

        for (size_t i = 0; i < living->n_executions; i++) {
                const struct execution_record *record = &living->executions[i];

                if (session_find_execution(reconciliation->session, NULL, record->execution_id))
                        continue;
                if (!session_find_sandbox(reconciliation->session, NULL, record->sandbox_id))
                        record_gone_execution(reconciliation, record);
                else if (takeover_add_execution(&reconciliation->takeover, record,
                                                &living->requests[i]))
                        record_execution_loss(reconciliation, record, &no_memory);
        }
        takeover_settle(&reconciliation->takeover);
        record_unsettled(reconciliation);
}

/* Whoever was being ended ends; a one-shot sandbox without its execution has nobody who waits. */
static void end_unwanted(struct reconciliation *reconciliation)
{
        struct map_node *node, *next;

        for (node = map_first(&reconciliation->session->sandboxes); node; node = next) {
                struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                next = map_next(node);
                if (sandbox->was_ending)
                        sandbox_end(sandbox, sandbox->record.end_cause,
                                    sandbox->record.end_message);
                else if (sandbox->record.is_one_shot && sandbox->n_active == 0)
                        sandbox_end(sandbox, CAUSE_HOST_LOST,
                                    "The server was restarted before its execution was taken.");
                else
                        sandbox_arm_timers(sandbox);
        }
}

/* Ends that were told before anybody knew whose they are. */
static void deliver_heard(struct reconciliation *reconciliation)
{
        for (size_t i = 0; i < reconciliation->n_heard; i++)
                session_on_process_ended(reconciliation->session,
                                         reconciliation->heard[i]->process_ended);
}

static void on_policies_restored(void *userdata)
{
        if (reconciliation_release(userdata))
                reconciliation_check(userdata);
}

/* All that the runtime and the database have is here. From here on ends are told to the session. */
static void settle(struct reconciliation *reconciliation)
{
        enter(reconciliation, RECONCILE_SETTLED);
        decide_sandboxes(reconciliation);
        decide_executions(reconciliation);
        write_lost_sandboxes(reconciliation);
        takeover_go_on(&reconciliation->takeover);
        end_unwanted(reconciliation);
        deliver_heard(reconciliation);
        reconciliation_hold(reconciliation);
        session_restore_all(reconciliation->session, on_policies_restored, reconciliation);
        session_restore_limits(reconciliation->session);
        reconciliation->session->has_adopted = true;
        egress_client_resume(reconciliation->session->egress_client);
}

/* Asking. */

static void on_outputs(void *userdata, int result, const struct execution_output *outputs, size_t n)
{
        struct reconciliation *reconciliation = userdata;

        if (!reconciliation_release(reconciliation))
                return;
        if (result)
                log_error("what ended executions said cannot be read result=%d", result);
        for (size_t i = 0; i < n; i++)
                session_retain_kept(reconciliation->session, &outputs[i].record,
                                    &outputs[i].output);
        reconciliation_check(reconciliation);
}

static void load_outputs(struct reconciliation *reconciliation)
{
        struct session *session = reconciliation->session;
        int64_t total = session->config.shares.total[SESSION_SHARE_RINGS];

        reconciliation_hold(reconciliation);
        /* Somewhat more, as the database may have: what is too much goes by owner. */
        store_load_outputs(session->store, time_now_usec() - session->config.rings_retained_usec,
                           total + total / 2, on_outputs, reconciliation);
}

static void take_more(struct reconciliation *reconciliation);

static void on_taken(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                     struct runtime_fds *fds)
{
        struct taking *taking = userdata;
        struct reconciliation *reconciliation = taking->reconciliation;
        bool is_taken = answer &&
                        answer->body_case == HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_PROCESS_TAKEN;
        struct runtime_fds none = { 0 };
        int r;

        reconciliation->n_taking--;
        if (reconciliation_release(reconciliation)) {
                r = takeover_add_process(
                        &reconciliation->takeover, taking->sandbox_id, taking->process_id,
                        is_taken ? answer->process_taken->n_pipes : 0, is_taken ? fds : &none);
                take_more(reconciliation);
                if (r)
                        fail(reconciliation, "there is no memory");
                else
                        reconciliation_check(reconciliation);
        }
        free(taking);
}

static void take_more(struct reconciliation *reconciliation)
{
        while (!STAILQ_EMPTY(&reconciliation->to_take) && reconciliation->n_taking < TAKING_MAX) {
                struct taking *taking = STAILQ_FIRST(&reconciliation->to_take);

                STAILQ_REMOVE_HEAD(&reconciliation->to_take, link);
                if (session_take_process(reconciliation->session, taking->sandbox_id,
                                         taking->process_id, on_taken, taking)) {
                        free(taking);
                        fail(reconciliation, "the runtime cannot be asked for a process");
                        return;
                }
                reconciliation->n_taking++;
                reconciliation_hold(reconciliation);
        }
}

/* A process that is no kernel's has no place in what goes on. */
static int want_process(struct reconciliation *reconciliation, const char *sandbox_id,
                        const char *process_id)
{
        struct runtime_fds none = { 0 };
        struct taking *taking;

        if (!session_can_keep(reconciliation->session))
                return takeover_add_process(&reconciliation->takeover, sandbox_id, process_id, 0,
                                            &none);
        taking = calloc(1, sizeof(*taking));
        if (!taking)
                return error_origin(-ENOMEM);
        taking->reconciliation = reconciliation;
        (void)snprintf(taking->sandbox_id, sizeof(taking->sandbox_id), "%s", sandbox_id);
        (void)snprintf(taking->process_id, sizeof(taking->process_id), "%s", process_id);
        STAILQ_INSERT_TAIL(&reconciliation->to_take, taking, link);
        return 0;
}

static int want_processes(struct reconciliation *reconciliation)
{
        const struct living *living = &reconciliation->living;
        int r = 0;

        for (size_t i = 0; r == 0 && i < living->n_sandboxes; i++) {
                const char *sandbox_id = living->sandboxes[i].sandbox_id;
                const struct found *found = find_found(reconciliation, sandbox_id);

                if (!lives(reconciliation, &living->sandboxes[i]))
                        continue;
                for (size_t k = 0; r == 0 && k < found->n_processes; k++)
                        r = want_process(reconciliation, sandbox_id, found->process_ids[k]);
        }
        return r;
}

static void on_living(void *userdata, int result, const struct living *living)
{
        struct reconciliation *reconciliation = userdata;

        if (!reconciliation_release(reconciliation))
                return;
        if (result || living_copy(living, &reconciliation->living)) {
                fail(reconciliation, "what lives cannot be read");
                return;
        }
        enter(reconciliation, RECONCILE_TAKING);
        if (want_processes(reconciliation)) {
                fail(reconciliation, "there is no memory");
                return;
        }
        load_outputs(reconciliation);
        take_more(reconciliation);
}

static void load(struct reconciliation *reconciliation)
{
        struct session *session = reconciliation->session;

        if (session->was_reconciled) {
                /* What lived ended with the last connection: nothing of the runtime's is ours. */
                enter(reconciliation, RECONCILE_SETTLED);
                destroy_unknown(reconciliation);
                reconciliation_check(reconciliation);
                return;
        }
        enter(reconciliation, RECONCILE_LOADING);
        reconciliation_hold(reconciliation);
        store_load_living(session->store, on_living, reconciliation);
}

static int add_found(struct reconciliation *reconciliation,
                     const Hotcell__Runtime__V1__SandboxState *state)
{
        struct found *found = calloc(1, sizeof(*found));

        if (!found)
                return error_origin(-ENOMEM);
        found->process_ids = calloc(state->n_process_ids + 1, sizeof(*found->process_ids));
        if (!found->process_ids) {
                free(found);
                return error_origin(-ENOMEM);
        }
        (void)snprintf(found->sandbox_id, sizeof(found->sandbox_id), "%s", state->sandbox_id);
        found->is_running = state->running;
        if (state->limits)
                found->limits = limits_from_runtime(state->limits);
        for (size_t i = 0; i < state->n_process_ids; i++)
                (void)snprintf(found->process_ids[i], ID_BUFFER, "%s", state->process_ids[i]);
        found->n_processes = state->n_process_ids;
        map_add(&reconciliation->found, &found->by_id, found->sandbox_id,
                strlen(found->sandbox_id));
        return 0;
}

static void on_listed(void *userdata, const Hotcell__Runtime__V1__FromRuntime *answer,
                      struct runtime_fds *fds)
{
        struct reconciliation *reconciliation = userdata;
        const Hotcell__Runtime__V1__SandboxList *list;

        (void)fds;
        if (!reconciliation_release(reconciliation))
                return;
        if (!answer)
                return; /* the next connection begins anew */
        if (answer->body_case != HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_SANDBOX_LIST) {
                fail(reconciliation, "the runtime does not list its sandboxes");
                return;
        }
        list = answer->sandbox_list;
        for (size_t i = 0; i < list->n_sandboxes; i++)
                if (add_found(reconciliation, list->sandboxes[i])) {
                        fail(reconciliation, "there is no memory");
                        return;
                }
        if (list->more && list->n_sandboxes > 0)
                list_after(reconciliation, list->sandboxes[list->n_sandboxes - 1]->sandbox_id);
        else
                load(reconciliation);
}

static void list_after(struct reconciliation *reconciliation, const char *sandbox_id)
{
        Hotcell__Runtime__V1__ToRuntime request;
        Hotcell__Runtime__V1__ListSandboxes list;

        hotcell__runtime__v1__to_runtime__init(&request);
        hotcell__runtime__v1__list_sandboxes__init(&list);
        list.after_sandbox_id = unconst(sandbox_id);
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_LIST_SANDBOXES;
        request.list_sandboxes = &list;
        if (session_request(reconciliation->session, &request, on_listed, reconciliation) == 0)
                reconciliation_hold(reconciliation);
        else
                fail(reconciliation, "the runtime cannot be asked");
}

void session_reconcile(struct session *session)
{
        struct reconciliation *reconciliation = calloc(1, sizeof(*reconciliation));

        if (!reconciliation) {
                log_error("there is no memory to reconcile");
                runtime_client_reconnect(session->runtime);
                return;
        }
        reconciliation->session = session;
        reconciliation->owner = session;
        STAILQ_INIT(&reconciliation->to_take);
        LIST_INIT(&reconciliation->losses);
        takeover_init(&reconciliation->takeover, session);
        session->reconciliation = reconciliation;
        list_after(reconciliation, "");
}

void session_reconcile_cancel(struct session *session)
{
        struct reconciliation *reconciliation = session->reconciliation;

        if (!reconciliation)
                return;
        session->reconciliation = NULL;
        reconciliation->session = NULL;
        forget_losses(reconciliation);
        if (session_restore_forget(session)) {
                reconciliation->n_pending--;
                session->n_pending--;
        }
        if (reconciliation->n_pending == 0)
                free_reconciliation(reconciliation);
}

/* The whole message, for protobuf-c copies only by way of bytes. */
static Hotcell__Runtime__V1__FromRuntime *
copy_ended(const Hotcell__Runtime__V1__ProcessEnded *ended)
{
        Hotcell__Runtime__V1__FromRuntime message;
        _cleanup_(freep) uint8_t *bytes = NULL;
        size_t n;

        hotcell__runtime__v1__from_runtime__init(&message);
        message.body_case = HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_PROCESS_ENDED;
        message.process_ended = (Hotcell__Runtime__V1__ProcessEnded *)(uintptr_t)ended;
        n = hotcell__runtime__v1__from_runtime__get_packed_size(&message);
        bytes = malloc(n + 1);
        if (!bytes)
                return NULL;
        (void)hotcell__runtime__v1__from_runtime__pack(&message, bytes);
        return hotcell__runtime__v1__from_runtime__unpack(NULL, n, bytes);
}

bool session_reconcile_hear_process(struct session *session,
                                    const Hotcell__Runtime__V1__ProcessEnded *ended)
{
        struct reconciliation *reconciliation = session->reconciliation;
        Hotcell__Runtime__V1__FromRuntime **heard, *copy;

        if (!reconciliation || reconciliation->step == RECONCILE_SETTLED)
                return false;
        heard = reallocarray(reconciliation->heard, reconciliation->n_heard + 1, sizeof(void *));
        if (!heard)
                return false;
        reconciliation->heard = heard;
        copy = copy_ended(ended);
        if (!copy)
                return false;
        heard[reconciliation->n_heard++] = copy;
        return true;
}

bool session_reconcile_hear_sandbox(struct session *session,
                                    const Hotcell__Runtime__V1__SandboxEnded *ended)
{
        struct reconciliation *reconciliation = session->reconciliation;
        struct heard_sandbox *heard;

        if (!reconciliation || reconciliation->step == RECONCILE_SETTLED)
                return false;
        heard = reallocarray(reconciliation->heard_sandboxes, reconciliation->n_heard_sandboxes + 1,
                             sizeof(*heard));
        if (!heard)
                return true; /* it will be said that the runtime does not have it */
        reconciliation->heard_sandboxes = heard;
        heard += reconciliation->n_heard_sandboxes++;
        *heard = (struct heard_sandbox){ .oom = ended->oom, .has_usage = ended->usage };
        if (ended->usage)
                sandbox_usage_from_meters(ended->usage, &heard->usage);
        (void)snprintf(heard->sandbox_id, sizeof(heard->sandbox_id), "%s", ended->sandbox_id);
        return true;
}
