/*
 * Twice over the rules: once to check them, in the form of runtime/policy, which tells whether they
 * can be held to and what they mean together; and once to pack them as the client wrote them, which
 * is what is kept.
 */
#include "server/api/check_egress.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/policy/compile.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/record_types.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/clip.h"
#include "server/session/egress_rules.h"
#include "server/session/session.h"
#include "server/session/shares.h"

enum { FIELD_PATH = 192, HOST_QUOTED = 80 };

static_assert((int)POLICY_DEFAULT_ALLOW_PUBLIC ==
                      (int)HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_ALLOW_PUBLIC,
              "same numbers");
static_assert((int)POLICY_ICMP == (int)HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_ICMP,
              "same numbers");
static_assert((int)POLICY_RECORD_TXT ==
                      (int)HOTCELL__V1__EGRESS_RECORD_TYPE__EGRESS_RECORD_TYPE_TXT,
              "same numbers");
static_assert((int)POLICY_RECORD_CAA ==
                      (int)HOTCELL__V1__EGRESS_RECORD_TYPE__EGRESS_RECORD_TYPE_CAA,
              "same numbers");

struct check {
        struct api_call *call;
        const char *path; /* of the policy */
        struct policy policy;
        bool has_direct;    /* direct mode: rules may be about UDP and ICMP */
        size_t n_bytes;     /* of the rules, packed */
        size_t n_converted; /* labels of names */
        bool allows;
        bool is_good;
        bool is_hopeless; /* to look for further mistakes would take too long */
};

/* --- blame --- */

static enum reason reason_of(int problem)
{
        switch (problem) {
        case POLICY_E_DIRECT_MODE:
                return REASON_NEEDS_DIRECT_MODE;
        case POLICY_E_PORTS_MANY:
        case POLICY_E_TOO_COMPLEX:
                return REASON_RULE_TOO_COMPLEX;
        case POLICY_E_RULES_MANY:
                return REASON_LIMIT_OUT_OF_RANGE;
        default:
                return REASON_INVALID_FIELD;
        }
}

/* @field: of the policy, such as `.rules`. */
static void blame(struct check *check, const char *field, enum reason reason, const char *text)
{
        char path[FIELD_PATH];

        (void)snprintf(path, sizeof(path), "%.120s%.60s", check->path, field);
        api_call_blame(check->call, reason, path, "%s", text);
        check->is_good = false;
}

/* @problem: of runtime/policy, or negative for want of memory. @field: of rule @i, or empty. */
static void blame_rule(struct check *check, size_t i, const char *field, int problem)
{
        char path[FIELD_PATH];

        if (problem < 0) {
                check->call->arena.failed = true;
                check->is_good = false;
                return;
        }
        (void)snprintf(path, sizeof(path), ".rules[%zu]%.40s", i, field);
        blame(check, path, reason_of(problem), policy_problem_text(problem));
}

/* The host is quoted: where rules are written as texts nobody counts them. */
static void blame_host(struct check *check, size_t i, const char *field, const char *host,
                       int problem)
{
        char path[FIELD_PATH], quoted[HOST_QUOTED], text[STATUS_TEXT_SIZE];

        if (problem < 0) {
                blame_rule(check, i, field, problem);
                return;
        }
        (void)clip_copy(quoted, sizeof(quoted), host);
        (void)snprintf(path, sizeof(path), ".rules[%zu]%.40s", i, field);
        (void)snprintf(text, sizeof(text), "'%s' %.150s", quoted, policy_problem_text(problem));
        blame(check, path, reason_of(problem), text);
}

/* What a newer client says might be what makes a rule narrower. */
static void refuse_unknown_fields(struct check *check, const ProtobufCMessage *message,
                                  const char *field)
{
        char text[128];

        if (message->n_unknown_fields == 0)
                return;
        (void)snprintf(text, sizeof(text),
                       "has field %u, which this server does not know and so cannot hold to; leave "
                       "it out",
                       message->unknown_fields[0].tag);
        blame(check, field, REASON_INVALID_FIELD, text);
}

