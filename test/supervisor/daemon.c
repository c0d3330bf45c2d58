#include "test/supervisor/daemon.h"

#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/supervisor/run_dir.h"
#include "test/lib/patience.h"
#include "test/lib/scratch.h"

enum {
        ENDING_SECONDS = 60,
};

#define WAIT_MSEC (20000U * (unsigned)test_patience())

#define STORE_DEFAULT "/var/lib/hotcell/templates"

#define must(condition) ck_assert_msg((condition), "%s: %s", #condition, strerror(errno))

const char *daemon_store(void)
{
        const char *path = getenv("HOTCELL_STORE");

        return path ? path : STORE_DEFAULT;
}

void daemon_python_digest(char digest[static 80])
{
        char link[128];
        char path[160];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "%s/by-name/python", daemon_store());
        n = readlink(path, link, sizeof(link) - 1);
        must(n > 0);
        link[n] = '\0';
        (void)snprintf(digest, 80, "%s", strrchr(link, '/') + 1);
}

const char *daemon_missing(void)
{
        char path[160];

        if (geteuid() != 0)
                return "needs root";
        (void)snprintf(path, sizeof(path), "%s/by-name/python", daemon_store());
        return access(path, F_OK) == 0 ? NULL : "needs the python template";
}

/* Nothing is taken from a daemon that does not end: the alarm ends this process. */
static void await_unlocked(const char *run_dir)
{
        char path[160];
        int fd;

        (void)snprintf(path, sizeof(path), "%s/private/lock", run_dir);
        fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd < 0)
                return;
        (void)alarm(ENDING_SECONDS * (unsigned)test_patience());
        while (flock(fd, LOCK_EX) < 0 && errno == EINTR)
                ;
        (void)alarm(0);
        (void)close(fd);
}

/* After a test that failed; the daemon got SIGTERM with its end. One that was killed left groups.
 */
static void clean_after(const void *data)
{
        const char *path = data;
        struct run_dir run_dir;

        await_unlocked(path);
        if (run_dir_open(&run_dir, path) == 0) {
                run_dir_remove_leftovers(&run_dir);
                run_dir_close(&run_dir);
        }
        (void)scratch_remove_tree(path);
}

void daemon_prepare(struct daemon *daemon)
{
        (void)snprintf(daemon->run_dir, sizeof(daemon->run_dir), "/run/hotcell-test.XXXXXX");
        must(mkdtemp(daemon->run_dir));
        janitor_hire(&daemon->janitor, clean_after, daemon->run_dir);
        must(chmod(daemon->run_dir, 0755) == 0);
        (void)snprintf(daemon->log_path, sizeof(daemon->log_path), "%s/log", daemon->run_dir);
}

void daemon_launch(struct daemon *daemon, char *const arguments[])
{
        char *argv[48] = { (char *)(uintptr_t)HOTCELL_RUNTIME_PATH,
                           (char *)(uintptr_t) "--run-dir",
                           daemon->run_dir,
                           (char *)(uintptr_t) "--store",
                           (char *)(uintptr_t)(daemon->store ? daemon->store : daemon_store()),
                           (char *)(uintptr_t) "--init",
                           (char *)(uintptr_t)HOTCELL_INIT_PATH,
                           (char *)(uintptr_t) "--server-user",
                           (char *)(uintptr_t) "nobody",
                           (char *)(uintptr_t) "--log-level",
                           (char *)(uintptr_t) "debug" };
        size_t n = 11;
        pid_t test = getpid();
        int log;

        for (size_t i = 0; arguments && arguments[i]; i++)
                argv[n++] = arguments[i];
        daemon->pid = fork();
        must(daemon->pid >= 0);
        if (daemon->pid > 0)
                return;
        /* A test that fails ends without ending it. */
        (void)prctl(PR_SET_PDEATHSIG, SIGTERM);
        if (getppid() != test)
                _exit(EXIT_FAILURE);
        if (daemon->without_capability)
                (void)prctl(PR_CAPBSET_DROP, daemon->without_capability);
        log = open(daemon->log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
        (void)dup2(open("/dev/null", O_RDONLY), STDIN_FILENO);
        (void)dup2(log, STDOUT_FILENO);
        (void)dup2(log, STDERR_FILENO);
        (void)execv(argv[0], argv);
        _exit(127);
}

static void pause_msec(long msec)
{
        (void)nanosleep(&(struct timespec){ .tv_nsec = msec * 1000000 }, NULL);
}

static void read_groups(struct daemon *daemon)
{
        char path[160];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/private/groups", daemon->run_dir);
        file = fopen(path, "re");
        must(file);
        daemon->n_groups = 0;
        while (daemon->n_groups < ARRAY_SIZE(daemon->groups) &&
               fgets(daemon->groups[daemon->n_groups], sizeof(daemon->groups[0]), file)) {
                char *line = daemon->groups[daemon->n_groups++];

                line[strcspn(line, "\n")] = '\0';
        }
        (void)fclose(file);
        ck_assert_uint_gt(daemon->n_groups, 0);
}

void daemon_await_log(const struct daemon *daemon, const char *text)
{
        for (unsigned waited = 0; !daemon_log_has(daemon, text); waited += 5) {
                ck_assert_msg(waitpid(daemon->pid, NULL, WNOHANG) == 0, "the daemon ended: %s",
                              daemon->log_path);
                ck_assert_uint_lt(waited, WAIT_MSEC);
                pause_msec(5);
        }
}

void daemon_await(struct daemon *daemon)
{
        daemon_await_log(daemon, "ready: socket=");
        read_groups(daemon);
}

void daemon_start(struct daemon *daemon, char *const arguments[])
{
        daemon_prepare(daemon);
        daemon_launch(daemon, arguments);
        daemon_await(daemon);
}

int daemon_wait(struct daemon *daemon)
{
        int status = 0;

        for (unsigned waited = 0; waited < WAIT_MSEC; waited += 5) {
                if (waitpid(daemon->pid, &status, WNOHANG) == daemon->pid) {
                        daemon->pid = 0;
                        return status;
                }
                pause_msec(5);
        }
        (void)kill(daemon->pid, SIGKILL);
        ck_abort_msg("the daemon did not end");
}

void daemon_remove(struct daemon *daemon)
{
        static const char *const names[] = { "log", "runtime.sock", "private/groups",
                                             "private/lock" };
        char path[160];

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                (void)snprintf(path, sizeof(path), "%s/%s", daemon->run_dir, names[i]);
                (void)unlink(path);
        }
        (void)snprintf(path, sizeof(path), "%s/private", daemon->run_dir);
        (void)rmdir(path);
        (void)rmdir(daemon->run_dir);
        janitor_dismiss(&daemon->janitor);
}

