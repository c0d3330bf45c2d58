#include "bpf/meter.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual" /* in what bpftool writes */
#include "bpf/meter.skel.h"
#pragma GCC diagnostic pop

/* What is kept of a slot beside the table. */
struct keeper {
        uint32_t next_free;
        uint64_t cpu_nsec; /* as read last */
        uint64_t earlier_nsec;
        uint64_t n_switches; /* at the last look */
        size_t *n_runs;      /* of whoever counts them; or NULL */
        bool has_run;        /* and it was not asked for since */
};

struct meter {
        struct meter_bpf *skeleton;
        unsigned programs; /* BIT()s of those that are attached */
        uint32_t n_cpus;
        uint32_t n_slots; /* METER_NO_SLOT included */
        uint32_t n_threads;
        struct meter_slot *slots;
        struct meter_running *running;
        struct keeper *keepers;
        uint32_t first_free; /* METER_NO_SLOT: there is none */
        uint32_t last_free;
        uint32_t n_begun; /* slots from here on were never taken */
        uint64_t n_used;
        uint64_t n_refused;
        uint64_t page_bytes;
};

static const char *const program_names[] = {
        [METER_SWITCH] = "meter_switch",
        [METER_RSS] = "meter_rss",
        [METER_EXIT] = "meter_exit",
};
static_assert(ARRAY_SIZE(program_names) == _METER_PROGRAM_N, "every program has a row");

static int keep_quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
        (void)level;
        (void)format;
        (void)arguments;
        return 0;
}

/* --- loading ---------------------------------------------------------------------------------- */

static struct bpf_program *find_program(const struct meter_bpf *skeleton,
                                        enum meter_program program)
{
        return bpf_object__find_program_by_name(skeleton->obj, program_names[program]);
}

static int prepare(struct meter_bpf *skeleton, const struct meter *meter, unsigned programs)
{
        int r = bpf_map__set_max_entries(skeleton->maps.leaves, meter->n_slots);

        if (!r)
                r = bpf_map__set_max_entries(skeleton->maps.meters, meter->n_slots);
        if (!r)
                r = bpf_map__set_max_entries(skeleton->maps.running, meter->n_cpus);
        if (!r)
                r = bpf_map__set_max_entries(skeleton->maps.threads, meter->n_threads);
        for (unsigned i = 0; i < _METER_PROGRAM_N && !r; i++)
                r = bpf_program__set_autoload(find_program(skeleton, i), programs & BIT(i));
        skeleton->rodata->n_cpus = meter->n_cpus;
        skeleton->rodata->sees_memory = (programs & BIT(METER_RSS)) != 0;
        return r;
}

static int attach(struct meter_bpf *skeleton, unsigned programs)
{
        int r = 0;

        if (programs & BIT(METER_SWITCH))
                skeleton->links.meter_switch = bpf_program__attach(skeleton->progs.meter_switch);
        if (programs & BIT(METER_SWITCH) && !skeleton->links.meter_switch)
                r = -errno;
        if (!r && programs & BIT(METER_RSS))
                skeleton->links.meter_rss = bpf_program__attach(skeleton->progs.meter_rss);
        if (!r && programs & BIT(METER_RSS) && !skeleton->links.meter_rss)
                r = -errno;
        if (!r && programs & BIT(METER_EXIT))
                skeleton->links.meter_exit = bpf_program__attach(skeleton->progs.meter_exit);
        if (!r && programs & BIT(METER_EXIT) && !skeleton->links.meter_exit)
                r = -errno;
        return r;
}

/* All of @programs, or none. */
static int load(const struct meter *meter, unsigned programs, struct meter_bpf **ret_skeleton)
{
        struct meter_bpf *skeleton = meter_bpf__open();
        int r;

        if (!skeleton)
                return -errno;
        r = prepare(skeleton, meter, programs);
        if (!r)
                r = meter_bpf__load(skeleton);
        if (!r)
                r = attach(skeleton, programs);
        if (r)
                meter_bpf__destroy(skeleton);
        else
                *ret_skeleton = skeleton;
        return r;
}

static void note_refused(enum meter_program program, int r, char ret_why[static METER_WHY_BUFFER])
{
        size_t n = strlen(ret_why);

        (void)snprintf(ret_why + n, METER_WHY_BUFFER - n, "%s%s: %s", n ? "; " : "",
                       program_names[program], strerrordesc_np(-r));
}

