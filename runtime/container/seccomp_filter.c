/*
 * Runs of numbers with the same verdict become intervals, and a binary search over their starts
 * leads to the verdict. That is a fifth of the instructions that libseccomp makes, and the time to
 * load a filter is the kernel's time to compile it and to try it with every number.
 */
#include "runtime/container/seccomp_filter.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdbool.h>
#include <sys/ioctl.h>
#include <sys/personality.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/container/seccomp_list.h"

#if defined(__x86_64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define OWN_ARCHITECTURE AUDIT_ARCH_AARCH64
#else
#error "this architecture has no seccomp list yet"
#endif

enum {
        X32_BIT = 0x40000000,
        REFUSED = SECCOMP_RET_ERRNO | EPERM,
        UNSUPPORTED = SECCOMP_RET_ERRNO | EPROTONOSUPPORT,
        INVALID = SECCOMP_RET_ERRNO | EINVAL,
        WITHOUT_FAMILY = SECCOMP_RET_ERRNO | EAFNOSUPPORT, /* as kernels without it say */
        WITHOUT_OPTION = SECCOMP_RET_ERRNO | ENOPROTOOPT,
        WITHOUT_FLAG = SECCOMP_RET_ERRNO | EOPNOTSUPP,
        DONE = SECCOMP_RET_ERRNO | 0, /* said, not done */
        TYPE_MASK = 0xf,              /* of a socket's type; the rest are flags */
};

#define NAMESPACE_FLAGS                                                                            \
        (CLONE_NEWNS | CLONE_NEWCGROUP | CLONE_NEWUTS | CLONE_NEWIPC | CLONE_NEWUSER |             \
         CLONE_NEWPID | CLONE_NEWNET)

/* --- emitting --- */

static size_t emit(struct seccomp_filter *filter, struct sock_filter instruction)
{
        assert(filter->n_code < SECCOMP_FILTER_MAX);
        filter->code[filter->n_code] = instruction;
        return filter->n_code++;
}

static void emit_return(struct seccomp_filter *filter, uint32_t verdict)
{
        (void)emit(filter, (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, verdict));
}

static void emit_load(struct seccomp_filter *filter, size_t offset)
{
        (void)emit(filter,
                   (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset));
}

/*
 * The low half only, which is the first on both architectures: the kernel cuts the arguments that
 * are looked at here to 32 bits, so a filter that looked at all 64 could be passed by.
 */
static void emit_load_argument(struct seccomp_filter *filter, size_t i)
{
        emit_load(filter, offsetof(struct seccomp_data, args) + i * sizeof(uint64_t));
}

/* For what the kernel looks at as a whole. */
static void emit_load_high_argument(struct seccomp_filter *filter, size_t i)
{
        emit_load(filter,
                  offsetof(struct seccomp_data, args) + i * sizeof(uint64_t) + sizeof(uint32_t));
}

/* Returns @verdict when the loaded word meets the condition. */
static void emit_return_if(struct seccomp_filter *filter, uint16_t condition, uint32_t value,
                           uint32_t verdict)
{
        (void)emit(filter, (struct sock_filter)BPF_JUMP((uint16_t)(BPF_JMP | condition | BPF_K),
                                                        value, 0, 1));
        emit_return(filter, verdict);
}

/* --- arguments --- */

/*
 * CLONE_PARENT would make a child of the caller's parent, which is the runtime outside; it could be
 * flooded with children that it never started.
 */
static void check_clone(struct seccomp_filter *filter)
{
        emit_load_argument(filter, 0);
        emit_return_if(filter, BPF_JSET, (uint32_t)(NAMESPACE_FLAGS | CLONE_PARENT), REFUSED);
        emit_return(filter, SECCOMP_RET_ALLOW);
}

/*
 * TCP, UDP and ping sockets; no raw ones, and none of the protocols whose parsers are met only by
 * attackers (SCTP, DCCP, UDP-Lite) or that hide the peer from the egress rules (MPTCP). These
 * answer as a kernel without them, to which programs such as Go's fall back.
 */
