/*
 * The walls between a sandbox and the host: what each is, whether it holds here (found by trying
 * it, not by looking at versions), and what to do when it does not. Without a required wall no
 * sandbox is made.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/supervisor/templates.h"
#include "runtime/supervisor/terminals.h"

struct cgroup_tree;
struct egress_wall;
struct id_ranges;
struct netns_pool;
struct spawner;

enum { WALLS_MAX = 32 };

#define WALL_EGRESS "egress"

struct wall {
        const char *name; /* stable */
        bool holds;
        bool is_required;
        char detail[192]; /* what was seen */
        const char *fix;  /* what to do; empty when it holds */
};

struct wall_list {
        struct wall walls[WALLS_MAX];
        size_t n_walls;
};

/* What the walls are tried with. Borrowed. */
struct wall_context {
        const struct cgroup_tree *cgroups;
        const char *cgroups_missing; /* why there is no tree; NULL when there is one */
        const struct template_store *templates;
        struct netns_pool *netns;
        struct egress_wall *egress;  /* NULL: it could not be put up */
        const char *egress_missing;  /* why */
        struct spawner *spawner;     /* NULL: it could not be started */
        const char *spawner_missing; /* why */
        const char *run_dir;
        const char *server_user;
        bool has_server_user;
        struct id_ranges *ids;
        uint32_t sandboxes_max;
        struct terminals terminals;
};

/* Tries all of them. Takes some milliseconds; the last one makes a real sandbox. */
void walls_probe(const struct wall_context *context, struct wall_list *ret_list);

/* The first required wall that does not hold, or NULL. */
const struct wall *walls_missing(const struct wall_list *list);
