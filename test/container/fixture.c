#include "test/container/fixture.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bpf/egress.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group.h"
#include "runtime/cgroup/leftover.h"
#include "test/lib/patience.h"

/* Not Check's, which only work within a test: the benchmark lives on this, too. */
#define must(condition)                                                                            \
        do {                                                                                       \
                if (!(condition))                                                                  \
                        must_fail(__LINE__, #condition);                                           \
        } while (0)

enum { REMOVE_MSEC = 10000 };

#define DEFAULT_TEMPLATE_ROOT "/var/lib/hotcell/templates/by-name/python/root"

static _Noreturn void must_fail(int line, const char *condition)
{
        (void)fprintf(stderr, "fixture.c:%d: %s: %s\n", line, condition, strerror(errno));
        abort();
}

static void must_start(int result, const struct spawn_failure *failure)
{
        if (result == 0)
                return;
        (void)fprintf(stderr, "start: result=%d step=\"%s\": %s\n", result, failure->step,
                      strerror(failure->error_number));
        abort();
}

static const char *template_root(void)
{
        const char *root = getenv("HOTCELL_TEST_TEMPLATE_ROOT");

        return root ? root : DEFAULT_TEMPLATE_ROOT;
}

const char *fixture_missing(void)
{
        if (geteuid() != 0)
                return "not root";
        if (access(template_root(), F_OK) < 0)
                return "no template root (HOTCELL_TEST_TEMPLATE_ROOT)";
        return NULL;
}

/* The caller's own group in the hierarchy that /proc/self/cgroup calls @name (`0::`, `:memory:`).
 */
static bool own_group(const char *name, char *ret_path, size_t size)
{
        char text[8192];
        char *at;

        must(io_read_file(AT_FDCWD, "/proc/self/cgroup", text, sizeof(text), NULL) == 0);
        at = strstr(text, name);
        if (!at)
                return false;
        at += strlen(name);
        at[strcspn(at, "\n")] = '\0';
        (void)snprintf(ret_path, size, "%s", at);
        return true;
}

/* Where a cgroup file system is mounted: by type, and for v1 by an option. */
static bool find_mount(const char *type, const char *option, char *ret_path, size_t size)
{
        _cleanup_(fclosep) FILE *file = fopen("/proc/self/mounts", "re");
        char line[1024];

        must(file);
        while (fgets(line, sizeof(line), file)) {
                char path[256];
                char found_type[64];
                char options[256];

                if (sscanf(line, "%*s %255s %63s %255s", path, found_type, options) != 3)
                        continue;
                if (strcmp(found_type, type) != 0 || (option && !strstr(options, option)))
                        continue;
                (void)snprintf(ret_path, size, "%s", path);
                return true;
        }
        return false;
}

/* What is killed in cgroup2 leaves the others, too. */
static void remove_group(const void *path)
{
        (void)cgroup_remove_leftover(path, REMOVE_MSEC);
}

static const char *add_group(struct fixture *f, const char *mount, const char *own)
{
        char *path = f->cgroup_paths[f->n_cgroup_paths];

        (void)snprintf(path, sizeof(f->cgroup_paths[0]), "%s%s/%s", mount,
                       strcmp(own, "/") == 0 ? "" : own, f->cgroup_name);
        janitor_hire(&f->janitors[f->n_cgroup_paths++], remove_group, path);
        must(mkdir(path, 0755) == 0);
        return path;
}

static void add_v1_group(struct fixture *f, const char *controller)
{
        char name[32];
        char option[32];
        char mount[256];
        char own[128];
        char tasks[600];
        int fd;

        (void)snprintf(name, sizeof(name), ":%s:", controller);
        (void)snprintf(option, sizeof(option), ",%s", controller);
        if (!own_group(name, own, sizeof(own)) ||
            !find_mount("cgroup", option, mount, sizeof(mount)))
                return;
        (void)snprintf(tasks, sizeof(tasks), "%s/tasks", add_group(f, mount, own));
        fd = open(tasks, O_WRONLY | O_CLOEXEC);
        must(fd >= 0);
        f->cgroup.tasks_fds[f->cgroup.n_tasks++] = fd;
}

/* A sandbox does not start without. */
static void put_up_egress_wall(struct fixture *f)
{
        struct egress_wall_config config = { .cgroup_fd = f->cgroup.id_fd, .n_sandboxes = 1 };
        char why[EGRESS_WHY_BUFFER] = "";

        if (cgroup_id_of(config.cgroup_fd, &config.cgroup_id) ||
            egress_wall_new(&config, &f->egress, why)) {
                (void)fprintf(stderr, "egress wall: %s\n", why);
                abort();
        }
}

void fixture_init_cgroups(struct fixture *f)
{
        char mount[256];
        char own[128];

        *f = (struct fixture){ .netns_fd = -1 };
        must(id_generate("hotcell-test", f->cgroup_name) == 0);
        must(own_group("0::", own, sizeof(own)));
        must(find_mount("cgroup2", NULL, mount, sizeof(mount)));
        f->cgroup.id_fd = open(add_group(f, mount, own), O_PATH | O_DIRECTORY | O_CLOEXEC);
        must(f->cgroup.id_fd >= 0);
        put_up_egress_wall(f);
        add_v1_group(f, "memory");
        add_v1_group(f, "cpu");
        add_v1_group(f, "pids");
}

void fixture_deinit_cgroups(struct fixture *f)
{
        const struct timespec pause = { .tv_nsec = 5000000 };

        (void)io_write_file(f->cgroup.id_fd, "cgroup.kill", "1");
        f->cgroup.id_fd = close_fd(f->cgroup.id_fd);
        f->egress = egress_wall_free(f->egress);
        for (size_t i = 0; i < f->cgroup.n_tasks; i++)
                (void)close(f->cgroup.tasks_fds[i]);
        /* The killed need a moment to leave, and nobody here is their parent any more. */
        for (size_t i = 0; i < f->n_cgroup_paths; i++) {
                for (size_t n = 0; n < 1000 && rmdir(f->cgroup_paths[i]) < 0 && errno == EBUSY; n++)
                        (void)nanosleep(&pause, NULL);
                janitor_dismiss(&f->janitors[i]);
        }
}

static _Noreturn void hold_netns(int ready_fd)
{
        struct ifreq lo = { .ifr_name = "lo", .ifr_flags = IFF_UP };
        int socket_fd;

        if (unshare(CLONE_NEWNET) < 0)
                _exit(1);
        socket_fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (ioctl(socket_fd, SIOCSIFFLAGS, &lo) < 0 || write(ready_fd, "", 1) != 1)
                _exit(1);
        for (;;)
                (void)pause();
}

/* In a child, so that the tests stay where they are. */
static int make_netns(void)
{
        int ends[2];
        char path[64];
        pid_t child;
        char byte;
        int fd;

        must(pipe2(ends, O_CLOEXEC) == 0);
        child = fork();
        must(child >= 0);
        if (child == 0)
                hold_netns(ends[1]);
        (void)close(ends[1]);
        must(read(ends[0], &byte, 1) == 1);
        (void)close(ends[0]);
        (void)snprintf(path, sizeof(path), "/proc/%d/ns/net", (int)child);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        must(fd >= 0);
        (void)kill(child, SIGKILL);
        (void)waitpid(child, NULL, 0);
        return fd;
}

void fixture_init(struct fixture *f)
{
        f->template_root = template_root();
        f->next_id_base = FIXTURE_ID_BASE;
        f->netns_fd = make_netns();
        must(spawner_new(HOTCELL_INIT_PATH, &f->spawner) == 0);
}

void fixture_deinit(struct fixture *f)
{
        f->spawner = spawner_free(f->spawner);
        f->netns_fd = close_fd(f->netns_fd);
}

struct spawn_sandbox fixture_sandbox(struct fixture *f)
{
        f->next_id_base += SPAWN_IDS;
        return (struct spawn_sandbox){
                .sandbox_id = "sbx-test",
                .template_root = f->template_root,
                .hostname = "sandbox",
                .id_base = f->next_id_base,
                .disk_bytes = MIB(64),
                .shm_bytes = MIB(16),
                .terminals = 16,
                .netns_fd = f->netns_fd,
                .cgroup = f->cgroup,
        };
}

int status_wait(int status_fd, struct spawn_failure *ret_failure)
{
        struct pollfd poll_fd = { .fd = status_fd, .events = POLLIN };

        must(poll(&poll_fd, 1, 20000 * test_patience()) == 1);
        return spawn_status_read(status_fd, ret_failure);
}

void box_start_with(struct fixture *f, const struct spawn_sandbox *sandbox, struct box *ret_box)
{
        struct spawn_failure failure = { .step = "?" };
        int r;

        ret_box->id_base = sandbox->id_base;
        r = spawner_start_sandbox(f->spawner, sandbox, &ret_box->init, &failure);
        must_start(r, &failure);
        r = status_wait(ret_box->init.status_fd, &failure);
        must_start(r, &failure);
        ret_box->init.status_fd = close_fd(ret_box->init.status_fd);
}

void box_start(struct fixture *f, struct box *ret_box)
{
        struct spawn_sandbox sandbox = fixture_sandbox(f);

        box_start_with(f, &sandbox, ret_box);
}

void box_end(struct box *box)
{
        must(kill(box->init.pid, SIGKILL) == 0);
        must(waitpid(box->init.pid, NULL, 0) == box->init.pid);
        box->init.pidfd = close_fd(box->init.pidfd);
        box->init.scratch_fd = close_fd(box->init.scratch_fd);
}

struct spawn_process fixture_process(struct fixture *f, const struct box *box)
{
        static const char *const environment[] = { "PATH=/usr/local/bin:/usr/bin:/bin", "HOME=/tmp",
                                                   "LANG=C.UTF-8", NULL };

        return (struct spawn_process){
                .sandbox_pidfd = box->init.pidfd,
                .id_base = box->id_base,
                .uid = PROGRAM_UID,
                .gid = PROGRAM_UID,
                .environment = environment,
                .working_directory = "/tmp",
                .open_files = 256,
                .n_fds = 3,
                .cgroup = f->cgroup,
        };
}

static void read_all(int fd, char *ret_text, size_t size)
{
        size_t used = 0;
        ssize_t n;

        while ((n = read(fd, ret_text + used, size - 1 - used)) > 0)
                used += (size_t)n;
        ret_text[used] = '\0';
}

/* /dev/null, and one pipe for both outputs that the program's user owns. */
static int make_streams(struct spawn_process *process)
{
        int ends[2];

        must(pipe2(ends, O_CLOEXEC) == 0);
        must(fchown(ends[1], process->id_base + process->uid, process->id_base + process->gid) ==
             0);
        process->fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
        process->fds[1] = ends[1];
        process->fds[2] = fcntl(ends[1], F_DUPFD_CLOEXEC, 0);
        return ends[0];
}

void process_run(struct fixture *f, struct spawn_process *process, struct outcome *ret_outcome)
{
        _cleanup_(closep) int output_fd = make_streams(process);
        struct spawned spawned;
        int status = 0;

        *ret_outcome = (struct outcome){ 0 };
        ret_outcome->result =
                spawner_start_process(f->spawner, process, &spawned, &ret_outcome->failure);
        for (size_t i = 0; i < 3; i++)
                (void)close(process->fds[i]);
        if (ret_outcome->result)
                return;

        ret_outcome->result = status_wait(spawned.status_fd, &ret_outcome->failure);
        read_all(output_fd, ret_outcome->output, sizeof(ret_outcome->output));
        must(waitpid(spawned.pid, &status, 0) == spawned.pid);
        ret_outcome->exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : 0;
        ret_outcome->signal = WIFSIGNALED(status) ? WTERMSIG(status) : 0;
        (void)close(spawned.status_fd);
        (void)close(spawned.pidfd);
}

static void run_code(struct fixture *f, const struct box *box, const char *interpreter,
                     const char *code, struct outcome *ret_outcome)
{
        const char *const argv[] = { interpreter, "-c", code, NULL };
        struct spawn_process process = fixture_process(f, box);

        process.argv = argv;
        process_run(f, &process, ret_outcome);
        must_start(ret_outcome->result, &ret_outcome->failure);
}

void python_run(struct fixture *f, const struct box *box, const char *code,
                struct outcome *ret_outcome)
{
        run_code(f, box, "/usr/bin/python3", code, ret_outcome);
}

void shell_run(struct fixture *f, const struct box *box, const char *code,
               struct outcome *ret_outcome)
{
        run_code(f, box, "/bin/sh", code, ret_outcome);
}

size_t count_fds(pid_t pid)
{
        char path[64];
        DIR *directory;
        size_t n = 0;

        (void)snprintf(path, sizeof(path), "/proc/%d/fd", (int)pid);
        directory = opendir(path);
        must(directory);
        while (readdir(directory))
                n++;
        (void)closedir(directory);
        return n;
}

size_t count_mounts(pid_t pid)
{
        char path[64];
        _cleanup_(fclosep) FILE *file = NULL;
        size_t n = 0;
        int c;

        (void)snprintf(path, sizeof(path), "/proc/%d/mountinfo", (int)pid);
        file = fopen(path, "re");
        must(file);
        while ((c = fgetc(file)) != EOF)
                n += c == '\n';
        return n;
}
