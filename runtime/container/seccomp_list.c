/*
 * An allow-list. It was drawn up from what Python with its scientific packages, pip, git, shells,
 * compilers, Node, Java and R do. A call is left out when it needs a capability, reaches other
 * processes' memory, or is a large and often broken part of the kernel that such programs do
 * without.
 *
 * Left out on purpose (EPERM):
 *   mounts         mount umount2 pivot_root chroot open_tree move_mount fs* mount_setattr statmount
 *   namespaces     unshare setns, the namespace flags of clone
 *   kernel         bpf perf_event_open userfaultfd io_uring_* kexec_* *_module syslog
 *                  lookup_dcookie
 *   keys           keyctl add_key request_key: keyrings are not namespaced
 *   processes      ptrace process_vm_* process_madvise kcmp pidfd_getfd move_pages migrate_pages:
 *                  a debugger inside is not worth the bugs of ptrace, and pidfd_getfd takes sockets
 *   files          open_by_handle_at name_to_handle_at fanotify_* quotactl acct swap*
 *   machine        reboot settimeofday clock_settime adjtimex sethostname ioperm iopl modify_ldt
 *   memory         remap_file_pages memfd_secret vmsplice, the NUMA calls
 *   old AIO        io_setup io_submit …: databases fall back
 *   filters        of sockets (setsockopt) and of system calls (seccomp, prctl): the kernel
 *                  compiles each into memory of which the whole host has a fixed amount
 *                  (net.core.bpf_jit_limit). Every sandbox's own filter needs some of that, and a
 *                  few processes with many filters each would use it up. For system calls the
 *                  answer is EINVAL, as from a kernel without filters, on which browsers and man(1)
 *                  go on without; EPERM would stop them.
 *
 * Left out because the kernel keeps what they make in sockets without charging it to anyone, with
 * either version of cgroups, so that a few megabytes of sockets cost the host gigabytes:
 *   AF_NETLINK     the answers: an error quotes the message that it is about. EAFNOSUPPORT, as from
 *                  a kernel without; getaddrinfo() does without, getifaddrs() and if_nameindex()
 *                  fail. There is only `lo` to be told of.
 *   MSG_MORE       and UDP_CORK, SPLICE_F_MORE: a packet that waits in its sender (EOPNOTSUPP,
 *                  ENOPROTOOPT)
 *   SO_TIMESTAMPING and what else returns packets to their sender: SO_ZEROCOPY, SO_TXTIME,
 *                  SO_WIFI_STATUS (ENOPROTOOPT). A control message can ask for times, too, which no
 *                  filter sees: see netns.c.
 *   IP_RECVERR     the same for errors. The C library's resolver insists on it, so it is answered
 *                  with success and not made; a connected socket is told of errors all the same.
 *   SO_RCVBUF      a connection that was not accepted yet has the buffer of its listener, and is
 *                  not charged; SO_RCVLOWAT makes it larger, too. Answered with success, as the
 *                  kernel does when it gives less.
 *
 * Allowed although one might wonder:
 *   landlock_*           can only narrow
 *   memfd_create         lives in the sandbox's memory limit
 */
#include "runtime/container/seccomp_list.h"

#include <asm/unistd.h>

#include "runtime/base/macros.h"

/* Numbers later than the build host's headers; from 424 on they are the same everywhere. */
#ifndef __NR_fchmodat2
#define __NR_fchmodat2 452
#endif
#ifndef __NR_futex_wake
#define __NR_futex_wake    454
#define __NR_futex_wait    455
#define __NR_futex_requeue 456
#endif
#ifndef __NR_mseal
#define __NR_mseal 462
#endif

#define ALLOW(name)                                                                                \
        {                                                                                          \
                __NR_##name, SECCOMP_ALLOW                                                         \
        }
#define CHECK(name, verdict)                                                                       \
        {                                                                                          \
                __NR_##name, SECCOMP_##verdict                                                     \
        }

