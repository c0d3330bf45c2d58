/*
 * What the runtime is made of: how it is made, tried and taken down. Nothing here serves anybody.
 */
#include "runtime/supervisor/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "bpf/egress.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/leftover.h"
#include "runtime/channel/channel.h"
#include "runtime/channel/traffic_table.h"
#include "runtime/container/spawner.h"
#include "runtime/meters/metering.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/relay.h"
#include "runtime/supervisor/requests.h"
#include "runtime/supervisor/service.h"
#include "runtime/supervisor/sweeper.h"
#include "runtime/supervisor/traffic.h"

enum {
        ABANDONED_TIMEOUT_MSEC = 5000,
        GROUP_ATTEMPTS = 3,
};

/* --- the spawner ------------------------------------------------------------------------------ */

static void on_exit_of_spawner(struct child *child, int status)
{
        struct supervisor *supervisor = CONTAINER_OF(child, struct supervisor, spawner_child);

        /* What it cloned lives on. The next request makes a new one. */
        log_error("the spawner ended: status=%#x", status);
        supervisor->host.spawner = spawner_free(supervisor->host.spawner);
}

void supervisor_ensure_spawner(struct supervisor *supervisor)
{
        int r;

        if (supervisor->host.spawner)
                return;
        r = spawner_new(supervisor->options->init, &supervisor->host.spawner);
        if (r) {
                supervisor->host.spawner = NULL;
                (void)snprintf(supervisor->spawner_missing, sizeof(supervisor->spawner_missing),
                               "the spawner does not start: %s",
                               r < 0 ? strerrordesc_np(-r) : "it died");
                log_error("%s", supervisor->spawner_missing);
                return;
        }
        supervisor->spawner_missing[0] = '\0';
        supervisor->spawner_child = (struct child){ .pid = spawner_pid(supervisor->host.spawner),
                                                    .on_exit = on_exit_of_spawner };
        reaper_watch(supervisor->reaper, &supervisor->spawner_child);
}

static void stop_spawner(struct supervisor *supervisor)
{
        if (!supervisor->host.spawner)
                return;
        reaper_forget(supervisor->reaper, &supervisor->spawner_child);
        supervisor->host.spawner = spawner_free(supervisor->host.spawner);
}

/* --- starting --------------------------------------------------------------------------------- */

/* As many descriptors as the host allows: each sandbox needs some. */
static void raise_open_files(void)
{
        struct rlimit limit;

        if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
                return;
        limit.rlim_cur = limit.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
}

static int find_server_user(struct supervisor *supervisor)
{
        const struct options *options = supervisor->options;
        const struct passwd *user = getpwnam(options->server_user);
        const struct group *group;

        if (!user)
                return 0;
        supervisor->server_uid = user->pw_uid;
        supervisor->server_gid = user->pw_gid;
        supervisor->server_home = strdup(user->pw_dir);
        if (!supervisor->server_home)
                return error_origin(-ENOMEM);
        if (options->server_group) {
                group = getgrnam(options->server_group);
                if (!group)
                        return 0;
                supervisor->server_gid = group->gr_gid;
        }
        supervisor->has_server_user = true;
        return 0;
}

static int read_boot_id(struct supervisor *supervisor)
{
        int r = io_read_file(AT_FDCWD, "/proc/sys/kernel/random/boot_id", supervisor->boot_id,
                             sizeof(supervisor->boot_id), NULL);

        supervisor->boot_id[strcspn(supervisor->boot_id, "\n")] = '\0';
        return r;
}

static int plan_and_create_groups(struct supervisor *supervisor, const struct cgroup_layout *layout)
{
        int r = id_generate("hotcell", supervisor->instance_id);

        if (!r)
                r = cgroup_tree_plan(&supervisor->cgroups, layout,
                                     supervisor->options->cgroup_parent, supervisor->instance_id);
        if (r)
                return r;
        cgroup_remove_abandoned(&supervisor->cgroups, ABANDONED_TIMEOUT_MSEC);
        r = run_dir_record_groups(&supervisor->run_dir, &supervisor->cgroups);
        return r ? r : cgroup_tree_create(&supervisor->cgroups);
}

