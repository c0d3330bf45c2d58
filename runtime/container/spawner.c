/*
 * The runtime's side: a request goes out as one packet with its descriptors, and the answer is
 * waited for.
 *
 * The template's mount is cloned here, in the host's mount namespace, and sent as a detached mount;
 * so the spawner needs no sight of the host's files.
 */
#include "runtime/container/spawner.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/container/spawn_packet.h"
#include "runtime/container/spawner_process.h"

struct spawner {
        pid_t pid;
        int socket_fd;
        struct spawn_packet packet; /* the request under construction */
};

static void status_pipe_deinit(int (*ends)[2])
{
        (void)close_fd((*ends)[0]);
        (void)close_fd((*ends)[1]);
}

static int wait_answer(const struct spawner *spawner, struct spawn_answer *ret_answer,
                       int ret_fds[static SPAWN_ANSWER_FDS_MAX])
{
        struct pollfd poll_fd = { .fd = spawner->socket_fd, .events = POLLIN };
        size_t n_answer = sizeof(*ret_answer);
        size_t n_fds = SPAWN_ANSWER_FDS_MAX;
        int r;

        while (poll(&poll_fd, 1, -1) < 0) {
                if (errno != EINTR)
                        return error_origin(-errno);
        }
        r = io_receive_packet(spawner->socket_fd, ret_answer, &n_answer, ret_fds, &n_fds);
        if (r == IO_E_END || r == -ECONNRESET)
                return SPAWNER_E_DEAD;
        if (r == IO_E_TOO_BIG) { /* the two ends are one program, so it is a want of descriptors */
                /* Nobody will hear of it: it is our child, and not reaped. */
                if (ret_answer->failure.error_number == 0 && ret_answer->pid > 0)
                        (void)kill(ret_answer->pid, SIGKILL);
                return error_origin(-EMFILE);
        }
        if (r)
                return error_fold(r);
        return n_answer == sizeof(*ret_answer) ? 0 : error_origin(-EBADMSG);
}

static int exchange(struct spawner *spawner, size_t n_packet, const int *fds, size_t n_fds,
                    struct spawned *ret_spawned, struct spawn_failure *ret_failure)
{
        struct spawn_answer answer = { 0 };
        int answer_fds[SPAWN_ANSWER_FDS_MAX] = { -1, -1 };
        int r;

        r = io_send_packet(spawner->socket_fd, &spawner->packet, n_packet, fds, n_fds);
        if (r == -EPIPE || r == -ECONNRESET)
                return SPAWNER_E_DEAD;
        if (r)
                return error_fold(r);
        r = wait_answer(spawner, &answer, answer_fds);
        if (r)
                return r < 0 ? error_fold(r) : r;
        if (answer.failure.error_number) {
                *ret_failure = answer.failure;
                return SPAWNER_E_STEP;
        }
        ret_spawned->pid = answer.pid;
        ret_spawned->pidfd = answer_fds[0];
        ret_spawned->scratch_fd = answer_fds[1];
        return 0;
}

/* Makes the status pipe and sends the request; @fds has room for it in SPAWN_SLOT_STATUS. */
static int start(struct spawner *spawner, size_t n_packet, int *fds, size_t n_fds,
                 struct spawned *ret_spawned, struct spawn_failure *ret_failure)
{
        _cleanup_(status_pipe_deinit) int ends[2] = { -1, -1 };
        struct spawned spawned;
        int r;

        if (pipe2(ends, O_CLOEXEC | O_NONBLOCK) < 0)
                return error_origin(-errno);
        fds[SPAWN_SLOT_STATUS] = ends[1];
        r = exchange(spawner, n_packet, fds, n_fds, &spawned, ret_failure);
        if (r)
                return r < 0 ? error_fold(r) : r;
        spawned.status_fd = take_fd(&ends[0]);
        *ret_spawned = spawned;
        return 0;
}

