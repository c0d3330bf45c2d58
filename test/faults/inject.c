/*
 * Preloaded into the daemons: makes one call of theirs fail, where and when a test says so.
 *
 * The test shares a page with all of them (HOTCELL_FAULT_PAGE). Once it is armed, the first call
 * that was not failed before fails: a call is known by its callers and, but for memory, by how
 * often it came from them since then. So, armed again and again, every call of what the test does
 * fails once, however threads take turns; and when none was left to fail, nothing was.
 *
 * Only calls of our own programs and of what they are built on (sd-event, SQLite, protobuf-c) fail:
 * gRPC ends the process when it gets no memory, and sd-event its loop when a queue cannot grow.
 */
/* Both kinds of names are to be defined, each as itself. */
#undef _FILE_OFFSET_BITS
#include <dlfcn.h>
#include <errno.h>
#include <execinfo.h>
#include <fcntl.h>
#include <link.h>
#include <linux/mount.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/timerfd.h>
#include <time.h>
#include <unistd.h>

enum {
        FRAMES = 8,
        CALLERS = 6,       /* that make a site: a spawner that was started again is no other one */
        FAILED_MAX = 8192, /* a power of two */
        OCCURRENCES_MAX = 4096,
        RANGES_MAX = 16,
        NAME_SIZE = 32,
};

enum kind { KIND_NONE, KIND_MEMORY, KIND_CALL, KIND_SYNC_IS_SLOW };

/* Who calls. */
enum role { ROLE_NONE, ROLE_RUNTIME, ROLE_SPAWNER, ROLE_SERVER };

/* test/faults/inject.py knows where each field is. */
struct page {
        _Atomic uint32_t kind;       /* 0 */
        _Atomic uint32_t role;       /* 4 */
        _Atomic uint32_t has_fired;  /* 8 */
        _Atomic uint32_t delay_msec; /* 12: of each sync, with KIND_SYNC_IS_SLOW */
        _Atomic uint32_t n_failed;   /* 16: sites */
        _Atomic uint32_t n_syncs;    /* 20 */
        int32_t error;               /* 24 */
        uint32_t pid;                /* 28: whose call failed */
        char function[NAME_SIZE];    /* 32 */
        uint64_t frames[FRAMES];     /* 64 */
        _Atomic uint32_t lock;       /* 128 */
        uint32_t armed;              /* 132: how often, so that occurrences start anew */
        uint64_t failed[FAILED_MAX];
        struct {
                uint64_t site;
                uint32_t armed;
                uint32_t n;
        } occurrences[OCCURRENCES_MAX];
};

static struct page *page;
static enum role role;
static pid_t first_pid;
static struct {
        uintptr_t from, to;
        bool is_loop;
} ranges[RANGES_MAX];
static size_t n_ranges;

static int note_range(struct dl_phdr_info *info, size_t size, void *userdata)
{
        static const char *const ours[] = { "libsystemd.so", "libsqlite3.so", "libprotobuf-c.so" };
        bool is_ours = info->dlpi_name[0] == '\0';

        (void)size;
        (void)userdata;
        for (size_t i = 0; i < sizeof(ours) / sizeof(*ours); i++)
                is_ours |= strstr(info->dlpi_name, ours[i]) != NULL;
        for (size_t i = 0; is_ours && i < info->dlpi_phnum; i++) {
                const ElfW(Phdr) *header = &info->dlpi_phdr[i];

                if (header->p_type != PT_LOAD || !(header->p_flags & PF_X) ||
                    n_ranges == RANGES_MAX)
                        continue;
                ranges[n_ranges].from = info->dlpi_addr + header->p_vaddr;
                ranges[n_ranges].to = ranges[n_ranges].from + header->p_memsz;
                ranges[n_ranges].is_loop = strstr(info->dlpi_name, ours[0]) != NULL;
                n_ranges++;
        }
        return 0;
}

