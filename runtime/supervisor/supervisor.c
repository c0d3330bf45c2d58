/*
 * Serving and stopping. hotcelld goes first, then the sandboxes, then hotcell-egress; what is made
 * before the first of them starts is in supervisor_parts.c.
 */
#include "runtime/supervisor/supervisor.h"

#include <errno.h>
#include <pwd.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/supervisor/control.h"
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
};

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

static int watch_signals(struct supervisor *supervisor)
{
        static const int signals[] = { SIGTERM, SIGINT };
        int r = sd_event_add_signal(supervisor->event, NULL, SIGHUP, on_hangup, supervisor);

        for (size_t i = 0; i < ARRAY_SIZE(signals) && r >= 0; i++)
                r = sd_event_add_signal(supervisor->event, NULL, signals[i], on_terminate,
                                        supervisor);
        return r < 0 ? error_origin(r) : 0;
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
                .traffic = supervisor->traffic,
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
        r = watch_signals(supervisor);
        if (!r)
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