static void refuse_unknown_in_rule(struct check *check, size_t i,
                                   const Hotcell__V1__EgressRule *message)
{
        char path[FIELD_PATH];

        (void)snprintf(path, sizeof(path), ".rules[%zu]", i);
        refuse_unknown_fields(check, &message->base, path);
        for (size_t n = 0; n < MIN(message->n_ports, (size_t)POLICY_PORTS_MAX); n++) {
                (void)snprintf(path, sizeof(path), ".rules[%zu].ports[%zu]", i, n);
                refuse_unknown_fields(check, &message->ports[n]->base, path);
        }
}

/* --- one rule --- */

static enum policy_action action_of(const Hotcell__V1__EgressRule *message)
{
        switch ((int)message->action) {
        case HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_ALLOW:
                return POLICY_ALLOW;
        case HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_DENY:
                return POLICY_DENY;
        default:
                return 0;
        }
}

static enum policy_protocol protocol_of(const Hotcell__V1__EgressRule *message)
{
        return message->protocol ? (enum policy_protocol)message->protocol : POLICY_TCP;
}

static bool is_ascii(const char *text, size_t n)
{
        size_t i = 0;

        while (i < n && !(text[i] & 0x80))
                i++;
        return i == n;
}

/* Labels of @text that are converted. UTS #46 knows three more dots, of three bytes each. */
static size_t count_converted(const char *text)
{
        static const char *const dots[] = { "\u3002", "\uff0e", "\uff61" };
        const bool is_odd = !is_ascii(text, strlen(text));
        size_t n = 0;

        for (const char *label = text; *label; label += *label == '.') {
                size_t n_label = strcspn(label, ".");

                n += !is_ascii(label, n_label) || strncasecmp(label, "xn--", 4) == 0;
                label += n_label;
        }
        for (size_t i = 0; i < ARRAY_SIZE(dots) && is_odd; i++)
                for (const char *dot = text; (dot = strstr(dot, dots[i])); dot += strlen(dots[i]))
                        n++;
        return n;
}

static void read_domain(struct check *check, size_t i, const char *text, struct policy_rule *rule)
{
        char path[FIELD_PATH], quoted[HOST_QUOTED], said[STATUS_TEXT_SIZE];
        int r;

        rule->is_domain = true;
        check->n_converted += count_converted(text);
        if (check->n_converted > EGRESS_CONVERTED_MAX) {
                (void)clip_copy(quoted, sizeof(quoted), text);
                (void)snprintf(path, sizeof(path), ".rules[%zu].domain", i);
                (void)snprintf(said, sizeof(said),
                               "'%s' has the last of more than 1,000 labels that are not ASCII or "
                               "in their xn-- form; use a wildcard",
                               quoted);
                blame(check, path, REASON_LIMIT_OUT_OF_RANGE, said);
                check->is_hopeless = true;
                return;
        }
        r = policy_parse_domain(text, &rule->is_wildcard, rule->domain);
        if (r)
                blame_host(check, i, ".domain", text, r);
}

static void read_destination(struct check *check, size_t i, const Hotcell__V1__EgressRule *message,
                             struct policy_rule *rule)
{
        char path[FIELD_PATH];
        int r;

        switch ((int)message->destination_case) {
        case HOTCELL__V1__EGRESS_RULE__DESTINATION_CIDR:
                r = policy_parse_cidr(message->cidr, &rule->prefix);
                if (r)
                        blame_host(check, i, ".cidr", message->cidr, r);
                break;
        case HOTCELL__V1__EGRESS_RULE__DESTINATION_DOMAIN:
                read_domain(check, i, message->domain, rule);
                break;
        default:
                (void)snprintf(path, sizeof(path), ".rules[%zu]", i);
                blame(check, path, REASON_INVALID_FIELD,
                      "needs a destination, cidr or domain; for all of them use default_action");
        }
}

/* The field of a range that is to be changed. */
static const char *wrong_field(const Hotcell__V1__EgressPorts *range)
{
        if (range->first < 1 || range->first > UINT16_MAX)
                return ".first";
        return range->last < 0 || range->last > UINT16_MAX ? ".last" : "";
}