static void check_internet_socket(struct seccomp_filter *filter)
{
        static const uint32_t protocols[] = {
                IPPROTO_IP, IPPROTO_TCP, IPPROTO_UDP, IPPROTO_ICMP, IPPROTO_ICMPV6,
        };

        emit_load_argument(filter, 1);
        (void)emit(filter, (struct sock_filter)BPF_STMT(BPF_ALU | BPF_AND | BPF_K, TYPE_MASK));
        (void)emit(filter,
                   (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOCK_STREAM, 2, 0));
        (void)emit(filter,
                   (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SOCK_DGRAM, 1, 0));
        emit_return(filter, REFUSED);

        emit_load_argument(filter, 2);
        for (size_t i = 0; i < ARRAY_SIZE(protocols); i++)
                emit_return_if(filter, BPF_JEQ, protocols[i], SECCOMP_RET_ALLOW);
        emit_return(filter, UNSUPPORTED);
}

static void check_socket(struct seccomp_filter *filter)
{
        size_t internet;
        size_t internet6;

        emit_load_argument(filter, 0);
        emit_return_if(filter, BPF_JEQ, AF_UNIX, SECCOMP_RET_ALLOW);
        emit_return_if(filter, BPF_JEQ, AF_NETLINK, WITHOUT_FAMILY);
        internet = emit(filter,
                        (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET, 0, 0));
        internet6 = emit(filter,
                         (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AF_INET6, 1, 0));
        emit_return(filter, REFUSED);

        filter->code[internet].jt = (uint8_t)(filter->n_code - internet - 1);
        assert(filter->n_code == internet6 + 2);
        check_internet_socket(filter);
}

static void check_pair(struct seccomp_filter *filter)
{
        emit_load_argument(filter, 0);
        emit_return_if(filter, BPF_JEQ, AF_UNIX, SECCOMP_RET_ALLOW);
        emit_return(filter, REFUSED);
}

/* Typing into a terminal as if one were its user, and loading line disciplines. */
static void check_ioctl(struct seccomp_filter *filter)
{
        emit_load_argument(filter, 1);
        emit_return_if(filter, BPF_JEQ, TIOCSTI, REFUSED);
        emit_return_if(filter, BPF_JEQ, TIOCLINUX, REFUSED);
        emit_return_if(filter, BPF_JEQ, TIOCSETD, REFUSED);
        emit_return(filter, SECCOMP_RET_ALLOW);
}

/* To ask, the usual one, and (for sanitizers and debuggers) a fixed layout of one's own memory. */
static void check_personality(struct seccomp_filter *filter)
{
        static const uint32_t allowed[] = { PER_LINUX, ADDR_NO_RANDOMIZE, 0xffffffff };

        emit_load_argument(filter, 0);
        for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
                emit_return_if(filter, BPF_JEQ, allowed[i], SECCOMP_RET_ALLOW);
        emit_return(filter, REFUSED);
}

static void check_set_limit(struct seccomp_filter *filter)
{
        emit_load_argument(filter, 0);
        emit_return_if(filter, BPF_JEQ, RLIMIT_CORE, REFUSED);
        emit_return(filter, SECCOMP_RET_ALLOW);
}

/* Without a new limit it only asks. That one is a pointer: both halves count. */
static void check_limit(struct seccomp_filter *filter)
{
        emit_load_argument(filter, 1);
        (void)emit(filter,
                   (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, RLIMIT_CORE, 1, 0));
        emit_return(filter, SECCOMP_RET_ALLOW);
        emit_load_argument(filter, 2);
        (void)emit(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0));
        emit_return(filter, REFUSED);
        emit_load_high_argument(filter, 2);
        (void)emit(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0));
        emit_return(filter, REFUSED);
        emit_return(filter, SECCOMP_RET_ALLOW);
}

struct option_verdict {
        uint32_t option;
        uint32_t verdict;
};

/* Checks the options of one level. Those of other levels go on to what follows. */
static void check_options(struct seccomp_filter *filter, uint32_t level,
                          const struct option_verdict *options, size_t n_options)
{
        size_t other;

        emit_load_argument(filter, 1);
        other = emit(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, level, 0, 0));
        emit_load_argument(filter, 2);
        for (size_t i = 0; i < n_options; i++)
                emit_return_if(filter, BPF_JEQ, options[i].option, options[i].verdict);
        emit_return(filter, SECCOMP_RET_ALLOW);
        filter->code[other].jf = (uint8_t)(filter->n_code - other - 1);
}

