/*
 * Runs programs and says how long each took, from before it is started to after it was reaped, so
 * that nothing of Python's own start of processes is in the figure. A command a line, its words
 * separated by tabs; an answer a line: `ok NANOSECONDS EXIT_CODE`, where 128 + n stands for signal
 * n, or `error ERRNO`. The programs' own output goes to standard error.
 */
#include <inttypes.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"

enum { WORDS_MAX = 64 };

extern char **environ;

static int64_t now_nsec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

static void split(char *line, char *words[static WORDS_MAX])
{
        char *state = NULL;
        size_t n = 0;

        for (char *word = strtok_r(line, "\t\n", &state); word && n < WORDS_MAX - 1;
             word = strtok_r(NULL, "\t\n", &state))
                words[n++] = word;
        words[n] = NULL;
}

static void run(char **words, const posix_spawn_file_actions_t *actions)
{
        int64_t start = now_nsec();
        pid_t pid;
        int status, r;

        r = posix_spawn(&pid, words[0], actions, NULL, words, environ);
        if (r) {
                (void)printf("error %d\n", r);
                return;
        }
        (void)waitpid(pid, &status, 0);
        (void)printf("ok %" PRId64 " %d\n", now_nsec() - start,
                     WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int main(void)
{
        _cleanup_(freep) char *line = NULL;
        char *words[WORDS_MAX];
        posix_spawn_file_actions_t actions;
        size_t line_size = 0;

        (void)posix_spawn_file_actions_init(&actions);
        (void)posix_spawn_file_actions_addopen(&actions, STDIN_FILENO, "/dev/null", 0, 0);
        (void)posix_spawn_file_actions_adddup2(&actions, STDERR_FILENO, STDOUT_FILENO);
        (void)setvbuf(stdout, NULL, _IOLBF, 0);
        (void)printf("ok\n");
        while (getline(&line, &line_size, stdin) > 0) {
                split(line, words);
                if (words[0])
                        run(words, &actions);
        }
        (void)posix_spawn_file_actions_destroy(&actions);
        return 0;
}
