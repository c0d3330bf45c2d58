#include "runtime/egress/policy_reader.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/wire.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/record_types.h"

/* Unpacked, a rule takes some times its bytes. */
enum { ARENA_BYTES_MAX = 32 << 20 };

static int read_destination(const Hotcell__Egress__V1__Rule *message, struct policy_rule *rule)
{
        if (message->destination_case == HOTCELL__EGRESS__V1__RULE__DESTINATION_CIDR)
                return policy_parse_cidr(message->cidr, &rule->prefix);
        if (message->destination_case != HOTCELL__EGRESS__V1__RULE__DESTINATION_DOMAIN)
                return POLICY_E_CIDR_FORM;
        rule->is_domain = true;
        return policy_parse_domain(message->domain, &rule->is_wildcard, rule->domain);
}

/* Zero: it is none that there can be a rule about. */
static enum policy_protocol read_protocol(uint32_t number)
{
        switch (number) {
        case 0:
                return POLICY_TCP;
        case IPPROTO_UDP:
                return POLICY_UDP;
        case IPPROTO_ICMP:
                return POLICY_ICMP;
        default:
                return 0;
        }
}

static int read_rule(const Hotcell__Egress__V1__Rule *message, struct policy *policy)
{
        struct policy_rule rule = { .action = message->is_allow ? POLICY_ALLOW : POLICY_DENY,
                                    .protocol = read_protocol(message->protocol) };
        int r = read_destination(message, &rule);

        for (size_t i = 0; i < message->n_ports && !r; i++)
                r = policy_rule_add_ports(&rule, message->ports[i]->first, message->ports[i]->last);
        return r ? r : policy_add(policy, &rule);
}

static int read_rules(const Hotcell__Egress__V1__Policy *message, struct policy *policy,
                      size_t *ret_rule)
{
        for (size_t i = 0; i < message->n_rules; i++) {
                int r = read_rule(message->rules[i], policy);

                if (r > 0) {
                        *ret_rule = i;
                        return POLICY_READER_E_INVALID;
                }
                if (r)
                        return error_fold(r);
        }
        return 0;
}

static int read_bytes(int fd, size_t n_bytes, uint8_t **ret_bytes)
{
        _cleanup_(freep) uint8_t *bytes = malloc(n_bytes);
        size_t n = 0;

        if (!bytes)
                return error_origin(-ENOMEM);
        while (n < n_bytes) {
                ssize_t got = pread(fd, bytes + n, n_bytes - n, (off_t)n);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0)
                        return error_origin(got < 0 ? -errno : -EPROTO);
                n += (size_t)got;
        }
        *ret_bytes = take(bytes);
        return 0;
}

static int read_message(const uint8_t *bytes, size_t n_bytes, struct policy *policy,
                        size_t *ret_rule)
{
        _cleanup_(wire_arena_deinit) struct wire_arena arena = { 0 };
        Hotcell__Egress__V1__Policy *message;
        int r = wire_arena_init(&arena, ARENA_BYTES_MAX);

        if (r)
                return r;
        message = hotcell__egress__v1__policy__unpack(&arena.allocator, n_bytes, bytes);
        return message ? read_rules(message, policy, ret_rule) : POLICY_READER_E_INVALID;
}

int policy_reader_head(const Hotcell__Egress__V1__SetPolicy *set, struct policy_head *ret_head)
{
        struct policy_head head = { .version = set->policy_version,
                                    .default_action = POLICY_DEFAULT_DENY,
                                    .n_bytes = set->policy_bytes };

        if (set->default_action == HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_ALLOW_PUBLIC)
                head.default_action = POLICY_DEFAULT_ALLOW_PUBLIC;
        for (size_t i = 0; i < set->n_record_types; i++) {
                const enum policy_record_type type = policy_record_type_of(set->record_types[i]);

                if (!type || head.record_types & BIT(type))
                        return POLICY_READER_E_INVALID;
                head.record_types |= BIT(type);
        }
        *ret_head = head;
        return 0;
}

int policy_reader_read(const struct policy_head *head, int policy_fd, struct policy *ret_policy,
                       size_t *ret_rule)
{
        struct policy policy = { .default_action = head->default_action,
                                 .record_types = head->record_types };
        _cleanup_(freep) uint8_t *bytes = NULL;
        int r = 0;

        *ret_rule = 0;
        if (head->n_bytes > POLICY_READER_BYTES_MAX || (head->n_bytes > 0 && policy_fd < 0))
                return POLICY_READER_E_INVALID;
        if (head->n_bytes > 0)
                r = read_bytes(policy_fd, head->n_bytes, &bytes);
        if (!r && bytes)
                r = read_message(bytes, head->n_bytes, &policy, ret_rule);
        if (r) {
                policy_deinit(&policy);
                return r;
        }
        *ret_policy = policy;
        return 0;
}
