/*
 * The egress wall: attached to the parent cgroup of all sandboxes, so that it holds before the
 * first of them and while nobody runs to mind it. What stays in a sandbox's network may go anywhere
 * there, TCP that the tables allow is sent to the relay that listens there, and all else is refused
 * at once (EPERM) and told; but for UDP and ping sockets of a sandbox that has a device beside
 * `lo`.
 *
 * A socket belongs to the cgroup and the network of who made it. So nothing here can see a socket
 * that came from elsewhere; none does (see docs/SECURITY.md).
 */
#include <linux/bpf.h>
#include <linux/in.h>
#include <stdbool.h>

#include <bpf/bpf_endian.h>
#include <bpf/bpf_helpers.h>

#include "bpf/egress_abi.h"
#include "bpf/egress_tables.bpf.h"

enum {
        AF_INET = 2,
        AF_INET6 = 10,
        SOCK_STREAM = 1,
        SOCK_DGRAM = 2,
        REFUSE = 0, /* with EPERM */
        GO_ON = 1,
        LEVELS_MAX = 32,
};

/* The parent group of all sandboxes. */
const volatile __u64 parent_id = 0;
/* Depth of the groups below it in the whole cgroup2 tree, of which a container shows a part only:
 * so it is found here, once. */
__u32 sandbox_level = 0;

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, 1); /* set before loading */
        __type(key, __u32);
        __type(value, struct egress_token);
} tokens SEC(".maps");

/* Where a redirected socket wanted to go: what getpeername() says. */
struct {
        __uint(type, BPF_MAP_TYPE_SK_STORAGE);
        __uint(map_flags, BPF_F_NO_PREALLOC);
        __type(key, int);
        __type(value, struct egress_destination);
} peers SEC(".maps");

/* --- telling ---------------------------------------------------------------------------------- */

static __always_inline void tell(__u64 cgroup_id, const struct egress_sandbox *sandbox,
                                 const struct egress_destination *to, enum egress_verdict verdict,
                                 __u16 rule)
{
        struct egress_counts *count = bpf_map_lookup_elem(&counts, &cgroup_id);
        struct egress_event *event;

        if (!count)
                return;
        __sync_fetch_and_add(&count->n_denied, 1);
        event = new_event(count);
        if (!event)
                return;
        fill_event(event, cgroup_id, sandbox, to, verdict, rule);
        event->leaf_id = bpf_get_current_cgroup_id();
        event->pid = bpf_get_current_pid_tgid() >> 32;
        bpf_get_current_comm(event->command, sizeof(event->command));
        bpf_ringbuf_submit(event, 0);
}

/* --- going to the relay ----------------------------------------------------------------------- */

/* The token's number, or zero: there is no place for it. */
static __always_inline __u64 give_token(__u64 cgroup_id, const struct egress_sandbox *sandbox,
                                        const struct egress_destination *to,
                                        enum egress_verdict verdict)
{
        struct egress_counts *count = bpf_map_lookup_elem(&counts, &cgroup_id);
        struct egress_token *token;
        __u64 number;
        __u32 place;

        if (!count)
                return 0;
        /* From the second round on, so that no serial number is zero. */
        number = __sync_fetch_and_add(&count->n_tokens, 1) + EGRESS_TOKENS;
        place = sandbox->slot * EGRESS_TOKENS + EGRESS_TOKEN_PLACE(number);
        token = bpf_map_lookup_elem(&tokens, &place);
        if (!token)
                return 0;
        token->serial = 0;
        token->cgroup_id = cgroup_id;
        token->leaf_id = bpf_get_current_cgroup_id();
        token->pid = bpf_get_current_pid_tgid() >> 32;
        token->policy_version = sandbox->policy_version;
        token->port = to->port;
        token->is_v6 = to->is_v6;
        token->verdict = verdict;
        __builtin_memcpy(token->address, to->words, sizeof(token->address));
        bpf_get_current_comm(token->command, sizeof(token->command));
        token->serial = EGRESS_TOKEN_SERIAL(number);
        return number;
}

static __always_inline void remember_peer(struct bpf_sock_addr *context,
                                          const struct egress_destination *to)
{
        struct bpf_sock *sock = context->sk;
        struct egress_destination *peer;

        peer = sock ? bpf_sk_storage_get(&peers, sock, NULL, BPF_SK_STORAGE_GET_F_CREATE) : NULL;
        /* There may be one of an earlier connect(). */
        if (peer)
                *peer = *to;
}

/* --- whose it is ------------------------------------------------------------------------------ */

static __always_inline __u64 current_sandbox(void)
{
        if (!sandbox_level) {
                for (__u32 level = 0; level < LEVELS_MAX; level++) {
                        if (bpf_get_current_ancestor_cgroup_id(level) == parent_id)
                                sandbox_level = level + 1;
                }
        }
        return bpf_get_current_ancestor_cgroup_id(sandbox_level);
}

