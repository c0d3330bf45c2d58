/*
 * Not a handler or the parent's teardown: those do not run after SIGKILL, and what they would clean
 * is only known in the test's own process.
 */
#include "test/lib/janitor.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"

#define must(condition)                                                                            \
        do {                                                                                       \
                if (!(condition))                                                                  \
                        must_fail(__LINE__, #condition);                                           \
        } while (0)

static _Noreturn void must_fail(int line, const char *condition)
{
        (void)fprintf(stderr, "janitor.c:%d: %s: %s\n", line, condition, strerror(errno));
        abort();
}

/* Out of the group that Check kills, and with no way for a signal that many get to end it. */
static void stand_apart(void)
{
        must(setsid() >= 0);
        (void)signal(SIGTERM, SIG_IGN);
        (void)signal(SIGINT, SIG_IGN);
        (void)signal(SIGHUP, SIG_IGN);
}

/* All but these two: neither a pipe whose end somebody awaits stays open nor a lock. */
static void keep_only(int *employer_fd, int *orders_fd)
{
        enum { EMPLOYER = 3, ORDERS, REST };
        int null = open("/dev/null", O_RDWR);

        must(null >= 0);
        for (int fd = 0; fd < EMPLOYER; fd++)
                must(dup2(null, fd) == fd);
        /* Copies first: either may be where the other belongs. */
        *employer_fd = fcntl(*employer_fd, F_DUPFD, REST);
        *orders_fd = fcntl(*orders_fd, F_DUPFD, REST);
        must(dup2(*employer_fd, EMPLOYER) == EMPLOYER && dup2(*orders_fd, ORDERS) == ORDERS);
        must(close_range(REST, ~0U, 0) == 0);
        *employer_fd = EMPLOYER;
        *orders_fd = ORDERS;
}

/* The employer's end is the order to begin, a byte from it the one to leave. */
static bool is_needed(int employer_fd, int orders_fd)
{
        struct pollfd heard[] = { { .fd = employer_fd, .events = POLLIN },
                                  { .fd = orders_fd, .events = POLLIN } };

        for (;;) {
                if (poll(heard, ARRAY_SIZE(heard), -1) < 0) {
                        must(errno == EINTR);
                        continue;
                }
                if (heard[1].revents && recv(orders_fd, &(char){ 0 }, 1, 0) == 1)
                        return false;
                if (heard[0].revents)
                        return true;
                heard[1].fd = -1; /* closed, but that is no dismissal */
        }
}

static _Noreturn void serve(int employer_fd, int orders_fd, janitor_work *work, const void *data)
{
        stand_apart();
        keep_only(&employer_fd, &orders_fd);
        must(send(orders_fd, "", 1, MSG_NOSIGNAL) == 1);
        if (is_needed(employer_fd, orders_fd))
                work(data);
        _exit(EXIT_SUCCESS);
}

void janitor_hire(struct janitor *janitor, janitor_work *work, const void *data)
{
        _cleanup_(closep) int employer_fd = pidfd_open(getpid(), 0);
        int ends[2];
        char byte;
        pid_t pid;

        must(employer_fd >= 0);
        must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
        pid = fork();
        must(pid >= 0);
        if (pid == 0)
                serve(employer_fd, ends[1], work, data);
        (void)close(ends[1]);
        /* Until then it may still be killed with this process. */
        must(recv(ends[0], &byte, 1, 0) == 1);
        *janitor = (struct janitor){ .pid = pid, .orders_fd = ends[0] };
}

/* Not by a signal, for which this process may have too few privileges by now. */
void janitor_dismiss(struct janitor *janitor)
{
        if (janitor->pid == 0)
                return;
        must(send(janitor->orders_fd, "", 1, MSG_NOSIGNAL) == 1);
        (void)close(janitor->orders_fd);
        must(waitpid(janitor->pid, NULL, 0) == janitor->pid);
        *janitor = (struct janitor){ 0 };
}
