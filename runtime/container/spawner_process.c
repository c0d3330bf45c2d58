#include "runtime/container/spawner_process.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/keyctl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/container/spawn.h"
#include "runtime/container/spawn_packet.h"
#include "runtime/container/stage.h"

enum {
        FIRST_FREE_FD = 3,
        SOCKET_FD = FIRST_FREE_FD,
        INIT_FD,
        FIRST_RECEIVED_FD,
};

/* A request as it came. Static: its pages would be fresh on a stack or heap, and cost at each fork.
 */
static struct spawn_packet packet;

/* What the runtime ignores or handles is none of its children's business. */
static void reset_signals(void)
{
        sigset_t none;

        for (int number = 1; number < _NSIG; number++)
                (void)signal(number, SIG_DFL);
        (void)sigemptyset(&none);
        (void)sigprocmask(SIG_SETMASK, &none, NULL);
}

/* Standard streams stay the runtime's, for the log. */
static int keep_descriptors(int socket_fd, int init_fd)
{
        int fds[] = { socket_fd, init_fd };

        /* Both out of each other's way first. */
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                fds[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, FIRST_RECEIVED_FD);
                if (fds[i] < 0)
                        return -errno;
        }
        for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
                if (dup3(fds[i], FIRST_FREE_FD + (int)i, O_CLOEXEC) < 0)
                        return -errno;
        }
        return close_range(FIRST_RECEIVED_FD, ~0U, 0) < 0 ? -errno : 0;
}

/* Before anything is made that a process in a sandbox would inherit. */
static int harden(void)
{
        if (prctl(PR_SET_NAME, "hotcell-spawner") < 0 || prctl(PR_SET_DUMPABLE, 0) < 0)
                return -errno;
        /* Processes inherit the session keyring; theirs shall not be that of whom started the
         * runtime. A kernel without keyrings has none to inherit. */
        if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 && errno != ENOSYS)
                return -errno;
        return 0;
}

static int prepare(struct spawn_workshop *workshop, int socket_fd, int init_fd,
                   struct spawn_failure *ret_failure)
{
        int r;

        *ret_failure = (struct spawn_failure){ .step = "start the spawner" };
        reset_signals();
        r = keep_descriptors(socket_fd, init_fd);
        if (r == 0)
                r = harden();
        if (r) {
                ret_failure->error_number = -r;
                return SPAWNER_E_STEP;
        }
        r = stage_enter(INIT_FD, &workshop->init_fd, ret_failure);
        if (r)
                return r;
        (void)close(INIT_FD);

        workshop->pid_namespace_fd = open("/proc/self/ns/pid", O_RDONLY | O_CLOEXEC);
        if (workshop->pid_namespace_fd < 0) {
                ret_failure->error_number = errno;
                return SPAWNER_E_STEP;
        }
        workshop->socket_fd = SOCKET_FD;
        seccomp_filter_build(&workshop->filter);
        return 0;
}

/* The runtime's descriptors into the places where the steps look for them. */
static bool assign_fds(struct spawn *spawn, const int *fds, size_t n_fds)
{
        const struct spawn_header *header = spawn->header;
        size_t n_slots = header->kind == SPAWN_SANDBOX ? _SPAWN_SLOT_N : SPAWN_SLOT_NETNS;

        if (header->n_tasks > SPAWN_TASKS_MAX || header->n_streams > SPAWN_FDS_MAX ||
            n_fds != n_slots + header->n_tasks + header->n_streams)
                return false;
        for (size_t i = 0; i < n_slots; i++)
                spawn->fds[i] = *fds++;
        for (size_t i = 0; i < header->n_tasks; i++)
                spawn->tasks_fds[i] = *fds++;
        for (size_t i = 0; i < header->n_streams; i++)
                spawn->stream_fds[i] = *fds++;
        return true;
}

/* The directory or the id, arguments, NULL, variables, NULL. */
static int collect_strings(struct spawn *spawn, size_t text_size)
{
        struct spawn_text text = { .packet = &packet, .size = text_size };
        size_t n_arguments = 1 + (size_t)spawn->header->n_arguments;
        size_t n_strings = n_arguments + 1 + spawn->header->n_variables + 1;

        if (n_strings > SPAWN_TEXT_MAX)
                return -E2BIG;
        spawn->strings = calloc(n_strings, sizeof(*spawn->strings));
        if (!spawn->strings)
                return -ENOMEM;
        for (size_t i = 0; i < n_strings - 1; i++) {
                if (i == n_arguments)
                        continue;
                spawn->strings[i] = spawn_text_get(&text);
                if (!spawn->strings[i])
                        return -EBADMSG;
        }
        return 0;
}

