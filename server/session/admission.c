/*
 * Who may have more of what all share: decided from counters, before anything is made. A refusal
 * says whose limit it is, how much is held and when to ask again.
 */
#include "server/session/admission.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/policy/policy.h"
#include "server/session/refusal.h"

/* hotcell-egress takes some milliseconds for each thousand rules, one policy after the other. */
enum { RULES_ON_WAY_MAX = 4 * POLICY_RULES_MAX, RULES_RETRY_USEC = 200 * 1000 };

static_assert(2 * SESSION_EGRESS_RULES_MAX < POLICY_WALL_PREFIXES, "each may be there twice");

static struct session_result admit_wish(struct session *session, const char *owner,
                                        const struct wish *wish)
{
        int r = shares_check(&session->shares, owner, wish->share, wish->more);

        return r ? refuse_share(session, owner, wish, r) : (struct session_result){ 0 };
}

struct session_result admit_share(struct session *session, const char *owner,
                                  enum session_share share, int64_t amount)
{
        return admit_wish(session, owner,
                          &(struct wish){ .share = share, .more = amount, .whole = amount });
}

/* Whoever wants no more than it has is welcome, however much others have. */
static struct session_result admit_change(struct session *session, const char *owner,
                                          enum session_share share, int64_t present, int64_t wanted)
{
        const struct wish wish = { .share = share, .more = wanted - present, .whole = wanted };

        return wish.more > 0 ? admit_wish(session, owner, &wish) : (struct session_result){ 0 };
}

static int64_t rules_of(const struct egress *egress)
{
        return egress ? egress->n_rules : 0;
}

struct session_result admit_egress(struct session *session, const char *owner,
                                   const struct egress *egress, const struct egress *present)
{
        struct session_result result;

        if (egress && egress->allows && !egress_client_is_connected(session->egress_client)) {
                result =
                        result_of(SESSION_E_EGRESS,
                                  "There is no hotcell-egress now: nothing can leave sandboxes. %s",
                                  enforcement_retry_usec(session) > 0
                                          ? "It is started again: try then."
                                          : "Take out the rules that allow, and ALLOW_PUBLIC.");
                result.retry_usec = enforcement_retry_usec(session);
                return result;
        }
        result = admit_change(session, owner, SESSION_SHARE_EGRESS, (int64_t)egress_memory(present),
                              (int64_t)egress_memory(egress));
        if (result.outcome == 0)
                result = admit_change(session, owner, SESSION_SHARE_EGRESS_RULES, rules_of(present),
                                      rules_of(egress));
        return result;
}

void take_egress_shares(struct share_owner *holder, const struct egress *egress,
                        const struct egress *present)
{
        share_owner_take(holder, SESSION_SHARE_EGRESS,
                         (int64_t)egress_memory(egress) - (int64_t)egress_memory(present));
        share_owner_take(holder, SESSION_SHARE_EGRESS_RULES, rules_of(egress) - rules_of(present));
}

struct session_result admit_rules_on_way(const struct sandbox *sandbox, const struct egress *egress)
{
        const char *owner = sandbox->record.owner;
        int64_t on_way = sandbox->holder->rules_on_way;
        struct session_result result = { 0 };

        if (!egress || on_way + egress->n_rules <= RULES_ON_WAY_MAX)
                return result;
        result = result_of(SESSION_E_UPDATE_RATE,
                           "You have egress policies with %" PRId64 " rules on their way, and may "
                           "have %d.",
                           on_way, RULES_ON_WAY_MAX);
        (void)snprintf(result.quota, sizeof(result.quota), "%s", owner);
        result.retry_usec = RULES_RETRY_USEC;
        log_refusal(sandbox->session, owner, "rules_on_way");
        return result;
}

void sandbox_set_rules_on_way(struct sandbox *sandbox, int64_t n_rules)
{
        if (sandbox->holder)
                sandbox->holder->rules_on_way += n_rules - sandbox->rules_on_way;
        sandbox->rules_on_way = n_rules;
}

