/* The compiled filter, run by a small interpreter of classic BPF, against the list that it was made
 * from. */
#include <asm/unistd.h>
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/seccomp.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <sched.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>

#include "runtime/base/macros.h"
#include "runtime/container/seccomp_filter.h"
#include "runtime/container/seccomp_list.h"
#include "test/lib/suite.h"

#if defined(__x86_64__)
#define OWN_ARCHITECTURE     AUDIT_ARCH_X86_64
#define FOREIGN_ARCHITECTURE AUDIT_ARCH_I386
#else
#define OWN_ARCHITECTURE     AUDIT_ARCH_AARCH64
#define FOREIGN_ARCHITECTURE AUDIT_ARCH_ARM
#endif

enum {
        NUMBERS_END = 600,
        X32_BIT = 0x40000000,
        KILLED = -1,
        ALLOWED = 0,
        PRETENDED = -2, /* not made, but answered with success */
};

static struct seccomp_filter filter;

static void setup(void)
{
        seccomp_filter_build(&filter);
}

static uint32_t load_word(const struct seccomp_data *data, uint32_t offset)
{
        uint32_t word;

        ck_assert_uint_le(offset + sizeof(word), sizeof(*data));
        memcpy(&word, (const char *)data + offset, sizeof(word));
        return word;
}

static bool jump_is_taken(const struct sock_filter *code, uint32_t a)
{
        switch (BPF_OP(code->code)) {
        case BPF_JEQ:
                return a == code->k;
        case BPF_JGE:
                return a >= code->k;
        case BPF_JGT:
                return a > code->k;
        case BPF_JSET:
                return a & code->k;
        default:
                ck_abort_msg("unknown jump %#x", code->code);
        }
}

static uint32_t interpret(const struct seccomp_data *data)
{
        uint32_t a = 0;

        for (size_t at = 0; at < filter.n_code; at++) {
                const struct sock_filter *code = &filter.code[at];

                switch (code->code) {
                case BPF_LD | BPF_W | BPF_ABS:
                        a = load_word(data, code->k);
                        break;
                case BPF_ALU | BPF_AND | BPF_K:
                        a &= code->k;
                        break;
                case BPF_RET | BPF_K:
                        return code->k;
                default:
                        ck_assert_int_eq(BPF_CLASS(code->code), BPF_JMP);
                        at += jump_is_taken(code, a) ? code->jt : code->jf;
                }
        }
        ck_abort_msg("the filter ends without a verdict");
}

/* ALLOWED, KILLED, PRETENDED, or the errno. */
static int judge_on(uint32_t architecture, long number, const uint64_t arguments[6])
{
        struct seccomp_data data = { .nr = (int)number, .arch = architecture };
        uint32_t verdict;

        memcpy(data.args, arguments, sizeof(data.args));
        verdict = interpret(&data);
        if (verdict == SECCOMP_RET_ALLOW)
                return ALLOWED;
        if (verdict == SECCOMP_RET_KILL_PROCESS)
                return KILLED;
        ck_assert_uint_eq(verdict & SECCOMP_RET_ACTION_FULL, SECCOMP_RET_ERRNO);
        return verdict & SECCOMP_RET_DATA ? (int)(verdict & SECCOMP_RET_DATA) : PRETENDED;
}

static int judge(long number, uint64_t a, uint64_t b, uint64_t c)
{
        const uint64_t arguments[6] = { a, b, c };

        return judge_on(OWN_ARCHITECTURE, number, arguments);
}

/* What @verdict says about a call whose arguments are those of an ordinary program. */
static int expected(enum seccomp_verdict verdict)
{
        static const int by_verdict[] = {
                [SECCOMP_REFUSE] = EPERM,
                [SECCOMP_ALLOW] = ALLOWED,
                [SECCOMP_UNKNOWN] = ENOSYS,
                [SECCOMP_NOTHING_TO_DO] = PRETENDED,
                [SECCOMP_CHECK_CLONE] = ALLOWED,
                [SECCOMP_CHECK_SOCKET] = ALLOWED,
                [SECCOMP_CHECK_PAIR] = ALLOWED,
                [SECCOMP_CHECK_IOCTL] = ALLOWED,
                [SECCOMP_CHECK_PERSONALITY] = ALLOWED,
                [SECCOMP_CHECK_SET_LIMIT] = ALLOWED,
                [SECCOMP_CHECK_LIMIT] = ALLOWED,
                [SECCOMP_CHECK_SOCKET_OPTION] = ALLOWED,
                [SECCOMP_CHECK_SEND] = ALLOWED,
                [SECCOMP_CHECK_SEND_MANY] = ALLOWED,
                [SECCOMP_CHECK_SEND_MESSAGE] = ALLOWED,
                [SECCOMP_CHECK_SPLICE] = ALLOWED,
                [SECCOMP_CHECK_SECCOMP] = ALLOWED,
                [SECCOMP_CHECK_PROCESS_CONTROL] = ALLOWED,
        };
        static_assert(ARRAY_SIZE(by_verdict) == _SECCOMP_VERDICT_N, "every verdict has a row");

        return by_verdict[verdict];
}

