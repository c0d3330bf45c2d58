/*
 * The filter is a list of what is refused, not of what is allowed: gRPC, SQLite and the C library
 * change what they call from release to release, and a daemon that dies of an upgrade protects
 * nobody. Refused calls fail with EPERM.
 */
#include "runtime/harden/harden.h"

#include <errno.h>
#include <linux/bpf.h>
#include <linux/capability.h>
#include <sched.h>
#include <seccomp.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

/* The sanitizers' leak check forks and traces. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define HAS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define HAS_SANITIZER 1
#endif
#endif
#ifndef HAS_SANITIZER
#define HAS_SANITIZER 0
#endif

static const int refused[] = {
        /* Other programs and processes. */
        SCMP_SYS(execve),
        SCMP_SYS(execveat),
        SCMP_SYS(fork),
        SCMP_SYS(vfork),
        SCMP_SYS(kill),
        SCMP_SYS(pidfd_getfd),
        SCMP_SYS(pidfd_send_signal),
        SCMP_SYS(process_madvise),
        SCMP_SYS(process_vm_readv),
        SCMP_SYS(process_vm_writev),
        SCMP_SYS(ptrace),
        SCMP_SYS(kcmp),
        /* Namespaces and mounts. */
        SCMP_SYS(chroot),
        SCMP_SYS(fsconfig),
        SCMP_SYS(fsmount),
        SCMP_SYS(fsopen),
        SCMP_SYS(fspick),
        SCMP_SYS(mount),
        SCMP_SYS(mount_setattr),
        SCMP_SYS(move_mount),
        SCMP_SYS(name_to_handle_at),
        SCMP_SYS(open_by_handle_at),
        SCMP_SYS(open_tree),
        SCMP_SYS(pivot_root),
        SCMP_SYS(setns),
        SCMP_SYS(umount2),
        SCMP_SYS(unshare),
        /* Large and old doors into the kernel. */
        SCMP_SYS(add_key),
        SCMP_SYS(io_uring_enter),
        SCMP_SYS(io_uring_register),
        SCMP_SYS(io_uring_setup),
        SCMP_SYS(keyctl),
        SCMP_SYS(perf_event_open),
        SCMP_SYS(personality),
        SCMP_SYS(request_key),
        SCMP_SYS(userfaultfd),
        /* The machine. */
        SCMP_SYS(acct),
        SCMP_SYS(adjtimex),
        SCMP_SYS(clock_adjtime),
        SCMP_SYS(clock_settime),
        SCMP_SYS(delete_module),
        SCMP_SYS(finit_module),
        SCMP_SYS(init_module),
        SCMP_SYS(ioperm),
        SCMP_SYS(iopl),
        SCMP_SYS(kexec_file_load),
        SCMP_SYS(kexec_load),
        SCMP_SYS(quotactl),
        SCMP_SYS(reboot),
        SCMP_SYS(settimeofday),
        SCMP_SYS(swapoff),
        SCMP_SYS(swapon),
        SCMP_SYS(syslog),
};

static const uint32_t refused_action = SCMP_ACT_ERRNO(EPERM);

static int refuse_calls(scmp_filter_ctx filter)
{
        for (size_t i = 0; i < ARRAY_SIZE(refused); i++) {
                int r = seccomp_rule_add(filter, refused_action, refused[i], 0);

                if (r)
                        return error_origin(r);
        }
        return 0;
}

/* Threads are made with CLONE_THREAD, processes without. What clone3 does is behind a pointer: it
 * is told to be missing, and the C library takes clone. */
