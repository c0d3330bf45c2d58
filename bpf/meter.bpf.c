/*
 * Meters of leaves: what the kernel counts for threads, added up for each leaf at the moment at
 * which a thread leaves a CPU. Time is taken from the scheduler's own account of the thread
 * (se.sum_exec_runtime), as cpu.stat is: a clock would count what the host took away, too.
 *
 * All programs but the first do something only for a thread that the first one saw coming.
 */
#include <linux/bpf.h>
#include <stdbool.h>

#include <bpf/bpf_core_read.h>
#include <bpf/bpf_helpers.h>

#include "bpf/meter_abi.h"

/* --- what we read of the kernel --------------------------------------------------------------- */

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

struct kernfs_node {
        __u64 id;
};

struct cgroup {
        int level;
        struct kernfs_node *kn;
};

struct css_set {
        struct cgroup *dfl_cgrp;
};

struct sched_entity {
        __u64 sum_exec_runtime;
        __u64 prev_sum_exec_runtime; /* when it was last put on a CPU */
};

struct sched_info {
        unsigned long long run_delay;
};

struct percpu_counter {
        __s64 count;
        __s32 *counters;
};

struct mm_struct {
        unsigned long hiwater_rss;
        struct percpu_counter rss_stat[4];
};

typedef struct {
        int counter;
} atomic_t;

struct signal_struct {
        atomic_t live;
        unsigned long maxrss;
        struct mm_struct *oom_mm;
};

struct task_struct {
        struct sched_entity se;
        struct sched_info sched_info;
        struct mm_struct *mm;
        int pid;
        int tgid;
        unsigned int __state;
        struct task_struct *real_parent; /* a thread */
        struct task_struct *group_leader;
        __u64 start_time;
        char comm[METER_COMMAND_BYTES];
        struct signal_struct *signal;
        struct css_set *cgroups;
};

/* Before Linux 6.2. */
struct mm_rss_stat___plain {
        struct {
                __s64 counter;
        } count[4];
};

struct mm_struct___plain {
        struct mm_rss_stat___plain rss_stat;
};

#pragma clang attribute pop

/* Where each CPU has its own; absent where kernels do not tell, or have one CPU only. */
extern const void __per_cpu_offset __ksym __weak;

enum {
        MM_FILEPAGES = 0,
        MM_ANONPAGES = 1,
        MM_SHMEMPAGES = 3,
        TASK_DEAD = 0x80, /* it leaves its CPU for the last time */
        ANCESTORS = 4,    /* that are looked at, the thread itself included */
};

/* --- tables ----------------------------------------------------------------------------------- */

const volatile __u32 n_cpus = 1; /* that there can be */
const volatile __u32 sees_memory = 0;
/* Depth of all leaves in the whole cgroup2 tree; zero: no thread of one was seen yet. */
__u32 leaf_level = 0;
/* How often a thread came that had run before, and of which nothing was known. */
__u64 n_forgotten = 0;

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 1); /* set before loading */
        __type(key, __u64);     /* of cgroup2 */
        __type(value, __u32);   /* slot */
} leaves SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, 1); /* set before loading; the first is METER_NO_SLOT */
        __type(key, __u32);
        __type(value, struct meter_slot);
} meters SEC(".maps");

struct {
        __uint(type, BPF_MAP_TYPE_ARRAY);
        __uint(map_flags, BPF_F_MMAPABLE);
        __uint(max_entries, 1); /* set before loading: one for each CPU */
        __type(key, __u32);
        __type(value, struct meter_running);
} running SEC(".maps");

/*
 * How much of a thread was counted: what it used in a stint whose end was not told is counted with
 * the next one. It goes by where the kernel keeps the thread: one that starts another program
 * takes over the number, and the time of birth, of its process's first thread. Not a table that
 * makes room by itself (LRU): that would forget who sleeps for who is over.
 */
struct thread {
        __u64 born_nsec;
        __u64 exec_nsec;
};

struct {
        __uint(type, BPF_MAP_TYPE_HASH);
        __uint(max_entries, 1); /* set before loading */
        __type(key, __u64);
        __type(value, struct thread);
} threads SEC(".maps");

static __always_inline __u64 place_of(const struct task_struct *task)
{
        return (__u64)task;
}

static __always_inline struct meter_running *this_cpu(void)
{
        __u32 cpu = bpf_get_smp_processor_id();

        return bpf_map_lookup_elem(&running, &cpu);
}

