#include "runtime/supervisor/program.h"

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
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/supervisor/host_privilege.h"
#include "runtime/supervisor/service.h"

enum {
        N_ENVIRONMENT = 6,
        ENVIRONMENT_TEXT_MAX = 512,
};

int program_copy(const char *name, const char *path, int *ret_fd)
{
        _cleanup_(closep) int from = open(path, O_RDONLY | O_CLOEXEC);
        _cleanup_(closep) int to = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
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
static int become_user(const struct service_config *config, pid_t runtime)
{
        gid_t gid = config->gid;
        sigset_t none;

        (void)sigemptyset(&none);
        if (setgroups(1, &gid) < 0 || setresgid(gid, gid, gid) < 0)
                return -errno;
        /* While it still may: the bounding set. Capabilities proper go with the user. */
        if (config->uid != 0) {
                for (int capability = 0; prctl(PR_CAPBSET_READ, capability) >= 0; capability++)
                        (void)prctl(PR_CAPBSET_DROP, capability);
                if (setresuid(config->uid, config->uid, config->uid) < 0)
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

/* Nothing of the runtime's environment but the path and the time zone's. */
static void fill_environment(const struct service_config *config, char *environment[N_ENVIRONMENT],
                             char *text)
{
        const char *zone = getenv("TZ");
        size_t n = 0;
        char *at = text;
        char *end = text + ENVIRONMENT_TEXT_MAX;

        environment[n++] = unconst("PATH=/usr/local/bin:/usr/bin:/bin");
        environment[n++] = at;
        at += snprintf(at, (size_t)(end - at), "USER=%.64s", config->user) + 1;
        environment[n++] = at;
        at += snprintf(at, (size_t)(end - at), "HOME=%.128s", config->home) + 1;
        if (zone) {
                environment[n++] = at;
                (void)snprintf(at, (size_t)(end - at), "TZ=%.64s", zone);
        }
        environment[n] = NULL;
}

/* Puts both where they belong, and nothing above them. Returns the program's. */
static int arrange_descriptors(int program_fd, int socket_fd)
{
        int first = STDERR_FILENO + 1;
        int program = fcntl(program_fd, F_DUPFD_CLOEXEC, first + 2);
        int passed = socket_fd < 0 ? -1 : fcntl(socket_fd, F_DUPFD_CLOEXEC, first + 2);

        if (program < 0 || (socket_fd >= 0 && (passed < 0 || dup2(passed, first) < 0)))
                return -errno;
        if (dup3(program, first + 1, O_CLOEXEC) < 0)
                return -errno;
        if (socket_fd < 0)
                (void)close_range((unsigned)first, (unsigned)first, 0);
        (void)close_range((unsigned)first + 2, ~0U, 0);
        return first + 1;
}

void program_run(const struct service_config *config, int fd, int socket_fd, pid_t runtime,
                 char *argv[])
{
        char *environment[N_ENVIRONMENT];
        char text[ENVIRONMENT_TEXT_MAX];
        int program_fd;
        int r;

        r = become_user(config, runtime);
        if (r) {
                log_error("cannot become the user of %s: user=%s error=%s", config->name,
                          config->user, strerrorname_np(-r));
                _exit(SERVICE_EXIT_CONFIG);
        }
        fill_environment(config, environment, text);
        program_fd = arrange_descriptors(fd, socket_fd);
        if (program_fd >= 0)
                (void)fexecve(program_fd, argv, environment);
        log_error("cannot execute %s: error=%s", config->name, strerrorname_np(errno));
        _exit(SERVICE_EXIT_CONFIG);
}
