#include "runtime/container/privilege.h"

#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <linux/securebits.h>
#include <stdbool.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

/* No id confers a capability, and that cannot be changed any more. */
static const unsigned long securebits = SECBIT_NOROOT | SECBIT_NOROOT_LOCKED |
                                        SECBIT_NO_SETUID_FIXUP | SECBIT_NO_SETUID_FIXUP_LOCKED |
                                        SECBIT_KEEP_CAPS_LOCKED | SECBIT_NO_CAP_AMBIENT_RAISE |
                                        SECBIT_NO_CAP_AMBIENT_RAISE_LOCKED;

/* To the last one that this kernel knows. */
static int empty_bounding_set(void)
{
        for (unsigned long capability = 0;; capability++) {
                if (prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0)
                        continue;
                return errno == EINVAL && capability > CAP_SETPCAP ? 0 : -errno;
        }
}

static int change_ids(uint32_t uid, uint32_t gid)
{
        if (setgroups(0, NULL) < 0)
                return -errno;
        if (setresgid(gid, gid, gid) < 0)
                return -errno;
        return setresuid(uid, uid, uid) < 0 ? -errno : 0;
}

static int empty_capability_sets(void)
{
        struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
        const struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = { { 0 } };

        if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0) < 0)
                return -errno;
        return syscall(SYS_capset, &header, none) < 0 ? -errno : 0;
}

int privilege_drop(uint32_t uid, uint32_t gid)
{
        int r;

        r = empty_bounding_set();
        if (r)
                return r;
        if (prctl(PR_SET_SECUREBITS, securebits) < 0)
                return -errno;
        r = change_ids(uid, gid);
        if (r)
                return r;
        /*
         * The change of ids may have made it dumpable (fs.suid_dumpable). While it still has
         * capabilities, no program in the sandbox may trace it; from the next line on, none may
         * because of this one.
         */
        if (prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) < 0)
                return -errno;
        r = empty_capability_sets();
        if (r)
                return r;
        return prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno : 0;
}
