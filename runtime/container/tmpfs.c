#include "runtime/container/tmpfs.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/vfs.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum {
        BYTES_AN_INODE = 4096,
        INODES_MIN = 1024,   /* not fewer than a small system needs */
        INODES_MAX = 1 << 20 /* an empty file costs the kernel a KiB */
};

uint64_t tmpfs_inodes_for(uint64_t bytes)
{
        return MIN(MAX(bytes / BYTES_AN_INODE, (uint64_t)INODES_MIN), (uint64_t)INODES_MAX);
}

int tmpfs_read_use(int mount_fd, struct tmpfs_amount *ret_used)
{
        struct statfs file_system;

        if (fstatfs(mount_fd, &file_system) < 0)
                return error_origin(-errno);
        *ret_used = (struct tmpfs_amount){
                .bytes = (file_system.f_blocks - file_system.f_bfree) *
                         (uint64_t)file_system.f_bsize,
                .inodes = file_system.f_files - file_system.f_ffree,
        };
        return 0;
}

static int set_number(int context_fd, const char *key, uint64_t value)
{
        char text[32];

        (void)snprintf(text, sizeof(text), "%" PRIu64, value);
        return fsconfig(context_fd, FSCONFIG_SET_STRING, key, text, 0) < 0 ? -errno : 0;
}

int tmpfs_resize(int mount_fd, const struct tmpfs_amount *limits)
{
        _cleanup_(closep) int context_fd = fspick(mount_fd, "", FSPICK_CLOEXEC | FSPICK_EMPTY_PATH);
        int r;

        if (context_fd < 0)
                return error_origin(-errno);
        r = set_number(context_fd, "size", limits->bytes);
        if (!r)
                r = set_number(context_fd, "nr_inodes", limits->inodes);
        if (!r && fsconfig(context_fd, FSCONFIG_CMD_RECONFIGURE, NULL, NULL, 0) < 0)
                r = -errno;
        return r;
}
