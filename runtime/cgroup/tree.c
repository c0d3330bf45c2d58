/*
 * cgroup2's "no internal processes" rule shapes this: a group that enables controllers for its
 * children may not hold processes, the root excepted. So a runtime that shares its group with
 * nobody (a systemd unit, a container) steps down into a leaf before it enables any; one that does
 * (a login session) makes its groups in the nearest group above that holds no others' processes.
 */
#include "runtime/cgroup/tree.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/cgroup/leftover.h"

enum { DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC };

#define OWN_LEAF "hotcell-runtime"

static int join_path(char to[static CGROUP_PATH_MAX], const char *base, const char *name)
{
        int n = snprintf(to, CGROUP_PATH_MAX, "%s/%s", base, name);

        return n >= 0 && n < CGROUP_PATH_MAX ? 0 : error_origin(-ENAMETOOLONG);
}

static void plan_v1_controllers(struct cgroup_tree *tree, const struct cgroup_layout *layout)
{
        for (enum cgroup_controller c = 0; c < _CGROUP_CONTROLLER_N; c++) {
                tree->controllers[c].dialect = CGROUP_ABSENT;
                (void)snprintf(tree->controllers[c].missing, sizeof(tree->controllers[c].missing),
                               "neither a cgroup v1 mount nor the cgroup2 tree offers it");
                for (size_t h = 1; h < layout->n_hierarchies; h++) {
                        if (!(layout->hierarchies[h].controllers & BIT(c)))
                                continue;
                        tree->controllers[c].dialect = CGROUP_V1;
                        tree->controllers[c].parent = h;
                }
        }
}

/* @file is a list of words; a missing file is an empty list. */
static bool list_has(int dir_fd, const char *file, const char *word)
{
        char list[512];
        char *position = NULL;

        if (io_read_file(dir_fd, file, list, sizeof(list), NULL))
                return false;
        for (char *at = strtok_r(list, " \n", &position); at; at = strtok_r(NULL, " \n", &position))
                if (strcmp(at, word) == 0)
                        return true;
        return false;
}

/* Who is in a group itself. */
struct occupants {
        bool has_caller;
        bool has_others;
};

