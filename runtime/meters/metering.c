/*
 * Memory over time is looked at when nobody knows: the timer's turns come after times of which only
 * the average is known, and nothing that a program or a client does brings a look nearer or puts it
 * off, readings neither. So who holds memory for part of the time is billed for that part.
 *
 * Reading a slot costs nothing, reading a file some microseconds: so a sandbox in which nothing ran
 * since the last look, and of which no leaf is over, seldom is read. What it holds can change
 * nevertheless, when the kernel takes memory back. Of a leaf without a slot, as all are without
 * programs, it is not known whether it ran. Where there are more of them than may be read in a
 * turn, it is left to chance whether a sandbox's are.
 */
#include "runtime/meters/metering.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

enum {
        TURN_USEC = 100000, /* on average */
        ACCURACY_USEC = 1000,
        TURN_SANDBOXES = 512,
        TURN_READS = 512,       /* files of leaves that run; the last sandbox may need more */
        TURN_READS_BLIND = 100, /* for leaves without a slot, on average: some 0.7 % of a CPU */
        THREADS_OF_SLOT = 8, /* that are known at once, some 100 bytes each; most slots are free */
        THREADS_MIN = 1 << 15,
        THREADS_MAX = 1 << 20,
        IDLE_LOOKS = 1000, /* of a sandbox in which nothing ran one in so many reads, on average */
        RANDOM_DRAWS = 32, /* the kernel gives so many at once, or none */
};

#define PART(name)    HOTCELL__RUNTIME__V1__METER_PART__METER_PART_##name
#define MISSING(name) BIT(PART(name))

struct metering {
        struct meter *meter; /* NULL: no programs */
        char detail[METERING_DETAIL_BUFFER];
        unsigned missing; /* on this host */
        sd_event_source *timer;
        bool has_turn;                                       /* it is set */
        TAILQ_HEAD(sandbox_meters, sandbox_meter) sandboxes; /* looked at the longest ago first */
        unsigned n_reads;                                    /* of files, in the turn at hand */
        size_t n_blind;                /* leaves without a slot, and sandboxes that have some */
        uint64_t random[RANDOM_DRAWS]; /* those from n_random on were drawn already */
        size_t n_random;
        uint64_t n_forgotten;          /* as far as it was told */
        uint64_t ended_scheduled_nsec; /* of leaves that are over and had a slot */
        uint64_t ended_cpu_usec;
};

/* --- looks ------------------------------------------------------------------------------------ */

/* Of the kernel's, so that what was drawn tells nothing of what comes. */
static uint64_t draw(struct metering *metering)
{
        if (metering->n_random == 0) {
                ssize_t n = getrandom(metering->random, sizeof(metering->random), 0);

                assert(n == sizeof(metering->random));
                (void)n;
                metering->n_random = ARRAY_SIZE(metering->random);
        }
        return metering->random[--metering->n_random];
}

static void schedule(struct metering *metering)
{
        uint64_t usec = memory_time_gap_usec(TURN_USEC, draw(metering));
        int r = sd_event_source_set_time_relative(metering->timer, usec);

        if (r >= 0)
                r = sd_event_source_set_enabled(metering->timer, SD_EVENT_ONESHOT);
        metering->has_turn = r >= 0;
}

static uint64_t read_memory(struct metering *metering, struct cgroup *group, uint64_t before)
{
        uint64_t bytes;

        metering->n_reads++;
        return cgroup_read_memory(group, &bytes) ? before : bytes;
}

/* Whether leaves without a slot are read in this turn. */
static bool has_blind_turn(struct metering *metering, const struct sandbox_meter *sandbox)
{
        if (sandbox->n_blind == 0)
                return false;
        return draw(metering) % metering->n_blind < TURN_READS_BLIND;
}

/* Its threads were on a CPU since the last look, or that cannot be known. */
static bool may_have_changed(const struct leaf_meter *leaf, bool is_blind_turn)
{
        if (leaf->slot == METER_NO_SLOT)
                return is_blind_turn;
        return meter_has_run(leaf->sandbox->metering->meter, leaf->slot);
}