/* The slot's, if it still is that leaf's. */
static __always_inline struct meter_slot *slot_of(const struct meter_running *run)
{
        __u32 number = run->slot;
        struct meter_slot *slot;

        if (number == METER_NO_SLOT)
                return NULL;
        slot = bpf_map_lookup_elem(&meters, &number);
        return slot && slot->leaf_id == run->leaf_id ? slot : NULL;
}

/* --- memory ----------------------------------------------------------------------------------- */

static __always_inline bool is_plain(const struct mm_struct *mm)
{
        return bpf_core_field_exists(((const struct mm_struct___plain *)mm)->rss_stat.count);
}

/* Its verifier does not follow a typedef in an array. */
static __always_inline __s64 plain_pages(const struct mm_struct *mm)
{
        const struct mm_struct___plain *plain = (const void *)mm;
        __s64 counts[4] = { 0 };

        (void)bpf_core_read(counts, sizeof(counts), &plain->rss_stat.count);
        return counts[MM_FILEPAGES] + counts[MM_ANONPAGES] + counts[MM_SHMEMPAGES];
}

static __always_inline __s64 counted_pages(const struct mm_struct *mm)
{
        return mm->rss_stat[MM_FILEPAGES].count + mm->rss_stat[MM_ANONPAGES].count +
               mm->rss_stat[MM_SHMEMPAGES].count;
}

/* What CPUs have added up. */
static __always_inline __s64 seen_pages(const struct mm_struct *mm)
{
        return is_plain(mm) ? plain_pages(mm) : counted_pages(mm);
}

static __always_inline __s64 part(const __s32 *counters, __u64 offset)
{
        __s32 value = 0;

        (void)bpf_probe_read_kernel(&value, sizeof(value), (const char *)counters + offset);
        return value;
}

/* What they have not. */
static __always_inline __s64 unseen_pages(const struct mm_struct *mm)
{
        const __s32 *file, *anonymous, *shared;
        __s64 pages = 0;

        if (is_plain(mm) || !&__per_cpu_offset)
                return 0;
        file = mm->rss_stat[MM_FILEPAGES].counters;
        anonymous = mm->rss_stat[MM_ANONPAGES].counters;
        shared = mm->rss_stat[MM_SHMEMPAGES].counters;
        for (__u32 i = 0; i < METER_CPUS_MAX && i < n_cpus; i++) {
                __u64 offset = 0;

                if (bpf_probe_read_kernel(&offset, sizeof(offset),
                                          (const __u64 *)&__per_cpu_offset + i))
                        break;
                pages += part(file, offset) + part(anonymous, offset) + part(shared, offset);
        }
        return pages;
}

/* Another CPU may raise it at the same time: then it is tried once more. */
static __always_inline void raise_to(__u64 *peak, __u64 value)
{
        for (int i = 0; i < 4; i++) {
                __u64 before = *peak;

                if (value <= before || __sync_val_compare_and_swap(peak, before, value) == before)
                        return;
        }
}

/*
 * Whether the highest that the kernel noted of a process is of this epoch: it never falls, unless
 * the process itself has it begin anew. Of one that was born before it that is known of the main
 * one alone, from what was noted when the epoch began.
 */
static __always_inline bool is_of_epoch(struct meter_slot *slot, const struct task_struct *task,
                                        __u64 highest)
{
        if (task->group_leader->start_time >= slot->epoch_nsec)
                return true;
        if ((__u32)task->tgid != slot->main_pid)
                return false;
        if (slot->base_epoch_nsec != slot->epoch_nsec || highest < slot->base_pages) {
                slot->base_pages = highest;
                slot->base_epoch_nsec = slot->epoch_nsec;
        }
        return highest > slot->base_pages;
}

static __always_inline void note_highest(struct meter_slot *slot, const struct task_struct *task,
                                         __u64 highest)
{
        if (is_of_epoch(slot, task, highest))
                raise_to(&slot->rss_peak_pages, highest);
}

/*
 * What a process has now, and the highest that the kernel noted of it, which it does before it
 * takes memory away. A CPU adds to the sum of all only when it has some tens of pages to add; only
 * then it is worth while to look at what each of them has. Where that cannot be seen, the peak is
 * wrong by as much.
 */
static __always_inline void look_at_memory(struct meter_slot *slot, const struct task_struct *task)
{
        const struct mm_struct *mm = task->mm;
        __s64 seen;

        if (!mm)
                return;
        note_highest(slot, task, mm->hiwater_rss);
        seen = seen_pages(mm);
        if (seen <= (__s64)slot->rss_seen_pages)
                return;
        raise_to(&slot->rss_seen_pages, seen);
        seen += unseen_pages(mm);
        if (seen > 0)
                raise_to(&slot->rss_peak_pages, seen);
}

