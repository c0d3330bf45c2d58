/*
 * Denials, failures and what a new policy cut, in the stream of an execution. A program may try the
 * same thing thousands of times: the first is told at once; while equal ones follow they are
 * counted, and told as one each second, when something else comes, or at the end. Of
 * EGRESS_TOLD_MAX places the last one is kept for the end, where it says how many more there were.
 *
 * What is held outlives the server in the journal. The ring is written before that: a record in it
 * that is as new as what was saved tells that it is not held any more.
 */
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/context.h"
#include "server/session/egress.h"
#include "server/session/execution.h"
#include "server/session/journal.h"
#include "server/session/session_private.h"

/* In the ring; address, name and command follow, each with its NUL, then the rest of a flow, then
 * the rule with its NUL. */
struct egress_payload {
        int64_t left_out;
        int64_t number; /* counts those of the execution */
        int64_t sequence;
        int64_t event_time_usec;
        int64_t policy_version;
        int64_t pid;
        int64_t count;
        int32_t type;
        int32_t protocol;
        int32_t port;
        int32_t reason;
        int32_t rule_index;
        int32_t error_number;
};

/* Of a flow that a new policy cut. */
struct flow_payload {
        int64_t sent_bytes;
        int64_t received_bytes;
        int64_t duration_usec;
};

static bool take_text(const uint8_t **at, const uint8_t *end, size_t size, char *ret_text)
{
        const uint8_t *nul = *at < end ? memchr(*at, '\0', (size_t)(end - *at)) : NULL;

        if (!nul || (size_t)(nul - *at) >= size)
                return false;
        memcpy(ret_text, *at, (size_t)(nul - *at) + 1);
        *at = nul + 1;
        return true;
}

static bool take_flow(const uint8_t **at, const uint8_t *end, struct egress_record *record)
{
        struct flow_payload flow;

        if (record->type != EGRESS_EVENT_FLOW_ENDED)
                return true;
        if ((size_t)(end - *at) < sizeof(flow))
                return false;
        memcpy(&flow, *at, sizeof(flow));
        *at += sizeof(flow);
        record->sent_bytes = flow.sent_bytes;
        record->received_bytes = flow.received_bytes;
        record->duration_usec = flow.duration_usec;
        return true;
}

/* What was kept of executions that ended before there was a rule in it ends here. */
static bool take_rule(const uint8_t **at, const uint8_t *end, struct egress_record *record)
{
        return *at == end || take_text(at, end, sizeof(record->rule), record->rule);
}

bool egress_payload_read(const uint8_t *payload, size_t n_payload, struct egress_record *ret_record,
                         int64_t *ret_left_out, int64_t *ret_number)
{
        const uint8_t *at = payload + sizeof(struct egress_payload), *end = payload + n_payload;
        struct egress_payload head;

        if (n_payload < sizeof(head))
                return false;
        memcpy(&head, payload, sizeof(head));
        *ret_record = (struct egress_record){
                .sequence = head.sequence,
                .event_time_usec = head.event_time_usec,
                .type = (enum egress_event_type)head.type,
                .protocol = (enum egress_protocol)head.protocol,
                .port = head.port,
                .reason = (enum egress_reason)head.reason,
                .rule_index = head.rule_index,
                .policy_version = head.policy_version,
                .pid = head.pid,
                .count = head.count,
                .error_number = head.error_number,
        };
        *ret_left_out = head.left_out;
        *ret_number = head.number;
        return take_text(&at, end, sizeof(ret_record->address), ret_record->address) &&
               take_text(&at, end, sizeof(ret_record->name), ret_record->name) &&
               take_text(&at, end, sizeof(ret_record->command), ret_record->command) &&
               take_flow(&at, end, ret_record) && take_rule(&at, end, ret_record);
}

static struct egress_payload payload_of(const struct execution_egress *egress)
{
        const struct egress_record *record = &egress->last;

        return (struct egress_payload){
                .left_out = egress->left_out,
                .number = egress->n_told + 1,
                .sequence = record->sequence,
                .event_time_usec = record->event_time_usec,
                .policy_version = record->policy_version,
                .pid = record->pid,
                .count = egress->n_held,
                .type = (int32_t)record->type,
                .protocol = (int32_t)record->protocol,
                .port = record->port,
                .reason = (int32_t)record->reason,
                .rule_index = record->rule_index,
                .error_number = record->error_number,
        };
}

/* What is held becomes a record; without room for it, it stays held. @is_last: may use the room
 * that is kept for the end. */