/* Arguments that pass every check at once: AF_UNIX would be a bad personality, so 0 is not for
 * sockets. */
static int judge_plainly(long number)
{
        if (number == __NR_socket || number == __NR_socketpair)
                return judge(number, AF_UNIX, SOCK_STREAM, 0);
        return judge(number, 0, 0, 0);
}

START_TEST(every_number_meets_its_verdict)
{
        for (uint32_t number = 0; number < NUMBERS_END; number++) {
                int wanted = number > SECCOMP_NEWEST ? ENOSYS : EPERM;

                for (size_t i = 0; i < n_seccomp_entries; i++) {
                        if (seccomp_entries[i].number == number)
                                wanted = expected(seccomp_entries[i].verdict);
                }
                ck_assert_msg(judge_plainly(number) == wanted, "call %u: %d instead of %d", number,
                              judge_plainly(number), wanted);
        }
}
END_TEST

START_TEST(no_call_is_listed_twice)
{
        for (size_t i = 0; i < n_seccomp_entries; i++) {
                for (size_t j = i + 1; j < n_seccomp_entries; j++)
                        ck_assert_msg(seccomp_entries[i].number != seccomp_entries[j].number,
                                      "call %u", seccomp_entries[i].number);
        }
}
END_TEST

START_TEST(what_must_never_be_allowed_is_refused)
{
        static const long refused[] = {
                __NR_mount,
                __NR_umount2,
                __NR_pivot_root,
                __NR_chroot,
                __NR_open_tree,
                __NR_move_mount,
                __NR_fsopen,
                __NR_fsconfig,
                __NR_fsmount,
                __NR_fspick,
                __NR_mount_setattr,
                __NR_unshare,
                __NR_setns,
                __NR_bpf,
                __NR_perf_event_open,
                __NR_userfaultfd,
                __NR_io_uring_setup,
                __NR_io_uring_enter,
                __NR_io_uring_register,
                __NR_kexec_load,
                __NR_init_module,
                __NR_finit_module,
                __NR_delete_module,
                __NR_syslog,
                __NR_keyctl,
                __NR_add_key,
                __NR_request_key,
                __NR_ptrace,
                __NR_process_vm_readv,
                __NR_process_vm_writev,
                __NR_process_madvise,
                __NR_kcmp,
                __NR_pidfd_getfd,
                __NR_move_pages,
                __NR_migrate_pages,
                __NR_open_by_handle_at,
                __NR_name_to_handle_at,
                __NR_fanotify_init,
                __NR_fanotify_mark,
                __NR_quotactl,
                __NR_acct,
                __NR_swapon,
                __NR_swapoff,
                __NR_reboot,
                __NR_settimeofday,
                __NR_clock_settime,
                __NR_clock_adjtime,
                __NR_adjtimex,
                __NR_sethostname,
                __NR_setdomainname,
                __NR_nfsservctl,
                __NR_lookup_dcookie,
                __NR_remap_file_pages,
                __NR_vmsplice,
                __NR_io_setup,
                __NR_io_submit,
                __NR_vhangup,
#ifdef __x86_64__
                __NR_ioperm,
                __NR_iopl,
                __NR_modify_ldt,
                __NR_uselib,
                __NR_ustat,
                __NR_sysfs,
                __NR_kexec_file_load,
                __NR_create_module,
                __NR__sysctl,
#endif
        };

        for (size_t i = 0; i < ARRAY_SIZE(refused); i++)
                ck_assert_msg(judge(refused[i], 0, 0, 0) == EPERM, "call %ld", refused[i]);
}
END_TEST

