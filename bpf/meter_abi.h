/*
 * What the programs of meter.bpf.c and user space share. User space maps both tables, so a reading
 * costs no system call. Only fixed-width types, no holes.
 */
#pragma once

#include <linux/types.h>

enum {
        METER_COMMAND_BYTES = 16, /* of the kernel's `comm` */
        METER_CPUS_MAX = 512,
        METER_NO_SLOT = 0,
};

/*
 * What a leaf used. It is the leaf's as long as leaf_id says so: then the programs add to it, on
 * all CPUs at once; user space reads, and writes only epoch_nsec and the peaks.
 */
struct meter_slot {
        __u64 leaf_id;
        __u64 cpu_nsec;       /* of stints on a CPU that are over */
        __u64 wait_nsec;      /* before they began, since the last time that the thread was moved */
        __u64 n_switches;     /* their number */
        __u64 earlier_nsec;   /* the part of cpu_nsec of threads that were born before epoch_nsec */
        __u64 epoch_nsec;     /* CLOCK_MONOTONIC */
        __u64 rss_peak_pages; /* the highest of any one process */
        __u64 rss_seen_pages; /* likewise, without what CPUs have not yet added up */
        __u64 victim_pages;   /* the process that was killed for want of memory: what it held */
        __u32 victim_pid;     /* zero: there was none */
        __u32 main_pid;       /* the first in the leaf, whose threads' children all others are */
        char victim_command[METER_COMMAND_BYTES];
        __u64 base_epoch_nsec; /* the epoch at whose begin base_pages was noted */
        __u64 base_pages;      /* the highest that the main process ever had, then */
        __u64 unused[2];       /* two lines of a cache */
};
_Static_assert(sizeof(struct meter_slot) == 128, "shared with BPF");

/*
 * What a CPU runs. since_nsec is set last, and is zero while there is nothing to be added to
 * cpu_nsec of the slot any more; slot is METER_NO_SLOT only when nothing is going to be written
 * there. So who reads cpu_nsec first and this after it counts nothing twice, and a slot that no CPU
 * has, and no table leads to, is nobody's.
 */
struct meter_running {
        __u64 leaf_id;
        __u64 since_nsec;  /* CLOCK_MONOTONIC */
        __u64 born_nsec;   /* the thread; of a main thread never before an epoch */
        __u64 exec_nsec;   /* CPU time that the thread had before */
        __u64 waited_nsec; /* likewise */
        __u64 task;        /* where the kernel keeps the thread */
        __u32 slot;
        __u32 unused[3];
};
_Static_assert(sizeof(struct meter_running) == 64, "shared with BPF");