/*
 * At each tick, and whenever another timer ends. The tracepoint rss_stat would miss nothing, but
 * costs some hundredths of each page that any program on the host touches.
 */
SEC("tp_btf/hrtimer_expire_entry")
int meter_rss(const __u64 *arguments)
{
        const struct task_struct *task = bpf_get_current_task_btf();
        const struct meter_running *run = this_cpu();
        struct meter_slot *slot = run ? slot_of(run) : NULL;

        (void)arguments;
        if (slot && run->task == place_of(task))
                look_at_memory(slot, task);
        return 0;
}

/* --- CPUs ------------------------------------------------------------------------------------- */

static __always_inline __u64 waited(const struct task_struct *task)
{
        return bpf_core_field_exists(task->sched_info.run_delay) ? task->sched_info.run_delay : 0;
}

static __always_inline void add_earlier(struct meter_slot *slot, __u64 since_nsec, __u64 cpu_nsec)
{
        __u64 now = bpf_ktime_get_ns();

        /* Of a stint that the epoch divides, only what came after it. */
        if (since_nsec < slot->epoch_nsec && now - slot->epoch_nsec < cpu_nsec)
                cpu_nsec = now - slot->epoch_nsec;
        __sync_fetch_and_add(&slot->earlier_nsec, cpu_nsec);
}

/* What was counted of a thread until now, if it is known. */
static __always_inline struct thread *find_thread(const struct task_struct *task)
{
        __u64 place = place_of(task);
        struct thread *thread = bpf_map_lookup_elem(&threads, &place);

        return thread && thread->born_nsec == task->start_time ? thread : NULL;
}

/* Of a thread of which nothing is known, @otherwise. */
static __always_inline __u64 counted_nsec(const struct thread *thread, __u64 otherwise)
{
        barrier_var(otherwise); /* one instruction must not read both */
        return thread ? thread->exec_nsec : otherwise;
}

static __always_inline void note_counted(const struct task_struct *task)
{
        struct thread *thread = find_thread(task);

        if (task->__state == TASK_DEAD) {
                __u64 place = place_of(task);

                (void)bpf_map_delete_elem(&threads, &place);
        } else if (thread) {
                thread->exec_nsec = task->se.sum_exec_runtime;
        } else {
                struct thread counted = { .born_nsec = task->start_time,
                                          .exec_nsec = task->se.sum_exec_runtime };
                __u64 place = place_of(task);

                (void)bpf_map_update_elem(&threads, &place, &counted, BPF_ANY);
        }
}

/* Whatever was taken for what it is not: nothing is ever taken back. */
static __always_inline __u64 rise(__u64 before, __u64 now)
{
        return now > before ? now - before : 0;
}

static __always_inline void add_stint(struct meter_slot *slot, const struct meter_running *stint,
                                      const struct task_struct *task)
{
        __u64 cpu_nsec = rise(stint->exec_nsec, task->se.sum_exec_runtime);
        __u64 wait_nsec = rise(stint->waited_nsec, waited(task));

        if (stint->born_nsec < slot->epoch_nsec)
                add_earlier(slot, stint->since_nsec, cpu_nsec);
        __sync_fetch_and_add(&slot->cpu_nsec, cpu_nsec);
        note_counted(task);
        if (wait_nsec)
                __sync_fetch_and_add(&slot->wait_nsec, wait_nsec);
        __sync_fetch_and_add(&slot->n_switches, 1);
        if (sees_memory)
                look_at_memory(slot, task);
}

static __always_inline void leave(struct meter_running *run, const struct task_struct *task)
{
        struct meter_running stint = *run;
        struct meter_slot *slot = slot_of(&stint);

        run->since_nsec = 0;
        barrier();
        if (slot)
                add_stint(slot, &stint, task);
        barrier();
        run->slot = METER_NO_SLOT;
}

/* The slot of the leaf that it is in. */
static __always_inline struct meter_slot *find_slot(const struct task_struct *task,
                                                    __u32 *ret_number, __u64 *ret_id)
{
        const struct cgroup *cgroup = task->cgroups->dfl_cgrp;
        __u32 level = cgroup->level;
        struct meter_slot *slot;
        __u32 *number;
        __u64 id;

        if (leaf_level && level != leaf_level)
                return NULL;
        id = cgroup->kn->id;
        number = bpf_map_lookup_elem(&leaves, &id);
        slot = number ? bpf_map_lookup_elem(&meters, number) : NULL;
        if (!slot)
                return NULL;
        if (!leaf_level)
                leaf_level = level;
        *ret_number = *number;
        *ret_id = id;
        return slot;
}

