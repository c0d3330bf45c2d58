/* How many terminals a sandbox may have: the kernel has one number of them for the whole host. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum {
        TERMINALS_MIN = 3,    /* for a sandbox, however little there is */
        TERMINALS_MOST = 128, /* enough for anyone */
};

struct terminals {
        uint32_t n_host;    /* that others than the host's own mount may have: all sandboxes' */
        uint32_t n_sandbox; /* for each */
        bool is_enough;     /* for all sandboxes at once to have theirs */
};

/* Shares @max less @reserved among @n_sandboxes, which is at least one. */
struct terminals terminals_share(uint32_t max, uint32_t reserved, uint32_t n_sandboxes);

/* The same of this host's (kernel.pty.max, kernel.pty.reserve). */
int terminals_read(uint32_t n_sandboxes, struct terminals *ret_terminals);
