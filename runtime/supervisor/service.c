#include "runtime/supervisor/service.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/supervisor/program.h"
#include "runtime/supervisor/reaper.h"

enum {
        BACKOFF_MIN_USEC = 100000,
        BACKOFF_MAX_USEC = 10000000,
        HALVING_MSEC = 100, /* of running, that make up for one failure */
        STOP_TIMEOUT_USEC = 10000000,
        ARGUMENTS_MAX = 128,
};

struct service {
        struct service_config config;
        struct reaper *reaper;
        int program_fd; /* the sealed copy */
        int newer_fd;   /* of a newer file, while it is tried; else -1 */
        struct child trial;
        bool is_renewal_wanted; /* once more, after the trial */
        struct child child;
        bool is_running;
        bool is_stopping;
        uint64_t backoff_usec;
        uint64_t started_msec;
        sd_event_source *timer; /* next start, or the end of patience when stopping */
};

static size_t count_arguments(const struct service *service)
{
        size_t n = 0;

        while (service->config.arguments[n])
                n++;
        return n;
}

static void on_exit_of_service(struct child *child, int status);

/* The child, or a negative errno. @socket_fd: its descriptor 3, or -1. @extra: one more argument,
 * or NULL. */
static pid_t fork_program(const struct service *service, int fd, int socket_fd, const char *extra)
{
        char *argv[ARGUMENTS_MAX + 3] = { unconst(service->config.name) };
        pid_t runtime = getpid();
        size_t n = 1;
        pid_t pid;

        for (size_t i = 0; service->config.arguments[i]; i++)
                argv[n++] = service->config.arguments[i];
        if (extra)
                argv[n++] = unconst(extra);
        pid = fork();
        if (pid < 0)
                return error_origin(-errno);
        if (pid == 0)
                program_run(&service->config, fd, socket_fd, runtime, argv);
        return pid;
}

static int start(struct service *service)
{
        const struct service_config *config = &service->config;
        _cleanup_(closep) int socket_fd = -1;
        pid_t pid;
        int r = config->open_socket ? config->open_socket(config->userdata, &socket_fd) : 0;

        if (r)
                return r;
        service->started_msec = clock_monotonic_msec();
        pid = fork_program(service, service->program_fd, socket_fd, NULL);
        if (pid < 0)
                return error_fold((int)pid);
        service->child = (struct child){ .pid = pid, .on_exit = on_exit_of_service };
        service->is_running = true;
        reaper_watch(service->reaper, &service->child);
        log_info("started %s: pid=%d user=%s", config->name, pid, config->user);
        return 0;
}

static int set_timer(struct service *service, uint64_t usec)
{
        int r = sd_event_source_set_time_relative(service->timer, usec);

        if (r >= 0)
                r = sd_event_source_set_enabled(service->timer, SD_EVENT_ONESHOT);
        return r < 0 ? error_origin(r) : 0;
}

static void give_up(struct service *service, int exit_code)
{
        service->config.on_given_up(service->config.userdata, exit_code);
}

/*
 * Each failure doubles the pause, and running halves it again: one that fails while it starts is
 * tried ever more rarely, one that ran for some seconds is back at once, however often it is
 * killed.
 */
static void forgive(struct service *service)
{
        uint64_t n = (clock_monotonic_msec() - service->started_msec) / HALVING_MSEC;

        service->backoff_usec =
                MAX(service->backoff_usec >> MIN(n, (uint64_t)63), (uint64_t)BACKOFF_MIN_USEC);
}

static void start_later(struct service *service)
{
        forgive(service);
        log_warning("starting %s again: in_msec=%llu", service->config.name,
                    (unsigned long long)service->backoff_usec / 1000);
        if (set_timer(service, service->backoff_usec))
                give_up(service, EXIT_FAILURE);
        service->backoff_usec = MIN(service->backoff_usec * 2, BACKOFF_MAX_USEC);
}

static void start_or_later(struct service *service)
{
        int r = start(service);

        if (!r)
                return;
        log_warning("cannot start %s: error=%s", service->config.name, strerrorname_np(-r));
        start_later(service);
}

/* It was asked to. Not more often than a failure would have it, whatever it says. */
static void start_successor(struct service *service)
{
        log_info("%s makes room for its successor", service->config.name);
        service->backoff_usec = BACKOFF_MIN_USEC;
        if (clock_monotonic_msec() - service->started_msec < BACKOFF_MIN_USEC / 1000)
                start_later(service);
        else
                start_or_later(service);
}

