/*
 * The rules of an egress policy as they are kept in memory and in the database: each a text ended
 * by NUL, such as `allow tcp 443,8000-8080 domain *.example.org` or `deny tcp - cidr 10.0.0.0/8`.
 * The destination is what the client wrote.
 */
#pragma once

#include "runtime/policy/policy.h"
#include "server/store/egress.h"
#include "server/store/records.h"

struct egress_rule {
        enum policy_action action;
        enum policy_protocol protocol;
        bool is_domain;
        const char *destination; /* borrowed */
        struct policy_ports ports[POLICY_PORTS_MAX];
        size_t n_ports; /* 0: all */
};

/* Bytes that a rule takes, its NUL included. */
size_t egress_rule_size(const struct egress_rule *rule);

/* Writes those, and returns where they end. */
char *egress_rule_pack(const struct egress_rule *rule, char *to);

/* For people, as `hotcell` takes it: `deny udp:[2001:db8::/32]:53`. Cut to fit. */
void egress_rule_show(const struct egress_rule *rule, char ret_text[static RULE_BUFFER]);

enum { EGRESS_E_END = 1 };

/* Reads the rule at *@offset, first 0, and moves that on. -EUCLEAN: it is none. */
int egress_rule_next(const struct egress *egress, size_t *offset, struct egress_rule *ret_rule);

/* Reads the rule with that index, without looking at all before it. EGRESS_E_END: there is none. */
int egress_rule_at(struct egress *egress, int64_t index, struct egress_rule *ret_rule);
