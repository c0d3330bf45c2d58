/*
 * What is in force is known only from hotcell-egress's answer to exactly that policy; a lost
 * connection is as if nothing were. A policy that cannot be restored is tried again and again.
 * When hotcell-egress refuses it, the policy before may still be in force there, so it is
 * asked to let nothing out; a sandbox of which not even that can be had ends.
 */
#include "server/session/enforcement.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/again.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/policy/policy.h"
#include "server/session/session_private.h"

enum {
        RESTORING_MAX = 32, /* asked for at once */
        RESTORED_RULES_A_TURN = 256,
        RETRY_FIRST_USEC = 1000 * 1000,
        RETRY_DOUBLED_MAX = 5,
};

static bool is_connected(const struct session *session)
{
        return egress_client_is_connected(session->egress_client);
}

static bool allows(const struct sandbox *sandbox)
{
        return sandbox->record.egress && sandbox->record.egress->allows;
}

static bool is_in_force(const struct sandbox *sandbox)
{
        return sandbox->record.enforcement.version == sandbox->record.egress_version;
}

int64_t enforcement_retry_usec(const struct session *session)
{
        return session->restoration.was_ready ? RETRY_FIRST_USEC : 0;
}

bool enforcement_is_needed(const struct sandbox *sandbox)
{
        const struct session *session = sandbox->session;
        bool is_new = sandbox->record.state == SANDBOX_CREATING;

        if (is_connected(session))
                return !is_in_force(sandbox);
        /* It may still hold an older one to a policy that allows more. */
        return allows(sandbox) || (!is_new && session->restoration.was_ready);
}

/* --- one policy --- */

static void note_in_force(struct sandbox *sandbox, const struct egress_enforced *enforced)
{
        struct egress_enforcement *now = &sandbox->record.enforcement;

        *now = (struct egress_enforcement){
                .version = sandbox->enforcement.is_shut ? 0 : sandbox->enforcement.version,
                .n_program_ids = enforced->n_program_ids,
        };
        memcpy(now->program_ids, enforced->program_ids, sizeof(now->program_ids));
        log_debug("an egress policy is in force sandbox=%s version=%lld",
                  sandbox->record.sandbox_id, (long long)now->version);
}

/* Its probe may have been told to the hotcell-egress before, with which that is gone. */
static bool may_have_been_proven(const struct sandbox *sandbox)
{
        return sandbox->record.state == SANDBOX_CREATING &&
               sandbox->enforcement.n_ready_before != sandbox->session->restoration.n_ready;
}

static struct session_result result_of_refusal(const struct sandbox *sandbox,
                                               const struct egress_answer *answer)
{
        struct session_result result =
                result_of(SESSION_E_EGRESS, "hotcell-egress refused the policy of sandbox %s: %s",
                          sandbox->record.sandbox_id, answer->message);

        if (answer->result == EGRESS_E_NOT_PROVEN && may_have_been_proven(sandbox))
                result.retry_usec = enforcement_retry_usec(sandbox->session);
        return result;
}

static struct session_result result_of_answer(const struct sandbox *sandbox,
                                              const struct egress_answer *answer)
{
        const char *id = sandbox->record.sandbox_id;
        struct session_result result;

        switch (answer->result) {
        case EGRESS_ENFORCED:
                return (struct session_result){ 0 };
        case EGRESS_E_LOST:
                result = result_of(SESSION_E_EGRESS,
                                   "hotcell-egress went away before the egress policy of sandbox "
                                   "%s was in force.",
                                   id);
                result.retry_usec = enforcement_retry_usec(sandbox->session);
                return result;
        case EGRESS_E_SILENT:
                return result_of(SESSION_E_EGRESS,
                                 "hotcell-egress did not say in time that the egress policy of "
                                 "sandbox %s is in force.",
                                 id);
        case EGRESS_E_TOO_COMPLEX:
                return result_of(SESSION_E_RULE_TOO_COMPLEX,
                                 "The egress rules of sandbox %s do not fit the tables: %s", id,
                                 answer->message);
        case EGRESS_E_NOT_PROVEN:
        case EGRESS_E_REFUSED:
                break;
        }
        return result_of_refusal(sandbox, answer);
}