/*
 * Programs for the kernel, by which packets are dropped or shared out, and what makes them stay;
 * and all by which a socket keeps packets that are not charged to the sandbox (seccomp_list.h).
 */
static void check_socket_option(struct seccomp_filter *filter)
{
        static const struct option_verdict of_sockets[] = {
                { SO_ATTACH_FILTER, REFUSED },
                { SO_ATTACH_BPF, REFUSED },
                { SO_ATTACH_REUSEPORT_CBPF, REFUSED },
                { SO_ATTACH_REUSEPORT_EBPF, REFUSED },
                { SO_LOCK_FILTER, REFUSED },
                { SO_TIMESTAMPING_OLD, WITHOUT_OPTION },
                { SO_TIMESTAMPING_NEW, WITHOUT_OPTION },
                { SO_WIFI_STATUS, WITHOUT_OPTION },
                { SO_ZEROCOPY, WITHOUT_OPTION },
                { SO_TXTIME, WITHOUT_OPTION },
                { SO_RCVBUF, DONE },
                { SO_RCVLOWAT, DONE },
        };
        static const struct option_verdict of_ip[] = { { IP_RECVERR, DONE } };
        static const struct option_verdict of_ipv6[] = { { IPV6_RECVERR, DONE } };
        static const struct option_verdict of_udp[] = { { UDP_CORK, WITHOUT_OPTION } };

        check_options(filter, SOL_SOCKET, of_sockets, ARRAY_SIZE(of_sockets));
        check_options(filter, IPPROTO_IP, of_ip, ARRAY_SIZE(of_ip));
        check_options(filter, IPPROTO_IPV6, of_ipv6, ARRAY_SIZE(of_ipv6));
        check_options(filter, IPPROTO_UDP, of_udp, ARRAY_SIZE(of_udp));
        emit_return(filter, SECCOMP_RET_ALLOW);
}

/* With UDP, MSG_MORE keeps the packet in the sender's socket until there is more. */
static void check_flag(struct seccomp_filter *filter, size_t argument, uint32_t refused)
{
        emit_load_argument(filter, argument);
        emit_return_if(filter, BPF_JSET, refused, WITHOUT_FLAG);
        emit_return(filter, SECCOMP_RET_ALLOW);
}

static void check_send(struct seccomp_filter *filter)
{
        check_flag(filter, 3, MSG_MORE);
}

static void check_send_message(struct seccomp_filter *filter)
{
        check_flag(filter, 2, MSG_MORE);
}

static void check_splice(struct seccomp_filter *filter)
{
        check_flag(filter, 5, SPLICE_F_MORE);
}

/* To ask what there is, and the strict mode, which needs no filter. */
static void check_seccomp(struct seccomp_filter *filter)
{
        static const uint32_t allowed[] = { SECCOMP_SET_MODE_STRICT, SECCOMP_GET_ACTION_AVAIL,
                                            SECCOMP_GET_NOTIF_SIZES };

        emit_load_argument(filter, 0);
        for (size_t i = 0; i < ARRAY_SIZE(allowed); i++)
                emit_return_if(filter, BPF_JEQ, allowed[i], SECCOMP_RET_ALLOW);
        emit_return(filter, INVALID);
}

/* The older way to a seccomp filter. */
static void check_process_control(struct seccomp_filter *filter)
{
        emit_load_argument(filter, 0);
        (void)emit(filter,
                   (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PR_SET_SECCOMP, 1, 0));
        emit_return(filter, SECCOMP_RET_ALLOW);
        emit_load_argument(filter, 1);
        emit_return_if(filter, BPF_JEQ, SECCOMP_MODE_FILTER, INVALID);
        emit_return(filter, SECCOMP_RET_ALLOW);
}

