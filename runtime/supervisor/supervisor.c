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
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/leftover.h"
#include "runtime/channel/channel.h"
#include "runtime/container/spawner.h"
#include "runtime/supervisor/control.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/messages.h"
#include "runtime/supervisor/relay.h"
#include "runtime/supervisor/requests.h"
#include "runtime/supervisor/service.h"
#include "runtime/supervisor/sweeper.h"
#include "runtime/supervisor/tables.h"

enum {
        QUEUE_BYTES_MAX = 8 << 20,
        STOP_LOOK_USEC = 5000,
        STOP_TIMEOUT_USEC = 15000000,
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

/* --- stopping --------------------------------------------------------------------------------- */

static bool is_everything_gone(const struct supervisor *supervisor)
{
        return !supervisor->sandboxes && sweeper_is_idle(supervisor->sweeper);
}

static void drop_ended_sandboxes(struct supervisor *supervisor)
{
        struct sandbox *sandbox;
        struct sandbox *following;

        HASH_ITER(hh, supervisor->sandboxes, sandbox, following)
        {
                if (sandbox->state != SANDBOX_ENDED) {
                        sandbox_end(sandbox, "the runtime stops");
                        continue;
                }
                sandbox_table_remove(&supervisor->sandboxes, sandbox);
                (void)sandbox_free(sandbox);
        }
}

static void on_relay_stopped(void *userdata)
{
        struct supervisor *supervisor = userdata;

        supervisor->is_relay_stopped = true;
        (void)sd_event_exit(supervisor->event, supervisor->exit_code);
}

/* The last to go: sandboxes may end their connections in peace. */
static void stop_relay(struct supervisor *supervisor)
{
        if (supervisor->relay)
                relay_stop(supervisor->relay);
        else
                (void)sd_event_exit(supervisor->event, supervisor->exit_code);
}

static int on_stop_look(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct supervisor *supervisor = userdata;

        drop_ended_sandboxes(supervisor);
        if (is_everything_gone(supervisor) || usec >= supervisor->stop_deadline_usec) {
                if (!is_everything_gone(supervisor))
                        log_error("not everything could be ended: sandboxes=%u",
                                  HASH_COUNT(supervisor->sandboxes));
                stop_relay(supervisor);
                return 0;
        }
        (void)sd_event_source_set_time_relative(source, STOP_LOOK_USEC);
        return sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
}

/* hotcelld has gone, so nobody can ask for more. */
static void end_sandboxes(struct supervisor *supervisor)
{
        uint64_t now = 0;
        int r;

        (void)sd_event_now(supervisor->event, CLOCK_MONOTONIC, &now);
        supervisor->stop_deadline_usec = now + STOP_TIMEOUT_USEC;
        r = sd_event_add_time(supervisor->event, &supervisor->stop_timer, CLOCK_MONOTONIC, now, 1,
                              on_stop_look, supervisor);
        if (r < 0)
                (void)sd_event_exit(supervisor->event, EXIT_FAILURE);
}

static void on_server_stopped(void *userdata)
{
        end_sandboxes(userdata);
}

static void stop(struct supervisor *supervisor, int exit_code)
{
        if (supervisor->is_stopping)
                return;
        log_info("stopping: sandboxes=%u", HASH_COUNT(supervisor->sandboxes));
        supervisor->is_stopping = true;
        supervisor->exit_code = exit_code;
        if (supervisor->service)
                service_stop(supervisor->service);
        else
                end_sandboxes(supervisor);
}

static void on_server_given_up(void *userdata, int exit_code)
{
        stop(userdata, exit_code);
}

static int on_terminate(sd_event_source *source, const struct signalfd_siginfo *info,
                        void *userdata)
{
        (void)source;
        (void)info;
        stop(userdata, EXIT_SUCCESS);
        return 0;
}

static void renew(struct supervisor *supervisor)
{
        service_renew(supervisor->service);
        if (supervisor->relay)
                relay_renew(supervisor->relay);
}

/* A terminal that goes away takes with it what was started from it; whoever sends the signal
 * himself wants a new hotcelld. */
static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        struct supervisor *supervisor = userdata;