static void on_answer(void *userdata, const struct egress_answer *answer)
{
        struct sandbox *sandbox = userdata;
        struct enforcement *enforcement = &sandbox->enforcement;
        enforcement_on_done on_done = enforcement->on_done;
        struct session_result result = result_of_answer(sandbox, answer);

        enforcement->request = NULL;
        enforcement->on_done = NULL;
        enforcement->last = answer->result;
        if (answer->result == EGRESS_ENFORCED &&
            memcmp(answer->enforced.sha256, enforcement->sha256, sizeof(enforcement->sha256)) !=
                    0) {
                log_error("hotcell-egress enforces another policy than it was told sandbox=%s",
                          sandbox->record.sandbox_id);
                enforcement->last = EGRESS_E_REFUSED;
                result = result_of(SESSION_E_EGRESS,
                                   "hotcell-egress enforces another policy than that of sandbox "
                                   "%s.",
                                   sandbox->record.sandbox_id);
                sandbox->record.enforcement.version = 0;
        } else if (answer->result == EGRESS_ENFORCED) {
                note_in_force(sandbox, &answer->enforced);
        } else if (answer->result == EGRESS_E_SILENT) {
                sandbox->record.enforcement.version = 0; /* either may be */
        }
        on_done(sandbox, &result);
}

static void unqueue(struct sandbox *sandbox)
{
        if (sandbox->enforcement.is_queued)
                TAILQ_REMOVE(&sandbox->session->restoration.queue, sandbox, enforcement.link);
        sandbox->enforcement.is_queued = false;
}

static void on_restored(struct sandbox *sandbox, const struct session_result *result);
static void on_shut(struct sandbox *sandbox, const struct session_result *result);

/* Only what is restored is ever replaced: its policy, by the next one. */
static void replace(struct sandbox *sandbox)
{
        enforcement_on_done on_done = sandbox->enforcement.on_done;

        if (!sandbox->enforcement.request)
                return;
        /* The others who wait take no NULL for a result. */
        assert(on_done == on_restored || on_done == on_shut);

        sandbox->enforcement.request = egress_request_free(sandbox->enforcement.request);
        sandbox->enforcement.on_done = NULL;
        on_done(sandbox, NULL);
}

static struct session_result ask(struct sandbox *sandbox, bool is_shut, enforcement_on_done on_done)
{
        struct enforcement *enforcement = &sandbox->enforcement;
        const struct egress_order order = {
                .sandbox_id = sandbox->record.sandbox_id,
                .version = sandbox->record.egress_version,
                .egress = is_shut ? NULL : sandbox->record.egress,
        };
        struct session_result result = { 0 };
        int r;

        unqueue(sandbox);
        replace(sandbox);
        memcpy(enforcement->sha256, order.egress ? order.egress->sha256 : policy_digest_of_none,
               sizeof(enforcement->sha256));
        r = egress_client_set_policy(sandbox->session->egress_client, &order, on_answer, sandbox,
                                     &enforcement->request);
        if (r == EGRESS_CLIENT_E_DISCONNECTED) {
                result = result_of(SESSION_E_EGRESS,
                                   "There is no hotcell-egress now that could hold sandbox %s to "
                                   "its egress policy.",
                                   order.sandbox_id);
                result.retry_usec = enforcement_retry_usec(sandbox->session);
                return result;
        }
        if (r)
                return result_of(r < 0 ? r : SESSION_E_EGRESS,
                                 "hotcell-egress could not be asked for the egress policy of "
                                 "sandbox %s.",
                                 order.sandbox_id);
        enforcement->version = order.version;
        enforcement->is_shut = is_shut;
        enforcement->on_done = on_done;
        return result;
}