struct session_result admit_update(struct sandbox *sandbox)
{
        struct session *session = sandbox->session;
        const struct token_rate rate = {
                .interval_usec = 1000000 / (uint64_t)session->config.updates_per_second,
                .burst = 2 * (uint64_t)session->config.updates_per_second,
        };
        uint64_t wait_usec =
                token_bucket_take(&sandbox->holder->updates, &rate, clock_monotonic_usec());
        struct session_result result = { 0 };

        if (wait_usec == 0)
                return result;
        result = result_of(SESSION_E_UPDATE_RATE, "You may make %" PRId64 " updates a second.",
                           session->config.updates_per_second);
        (void)snprintf(result.quota, sizeof(result.quota), "%s", sandbox->record.owner);
        result.retry_usec = (int64_t)wait_usec;
        log_refusal(session, sandbox->record.owner, "updates_per_second");
        return result;
}

/* Sandboxes. */

struct session_result admit_room(struct session *session, const struct sandbox_request *request)
{
        struct session_result result =
                admit_share(session, request->owner, SESSION_SHARE_SANDBOXES, 1);

        if (result.outcome == 0)
                result = admit_share(session, request->owner, SESSION_SHARE_MEMORY,
                                     request->limits.memory_bytes);
        if (result.outcome == 0)
                result = admit_share(session, request->owner, SESSION_SHARE_CPU,
                                     request->limits.cpu_millis);
        if (result.outcome == 0)
                result = admit_share(session, request->owner, SESSION_SHARE_CREATIONS, 1);
        return result;
}

struct session_result admit_promise(const struct sandbox *sandbox,
                                    const struct sandbox_limits *limits)
{
        const struct sandbox_limits *promised = &sandbox->limiting.promised;
        const char *owner = sandbox->record.owner;
        struct session_result result = admit_change(sandbox->session, owner, SESSION_SHARE_MEMORY,
                                                    promised->memory_bytes, limits->memory_bytes);

        if (result.outcome == 0)
                result = admit_change(sandbox->session, owner, SESSION_SHARE_CPU,
                                      promised->cpu_millis, limits->cpu_millis);
        return result;
}

void sandbox_promise(struct sandbox *sandbox, const struct sandbox_limits *limits)
{
        struct sandbox_limits *promised = &sandbox->limiting.promised;

        if (!sandbox->holder)
                return;
        share_owner_take(sandbox->holder, SESSION_SHARE_MEMORY,
                         limits->memory_bytes - promised->memory_bytes);
        share_owner_take(sandbox->holder, SESSION_SHARE_CPU,
                         limits->cpu_millis - promised->cpu_millis);
        *promised = *limits;
}

int sandbox_take_shares(struct sandbox *sandbox)
{
        const struct sandbox_record *record = &sandbox->record;

        sandbox->holder = shares_hold(&sandbox->session->shares, record->owner);
        if (!sandbox->holder)
                return -ENOMEM;
        share_owner_take(sandbox->holder, SESSION_SHARE_SANDBOXES, 1);
        sandbox_promise(sandbox, &record->limits);
        take_egress_shares(sandbox->holder, record->egress, NULL);
        if (record->state == SANDBOX_CREATING)
                share_owner_take(sandbox->holder, SESSION_SHARE_CREATIONS, 1);
        return 0;
}

void sandbox_give_shares(struct sandbox *sandbox)
{
        if (!sandbox->holder)
                return;
        sandbox_set_rules_on_way(sandbox, 0);
        if (sandbox->record.state == SANDBOX_CREATING) /* not begun */
                share_owner_take(sandbox->holder, SESSION_SHARE_CREATIONS, -1);
        if (sandbox->record.state >= SANDBOX_ENDING)
                share_owner_count_ending(sandbox->holder, -1);
        share_owner_take(sandbox->holder, SESSION_SHARE_SANDBOXES, -1);
        sandbox_promise(sandbox, &(struct sandbox_limits){ 0 });
        take_egress_shares(sandbox->holder, NULL, sandbox->record.egress);
        sandbox->holder = share_owner_release(sandbox->holder);
}

/* Executions. */

