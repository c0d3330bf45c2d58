/* What is kept of leaves that are over, and what is told of all of them. */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/meters/metering.h"
#include "test/lib/suite.h"

#define PART(name) HOTCELL__RUNTIME__V1__METER_PART__METER_PART_##name

enum { N_SLOTS = 2, MANY = 200, DICE = 150 };

/* --- the programs and the files of groups --- */

static struct {
        struct meter_reading readings[N_SLOTS + 1]; /* by slot */
        struct meter_slots slots;
        bool is_taken[N_SLOTS + 1];
        struct cgroup_usage usage; /* of each group */
        int usage_result;
        unsigned n_looks; /* at files of memory */
        uint64_t epoch_bytes;
        unsigned n_epochs;
        bool is_refused; /* meter_new */
} kernel;

struct meter {
        int unused;
};

static struct meter programs;

int __wrap_meter_new(const struct meter_config *config, struct meter **ret_meter,
                     char ret_why[static METER_WHY_BUFFER]);
struct meter *__wrap_meter_free(struct meter *meter);
bool __wrap_meter_has(const struct meter *meter, enum meter_program program);
bool __wrap_meter_knows_wait(void);
int __wrap_meter_take_slot(struct meter *meter, uint64_t leaf_id, uint32_t *ret_slot);
void __wrap_meter_release_slot(struct meter *meter, uint32_t slot);
void __wrap_meter_read(struct meter *meter, uint32_t slot, struct meter_reading *ret_reading);
void __wrap_meter_look(struct meter *meter);
bool __wrap_meter_has_run(struct meter *meter, uint32_t slot);
void __wrap_meter_count_runs(struct meter *meter, uint32_t slot, size_t *n_runs);
void __wrap_meter_begin_epoch(struct meter *meter, uint32_t slot, uint64_t rss_bytes);
struct meter_slots __wrap_meter_count_slots(const struct meter *meter);
uint64_t __wrap_meter_count_forgotten(const struct meter *meter);
int __wrap_cgroup_read_usage(struct cgroup *group, struct cgroup_usage *ret_usage);
int __wrap_cgroup_read_memory(struct cgroup *group, uint64_t *ret_bytes);
int __wrap_cgroup_read_throttling(const struct cgroup *sandbox,
                                  struct cgroup_throttling *ret_throttling);
int __wrap_cgroup_reset_peak(struct cgroup *group);
ssize_t __wrap_getrandom(void *buffer, size_t n, unsigned flags);
uint64_t __wrap_memory_time_gap_usec(uint64_t mean_usec, uint64_t random);

int __wrap_meter_new(const struct meter_config *config, struct meter **ret_meter,
                     char ret_why[static METER_WHY_BUFFER])
{
        ck_assert_uint_eq(config->n_slots, N_SLOTS);
        if (kernel.is_refused) {
                (void)snprintf(ret_why, METER_WHY_BUFFER, "refused");
                return -EPERM;
        }
        *ret_meter = &programs;
        return 0;
}

struct meter *__wrap_meter_free(struct meter *meter)
{
        (void)meter;
        return NULL;
}

bool __wrap_meter_has(const struct meter *meter, enum meter_program program)
{
        (void)meter;
        (void)program;
        return true;
}

bool __wrap_meter_knows_wait(void)
{
        return true;
}

int __wrap_meter_take_slot(struct meter *meter, uint64_t leaf_id, uint32_t *ret_slot)
{
        (void)meter;
        (void)leaf_id;
        for (uint32_t slot = 1; slot <= N_SLOTS; slot++)
                if (!kernel.is_taken[slot]) {
                        kernel.is_taken[slot] = true;
                        *ret_slot = slot;
                        return 0;
                }
        return METER_E_FULL;
}

void __wrap_meter_release_slot(struct meter *meter, uint32_t slot)
{
        (void)meter;
        ck_assert(kernel.is_taken[slot]);
        kernel.is_taken[slot] = false;
}