static void look_at_leaf(struct leaf_meter *leaf, uint64_t now_usec)
{
        uint64_t bytes = read_memory(leaf->sandbox->metering, leaf->leaf, leaf->memory.last_bytes);

        memory_time_add(&leaf->memory, now_usec, bytes);
}

/* What leaves have together, each read at this look. */
static uint64_t look_at_others(struct sandbox_meter *sandbox, uint64_t now_usec)
{
        uint64_t sum_bytes = 0;
        struct leaf_meter *leaf;

        LIST_FOREACH(leaf, &sandbox->leaves, link)
        {
                if (leaf->memory.last_usec != now_usec)
                        look_at_leaf(leaf, now_usec);
                sum_bytes += leaf->memory.last_bytes;
        }
        return sum_bytes;
}

/*
 * The sandbox's is never below what its leaves have: v1 adds both up at different times. Where it
 * seems to be, something else may have freed what a leaf is charged for that did not run: files
 * that it wrote may be deleted by another, or the kernel took memory back.
 */
static void look(struct sandbox_meter *sandbox)
{
        struct metering *metering = sandbox->metering;
        uint64_t now_usec = clock_monotonic_usec();
        bool is_blind_turn = has_blind_turn(metering, sandbox);
        bool is_read = is_blind_turn || sandbox->has_changed || draw(metering) % IDLE_LOOKS == 0;
        uint64_t sum_bytes = 0;
        struct leaf_meter *leaf;
        uint64_t bytes;

        if (!is_read && sandbox->n_ran == 0)
                return;
        sandbox->n_ran = 0;
        LIST_FOREACH(leaf, &sandbox->leaves, link)
        {
                if (may_have_changed(leaf, is_blind_turn)) {
                        is_read = true;
                        look_at_leaf(leaf, now_usec);
                }
                sum_bytes += leaf->memory.last_bytes;
        }
        if (!is_read)
                return;
        sandbox->has_changed = false;
        bytes = read_memory(metering, sandbox->group, sandbox->memory.last_bytes);
        if (bytes < sum_bytes)
                sum_bytes = look_at_others(sandbox, now_usec);
        memory_time_add(&sandbox->memory, now_usec, MAX(bytes, sum_bytes));
}

static void tell_of_forgotten(struct metering *metering)
{
        static struct log_quota quota;
        uint64_t n = metering->meter ? meter_count_forgotten(metering->meter) : 0;

        if (n > metering->n_forgotten)
                log_warning_of(&quota,
                               "threads were forgotten that went on: the check of CPU time may "
                               "miss some (see --meter-slots): times=%" PRIu64,
                               n - metering->n_forgotten);
        metering->n_forgotten = n;
}

/* All sandboxes, or those that were not looked at for the longest time. */
static int on_turn(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct metering *metering = userdata;
        const struct sandbox_meter *last = TAILQ_LAST(&metering->sandboxes, sandbox_meters);
        struct sandbox_meter *sandbox = NULL;

        (void)source;
        (void)usec;
        metering->n_reads = 0;
        if (metering->meter)
                meter_look(metering->meter);
        for (size_t i = 0; i < TURN_SANDBOXES && metering->n_reads < TURN_READS; i++) {
                if (sandbox == last)
                        break;
                sandbox = TAILQ_FIRST(&metering->sandboxes);
                look(sandbox);
                TAILQ_REMOVE(&metering->sandboxes, sandbox, link);
                TAILQ_INSERT_TAIL(&metering->sandboxes, sandbox, link);
        }
        tell_of_forgotten(metering);
        metering->has_turn = false;
        if (last)
                schedule(metering);
        return 0;
}

/* --- beginnings ------------------------------------------------------------------------------- */

static void find_missing(struct metering *metering, const struct cgroup_tree *cgroups)
{
        if (cgroups->controllers[CGROUP_MEMORY].dialect == CGROUP_ABSENT)
                metering->missing |= MISSING(MEMORY);
        else if (cgroups->n_parents && !cgroup_counts_peak(cgroups))
                metering->missing |= MISSING(MEMORY_PEAK);
        if (cgroups->controllers[CGROUP_CPU].dialect == CGROUP_ABSENT)
                metering->missing |= MISSING(THROTTLED);
        if (!metering->meter) {
                metering->missing |= MISSING(SCHEDULED) | MISSING(RSS_PEAK);
                return;
        }
        if (!meter_knows_wait())
                metering->missing |= MISSING(WAIT);
        if (!meter_has(metering->meter, METER_RSS))
                metering->missing |= MISSING(RSS_PEAK);
}

