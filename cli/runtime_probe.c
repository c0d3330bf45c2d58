#include "cli/runtime_probe.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <spawn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <json-c/json_object.h>
#include <json-c/json_tokener.h>

#include "hotcell/v1/server_service.pb-c.h"
#include "runtime/base/text.h"

#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/say.h"

enum {
        ANSWER_MAX = 256 * 1024,
        WALLS_MAX = 256,
};

extern char **environ;

/* The runtime beside this binary: where a build tree has it. */
static char *beside_us(void)
{
        char self[PATH_MAX];
        ssize_t n = readlink("/proc/self/exe", self, sizeof(self) - 1);
        char *slash;

        if (n < 0)
                return NULL;
        self[n] = '\0';
        slash = strrchr(self, '/');
        if (!slash)
                return NULL;
        *slash = '\0';
        return format_text("%s/../runtime/supervisor/hotcell-runtime", self);
}

/* Only what root or the caller itself put there: it runs as root. */
static char *find_runtime(void)
{
        const char *wanted = getenv("HOTCELL_RUNTIME");
        char *path;

        if (wanted && *wanted)
                return duplicate(wanted);
        if (access(HOTCELL_LIBEXEC "/hotcell-runtime", X_OK) == 0)
                return duplicate(HOTCELL_LIBEXEC "/hotcell-runtime");
        path = beside_us();
        if (path && access(path, X_OK) == 0)
                return path;
        free(path);
        return NULL;
}

static void set_text(struct json_object *object, const char *name, char **field)
{
        struct json_object *value = NULL;

        if (json_object_object_get_ex(object, name, &value) &&
            json_object_is_type(value, json_type_string))
                message_set_text(field, json_object_get_string(value));
}

static bool get_bool(struct json_object *object, const char *name)
{
        struct json_object *value = NULL;

        return json_object_object_get_ex(object, name, &value) && json_object_get_boolean(value);
}

static Hotcell__V1__Wall *parse_wall(struct json_object *object)
{
        Hotcell__V1__Wall *wall = message_new(&hotcell__v1__wall__descriptor);

        set_text(object, "name", &wall->name);
        set_text(object, "detail", &wall->detail);
        set_text(object, "fix", &wall->fix);
        wall->holds = get_bool(object, "holds");
        wall->required = get_bool(object, "required");
        return wall;
}

Hotcell__V1__GetServerInfoResponse *runtime_probe_parse(const char *json)
{
        _cleanup_(json_putp) struct json_object *root = json_tokener_parse(json);
        Hotcell__V1__GetServerInfoResponse *info;
        struct json_object *walls = NULL;
        size_t n;

        if (!json_object_is_type(root, json_type_object) ||
            !json_object_object_get_ex(root, "walls", &walls) ||
            !json_object_is_type(walls, json_type_array))
                return NULL;
        n = json_object_array_length(walls);
        if (n > WALLS_MAX)
                return NULL;
        info = message_new(&hotcell__v1__get_server_info_response__descriptor);
        info->walls = allocate(n, sizeof(void *));
        for (size_t i = 0; i < n; i++)
                info->walls[info->n_walls++] = parse_wall(json_object_array_get_idx(walls, i));
        return info;
}

/* Starts @path with its standard output on a pipe, of which *@ret_fd is the other end. */
static int start(const char *path, pid_t *ret_pid, int *ret_fd)
{
        char *store = getenv("HOTCELL_STORE");
        char *const arguments[] = { unconst(path), (char[]){ "--probe=json" },
                                    store && *store ? (char[]){ "--store" } : NULL, store, NULL };
        _cleanup_(closep) int write_end = -1;
        posix_spawn_file_actions_t actions;
        int ends[2];
        int r;

        if (pipe2(ends, O_CLOEXEC) < 0)
                return -errno;
        write_end = ends[1];
        must(posix_spawn_file_actions_init(&actions) ? NULL : &actions);
        must(posix_spawn_file_actions_adddup2(&actions, write_end, STDOUT_FILENO) ? NULL
                                                                                  : &actions);
        r = posix_spawn(ret_pid, path, &actions, NULL, arguments, environ);
        (void)posix_spawn_file_actions_destroy(&actions);
        if (r) {
                (void)close_fd(ends[0]);
                return -r;
        }
        *ret_fd = ends[0];
        return 0;
}

static char *read_answer(int fd)
{
        char *answer = allocate(ANSWER_MAX + 1, 1);
        size_t n = 0;

        while (n < ANSWER_MAX) {
                ssize_t got = read(fd, answer + n, ANSWER_MAX - n);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0)
                        break;
                n += (size_t)got;
        }
        return answer;
}

static Hotcell__V1__GetServerInfoResponse *run(const char *path)
{
        _cleanup_(freep) char *answer = NULL;
        _cleanup_(closep) int fd = -1;
        Hotcell__V1__GetServerInfoResponse *info;
        int status = 0;
        pid_t pid = -1;
        int r = start(path, &pid, &fd);

        if (r < 0) {
                say("cannot run %s: %s", path, strerror(-r));
                return NULL;
        }
        answer = read_answer(fd);
        fd = close_fd(fd); /* a runtime that writes on gets EPIPE instead of waiting */
        while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
                continue;
        /* It may well exit with an error: that is what a missing wall looks like. */
        info = runtime_probe_parse(answer);
        if (!info)
                say("%s --probe did not answer with the walls", path);
        return info;
}

int runtime_probe(Hotcell__V1__GetServerInfoResponse **ret_info)
{
        _cleanup_(freep) char *path = NULL;

        if (geteuid() != 0) {
                say("without a server only root can probe the walls: `sudo hotcell doctor`");
                return EXIT_OURS;
        }
        path = find_runtime();
        if (!path) {
                say("hotcell-runtime is not installed here; HOTCELL_RUNTIME may name it");
                return EXIT_OURS;
        }
        *ret_info = run(path);
        return *ret_info ? 0 : EXIT_OURS;
}