static void read_ports(struct check *check, size_t i, const Hotcell__V1__EgressRule *message,
                       struct policy_rule *rule)
{
        for (size_t n = 0; n < message->n_ports; n++) {
                const Hotcell__V1__EgressPorts *range = message->ports[n];
                int r = policy_rule_add_ports(rule, range->first,
                                              range->last ? range->last : range->first);
                char field[FIELD_PATH];

                if (r == POLICY_E_PORTS_MANY) {
                        blame_rule(check, i, ".ports", r);
                        return;
                }
                if (r == 0)
                        continue;
                (void)snprintf(field, sizeof(field), ".ports[%zu]%s", n, wrong_field(range));
                blame_rule(check, i, field, r);
        }
}

/* What the fields of a rule mean together, whether each is good or not. */
static void check_kind(struct check *check, size_t i, const Hotcell__V1__EgressRule *message)
{
        const struct policy_rule rule = {
                .action = action_of(message),
                .protocol = protocol_of(message),
                .is_domain =
                        message->destination_case == HOTCELL__V1__EGRESS_RULE__DESTINATION_DOMAIN,
                .n_ports = message->n_ports,
        };
        int r = policy_rule_check(&rule);

        if (r != POLICY_E_ACTION && policy_rule_is_direct(&rule) && !check->has_direct)
                r = POLICY_E_DIRECT_MODE;
        if (r)
                blame_rule(check, i,
                           r == POLICY_E_ACTION       ? ".action"
                           : r == POLICY_E_ICMP_PORTS ? ".ports"
                                                      : ".protocol",
                           r);
}

/* As it is packed; of one that is good. */
static struct egress_rule packed_rule(const Hotcell__V1__EgressRule *message,
                                      const struct policy_rule *rule)
{
        struct egress_rule packed = {
                .action = rule->action,
                .protocol = rule->protocol,
                .is_domain = rule->is_domain,
                .destination = rule->is_domain ? message->domain : message->cidr,
                .n_ports = rule->n_ports,
        };

        memcpy(packed.ports, rule->ports, sizeof(packed.ports));
        return packed;
}

static void read_rule(struct check *check, size_t i, const Hotcell__V1__EgressRule *message)
{
        struct policy_rule rule = { .action = action_of(message),
                                    .protocol = protocol_of(message) };
        struct egress_rule packed;
        int r;

        refuse_unknown_in_rule(check, i, message);
        check_kind(check, i, message);
        read_destination(check, i, message, &rule);
        read_ports(check, i, message, &rule);
        if (!check->is_good)
                return;
        r = policy_add(&check->policy, &rule);
        if (r) {
                blame_rule(check, i, "", r);
                return;
        }
        packed = packed_rule(message, &rule);
        check->n_bytes += egress_rule_size(&packed);
        check->allows |= rule.action == POLICY_ALLOW;
}

/* --- all of them --- */

static void read_default(struct check *check, const Hotcell__V1__EgressPolicy *message)
{
        switch ((int)message->default_action) {
        case HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_UNSPECIFIED:
        case HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_DENY:
                check->policy.default_action = POLICY_DEFAULT_DENY;
                break;
        case HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_ALLOW_PUBLIC:
                check->policy.default_action = POLICY_DEFAULT_ALLOW_PUBLIC;
                check->allows = true;
                break;
        default:
                blame(check, ".default_action", REASON_INVALID_FIELD,
                      "is not known to this server; use DENY or ALLOW_PUBLIC");
        }
}

static bool has_room_for_blame(const struct check *check)
{
        return check->call->status.n_fields < STATUS_FIELDS_MAX && !check->is_hopeless &&
               !check->call->arena.failed;
}

static void blame_type(struct check *check, size_t i, const char *text)
{
        char path[FIELD_PATH];

        (void)snprintf(path, sizeof(path), ".record_types[%zu]", i);
        blame(check, path, REASON_INVALID_FIELD, text);
}

