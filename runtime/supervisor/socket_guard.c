/*
 * No event tells of either, so both are looked at.
 *
 * What sockets hold, on cgroup v1: the kernel lets every connection have a packet or so above the
 * limit, or it would hang for good; with thousands of them that is many times the limit.
 *
 * Connections that wait to be accepted: the kernel makes them, and takes what they are sent, while
 * it handles packets, on behalf of nobody. Neither version of cgroups is charged for one before it
 * is accepted. How many wait in one listener is bounded (netns.c), how many listeners there are is
 * not. They are counted as the most that each may hold.
 */
#include "runtime/supervisor/socket_guard.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <netinet/tcp.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/group.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/sandbox.h"

enum {
        LOOK_USEC = 250000,
        ACCURACY_USEC = 125000, /* so that all sandboxes are looked at together */
        TOLERATED = 2,          /* times the limit */
        WAITING_BYTES = 40960,  /* at most, with a full receive buffer (tcp_rmem in netns.c) */
        WAITING_MIN = 1024,     /* two full listeners are no attack */
        LISTENERS_MAX = 8192,   /* more are ended unseen: reading about them takes time */
        LINE_MAX_BYTES = 256,
};

#define SOCKETS_USED "sockets: used "

static struct process *find_greatest(struct sandbox *sandbox, uint64_t *ret_bytes)
{
        struct process *greatest = NULL;
        struct process *process;
        struct process *following;
        uint64_t bytes;
        uint64_t limit;

        *ret_bytes = 0;
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (!process_is_alive(process) ||
                    cgroup_read_sockets(&process->leaf, &bytes, &limit) || bytes <= *ret_bytes)
                        continue;
                greatest = process;
                *ret_bytes = bytes;
        }
        return greatest;
}

/* Sockets may have been handed on by processes that are gone: then it could be any. */
static void relieve(struct sandbox *sandbox, uint64_t held)
{
        struct process *process;
        struct process *following;
        uint64_t most;
        struct process *greatest = find_greatest(sandbox, &most);

        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (process_is_alive(process) && (most < held / 2 || process == greatest))
                        process_end_for_memory(process);
        }
}

/* --- connections that wait to be accepted --- */

static void proc_net_path(const struct sandbox *sandbox, const char *file, char *path, size_t size)
{
        (void)snprintf(path, size, "/proc/%d/net/%s", sandbox->init.pid, file);
}

/* All sockets of its network, whoever holds them, those that wait included. */
static uint64_t count_sockets(const struct sandbox *sandbox)
{
        char path[64];
        char text[1024];

        proc_net_path(sandbox, "sockstat", path, sizeof(path));
        if (io_read_file(AT_FDCWD, path, text, sizeof(text), NULL) ||
            strncmp(text, SOCKETS_USED, strlen(SOCKETS_USED)) != 0)
                return 0;
        return strtoull(text + strlen(SOCKETS_USED), NULL, 10);
}

static void closefp(FILE **file)
{
        if (*file)
                (void)fclose(*file);
}

/* A line: number, own address, peer's address, state, `sent:received`, and more. */
static bool parse_listener(char *line, uint64_t *ret_waiting)
{
        enum { STATE = 3 };
        char *rest = NULL;
        char *field = strtok_r(line, " ", &rest);

        for (unsigned i = 0; field && i < STATE; i++)
                field = strtok_r(NULL, " ", &rest);
        if (!field || strtoul(field, NULL, 16) != TCP_LISTEN)
                return false;
        field = strtok_r(NULL, " ", &rest);
        field = field ? strchr(field, ':') : NULL;
        if (!field)
                return false;
        *ret_waiting = strtoull(field + 1, NULL, 16);
        return true;
}

/* The kernel lists listeners first, and how many wait as what they have received. */
static uint64_t count_waiting(const struct sandbox *sandbox, const char *table)
{
        _cleanup_(closefp) FILE *file = NULL;
        char path[64];
        char line[LINE_MAX_BYTES];
        uint64_t n_waiting = 0;
        unsigned n_listeners = 0;
        uint64_t n;

        proc_net_path(sandbox, table, path, sizeof(path));
        file = fopen(path, "re");
        if (!file || !fgets(line, sizeof(line), file))
                return 0;
        while (fgets(line, sizeof(line), file) && parse_listener(line, &n)) {
                n_waiting += n;
                if (++n_listeners == LISTENERS_MAX)
                        return UINT32_MAX;
        }
        return n_waiting;
}

static uint64_t waiting_max(const struct sandbox *sandbox)
{
        return MAX(TOLERATED * cgroup_socket_bytes(sandbox->limits.memory_bytes) / WAITING_BYTES,
                   (uint64_t)WAITING_MIN);
}

static void look_at_waiting(struct sandbox *sandbox)
{
        uint64_t max = waiting_max(sandbox);
        struct process *process;
        struct process *following;
        uint64_t n_waiting;

        if (sandbox->is_init_reaped || sandbox->init.pid <= 0 || sandbox->n_processes_alive == 0 ||
            count_sockets(sandbox) <= max)
                return;
        n_waiting = count_waiting(sandbox, "tcp") + count_waiting(sandbox, "tcp6");
        if (n_waiting <= max)
                return;
        log_info("too many connections wait to be accepted: sandbox=%s max=%" PRIu64, sandbox->id,
                 max);
        /* They are the network's, not a process's. */
        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (process_is_alive(process))
                        process_end_for_memory(process);
        }
}

static int on_look(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct sandbox *sandbox = userdata;
        uint64_t held;
        uint64_t limit;

        (void)usec;
        if (!cgroup_read_sockets(&sandbox->group, &held, &limit) && held / TOLERATED > limit)
                relieve(sandbox, held);
        look_at_waiting(sandbox);
        (void)sd_event_source_set_time_relative(source, LOOK_USEC);
        (void)sd_event_source_set_enabled(source, SD_EVENT_ONESHOT);
        return 0;
}

int socket_guard_start(struct sandbox *sandbox)
{
        int r = sd_event_add_time_relative(sandbox->host->event, &sandbox->socket_guard,
                                           CLOCK_MONOTONIC, LOOK_USEC, ACCURACY_USEC, on_look,
                                           sandbox);

        return r < 0 ? error_origin(r) : 0;
}