START_TEST(foreign_architectures_are_killed)
{
        const uint64_t none[6] = { 0 };

        ck_assert_int_eq(judge_on(FOREIGN_ARCHITECTURE, __NR_read, none), KILLED);
        ck_assert_int_eq(judge_on(0, __NR_read, none), KILLED);
#ifdef __x86_64__
        ck_assert_int_eq(judge(X32_BIT | __NR_read, 0, 0, 0), KILLED);
        ck_assert_int_eq(judge(X32_BIT | 512, 0, 0, 0), KILLED);
        ck_assert_int_eq(judge(-1, 0, 0, 0), KILLED);
#endif
}
END_TEST

START_TEST(clone_makes_threads_and_processes_but_no_namespaces)
{
        static const unsigned refused[] = {
                CLONE_NEWNS,   CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC,
                CLONE_NEWUSER, CLONE_NEWPID,    CLONE_NEWNET, CLONE_PARENT,
        };
        const uint64_t thread = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD |
                                CLONE_SYSVSEM | CLONE_SETTLS | CLONE_PARENT_SETTID |
                                CLONE_CHILD_CLEARTID;

        ck_assert_int_eq(judge(__NR_clone, thread, 0, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_clone, CLONE_VM | CLONE_VFORK | 17, 0, 0), ALLOWED);
        for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
                ck_assert_int_eq(judge(__NR_clone, refused[i] | 17, 0, 0), EPERM);
                ck_assert_int_eq(judge(__NR_clone, refused[i] | (1ULL << 40), 0, 0), EPERM);
        }
}
END_TEST

START_TEST(sockets_are_of_three_families)
{
        for (uint64_t family = 0; family < 64; family++) {
                bool allowed = family == AF_UNIX || family == AF_INET || family == AF_INET6;
                int refusal = family == AF_NETLINK ? EAFNOSUPPORT : EPERM;

                ck_assert_msg(judge(__NR_socket, family, SOCK_DGRAM | SOCK_CLOEXEC, 0) ==
                                      (allowed ? ALLOWED : refusal),
                              "family %d", (int)family);
                ck_assert_int_eq(judge(__NR_socketpair, family, SOCK_STREAM, 0),
                                 family == AF_UNIX ? ALLOWED : EPERM);
        }
        /* The kernel looks at the low half only, so must the filter. */
        ck_assert_int_eq(judge(__NR_socket, (1ULL << 32) | AF_VSOCK, SOCK_STREAM, 0), EPERM);
        ck_assert_int_eq(judge(__NR_socket, (1ULL << 32) | AF_NETLINK, SOCK_RAW, 0), EAFNOSUPPORT);
        ck_assert_int_eq(judge(__NR_socket, (1ULL << 32) | AF_UNIX, SOCK_STREAM, 0), ALLOWED);
}
END_TEST

START_TEST(internet_sockets_are_tcp_udp_or_ping)
{
        static const struct {
                int type;
                uint64_t protocol;
                int verdict;
        } cases[] = {
                { SOCK_STREAM, 0, ALLOWED },
                { SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 6, ALLOWED },
                { SOCK_DGRAM, 17, ALLOWED },
                { SOCK_DGRAM, 1, ALLOWED },
                { SOCK_DGRAM, 58, ALLOWED },
                { SOCK_STREAM, 262, EPROTONOSUPPORT }, /* MPTCP */
                { SOCK_STREAM, 132, EPROTONOSUPPORT }, /* SCTP */
                { SOCK_DGRAM, 136, EPROTONOSUPPORT },  /* UDP-Lite */
                { SOCK_RAW, 1, EPERM },
                { SOCK_RAW | SOCK_CLOEXEC, 255, EPERM },
                { SOCK_SEQPACKET, 132, EPERM },
                { SOCK_DCCP, 33, EPERM },
                { SOCK_PACKET, 0, EPERM },
        };
        static const uint64_t families[] = { AF_INET, AF_INET6 };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                for (size_t j = 0; j < ARRAY_SIZE(families); j++)
                        ck_assert_msg(judge(__NR_socket, families[j], (uint64_t)cases[i].type,
                                            cases[i].protocol) == cases[i].verdict,
                                      "case %zu", i);
        }
}
END_TEST