static void carry_out(const struct spawn_workshop *workshop, size_t n_packet, const int *fds,
                      size_t n_fds, struct spawn_answer *ret_answer,
                      int ret_fds[static SPAWN_ANSWER_FDS_MAX])
{
        struct spawn spawn = {
                .workshop = workshop,
                .header = &packet.header,
                .user_namespace_fd = -1,
                .root_fd = -1,
                .scratch_fd = -1,
        };
        const struct spawn_plan *plan =
                packet.header.kind == SPAWN_SANDBOX ? &sandbox_plan : &process_plan;
        int r = -EBADMSG;

        ret_answer->failure = (struct spawn_failure){ .step = "read the request" };
        if (n_packet >= sizeof(packet.header) && assign_fds(&spawn, fds, n_fds))
                r = collect_strings(&spawn, n_packet - sizeof(packet.header));
        if (r)
                ret_answer->failure.error_number = -r;
        else
                r = spawn_run(&spawn, plan, &ret_answer->pid, &ret_fds[0], &ret_answer->failure);
        if (r == 0) {
                ret_answer->failure = (struct spawn_failure){ 0 };
                ret_fds[1] = take_fd(&spawn.scratch_fd);
        }

        free(spawn.strings);
        (void)close_fd(spawn.user_namespace_fd);
        (void)close_fd(spawn.root_fd);
        (void)close_fd(spawn.scratch_fd);
}

/* Its only children are killed holders of user namespaces: this does not wait long, and nobody
 * waits for it. */
static void reap_children(void)
{
        while (waitpid(-1, NULL, 0) > 0 || errno == EINTR)
                ;
}

/* One request; negative when the runtime is gone. */
static int serve(const struct spawn_workshop *workshop)
{
        struct pollfd poll_fd = { .fd = workshop->socket_fd, .events = POLLIN };
        struct spawn_answer answer = { 0 };
        int fds[SPAWN_PACKET_FDS_MAX];
        size_t n_packet = sizeof(packet);
        size_t n_fds = ARRAY_SIZE(fds);
        int answer_fds[SPAWN_ANSWER_FDS_MAX] = { -1, -1 };
        size_t n_answer_fds = 0;
        int r;

        if (poll(&poll_fd, 1, -1) < 0)
                return errno == EINTR ? 0 : -errno;
        r = io_receive_packet(workshop->socket_fd, &packet, &n_packet, fds, &n_fds);
        if (r < 0 || r == IO_E_END)
                return r < 0 ? r : -EPIPE;

        if (r == IO_E_TOO_BIG) /* the two ends are one program, so it is a want of descriptors */
                answer.failure = (struct spawn_failure){ .error_number = EMFILE,
                                                         .step = "read the request" };
        else
                carry_out(workshop, n_packet, fds, n_fds, &answer, answer_fds);
        for (size_t i = 0; i < n_fds; i++)
                (void)close(fds[i]);
        while (n_answer_fds < ARRAY_SIZE(answer_fds) && answer_fds[n_answer_fds] >= 0)
                n_answer_fds++;
        r = io_send_packet(workshop->socket_fd, &answer, sizeof(answer), answer_fds, n_answer_fds);
        for (size_t i = 0; i < ARRAY_SIZE(answer_fds); i++)
                (void)close_fd(answer_fds[i]);
        reap_children();
        return r;
}

_Noreturn void spawner_process_run(int socket_fd, int init_fd)
{
        static struct spawn_workshop workshop;
        struct spawn_answer ready = { 0 };
        int r;

        r = prepare(&workshop, socket_fd, init_fd, &ready.failure);
        if (r) {
                log_error("the spawner cannot start step=\"%s\" error=%s", ready.failure.step,
                          strerrorname_np(ready.failure.error_number));
                (void)io_send_packet(socket_fd, &ready, sizeof(ready), NULL, 0);
                _exit(1);
        }
        ready.failure = (struct spawn_failure){ 0 };
        r = io_send_packet(SOCKET_FD, &ready, sizeof(ready), NULL, 0);
        while (r == 0)
                r = serve(&workshop);
        _exit(0);
}