static int refuse_processes(scmp_filter_ctx filter)
{
        int r;

        r = seccomp_rule_add(filter, refused_action, SCMP_SYS(clone), 1,
                             SCMP_A0(SCMP_CMP_MASKED_EQ, CLONE_THREAD, 0));
        if (r == 0)
                r = seccomp_rule_add(filter, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
        return r ? error_origin(r) : 0;
}

/* Only unix and IP sockets. */
static int refuse_sockets(scmp_filter_ctx filter)
{
        int r = 0;

        for (unsigned family = 0; r == 0 && family < AF_INET6; family++)
                if (family != AF_UNIX && family != AF_INET)
                        r = seccomp_rule_add(filter, refused_action, SCMP_SYS(socket), 1,
                                             SCMP_A0(SCMP_CMP_EQ, family, 0));
        if (r == 0)
                r = seccomp_rule_add(filter, refused_action, SCMP_SYS(socket), 1,
                                     SCMP_A0(SCMP_CMP_GT, AF_INET6, 0));
        return r ? error_origin(r) : 0;
}

/* No new code: what an attacker writes to memory stays data. */
static int refuse_new_code(scmp_filter_ctx filter)
{
        static const int calls[] = { SCMP_SYS(mmap), SCMP_SYS(mprotect), SCMP_SYS(pkey_mprotect) };

        for (size_t i = 0; i < ARRAY_SIZE(calls); i++) {
                int r = seccomp_rule_add(filter, refused_action, calls[i], 1,
                                         SCMP_A2(SCMP_CMP_MASKED_EQ, PROT_EXEC, PROT_EXEC));

                if (r)
                        return error_origin(r);
        }
        return 0;
}

/* Loading programs and making maps would take privilege, too. */
static int refuse_bpf(scmp_filter_ctx filter, enum harden_need need)
{
        static const unsigned maps[] = { BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM,
                                         BPF_MAP_DELETE_ELEM, BPF_MAP_GET_NEXT_KEY,
                                         BPF_OBJ_GET_INFO_BY_FD };
        unsigned next = 0;
        int r = 0;

        if (need != HARDEN_NEEDS_BPF_MAPS)
                r = seccomp_rule_add(filter, refused_action, SCMP_SYS(bpf), 0);
        if (need != HARDEN_NEEDS_BPF_MAPS)
                return r ? error_origin(r) : 0;
        for (size_t i = 0; i < ARRAY_SIZE(maps) && r == 0; i++) {
                for (; next < maps[i] && r == 0; next++)
                        r = seccomp_rule_add(filter, refused_action, SCMP_SYS(bpf), 1,
                                             SCMP_A0(SCMP_CMP_EQ, next, 0));
                next = maps[i] + 1;
        }
        if (r == 0)
                r = seccomp_rule_add(filter, refused_action, SCMP_SYS(bpf), 1,
                                     SCMP_A0(SCMP_CMP_GE, next, 0));
        return r ? error_origin(r) : 0;
}

static int load_filter(enum harden_need need)
{
        scmp_filter_ctx filter = seccomp_init(SCMP_ACT_ALLOW);
        int r;

        if (!filter)
                return error_origin(-ENOMEM);
        r = refuse_calls(filter);
        if (r == 0)
                r = refuse_bpf(filter, need);
        if (r == 0)
                r = refuse_processes(filter);
        if (r == 0)
                r = refuse_sockets(filter);
        if (r == 0)
                r = refuse_new_code(filter);
        if (r == 0)
                r = seccomp_load(filter);
        seccomp_release(filter);
        return r ? error_fold(r) : 0;
}

static int drop_capabilities(void)
{
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { 0 };

        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return error_origin(-errno);
        return syscall(SYS_capset, &header, none) < 0 ? error_origin(-errno) : 0;
}

/* An execution takes half a dozen descriptors, so as many as may be. */
static int raise_open_files(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return error_origin(-errno);
        limit.rlim_cur = limit.rlim_max;
        return setrlimit(RLIMIT_NOFILE, &limit) < 0 ? error_origin(-errno) : 0;
}

int harden_process(enum harden_need need)
{
        const struct rlimit no_core = { 0 };
        int r;

        if (setrlimit(RLIMIT_CORE, &no_core) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return error_origin(-errno);
        r = raise_open_files();
        if (r == 0)
                r = drop_capabilities();
        if (r)
                return error_fold(r);
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return error_origin(-errno);
        return HAS_SANITIZER ? 0 : load_filter(need);
}
