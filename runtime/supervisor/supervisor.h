/*
 * The daemon: everything that the runtime has, and how it starts and stops. `requests.c` does what
 * hotcelld asks, `messages.c` tells it what happened.
 */
#pragma once

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "runtime/base/dns_label.h"
#include "runtime/base/wire.h"
#include "runtime/cgroup/tree.h"
#include "runtime/supervisor/id_ranges.h"
#include "runtime/supervisor/netns.h"
#include "runtime/supervisor/options.h"
#include "runtime/supervisor/reaper.h"
#include "runtime/supervisor/run_dir.h"
#include "runtime/supervisor/sandbox.h"
#include "runtime/supervisor/templates.h"
#include "runtime/supervisor/terminals.h"
#include "runtime/supervisor/walls.h"

struct channel;
struct direct;
struct egress_wall;
struct metering;
struct relay;
struct service;

enum {
        SUPERVISOR_E_IN_USE = 1, /* another instance has the run directory */
        SUPERVISOR_E_CONFIG,     /* something that the options name is not there; it was logged */
};

struct supervisor {
        const struct options *options;
        sd_event *event;
        struct run_dir run_dir;
        char boot_id[64];
        char instance_id[ID_BUFFER];

        struct cgroup_tree cgroups;
        char cgroups_missing[160]; /* why there are none; empty: there are */
        struct egress_wall *egress;
        char egress_missing[160]; /* why there is none; empty: there is */
        struct child spawner_child;
        char spawner_missing[160]; /* why there is none; empty: there is */
        struct id_ranges ids;
        struct direct *direct; /* NULL: no direct mode */
        struct traffic_table *traffic;
        struct metering *metering;
        struct netns_pool netns;
        struct reaper *reaper;
        struct sweeper *sweeper;
        struct template_store templates;
        struct wall_list walls;
        struct terminals terminals;

        bool has_server_user;
        uid_t server_uid;
        gid_t server_gid;
        char *server_home;
        struct channel *channel;
        struct wire_arena arena; /* for the request at hand */
        bool is_greeted;         /* the connected hotcelld has said Hello */
        uint32_t protocol;       /* that both speak since then */
        struct relay *relay;     /* NULL: there is none */
        bool is_relay_stopped;
        char *relay_arguments[OPTIONS_PREFIXES_MAX + OPTIONS_NAMESERVERS_MAX + 1];
        struct service *service;

        struct sandbox_host host;
        struct sandbox *sandboxes; /* by id */

        bool is_stopping;
        int exit_code;
        sd_event_source *stop_timer; /* while stopping: is everything gone? */
        uint64_t stop_deadline_usec;
};

/* Takes the run directory, removes what an earlier instance left, and gets everything ready. */
int supervisor_init(struct supervisor *supervisor, const struct options *options);

/* Listens, starts hotcelld if asked, and serves until it is told to stop. Sets the exit code. */
int supervisor_run(struct supervisor *supervisor);

/* Removes everything that was made. */
void supervisor_deinit(struct supervisor *supervisor);

/* Tries all walls anew. */
void supervisor_probe_walls(struct supervisor *supervisor);

/* Reads the template store anew; logs when there are no templates any more. */
void supervisor_load_templates(struct supervisor *supervisor);

/* Starts the spawner if there is none. */
void supervisor_ensure_spawner(struct supervisor *supervisor);