static void tell(struct execution *execution, bool is_last)
{
        struct execution_egress *egress = &execution->egress;
        const struct egress_record *record = &egress->last;
        struct egress_payload head = payload_of(egress);
        const struct flow_payload flow = { record->sent_bytes, record->received_bytes,
                                           record->duration_usec };
        const struct ring_piece pieces[] = {
                { &head, sizeof(head) },
                { record->address, strlen(record->address) + 1 },
                { record->name, strlen(record->name) + 1 },
                { record->command, strlen(record->command) + 1 },
                { &flow, record->type == EGRESS_EVENT_FLOW_ENDED ? sizeof(flow) : 0 },
                { record->rule, strlen(record->rule) + 1 },
        };
        size_t n = 0;

        for (size_t i = 0; i < ARRAY_SIZE(pieces); i++)
                n += pieces[i].n;
        if (!is_last &&
            (egress->n_told >= EGRESS_TOLD_MAX - 1 || !execution_make_room(execution, n)))
                return;
        execution_append(execution, EXECUTION_EVENT_EGRESS, 0, pieces, ARRAY_SIZE(pieces));
        egress->n_told++;
        egress->n_held = 0;
        egress->left_out = 0;
}

/* Once its end is being recorded the ring is complete. */
static bool may_tell(const struct execution *execution)
{
        return execution->phase == PHASE_RUNNING ||
               (execution->phase == PHASE_CLOSING && execution->n_row_tries == 0);
}

static void save(struct execution *execution)
{
        if (execution->phase == PHASE_RUNNING)
                kernel_save(execution->context);
        else if (execution->journal)
                journal_save_execution(execution->journal, execution->journal_ring);
}

static int on_window_over(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct execution *execution = userdata;
        bool had_more = execution->egress.n_held > 0;

        (void)source;
        (void)usec;
        execution->egress_timer = sd_event_source_disable_unref(execution->egress_timer);
        if (!had_more || !may_tell(execution))
                return 0;
        tell(execution, false);
        save(execution);
        execution_arm_egress(execution);
        return 0;
}

void execution_arm_egress(struct execution *execution)
{
        /* The last place is for the end: until then there is nothing to do. */
        if (execution->egress.last.sequence > 0 && execution->egress.n_told < EGRESS_TOLD_MAX - 1)
                (void)session_arm(execution->session, &execution->egress_timer, EGRESS_WINDOW_USEC,
                                  on_window_over, execution);
}

/* The same happened: which process it was and when does not count. Each flow has its own bytes. */
static bool is_same(const struct egress_record *a, const struct egress_record *b)
{
        return a->type == b->type && a->type != EGRESS_EVENT_FLOW_ENDED &&
               a->protocol == b->protocol && a->port == b->port && a->reason == b->reason &&
               a->rule_index == b->rule_index && a->policy_version == b->policy_version &&
               a->error_number == b->error_number && strcmp(a->address, b->address) == 0 &&
               strcmp(a->name, b->name) == 0 && strcmp(a->command, b->command) == 0;
}

static int64_t add(int64_t a, int64_t b)
{
        return a > INT64_MAX - b ? INT64_MAX : a + b;
}

/* Something else: what was held goes before it, or will only be counted. */
static void begin(struct execution *execution, const struct egress_record *record)
{
        struct execution_egress *egress = &execution->egress;

        if (egress->n_held > 0)
                tell(execution, false);
        egress->left_out = add(egress->left_out, egress->n_held);
        egress->last = *record;
        egress->n_held = record->count;
        tell(execution, false);
        execution_arm_egress(execution);
}

/* Of flows only those that did not end by themselves. */
static bool is_shown(const struct egress_record *record)
{
        return record->type != EGRESS_EVENT_FLOW_ENDED ||
               record->reason == EGRESS_REASON_POLICY_CHANGED;
}

void execution_on_egress(struct execution *execution, const struct egress_record *record)
{
        struct execution_egress *egress = &execution->egress;
        bool is_window_open;

        if (!is_shown(record) || !may_tell(execution) || record->sequence <= egress->last.sequence)
                return;
        is_window_open = execution->egress_timer || egress->n_told >= EGRESS_TOLD_MAX - 1;
        if (is_window_open && is_same(&egress->last, record)) {
                egress->last = *record;
                egress->n_held = add(egress->n_held, record->count);
        } else {
                begin(execution, record);
        }
        save(execution);
}

void execution_finish_egress(struct execution *execution)
{
        if (execution->egress.n_held > 0 && may_tell(execution))
                tell(execution, true);
}

void execution_restore_egress(struct execution *execution)
{
        struct execution_egress *egress = &execution->egress;
        uint64_t position = ring_seek(execution->ring, 0);
        struct ring_record record;

        while (ring_read(execution->ring, &position, &record)) {
                struct egress_record told;
                int64_t left_out, number;

                if (record.kind != EXECUTION_EVENT_EGRESS ||
                    !egress_payload_read(record.payload, record.n_payload, &told, &left_out,
                                         &number))
                        continue;
                egress->n_told = MAX(egress->n_told, number);
                if (told.sequence < egress->last.sequence)
                        continue;
                egress->last = told;
                egress->n_held = 0;
                egress->left_out = 0;
        }
}