/* A verdict is a plain return or a check that ends in one. */
static const struct {
        uint32_t action;
        void (*check)(struct seccomp_filter *filter);
} verdicts[] = {
        [SECCOMP_REFUSE] = { .action = REFUSED },
        [SECCOMP_ALLOW] = { .action = SECCOMP_RET_ALLOW },
        [SECCOMP_UNKNOWN] = { .action = SECCOMP_RET_ERRNO | ENOSYS },
        [SECCOMP_NOTHING_TO_DO] = { .action = DONE },
        [SECCOMP_CHECK_CLONE] = { .check = check_clone },
        [SECCOMP_CHECK_SOCKET] = { .check = check_socket },
        [SECCOMP_CHECK_PAIR] = { .check = check_pair },
        [SECCOMP_CHECK_IOCTL] = { .check = check_ioctl },
        [SECCOMP_CHECK_PERSONALITY] = { .check = check_personality },
        [SECCOMP_CHECK_SET_LIMIT] = { .check = check_set_limit },
        [SECCOMP_CHECK_LIMIT] = { .check = check_limit },
        [SECCOMP_CHECK_SOCKET_OPTION] = { .check = check_socket_option },
        [SECCOMP_CHECK_SEND] = { .check = check_send },
        [SECCOMP_CHECK_SEND_MANY] = { .check = check_send },
        [SECCOMP_CHECK_SEND_MESSAGE] = { .check = check_send_message },
        [SECCOMP_CHECK_SPLICE] = { .check = check_splice },
        [SECCOMP_CHECK_SECCOMP] = { .check = check_seccomp },
        [SECCOMP_CHECK_PROCESS_CONTROL] = { .check = check_process_control },
};
static_assert(ARRAY_SIZE(verdicts) == _SECCOMP_VERDICT_N, "every verdict has a row");

/* --- the search --- */

struct interval {
        uint32_t first; /* up to the next one's */
        enum seccomp_verdict verdict;
};

/* The intervals of all numbers from 0 on; the last one has no end. */
static size_t find_intervals(struct interval *ret_intervals)
{
        static enum seccomp_verdict by_number[SECCOMP_NEWEST + 2];
        size_t n = 0;

        for (size_t i = 0; i < n_seccomp_entries; i++) {
                assert(seccomp_entries[i].number <= SECCOMP_NEWEST);
                by_number[seccomp_entries[i].number] = seccomp_entries[i].verdict;
        }
        by_number[SECCOMP_NEWEST + 1] = SECCOMP_UNKNOWN;

        for (uint32_t number = 0; number < ARRAY_SIZE(by_number); number++) {
                if (n == 0 || ret_intervals[n - 1].verdict != by_number[number])
                        ret_intervals[n++] = (struct interval){ number, by_number[number] };
        }
        return n;
}

/* With the number loaded. A check stands in for its leaf: each belongs to one call only. */
static void emit_search(struct seccomp_filter *filter, const struct interval *intervals,
                        size_t n_intervals)
{
        size_t half = n_intervals / 2;
        size_t jump;
        size_t distance;

        if (n_intervals == 1) {
                enum seccomp_verdict verdict = intervals[0].verdict;

                if (verdicts[verdict].check)
                        verdicts[verdict].check(filter);
                else
                        emit_return(filter, verdicts[verdict].action);
                return;
        }
        jump = emit(filter, (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K,
                                                         intervals[half].first, 0, 0));
        emit_search(filter, intervals, half);
        distance = filter->n_code - jump - 1;
        assert(distance <= UINT8_MAX);
        filter->code[jump].jt = (uint8_t)distance;
        emit_search(filter, intervals + half, n_intervals - half);
}

void seccomp_filter_build(struct seccomp_filter *ret_filter)
{
        struct interval intervals[SECCOMP_NEWEST + 2];
        size_t n_intervals = find_intervals(intervals);

        ret_filter->n_code = 0;
        emit_load(ret_filter, offsetof(struct seccomp_data, arch));
        (void)emit(ret_filter,
                   (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, OWN_ARCHITECTURE, 1, 0));
        emit_return(ret_filter, SECCOMP_RET_KILL_PROCESS);
        emit_load(ret_filter, offsetof(struct seccomp_data, nr));
#if defined(__x86_64__)
        /* x32 has the same architecture, and numbers of its own. */
        emit_return_if(ret_filter, BPF_JGE, X32_BIT, SECCOMP_RET_KILL_PROCESS);
#endif
        emit_search(ret_filter, intervals, n_intervals);
}

int seccomp_filter_load(const struct seccomp_filter *filter)
{
        struct sock_fprog program = {
                .len = (unsigned short)filter->n_code,
                .filter = (struct sock_filter *)(uintptr_t)filter->code,
        };

        return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 ? -errno : 0;
}