/* --- judging ---------------------------------------------------------------------------------- */

/* 127/8 and 0.0.0.0, which means the same to connect(). */
static __always_inline bool is_local4(__u32 address)
{
        return address >> 24 == 127 || address == 0;
}

static __always_inline bool is_relay4(__u32 address)
{
        return (address & EGRESS_RELAY4_MASK) == EGRESS_RELAY4;
}

static __always_inline bool is_relay6(const __u32 *words)
{
        return words[0] == bpf_htonl(EGRESS_RELAY6_0) && words[1] == bpf_htonl(EGRESS_RELAY6_1) &&
               words[2] == 0;
}

static __always_inline bool is_local6(const __u32 *words)
{
        return words[0] == 0 && words[1] == 0 && words[2] == 0 &&
               (words[3] == 0 || words[3] == bpf_htonl(1));
}

/*
 * connect() to 0.0.0.0 of a socket that is bound goes to where it is bound: so one that was bound
 * to a token's address would choose its token.
 */
static __always_inline bool is_relay_by_bind(const struct bpf_sock_addr *context,
                                             const struct egress_destination *to)
{
        struct bpf_sock *sock = context->sk;

        return !to->is_v6 && to->words[0] == 0 && sock && is_relay4(bpf_ntohl(sock->src_ip4));
}

static __always_inline enum egress_verdict judge_all(const struct egress_sandbox *sandbox,
                                                     const struct egress_destination *to,
                                                     __u16 *ret_rule)
{
        if (!to->is_v6 && is_relay4(bpf_ntohl(to->words[0])))
                return EGRESS_DENIED_RELAY;
        if (to->is_v6 && is_relay6(to->words))
                return EGRESS_DENIED_RELAY;
        if (to->is_v6 ? is_local6(to->words) : is_local4(bpf_ntohl(to->words[0])))
                return EGRESS_LOCAL;
        return sandbox ? judge(sandbox, to, ret_rule) : EGRESS_DENIED_DEFAULT;
}

/* No rule says so, nor what is always denied. */
static __always_inline bool is_no_rule(enum egress_verdict verdict)
{
        return verdict == EGRESS_DENIED_PROTOCOL || verdict == EGRESS_DENIED_DEFAULT;
}

/* True: the socket stays, or goes to the relay with the token @ret_token. */
static __always_inline bool decide(struct bpf_sock_addr *context, struct egress_destination *to,
                                   bool is_connect, __u64 *ret_token, __u16 *ret_relay_port)
{
        __u64 cgroup_id = current_sandbox();
        struct egress_sandbox *sandbox = bpf_map_lookup_elem(&sandboxes, &cgroup_id);
        __u16 rule = 0;
        enum egress_verdict verdict = judge_all(sandbox, to, &rule);

        *ret_token = 0;
        if (verdict == EGRESS_LOCAL && is_relay_by_bind(context, to))
                verdict = EGRESS_DENIED_RELAY;
        if (verdict == EGRESS_LOCAL)
                return true;
        /* By its device, where each packet is judged again. */
        if (verdict == EGRESS_ALLOWED_RULE && to->protocol != IPPROTO_TCP)
                return true;
        if (sandbox && verdict <= EGRESS_ALLOWED_DEFAULT && is_connect && sandbox->relay_port) {
                *ret_token = give_token(cgroup_id, sandbox, to, verdict);
                *ret_relay_port = sandbox->relay_port;
                if (*ret_token) {
                        remember_peer(context, to);
                        return true;
                }
                verdict = EGRESS_DENIED_DEFAULT;
        } else if (verdict <= EGRESS_ALLOWED_DEFAULT) {
                /* Without a relay nothing leaves. */
                verdict = EGRESS_DENIED_DEFAULT;
        }
        if (!sandbox || !is_connect || !is_no_rule(verdict) || !is_lookup(sandbox, to))
                tell(cgroup_id, sandbox, to, verdict, rule);
        return false;
}

static __always_inline void read_v4(struct bpf_sock_addr *context, struct egress_destination *to)
{
        to->words[0] = context->user_ip4;
        to->port = bpf_ntohs((__u16)context->user_port);
        to->protocol = context->protocol;
}

/* ::ffff:a.b.c.d is a.b.c.d. */
static __always_inline void read_v6(struct bpf_sock_addr *context, struct egress_destination *to)
{
        __u32 word0 = context->user_ip6[0];
        __u32 word1 = context->user_ip6[1];
        __u32 word2 = context->user_ip6[2];
        __u32 word3 = context->user_ip6[3];

        to->port = bpf_ntohs((__u16)context->user_port);
        to->protocol = context->protocol;
        if (word0 == 0 && word1 == 0 && word2 == bpf_htonl(0xffff)) {
                to->words[0] = word3;
                return;
        }
        to->is_v6 = 1;
        to->words[0] = word0;
        to->words[1] = word1;
        to->words[2] = word2;
        to->words[3] = word3;
}

