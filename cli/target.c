#include "cli/target.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "cli/escape.h"
#include "cli/memory.h"
#include "runtime/base/text.h"

static bool is_loopback(const char *host)
{
        struct in_addr v4;

        if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
                return true;
        return inet_pton(AF_INET, host, &v4) == 1 && ntohl(v4.s_addr) >> 24 == 127;
}

static int parse_tcp(const char *text, char **ret_target)
{
        _cleanup_(freep) char *host = duplicate(text);
        char *colon = strrchr(host, ':');
        uint64_t port;

        if (!colon || colon == host || !text_to_uint64(colon + 1, 65535, &port) || port == 0)
                return TARGET_E_BAD;
        *colon = '\0';
        if (strpbrk(host, "/ "))
                return TARGET_E_BAD;
        if (!is_loopback(host))
                return TARGET_E_NOT_LOOPBACK;
        *ret_target = duplicate(text);
        return 0;
}

int target_parse(const char *text, char **ret_target)
{
        const char *path = text;

        if (strncmp(path, "unix://", 7) == 0)
                path += 7;
        else if (strncmp(path, "unix:", 5) == 0)
                path += 5;
        else if (*path != '/')
                return parse_tcp(text, ret_target);
        if (*path != '/' || strlen(path) >= sizeof(((struct sockaddr_un *)0)->sun_path))
                return TARGET_E_BAD;
        *ret_target = format_text("unix:%s", path);
        return 0;
}

/* The errno of a connection to the socket at @path. */
static int try_unix(const char *path)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        _cleanup_(closep) int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

        if (fd < 0)
                return errno;
        strncpy(address.sun_path, path, sizeof(address.sun_path) - 1);
        return connect(fd, (struct sockaddr *)&address, sizeof(address)) < 0 ? errno : 0;
}

bool target_has_socket(const char *target)
{
        int error = strncmp(target, "unix:", 5) == 0 ? try_unix(target + 5) : ENOENT;

        return error == 0 || error == ECONNREFUSED;
}

static const char *next_step_unix(int error)
{
        switch (error) {
        case ENOENT:
        case ENOTDIR:
                return "There is no such socket. Is hotcelld running?";
        case EACCES:
        case EPERM:
                return "You may not use it: run as root, or join the group that owns the socket "
                       "(`ls -l` on it shows which) and log in again.";
        case ECONNREFUSED:
                return "The socket is there, but nobody listens: hotcelld has stopped.";
        default:
                return "Is hotcelld running?";
        }
}

void target_explain(const char *target, FILE *out)
{
        _cleanup_(freep) char *shown = escape_line(target);
        int error;

        if (strncmp(target, "unix:", 5) != 0) {
                (void)fprintf(out,
                              "hotcell: cannot reach the server at %s\n"
                              "  Is hotcelld running there, with its TCP address switched on? "
                              "HOTCELL_TARGET or --target names another.\n",
                              shown);
                return;
        }
        error = try_unix(target + 5);
        (void)fprintf(out, "hotcell: cannot reach the server at %s%s%s\n  %s\n", shown,
                      error ? ": " : "", error ? strerror(error) : "", next_step_unix(error));
}