/* A host without usable groups is no error here: the walls say so, and refuse sandboxes. */
static void make_groups(struct supervisor *supervisor)
{
        struct cgroup_layout layout;
        int r = cgroup_layout_read(&layout);

        if (r == CGROUP_LAYOUT_E_NO_CGROUP2) {
                (void)snprintf(supervisor->cgroups_missing, sizeof(supervisor->cgroups_missing),
                               "no cgroup2 file system is mounted");
                return;
        }
        for (unsigned i = 0; i < GROUP_ATTEMPTS && !r; i++) {
                r = plan_and_create_groups(supervisor, &layout);
                if (r != CGROUP_TREE_E_TAKEN)
                        break;
                r = 0;
        }
        if (r || !supervisor->cgroups.n_parents)
                (void)snprintf(supervisor->cgroups_missing, sizeof(supervisor->cgroups_missing),
                               "cannot make groups: %s", strerrordesc_np(r < 0 ? -r : EBUSY));
}

/* Before the first sandbox. A host where this cannot be is none where sandboxes can be. */
static void put_up_egress_wall(struct supervisor *supervisor)
{
        const struct cgroup_tree *cgroups = &supervisor->cgroups;
        struct egress_wall_config config = { .n_sandboxes = supervisor->options->sandboxes_max };
        int r;

        if (supervisor->cgroups_missing[0]) {
                (void)snprintf(supervisor->egress_missing, sizeof(supervisor->egress_missing),
                               "there is no group to attach it to");
                return;
        }
        if (direct_pool_is_set(&supervisor->options->direct_pool))
                config.n_devices = direct_wanted(supervisor->options->sandboxes_max,
                                                 supervisor->options->netns_pool);
        config.cgroup_fd = cgroups->parents[0].fd;
        r = cgroup_id_of(config.cgroup_fd, &config.cgroup_id);
        if (r)
                (void)snprintf(supervisor->egress_missing, sizeof(supervisor->egress_missing),
                               "the parent group has no id: %s", strerrordesc_np(-r));
        else
                (void)egress_wall_new(&config, &supervisor->egress, supervisor->egress_missing);
}

static int make_loop(struct supervisor *supervisor)
{
        sigset_t blocked;
        int r;

        (void)sigemptyset(&blocked);
        (void)sigaddset(&blocked, SIGCHLD);
        (void)sigaddset(&blocked, SIGTERM);
        (void)sigaddset(&blocked, SIGINT);
        (void)sigaddset(&blocked, SIGHUP);
        if (sigprocmask(SIG_BLOCK, &blocked, NULL) < 0)
                return error_origin(-errno);
        (void)signal(SIGPIPE, SIG_IGN);
        r = sd_event_new(&supervisor->event);
        return r < 0 ? error_origin(r) : 0;
}

/* Without the wall there are no sandboxes that could have devices. */
static int make_direct(struct supervisor *supervisor)
{
        const struct direct_config config = { .pool = &supervisor->options->direct_pool,
                                              .wall = supervisor->egress,
                                              .run_dir = supervisor->options->run_dir };
        unsigned n = 0;
        int r = direct_sweep(config.run_dir, &n);

        if (r)
                log_warning("cannot remove what devices were left: error=%s", strerrorname_np(-r));
        else if (n > 0)
                log_info("removed devices that were left: n=%u", n);
        if (!direct_pool_is_set(config.pool) || !supervisor->egress)
                return 0;
        return direct_new(&config, &supervisor->direct);
}

static int make_metering(struct supervisor *supervisor)
{
        const struct metering_config config = {
                .cgroups = &supervisor->cgroups,
                .n_slots = supervisor->options->meter_slots,
                .has_programs = supervisor->options->has_meter_programs,
        };

        return metering_new(supervisor->event, &config, &supervisor->metering);
}

static int make_parts(struct supervisor *supervisor)
{
        const struct options *options = supervisor->options;
        int r;

        r = id_ranges_init(&supervisor->ids, options->id_base, options->sandboxes_max);
        if (!r)
                r = reaper_new(supervisor->event, &supervisor->reaper);
        if (!r)
                r = sweeper_new(supervisor->event, &supervisor->ids, &supervisor->sweeper);
        if (!r)
                r = make_metering(supervisor);
        if (!r)
                r = make_direct(supervisor);
        if (!r)
                r = netns_pool_init(&supervisor->netns, supervisor->event, options->netns_pool,
                                    options->egress != NULL, supervisor->direct);
        if (!r)
                r = terminals_read(options->sandboxes_max, &supervisor->terminals);
        if (!r)
                r = traffic_table_new(traffic_places(options->sandboxes_max), &supervisor->traffic);
        if (r)
                return error_fold(r);
        supervisor->host = (struct sandbox_host){
                .event = supervisor->event,
                .reaper = supervisor->reaper,
                .cgroups = &supervisor->cgroups,
                .metering = supervisor->metering,
                .netns = &supervisor->netns,
                .egress = supervisor->egress,
                .traffic = supervisor->traffic,
                .ids = &supervisor->ids,
                .sweeper = supervisor->sweeper,
                .terminals = supervisor->terminals.n_sandbox,
                .observer = &requests_observer,
                .userdata = supervisor,
        };
        return 0;
}