void __wrap_meter_read(struct meter *meter, uint32_t slot, struct meter_reading *ret_reading)
{
        (void)meter;
        ck_assert(kernel.is_taken[slot]);
        *ret_reading = kernel.readings[slot];
}

void __wrap_meter_look(struct meter *meter)
{
        (void)meter;
}

bool __wrap_meter_has_run(struct meter *meter, uint32_t slot)
{
        (void)meter;
        (void)slot;
        return false;
}

void __wrap_meter_count_runs(struct meter *meter, uint32_t slot, size_t *n_runs)
{
        (void)meter;
        (void)slot;
        (void)n_runs;
}

void __wrap_meter_begin_epoch(struct meter *meter, uint32_t slot, uint64_t rss_bytes)
{
        (void)meter;
        kernel.n_epochs++;
        kernel.epoch_bytes = rss_bytes;
        kernel.readings[slot].rss_peak_bytes = rss_bytes;
}

struct meter_slots __wrap_meter_count_slots(const struct meter *meter)
{
        (void)meter;
        return kernel.slots;
}

uint64_t __wrap_meter_count_forgotten(const struct meter *meter)
{
        (void)meter;
        return 0;
}

int __wrap_cgroup_read_usage(struct cgroup *group, struct cgroup_usage *ret_usage)
{
        (void)group;
        *ret_usage = kernel.usage;
        return kernel.usage_result;
}

int __wrap_cgroup_read_memory(struct cgroup *group, uint64_t *ret_bytes)
{
        (void)group;
        kernel.n_looks++;
        *ret_bytes = MIB(1);
        return 0;
}

int __wrap_cgroup_read_throttling(const struct cgroup *sandbox,
                                  struct cgroup_throttling *ret_throttling)
{
        (void)sandbox;
        *ret_throttling = (struct cgroup_throttling){ 0 };
        return 0;
}

int __wrap_cgroup_reset_peak(struct cgroup *group)
{
        (void)group;
        return 0;
}

ssize_t __wrap_getrandom(void *buffer, size_t n, unsigned flags)
{
        (void)flags;
        for (size_t i = 0; i < n / sizeof(uint64_t); i++)
                ((uint64_t *)buffer)[i] = DICE;
        return (ssize_t)n;
}

uint64_t __wrap_memory_time_gap_usec(uint64_t mean_usec, uint64_t random)
{
        (void)mean_usec;
        (void)random;
        return 1;
}

/* --- steps --- */

static sd_event *event;
static struct cgroup_tree tree;
static struct metering *metering;
static struct cgroup group;
static struct sandbox_meter sandbox;
static struct leaf_meter leaves[MANY];
static struct metered metered;

static void begin_metering(bool is_refused)
{
        const struct metering_config config = { .cgroups = &tree,
                                                .n_slots = N_SLOTS,
                                                .has_programs = true };

        memset(&kernel, 0, sizeof(kernel));
        kernel.is_refused = is_refused;
        ck_assert_int_ge(sd_event_new(&event), 0);
        ck_assert_int_eq(metering_new(event, &config, &metering), 0);
        metering_begin_sandbox(metering, &sandbox, &group);
}

static void set_up(void)
{
        begin_metering(false);
}

static void tear_down(void)
{
        ck_assert_int_eq(metering_end_sandbox(&sandbox, &metered), 0);
        metering = metering_free(metering);
        event = sd_event_unref(event);
}

static void begin_leaf(size_t i)
{
        metering_begin_leaf(&sandbox, &leaves[i], &group);
}

static void end_leaf(size_t i)
{
        ck_assert_int_eq(metering_end_leaf(&leaves[i], &metered), kernel.usage_result);
}

static void take_turns(unsigned n)
{
        while (n-- > 0)
                ck_assert_int_gt(sd_event_run(event, UINT64_MAX), 0);
}

static Hotcell__Runtime__V1__MeterState told_state(void)
{
        static struct meter_state_message message;

        metering_fill_state(metering, &message);
        return message.state;
}