int daemon_stop(struct daemon *daemon)
{
        int status;

        must(kill(daemon->pid, SIGTERM) == 0);
        status = daemon_wait(daemon);
        daemon_remove(daemon);
        return status;
}

bool daemon_log_has(const struct daemon *daemon, const char *text)
{
        static char log[4 << 20];

        if (io_read_file(AT_FDCWD, daemon->log_path, log, sizeof(log), NULL))
                return false;
        return strstr(log, text);
}

/* --- traces ----------------------------------------------------------------------------------- */

static size_t count_entries(const char *path)
{
        DIR *dir = opendir(path);
        size_t n = 0;

        if (!dir)
                return 0;
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
                n += entry->d_name[0] != '.';
        (void)closedir(dir);
        return n;
}

static size_t count_directories(const char *path)
{
        DIR *dir = opendir(path);
        size_t n = 0;

        if (!dir)
                return 0;
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
                char below[1024];

                if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                        continue;
                (void)snprintf(below, sizeof(below), "%s/%s", path, entry->d_name);
                n += 1 + count_directories(below);
        }
        (void)closedir(dir);
        return n;
}

static size_t count_groups(const struct daemon *daemon)
{
        size_t n = 0;

        for (size_t i = 0; i < daemon->n_groups; i++)
                n += count_directories(daemon->groups[i]);
        return n;
}

static size_t count_lines(const char *path)
{
        FILE *file = fopen(path, "re");
        size_t n = 0;
        int c;

        if (!file)
                return 0;
        while ((c = fgetc(file)) != EOF)
                n += c == '\n';
        (void)fclose(file);
        return n;
}

static size_t count_netns_fds(pid_t pid)
{
        char path[64];
        size_t n = 0;
        DIR *dir;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", pid);
        dir = opendir(path);
        must(dir);
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir)) {
                char target[64];
                ssize_t length = readlinkat(dirfd(dir), entry->d_name, target, sizeof(target) - 1);

                n += length > 4 && strncmp(target, "net:", 4) == 0;
        }
        (void)closedir(dir);
        return n;
}

struct traces daemon_traces(const struct daemon *daemon)
{
        struct traces traces = { 0 };
        char path[96];
        FILE *file;
        int child;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", daemon->pid);
        traces.n_fds = count_entries(path);
        traces.n_groups = count_groups(daemon);
        traces.n_netns = count_netns_fds(daemon->pid);
        (void)snprintf(path, sizeof(path), "/proc/%d/task/%d/children", daemon->pid, daemon->pid);
        file = fopen(path, "re");
        must(file);
        while (fscanf(file, "%d", &child) == 1) {
                traces.n_children++;
                (void)snprintf(path, sizeof(path), "/proc/%d/mounts", child);
                traces.n_mounts += count_lines(path);
        }
        (void)fclose(file);
        return traces;
}

size_t daemon_groups_left(const struct daemon *daemon)
{
        size_t n = 0;

        for (size_t i = 0; i < daemon->n_groups; i++)
                n += access(daemon->groups[i], F_OK) == 0;
        return n;
}
