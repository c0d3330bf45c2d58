/*
 * One sandbox: its group, its namespaces with hotcell-init in them, and the processes that were
 * started in it. Calls go down (cgroup, spawner, reaper), what happened goes up through the
 * observer.
 */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>
#include <uthash.h>

#include "runtime/base/dns_label.h"
#include "runtime/cgroup/group.h"
#include "runtime/meters/metering.h"
#include "runtime/supervisor/failure.h"
#include "runtime/supervisor/netns.h"
#include "runtime/supervisor/pressure.h"
#include "runtime/supervisor/reaper.h"
#include "runtime/supervisor/sandbox_limits.h"
#include "runtime/supervisor/traffic.h"

struct egress_wall;
struct id_ranges;
struct process;
struct sandbox;
struct spawner;
struct sweeper;
struct template;

/*
 *   creating ──▶ running ──▶ ending ──▶ ended ──▶ (freed)
 *      └────────────────────────▲
 */
enum sandbox_state {
        SANDBOX_CREATING, /* cloned; its init was not executed yet */
        SANDBOX_RUNNING,  /* processes may be started */
        SANDBOX_ENDING,   /* all of it was killed; not all of it was reaped */
        SANDBOX_ENDED,    /* nothing of it runs; its ends may still be unacknowledged */
        _SANDBOX_STATE_N,
};

/* Who asked, for the observer to answer: opaque here. */
struct ticket {
        uint64_t connection;
        uint64_t request; /* zero: nobody waits */
};

struct sandbox_observer {
        /* Its init runs, or (with @failure) it has ended and the observer must free it. */
        void (*on_created)(struct sandbox *sandbox, const struct failure *failure);
        /* It has ended. The observer frees it, now or later. */
        void (*on_ended)(struct sandbox *sandbox);
        /* A program was executed; or (with @failure) it was not and is freed after this. */
        void (*on_process_started)(struct process *process, const struct failure *failure);
        /* Nothing of it runs any more. The observer frees it, now or later. */
        void (*on_process_ended)(struct process *process);
        /* Something is short in it. */
        void (*on_pressure)(struct sandbox *sandbox, const struct pressure_level *level);
        /* After LIMITS_E_LATER: they are in force, or (with @failure) were put back. */
        void (*on_limits_changed)(struct sandbox *sandbox, const struct failure *failure);
};

/* What the runtime lends to all of its sandboxes. */
struct sandbox_host {
        sd_event *event;
        struct reaper *reaper;
        const struct cgroup_tree *cgroups;
        struct metering *metering;
        struct spawner *spawner;    /* NULL while there is none */
        struct egress_wall *egress; /* NULL when there is none: then no sandbox is made */
        struct netns_pool *netns;
        struct traffic_table *traffic;
        struct id_ranges *ids;
        struct sweeper *sweeper;
        uint32_t terminals; /* each sandbox's */
        const struct sandbox_observer *observer;
        void *userdata; /* the observer's */
};

struct sandbox {
        UT_hash_handle hh; /* the observer's table, by id */
        struct sandbox_host *host;
        char id[ID_BUFFER];
        enum sandbox_state state;
        struct ticket create_ticket;
        struct ticket destroy_ticket;
        bool is_unwanted; /* somebody asked for its end */
        uint64_t created_nsec;

        struct cgroup group;
        struct cgroup init_leaf;
        bool has_init_leaf;
        struct sandbox_meter meter;
        struct leaf_meter init_meter;
        struct metered usage; /* at its end */
        bool has_usage;       /* that could be read */
        uint32_t id_base;
        struct runtime_limits limits; /* in force */
        struct limits_change change;
        struct ticket limits_ticket; /* whose change that is */
        bool is_approaching;         /* it is of each limit by itself */
        dev_t io_device;             /* that its template is on; zero: none */
        int template_fd;             /* of its root, locked: nobody removes it while it is in use */
        int scratch_fd;              /* of the mount that its disk limits are of */

        struct netns netns; /* its sockets, for hotcell-egress; the namespace is the init's */

        struct traffic traffic;                    /* of what no process of its took */
        struct traffic_amount traffic_of_the_gone; /* of processes that ended */

        struct child init;
        bool is_init_reaped;
        int init_pidfd;
        int status_fd;                  /* while creating */
        sd_event_source *status_source; /* likewise */
        sd_event_source *timeout;       /* likewise */
        int oom_fd;                     /* cgroup v1 only */
        sd_event_source *oom_source;
        sd_event_source *oom_recheck;
        unsigned n_oom_rechecks;
        sd_event_source *socket_guard;
        struct pressure pressure;

        struct process *processes; /* by id */
        unsigned n_processes_alive;
        uint32_t oom_kills_of_the_gone; /* of processes that were freed */
        bool is_oom;
        struct failure failure; /* why it could not be created; reason zero: nothing */
        char detail[160];       /* why it ended, for people */
};

struct sandbox_spec {
        const Hotcell__Runtime__V1__CreateSandbox *request;
        const struct template *template;
        struct ticket ticket;
};

/* Begins to create it; on_created tells the rest. CONTROL-checked input. 0, or 1 with @ret_failure.
 */
int sandbox_create(struct sandbox_host *host, const struct sandbox_spec *spec,
                   struct sandbox **ret_sandbox, struct failure *ret_failure);

/* Must have ended. Its unacknowledged processes are freed, too. Returns NULL. */
struct sandbox *sandbox_free(struct sandbox *sandbox);

/* Kills all of it. on_ended (or on_created with the failure) follows, never from within. */
void sandbox_end(struct sandbox *sandbox, const char *detail);

/* Of all of it, disk included. */
int sandbox_read_usage(struct sandbox *sandbox, struct usage_message *ret_message);

const char *sandbox_state_name(enum sandbox_state state);

/* For process.c: its init exits, though nobody asked for that. */
/* Whether memory was short in one of them: then all of it ends. */
void sandbox_check_processes(const struct sandbox *sandbox);

bool sandbox_is_going(const struct sandbox *sandbox);

/* For process.c: one of its processes is over. */
void sandbox_process_over(struct sandbox *sandbox);