/* --- tests --- */

START_TEST(a_leaf_that_is_over_stays_in_its_sandbox)
{
        begin_leaf(0);
        begin_leaf(1);
        kernel.readings[1] = (struct meter_reading){ .cpu_nsec = 1000,
                                                     .wait_nsec = 2000,
                                                     .n_switches = 3,
                                                     .earlier_nsec = 4000,
                                                     .rss_peak_bytes = MIB(50) };
        kernel.readings[2] = (struct meter_reading){ .cpu_nsec = 10000,
                                                     .wait_nsec = 20000,
                                                     .n_switches = 30,
                                                     .earlier_nsec = 40000,
                                                     .rss_peak_bytes = MIB(20) };
        for (int is_over = 0; is_over < 2; is_over++) {
                if (is_over)
                        end_leaf(0);
                ck_assert_int_eq(metering_read_sandbox(&sandbox, &metered), 0);
                ck_assert_uint_eq(metered.programs.cpu_nsec, 11000);
                ck_assert_uint_eq(metered.programs.wait_nsec, 22000);
                ck_assert_uint_eq(metered.programs.n_switches, 33);
                ck_assert_uint_eq(metered.programs.earlier_nsec, 44000);
                ck_assert_uint_eq(metered.programs.rss_peak_bytes, MIB(50));
        }
        end_leaf(1);
        ck_assert_uint_eq(metered.programs.rss_peak_bytes, MIB(20));
}
END_TEST

START_TEST(a_peak_that_began_anew_stays_the_sandboxs)
{
        begin_leaf(0);
        kernel.readings[1].rss_peak_bytes = MIB(50);
        metering_begin_peak(&leaves[0], 0);
        ck_assert_uint_eq(kernel.n_epochs, 1);
        ck_assert_uint_eq(kernel.epoch_bytes, 0);
        ck_assert_int_eq(metering_read_leaf(&leaves[0], &metered), 0);
        ck_assert_uint_eq(metered.programs.rss_peak_bytes, 0);
        ck_assert_int_eq(metering_read_sandbox(&sandbox, &metered), 0);
        ck_assert_uint_eq(metered.programs.rss_peak_bytes, MIB(50));
        metering_begin_peak(&leaves[0], getpid());
        ck_assert_uint_gt(kernel.epoch_bytes, 0);
        end_leaf(0);
}
END_TEST

START_TEST(what_is_resident_is_part_of_the_peak_where_that_is_known)
{
        begin_leaf(0);
        begin_leaf(1);
        begin_leaf(2); /* without a slot */
        for (size_t i = 0; i < 3; i++) {
                ck_assert_int_eq(metering_read_leaf(&leaves[i], &metered), 0);
                metering_add_resident(0, &metered);
                ck_assert_uint_eq(metered.programs.rss_peak_bytes, 0);
                metering_add_resident(getpid(), &metered);
                ck_assert((metered.programs.rss_peak_bytes > 0) == (i < 2));
        }
        metered = (struct metered){ .missing = BIT(PART(RSS_PEAK)) };
        metering_add_resident(getpid(), &metered);
        ck_assert_uint_eq(metered.programs.rss_peak_bytes, 0);
        metered = (struct metered){ .programs.rss_peak_bytes = UINT64_MAX };
        metering_add_resident(getpid(), &metered);
        ck_assert_uint_eq(metered.programs.rss_peak_bytes, UINT64_MAX);
        for (size_t i = 0; i < 3; i++)
                end_leaf(i);
}
END_TEST

