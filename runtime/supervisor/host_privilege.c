#include "runtime/supervisor/host_privilege.h"

#include <errno.h>
#include <linux/capability.h>
#include <stdint.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

/* One capability a line; the reason stands beside it. */
static const int kept[] = {
        CAP_CHOWN,        /* pipes, the socket and the upper layer belong to the sandbox's ids */
        CAP_DAC_OVERRIDE, /* templates keep their files' modes; /proc/PID belongs to other ids */
        CAP_FOWNER,       /* modes of files that already belong to the sandbox's ids */
        CAP_KILL,         /* signals to processes of other ids */
        CAP_MKNOD,        /* the nodes of the /dev that sandboxes get a copy of */
        CAP_NET_ADMIN,    /* `lo` up in a new network namespace */
        CAP_SETFCAP,      /* a map that contains id 0 of the host's or the sandbox's root */
        CAP_SETGID,       /* id maps; the groups of programs and of hotcelld */
        CAP_SETPCAP,      /* emptying the bounding sets of children */
        CAP_SETUID,       /* id maps; the users of programs and of hotcelld */
        CAP_SYS_ADMIN,    /* namespaces and mounts */
        CAP_SYS_CHROOT,   /* joining a mount namespace, pivot_root */
        CAP_SYS_PTRACE,   /* /proc/PID/ns and /proc/PID/root of processes of other ids */
        CAP_SYS_RESOURCE, /* limits on open files above the inherited one, where it is there */
};

static uint64_t kept_mask(void)
{
        uint64_t mask = 0;

        for (size_t i = 0; i < ARRAY_SIZE(kept); i++)
                mask |= (uint64_t)1 << kept[i];
        return mask;
}

static int drop_bounding(uint64_t keep)
{
        for (int capability = 0; capability <= CAP_LAST_CAP; capability++) {
                if (keep & ((uint64_t)1 << capability))
                        continue;
                if (prctl(PR_CAPBSET_READ, capability) <= 0)
                        continue;
                if (prctl(PR_CAPBSET_DROP, capability) < 0)
                        return error_origin(-errno);
        }
        return 0;
}

static int limit_sets(uint64_t keep)
{
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

        if (syscall(SYS_capget, &header, data) < 0)
                return error_origin(-errno);
        for (size_t i = 0; i < ARRAY_SIZE(data); i++) {
                uint32_t half = (uint32_t)(keep >> (32 * i));

                data[i].permitted &= half;
                data[i].effective = data[i].permitted;
                data[i].inheritable = 0;
        }
        if (syscall(SYS_capset, &header, data) < 0)
                return error_origin(-errno);
        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return error_origin(-errno);
        return 0;
}

int host_privilege_limit(void)
{
        int r = drop_bounding(kept_mask());

        /* Without CAP_SETPCAP the bounding set stays; the walls say what that means here. */
        return r && r != -EPERM ? r : limit_sets(kept_mask());
}

int host_privilege_give_up(void)
{
        int r = drop_bounding(0);

        return r && r != -EPERM ? r : limit_sets(0);
}