void enforcement_expect(struct sandbox *sandbox)
{
        sandbox->enforcement.n_ready_before = sandbox->session->restoration.n_ready;
}

struct session_result enforcement_begin(struct sandbox *sandbox, enforcement_on_done on_done)
{
        return ask(sandbox, false, on_done);
}

void enforcement_cancel(struct sandbox *sandbox)
{
        struct enforcement *enforcement = &sandbox->enforcement;
        enforcement_on_done on_done = enforcement->on_done;
        struct session_result result = result_of(SESSION_E_SANDBOX_ENDED, "Sandbox %s is ending.",
                                                 sandbox->record.sandbox_id);

        enforcement->retry = sd_event_source_disable_unref(enforcement->retry);
        unqueue(sandbox);
        if (!enforcement->request)
                return;
        enforcement->request = egress_request_free(enforcement->request);
        enforcement->on_done = NULL;
        on_done(sandbox, &result);
}

/* --- restoring --- */

static void restore_more(struct session *session);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sandbox *sandbox = userdata;

        (void)source;
        (void)usec;
        enforcement_restore(sandbox);
        return 0;
}

static void retry_later(struct sandbox *sandbox)
{
        unsigned n = MIN(sandbox->enforcement.n_tries, (unsigned)RETRY_DOUBLED_MAX);

        sandbox->enforcement.n_tries++;
        (void)session_arm(sandbox->session, &sandbox->enforcement.retry,
                          (uint64_t)RETRY_FIRST_USEC << n, on_retry, sandbox);
}

static void on_shut(struct sandbox *sandbox, const struct session_result *result)
{
        struct session *session = sandbox->session;

        session->restoration.n_asked--;
        if (result && sandbox->record.state == SANDBOX_RUNNING && is_connected(session)) {
                if (result->outcome == 0 || sandbox->enforcement.last == EGRESS_E_SILENT)
                        retry_later(sandbox);
                else
                        sandbox_end(sandbox, CAUSE_POLICY, result->message);
        }
        restore_more(session);
}

static void shut(struct sandbox *sandbox)
{
        struct session_result result;

        log_error("an egress policy cannot be restored, nothing may leave sandbox=%s",
                  sandbox->record.sandbox_id);
        result = ask(sandbox, true, on_shut);
        if (result.outcome)
                retry_later(sandbox);
        else
                sandbox->session->restoration.n_asked++;
}

static void on_restored(struct sandbox *sandbox, const struct session_result *result)
{
        struct session *session = sandbox->session;

        session->restoration.n_asked--;
        if (result && result->outcome == 0) {
                sandbox->enforcement.n_tries = 0;
                /* As long as there are answers they are waited for. */
                session->restoration.patience =
                        sd_event_source_disable_unref(session->restoration.patience);
        } else if (result && sandbox->record.state == SANDBOX_RUNNING && is_connected(session)) {
                if (sandbox->enforcement.last == EGRESS_E_SILENT)
                        retry_later(sandbox);
                else
                        shut(sandbox);
        }
        restore_more(session);
}

static void restoration_over(struct session *session)
{
        struct restoration *restoration = &session->restoration;
        void (*on_done)(void *userdata) = restoration->on_done;

        restoration->patience = sd_event_source_disable_unref(restoration->patience);
        restoration->on_done = NULL;
        on_done(restoration->userdata);
}

/* A policy of theirs needs it. */
static bool is_awaited(const struct session *session)
{
        struct map_node *node;

        for (node = map_first(&session->sandboxes); node; node = map_next(node))
                if (allows(CONTAINER_OF(node, struct sandbox, by_id)))
                        return true;
        return false;
}

static int on_no_patience(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct session *session = userdata;

        (void)source;
        (void)usec;
        log_error("egress policies could not be restored, going on without asked=%u",
                  session->restoration.n_asked);
        restoration_over(session);
        return 0;
}

static bool is_over(const struct session *session)
{
        const struct restoration *restoration = &session->restoration;

        return is_connected(session) ? restoration->n_asked == 0 && TAILQ_EMPTY(&restoration->queue)
                                     : !is_awaited(session);
}