/* Which of them the kernel takes, each tried by itself. */
static unsigned try_each(const struct meter *meter, unsigned programs,
                         char ret_why[static METER_WHY_BUFFER])
{
        unsigned taken = 0;

        for (unsigned i = 0; i < _METER_PROGRAM_N; i++) {
                struct meter_bpf *skeleton = NULL;
                int r = programs & BIT(i) ? load(meter, BIT(i), &skeleton) : -ECANCELED;

                if (r)
                        note_refused(i, r, ret_why);
                else
                        taken |= BIT(i);
                meter_bpf__destroy(skeleton);
        }
        return taken;
}

static int load_what_can_be(struct meter *meter, unsigned programs,
                            char ret_why[static METER_WHY_BUFFER])
{
        int r = programs == BIT(_METER_PROGRAM_N) - 1 ? load(meter, programs, &meter->skeleton)
                                                      : -ECANCELED;

        if (r) {
                programs = try_each(meter, programs, ret_why);
                if (!(programs & BIT(METER_SWITCH)))
                        return r;
                r = load(meter, programs, &meter->skeleton);
        }
        if (!r)
                meter->programs = programs;
        return r;
}

/* --- tables ----------------------------------------------------------------------------------- */

static size_t round_up(const struct meter *meter, size_t n_bytes)
{
        return (n_bytes + meter->page_bytes - 1) / meter->page_bytes * meter->page_bytes;
}

static size_t slots_bytes(const struct meter *meter)
{
        return round_up(meter, meter->n_slots * sizeof(*meter->slots));
}

static size_t running_bytes(const struct meter *meter)
{
        return round_up(meter, meter->n_cpus * sizeof(*meter->running));
}

/* NULL: errno says why. */
static void *map_table(const struct bpf_map *map, size_t n_bytes, int protection)
{
        void *table = mmap(NULL, n_bytes, protection, MAP_SHARED, bpf_map__fd(map), 0);

        return table == MAP_FAILED ? NULL : table;
}

static int map_tables(struct meter *meter)
{
        assert(meter->skeleton);
        meter->slots =
                map_table(meter->skeleton->maps.meters, slots_bytes(meter), PROT_READ | PROT_WRITE);
        if (!meter->slots)
                return -errno;
        meter->running = map_table(meter->skeleton->maps.running, running_bytes(meter), PROT_READ);
        return meter->running ? 0 : -errno;
}

static void add_free(struct meter *meter, uint32_t slot)
{
        meter->keepers[slot].next_free = METER_NO_SLOT;
        if (meter->first_free == METER_NO_SLOT)
                meter->first_free = slot;
        else
                meter->keepers[meter->last_free].next_free = slot;
        meter->last_free = slot;
}

static int make_keepers(struct meter *meter)
{
        meter->keepers = calloc(meter->n_slots, sizeof(*meter->keepers));
        if (!meter->keepers)
                return -ENOMEM;
        for (uint32_t slot = METER_NO_SLOT + 1; slot < meter->n_slots; slot++)
                add_free(meter, slot);
        return 0;
}

static int set_up(struct meter *meter, const struct meter_config *config,
                  char ret_why[static METER_WHY_BUFFER])
{
        int n_cpus = libbpf_num_possible_cpus();
        int r;

        if (n_cpus < 0)
                return n_cpus;
        meter->n_cpus = (uint32_t)n_cpus;
        meter->n_slots = config->n_slots + 1;
        meter->n_threads = config->n_threads;
        meter->page_bytes = (uint64_t)sysconf(_SC_PAGESIZE);
        r = load_what_can_be(meter, ~config->without & (BIT(_METER_PROGRAM_N) - 1), ret_why);
        if (!r)
                r = map_tables(meter);
        return r ? r : make_keepers(meter);
}

int meter_new(const struct meter_config *config, struct meter **ret_meter,
              char ret_why[static METER_WHY_BUFFER])
{
        struct meter *meter = calloc(1, sizeof(*meter));
        int r;

        if (!meter)
                return error_origin(-ENOMEM);
        assert(config->n_slots > 0 && config->n_slots <= METER_SLOTS_MAX);
        assert(config->n_threads > 0);
        ret_why[0] = '\0';
        (void)libbpf_set_print(keep_quiet);
        r = set_up(meter, config, ret_why);
        if (r) {
                if (!ret_why[0])
                        (void)snprintf(ret_why, METER_WHY_BUFFER, "%s", strerrordesc_np(-r));
                (void)meter_free(meter);
                return error_origin(r);
        }
        *ret_meter = meter;
        return 0;
}