static size_t append_fds(int *fds, size_t n_fds, const int *more, size_t n_more)
{
        for (size_t i = 0; i < n_more; i++)
                fds[n_fds++] = more[i];
        return n_fds;
}

static int fail(struct spawn_failure failure, struct spawn_failure *ret_failure)
{
        *ret_failure = failure;
        return SPAWNER_E_STEP;
}

int spawner_start_sandbox(struct spawner *spawner, const struct spawn_sandbox *sandbox,
                          struct spawned *ret_spawned, struct spawn_failure *ret_failure)
{
        struct spawn_text text = { .packet = &spawner->packet, .size = SPAWN_TEXT_MAX };
        _cleanup_(closep) int template_fd = -1;
        int fds[SPAWN_PACKET_FDS_MAX];
        size_t n_fds;

        assert(sandbox->cgroup.n_tasks <= SPAWN_TASKS_MAX);
        /* A tmpfs takes a size of zero for no limit. */
        assert(sandbox->disk_bytes > 0 && sandbox->shm_bytes > 0 && sandbox->terminals > 0);
        assert(sandbox->id_base > 0 && sandbox->id_base <= UINT32_MAX - SPAWN_IDS);

        template_fd =
                open_tree(AT_FDCWD, sandbox->template_root, OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC);
        if (template_fd < 0)
                return fail((struct spawn_failure){ .error_number = errno,
                                                    .step = "open the template" },
                            ret_failure);

        spawner->packet.header = (struct spawn_header){
                .kind = SPAWN_SANDBOX,
                .id_base = sandbox->id_base,
                .terminals = sandbox->terminals,
                .disk_bytes = sandbox->disk_bytes,
                .disk_inodes = sandbox->disk_inodes,
                .shm_bytes = sandbox->shm_bytes,
                .n_tasks = (uint32_t)sandbox->cgroup.n_tasks,
                .n_arguments = 1, /* the host name */
        };
        if (spawn_text_put(&text, sandbox->sandbox_id) || spawn_text_put(&text, sandbox->hostname))
                return error_origin(-E2BIG);

        fds[SPAWN_SLOT_CGROUP] = sandbox->cgroup.id_fd;
        fds[SPAWN_SLOT_PLACE] = template_fd;
        fds[SPAWN_SLOT_NETNS] = sandbox->netns_fd;
        n_fds = append_fds(fds, _SPAWN_SLOT_N, sandbox->cgroup.tasks_fds, sandbox->cgroup.n_tasks);
        return start(spawner, spawn_text_packet_size(&text), fds, n_fds, ret_spawned, ret_failure);
}

static int put_strings(struct spawn_text *text, const char *const *strings, uint32_t *ret_n)
{
        uint32_t n = 0;

        for (; strings[n]; n++) {
                int r = spawn_text_put(text, strings[n]);

                if (r)
                        return r;
        }
        *ret_n = n;
        return 0;
}

static int put_process(struct spawn_text *text, const struct spawn_process *process,
                       struct spawn_header *header)
{
        int r;

        r = spawn_text_put(text, process->working_directory);
        if (r == 0)
                r = put_strings(text, process->argv, &header->n_arguments);
        if (r == 0)
                r = put_strings(text, process->environment, &header->n_variables);
        return r;
}

int spawner_start_process(struct spawner *spawner, const struct spawn_process *process,
                          struct spawned *ret_spawned, struct spawn_failure *ret_failure)
{
        struct spawn_text text = { .packet = &spawner->packet, .size = SPAWN_TEXT_MAX };
        struct spawn_header *header = &spawner->packet.header;
        int fds[SPAWN_PACKET_FDS_MAX];
        size_t n_fds;

        assert(process->cgroup.n_tasks <= SPAWN_TASKS_MAX);
        assert(process->n_fds >= 3 && process->n_fds <= SPAWN_FDS_MAX);
        assert(process->argv[0]);