static uint32_t threads_for(uint32_t n_slots)
{
        uint64_t n = (uint64_t)n_slots * THREADS_OF_SLOT;

        return (uint32_t)MIN(MAX(n, (uint64_t)THREADS_MIN), (uint64_t)THREADS_MAX);
}

static void load_programs(struct metering *metering, const struct metering_config *config)
{
        const struct meter_config meter_config = { .n_slots = config->n_slots,
                                                   .n_threads = threads_for(config->n_slots) };
        static_assert((int)METERING_DETAIL_BUFFER == (int)METER_WHY_BUFFER, "a reason fits");

        if (!config->has_programs) {
                (void)snprintf(metering->detail, sizeof(metering->detail),
                               "turned off by --no-meter-programs");
                return;
        }
        (void)meter_new(&meter_config, &metering->meter, metering->detail);
        if (metering->detail[0])
                log_warning("not all meters could be loaded: detail=\"%s\"", metering->detail);
}

int metering_new(sd_event *event, const struct metering_config *config,
                 struct metering **ret_metering)
{
        struct metering *metering = calloc(1, sizeof(*metering));
        int r;

        if (!metering)
                return error_origin(-ENOMEM);
        assert(hotcell__runtime__v1__meter_part__descriptor.n_values == METERING_PARTS_MAX);
        TAILQ_INIT(&metering->sandboxes);
        load_programs(metering, config);
        find_missing(metering, config->cgroups);
        r = sd_event_add_time_relative(event, &metering->timer, CLOCK_MONOTONIC, 0, ACCURACY_USEC,
                                       on_turn, metering);
        if (r >= 0)
                r = sd_event_source_set_enabled(metering->timer, SD_EVENT_OFF);
        if (r < 0) {
                (void)metering_free(metering);
                return error_origin(r);
        }
        *ret_metering = metering;
        return 0;
}

struct metering *metering_free(struct metering *metering)
{
        if (!metering)
                return NULL;
        sd_event_source_disable_unref(metering->timer);
        (void)meter_free(metering->meter);
        free(metering);
        return NULL;
}

void metering_begin_sandbox(struct metering *metering, struct sandbox_meter *meter,
                            struct cgroup *group)
{
        *meter = (struct sandbox_meter){ .metering = metering,
                                         .group = group,
                                         .begin_usec = clock_monotonic_usec() };
        LIST_INIT(&meter->leaves);
        memory_time_begin(&meter->memory, meter->begin_usec);
        TAILQ_INSERT_TAIL(&metering->sandboxes, meter, link);
        if (!metering->has_turn)
                schedule(metering);
}

static void take_slot(struct metering *metering, struct leaf_meter *leaf)
{
        static struct log_quota quota;
        int r = meter_take_slot(metering->meter, leaf->leaf->id, &leaf->slot);

        if (r)
                log_warning_of(&quota, "a group has no meter: group=%s reason=%s", leaf->leaf->path,
                               r == METER_E_FULL ? "all slots are taken (see --meter-slots)"
                                                 : strerrorname_np(-r));
        else
                meter_count_runs(metering->meter, leaf->slot, &leaf->sandbox->n_ran);
}

static void begin_blind(struct sandbox_meter *sandbox)
{
        sandbox->missing |= MISSING(SCHEDULED) | MISSING(RSS_PEAK);
        sandbox->metering->n_blind += sandbox->n_blind++ == 0 ? 2 : 1;
}

static void end_blind(struct sandbox_meter *sandbox)
{
        sandbox->metering->n_blind -= --sandbox->n_blind == 0 ? 2 : 1;
}

void metering_begin_leaf(struct sandbox_meter *sandbox, struct leaf_meter *meter,
                         struct cgroup *leaf)
{
        struct metering *metering = sandbox->metering;