/*
 * When it was born, or the oldest of those that it comes from in its leaf: whatever processes from
 * before an epoch begin later is theirs. A parent that is over left its children to another: they
 * count for themselves then. The main thread is never older than an epoch.
 */
static __always_inline __u64 born(const struct meter_slot *slot, const struct task_struct *task)
{
        const struct cgroup *leaf = task->cgroups->dfl_cgrp;
        __u64 oldest = ~0ULL;

#pragma clang loop unroll(full)
        for (int i = 0; i < ANCESTORS; i++) {
                bool is_of_main = (__u32)task->tgid == slot->main_pid;

                if ((__u32)task->pid == slot->main_pid)
                        return oldest;
                if (!is_of_main && task->cgroups->dfl_cgrp != leaf)
                        return oldest;
                if (task->start_time < oldest)
                        oldest = task->start_time;
                if (is_of_main)
                        return oldest;
                task = task->group_leader;
                if (task->start_time < oldest)
                        oldest = task->start_time;
                task = task->real_parent;
                if (!task)
                        return oldest;
        }
        return oldest;
}

/*
 * A thread whose coming was not told: kernels leave some switches out. Of one that was never
 * counted the scheduler still knows what it used since then, unless its class or priority was
 * changed meanwhile; what it waited is not known.
 */
static __always_inline void leave_unseen(const struct task_struct *task)
{
        struct meter_running stint = { 0 };
        struct meter_slot *slot = find_slot(task, &stint.slot, &stint.leaf_id);

        if (!slot)
                return;
        stint.born_nsec = born(slot, task);
        stint.exec_nsec = counted_nsec(find_thread(task), task->se.prev_sum_exec_runtime);
        stint.waited_nsec = waited(task);
        add_stint(slot, &stint, task);
}

static __always_inline void come(struct meter_running *run, const struct task_struct *task)
{
        __u32 number;
        __u64 leaf_id;
        struct meter_slot *slot = find_slot(task, &number, &leaf_id);
        const struct thread *thread;

        if (!slot)
                return;
        thread = find_thread(task);
        if (!thread && task->se.sum_exec_runtime)
                __sync_fetch_and_add(&n_forgotten, 1);
        if (!slot->main_pid)
                slot->main_pid = task->pid;
        if (sees_memory && slot->base_epoch_nsec != slot->epoch_nsec && task->mm)
                note_highest(slot, task, task->mm->hiwater_rss);
        run->leaf_id = leaf_id;
        run->born_nsec = born(slot, task);
        run->exec_nsec = counted_nsec(thread, task->se.sum_exec_runtime);
        /* What it waited for this stint is added after this, and before its end. */
        run->waited_nsec = waited(task);
        run->task = place_of(task);
        run->slot = number;
        barrier();
        run->since_nsec = bpf_ktime_get_ns();
}

/* preempt, prev, next, and more */
SEC("tp_btf/sched_switch")
int meter_switch(const __u64 *arguments)
{
        const struct task_struct *prev = (const struct task_struct *)arguments[1];
        const struct task_struct *next = (const struct task_struct *)arguments[2];
        struct meter_running *run = this_cpu();

        if (!run)
                return 0;
        if (run->slot != METER_NO_SLOT && run->task == place_of(prev)) {
                leave(run, prev);
        } else {
                run->since_nsec = 0;
                run->slot = METER_NO_SLOT;
                leave_unseen(prev);
        }
        come(run, next);
        return 0;
}

/* --- victims ---------------------------------------------------------------------------------- */

/* Of several, which the kernel killed together, the largest. */
SEC("tp_btf/sched_process_exit")
int meter_exit(const __u64 *arguments)
{
        const struct task_struct *task = (const struct task_struct *)arguments[0];
        const struct meter_running *run = this_cpu();
        struct meter_slot *slot = run && run->task == place_of(task) ? slot_of(run) : NULL;
        __u32 number;
        __u64 leaf_id;
        __u64 pages;

        if (!slot) /* its coming was not told */
                slot = find_slot(task, &number, &leaf_id);
        if (!slot || task->signal->live.counter > 0)
                return 0;
        pages = task->signal->maxrss;
        if (sees_memory)
                note_highest(slot, task, pages);
        if (!task->signal->oom_mm)
                return 0;
        if (slot->victim_pid && pages <= slot->victim_pages)
                return 0;
        slot->victim_pages = pages;
        slot->victim_pid = task->tgid;
        bpf_probe_read_kernel_str(slot->victim_command, sizeof(slot->victim_command),
                                  task->group_leader->comm);
        return 0;
}

/* What reads the kernel's memory is only for programs under its license: this one may be used under
 * that, too. */
char meter_license[] SEC("license") = "GPL";