START_TEST(terminals_cannot_be_typed_into)
{
        ck_assert_int_eq(judge(__NR_ioctl, 0, TCGETS, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_ioctl, 0, TIOCSTI, 0), EPERM);
        ck_assert_int_eq(judge(__NR_ioctl, 0, (1ULL << 32) | TIOCSTI, 0), EPERM);
        ck_assert_int_eq(judge(__NR_ioctl, 0, TIOCLINUX, 0), EPERM);
        ck_assert_int_eq(judge(__NR_ioctl, 0, TIOCSETD, 0), EPERM);
}
END_TEST

START_TEST(personality_can_be_read_and_fixed)
{
        ck_assert_int_eq(judge(__NR_personality, 0, 0, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_personality, 0xffffffff, 0, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_personality, 0x0040000, 0, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_personality, 0x0400000, 0, 0), EPERM); /* READ_IMPLIES_EXEC */
        ck_assert_int_eq(judge(__NR_personality, 8, 0, 0), EPERM);         /* PER_LINUX32 */
}
END_TEST

START_TEST(limit_of_core_dumps_cannot_be_set)
{
        const uint64_t high = 1ULL << 32;

        for (uint64_t resource = 0; resource < RLIM_NLIMITS; resource++) {
                int verdict = resource == RLIMIT_CORE ? EPERM : ALLOWED;

                ck_assert_int_eq(judge(__NR_setrlimit, resource, 4096, 0), verdict);
                ck_assert_int_eq(judge(__NR_prlimit64, 0, resource, 4096), verdict);
                ck_assert_int_eq(judge(__NR_prlimit64, 77, resource, 4096), verdict);
                ck_assert_int_eq(judge(__NR_prlimit64, 0, resource, 0), ALLOWED);
                /* The kernel takes the low half of the resource and all of the pointer. */
                ck_assert_int_eq(judge(__NR_setrlimit, high | resource, 4096, 0), verdict);
                ck_assert_int_eq(judge(__NR_prlimit64, 0, high | resource, 4096), verdict);
                ck_assert_int_eq(judge(__NR_prlimit64, 0, resource, high), verdict);
        }
}
END_TEST

static int verdict_on_option(uint64_t level, uint64_t option)
{
        static const struct {
                uint64_t level;
                uint64_t option;
                int verdict;
        } rows[] = {
                { SOL_SOCKET, SO_ATTACH_FILTER, EPERM },
                { SOL_SOCKET, SO_ATTACH_BPF, EPERM },
                { SOL_SOCKET, SO_ATTACH_REUSEPORT_CBPF, EPERM },
                { SOL_SOCKET, SO_ATTACH_REUSEPORT_EBPF, EPERM },
                { SOL_SOCKET, SO_LOCK_FILTER, EPERM },
                { SOL_SOCKET, 37, ENOPROTOOPT }, /* SO_TIMESTAMPING */
                { SOL_SOCKET, 65, ENOPROTOOPT }, /* the same, with 64 bits */
                { SOL_SOCKET, SO_WIFI_STATUS, ENOPROTOOPT },
                { SOL_SOCKET, SO_ZEROCOPY, ENOPROTOOPT },
                { SOL_SOCKET, SO_TXTIME, ENOPROTOOPT },
                { SOL_SOCKET, SO_RCVBUF, PRETENDED },
                { SOL_SOCKET, SO_RCVLOWAT, PRETENDED },
                { IPPROTO_IP, IP_RECVERR, PRETENDED },
                { IPPROTO_IPV6, IPV6_RECVERR, PRETENDED },
                { IPPROTO_UDP, UDP_CORK, ENOPROTOOPT },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                if (rows[i].level == level && rows[i].option == option)
                        return rows[i].verdict;
        }
        return ALLOWED;
}

START_TEST(sockets_take_no_filters_and_keep_no_packets)
{
        static const uint64_t levels[] = { SOL_SOCKET,  IPPROTO_IP,  IPPROTO_IPV6,
                                           IPPROTO_UDP, IPPROTO_TCP, IPPROTO_ICMP };
        const uint64_t high = 1ULL << 32;

        for (size_t i = 0; i < ARRAY_SIZE(levels); i++) {
                for (uint64_t option = 0; option < 128; option++) {
                        uint64_t level = levels[i];
                        int verdict = verdict_on_option(level, option);

                        ck_assert_msg(judge(__NR_setsockopt, 3, level, option) == verdict,
                                      "option %d of level %d", (int)option, (int)level);
                        ck_assert_int_eq(judge(__NR_setsockopt, 3, high | level, option), verdict);
                        ck_assert_int_eq(judge(__NR_setsockopt, 3, level, high | option), verdict);
                        ck_assert_int_eq(judge(__NR_getsockopt, 3, level, option), ALLOWED);
                }
        }
}
END_TEST