struct meter *meter_free(struct meter *meter)
{
        if (!meter)
                return NULL;
        if (meter->running)
                (void)munmap(meter->running, running_bytes(meter));
        if (meter->slots)
                (void)munmap(meter->slots, slots_bytes(meter));
        meter_bpf__destroy(meter->skeleton);
        free(meter->keepers);
        free(meter);
        return NULL;
}

bool meter_has(const struct meter *meter, enum meter_program program)
{
        return meter->programs & BIT(program);
}

bool meter_knows_wait(void)
{
        return access("/proc/self/schedstat", F_OK) == 0;
}

/* --- slots ------------------------------------------------------------------------------------ */

/* A thread that came before its slot was released still has it. */
static bool is_on_cpu(const struct meter *meter, uint32_t slot)
{
        for (uint32_t i = 0; i < meter->n_cpus; i++)
                if (__atomic_load_n(&meter->running[i].slot, __ATOMIC_ACQUIRE) == slot)
                        return true;
        return false;
}

/* The one that is free for the longest time, but none that is still written to. */
static uint32_t take_free(struct meter *meter)
{
        for (uint32_t i = 0; i <= meter->n_cpus && meter->first_free != METER_NO_SLOT; i++) {
                uint32_t slot = meter->first_free;

                meter->first_free = meter->keepers[slot].next_free;
                if (!is_on_cpu(meter, slot))
                        return slot;
                add_free(meter, slot);
        }
        return METER_NO_SLOT;
}

int meter_take_slot(struct meter *meter, uint64_t leaf_id, uint32_t *ret_slot)
{
        uint32_t slot = take_free(meter);
        int r;

        if (slot == METER_NO_SLOT) {
                meter->n_refused++;
                return METER_E_FULL;
        }
        meter->slots[slot] = (struct meter_slot){ .leaf_id = leaf_id };
        meter->keepers[slot] = (struct keeper){ 0 };
        r = bpf_map_update_elem(bpf_map__fd(meter->skeleton->maps.leaves), &leaf_id, &slot,
                                BPF_ANY);
        if (r) {
                add_free(meter, slot);
                meter->n_refused++;
                return error_origin(r);
        }
        meter->n_used++;
        meter->n_begun = MAX(meter->n_begun, slot + 1);
        *ret_slot = slot;
        return 0;
}

void meter_release_slot(struct meter *meter, uint32_t slot)
{
        uint64_t leaf_id;

        if (slot == METER_NO_SLOT)
                return;
        leaf_id = meter->slots[slot].leaf_id;
        (void)bpf_map_delete_elem(bpf_map__fd(meter->skeleton->maps.leaves), &leaf_id);
        __atomic_store_n(&meter->slots[slot].leaf_id, 0, __ATOMIC_RELEASE);
        meter->keepers[slot].n_runs = NULL;
        add_free(meter, slot);
        meter->n_used--;
}

struct meter_slots meter_count_slots(const struct meter *meter)
{
        return (struct meter_slots){ .n = meter->n_slots - 1,
                                     .n_used = meter->n_used,
                                     .n_refused = meter->n_refused };
}

uint64_t meter_count_forgotten(const struct meter *meter)
{
        return __atomic_load_n(&meter->skeleton->bss->n_forgotten, __ATOMIC_RELAXED);
}

/* --- reading ---------------------------------------------------------------------------------- */

/* What a CPU has done for the slot in the stint at hand. */
static void add_stint(const struct meter_running *running, const struct meter_slot *slot,
                      uint64_t now_nsec, struct meter_reading *reading)
{
        uint64_t since_nsec = __atomic_load_n(&running->since_nsec, __ATOMIC_ACQUIRE);

        reading->is_running = true;
        if (since_nsec == 0 || since_nsec >= now_nsec)
                return;
        reading->cpu_nsec += now_nsec - since_nsec;
        if (running->born_nsec < slot->epoch_nsec)
                reading->earlier_nsec += now_nsec - MAX(since_nsec, slot->epoch_nsec);
}

