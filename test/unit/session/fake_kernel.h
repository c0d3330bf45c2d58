/*
 * Plays a language kernel, in a process of its own, with real pipes and signals. Its "code" is a
 * script, one command a line; see fake_kernel.c.
 */
#pragma once

struct fake_kernel_fds {
        int commands;
        int events;
        int out;
        int err;
};

/* Never returns. @mode: `` (behaves), `silent` (never ready), `dies` (exits with 7 and complains).
 */
_Noreturn void fake_kernel_run(const struct fake_kernel_fds *fds, const char *mode);
