/*
 * What the BPF programs of egress.bpf.c and user space share: the tables and the events. Only
 * fixed-width types, no holes. Addresses are in network order, IPv4 in the first four bytes; ports
 * are in host order.
 */
#pragma once

#include <linux/types.h>

enum {
        EGRESS_RANGES_MAX = 8,     /* of ports, for one prefix or name */
        EGRESS_TOKENS = 256,       /* of a sandbox: connections on their way to the relay */
        EGRESS_COMMAND_BYTES = 16, /* of the kernel's `comm` */
        EGRESS_ADDRESS_BYTES = 16,
        EGRESS_EVENT_RING_BYTES = 4 << 20,
        EGRESS_PREFIXES_MAX = 1 << 20, /* in all tables of one family together */
        EGRESS_NAMES_MAX = 1 << 20,    /* addresses that stand for names */
        EGRESS_POLICY_ALWAYS = 0,      /* the table of what is denied to all */
};

/*
 * Where a connection that may leave is sent: to the relay's listener on the sandbox's own `lo`. The
 * lower bits are a token; see struct egress_token. 127.64.0.0/10 is local in every network; for
 * IPv6 it takes a local route (a unique local prefix, RFC 4193, whose 40 random bits spell
 * "hcell").
 */
#define EGRESS_RELAY4      0x7f400000U /* 127.64.0.0/10, host order */
#define EGRESS_RELAY4_MASK 0xffc00000U
#define EGRESS_RELAY4_BITS 22
#define EGRESS_RELAY6_0    0xfd68U << 16 | 0x6365U /* fd68:6365:6c6c::/96, host order */
#define EGRESS_RELAY6_1    0x6c6c0000U

/* A connection has a place, which is used again after EGRESS_TOKENS others, and a serial number. */
#define EGRESS_TOKEN_PLACE(token)  ((token) % EGRESS_TOKENS)
#define EGRESS_TOKEN_SERIAL(token) ((token) / EGRESS_TOKENS)

/* A denied event each EGRESS_EVENT_INTERVAL_NSEC in the long run, and a burst of so many. */
#define EGRESS_EVENT_INTERVAL_NSEC (20ULL * 1000 * 1000)
#define EGRESS_EVENT_BURST         64ULL

enum egress_verdict {
        EGRESS_LOCAL, /* stays in the sandbox's network */
        EGRESS_ALLOWED_RULE,
        EGRESS_ALLOWED_NAME, /* the address of a name that a rule allows */
        EGRESS_ALLOWED_DEFAULT,
        EGRESS_DENIED_ALWAYS,
        EGRESS_DENIED_RULE,
        EGRESS_DENIED_DEFAULT,
        EGRESS_DENIED_PROTOCOL, /* none that the sandbox's network carries out of it */
        EGRESS_DENIED_RELAY,    /* the relay's own addresses */
        EGRESS_DENIED_SOCKET,   /* a kind of socket that no program may have */
        EGRESS_DENIED_PACKET,   /* neither UDP nor an echo request, or in pieces, or with options */
        EGRESS_DENIED_SOURCE,   /* with another sender than the sandbox */
        EGRESS_DENIED_ROUTE,    /* the host has no way to it */
        EGRESS_DENIED_UNREADY,  /* the sandbox has no policy yet */
};

/* Families of which a sandbox has an address of its own, by which UDP and ICMP leave. */
enum {
        EGRESS_DIRECT4 = 1,
        EGRESS_DIRECT6 = 2,
};

enum egress_action {
        EGRESS_DENY = 1,
        EGRESS_ALLOW,
};

/* Keys of the prefix tables: @prefix_bits counts those of @policy, too. */
struct egress_prefix4 {
        __u32 prefix_bits;
        __u32 policy;
        __u8 address[4];
};

struct egress_prefix6 {
        __u32 prefix_bits;
        __u32 policy;
        __u8 address[16];
};

struct egress_range {
        __u16 low;
        __u16 high;
        __u8 action;   /* enum egress_action */
        __u8 protocol; /* IPPROTO_…, that of ICMP for ICMPv6, too; zero: any */
        __u16 rule;    /* index in the policy */
};

/* What holds for a prefix: ranges of all prefixes around it are in it. A deny beats an allow. */
struct egress_ranges {
        __u32 n_ranges;
        __u32 unused;
        struct egress_range ranges[EGRESS_RANGES_MAX];
};

/* An address that the resolver gave out for a name that is allowed. IPv4 as ::ffff:a.b.c.d. */
struct egress_name_key {
        __u32 policy;
        __u8 address[EGRESS_ADDRESS_BYTES];
};

struct egress_name {
        __u64 expire_nsec; /* CLOCK_MONOTONIC */
        struct egress_ranges allowed;
};

/* A sandbox, by the id of its cgroup2 directory. One that is not there may do nothing. */
struct egress_sandbox {
        __u32 policy;         /* number of its tables; zero: it has none, all is denied */
        __u32 policy_version; /* for events */
        __u32 slot;           /* its tokens start at slot * EGRESS_TOKENS */
        __u16 relay_port;     /* of its listener; zero: there is none */
        __u8 default_action;  /* enum egress_action */
        __u8 direct;          /* EGRESS_DIRECT4, EGRESS_DIRECT6 */
};

/* What was refused in a sandbox, by the same id: denied = logged + dropped. */
struct egress_counts {
        __u64 n_denied;
        __u64 n_logged;
        __u64 n_dropped;
        __u64 n_tokens;        /* given out */
        __u64 next_event_nsec; /* the token bucket of events */
        __u64 n_unasked;    /* packets to its device that were no answers; in none of the others */
        __u64 sent_packets; /* that its device let pass, as what follows; bytes from IP's head on */
        __u64 sent_bytes;
        __u64 received_packets;
        __u64 received_bytes;
};

/* The device of a sandbox, by the number of the host's end. Zeros where it has no address. */
struct egress_device {
        __u64 cgroup_id;
        __u32 address4; /* network order */
        __u32 address6[4];
        __u32 unused;
};

/* A connection on its way to the relay. */
struct egress_token {
        __u64 serial;
        __u64 cgroup_id; /* of the sandbox */
        __u64 leaf_id;   /* of the cgroup of the process */
        __u32 pid;
        __u32 policy_version;
        __u16 port;
        __u8 is_v6;
        __u8 verdict; /* enum egress_verdict */
        __u8 unused[4];
        __u8 address[EGRESS_ADDRESS_BYTES];
        char command[EGRESS_COMMAND_BYTES];
};

/* A refusal. */
struct egress_event {
        __u64 serial;    /* of the sandbox: counts n_logged */
        __u64 time_nsec; /* CLOCK_MONOTONIC */
        __u64 cgroup_id;
        __u64 leaf_id;
        __u32 pid;
        __u32 policy_version;
        __u16 port;
        __u16 rule; /* with EGRESS_DENIED_RULE */
        __u8 is_v6;
        __u8 protocol; /* IPPROTO_… */
        __u8 verdict;
        __u8 unused[5];
        __u8 address[EGRESS_ADDRESS_BYTES];
        char command[EGRESS_COMMAND_BYTES];
};
