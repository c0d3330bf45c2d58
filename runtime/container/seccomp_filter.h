/* The seccomp allow-list as a program for the kernel. */
#pragma once

#include <linux/filter.h>
#include <stddef.h>

enum { SECCOMP_FILTER_MAX = 512 }; /* instructions; the kernel would take 4096 */

struct seccomp_filter {
        struct sock_filter code[SECCOMP_FILTER_MAX];
        size_t n_code;
};

/* Compiles the list (seccomp_list.h). Done once: loading is all that a start costs. */
void seccomp_filter_build(struct seccomp_filter *ret_filter);

/* For the calling thread and all that it becomes; needs no_new_privs. */
int seccomp_filter_load(const struct seccomp_filter *filter);