const struct seccomp_entry seccomp_entries[] = {
        /* Reading and writing. */
        ALLOW(read),
        ALLOW(write),
        ALLOW(readv),
        ALLOW(writev),
        ALLOW(pread64),
        ALLOW(pwrite64),
        ALLOW(preadv),
        ALLOW(pwritev),
        ALLOW(preadv2),
        ALLOW(pwritev2),
        ALLOW(lseek),
        ALLOW(sendfile),
        CHECK(splice, CHECK_SPLICE),
        ALLOW(tee),
        ALLOW(copy_file_range),
        ALLOW(close),
        ALLOW(close_range),
        ALLOW(dup),
        ALLOW(dup3),
        ALLOW(fcntl),
        ALLOW(flock),
        ALLOW(fsync),
        ALLOW(fdatasync),
        ALLOW(syncfs),
        ALLOW(sync_file_range),
        ALLOW(fadvise64),
        ALLOW(readahead),
        ALLOW(fallocate),
        ALLOW(ftruncate),
        ALLOW(truncate),
        CHECK(ioctl, CHECK_IOCTL),
        /* Would write back every file system of the host; a sandbox's own files never reach a disk.
         */
        CHECK(sync, NOTHING_TO_DO),

        /* Files and directories. */
        ALLOW(openat),
        ALLOW(openat2),
        ALLOW(mkdirat),
        ALLOW(mknodat),
        ALLOW(unlinkat),
        ALLOW(symlinkat),
        ALLOW(linkat),
        ALLOW(renameat2),
        ALLOW(readlinkat),
        ALLOW(faccessat),
        ALLOW(faccessat2),
        ALLOW(fchmod),
        ALLOW(fchmodat),
        ALLOW(fchmodat2),
        ALLOW(fchown),
        ALLOW(fchownat),
        ALLOW(utimensat),
        ALLOW(statx),
        ALLOW(fstat),
        ALLOW(statfs),
        ALLOW(fstatfs),
        ALLOW(getdents64),
        ALLOW(getcwd),
        ALLOW(chdir),
        ALLOW(fchdir),
        ALLOW(umask),
        ALLOW(setxattr),
        ALLOW(lsetxattr),
        ALLOW(fsetxattr),
        ALLOW(getxattr),
        ALLOW(lgetxattr),
        ALLOW(fgetxattr),
        ALLOW(listxattr),
        ALLOW(llistxattr),
        ALLOW(flistxattr),
        ALLOW(removexattr),
        ALLOW(lremovexattr),
        ALLOW(fremovexattr),
        ALLOW(inotify_init1),
        ALLOW(inotify_add_watch),
        ALLOW(inotify_rm_watch),

        /* Memory. */
        ALLOW(brk),
        ALLOW(mmap),
        ALLOW(munmap),
        ALLOW(mremap),
        ALLOW(mprotect),
        ALLOW(madvise),
        ALLOW(msync),
        ALLOW(mincore),
        ALLOW(mlock),
        ALLOW(mlock2),
        ALLOW(munlock),
        ALLOW(mlockall),
        ALLOW(munlockall),
        ALLOW(mseal),
        ALLOW(memfd_create),
        ALLOW(membarrier),
        ALLOW(pkey_alloc),
        ALLOW(pkey_free),
        ALLOW(pkey_mprotect),

        /* Processes and threads. */
        CHECK(clone, CHECK_CLONE),
        /* Its flags are in memory, where a filter cannot look; glibc falls back to clone. */
        CHECK(clone3, UNKNOWN),
        ALLOW(execve),
        ALLOW(execveat),
        ALLOW(exit),
        ALLOW(exit_group),
        ALLOW(wait4),
        ALLOW(waitid),
        ALLOW(getpid),
        ALLOW(getppid),
        ALLOW(gettid),
        ALLOW(getpgid),
        ALLOW(setpgid),
        ALLOW(getsid),
        ALLOW(setsid),
        ALLOW(set_tid_address),
        ALLOW(set_robust_list),
        ALLOW(get_robust_list),
        ALLOW(rseq),
        CHECK(prctl, CHECK_PROCESS_CONTROL),
        ALLOW(pidfd_open),
        ALLOW(pidfd_send_signal),
        ALLOW(getpriority),
        ALLOW(setpriority),
        ALLOW(ioprio_get),
        ALLOW(ioprio_set),
        ALLOW(sched_yield),
        ALLOW(sched_getaffinity),
        ALLOW(sched_setaffinity),
        ALLOW(sched_getparam),
        ALLOW(sched_setparam),
        ALLOW(sched_getscheduler),
        ALLOW(sched_setscheduler),
        ALLOW(sched_getattr),
        ALLOW(sched_setattr),
        ALLOW(sched_get_priority_max),
        ALLOW(sched_get_priority_min),
        ALLOW(sched_rr_get_interval),
        ALLOW(getcpu),
        ALLOW(getrlimit),
        /* A core limit of 0 would let the kernel start the host's helper for dumps (process.c). */
        CHECK(setrlimit, CHECK_SET_LIMIT),
        CHECK(prlimit64, CHECK_LIMIT),
        ALLOW(getrusage),
        ALLOW(times),
        ALLOW(uname),
        ALLOW(sysinfo),
        ALLOW(getrandom),
        CHECK(personality, CHECK_PERSONALITY),

        /* Ids: without capabilities they can only be read, or set to what they are. */
        ALLOW(getuid),
        ALLOW(geteuid),
        ALLOW(getgid),
        ALLOW(getegid),
        ALLOW(getresuid),
        ALLOW(getresgid),
        ALLOW(getgroups),
        ALLOW(setuid),
        ALLOW(setgid),
        ALLOW(setreuid),
        ALLOW(setregid),
        ALLOW(setresuid),
        ALLOW(setresgid),
        ALLOW(setfsuid),
        ALLOW(setfsgid),
        ALLOW(setgroups),
        ALLOW(capget),
        ALLOW(capset),

        /* Signals. */
        ALLOW(kill),
        ALLOW(tkill),
        ALLOW(tgkill),
        ALLOW(rt_sigaction),
        ALLOW(rt_sigprocmask),
        ALLOW(rt_sigpending),
        ALLOW(rt_sigsuspend),
        ALLOW(rt_sigtimedwait),
        ALLOW(rt_sigqueueinfo),
        ALLOW(rt_tgsigqueueinfo),
        ALLOW(rt_sigreturn),
        ALLOW(sigaltstack),
        ALLOW(restart_syscall),
        ALLOW(signalfd4),

        /* Time. */
        ALLOW(clock_gettime),
        ALLOW(clock_getres),
        ALLOW(clock_nanosleep),
        ALLOW(gettimeofday),
        ALLOW(nanosleep),
        ALLOW(getitimer),
        ALLOW(setitimer),
        ALLOW(timer_create),
        ALLOW(timer_settime),
        ALLOW(timer_gettime),
        ALLOW(timer_getoverrun),
        ALLOW(timer_delete),
        ALLOW(timerfd_create),
        ALLOW(timerfd_settime),
        ALLOW(timerfd_gettime),

        /* Waiting. */
        ALLOW(ppoll),
        ALLOW(pselect6),
        ALLOW(epoll_create1),
        ALLOW(epoll_ctl),
        ALLOW(epoll_pwait),
        ALLOW(epoll_pwait2),
        ALLOW(eventfd2),
        ALLOW(pipe2),
        ALLOW(futex),
        ALLOW(futex_waitv),
        ALLOW(futex_wake),
        ALLOW(futex_wait),
        ALLOW(futex_requeue),

        /* Sockets. */
        CHECK(socket, CHECK_SOCKET),
        CHECK(socketpair, CHECK_PAIR),
        ALLOW(bind),
        ALLOW(listen),
        ALLOW(accept),
        ALLOW(accept4),
        ALLOW(connect),
        ALLOW(shutdown),
        ALLOW(getsockname),
        ALLOW(getpeername),
        ALLOW(getsockopt),
        CHECK(setsockopt, CHECK_SOCKET_OPTION),
        CHECK(sendto, CHECK_SEND),
        ALLOW(recvfrom),
        CHECK(sendmsg, CHECK_SEND_MESSAGE),
        ALLOW(recvmsg),
        CHECK(sendmmsg, CHECK_SEND_MANY),
        ALLOW(recvmmsg),

        /* System V and POSIX IPC, in a namespace of their own. */
        ALLOW(shmget),
        ALLOW(shmat),
        ALLOW(shmdt),
        ALLOW(shmctl),
        ALLOW(semget),
        ALLOW(semop),
        ALLOW(semtimedop),
        ALLOW(semctl),
        ALLOW(msgget),
        ALLOW(msgsnd),
        ALLOW(msgrcv),
        ALLOW(msgctl),
        ALLOW(mq_open),
        ALLOW(mq_unlink),
        ALLOW(mq_timedsend),
        ALLOW(mq_timedreceive),
        ALLOW(mq_notify),
        ALLOW(mq_getsetattr),

        /* A program's own walls: they can only narrow. */
        CHECK(seccomp, CHECK_SECCOMP),
        ALLOW(landlock_create_ruleset),
        ALLOW(landlock_add_rule),
        ALLOW(landlock_restrict_self),

#ifdef __NR_newfstatat
        ALLOW(newfstatat),
#endif
#ifdef __NR_renameat
        ALLOW(renameat),
#endif
#ifdef __x86_64__
        /* What later architectures have only in a newer form. */
        ALLOW(open),
        ALLOW(creat),
        ALLOW(stat),
        ALLOW(lstat),
        ALLOW(access),
        ALLOW(chmod),
        ALLOW(chown),
        ALLOW(lchown),
        ALLOW(link),
        ALLOW(symlink),
        ALLOW(readlink),
        ALLOW(unlink),
        ALLOW(rename),
        ALLOW(mkdir),
        ALLOW(rmdir),
        ALLOW(mknod),
        ALLOW(getdents),
        ALLOW(utime),
        ALLOW(utimes),
        ALLOW(futimesat),
        ALLOW(pipe),
        ALLOW(dup2),
        ALLOW(poll),
        ALLOW(select),
        ALLOW(epoll_create),
        ALLOW(epoll_wait),
        ALLOW(eventfd),
        ALLOW(signalfd),
        ALLOW(inotify_init),
        ALLOW(fork),
        ALLOW(vfork),
        ALLOW(getpgrp),
        ALLOW(pause),
        ALLOW(alarm),
        ALLOW(time),
        ALLOW(arch_prctl),
#endif
};
const size_t n_seccomp_entries = ARRAY_SIZE(seccomp_entries);
