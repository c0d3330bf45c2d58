/* What the command line says. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "runtime/base/log.h"
#include "runtime/supervisor/direct_pool.h"

enum options_mode {
        OPTIONS_RUN,
        OPTIONS_PROBE_TEXT,
        OPTIONS_PROBE_JSON,
};

enum {
        OPTIONS_PREFIXES_MAX = 64,
        OPTIONS_NAMESERVERS_MAX = 3,
};

enum {
        OPTIONS_E_DONE = 1, /* --help or --version was answered: exit with 0 */
        OPTIONS_E_USAGE,    /* it was told what is wrong: exit with EX_USAGE */
};

struct options {
        enum options_mode mode;
        const char *run_dir;
        const char *store;
        const char *server_user;
        const char *server_group;
        const char *egress; /* hotcell-egress; NULL: there is none, nothing leaves */
        const char *egress_user;
        /* For hotcell-egress, which takes the same; NULL-terminated. */
        const char *egress_open[OPTIONS_PREFIXES_MAX + 1];
        const char *egress_nameservers[OPTIONS_NAMESERVERS_MAX + 1]; /* none: the host's */
        struct direct_pool direct_pool;                              /* not set: no direct mode */
        int direct_problem; /* with direct_text, for options.c */
        const char *direct_text;
        const char *supervise;         /* NULL: hotcelld is somebody else's */
        char *const *server_arguments; /* after `--`, NULL-terminated */
        const char *cgroup_parent;     /* NULL: the runtime's own group */
        uint32_t id_base;
        uint32_t sandboxes_max;
        uint32_t netns_pool;
        uint32_t meter_slots;
        bool has_meter_programs;
        enum log_level log_level;
        const char *init;    /* hotcell-init */
        const char *problem; /* with the value of an option, for people; NULL: it is bad */
};

int options_parse(int argc, char *argv[], struct options *ret_options);