struct session_result admit_first_execution(struct session *session,
                                            const struct execute_request *request)
{
        struct session_result result =
                admit_share(session, request->owner, SESSION_SHARE_EXECUTIONS, 1);

        if (result.outcome == 0)
                result = admit_share(session, request->owner, SESSION_SHARE_QUEUED_BYTES,
                                     (int64_t)execute_request_size(request));
        return result;
}

/* Whether its context and its sandbox can have it wait. */
static struct session_result admit_waiting(const struct context *context, size_t n_bytes)
{
        const struct sandbox *sandbox = context->sandbox;
        const struct session_config *config = &sandbox->session->config;
        struct session_result result = { 0 };

        if (context->n_queued >= config->queue_max && context_has_work(context)) {
                result = result_of(SESSION_E_QUEUE_FULL,
                                   "%zu executions wait in context %s already.", context->n_queued,
                                   context->record.context_id);
                (void)snprintf(result.quota, sizeof(result.quota), "%s",
                               context->record.context_id);
        } else if (sandbox->waiting_bytes + n_bytes > config->queued_bytes_max) {
                result = result_of(SESSION_E_QUEUE_FULL,
                                   "%zu bytes of code wait in sandbox %s already.",
                                   sandbox->waiting_bytes, sandbox->record.sandbox_id);
                (void)snprintf(result.quota, sizeof(result.quota), "%s",
                               sandbox->record.sandbox_id);
        }
        result.retry_usec = share_retry_usec(SESSION_SHARE_QUEUED);
        if (result.outcome)
                log_refusal(sandbox->session, sandbox->record.owner, "queue");
        return result;
}

struct session_result admit_execution(struct context *context,
                                      const struct execute_request *request)
{
        struct session *session = context->session;
        const char *owner = context->record.owner;
        size_t n_bytes = execute_request_size(request);
        struct session_result result;

        result = admit_share(
                session, owner,
                context_has_work(context) ? SESSION_SHARE_QUEUED : SESSION_SHARE_EXECUTIONS, 1);
        if (result.outcome || context_runs_at_once(context))
                return result;
        result = admit_waiting(context, n_bytes);
        if (result.outcome == 0)
                result = admit_share(session, owner, SESSION_SHARE_QUEUED_BYTES, (int64_t)n_bytes);
        return result;
}

bool context_has_work(const struct context *context)
{
        return context->current || context->n_queued > 0;
}

bool context_runs_at_once(const struct context *context)
{
        return context->kernel.state == KERNEL_READY && !context_has_work(context);
}

void context_account(struct context *context)
{
        struct share_owner *holder = context->sandbox->holder;
        size_t n = context->n_queued + (context->current ? 1 : 0);
        size_t n_first = n > 0 ? 1 : 0;
        size_t n_behind = n - n_first;

        share_owner_take(holder, SESSION_SHARE_EXECUTIONS,
                         (int64_t)n_first - (int64_t)context->n_first_taken);
        share_owner_take(holder, SESSION_SHARE_QUEUED,
                         (int64_t)n_behind - (int64_t)context->n_behind_taken);
        context->n_first_taken = n_first;
        context->n_behind_taken = n_behind;
}

/* Streams. */

struct session_stream {
        struct share_owner *holder;
};

struct session_result session_stream_new(struct session *session, const char *owner,
                                         struct session_stream **ret_stream)
{
        struct session_result result = admit_share(session, owner, SESSION_SHARE_STREAMS, 1);
        struct session_stream *stream;

        if (result.outcome)
                return result;
        stream = calloc(1, sizeof(*stream));
        if (stream)
                stream->holder = shares_hold(&session->shares, owner);
        if (!stream || !stream->holder) {
                free(stream);
                return result_of(-ENOMEM, "There is no memory for a stream.");
        }
        share_owner_take(stream->holder, SESSION_SHARE_STREAMS, 1);
        *ret_stream = stream;
        return result;
}

struct session_stream *session_stream_free(struct session_stream *stream)
{
        if (!stream)
                return NULL;
        share_owner_take(stream->holder, SESSION_SHARE_STREAMS, -1);
        (void)share_owner_release(stream->holder);
        free(stream);
        return NULL;
}
