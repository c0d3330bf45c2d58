/*
 * What a sandbox may reach: a default and a set of rules. The order of rules means nothing: what is
 * always denied (always.h) comes first, then any rule that denies, then any that allows, then the
 * default. compile.h makes tables of a policy, verdict.h judges by them. Nothing here does I/O.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What is wrong with a rule. policy_problem_text() says for people what to change. */
enum policy_problem {
        POLICY_OK = 0,
        POLICY_E_CIDR_FORM,         /* neither an address nor a prefix */
        POLICY_E_CIDR_HOST_BITS,    /* bits are set behind the prefix */
        POLICY_E_CIDR_V4_MAPPED,    /* an IPv4 address in its ::ffff:0:0/96 form */
        POLICY_E_DOMAIN_FORM,       /* not a host name */
        POLICY_E_DOMAIN_IS_ADDRESS, /* also in forms that some resolvers take: 0x7f.1, 2130706433 */
        POLICY_E_DOMAIN_WILDCARD,   /* a `*` elsewhere than in a leading `*.` */
        POLICY_E_DOMAIN_IDN,        /* does not convert to A-labels */
        POLICY_E_DOMAIN_LENGTH,     /* a label of more than 63 bytes, or more than 253 in all */
        POLICY_E_PORT_ZERO,
        POLICY_E_PORT_LARGE,    /* outside of 0 to 65535 */
        POLICY_E_PORT_ORDER,    /* ends before it begins */
        POLICY_E_PORTS_MANY,    /* more ranges than a rule holds */
        POLICY_E_ACTION,        /* neither ALLOW nor DENY */
        POLICY_E_PROTOCOL,      /* unknown */
        POLICY_E_DIRECT_MODE,   /* a protocol that only direct mode carries */
        POLICY_E_NAME_PROTOCOL, /* a name, with another protocol than TCP */
        POLICY_E_ICMP_PORTS,    /* ports, with ICMP */
        POLICY_E_RULES_MANY,
        POLICY_E_TOO_COMPLEX,   /* more ranges meet at one prefix or name than an entry holds */
        POLICY_E_OPENS_NOTHING, /* not within what is always denied: opening it changes nothing */
        _POLICY_PROBLEM_N,
};

enum {
        POLICY_RULES_MAX = 10000,
        POLICY_WALL_PREFIXES = 1 << 20, /* of a family that the wall holds, of all policies */
        POLICY_PORTS_MAX = 8,           /* ranges of one rule */
        POLICY_DOMAIN_BUFFER = 254,     /* for a name, or `*.` and a name, and NUL */
        POLICY_CIDR_BUFFER = 50,        /* for a prefix and NUL */
};

enum policy_action {
        POLICY_DENY = 1,
        POLICY_ALLOW,
};

enum policy_default {
        POLICY_DEFAULT_DENY = 1,
        POLICY_DEFAULT_ALLOW_PUBLIC, /* all that is public (always.h) */
};

enum policy_protocol {
        POLICY_TCP = 1,
        POLICY_UDP,
        POLICY_ICMP, /* and ICMPv6: echo requests. It has no ports, which is as if each were 0 */
};

/* Both included. */
struct policy_ports {
        uint16_t low;
        uint16_t high;
};

/* In network order, an IPv4 address in the first four bytes and zeros in the others. */
struct policy_address {
        bool is_v6;
        uint8_t bytes[16];
};

struct policy_prefix {
        bool is_v6;
        uint8_t n_bits;
        uint8_t bytes[16]; /* as of an address; zeros behind n_bits */
};

struct policy_rule {
        enum policy_action action;
        enum policy_protocol protocol;
        bool is_domain;
        bool is_wildcard;                            /* names below `domain`, not itself */
        struct policy_prefix prefix;                 /* when !is_domain */
        char domain[POLICY_DOMAIN_BUFFER];           /* A-labels, lower case, no dot at the end */
        struct policy_ports ports[POLICY_PORTS_MAX]; /* in any order, may overlap */
        size_t n_ports;                              /* 0: all */
};

/* Of zeros it is empty, and denies by default. */
struct policy {
        enum policy_default default_action;
        uint32_t record_types;     /* a set (record_types.h) */
        struct policy_rule *rules; /* owned */
        size_t n_rules;
        size_t n_allocated;
};

void policy_deinit(struct policy *policy);

/* Copies @rule to the end. 0, -ENOMEM, POLICY_E_RULES_MANY or what policy_rule_check() says. */
int policy_add(struct policy *policy, const struct policy_rule *rule);

/* POLICY_E_ACTION, POLICY_E_PROTOCOL, POLICY_E_NAME_PROTOCOL, POLICY_E_ICMP_PORTS: what no other
 * function looks at. */
int policy_rule_check(const struct policy_rule *rule);

/* Whether it is about a protocol that only direct mode carries (POLICY_E_DIRECT_MODE). */
bool policy_rule_is_direct(const struct policy_rule *rule);

/* Adds ports, both included, to a rule: 0 or a problem with them. */
int policy_rule_add_ports(struct policy_rule *rule, int64_t low, int64_t high);

/* A sentence that names what to change. */
const char *policy_problem_text(int problem);

/* A prefix as `10.0.0.0/8` or `2001:db8::/32`; an address without a length is one host. */
int policy_parse_cidr(const char *text, struct policy_prefix *ret_prefix);

/* Always with its length; what it writes parses to the same prefix. */
void policy_format_cidr(const struct policy_prefix *prefix,
                        char ret_text[static POLICY_CIDR_BUFFER]);

/*
 * SHA-256 of a text that does not depend on the order of the rules or of their ports (digest.c
 * shows it). 0, -ENOMEM, or -EIO when the library refuses.
 */
int policy_digest(const struct policy *policy, uint8_t ret_digest[static 32]);

/* That of a policy that has no rules and denies, for whoever must not want memory. */
extern const uint8_t policy_digest_of_none[32];

/* Of 4 and 16 bytes in network order. One in ::ffff:0:0/96 becomes the IPv4 address that it is. */
struct policy_address policy_address_v4(const void *bytes);
struct policy_address policy_address_v6(const void *bytes);