        *meter = (struct leaf_meter){ .sandbox = sandbox, .leaf = leaf, .slot = METER_NO_SLOT };
        if (metering->meter)
                take_slot(metering, meter);
        if (meter->slot == METER_NO_SLOT)
                begin_blind(sandbox);
        memory_time_begin(&meter->memory, clock_monotonic_usec());
        LIST_INSERT_HEAD(&sandbox->leaves, meter, link);
}

/* --- reading ---------------------------------------------------------------------------------- */

static void add_reading(struct meter_reading *sum, const struct meter_reading *reading)
{
        sum->cpu_nsec += reading->cpu_nsec;
        sum->wait_nsec += reading->wait_nsec;
        sum->n_switches += reading->n_switches;
        sum->earlier_nsec += reading->earlier_nsec;
        sum->rss_peak_bytes = MAX(sum->rss_peak_bytes, reading->rss_peak_bytes);
}

static void read_throttling(const struct sandbox_meter *sandbox, struct metered *metered)
{
        if (metered->missing & MISSING(THROTTLED))
                return;
        if (cgroup_read_throttling(sandbox->group, &metered->throttling))
                metered->missing |= MISSING(THROTTLED);
}

int metering_read_leaf(struct leaf_meter *meter, struct metered *ret_metered)
{
        struct metering *metering = meter->sandbox->metering;
        struct metered metered = { .missing = metering->missing };
        int r = cgroup_read_usage(meter->leaf, &metered.files);

        if (meter->slot == METER_NO_SLOT)
                metered.missing |= MISSING(SCHEDULED) | MISSING(RSS_PEAK);
        else
                meter_read(metering->meter, meter->slot, &metered.programs);
        read_throttling(meter->sandbox, &metered);
        metered.memory_byte_seconds =
                memory_time_byte_seconds(&meter->memory, clock_monotonic_usec());
        *ret_metered = metered;
        return r ? error_fold(r) : 0;
}

int metering_read_sandbox(struct sandbox_meter *meter, struct metered *ret_metered)
{
        struct metering *metering = meter->metering;
        struct metered metered = { .missing = metering->missing | meter->missing };
        struct leaf_meter *leaf;
        uint64_t now_usec;
        int r;

        metered.programs = meter->ended;
        LIST_FOREACH(leaf, &meter->leaves, link)
        {
                struct meter_reading reading;

                if (leaf->slot == METER_NO_SLOT)
                        continue;
                meter_read(metering->meter, leaf->slot, &reading);
                add_reading(&metered.programs, &reading);
        }
        r = cgroup_read_usage(meter->group, &metered.files);
        read_throttling(meter, &metered);
        now_usec = clock_monotonic_usec();
        metered.memory_byte_seconds = memory_time_byte_seconds(&meter->memory, now_usec);
        metered.wall_usec = now_usec - meter->begin_usec;
        *ret_metered = metered;
        return r ? error_fold(r) : 0;
}

/* One page holds seven numbers; the second one is what is resident. */
static uint64_t read_resident(pid_t pid)
{
        char path[64];
        char text[256];
        uint64_t pages;

        if (pid == 0)
                return 0;
        (void)snprintf(path, sizeof(path), "/proc/%d/statm", pid);
        if (io_read_file(AT_FDCWD, path, text, sizeof(text), NULL) ||
            sscanf(text, "%*u %" SCNu64, &pages) != 1) /* NOLINT(cert-err34-c): the kernel's */
                return 0;
        return pages * (uint64_t)sysconf(_SC_PAGESIZE);
}

void metering_add_resident(pid_t pid, struct metered *metered)
{
        if (!(metered->missing & MISSING(RSS_PEAK)))
                metered->programs.rss_peak_bytes =
                        MAX(metered->programs.rss_peak_bytes, read_resident(pid));
}

void metering_begin_peak(struct leaf_meter *meter, pid_t pid)
{
        struct metering *metering = meter->sandbox->metering;
        struct meter_reading reading;

        (void)cgroup_reset_peak(meter->leaf);
        if (meter->slot == METER_NO_SLOT)
                return;
        /* The sandbox's peak goes on. */
        meter_read(metering->meter, meter->slot, &reading);
        meter->sandbox->ended.rss_peak_bytes =
                MAX(meter->sandbox->ended.rss_peak_bytes, reading.rss_peak_bytes);
        meter_begin_epoch(metering->meter, meter->slot, read_resident(pid));
}