__attribute__((constructor)) static void start(void)
{
        const char *path = getenv("HOTCELL_FAULT_PAGE");
        const char *name = getenv("HOTCELL_FAULT_ROLE");
        void *frames[FRAMES];
        void *mapping;
        int fd;

        if (!path || !name)
                return;
        (void)backtrace(frames, FRAMES); /* the first one loads a library */
        (void)dl_iterate_phdr(note_range, NULL);
        first_pid = getpid();
        role = strcmp(name, "server") == 0 ? ROLE_SERVER : ROLE_RUNTIME;
        fd = open(path, O_RDWR | O_CLOEXEC);
        mapping = fd < 0 ? MAP_FAILED
                         : mmap(NULL, sizeof(*page), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
        if (mapping == MAP_FAILED) {
                perror(path);
                _exit(99);
        }
        (void)close(fd);
        page = mapping;
}

static bool is_in(size_t i, uintptr_t caller)
{
        return caller >= ranges[i].from && caller < ranges[i].to;
}

static bool is_ours(uintptr_t caller)
{
        for (size_t i = 0; i < n_ranges; i++) {
                if (is_in(i, caller))
                        return true;
        }
        return false;
}

static bool is_loop(uintptr_t caller)
{
        for (size_t i = 0; i < n_ranges; i++) {
                if (ranges[i].is_loop && is_in(i, caller))
                        return true;
        }
        return false;
}

/* The spawner and what it clones are the runtime's program, under other process ids. */
static enum role role_now(void)
{
        return role == ROLE_RUNTIME && getpid() != first_pid ? ROLE_SPAWNER : role;
}

static void lock_page(void)
{
        while (atomic_exchange(&page->lock, 1))
                (void)syscall(SYS_sched_yield);
}

static void unlock_page(void)
{
        atomic_store(&page->lock, 0);
}

static uint64_t mix(uint64_t hash, uint64_t value)
{
        hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
        return hash ^ hash >> 29;
}

/* How often the site called since the page was armed, this time included. */
static uint32_t count_occurrence(uint64_t site)
{
        for (size_t i = 0; i < OCCURRENCES_MAX; i++) {
                size_t at = (site + i) % OCCURRENCES_MAX;

                if (page->occurrences[at].site && page->occurrences[at].armed == page->armed &&
                    page->occurrences[at].site != site)
                        continue;
                if (page->occurrences[at].armed != page->armed)
                        page->occurrences[at].n = 0;
                page->occurrences[at].site = site;
                page->occurrences[at].armed = page->armed;
                return ++page->occurrences[at].n;
        }
        return 1;
}

/* False: it was failed before. */
static bool note_failed(uint64_t site)
{
        for (size_t i = 0; i < FAILED_MAX; i++) {
                uint64_t *slot = &page->failed[(site + i) % FAILED_MAX];

                if (*slot == site)
                        return false;
                if (*slot == 0) {
                        *slot = site;
                        atomic_fetch_add(&page->n_failed, 1);
                        return true;
                }
        }
        return false;
}

__attribute__((noinline)) static bool take(enum kind kind, const char *function, int error)
{
        void *frames[FRAMES + 2] = { NULL };
        int n = backtrace(frames, FRAMES + 2);
        uint64_t site = mix(kind, role_now());
        bool fails;

        /* Without ourselves: this function and the wrapper. */
        for (int i = 2; i < n && i < 2 + CALLERS; i++)
                site = mix(site, (uint64_t)(uintptr_t)frames[i]);
        lock_page();
        if (kind == KIND_CALL)
                site = mix(site, count_occurrence(site | 1));
        fails = atomic_load(&page->kind) == kind && note_failed(site | 1);
        if (fails) {
                atomic_store(&page->kind, KIND_NONE);
                page->error = error;
                page->pid = (uint32_t)getpid();
                (void)strncpy(page->function, function, NAME_SIZE - 1);
                for (int i = 0; i < FRAMES; i++)
                        page->frames[i] = (uint64_t)(uintptr_t)frames[i + 2];
                atomic_store(&page->has_fired, 1);
        }
        unlock_page();
        return fails;
}

/* Not inlined: take() counts frames. */
__attribute__((noinline)) static bool is_wanted(enum kind kind, const void *caller)
{
        return page && atomic_load(&page->kind) == kind && atomic_load(&page->role) == role_now() &&
               is_ours((uintptr_t)caller);
}

#define CALLER()   __builtin_return_address(0)
#define REAL(name) ((__typeof__(&name))find_real(&real_##name, #name))

static void *find_real(_Atomic(void *) *real, const char *name)
{
        void *found = atomic_load(real);

        if (!found) {
                found = dlsym(RTLD_NEXT, name);
                if (!found) {
                        (void)dprintf(STDERR_FILENO, "inject: no %s\n", name);
                        _exit(99);
                }
                atomic_store(real, found);
        }
        return found;
}

#define WRAP(result, name, parameters, arguments, when, failed, error_number)                      \
        static _Atomic(void *) real_##name;                                                        \
        __attribute__((visibility("default"))) result name parameters                              \
        {                                                                                          \
                if (is_wanted(KIND_CALL, CALLER()) && (when) &&                                    \
                    take(KIND_CALL, #name, error_number)) {                                        \
                        errno = error_number;                                                      \
                        return failed;                                                             \
                }                                                                                  \
                return REAL(name) arguments;                                                       \
        }

#define CALL(name, parameters, arguments, error_number)                                            \
        WRAP(int, name, parameters, arguments, true, -1, error_number)

/* --- memory --- */

extern void *__libc_malloc(size_t);
extern void *__libc_calloc(size_t, size_t);
extern void *__libc_realloc(void *, size_t);

#define MEMORY(name, real, parameters, arguments, when)                                            \
        __attribute__((visibility("default"))) void *name parameters                               \
        {                                                                                          \
                if (is_wanted(KIND_MEMORY, CALLER()) && (when) &&                                  \
                    take(KIND_MEMORY, #name, ENOMEM)) {                                            \
                        errno = ENOMEM;                                                            \
                        return NULL;                                                               \
                }                                                                                  \
                return real arguments;                                                             \
        }

MEMORY(malloc, __libc_malloc, (size_t n), (n), true)
MEMORY(calloc, __libc_calloc, (size_t n, size_t size), (n, size), true)
MEMORY(realloc, __libc_realloc, (void *old, size_t n), (old, n), !is_loop((uintptr_t)CALLER()))

#undef strdup
__attribute__((visibility("default"))) char *strdup(const char *text)
{
        size_t n = strlen(text) + 1;
        char *copy;

        if (is_wanted(KIND_MEMORY, CALLER()) && take(KIND_MEMORY, "strdup", ENOMEM)) {
                errno = ENOMEM;
                return NULL;
        }
        copy = __libc_malloc(n);
        return copy ? memcpy(copy, text, n) : NULL;
}

/* --- descriptors --- */

CALL(memfd_create, (const char *name, unsigned flags), (name, flags), EMFILE)
CALL(pipe2, (int ends[2], int flags), (ends, flags), EMFILE)
CALL(socket, (int domain, int type, int protocol), (domain, type, protocol), EMFILE)
CALL(socketpair, (int domain, int type, int protocol, int ends[2]), (domain, type, protocol, ends),
     EMFILE)
CALL(eventfd, (unsigned value, int flags), (value, flags), EMFILE)
CALL(dup, (int fd), (fd), EMFILE)
CALL(dup2, (int from, int to), (from, to), EMFILE)
CALL(dup3, (int from, int to, int flags), (from, to, flags), EMFILE)
CALL(pidfd_open, (pid_t pid, unsigned flags), (pid, flags), EMFILE)
/* Nothing but adding takes memory. */
WRAP(int, epoll_ctl, (int fd, int operation, int other, struct epoll_event *event),
     (fd, operation, other, event), operation == EPOLL_CTL_ADD, -1, ENOMEM)
CALL(timerfd_create, (clockid_t clock, int flags), (clock, flags), EMFILE)
WRAP(void *, mmap, (void *at, size_t n, int protection, int flags, int fd, off_t offset),
     (at, n, protection, flags, fd, offset), true, MAP_FAILED, ENOMEM)
WRAP(void *, mmap64, (void *at, size_t n, int protection, int flags, int fd, off64_t offset),
     (at, n, protection, flags, fd, offset), true, MAP_FAILED, ENOMEM)

static mode_t mode_argument(int flags, va_list arguments)
{
        return flags & (O_CREAT | __O_TMPFILE) ? va_arg(arguments, mode_t) : 0;
}

#define OPEN(name, parameters, arguments)                                                          \
        static _Atomic(void *) real_##name;                                                        \
        __attribute__((visibility("default"))) int name parameters                                 \
        {                                                                                          \
                va_list variable;                                                                  \
                mode_t mode;                                                                       \
                                                                                                   \
                va_start(variable, flags);                                                         \
                mode = mode_argument(flags, variable);                                             \
                va_end(variable);                                                                  \
                if (is_wanted(KIND_CALL, CALLER()) && take(KIND_CALL, #name, EMFILE)) {            \
                        errno = EMFILE;                                                            \
                        return -1;                                                                 \
                }                                                                                  \
                return REAL(name) arguments;                                                       \
        }

OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int at, const char *path, int flags, ...), (at, path, flags, mode))
OPEN(openat64, (int at, const char *path, int flags, ...), (at, path, flags, mode))

static bool makes_descriptor(int command)
{
        return command == F_DUPFD || command == F_DUPFD_CLOEXEC;
}

#define FCNTL(name)                                                                                \
        static _Atomic(void *) real_##name;                                                        \
        __attribute__((visibility("default"))) int name(int fd, int command, ...)                  \
        {                                                                                          \
                va_list variable;                                                                  \
                void *argument;                                                                    \
                                                                                                   \
                va_start(variable, command);                                                       \
                argument = va_arg(variable, void *);                                               \
                va_end(variable);                                                                  \
                if (makes_descriptor(command) && is_wanted(KIND_CALL, CALLER()) &&                 \
                    take(KIND_CALL, #name, EMFILE)) {                                              \
                        errno = EMFILE;                                                            \
                        return -1;                                                                 \
                }                                                                                  \
                return REAL(name)(fd, command, argument);                                          \
        }

FCNTL(fcntl)
FCNTL(fcntl64)

/* --- messages and files --- */

CALL(listen, (int fd, int n), (fd, n), EADDRINUSE)
WRAP(ssize_t, sendmsg, (int fd, const struct msghdr *message, int flags), (fd, message, flags),
     true, -1, ENOBUFS)
/* What was sent is not lost: it can be received again. */
WRAP(ssize_t, recvmsg, (int fd, struct msghdr *message, int flags), (fd, message, flags), true, -1,
     EINTR)

/* Of files only: of pipes and the like they do not fail for want of anything. */
static bool is_file(int fd)
{
        struct stat file;

        return fstat(fd, &file) == 0 && S_ISREG(file.st_mode);
}

WRAP(ssize_t, read, (int fd, void *bytes, size_t n), (fd, bytes, n), is_file(fd), -1, EIO)
WRAP(ssize_t, write, (int fd, const void *bytes, size_t n), (fd, bytes, n), is_file(fd), -1, ENOMEM)
WRAP(ssize_t, pread, (int fd, void *bytes, size_t n, off_t at), (fd, bytes, n, at), true, -1, EIO)
WRAP(ssize_t, pread64, (int fd, void *bytes, size_t n, off64_t at), (fd, bytes, n, at), true, -1,
     EIO)
WRAP(ssize_t, pwrite, (int fd, const void *bytes, size_t n, off_t at), (fd, bytes, n, at), true, -1,
     ENOSPC)
WRAP(ssize_t, pwrite64, (int fd, const void *bytes, size_t n, off64_t at), (fd, bytes, n, at), true,
     -1, ENOSPC)
CALL(ftruncate, (int fd, off_t n), (fd, n), ENOSPC)
CALL(ftruncate64, (int fd, off64_t n), (fd, n), ENOSPC)
CALL(fallocate, (int fd, int mode, off_t at, off_t n), (fd, mode, at, n), ENOSPC)
CALL(fallocate64, (int fd, int mode, off64_t at, off64_t n), (fd, mode, at, n), ENOSPC)
CALL(mkdir, (const char *path, mode_t mode), (path, mode), ENOMEM)
CALL(mkdirat, (int at, const char *path, mode_t mode), (at, path, mode), ENOMEM)
CALL(rmdir, (const char *path), (path), EBUSY)
CALL(unlinkat, (int at, const char *path, int flags), (at, path, flags), EBUSY)
CALL(fchown, (int fd, uid_t uid, gid_t gid), (fd, uid, gid), EIO)
CALL(fchmod, (int fd, mode_t mode), (fd, mode), EIO)

static void delay_sync(void)
{
        uint32_t msec;

        if (!page || atomic_load(&page->kind) != KIND_SYNC_IS_SLOW)
                return;
        msec = atomic_load(&page->delay_msec);
        (void)nanosleep(&(struct timespec){ .tv_sec = msec / 1000,
                                            .tv_nsec = (long)(msec % 1000) * 1000000 },
                        NULL);
        atomic_fetch_add(&page->n_syncs, 1);
}

#define SYNC(name)                                                                                 \
        static _Atomic(void *) real_##name;                                                        \
        __attribute__((visibility("default"))) int name(int fd)                                    \
        {                                                                                          \
                delay_sync();                                                                      \
                if (is_wanted(KIND_CALL, CALLER()) && take(KIND_CALL, #name, EIO)) {               \
                        errno = EIO;                                                               \
                        return -1;                                                                 \
                }                                                                                  \
                return REAL(name)(fd);                                                             \
        }

SYNC(fsync)
SYNC(fdatasync)

/* --- processes, namespaces and mounts --- */

CALL(unshare, (int flags), (flags), ENOSPC)
CALL(setns, (int fd, int flags), (fd, flags), ENOMEM)
CALL(mount,
     (const char *source, const char *target, const char *type, unsigned long flags,
      const void *data),
     (source, target, type, flags, data), ENOMEM)
CALL(move_mount, (int from, const char *from_path, int to, const char *to_path, unsigned flags),
     (from, from_path, to, to_path, flags), ENOMEM)
CALL(open_tree, (int at, const char *path, unsigned flags), (at, path, flags), ENOMEM)
CALL(fsopen, (const char *type, unsigned flags), (type, flags), ENOMEM)
CALL(fsconfig, (int fd, unsigned command, const char *key, const void *value, int extra),
     (fd, command, key, value, extra), ENOMEM)
CALL(fsmount, (int fd, unsigned flags, unsigned attributes), (fd, flags, attributes), ENOMEM)
CALL(mount_setattr,
     (int at, const char *path, unsigned flags, struct mount_attr *attributes, size_t size),
     (at, path, flags, attributes, size), ENOMEM)
CALL(chdir, (const char *path), (path), ENOMEM)
CALL(fchdir, (int fd), (fd), EACCES)
CALL(sethostname, (const char *name, size_t n), (name, n), EPERM)
CALL(setgroups, (size_t n, const gid_t *groups), (n, groups), ENOMEM)
CALL(setresuid, (uid_t real, uid_t effective, uid_t saved), (real, effective, saved), EAGAIN)
CALL(setresgid, (gid_t real, gid_t effective, gid_t saved), (real, effective, saved), EAGAIN)
CALL(setrlimit64, (__rlimit_resource_t resource, const struct rlimit64 *limit), (resource, limit),
     EPERM)
CALL(setsid, (void), (), EPERM)
CALL(close_range, (unsigned first, unsigned last, int flags), (first, last, flags), ENOMEM)
CALL(execve, (const char *path, char *const argv[], char *const environment[]),
     (path, argv, environment), ENOMEM)
CALL(execveat, (int at, const char *path, char *const argv[], char *const environment[], int flags),
     (at, path, argv, environment, flags), ENOMEM)
CALL(fork, (void), (), EAGAIN)

/* hotcelld has a recvmsg of its own, which gRPC uses, too: only the runtime's connection fails. */
static bool may_fail(long number, long fd)
{
        int type = 0;
        socklen_t size = sizeof(type);

        if (number != SYS_recvmsg)
                return number != SYS_sched_yield;
        return getsockopt((int)fd, SOL_SOCKET, SO_TYPE, &type, &size) == 0 &&
               type == SOCK_SEQPACKET;
}

/* What the C library has no function for. Each number is a site of its own by its caller. */
static _Atomic(void *) real_syscall;
__attribute__((visibility("default"))) long syscall(long number, ...)
{
        va_list variable;
        long a[6];

        va_start(variable, number);
        for (int i = 0; i < 6; i++)
                a[i] = va_arg(variable, long);
        va_end(variable);
        if (is_wanted(KIND_CALL, CALLER()) && may_fail(number, a[0])) {
                int error = number == SYS_recvmsg ? ENOMEM : EAGAIN;
                char name[NAME_SIZE];

                (void)snprintf(name, sizeof(name), "syscall %ld", number);
                if (take(KIND_CALL, name, error)) {
                        errno = error;
                        return -1;
                }
        }
        return REAL(syscall)(number, a[0], a[1], a[2], a[3], a[4], a[5]);
}
