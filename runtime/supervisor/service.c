#include "runtime/supervisor/service.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/supervisor/host_privilege.h"
#include "runtime/supervisor/reaper.h"

enum {
        BACKOFF_MIN_USEC = 100000,
        BACKOFF_MAX_USEC = 10000000,
        HALVING_MSEC = 100, /* of running, that make up for one failure */
        STOP_TIMEOUT_USEC = 10000000,
        ARGUMENTS_MAX = 128,
        N_ENVIRONMENT = 6,
        ENVIRONMENT_TEXT_MAX = 512,
};

struct service {
        struct service_config config;
        struct reaper *reaper;
        int program_fd; /* the sealed copy */
        struct child child;
        bool is_running;
        bool is_stopping;
        uint64_t backoff_usec;
        uint64_t started_msec;
        sd_event_source *timer; /* next start, or the end of patience when stopping */
};

static int copy_program(const char *path, int *ret_fd)
{
        _cleanup_(closep) int from = open(path, O_RDONLY | O_CLOEXEC);
        _cleanup_(closep) int to = memfd_create("hotcelld", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        struct stat status;
        off_t copied = 0;

        if (from < 0 || to < 0 || fstat(from, &status) < 0)
                return error_origin(-errno);
        if (!S_ISREG(status.st_mode))
                return error_origin(-EACCES);
        while (copied < status.st_size) {
                ssize_t n = sendfile(to, from, NULL, (size_t)(status.st_size - copied));

                if (n < 0 && errno == EINTR)
                        continue;
                if (n <= 0)
                        return error_origin(n < 0 ? -errno : -EIO);
                copied += n;
        }
        if (fchmod(to, 0555) < 0 ||
            fcntl(to, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
                return error_origin(-errno);
        *ret_fd = take_fd(&to);
        return 0;
}

/* In the child. Order: groups before user, capabilities last of what needs them, NNP any time. */
static int become_server(const struct service *service, pid_t runtime)
{
        gid_t gid = service->config.gid;
        sigset_t none;

        (void)sigemptyset(&none);
        if (setgroups(1, &gid) < 0 || setresgid(gid, gid, gid) < 0)
                return -errno;
        /* While it still may: the bounding set. Capabilities proper go with the user. */
        if (service->config.uid != 0) {
                for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
                        (void)prctl(PR_CAPBSET_DROP, capability);
                if (setresuid(service->config.uid, service->config.uid, service->config.uid) < 0)
                        return -errno;
        }
        if (host_privilege_give_up() < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
                return -errno;
        /* After the change of user, which would clear it. */
        if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
                return -errno;
        if (getppid() != runtime)
                return -ESRCH;
        (void)umask(022);
        return sigprocmask(SIG_SETMASK, &none, NULL) < 0 ? -errno : 0;
}

static size_t count_arguments(const struct service *service)
{
        size_t n = 0;

        while (service->config.arguments[n])
                n++;
        return n;
}

/* Nothing of the runtime's environment but the path and the time zone's. */
static void fill_environment(const struct service *service, char *environment[N_ENVIRONMENT],
                             char *text)
{
        const char *zone = getenv("TZ");
        size_t n = 0;
        char *at = text;
        char *end = text + ENVIRONMENT_TEXT_MAX;

        environment[n++] = unconst("PATH=/usr/local/bin:/usr/bin:/bin");
        environment[n++] = at;
        at += snprintf(at, (size_t)(end - at), "USER=%.64s", service->config.user) + 1;
        environment[n++] = at;
        at += snprintf(at, (size_t)(end - at), "HOME=%.128s", service->config.home) + 1;
        if (zone) {
                environment[n++] = at;
                (void)snprintf(at, (size_t)(end - at), "TZ=%.64s", zone);
        }
        environment[n] = NULL;
}

static void run_program(const struct service *service, pid_t runtime, char *argv[])
{
        char *environment[N_ENVIRONMENT];
        char text[ENVIRONMENT_TEXT_MAX];
        int program_fd;
        int r;

        r = become_server(service, runtime);
        if (r) {
                log_error("cannot become the server's user: user=%s error=%s", service->config.user,
                          strerrorname_np(-r));
                _exit(SERVICE_EXIT_CONFIG);
        }
        fill_environment(service, environment, text);
        program_fd = dup3(service->program_fd, STDERR_FILENO + 1, O_CLOEXEC);
        if (program_fd < 0)
                program_fd = service->program_fd; /* it was that one */
        (void)close_range((unsigned)program_fd + 1, ~0U, 0);
        (void)fexecve(program_fd, argv, environment);
        log_error("cannot execute hotcelld: error=%s", strerrorname_np(errno));
        _exit(SERVICE_EXIT_CONFIG);
}

static void on_exit_of_service(struct child *child, int status);

static int start(struct service *service)
{
        char *argv[ARGUMENTS_MAX + 2] = { unconst("hotcelld") };
        pid_t runtime = getpid();
        pid_t pid;

        for (size_t i = 0; service->config.arguments[i]; i++)
                argv[i + 1] = service->config.arguments[i];

        service->started_msec = clock_monotonic_msec();
        pid = fork();
        if (pid < 0)
                return error_origin(-errno);
        if (pid == 0)
                run_program(service, runtime, argv);
        service->child = (struct child){ .pid = pid, .on_exit = on_exit_of_service };
        service->is_running = true;
        reaper_watch(service->reaper, &service->child);
        log_info("started hotcelld: pid=%d user=%s", pid, service->config.user);
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
        log_warning("starting hotcelld again: in_msec=%llu",
                    (unsigned long long)service->backoff_usec / 1000);
        if (set_timer(service, service->backoff_usec))
                give_up(service, EXIT_FAILURE);
        service->backoff_usec = MIN(service->backoff_usec * 2, BACKOFF_MAX_USEC);
}

static void on_exit_of_service(struct child *child, int status)
{
        struct service *service = CONTAINER_OF(child, struct service, child);

        service->is_running = false;
        if (service->is_stopping) {
                (void)sd_event_source_set_enabled(service->timer, SD_EVENT_OFF);
                log_info("hotcelld stopped: status=%#x", status);
                service->config.on_stopped(service->config.userdata);
                return;
        }
        if (WIFEXITED(status) && WEXITSTATUS(status) == SERVICE_EXIT_CONFIG) {
                log_error("hotcelld refuses its configuration: giving up");
                give_up(service, SERVICE_EXIT_CONFIG);
                return;
        }
        if (WIFSIGNALED(status))
                log_warning("hotcelld ended: signal=%d", WTERMSIG(status));
        else
                log_warning("hotcelld ended: exit_code=%d", WEXITSTATUS(status));
        start_later(service);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct service *service = userdata;
        int r;

        (void)source;
        (void)usec;
        if (service->is_stopping) {
                log_warning("hotcelld does not stop: killing it");
                if (service->is_running)
                        (void)kill(service->child.pid, SIGKILL);
                return 0;
        }
        r = start(service);
        if (r) {
                log_warning("cannot start hotcelld: error=%s", strerrorname_np(-r));
                start_later(service);
        }
        return 0;
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
        if (count_arguments(service) > ARGUMENTS_MAX)
                return error_origin(-E2BIG); /* NOLINT(clang-analyzer-unix.Malloc): _cleanup_ */
        r = copy_program(config->program, &service->program_fd);
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
        (void)close_fd(service->program_fd);
        free(service);
        return NULL;
}