static void read_types(struct check *check, const Hotcell__V1__EgressPolicy *message)
{
        for (size_t i = 0; i < message->n_record_types && has_room_for_blame(check); i++) {
                const int type = (int)message->record_types[i];

                if (type < POLICY_RECORD_NS || type >= _POLICY_RECORD_N)
                        blame_type(check, i, "is no type of records that this server knows");
                else if (check->policy.record_types & BIT(type))
                        blame_type(check, i, "is there already; leave it out");
                else
                        check->policy.record_types |= BIT(type);
        }
}

static void read_rules(struct check *check, const Hotcell__V1__EgressPolicy *message)
{
        if (message->n_rules > POLICY_RULES_MAX) {
                blame(check, ".rules", reason_of(POLICY_E_RULES_MANY),
                      policy_problem_text(POLICY_E_RULES_MANY));
                return;
        }
        for (size_t i = 0; i < message->n_rules && has_room_for_blame(check); i++)
                read_rule(check, i, message->rules[i]);
        if (check->n_bytes > EGRESS_BYTES_MAX)
                blame(check, ".rules", REASON_LIMIT_OUT_OF_RANGE,
                      "are more than 3.75 MiB together; join some, or use wildcards");
}

/* Whether the kernel's tables have room for it. */
static void check_complexity(struct check *check)
{
        struct policy_table table = { 0 };
        size_t i = 0;
        int r;

        if (!check->is_good)
                return;
        r = policy_compile(&check->policy, &table, &i);
        if (r)
                blame_rule(check, i, "", r);
        policy_table_deinit(&table);
}

static struct egress *pack(const struct check *check, const Hotcell__V1__EgressPolicy *message)
{
        _cleanup_(egress_releasep) struct egress *egress = egress_new(check->n_bytes);
        char *end;

        if (!egress || policy_digest(&check->policy, egress->sha256))
                return NULL;
        egress->default_action = (int32_t)check->policy.default_action;
        egress->allows = check->allows;
        egress->record_types = check->policy.record_types;
        egress->n_rules = (int64_t)check->policy.n_rules;
        end = egress->bytes;
        for (size_t i = 0; i < check->policy.n_rules; i++) {
                struct egress_rule rule = packed_rule(message->rules[i], &check->policy.rules[i]);

                end = egress_rule_pack(&rule, end);
        }
        assert(end == egress->bytes + egress->n_bytes);
        return take(egress);
}

/* Before anything of it is looked at. */
static bool take_rules(struct api_call *call, const char *path, size_t n_rules)
{
        const char *owner = call->identity.owner;
        bool is_first = !api_call_has_blame(call);
        uint64_t wait_usec = 0;

        if (n_rules > 0 && !owner_is_operator(owner))
                wait_usec = rule_rate_take(&call->api->rule_rate, owner, n_rules,
                                           clock_monotonic_usec());
        if (wait_usec == 0)
                return true;
        api_call_blame(call, REASON_UPDATE_RATE, path,
                       "has rules, of which you may ask for %d a second", RULE_RATE_SECOND);
        if (is_first) {
                status_set_quota(&call->status, owner, "%d egress rules a second",
                                 RULE_RATE_SECOND);
                status_set_retry(&call->status, wait_usec);
        }
        return false;
}

bool check_egress(struct api_call *call, const char *path, const Hotcell__V1__EgressPolicy *message)
{
        struct check check = {
                .call = call,
                .path = path,
                .has_direct = session_has_direct_mode(call->api->session),
                .is_good = true,
        };
        bool is_default;

        call->egress = egress_release(call->egress);
        if (!message)
                return true;
        if (!take_rules(call, path, message->n_rules))
                return false;
        refuse_unknown_fields(&check, &message->base, "");
        read_default(&check, message);
        read_types(&check, message);
        read_rules(&check, message);
        check_complexity(&check);
        is_default = check.policy.default_action == POLICY_DEFAULT_DENY && message->n_rules == 0 &&
                     check.policy.record_types == 0;
        if (check.is_good && !is_default) {
                call->egress = pack(&check, message);
                call->arena.failed |= !call->egress;
                check.is_good = call->egress != NULL;
        }
        policy_deinit(&check.policy);
        return check.is_good;
}
