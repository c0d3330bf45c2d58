/* Groups of one's own, meters for their leaves, and programs that are born in those. */
#pragma once

#include <check.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "bpf/meter.h"
#include "runtime/cgroup/group.h"
#include "runtime/cgroup/tree.h"
#include "test/lib/janitor.h"

enum {
        METER_LEAVES = 2,
        METER_SLOTS = 16, /* more than there are leaves */
        METER_THREADS = 4096,
        METER_CHILDREN = 1000,
};

struct meter_world {
        struct cgroup_tree tree;
        struct janitor janitor; /* removes the tree after a test that failed */
        struct meter *meter;
        struct cgroup sandbox;
        struct cgroup leaves[METER_LEAVES];
        uint32_t slots[METER_LEAVES]; /* of the meter: METER_NO_SLOT when there was none left */
};

/* With so many slots, of which the leaves take the first. */
void meter_world_init(struct meter_world *w, uint32_t n_slots, uint32_t n_threads);
void meter_world_deinit(struct meter_world *w);

/* What is done in a leaf, by a process that was born there. What it returns is its exit code. */
typedef int leaf_body(const void *data);

pid_t leaf_start(const struct cgroup *leaf, leaf_body *body, const void *data);
/* The status, as wait(2) has it. */
int leaf_wait(pid_t pid);
/* Both; it must return zero. */
void leaf_run(const struct cgroup *leaf, leaf_body *body, const void *data);

/* In any process: keeps a CPU busy until the calling thread has used so much of one. */
void spin(uint64_t cpu_nsec);

int stay_on(int cpu);

/* Bodies: the first two spin for a uint64_t of nanoseconds, the last one has METER_CHILDREN, one
 * after another. */
int spin_alone(const void *data);
int spin_on_first_cpu(const void *data);
int fork_children(const void *data);

/* Pipes by which a body and the test wait for each other. */
struct talk {
        int to_child[2];
        int to_parent[2];
};

void make_talk(struct talk *talk);
void close_talk(const struct talk *talk);
void tell(int fd);
void hear(int fd);

struct meter_reading world_read(const struct meter_world *w, size_t leaf);

/* Of cpu.stat. */
uint64_t world_file_nsec(struct meter_world *w, size_t leaf);

/* Whether they differ by no more than a hundredth of both, or 2 ms. */
void check_same_time(uint64_t ours_nsec, uint64_t theirs_nsec);

/* @set_up may be NULL. */
TCase *meter_case(const char *name, void (*set_up)(void), void (*tear_down)(void));