/* By their files some are looked at in each turn, by chance where they are too many. */
START_TEST(leaves_without_a_slot_that_are_over_take_nobodys_turn)
{
        unsigned n_looks;

        for (size_t i = 0; i < MANY; i++)
                begin_leaf(i);
        take_turns(3);
        ck_assert_uint_eq(kernel.n_looks, 0); /* so the dice fell */
        for (size_t i = 0; i < MANY - 1; i++)
                end_leaf(i);
        take_turns(3);
        ck_assert_uint_eq(kernel.n_looks, 6); /* its own, and the sandbox's */
        end_leaf(MANY - 1);
        take_turns(1); /* what the sandbox holds without it */
        n_looks = kernel.n_looks;
        take_turns(3);
        ck_assert_uint_eq(kernel.n_looks, n_looks);
        /* As many as the dice show, with their sandbox: one more, and none would be looked at. */
        for (size_t i = 0; i < N_SLOTS + DICE - 1; i++)
                begin_leaf(i);
        take_turns(1);
        ck_assert_uint_ge(kernel.n_looks, n_looks + DICE);
        for (size_t i = 0; i < N_SLOTS + DICE - 1; i++)
                end_leaf(i);
}
END_TEST

START_TEST(the_state_has_what_leaves_with_a_slot_used)
{
        Hotcell__Runtime__V1__MeterState state;

        kernel.slots = (struct meter_slots){ .n = 7, .n_used = 5, .n_refused = 3 };
        kernel.usage.cpu_usec = 900;
        for (size_t i = 0; i < 3; i++)
                begin_leaf(i);
        kernel.readings[1].cpu_nsec = 880000;
        kernel.readings[2].cpu_nsec = 10000;
        ck_assert_uint_eq(told_state().scheduled_usec, 0); /* they are not over */
        end_leaf(0);
        end_leaf(2);
        begin_leaf(3); /* in the slot of the first */
        end_leaf(3);
        state = told_state();
        ck_assert_uint_eq(state.scheduled_usec, 1760);
        ck_assert_uint_eq(state.cpu_usec, 1800);
        /* What is not read on both sides is on none. */
        kernel.usage_result = -EIO;
        end_leaf(1);
        kernel.usage_result = 0;
        state = told_state();
        ck_assert_uint_eq(state.scheduled_usec, 1760);
        ck_assert_uint_eq(state.cpu_usec, 1800);
        ck_assert(state.programs);
        ck_assert_uint_eq(state.slots, 7);
        ck_assert_uint_eq(state.slots_used, 5);
        ck_assert_uint_eq(state.slots_refused, 3);
        ck_assert_str_eq(state.detail, "");
}
END_TEST

START_TEST(without_programs_the_state_says_why)
{
        Hotcell__Runtime__V1__MeterState state;
        bool has_scheduled = false, has_peak = false;

        tear_down();
        begin_metering(true);
        state = told_state();
        ck_assert(!state.programs);
        ck_assert_str_eq(state.detail, "refused");
        ck_assert_uint_eq(state.slots, 0);
        for (size_t i = 0; i < state.n_missing; i++) {
                has_scheduled |= state.missing[i] == PART(SCHEDULED);
                has_peak |= state.missing[i] == PART(RSS_PEAK);
        }
        ck_assert(has_scheduled && has_peak);
}
END_TEST

START_TEST(what_is_not_measured_any_more_ends_once)
{
        begin_leaf(0);
        kernel.readings[1].cpu_nsec = 5000;
        end_leaf(0);
        end_leaf(0);
        ck_assert_int_eq(metering_read_sandbox(&sandbox, &metered), 0);
        ck_assert_uint_eq(metered.programs.cpu_nsec, 5000);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("metering");
        TCase *tests = tcase_create("metering");

        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_set_timeout(tests, 60);
        tcase_add_test(tests, a_leaf_that_is_over_stays_in_its_sandbox);
        tcase_add_test(tests, a_peak_that_began_anew_stays_the_sandboxs);
        tcase_add_test(tests, what_is_resident_is_part_of_the_peak_where_that_is_known);
        tcase_add_test(tests, leaves_without_a_slot_that_are_over_take_nobodys_turn);
        tcase_add_test(tests, the_state_has_what_leaves_with_a_slot_used);
        tcase_add_test(tests, without_programs_the_state_says_why);
        tcase_add_test(tests, what_is_not_measured_any_more_ends_once);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