static struct occupants count_occupants(int dir_fd)
{
        struct occupants occupants = { 0 };
        int fd = openat(dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        _cleanup_(fclosep) FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
        char own[32];
        char line[32];

        if (!file) {
                (void)close_fd(fd);
                return occupants;
        }
        (void)snprintf(own, sizeof(own), "%d\n", getpid());
        while (fgets(line, sizeof(line), file)) {
                if (strcmp(line, own) == 0)
                        occupants.has_caller = true;
                else
                        occupants.has_others = true;
        }
        return occupants;
}

/* What sandboxes can do without is taken where it is to be had, and nothing is moved for it. */
static bool is_optional(enum cgroup_controller controller)
{
        return controller == CGROUP_IO;
}

/* As many controllers as no v1 hierarchy carries, and as are here to be had. */
static bool needs_enabling(const struct cgroup_tree *tree, int root_fd, int base_fd)
{
        for (enum cgroup_controller c = 0; c < _CGROUP_CONTROLLER_N; c++)
                if (!is_optional(c) && tree->controllers[c].dialect == CGROUP_ABSENT &&
                    list_has(root_fd, "cgroup.controllers", cgroup_controller_name(c)) &&
                    !list_has(base_fd, "cgroup.subtree_control", cgroup_controller_name(c)))
                        return true;
        return false;
}

/* The nearest group, from the caller's own upwards, that may pass controllers on. */
static int climb(struct cgroup_tree *tree, const char *mount)
{
        _cleanup_(closep) int root_fd = open(mount, DIR_FLAGS);
        char *base = tree->parents[0].base;

        if (root_fd < 0)
                return error_origin(-errno);
        while (strlen(base) > strlen(mount)) {
                _cleanup_(closep) int fd = open(base, DIR_FLAGS);
                struct occupants occupants = count_occupants(fd);

                if (fd < 0 || !needs_enabling(tree, root_fd, fd) || !occupants.has_others)
                        break;
                *strrchr(base, '/') = '\0';
                log_info("the group is shared, making groups above it: base=%s", base);
        }
        return 0;
}

static int plan_parent(struct cgroup_tree *tree, size_t h, const struct cgroup_hierarchy *hierarchy,
                       const char *base, const char *name)
{
        int r;

        tree->parents[h].fd = -1;
        r = cgroup_hierarchy_path(hierarchy, base ? base : hierarchy->own, tree->parents[h].base);
        if (!r && h == 0) {
                (void)snprintf(tree->mount, sizeof(tree->mount), "%s", hierarchy->mount);
                r = base ? 0 : climb(tree, hierarchy->mount);
        }
        return r ? r : join_path(tree->parents[h].path, tree->parents[h].base, name);
}

int cgroup_tree_plan(struct cgroup_tree *tree, const struct cgroup_layout *layout, const char *base,
                     const char *name)
{
        assert(strncmp(name, CGROUP_NAME_PREFIX, strlen(CGROUP_NAME_PREFIX)) == 0);

        memset(tree, 0, sizeof(*tree));
        plan_v1_controllers(tree, layout);
        for (size_t h = 0; h < layout->n_hierarchies; h++) {
                int r = plan_parent(tree, h, &layout->hierarchies[h], base, name);

                if (r)
                        return error_fold(r);
        }
        tree->n_parents = layout->n_hierarchies;
        return 0;
}

/* A configured base may not exist yet. Its own parents must. */
static int make_group(const char *path, int *ret_fd)
{
        int fd;

        if (mkdir(path, 0755) < 0 && errno != EEXIST)
                return -errno;
        fd = open(path, DIR_FLAGS);
        if (fd < 0)
                return error_origin(-errno);
        *ret_fd = fd;
        return 0;
}

static int enable_controller(int dir_fd, const char *name)
{
        char command[32];

        if (list_has(dir_fd, "cgroup.subtree_control", name))
                return 0;
        (void)snprintf(command, sizeof(command), "+%s", name);
        return io_write_file(dir_fd, "cgroup.subtree_control", command);
}

/* Each group from the mount point down to the base's parent, as far as they let us. */
static void enable_above(const struct cgroup_tree *tree)
{
        const char *base = tree->parents[0].base;
        char path[CGROUP_PATH_MAX];

        for (size_t n = strlen(tree->mount); n < strlen(base);
             n += 1 + strcspn(base + n + 1, "/")) {
                _cleanup_(closep) int fd = -1;

                (void)snprintf(path, sizeof(path), "%.*s", (int)n, base);
                fd = open(path, DIR_FLAGS);
                for (enum cgroup_controller c = 0; fd >= 0 && c < _CGROUP_CONTROLLER_N; c++)
                        if (tree->controllers[c].dialect == CGROUP_ABSENT &&
                            list_has(fd, "cgroup.controllers", cgroup_controller_name(c)))
                                (void)enable_controller(fd, cgroup_controller_name(c));
        }
}

/* The root of the hierarchy has no cgroup.type, and may hold processes beside child groups. */
static bool is_exempt_root(int dir_fd)
{
        return faccessat(dir_fd, "cgroup.type", F_OK, 0) < 0 && errno == ENOENT;
}

/* Moving another process waits for an RCU grace period; it is done once, at start. */
static int step_into_leaf(const char *base)
{
        _cleanup_(closep) int leaf_fd = -1;
        char path[CGROUP_PATH_MAX];
        int r;

        r = join_path(path, base, OWN_LEAF);
        if (!r)
                r = make_group(path, &leaf_fd);
        if (r)
                return error_fold(r);
        return io_write_file(leaf_fd, "cgroup.procs", "0");
}

static void resolve_v2_controller(struct cgroup_tree *tree, enum cgroup_controller controller,
                                  int base_fd)
{
        const char *name = cgroup_controller_name(controller);
        int r;

        if (!list_has(base_fd, "cgroup.controllers", name))
                return;
        r = enable_controller(base_fd, name);
        if (!r)
                r = enable_controller(tree->parents[0].fd, name);
        if (!r) {
                tree->controllers[controller].dialect = CGROUP_V2;
                tree->controllers[controller].parent = 0;
                return;
        }
        (void)snprintf(tree->controllers[controller].missing,
                       sizeof(tree->controllers[controller].missing),
                       r == -EBUSY ? "other processes share the group (%s)"
                                   : "the group's parent does not pass it on (%s)",
                       strerrordesc_np(-r));
}

static int create_identity(struct cgroup_tree *tree, int *ret_base_fd)
{
        _cleanup_(closep) int base_fd = -1;
        int r;

        r = make_group(tree->parents[0].base, &base_fd);
        if (r)
                return error_fold(r);
        enable_above(tree);
        if (needs_enabling(tree, base_fd, base_fd) && !is_exempt_root(base_fd) &&
            count_occupants(base_fd).has_caller) {
                r = step_into_leaf(tree->parents[0].base);
                if (r)
                        log_warning("cannot move to a leaf group: path=%s error=%s",
                                    tree->parents[0].base, strerrorname_np(-r));
        }
        r = make_group(tree->parents[0].path, &tree->parents[0].fd);
        if (r)
                return error_fold(r);
        if (!cgroup_take_ownership(tree))
                return CGROUP_TREE_E_TAKEN;
        *ret_base_fd = take_fd(&base_fd);
        return 0;
}

/* A v1 hierarchy that cannot be used costs its controllers, nothing else. */
static void create_v1_parent(struct cgroup_tree *tree, size_t h)
{
        _cleanup_(closep) int base_fd = -1;
        int r;

        r = make_group(tree->parents[h].base, &base_fd);
        if (!r)
                r = make_group(tree->parents[h].path, &tree->parents[h].fd);
        if (!r)
                return;
        for (enum cgroup_controller c = 0; c < _CGROUP_CONTROLLER_N; c++) {
                if (tree->controllers[c].dialect != CGROUP_V1 || tree->controllers[c].parent != h)
                        continue;
                tree->controllers[c].dialect = CGROUP_ABSENT;
                (void)snprintf(tree->controllers[c].missing, sizeof(tree->controllers[c].missing),
                               "its v1 hierarchy cannot be written: %s", strerrordesc_np(-r));
        }
}

int cgroup_tree_create(struct cgroup_tree *tree)
{
        _cleanup_(closep) int base_fd = -1;
        int r;

        r = create_identity(tree, &base_fd);
        if (r) {
                (void)cgroup_tree_remove(tree);
                return r;
        }
        for (size_t h = 1; h < tree->n_parents; h++)
                create_v1_parent(tree, h);
        for (enum cgroup_controller c = 0; c < _CGROUP_CONTROLLER_N; c++)
                if (tree->controllers[c].dialect == CGROUP_ABSENT)
                        resolve_v2_controller(tree, c, base_fd);
        return 0;
}

int cgroup_tree_remove(struct cgroup_tree *tree)
{
        int first_error = 0;

        for (size_t h = tree->n_parents; h-- > 0;) {
                if (tree->parents[h].fd < 0)
                        continue;
                if (rmdir(tree->parents[h].path) < 0 && errno != ENOENT && !first_error)
                        first_error = -errno;
        }
        cgroup_tree_deinit(tree);
        return first_error;
}

void cgroup_tree_deinit(struct cgroup_tree *tree)
{
        for (size_t h = 0; h < tree->n_parents; h++)
                tree->parents[h].fd = close_fd(tree->parents[h].fd);
        tree->n_parents = 0;
}
