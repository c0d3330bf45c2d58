/* Limits of a tmpfs that is there already. */
#pragma once

#include <stdint.h>

struct tmpfs_amount {
        uint64_t bytes;
        uint64_t inodes;
};

/* As many files, directories and links as go with so much room. */
uint64_t tmpfs_inodes_for(uint64_t bytes);

/* @mount_fd: the root of its mount, which need not be attached anywhere; O_PATH will do. */
int tmpfs_read_use(int mount_fd, struct tmpfs_amount *ret_used);

/* -EINVAL: more is used now; then nothing is changed. */
int tmpfs_resize(int mount_fd, const struct tmpfs_amount *limits);
