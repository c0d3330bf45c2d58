/*
 * An event is shown first, then stored: what is stored is not told again, and so it must have been
 * seen. One batch is on its way to the database at a time; what comes meanwhile is the next one.
 */
#include "server/session/egress.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/dns_label.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/session/egress_rules.h"
#include "server/session/session_private.h"

enum {
        RETRY_USEC = 1000 * 1000,
        TRIES_MAX = 60, /* of a batch that fails for another reason than a full disk */
        PORT_MAX = 65535,
};

struct egress_owner {
        char name[OWNER_BUFFER]; /* empty: not known */
        uint64_t number;         /* by which it is acknowledged; zero: it is not */
};

/* What waits. */

static void send_batch(struct session *session);

static int on_retry(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct session *session = userdata;

        (void)source;
        (void)usec;
        session->egress.retry_timer = sd_event_source_disable_unref(session->egress.retry_timer);
        send_batch(session);
        return 0;
}

static void lose(struct egress_queue *queue, size_t n, const char *sandbox_id, const char *why)
{
        queue->n_lost += n;
        log_warning_of(&queue->log,
                       "egress events are not kept sandbox=%s n=%zu lost_so_far=%llu reason=\"%s\"",
                       sandbox_id, n, (unsigned long long)queue->n_lost, why);
}

static void drop_batch(struct egress_queue *queue)
{
        size_t n_left = queue->n - queue->n_sent;

        memmove(queue->records, queue->records + queue->n_sent, n_left * sizeof(*queue->records));
        memmove(queue->owners, queue->owners + queue->n_sent, n_left * sizeof(*queue->owners));
        queue->n = n_left;
        queue->n_sent = 0;
        queue->n_tries = 0;
}

/* A full disk may pass; until then what is beyond the bound is lost. */
static bool is_hopeless(const struct session *session, int result)
{
        return session->is_stopping ||
               (result != STORE_E_FULL && session->egress.n_tries >= TRIES_MAX);
}

static void on_stored(void *userdata, int result)
{
        struct session *session = userdata;
        struct egress_queue *queue = &session->egress;

        session->n_pending--;
        if (result == 0) {
                drop_batch(queue);
        } else if (is_hopeless(session, result)) {
                lose(queue, queue->n_sent, "several", "the database cannot be written");
                drop_batch(queue);
        } else {
                queue->n_sent = 0;
                (void)session_arm(session, &queue->retry_timer, RETRY_USEC, on_retry, session);
        }
        send_batch(session);
        egress_intake_on_stored(session);
        session_check_stopped(session);
}

static void send_batch(struct session *session)
{
        struct egress_queue *queue = &session->egress;

        if (queue->n == 0 || queue->n_sent > 0 || queue->retry_timer)
                return;
        queue->n_sent = MIN(queue->n, (size_t)EGRESS_BATCH_MAX);
        queue->n_tries++;
        session->n_pending++;
        store_insert_egress_events(session->store, queue->records, queue->n_sent, on_stored,
                                   session);
}

static bool make_queue(struct egress_queue *queue)
{
        if (queue->records && queue->owners)
                return true;
        if (!queue->records)
                queue->records = calloc(EGRESS_WAITING_MAX, sizeof(*queue->records));
        if (!queue->owners)
                queue->owners = calloc(EGRESS_WAITING_MAX, sizeof(*queue->owners));
        return queue->records && queue->owners;
}

bool egress_queue_has_room(const struct egress_queue *queue, const char *owner)
{
        size_t n_own = 0;

        for (size_t i = 0; i < queue->n; i++)
                n_own += strcmp(queue->owners[i].name, owner) == 0;
        return n_own < EGRESS_WAITING_MAX - queue->n;
}

static int enqueue(struct session *session, const char *owner, uint64_t number,
                   const struct egress_record *record)
{
        struct egress_queue *queue = &session->egress;

        if (!make_queue(queue)) {
                lose(queue, 1, record->sandbox_id, "there is no memory");
                return error_origin(-ENOMEM);
        }
        if (!egress_queue_has_room(queue, owner)) {
                lose(queue, 1, record->sandbox_id, "too many wait to be stored");
                return SESSION_E_QUEUE_FULL;
        }
        (void)snprintf(queue->owners[queue->n].name, sizeof(queue->owners[0].name), "%s", owner);
        queue->owners[queue->n].number = number;
        queue->records[queue->n++] = *record;
        send_batch(session);
        return 0;
}

uint64_t egress_queue_first(const struct egress_queue *queue)
{
        for (size_t i = 0; i < queue->n; i++)
                if (queue->owners[i].number > 0)
                        return queue->owners[i].number;
        return 0;
}

void egress_queue_forget_numbers(struct egress_queue *queue)
{
        for (size_t i = 0; i < queue->n; i++)
                queue->owners[i].number = 0;
}

void egress_queue_renumber(struct egress_queue *queue, const char *sandbox_id,
                           const struct egress_record *record, uint64_t number)
{
        for (size_t i = 0; i < queue->n; i++) {
                const struct egress_record *waiting = &queue->records[i];

                if (queue->owners[i].number == 0 && waiting->source == record->source &&
                    waiting->serial == record->serial &&
                    strcmp(waiting->sandbox_id, sandbox_id) == 0) {
                        queue->owners[i].number = number;
                        return;
                }
        }
}

void egress_queue_flush(struct session *session)
{
        struct egress_queue *queue = &session->egress;

        queue->retry_timer = sd_event_source_disable_unref(queue->retry_timer);
        send_batch(session);
}

void egress_queue_deinit(struct egress_queue *queue)
{
        queue->retry_timer = sd_event_source_disable_unref(queue->retry_timer);
        free(queue->records);
        free(queue->owners);
}