void supervisor_load_templates(struct supervisor *supervisor)
{
        struct template_store *store = &supervisor->templates;
        char missing_before[sizeof(store->missing)];

        (void)memcpy(missing_before, store->missing, sizeof(missing_before));
        /* Once, not for each request that asks for a template. */
        if (template_store_load(store) && strcmp(store->missing, missing_before) != 0)
                log_error("there are no templates: reason=\"%s\" (see --store)", store->missing);
}

void supervisor_probe_walls(struct supervisor *supervisor)
{
        struct wall_context context;

        supervisor_ensure_spawner(supervisor);
        supervisor_load_templates(supervisor);
        context = (struct wall_context){
                .cgroups = &supervisor->cgroups,
                .cgroups_missing =
                        supervisor->cgroups_missing[0] ? supervisor->cgroups_missing : NULL,
                .templates = &supervisor->templates,
                .netns = &supervisor->netns,
                .egress = supervisor->egress,
                .egress_missing = supervisor->egress_missing,
                .spawner = supervisor->host.spawner,
                .spawner_missing = supervisor->spawner_missing,
                .run_dir = supervisor->options->run_dir,
                .server_user = supervisor->options->server_user,
                .has_server_user = supervisor->has_server_user,
                .ids = &supervisor->ids,
                .sandboxes_max = supervisor->options->sandboxes_max,
                .terminals = supervisor->terminals,
        };
        walls_probe(&context, &supervisor->walls);
}

int supervisor_init(struct supervisor *supervisor, const struct options *options)
{
        int r;

        *supervisor = (struct supervisor){ .options = options };
        supervisor->netns.home_fd = -1;
        supervisor->templates.path = options->store;
        raise_open_files();
        r = run_dir_open(&supervisor->run_dir, options->run_dir);
        if (r == RUN_DIR_E_IN_USE)
                return SUPERVISOR_E_IN_USE;
        if (!r)
                r = read_boot_id(supervisor);
        if (!r)
                r = find_server_user(supervisor);
        if (!r)
                r = make_loop(supervisor);
        if (r)
                return error_fold(r);
        run_dir_remove_leftovers(&supervisor->run_dir);
        make_groups(supervisor);
        put_up_egress_wall(supervisor);
        r = make_parts(supervisor);
        if (!r)
                supervisor_probe_walls(supervisor);
        return r;
}

void supervisor_deinit(struct supervisor *supervisor)
{
        int r;

        supervisor->channel = channel_free(supervisor->channel);
        wire_arena_deinit(&supervisor->arena);
        if (supervisor->service && !supervisor->is_stopping)
                log_warning("hotcelld is left to its parent-death signal");
        else
                supervisor->service = service_free(supervisor->service);
        if (supervisor->relay && !supervisor->is_relay_stopped)
                log_warning("hotcell-egress is left to its parent-death signal");
        else
                supervisor->relay = relay_free(supervisor->relay);
        for (size_t i = 0; i < ARRAY_SIZE(supervisor->relay_arguments); i++)
                free(supervisor->relay_arguments[i]);
        stop_spawner(supervisor);
        netns_pool_deinit(&supervisor->netns);
        supervisor->direct = direct_free(supervisor->direct);
        supervisor->egress = egress_wall_free(supervisor->egress);
        if (!supervisor->sandboxes)
                supervisor->metering = metering_free(supervisor->metering);
        template_store_deinit(&supervisor->templates);
        supervisor->traffic = traffic_table_free(supervisor->traffic);
        supervisor->sweeper = sweeper_free(supervisor->sweeper);
        if (supervisor->cgroups.n_parents) {
                r = cgroup_tree_remove(&supervisor->cgroups);
                if (!r)
                        run_dir_forget_groups(&supervisor->run_dir);
                else
                        log_warning("left groups behind, for the next start to remove: error=%s",
                                    strerrorname_np(-r));
        }
        if (!supervisor->sandboxes && !supervisor->service && !supervisor->relay)
                supervisor->reaper = reaper_free(supervisor->reaper);
        sd_event_source_disable_unref(supervisor->stop_timer);
        supervisor->event = sd_event_unref(supervisor->event);
        id_ranges_deinit(&supervisor->ids);
        free(supervisor->server_home);
        run_dir_close(&supervisor->run_dir);
}