START_TEST(nothing_sent_waits_for_more)
{
        const uint64_t high = 1ULL << 32;
        uint64_t send[6] = { 3, 4096, 10, MSG_DONTWAIT | MSG_NOSIGNAL, 0, 0 };
        uint64_t splice[6] = { 3, 0, 4, 0, 10, SPLICE_F_NONBLOCK | SPLICE_F_MOVE };

        ck_assert_int_eq(judge_on(OWN_ARCHITECTURE, __NR_sendto, send), ALLOWED);
        ck_assert_int_eq(judge_on(OWN_ARCHITECTURE, __NR_sendmmsg, send), ALLOWED);
        ck_assert_int_eq(judge(__NR_sendmsg, 3, 4096, MSG_NOSIGNAL), ALLOWED);
        ck_assert_int_eq(judge_on(OWN_ARCHITECTURE, __NR_splice, splice), ALLOWED);

        send[3] |= high | MSG_MORE;
        splice[5] |= high | SPLICE_F_MORE;
        ck_assert_int_eq(judge_on(OWN_ARCHITECTURE, __NR_sendto, send), EOPNOTSUPP);
        ck_assert_int_eq(judge_on(OWN_ARCHITECTURE, __NR_sendmmsg, send), EOPNOTSUPP);
        ck_assert_int_eq(judge(__NR_sendmsg, 3, 4096, high | MSG_MORE), EOPNOTSUPP);
        ck_assert_int_eq(judge_on(OWN_ARCHITECTURE, __NR_splice, splice), EOPNOTSUPP);
}
END_TEST

START_TEST(programs_load_no_seccomp_filters)
{
        const uint64_t high = 1ULL << 32;

        ck_assert_int_eq(judge(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, 4096), EINVAL);
        ck_assert_int_eq(judge(__NR_seccomp, high | SECCOMP_SET_MODE_FILTER, 8, 4096), EINVAL);
        ck_assert_int_eq(judge(__NR_seccomp, SECCOMP_SET_MODE_STRICT, 0, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, 4096), ALLOWED);
        ck_assert_int_eq(judge(__NR_seccomp, SECCOMP_GET_NOTIF_SIZES, 0, 4096), ALLOWED);
        ck_assert_int_eq(judge(__NR_seccomp, SECCOMP_GET_NOTIF_SIZES + 1, 0, 4096), EINVAL);
        ck_assert_int_eq(judge(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 4096), EINVAL);
        ck_assert_int_eq(judge(__NR_prctl, high | PR_SET_SECCOMP, SECCOMP_MODE_FILTER, 4096),
                         EINVAL);
        ck_assert_int_eq(judge(__NR_prctl, PR_SET_SECCOMP, SECCOMP_MODE_STRICT, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_prctl, PR_GET_SECCOMP, SECCOMP_MODE_FILTER, 0), ALLOWED);
        ck_assert_int_eq(judge(__NR_prctl, PR_SET_NAME, SECCOMP_MODE_FILTER, 0), ALLOWED);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("seccomp_filter");
        TCase *tcase = tcase_create("filter");

        tcase_add_checked_fixture(tcase, setup, NULL);
        tcase_add_test(tcase, every_number_meets_its_verdict);
        tcase_add_test(tcase, no_call_is_listed_twice);
        tcase_add_test(tcase, what_must_never_be_allowed_is_refused);
        tcase_add_test(tcase, foreign_architectures_are_killed);
        tcase_add_test(tcase, clone_makes_threads_and_processes_but_no_namespaces);
        tcase_add_test(tcase, sockets_are_of_three_families);
        tcase_add_test(tcase, internet_sockets_are_tcp_udp_or_ping);
        tcase_add_test(tcase, terminals_cannot_be_typed_into);
        tcase_add_test(tcase, personality_can_be_read_and_fixed);
        tcase_add_test(tcase, limit_of_core_dumps_cannot_be_set);
        tcase_add_test(tcase, sockets_take_no_filters_and_keep_no_packets);
        tcase_add_test(tcase, nothing_sent_waits_for_more);
        tcase_add_test(tcase, programs_load_no_seccomp_filters);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