static void read_victim(const struct meter *meter, const struct meter_slot *slot,
                        struct meter_victim *ret_victim)
{
        ret_victim->pid = slot->victim_pid;
        ret_victim->rss_bytes = slot->victim_pages * meter->page_bytes;
        (void)memcpy(ret_victim->command, slot->victim_command, METER_COMMAND_BYTES);
        ret_victim->command[METER_COMMAND_BYTES - 1] = '\0';
}

void meter_read(struct meter *meter, uint32_t number, struct meter_reading *ret_reading)
{
        const struct meter_slot *slot = &meter->slots[number];
        struct keeper *keeper = &meter->keepers[number];
        struct meter_reading reading = { 0 };
        uint64_t now_nsec;

        assert(number != METER_NO_SLOT && number < meter->n_slots);
        /* In this order nothing is counted twice; what is missed comes with the next reading. */
        reading.earlier_nsec = __atomic_load_n(&slot->earlier_nsec, __ATOMIC_ACQUIRE);
        reading.cpu_nsec = __atomic_load_n(&slot->cpu_nsec, __ATOMIC_ACQUIRE);
        reading.wait_nsec = __atomic_load_n(&slot->wait_nsec, __ATOMIC_ACQUIRE);
        reading.n_switches = __atomic_load_n(&slot->n_switches, __ATOMIC_ACQUIRE);
        now_nsec = clock_monotonic_nsec();
        for (uint32_t i = 0; i < meter->n_cpus; i++)
                if (__atomic_load_n(&meter->running[i].slot, __ATOMIC_ACQUIRE) == number)
                        add_stint(&meter->running[i], slot, now_nsec, &reading);
        /* A stint is read by a clock, and counted by the scheduler, who leaves out what the host
         * took away. */
        keeper->cpu_nsec = reading.cpu_nsec = MAX(reading.cpu_nsec, keeper->cpu_nsec);
        keeper->earlier_nsec = reading.earlier_nsec =
                MAX(reading.earlier_nsec, keeper->earlier_nsec);
        reading.rss_peak_bytes = slot->rss_peak_pages * meter->page_bytes;
        read_victim(meter, slot, &reading.victim);
        *ret_reading = reading;
}

static void note_run(struct keeper *keeper)
{
        if (!keeper->has_run && keeper->n_runs)
                (*keeper->n_runs)++;
        keeper->has_run = true;
}

void meter_look(struct meter *meter)
{
        for (uint32_t i = 1; i < meter->n_begun; i++) {
                struct keeper *keeper = &meter->keepers[i];
                uint64_t n = __atomic_load_n(&meter->slots[i].n_switches, __ATOMIC_ACQUIRE);

                if (n != keeper->n_switches)
                        note_run(keeper);
                keeper->n_switches = n;
        }
        for (uint32_t i = 0; i < meter->n_cpus; i++) {
                uint32_t slot = __atomic_load_n(&meter->running[i].slot, __ATOMIC_ACQUIRE);

                if (slot != METER_NO_SLOT && slot < meter->n_slots)
                        note_run(&meter->keepers[slot]);
        }
}

bool meter_has_run(struct meter *meter, uint32_t number)
{
        struct keeper *keeper = &meter->keepers[number];
        bool has_run = keeper->has_run;

        assert(number != METER_NO_SLOT && number < meter->n_slots);
        keeper->has_run = false;
        return has_run;
}

void meter_count_runs(struct meter *meter, uint32_t number, size_t *n_runs)
{
        assert(number != METER_NO_SLOT && number < meter->n_slots);
        meter->keepers[number].n_runs = n_runs;
}

void meter_begin_epoch(struct meter *meter, uint32_t number, uint64_t rss_bytes)
{
        struct meter_slot *slot = &meter->slots[number];
        uint64_t pages = rss_bytes / meter->page_bytes;

        assert(number != METER_NO_SLOT && number < meter->n_slots);
        __atomic_store_n(&slot->epoch_nsec, clock_monotonic_nsec(), __ATOMIC_RELEASE);
        __atomic_store_n(&slot->rss_peak_pages, pages, __ATOMIC_RELEASE);
        __atomic_store_n(&slot->rss_seen_pages, pages, __ATOMIC_RELEASE);
}