        *header = (struct spawn_header){
                .kind = SPAWN_PROCESS,
                .id_base = process->id_base,
                .uid = process->uid,
                .gid = process->gid,
                .open_files = process->open_files,
                .n_tasks = (uint32_t)process->cgroup.n_tasks,
                .n_streams = (uint32_t)process->n_fds,
        };
        /* As execve would say it. */
        if (put_process(&text, process, header))
                return fail((struct spawn_failure){ .error_number = E2BIG,
                                                    .fault = SPAWN_FAULT_PROGRAM,
                                                    .step = "execute the program" },
                            ret_failure);

        fds[SPAWN_SLOT_CGROUP] = process->cgroup.id_fd;
        fds[SPAWN_SLOT_PLACE] = process->sandbox_pidfd;
        n_fds = append_fds(fds, SPAWN_SLOT_NETNS, process->cgroup.tasks_fds,
                           process->cgroup.n_tasks);
        n_fds = append_fds(fds, n_fds, process->fds, process->n_fds);
        return start(spawner, spawn_text_packet_size(&text), fds, n_fds, ret_spawned, ret_failure);
}

int spawn_status_read(int status_fd, struct spawn_failure *ret_failure)
{
        struct spawn_failure failure;
        ssize_t n;

        do
                n = read(status_fd, &failure, sizeof(failure));
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        if (n == 0)
                return 0;
        if (n != sizeof(failure) || (unsigned)failure.fault >= _SPAWN_FAULT_N)
                return error_origin(-EBADMSG);
        *ret_failure = failure;
        return SPAWNER_E_STEP;
}

/* In the child: dies with the runtime, also if that died before it could be asked for. */
static _Noreturn void become_spawner(pid_t runtime, int socket_fd, int init_fd)
{
        if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != runtime)
                _exit(1);
        spawner_process_run(socket_fd, init_fd);
}

static int wait_ready(const struct spawner *spawner)
{
        struct spawn_answer ready = { 0 };
        int no_fds[SPAWN_ANSWER_FDS_MAX];
        int r = wait_answer(spawner, &ready, no_fds);

        if (r)
                return error_fold(r);
        return ready.failure.error_number ? error_origin(-ready.failure.error_number) : 0;
}

static int fork_spawner(struct spawner *spawner, int init_fd)
{
        _cleanup_(closep) int far_fd = -1;
        pid_t runtime = getpid();
        int ends[2];

        if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends) < 0)
                return error_origin(-errno);
        spawner->socket_fd = ends[0];
        far_fd = ends[1];

        spawner->pid = fork();
        if (spawner->pid < 0)
                return error_origin(-errno);
        if (spawner->pid == 0)
                become_spawner(runtime, far_fd, init_fd);
        return 0;
}

int spawner_new(const char *init_path, struct spawner **ret_spawner)
{
        _cleanup_(closep) int init_fd = open(init_path, O_RDONLY | O_CLOEXEC);
        struct spawner *spawner;
        int r;

        if (init_fd < 0)
                return error_origin(-errno);
        spawner = calloc(1, sizeof(*spawner));
        if (!spawner)
                return error_origin(-ENOMEM);
        spawner->socket_fd = -1;

        r = fork_spawner(spawner, init_fd);
        if (r == 0)
                r = wait_ready(spawner);
        if (r) {
                (void)spawner_free(spawner);
                return error_fold(r);
        }
        *ret_spawner = spawner;
        return 0;
}

struct spawner *spawner_free(struct spawner *spawner)
{
        if (!spawner)
                return NULL;
        (void)close_fd(spawner->socket_fd);
        if (spawner->pid > 0) {
                /* The runtime may have reaped it already, and its pid may be another's: only the
                 * end of the connection tells it to go. */
                while (waitpid(spawner->pid, NULL, 0) < 0 && errno == EINTR)
                        ;
        }
        free(spawner);
        return NULL;
}

pid_t spawner_pid(const struct spawner *spawner)
{
        return spawner->pid;
}
