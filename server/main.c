/* hotcelld: configuration, privileges, signals and the loop. */
#include <errno.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/harden/harden.h"
#include "server/config.h"
#include "server/server.h"

DEFINE_CLEANUP(struct server, server_free)

static void event_unrefp(sd_event **loop)
{
        (void)sd_event_unref(*loop);
}

static int on_stop_signal(sd_event_source *source, const struct signalfd_siginfo *info,
                          void *userdata)
{
        struct server **server = userdata;

        (void)source;
        (void)info;
        server_stop(*server);
        return 0;
}

/* A terminal that goes away takes with it what was started from it; whoever sends the signal
 * himself wants a successor. */
static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *userdata)
{
        struct server **server = userdata;

        (void)source;
        if (info->ssi_code == SI_KERNEL)
                server_stop(*server);
        else
                server_restart(*server);
        return 0;
}

/* Blocked in all threads, those of gRPC included, so that only the loop takes them. */
static int block_signals(void)
{
        static const int signals[] = { SIGTERM, SIGINT, SIGHUP };
        sigset_t set;

        (void)sigemptyset(&set);
        for (size_t i = 0; i < ARRAY_SIZE(signals); i++)
                (void)sigaddset(&set, signals[i]);
        if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
                return error_origin(-errno);
        /* A client that goes is no reason to end. */
        return signal(SIGPIPE, SIG_IGN) == SIG_ERR ? error_origin(-errno) : 0;
}

static int watch_signals(sd_event *loop, struct server **server)
{
        static const int stops[] = { SIGTERM, SIGINT };
        int r;

        r = sd_event_add_signal(loop, NULL, SIGHUP, on_hangup, server);
        for (size_t i = 0; i < ARRAY_SIZE(stops) && r >= 0; i++) {
                sd_event_source *source;

                r = sd_event_add_signal(loop, &source, stops[i], on_stop_signal, server);
                if (r < 0)
                        break;
                /* Before the end that SIGHUP leads to: a stop is heard as long as there is one who
                 * hears. */
                r = sd_event_source_set_priority(source, SD_EVENT_PRIORITY_IMPORTANT);
                if (r >= 0)
                        r = sd_event_source_set_floating(source, true);
                sd_event_source_unref(source);
        }
        return r < 0 ? error_origin(r) : 0;
}

static int serve(const struct config *config, gid_t socket_group)
{
        _cleanup_(event_unrefp) sd_event *loop = NULL;
        _cleanup_(server_freep) struct server *server = NULL;
        int r;

        r = sd_event_new(&loop);
        if (r < 0)
                return error_origin(r);
        r = server_new(loop, config, socket_group, &server);
        if (r)
                return r;
        r = watch_signals(loop, &server);
        if (r)
                return error_fold(r);
        return sd_event_loop(loop);
}

static int check_privilege(const struct config *config)
{
        if (geteuid() != 0 || config->allow_root)
                return 0;
        log_error("hotcelld needs no privilege and does not run as root: start it under a user of "
                  "its own, as hotcell-runtime --supervise does, or set allow_root");
        return SERVER_EXIT_CONFIG;
}

static int find_group(const struct config *config, gid_t *ret_group)
{
        const struct group *group;

        *ret_group = (gid_t)-1;
        if (!*config->unix_group)
                return 0;
        group = getgrnam(config->unix_group);
        if (!group) {
                log_error("there is no such group unix_group=%s", config->unix_group);
                return SERVER_EXIT_CONFIG;
        }
        *ret_group = group->gr_gid;
        return 0;
}

static int run(const struct config *config)
{
        gid_t socket_group;
        int r;

        log_init("hotcelld", config->log_level);
        (void)umask(0077);
        r = check_privilege(config);
        if (r == 0)
                r = find_group(config, &socket_group);
        if (r)
                return r;
        r = block_signals();
        if (r == 0)
                r = harden_process(HARDEN_NEEDS_NOTHING);
        if (r == 0)
                r = serve(config, socket_group);
        if (r < 0) {
                log_error("cannot go on error=\"%s\"", strerror(-r));
                return SERVER_EXIT_FAILURE;
        }
        return r;
}

int main(int argc, char **argv)
{
        char message[CONFIG_MESSAGE_BUFFER];
        enum config_action action;
        struct config config;

        if (config_read(argc, argv, &config, &action, message)) {
                (void)fprintf(stderr, "hotcelld: %s\n", message);
                return SERVER_EXIT_CONFIG;
        }
        switch (action) {
        case CONFIG_SERVE:
                return run(&config);
        case CONFIG_CHECK:
                (void)puts("The configuration is good.");
                return 0;
        case CONFIG_PRINT:
                config_print(&config, stdout);
                return 0;
        case CONFIG_HELP:
                config_print_help(stdout);
                return 0;
        case CONFIG_VERSION:
                (void)puts("hotcelld " HOTCELL_VERSION);
                return 0;
        }
        return SERVER_EXIT_FAILURE;
}