static void on_exit_of_service(struct child *child, int status)
{
        struct service *service = CONTAINER_OF(child, struct service, child);

        service->is_running = false;
        if (service->is_stopping) {
                (void)sd_event_source_set_enabled(service->timer, SD_EVENT_OFF);
                log_info("%s stopped: status=%#x", service->config.name, status);
                service->config.on_stopped(service->config.userdata);
                return;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == SERVICE_EXIT_CONFIG) {
                log_error("%s refuses its configuration: giving up", service->config.name);
                give_up(service, SERVICE_EXIT_CONFIG);
                return;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == SERVICE_EXIT_RESTART) {
                start_successor(service);
                return;
        }
        if (WIFSIGNALED(status))
                log_warning("%s ended: signal=%d", service->config.name, WTERMSIG(status));
        else
                log_warning("%s ended: exit_code=%d", service->config.name, WEXITSTATUS(status));
        start_later(service);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct service *service = userdata;

        (void)source;
        (void)usec;
        if (service->is_stopping) {
                log_warning("%s does not stop: killing it", service->config.name);
                if (service->is_running)
                        (void)kill(service->child.pid, SIGKILL);
                return 0;
        }
        start_or_later(service);
        return 0;
}

/* Renewal: the newer program says first that it takes the configuration as it is now. */

static void use_newer(struct service *service)
{
        (void)close_fd(service->program_fd);
        service->program_fd = take_fd(&service->newer_fd);
        if (service->is_running) {
                (void)kill(service->child.pid, SIGHUP);
                return;
        }
        (void)sd_event_source_set_enabled(service->timer, SD_EVENT_OFF);
        start_or_later(service);
}

static void on_exit_of_trial(struct child *child, int status)
{
        struct service *service = CONTAINER_OF(child, struct service, trial);

        if (service->is_stopping || status != 0)
                service->newer_fd = close_fd(service->newer_fd);
        if (service->is_stopping)
                return;
        if (status != 0)
                log_error("%s goes on as it is: the program or its configuration is not good any "
                          "more: program=%s status=%#x",
                          service->config.name, service->config.program, status);
        else
                use_newer(service);
        if (service->is_renewal_wanted)
                service_renew(service);
}

static int try_newer(struct service *service)
{
        pid_t pid;
        int r;

        r = program_copy(service->config.name, service->config.program, &service->newer_fd);
        if (r)
                return r;
        pid = fork_program(service, service->newer_fd, -1, "--check-config");
        if (pid < 0) {
                service->newer_fd = close_fd(service->newer_fd);
                return error_fold((int)pid);
        }
        service->trial = (struct child){ .pid = pid, .on_exit = on_exit_of_trial };
        reaper_watch(service->reaper, &service->trial);
        return 0;
}

void service_renew(struct service *service)
{
        int r;

        if (service->is_stopping)
                return;
        service->is_renewal_wanted = service->newer_fd >= 0;
        if (service->is_renewal_wanted)
                return;
        log_info("renewing %s: program=%s", service->config.name, service->config.program);
        r = try_newer(service);
        if (r)
                log_error("%s goes on as it is: its program cannot be used: program=%s error=%s",
                          service->config.name, service->config.program, strerrorname_np(-r));
}

DEFINE_CLEANUP(struct service, service_free)

int service_new(sd_event *event, struct reaper *reaper, const struct service_config *config,
                struct service **ret_service)
{
        _cleanup_(service_freep) struct service *service = calloc(1, sizeof(*service));
        int r;

        if (!service)
                return error_origin(-ENOMEM);
        service->config = *config;
        service->reaper = reaper;
        service->backoff_usec = BACKOFF_MIN_USEC;
        service->program_fd = -1;
        service->newer_fd = -1;
        if (count_arguments(service) > ARGUMENTS_MAX)
                return error_origin(-E2BIG); /* NOLINT(clang-analyzer-unix.Malloc): _cleanup_ */
        r = program_copy(config->name, config->program, &service->program_fd);
        if (r)
                return r;
        r = sd_event_add_time_relative(event, &service->timer, CLOCK_MONOTONIC, 0, 1000, on_timer,
                                       service);
        if (r >= 0)
                r = sd_event_source_set_enabled(service->timer, SD_EVENT_OFF);
        if (r < 0)
                return error_origin(r);
        r = start(service);
        if (r)
                return r;
        *ret_service = take(service);
        return 0;
}

void service_stop(struct service *service)
{
        if (service->is_stopping)
                return;
        service->is_stopping = true;
        if (service->newer_fd >= 0)
                (void)kill(service->trial.pid, SIGKILL);
        if (!service->is_running) {
                service->config.on_stopped(service->config.userdata);
                return;
        }
        (void)kill(service->child.pid, SIGTERM);
        if (set_timer(service, STOP_TIMEOUT_USEC))
                (void)kill(service->child.pid, SIGKILL);
}

struct service *service_free(struct service *service)
{
        if (!service)
                return NULL;
        assert(!service->is_running);
        sd_event_source_disable_unref(service->timer);
        if (service->newer_fd >= 0)
                reaper_forget(service->reaper, &service->trial);
        (void)close_fd(service->newer_fd);
        (void)close_fd(service->program_fd);
        free(service);
        return NULL;
}