static void check_over(struct session *session)
{
        struct restoration *restoration = &session->restoration;

        if (!restoration->on_done)
                return;
        if (is_over(session) ||
            (!restoration->patience &&
             session_arm(session, &restoration->patience,
                         (uint64_t)session->config.egress_answer_usec, on_no_patience, session)))
                restoration_over(session);
}

static void restore_one(struct sandbox *sandbox)
{
        struct session_result result;

        unqueue(sandbox);
        if (sandbox->enforcement.request || is_in_force(sandbox))
                return;
        result = enforcement_begin(sandbox, on_restored);
        if (result.outcome)
                retry_later(sandbox);
        else
                sandbox->session->restoration.n_asked++;
}

static void restore_more(struct session *session)
{
        struct restoration *restoration = &session->restoration;
        int64_t n_rules = 0; /* of this turn: to write them takes a while */

        while (is_connected(session) && restoration->n_asked < RESTORING_MAX &&
               !TAILQ_EMPTY(&restoration->queue)) {
                struct sandbox *sandbox = TAILQ_FIRST(&restoration->queue);

                if (n_rules >= RESTORED_RULES_A_TURN) {
                        again(restoration->again);
                        break;
                }
                n_rules += sandbox->record.egress ? sandbox->record.egress->n_rules : 0;
                restore_one(sandbox);
        }
        check_over(session);
}

static int on_restore_again(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        restore_more(userdata);
        return 0;
}

int enforcement_init(struct session *session)
{
        TAILQ_INIT(&session->restoration.queue);
        return again_new(session->loop, &session->restoration.again, on_restore_again, session);
}

void enforcement_deinit(struct session *session)
{
        session->restoration.again = sd_event_source_disable_unref(session->restoration.again);
}

static void enqueue(struct sandbox *sandbox)
{
        /* What is being recorded may be taken back: it is put in force once it is not. */
        if (sandbox->record.state != SANDBOX_RUNNING || sandbox->is_egress_recording ||
            sandbox->enforcement.is_queued)
                return;
        TAILQ_INSERT_TAIL(&sandbox->session->restoration.queue, sandbox, enforcement.link);
        sandbox->enforcement.is_queued = true;
}

void enforcement_restore(struct sandbox *sandbox)
{
        if (!is_connected(sandbox->session) || is_in_force(sandbox))
                return;
        enqueue(sandbox);
        restore_more(sandbox->session);
}

static void enqueue_all(struct session *session)
{
        struct map_node *node;

        for (node = map_first(&session->sandboxes); node; node = map_next(node))
                enqueue(CONTAINER_OF(node, struct sandbox, by_id));
}

void session_on_egress_ready(struct session *session)
{
        session->restoration.was_ready = true;
        session->restoration.n_ready++;
        enqueue_all(session);
        restore_more(session);
}

void session_on_egress_lost(struct session *session)
{
        struct map_node *node;

        for (node = map_first(&session->sandboxes); node; node = map_next(node)) {
                struct sandbox *sandbox = CONTAINER_OF(node, struct sandbox, by_id);

                sandbox->record.enforcement = (struct egress_enforcement){ 0 };
                sandbox->enforcement.n_tries = 0;
                sandbox->enforcement.retry =
                        sd_event_source_disable_unref(sandbox->enforcement.retry);
                unqueue(sandbox);
        }
        check_over(session);
}

void session_restore_all(struct session *session, void (*on_done)(void *userdata), void *userdata)
{
        session->restoration.on_done = on_done;
        session->restoration.userdata = userdata;
        enqueue_all(session);
        restore_more(session);
}

bool session_restore_forget(struct session *session)
{
        bool was_awaited = session->restoration.on_done;

        session->restoration.patience =
                sd_event_source_disable_unref(session->restoration.patience);
        session->restoration.on_done = NULL;
        return was_awaited;
}
