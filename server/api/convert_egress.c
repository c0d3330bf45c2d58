#include <stdio.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/record_types.h"
#include "server/api/convert.h"
#include "server/session/egress_rules.h"

static Hotcell__V1__EgressPorts *convert_ports(struct arena *arena,
                                               const struct policy_ports *ports)
{
        Hotcell__V1__EgressPorts *message = arena_new(arena, Hotcell__V1__EgressPorts);

        if (!message)
                return NULL;
        hotcell__v1__egress_ports__init(message);
        message->first = ports->low;
        message->last = ports->high == ports->low ? 0 : ports->high;
        return message;
}

static void set_destination(Hotcell__V1__EgressRule *message, const struct egress_rule *rule)
{
        if (rule->is_domain) {
                message->destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_DOMAIN;
                message->domain = unconst(rule->destination);
        } else {
                message->destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_CIDR;
                message->cidr = unconst(rule->destination);
        }
}

static Hotcell__V1__EgressRule *convert_rule(struct arena *arena, const struct egress_rule *rule)
{
        Hotcell__V1__EgressRule *message = arena_new(arena, Hotcell__V1__EgressRule);

        if (!message)
                return NULL;
        hotcell__v1__egress_rule__init(message);
        message->action = rule->action == POLICY_ALLOW
                                  ? HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_ALLOW
                                  : HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_DENY;
        message->protocol = (Hotcell__V1__EgressProtocol)rule->protocol;
        set_destination(message, rule);
        if (rule->n_ports == 0)
                return message;
        message->ports = arena_new_array(arena, Hotcell__V1__EgressPorts *, rule->n_ports);
        for (size_t i = 0; message->ports && i < rule->n_ports; i++)
                message->ports[message->n_ports++] = convert_ports(arena, &rule->ports[i]);
        return message;
}

/* False: some are none of ours, and what is left of the policy would mean something else. */
static bool convert_rules(struct arena *arena, const struct egress *egress,
                          Hotcell__V1__EgressPolicy *message)
{
        size_t n_max = (size_t)egress->n_rules;
        struct egress_rule rule;
        size_t offset = 0;
        int r = 0;

        message->rules = arena_new_array(arena, Hotcell__V1__EgressRule *, n_max + 1);
        while (message->rules && message->n_rules < n_max &&
               (r = egress_rule_next(egress, &offset, &rule)) == 0)
                message->rules[message->n_rules++] = convert_rule(arena, &rule);
        if (r < 0)
                log_error("the database has egress rules that are none of ours");
        return r == 0;
}

static void convert_types(struct arena *arena, uint32_t set, Hotcell__V1__EgressPolicy *message)
{
        message->record_types =
                arena_new_array(arena, Hotcell__V1__EgressRecordType, _POLICY_RECORD_N);
        for (int type = POLICY_RECORD_NS; message->record_types && type < _POLICY_RECORD_N; type++)
                if (set & BIT(type))
                        message->record_types[message->n_record_types++] =
                                (Hotcell__V1__EgressRecordType)type;
}

Hotcell__V1__EgressPolicy *convert_egress(struct arena *arena, const struct egress *egress)
{
        Hotcell__V1__EgressPolicy *message = arena_new(arena, Hotcell__V1__EgressPolicy);

        if (!message)
                return NULL;
        hotcell__v1__egress_policy__init(message);
        message->default_action =
                egress ? (Hotcell__V1__EgressDefaultAction)egress->default_action
                       : HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_DENY;
        if (egress && egress->record_types)
                convert_types(arena, egress->record_types, message);
        if (egress && egress->n_rules > 0 && !convert_rules(arena, egress, message))
                return NULL;
        return message;
}

/* As template digests are written. */
static char *convert_digest(struct arena *arena, const uint8_t sha256[static 32])
{
        char text[DIGEST_BUFFER];
        int n = snprintf(text, sizeof(text), "sha256-");

        for (size_t i = 0; i < 32; i++)
                n += snprintf(text + n, sizeof(text) - (size_t)n, "%02x", sha256[i]);
        return arena_text(arena, text);
}

Hotcell__V1__EgressRefusals *convert_refusals(struct arena *arena,
                                              const struct egress_refusals *refusals)
{
        Hotcell__V1__EgressRefusals *message;

        if (!refusals->is_known)
                return NULL;
        message = arena_new(arena, Hotcell__V1__EgressRefusals);
        if (!message)
                return NULL;
        hotcell__v1__egress_refusals__init(message);
        message->denied = refusals->logged + refusals->dropped;
        message->logged = refusals->logged;
        message->dropped = refusals->dropped;
        return message;
}

Hotcell__V1__EgressStatus *convert_egress_status(struct arena *arena,
                                                 const struct sandbox_record *record, bool is_whole)
{
        Hotcell__V1__EgressStatus *message = arena_new(arena, Hotcell__V1__EgressStatus);
        char *digest;

        if (!message)
                return NULL;
        hotcell__v1__egress_status__init(message);
        message->policy_version = record->egress_version;
        message->refusals = convert_refusals(arena, &record->egress_refusals);
        if (!is_whole)
                return message;
        message->enforced = record->state == SANDBOX_RUNNING &&
                            record->enforcement.version == record->egress_version;
        if (message->enforced) {
                message->n_program_ids = record->enforcement.n_program_ids;
                message->program_ids = arena_new_array(arena, uint32_t, message->n_program_ids + 1);
        }
        for (size_t i = 0; message->program_ids && i < message->n_program_ids; i++)
                message->program_ids[i] = record->enforcement.program_ids[i];
        digest = convert_digest(arena,
                                record->egress ? record->egress->sha256 : policy_digest_of_none);
        if (digest)
                message->policy_digest = digest;
        return message;
}