static __always_inline void redirect4(struct bpf_sock_addr *context, __u64 token, __u16 port)
{
        context->user_ip4 = bpf_htonl(EGRESS_RELAY4 | ((__u32)token & ~EGRESS_RELAY4_MASK));
        context->user_port = bpf_htons(port);
}

static __always_inline void redirect6(struct bpf_sock_addr *context, __u64 token, __u16 port)
{
        context->user_ip6[0] = bpf_htonl(EGRESS_RELAY6_0);
        context->user_ip6[1] = bpf_htonl(EGRESS_RELAY6_1);
        context->user_ip6[2] = 0;
        context->user_ip6[3] = bpf_htonl((__u32)token);
        context->user_port = bpf_htons(port);
}

/* --- the programs ----------------------------------------------------------------------------- */

SEC("cgroup/connect4")
int egress_connect4(struct bpf_sock_addr *context)
{
        struct egress_destination to = { 0 };
        __u64 token;
        __u16 port = 0;

        read_v4(context, &to);
        if (!decide(context, &to, true, &token, &port))
                return REFUSE;
        if (token)
                redirect4(context, token, port);
        return GO_ON;
}

SEC("cgroup/connect6")
int egress_connect6(struct bpf_sock_addr *context)
{
        struct egress_destination to = { 0 };
        __u64 token;
        __u16 port = 0;

        read_v6(context, &to);
        if (!decide(context, &to, true, &token, &port))
                return REFUSE;
        if (token)
                redirect6(context, token, port);
        return GO_ON;
}

SEC("cgroup/sendmsg4")
int egress_sendmsg4(struct bpf_sock_addr *context)
{
        struct egress_destination to = { 0 };
        __u64 token;
        __u16 port;

        read_v4(context, &to);
        return decide(context, &to, false, &token, &port) ? GO_ON : REFUSE;
}

SEC("cgroup/sendmsg6")
int egress_sendmsg6(struct bpf_sock_addr *context)
{
        struct egress_destination to = { 0 };
        __u64 token;
        __u16 port;

        read_v6(context, &to);
        return decide(context, &to, false, &token, &port) ? GO_ON : REFUSE;
}

SEC("cgroup/getpeername4")
int egress_getpeername4(struct bpf_sock_addr *context)
{
        struct bpf_sock *sock = context->sk;
        struct egress_destination *to;

        to = sock ? bpf_sk_storage_get(&peers, sock, NULL, 0) : NULL;
        if (to && is_relay4(bpf_ntohl(context->user_ip4))) {
                context->user_ip4 = to->words[0];
                context->user_port = bpf_htons(to->port);
        }
        return GO_ON;
}

SEC("cgroup/getpeername6")
int egress_getpeername6(struct bpf_sock_addr *context)
{
        struct bpf_sock *sock = context->sk;
        struct egress_destination *to;

        to = sock ? bpf_sk_storage_get(&peers, sock, NULL, 0) : NULL;
        if (!to || context->user_ip6[0] != bpf_htonl(EGRESS_RELAY6_0) ||
            context->user_ip6[1] != bpf_htonl(EGRESS_RELAY6_1))
                return GO_ON;
        if (to->is_v6) {
                context->user_ip6[0] = to->words[0];
                context->user_ip6[1] = to->words[1];
                context->user_ip6[2] = to->words[2];
                context->user_ip6[3] = to->words[3];
        } else {
                context->user_ip6[0] = 0;
                context->user_ip6[1] = 0;
                context->user_ip6[2] = bpf_htonl(0xffff);
                context->user_ip6[3] = to->words[0];
        }
        context->user_port = bpf_htons(to->port);
        return GO_ON;
}

/* The seccomp filter refuses the same; this holds for what a filter cannot see, too. */
SEC("cgroup/sock_create")
int egress_sock_create(struct bpf_sock *sock)
{
        bool is_stream = sock->type == SOCK_STREAM && sock->protocol == IPPROTO_TCP;
        bool is_datagram = sock->type == SOCK_DGRAM && sock->protocol == IPPROTO_UDP;
        struct egress_destination to = { .protocol = sock->protocol };
        struct egress_sandbox *sandbox;
        __u64 cgroup_id;

        if (is_stream || is_datagram)
                return GO_ON;
        to.is_v6 = sock->family == AF_INET6;
        cgroup_id = current_sandbox();
        sandbox = bpf_map_lookup_elem(&sandboxes, &cgroup_id);
        /* A ping socket: it sends echo requests and hears their answers, nothing else. */
        if (sandbox && sock->type == SOCK_DGRAM && is_carried(sandbox, &to))
                return GO_ON;
        tell(cgroup_id, sandbox, &to, EGRESS_DENIED_SOCKET, 0);
        return REFUSE;
}

char egress_license[] SEC("license") = "Apache-2.0";