/* --- ends ------------------------------------------------------------------------------------- */

int metering_end_leaf(struct leaf_meter *meter, struct metered *ret_metered)
{
        struct sandbox_meter *sandbox = meter->sandbox;
        int r;

        if (!sandbox)
                return 0;
        r = metering_read_leaf(meter, ret_metered);
        if (meter->slot != METER_NO_SLOT) {
                add_reading(&sandbox->ended, &ret_metered->programs);
                if (!r) {
                        sandbox->metering->ended_scheduled_nsec += ret_metered->programs.cpu_nsec;
                        sandbox->metering->ended_cpu_usec += ret_metered->files.cpu_usec;
                }
                meter_release_slot(sandbox->metering->meter, meter->slot);
        } else {
                end_blind(sandbox);
        }
        LIST_REMOVE(meter, link);
        meter->sandbox = NULL;
        metering_expect_change(sandbox);
        return r;
}

void metering_expect_change(struct sandbox_meter *meter)
{
        meter->has_changed = true;
}

int metering_end_sandbox(struct sandbox_meter *meter, struct metered *ret_metered)
{
        struct metering *metering = meter->metering;
        int r;

        if (!metering)
                return 0;
        assert(LIST_EMPTY(&meter->leaves));
        r = metering_read_sandbox(meter, ret_metered);
        TAILQ_REMOVE(&metering->sandboxes, meter, link);
        meter->metering = NULL;
        return r;
}

/* --- messages --------------------------------------------------------------------------------- */

static size_t fill_missing(unsigned missing, Hotcell__Runtime__V1__MeterPart *parts)
{
        size_t n = 0;

        for (unsigned part = 1; part < METERING_PARTS_MAX; part++)
                if (missing & BIT(part))
                        parts[n++] = (Hotcell__Runtime__V1__MeterPart)part;
        return n;
}

void metering_fill(const struct metered *metered, struct usage_message *ret_message)
{
        const struct meter_reading *programs = &metered->programs;
        Hotcell__Runtime__V1__Usage *usage = &ret_message->usage;

        hotcell__runtime__v1__usage__init(usage);
        usage->cpu_usec = metered->files.cpu_usec;
        usage->cpu_user_usec = metered->files.cpu_user_usec;
        usage->cpu_system_usec = metered->files.cpu_system_usec;
        usage->memory_bytes = metered->files.memory_bytes;
        usage->memory_peak_bytes = metered->files.memory_peak_bytes;
        usage->memory_byte_seconds = metered->memory_byte_seconds;
        usage->wall_usec = metered->wall_usec;
        usage->oom_kills = metered->files.oom_kills;
        usage->n_throttled = metered->throttling.n_throttled;
        usage->throttled_usec = metered->throttling.usec;
        usage->scheduled_usec = programs->cpu_nsec / 1000;
        usage->wait_usec = programs->wait_nsec / 1000;
        usage->n_switches = programs->n_switches;
        usage->earlier_usec = programs->earlier_nsec / 1000;
        usage->rss_peak_bytes = programs->rss_peak_bytes;
        usage->missing = ret_message->missing;
        usage->n_missing = fill_missing(metered->missing, ret_message->missing);
}

void metering_fill_state(const struct metering *metering, struct meter_state_message *ret_message)
{
        Hotcell__Runtime__V1__MeterState *state = &ret_message->state;
        struct meter_slots slots = { 0 };

        hotcell__runtime__v1__meter_state__init(state);
        if (metering->meter)
                slots = meter_count_slots(metering->meter);
        state->programs = metering->meter != NULL;
        state->detail = unconst(metering->detail);
        state->missing = ret_message->missing;
        state->n_missing = fill_missing(metering->missing, ret_message->missing);
        state->slots = slots.n;
        state->slots_used = slots.n_used;
        state->slots_refused = slots.n_refused;
        state->scheduled_usec = metering->ended_scheduled_nsec / 1000;
        state->cpu_usec = metering->ended_cpu_usec;
}
