/*
 * One look reads some ten small files; the timers of all sandboxes are apart as these were made, so
 * a turn of the loop has few of them. A sandbox that used no CPU since the last look did nothing
 * that could have filled anything up, but may wait all the while, as for a disk: only how long it
 * waited is read of it, until that stands still. Then nothing begins to wait without using CPU
 * first, and only that is read; and nothing at all where no program runs.
 */
#include "runtime/supervisor/pressure.h"

#include <time.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/pressure.h"
#include "runtime/container/tmpfs.h"
#include "runtime/supervisor/sandbox.h"

enum {
        ACCURACY_USEC = 200000,
        INIT_PROCESSES = 1, /* its init's, which the limit in its group has room for */
};

static void consider(struct sandbox *sandbox, const struct pressure_level *level)
{
        uint64_t now_usec = sandbox->pressure.before.time_usec;

        if (pressure_is_to_be_told(&sandbox->pressure.told[level->kind], level, now_usec))
                sandbox->host->observer->on_pressure(sandbox, level);
}

/* --- what fills up -----------------------------------------------------------------------------
 */

/* What the kernel can take back fills the rest of the memory of whoever reads much: it is read only
 * when it matters, for the file that tells of it is long. */
static void look_at_memory(struct sandbox *sandbox)
{
        struct pressure_level level = { .kind = PRESSURE(MEMORY_LIMIT) };
        struct cgroup_level memory;
        uint64_t reclaimable;

        if (cgroup_read_memory_level(&sandbox->group, &memory))
                return;
        if (memory.used > memory.limit / 10 * 8 &&
            !cgroup_read_reclaimable(&sandbox->group, &reclaimable))
                memory.used -= MIN(reclaimable, memory.used);
        level.used = memory.used;
        level.limit = memory.limit;
        consider(sandbox, &level);
}

static void look_at_processes(struct sandbox *sandbox)
{
        struct pressure_level level = { .kind = PRESSURE(PROCESSES) };
        struct cgroup_level processes;

        if (cgroup_read_process_level(&sandbox->group, &processes) ||
            processes.used < INIT_PROCESSES || processes.limit <= INIT_PROCESSES)
                return;
        level.used = processes.used - INIT_PROCESSES;
        level.limit = processes.limit - INIT_PROCESSES;
        consider(sandbox, &level);
}

static void look_at_disk(struct sandbox *sandbox)
{
        struct pressure_level bytes = { .kind = PRESSURE(DISK) };
        struct pressure_level inodes = { .kind = PRESSURE(INODES) };
        struct tmpfs_amount used;

        if (tmpfs_read_use(sandbox->scratch_fd, &used))
                return;
        bytes.used = used.bytes;
        bytes.limit = sandbox->limits.disk_bytes;
        consider(sandbox, &bytes);
        inodes.used = used.inodes;
        inodes.limit = sandbox->limits.disk_inodes;
        consider(sandbox, &inodes);
}

/* --- what is waited for ------------------------------------------------------------------------
 */

static uint64_t stall_of(const struct sandbox *sandbox, enum cgroup_stall stall)
{
        uint64_t usec;

        return cgroup_read_stall(&sandbox->group, stall, &usec) ? PRESSURE_UNKNOWN : usec;
}

static struct pressure_counters count(const struct sandbox *sandbox)
{
        struct cgroup_throttling throttling = { .n_periods = PRESSURE_UNKNOWN,
                                                .n_throttled = PRESSURE_UNKNOWN };

        (void)cgroup_read_throttling(&sandbox->group, &throttling);
        return (struct pressure_counters){
                .time_usec = clock_monotonic_usec(),
                .memory_stall_usec = stall_of(sandbox, CGROUP_STALL_MEMORY),
                .cpu_stall_usec = stall_of(sandbox, CGROUP_STALL_CPU),
                .io_stall_usec = stall_of(sandbox, CGROUP_STALL_IO),
                .n_periods = throttling.n_periods,
                .n_throttled = throttling.n_throttled,
        };
}

static void look_at_rates(struct sandbox *sandbox)
{
        struct pressure_counters before = sandbox->pressure.before;
        struct pressure_level levels[PRESSURE_RATES_MAX];
        size_t n;

        sandbox->pressure.before = count(sandbox);
        sandbox->pressure.n_quiet =
                pressure_count_quiet(sandbox->pressure.n_quiet, &before, &sandbox->pressure.before);
        n = pressure_rates(&before, &sandbox->pressure.before, levels);
        for (size_t i = 0; i < n; i++)
                consider(sandbox, &levels[i]);
}

/* --- looks -------------------------------------------------------------------------------------
 */

/* Who comes is not told of what those waited for who are gone. */
static void look_at_nobody(struct sandbox *sandbox)
{
        struct pressure *pressure = &sandbox->pressure;

        if (!pressure->is_empty)
                pressure->before = count(sandbox);
        pressure->is_empty = true;
        pressure->before.time_usec = clock_monotonic_usec();
}

static void look(struct sandbox *sandbox)
{
        struct pressure *pressure = &sandbox->pressure;
        uint64_t cpu_usec;
        bool is_idle;

        if (sandbox->n_processes_alive == 0 || cgroup_read_cpu_usec(&sandbox->group, &cpu_usec)) {
                look_at_nobody(sandbox);
                return;
        }
        pressure->is_empty = false;
        is_idle = cpu_usec == pressure->cpu_usec;
        if (!is_idle)
                pressure->n_quiet = 0;
        /* What comes is to be seen against the time from now on. */
        if (pressure->n_quiet >= PRESSURE_QUIET_LOOKS) {
                pressure->before.time_usec = clock_monotonic_usec();
                return;
        }
        pressure->cpu_usec = cpu_usec;
        look_at_rates(sandbox);
        if (is_idle)
                return;
        look_at_memory(sandbox);
        look_at_processes(sandbox);
        look_at_disk(sandbox);
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sandbox *sandbox = userdata;

        (void)usec;
        if (sandbox->state == SANDBOX_RUNNING)
                look(sandbox);
        (void)sd_event_source_set_time_relative(source, PRESSURE_WINDOW_USEC);
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

int pressure_start(struct sandbox *sandbox)
{
        int r = sd_event_add_time_relative(sandbox->host->event, &sandbox->pressure.timer,
                                           CLOCK_MONOTONIC, PRESSURE_WINDOW_USEC, ACCURACY_USEC,
                                           on_look, sandbox);

        sandbox->pressure.before = count(sandbox);
        return r < 0 ? error_origin(r) : 0;
}

void pressure_stop(struct sandbox *sandbox)
{
        sandbox->pressure.timer = sd_event_source_disable_unref(sandbox->pressure.timer);
}
