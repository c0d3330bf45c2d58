#include "runtime/supervisor/spawn_args.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum {
        N_CHANNEL_VARIABLES = 2,
        CHANNEL_VARIABLE_SIZE = 40,
};

static size_t environment_size(const Hotcell__Runtime__V1__StartProcess *request)
{
        size_t n_bytes = (size_t)N_CHANNEL_VARIABLES * CHANNEL_VARIABLE_SIZE;

        for (size_t i = 0; i < request->n_environment; i++)
                n_bytes += strlen(request->environment[i]->name) +
                           strlen(request->environment[i]->value) + 2;
        return n_bytes;
}

/* What the names say must be true, so a caller's own value of them does not pass. */
static bool is_channel_variable(const char *name)
{
        return strcmp(name, "HOTCELL_COMMANDS_FD") == 0 || strcmp(name, "HOTCELL_EVENTS_FD") == 0;
}

static void write_environment(struct spawn_words *words,
                              const Hotcell__Runtime__V1__StartProcess *request)
{
        char *at = words->text;
        size_t n = 0;

        for (size_t i = 0; i < request->n_environment; i++) {
                if (is_channel_variable(request->environment[i]->name))
                        continue;
                words->environment[n++] = at;
                at += sprintf(at, "%s=%s", request->environment[i]->name,
                              request->environment[i]->value) +
                      1;
        }
        if (!request->kernel_channel)
                return;
        words->environment[n++] = at;
        at += sprintf(at, "HOTCELL_COMMANDS_FD=%d", SPAWN_CHANNEL_FD) + 1;
        words->environment[n++] = at;
        (void)sprintf(at, "HOTCELL_EVENTS_FD=%d", SPAWN_CHANNEL_FD + 1);
}

int spawn_words_init(struct spawn_words *words, const Hotcell__Runtime__V1__StartProcess *request)
{
        words->argv = calloc(request->n_argv + 1, sizeof(*words->argv));
        words->environment = calloc(request->n_environment + N_CHANNEL_VARIABLES + 1,
                                    sizeof(*words->environment));
        words->text = malloc(environment_size(request));
        if (!words->argv || !words->environment || !words->text) {
                spawn_words_deinit(words);
                return error_origin(-ENOMEM);
        }
        for (size_t i = 0; i < request->n_argv; i++)
                words->argv[i] = request->argv[i];
        write_environment(words, request);
        return 0;
}

void spawn_words_deinit(struct spawn_words *words)
{
        free(words->argv);
        free(words->environment);
        free(words->text);
        *words = (struct spawn_words){ 0 };
}

/* Each end is an open file of its own, so one can be non-blocking without the other. */
static int add_pipe(struct spawn_pipes *pipes, uid_t uid, gid_t gid, bool we_read)
{
        int fds[2];
        int ours = we_read ? 0 : 1;

        if (pipe2(fds, O_CLOEXEC) < 0)
                return error_origin(-errno);
        pipes->ours[pipes->n_ours++] = fds[ours];
        pipes->theirs[pipes->n_theirs++] = fds[!ours];
        if (fcntl(fds[ours], F_SETFL, O_NONBLOCK) < 0 || fchown(fds[0], uid, gid) < 0)
                return error_origin(-errno);
        return 0;
}

int spawn_pipes_init(struct spawn_pipes *pipes, uid_t uid, gid_t gid, bool with_channel)
{
        int null_fd;
        int r;

        *pipes = (struct spawn_pipes){ 0 };
        /* Not an empty pipe: opening /dev/stdin of one would wait for a writer for ever. */
        null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
        if (null_fd < 0)
                return error_origin(-errno);
        pipes->theirs[pipes->n_theirs++] = null_fd;

        r = add_pipe(pipes, uid, gid, true);
        if (!r)
                r = add_pipe(pipes, uid, gid, true);
        if (!r && with_channel)
                r = add_pipe(pipes, uid, gid, false);
        if (!r && with_channel)
                r = add_pipe(pipes, uid, gid, true);
        if (r)
                spawn_pipes_deinit(pipes);
        return r;
}

void spawn_pipes_deinit(struct spawn_pipes *pipes)
{
        while (pipes->n_ours > 0)
                (void)close_fd(pipes->ours[--pipes->n_ours]);
        while (pipes->n_theirs > 0)
                (void)close_fd(pipes->theirs[--pipes->n_theirs]);
}

struct spawn_cgroup spawn_cgroup_from(const struct cgroup_entry *entry)
{
        struct spawn_cgroup cgroup = { .id_fd = entry->id_fd, .n_tasks = entry->n_tasks };

        static_assert((int)_CGROUP_CONTROLLER_N <= (int)SPAWN_TASKS_MAX,
                      "all groups can be joined");
        for (size_t i = 0; i < entry->n_tasks; i++)
                cgroup.tasks_fds[i] = entry->tasks_fds[i];
        return cgroup;
}
