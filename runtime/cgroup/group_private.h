/* What the files about groups share: how a file of a group is named, read and written. */
#pragma once

#include <errno.h>
#include <stdio.h>

#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group.h"

enum { FILE_PATH_MAX = CGROUP_GROUP_PATH_MAX + 64 };

static inline int file_path(const struct cgroup *group, const char *file,
                            char ret_path[static FILE_PATH_MAX])
{
        int n = snprintf(ret_path, FILE_PATH_MAX, "%s/%s", group->path, file);

        return n >= 0 && n < FILE_PATH_MAX ? 0 : error_origin(-ENAMETOOLONG);
}

static inline int parent_fd(const struct cgroup *group, size_t parent)
{
        return group->tree->parents[parent].fd;
}

static inline int write_at(const struct cgroup *group, size_t parent, const char *file,
                           const char *text)
{
        char path[FILE_PATH_MAX];
        int r = file_path(group, file, path);

        return r ? r : io_write_file(parent_fd(group, parent), path, text);
}

static inline int read_at(const struct cgroup *group, size_t parent, const char *file, char *buffer,
                          size_t size)
{
        char path[FILE_PATH_MAX];
        int r = file_path(group, file, path);

        return r ? r : io_read_file(parent_fd(group, parent), path, buffer, size, NULL);
}

static inline bool has(const struct cgroup *group, enum cgroup_controller controller)
{
        return group->tree->controllers[controller].dialect != CGROUP_ABSENT;
}

/* Of limits.c: a fresh group's limits, and those of sockets alone. */
int limits_begin(const struct cgroup *group, const struct cgroup_limits *limits);
int limits_set_sockets(const struct cgroup *group, uint64_t bytes);