/* What is told. */

/* Both come from inside: a process names itself with any bytes. */
static void make_text(char *text, size_t size)
{
        text[size - 1] = '\0';
        if (text_is_utf8(text, strlen(text)))
                return;
        for (; *text; text++)
                if ((unsigned char)*text >= 0x80)
                        *text = '?';
}

static bool is_address(const char *text)
{
        unsigned char bytes[sizeof(struct in6_addr)];

        return !*text || inet_pton(AF_INET, text, bytes) == 1 ||
               inet_pton(AF_INET6, text, bytes) == 1;
}

/* Whoever tells it takes hostile bytes apart: it is not believed to be whole. */
static bool is_sound(const struct egress_record *record)
{
        return record->sequence > 0 && record->type > 0 && record->type < _EGRESS_EVENT_TYPE_N &&
               (unsigned)record->protocol < _EGRESS_PROTOCOL_N &&
               (unsigned)record->reason < _EGRESS_REASON_N && record->port >= 0 &&
               record->port <= PORT_MAX && record->rule_index >= -1 && record->count >= 0 &&
               record->event_time_usec >= 0 && record->error_number >= 0 &&
               record->policy_version >= 0 && record->pid >= 0 && record->sent_bytes >= 0 &&
               record->received_bytes >= 0 && record->duration_usec >= 0 &&
               memchr(record->address, '\0', sizeof(record->address)) &&
               is_address(record->address);
}

static int take_record(const struct egress_record *record, struct egress_record *ret_record)
{
        if (!is_sound(record))
                return error_origin(-EINVAL);
        *ret_record = *record;
        ret_record->sandbox_id[0] = '\0';
        ret_record->execution_id[0] = '\0';
        ret_record->rule[0] = '\0';
        ret_record->count = MAX(record->count, INT64_C(1));
        if (record->event_time_usec == 0)
                ret_record->event_time_usec = time_now_usec();
        make_text(ret_record->name, sizeof(ret_record->name));
        make_text(ret_record->command, sizeof(ret_record->command));
        return 0;
}

/* Whose. */

static struct sandbox *find_sandbox(struct session *session, const struct egress_source *source)
{
        struct map_node *node;

        if (source->sandbox_id && *source->sandbox_id)
                return session_find_sandbox(session, NULL, source->sandbox_id);
        node = map_find(&session->cgroups, &source->cgroup_id, sizeof(source->cgroup_id));
        return MAP_ITEM(node, struct sandbox, by_cgroup);
}

static void search_running(struct egress_search *search, const struct sandbox *sandbox)
{
        const struct context *context;

        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                const struct execution *current = context->current;

                if (current && current->phase == PHASE_RUNNING)
                        egress_search_running(search, context->kernel.cgroup_id, &current->record);
        }
}

/*
 * The event may come after the end of what caused it, also when the next one runs, or be told again
 * by a source that does not know that it was heard: when it was asked for tells. Who asks the
 * resolver is not known; that is the only execution that ran then, if there is one.
 */
static const char *find_execution(const struct sandbox *sandbox, const struct egress_source *source,
                                  const struct egress_record *record)
{
        struct egress_search search = { .leaf_cgroup_id = source->leaf_cgroup_id,
                                        .time_usec = source->asked_time_usec };
        const struct egress_runs *runs = sandbox ? &sandbox->egress_runs : source->runs;

        if (search.time_usec <= 0 || search.time_usec > record->event_time_usec)
                search.time_usec = record->event_time_usec;
        if (runs)
                egress_search_runs(&search, runs);
        if (sandbox)
                search_running(&search, sandbox);
        return egress_search_found(&search);
}

static void show(struct session *session, const struct sandbox *sandbox,
                 const struct egress_source *source, struct egress_record *record)
{
        const char *id = find_execution(sandbox, source, record);
        struct execution *execution = id ? session_find_execution(session, NULL, id) : NULL;

        if (!id)
                return;
        (void)snprintf(record->execution_id, sizeof(record->execution_id), "%s", id);
        if (execution)
                execution_on_egress(execution, record);
}

/* Only while the policy that has it is the sandbox's: older ones are not kept. */
static void name_rule(const struct sandbox *sandbox, struct egress_record *record)
{
        struct egress *egress = sandbox->record.egress;
        struct egress_rule rule;

        if (record->reason == EGRESS_REASON_RULE && record->rule_index >= 0 && egress &&
            record->policy_version == sandbox->record.egress_version &&
            egress_rule_at(egress, record->rule_index, &rule) == 0)
                egress_rule_show(&rule, record->rule);
}

int session_egress_event(struct session *session, const struct egress_source *source,
                         const struct egress_record *record)
{
        struct egress_record event;
        struct sandbox *sandbox;
        const char *id = source->sandbox_id;
        const char *owner = source->owner;
        int r;

        if (session->is_stopped)
                return SESSION_E_SHUTTING_DOWN;
        if (!session->has_adopted)
                return SESSION_E_RUNTIME_UNAVAILABLE;
        r = take_record(record, &event);
        if (r)
                return error_fold(r);
        sandbox = find_sandbox(session, source);
        if (sandbox)
                id = sandbox->record.sandbox_id;
        if (!id || !dns_label_is_valid(id))
                return SESSION_E_SANDBOX_NOT_FOUND;
        (void)snprintf(event.sandbox_id, sizeof(event.sandbox_id), "%s", id);
        if (sandbox)
                name_rule(sandbox, &event);
        show(session, sandbox, source, &event);
        if (sandbox)
                owner = sandbox->record.owner;
        return enqueue(session, owner ? owner : "", source->number, &event);
}
