#include "runtime/cgroup/pressure.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group_private.h"
#include "runtime/cgroup/values.h"

enum {
        TEXT_MAX = 512,
        STAT_MAX = 8192, /* memory.stat */
};

static const char *const stall_files[] = {
        [CGROUP_STALL_MEMORY] = "memory.pressure",
        [CGROUP_STALL_CPU] = "cpu.pressure",
        [CGROUP_STALL_IO] = "io.pressure",
};
static_assert(ARRAY_SIZE(stall_files) == _CGROUP_STALL_N, "every stall has a file");

/* -EOPNOTSUPP when the kernel has no such file. */
static int read_if_known(const struct cgroup *group, size_t parent, const char *file, char *text,
                         size_t size)
{
        int r = read_at(group, parent, file, text, size);

        return r == -ENOENT ? -EOPNOTSUPP : r;
}

static int read_controller(const struct cgroup *group, enum cgroup_controller controller,
                           const char *v1, const char *v2, char *text, size_t size)
{
        enum cgroup_dialect dialect = group->tree->controllers[controller].dialect;
        size_t parent = group->tree->controllers[controller].parent;

        if (dialect == CGROUP_ABSENT || !(group->parents & BIT(parent)))
                return -EOPNOTSUPP;
        return read_if_known(group, parent, dialect == CGROUP_V1 ? v1 : v2, text, size);
}

static int read_number(const struct cgroup *group, enum cgroup_controller controller,
                       const char *v1, const char *v2, uint64_t *ret_value)
{
        char text[CGROUP_VALUE_MAX];
        int r = read_controller(group, controller, v1, v2, text, sizeof(text));

        return r ? r : cgroup_parse_number(text, ret_value);
}

int cgroup_read_cpu_usec(const struct cgroup *group, uint64_t *ret_usec)
{
        char text[STAT_MAX];
        int r = read_if_known(group, 0, "cpu.stat", text, sizeof(text));

        return r ? r : cgroup_parse_key(text, "usage_usec", ret_usec);
}

int cgroup_read_memory_level(const struct cgroup *group, struct cgroup_level *ret_level)
{
        struct cgroup_level level;
        int r = read_number(group, CGROUP_MEMORY, "memory.usage_in_bytes", "memory.current",
                            &level.used);

        if (!r)
                r = read_number(group, CGROUP_MEMORY, "memory.limit_in_bytes", "memory.max",
                                &level.limit);
        if (r)
                return r;
        *ret_level = level;
        return 0;
}

/* What is in memory alone (tmpfs) the kernel lists with anonymous memory, not with files. v1 has a
 * line of each for the group without those below it, too. */
int cgroup_read_reclaimable(const struct cgroup *group, uint64_t *ret_bytes)
{
        bool is_v1 = group->tree->controllers[CGROUP_MEMORY].dialect == CGROUP_V1;
        char text[STAT_MAX];
        uint64_t active = 0;
        uint64_t inactive = 0;
        int r = read_controller(group, CGROUP_MEMORY, "memory.stat", "memory.stat", text,
                                sizeof(text));

        if (!r)
                r = cgroup_parse_key(text, is_v1 ? "total_inactive_file" : "inactive_file",
                                     &inactive);
        if (!r)
                r = cgroup_parse_key(text, is_v1 ? "total_active_file" : "active_file", &active);
        if (r)
                return r;
        *ret_bytes = active + inactive;
        return 0;
}

int cgroup_read_process_level(const struct cgroup *group, struct cgroup_level *ret_level)
{
        struct cgroup_level level;
        int r = read_number(group, CGROUP_PIDS, "pids.current", "pids.current", &level.used);

        if (!r)
                r = read_number(group, CGROUP_PIDS, "pids.max", "pids.max", &level.limit);
        if (r)
                return r;
        *ret_level = level;
        return 0;
}

int cgroup_parse_stall(const char *text, uint64_t *ret_usec)
{
        static const char total[] = " total=";
        char line[TEXT_MAX];
        size_t n = strcspn(text, "\n");
        const char *at;

        if (strncmp(text, "some ", 5) != 0 || text[n] != '\n' || n >= sizeof(line))
                return error_origin(-EBADMSG);
        (void)memcpy(line, text, n);
        line[n] = '\0';
        at = strstr(line, total);
        if (!at || strcmp(at + strlen(total), "max") == 0)
                return error_origin(-EBADMSG);
        return cgroup_parse_number(at + strlen(total), ret_usec);
}

/* PSI is of cgroup2, wherever the controllers are. */
int cgroup_read_stall(const struct cgroup *group, enum cgroup_stall stall, uint64_t *ret_usec)
{
        char text[TEXT_MAX];
        int r = read_if_known(group, 0, stall_files[stall], text, sizeof(text));

        return r ? r : cgroup_parse_stall(text, ret_usec);
}