        (void)source;
        if (info->ssi_code == SI_KERNEL)
                stop(supervisor, EXIT_SUCCESS);
        else if (supervisor->service)
                renew(supervisor);
        else
                log_warning("hotcelld is not supervised here: send it SIGHUP itself");
        return 0;
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
        static const int signals[] = { SIGTERM, SIGINT };
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
        for (size_t i = 0; i < ARRAY_SIZE(signals) && r >= 0; i++)
                r = sd_event_add_signal(supervisor->event, NULL, signals[i], on_terminate,
                                        supervisor);
        if (r >= 0)
                r = sd_event_add_signal(supervisor->event, NULL, SIGHUP, on_hangup, supervisor);
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
                r = make_direct(supervisor);
        if (!r)
                r = netns_pool_init(&supervisor->netns, supervisor->event, options->netns_pool,
                                    options->egress != NULL, supervisor->direct);
        if (!r)
                r = terminals_read(options->sandboxes_max, &supervisor->terminals);
        if (r)
                return error_fold(r);
        supervisor->host = (struct sandbox_host){
                .event = supervisor->event,
                .reaper = supervisor->reaper,
                .cgroups = &supervisor->cgroups,
                .netns = &supervisor->netns,
                .egress = supervisor->egress,
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

/* --- serving ---------------------------------------------------------------------------------- */

static void on_packet(void *userdata, const uint8_t *bytes, size_t n_bytes, int *fds, size_t n_fds)
{
        requests_handle(userdata, bytes, n_bytes, fds, n_fds);
}

static void on_disconnect(void *userdata)
{
        struct supervisor *supervisor = userdata;

        supervisor->is_greeted = false;
}

static int listen_for_server(struct supervisor *supervisor, const char *path)
{
        const struct channel_config config = {
                .peer = "hotcelld",
                .path = path,
                .peer_uid = supervisor->server_uid,
                .peer_gid = supervisor->server_gid,
                .packet_max = CONTROL_PACKET_MAX,
                .queue_bytes_max = QUEUE_BYTES_MAX,
                .observer = { .on_packet = on_packet,
                              .on_disconnect = on_disconnect,
                              .userdata = supervisor },
        };
        int r;

        r = wire_arena_init(&supervisor->arena, CONTROL_ARENA_MAX);
        if (r)
                return error_fold(r);
        return channel_new(supervisor->event, &config, &supervisor->channel);
}

static int start_server(struct supervisor *supervisor)
{
        const struct service_config config = {
                .name = "hotcelld",
                .program = supervisor->options->supervise,
                .arguments = supervisor->options->server_arguments,
                .uid = supervisor->server_uid,
                .gid = supervisor->server_gid,
                .user = supervisor->options->server_user,
                .home = supervisor->server_home,
                .on_given_up = on_server_given_up,
                .on_stopped = on_server_stopped,
                .userdata = supervisor,
        };
        int r = service_new(supervisor->event, supervisor->reaper, &config, &supervisor->service);

        if (r == -ENOENT || r == -EACCES) {
                log_error("cannot use the program to supervise: path=%s error=%s", config.program,
                          strerrorname_np(-r));
                return SUPERVISOR_E_CONFIG;
        }
        return r;
}

/* What the one before knew. */
static void on_relay_started(void *userdata)
{
        struct supervisor *supervisor = userdata;
        struct sandbox *sandbox;
        struct sandbox *following;

        /* The first time there is nothing to tell yet. */
        if (!supervisor->relay)
                return;
        HASH_ITER(hh, supervisor->sandboxes, sandbox, following)
        {
                if (sandbox->state == SANDBOX_RUNNING)
                        relay_add_network(supervisor->relay, sandbox);
        }
        messages_egress_ready(supervisor);
}

static void add_arguments(struct supervisor *supervisor, const char *name,
                          const char *const *values, size_t *n)
{
        for (size_t i = 0; values[i]; i++) {
                char **argument = &supervisor->relay_arguments[(*n)++];

                if (asprintf(argument, "--%s=%s", name, values[i]) < 0)
                        *argument = NULL;
        }
}

static int start_relay(struct supervisor *supervisor)
{
        const struct options *options = supervisor->options;
        const struct passwd *user = getpwnam(options->egress_user);
        struct relay_config config = {
                .wall = supervisor->egress,
                .n_slots = options->sandboxes_max,
                .on_started = on_relay_started,
                .on_stopped = on_relay_stopped,
                .userdata = supervisor,
        };
        size_t n = 0;

        if (!user) {
                log_error("there is no such user: user=%s (see --egress-user)",
                          options->egress_user);
                return SUPERVISOR_E_CONFIG;
        }
        add_arguments(supervisor, "open", options->egress_open, &n);
        add_arguments(supervisor, "nameserver", options->egress_nameservers, &n);
        config.service = (struct service_config){
                .name = "hotcell-egress",
                .program = options->egress,
                .arguments = supervisor->relay_arguments,
                .uid = user->pw_uid,
                .gid = user->pw_gid,
                .user = options->egress_user,
                .home = "/nonexistent",
        };
        return relay_new(supervisor->event, supervisor->reaper, &config, &supervisor->relay);
}

/* Without the wall there are no sandboxes, and nothing to relay. */
static int start_relay_if_wanted(struct supervisor *supervisor)
{
        int r = supervisor->options->egress && supervisor->egress ? start_relay(supervisor) : 0;

        if (r == -ENOENT || r == -EACCES) {
                log_error("cannot use the program of the relay: path=%s error=%s",
                          supervisor->options->egress, strerrorname_np(-r));
                return SUPERVISOR_E_CONFIG;
        }
        return r;
}

static void log_walls(const struct supervisor *supervisor)
{
        const struct wall_list *list = &supervisor->walls;

        for (size_t i = 0; i < list->n_walls; i++)
                if (!list->walls[i].holds)
                        log_warning("a wall does not hold: wall=%s required=%d detail=%s fix=%s",
                                    list->walls[i].name, list->walls[i].is_required,
                                    list->walls[i].detail, list->walls[i].fix);
}

int supervisor_run(struct supervisor *supervisor)
{
        char path[108];
        int r;

        if (!supervisor->has_server_user) {
                log_error("there is no such user or group: user=%s group=%s (see --server-user)",
                          supervisor->options->server_user,
                          supervisor->options->server_group ? supervisor->options->server_group
                                                            : "-");
                return SUPERVISOR_E_CONFIG;
        }
        log_walls(supervisor);
        if ((size_t)snprintf(path, sizeof(path), "%s/runtime.sock", supervisor->options->run_dir) >=
            sizeof(path))
                return error_origin(-ENAMETOOLONG);
        r = run_dir_share(&supervisor->run_dir, supervisor->server_gid);
        if (!r)
                r = listen_for_server(supervisor, path);
        if (r)
                return error_fold(r);
        r = start_relay_if_wanted(supervisor);
        if (r)
                return r;
        if (supervisor->options->supervise) {
                r = start_server(supervisor);
                if (r)
                        return r;
        }
        log_info("ready: socket=%s instance=%s sandboxes_max=%u terminals=%u", path,
                 supervisor->instance_id, supervisor->options->sandboxes_max,
                 supervisor->terminals.n_sandbox);
        r = sd_event_loop(supervisor->event);
        if (r < 0)
                return error_origin(r);
        supervisor->exit_code = r;
        return 0;
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
        template_store_deinit(&supervisor->templates);
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
