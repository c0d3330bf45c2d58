/* Which system calls a sandbox may make: the list itself, for people. */
#pragma once

#include <stddef.h>
#include <stdint.h>

/* What happens to a call. Anything not listed is refused. */
enum seccomp_verdict {
        SECCOMP_REFUSE, /* EPERM */
        SECCOMP_ALLOW,
        SECCOMP_UNKNOWN,       /* ENOSYS, so that libraries fall back to what they did before */
        SECCOMP_NOTHING_TO_DO, /* answered with success and not made */
        SECCOMP_CHECK_CLONE,  /* refused when it makes a namespace or a child of the caller's parent
                               */
        SECCOMP_CHECK_SOCKET, /* families and protocols */
        SECCOMP_CHECK_PAIR,   /* AF_UNIX only */
        SECCOMP_CHECK_IOCTL,  /* refused for requests that reach beyond the caller's terminal */
        SECCOMP_CHECK_PERSONALITY,
        SECCOMP_CHECK_SET_LIMIT,       /* refused for the size of core dumps */
        SECCOMP_CHECK_LIMIT,           /* the same, when there is a new limit */
        SECCOMP_CHECK_SOCKET_OPTION,   /* refused for filters, and what keeps packets uncharged */
        SECCOMP_CHECK_SEND,            /* refused when it keeps the packet back */
        SECCOMP_CHECK_SEND_MANY,       /* the same */
        SECCOMP_CHECK_SEND_MESSAGE,    /* the same */
        SECCOMP_CHECK_SPLICE,          /* the same */
        SECCOMP_CHECK_SECCOMP,         /* EINVAL for filters, as a kernel without them says */
        SECCOMP_CHECK_PROCESS_CONTROL, /* the same */
        _SECCOMP_VERDICT_N,
};

struct seccomp_entry {
        uint32_t number;
        enum seccomp_verdict verdict;
};

enum {
        SECCOMP_NEWEST = 469
}; /* newest number that this list has an opinion on; later ones are unknown */

extern const struct seccomp_entry seccomp_entries[];
extern const size_t n_seccomp_entries;
