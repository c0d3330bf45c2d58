/*
 * cgroup2's "no internal processes" rule shapes this: a group that enables controllers for its
 * children may not hold processes, the root excepted. So the runtime, which usually shares its
 * group with nobody (a systemd unit, a container), steps down into a leaf before it enables any.
 *
 * A killed instance leaves its groups behind. The cgroup2 one tells whose they are: a lock on it
 * lives as long as its owner, and an extended attribute lists the others, which may lie below a v1
 * group that nobody else would look into.
 */
#include "runtime/cgroup/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"

enum {
        DIR_FLAGS = O_RDONLY | O_DIRECTORY | O_CLOEXEC,
        LEFTOVER_DEPTH_MAX = 4, /* parent, sandbox, leaf, and one to spare */
        LEFTOVER_PAUSE_MSEC = 10,
};

#define OWN_LEAF          "hotcell-runtime"
#define PARENTS_ATTRIBUTE "trusted.hotcell.parents" /* of the cgroup2 parent: those of v1 */

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

int cgroup_tree_plan(struct cgroup_tree *tree, const struct cgroup_layout *layout, const char *base,
                     const char *name)
{
        assert(strncmp(name, CGROUP_NAME_PREFIX, strlen(CGROUP_NAME_PREFIX)) == 0);

        memset(tree, 0, sizeof(*tree));
        for (size_t h = 0; h < layout->n_hierarchies; h++) {
                const struct cgroup_hierarchy *hierarchy = &layout->hierarchies[h];
                int r;

                tree->parents[h].fd = -1;
                r = cgroup_hierarchy_path(hierarchy, base ? base : hierarchy->own,
                                          tree->parents[h].base);
                if (!r)
                        r = join_path(tree->parents[h].path, tree->parents[h].base, name);
                if (r)
                        return error_fold(r);
        }
        tree->n_parents = layout->n_hierarchies;
        plan_v1_controllers(tree, layout);
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

static int enable_controller(int dir_fd, const char *name)
{
        char command[32];

        if (list_has(dir_fd, "cgroup.subtree_control", name))
                return 0;
        (void)snprintf(command, sizeof(command), "+%s", name);
        return io_write_file(dir_fd, "cgroup.subtree_control", command);
}

/* The root of the hierarchy has no cgroup.type, and may hold processes beside child groups. */
static bool is_exempt_root(int dir_fd)
{
        return faccessat(dir_fd, "cgroup.type", F_OK, 0) < 0 && errno == ENOENT;
}

static bool needs_enabling(int base_fd)
{
        for (enum cgroup_controller c = 0; c < _CGROUP_CONTROLLER_N; c++)
                if (list_has(base_fd, "cgroup.controllers", cgroup_controller_name(c)) &&
                    !list_has(base_fd, "cgroup.subtree_control", cgroup_controller_name(c)))
                        return true;
        return false;
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

/* The caller's own pid is in the group's list of processes, one a line. */
static bool holds_caller(int dir_fd)
{
        int fd = openat(dir_fd, "cgroup.procs", O_RDONLY | O_CLOEXEC);
        _cleanup_(fclosep) FILE *file = fd >= 0 ? fdopen(fd, "r") : NULL;
        char own[32];
        char line[32];

        if (!file) {
                (void)close_fd(fd);
                return false;
        }
        (void)snprintf(own, sizeof(own), "%d\n", getpid());
        while (fgets(line, sizeof(line), file))
                if (strcmp(line, own) == 0)
                        return true;
        return false;
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

/* Between making and locking it, another instance may have taken the group for abandoned. */
static bool take_lock(int fd, const char *path)
{
        struct stat ours;
        struct stat named;

        return flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &ours) == 0 &&
               stat(path, &named) == 0 && ours.st_ino == named.st_ino;
}

/* Losing it costs a later start the v1 groups of a killed instance, no more. */
static void list_parents(const struct cgroup_tree *tree)
{
        char list[CGROUP_HIERARCHIES_MAX * (CGROUP_PATH_MAX + 1)];
        size_t used = 0;

        for (size_t h = 1; h < tree->n_parents; h++)
                used += (size_t)snprintf(list + used, sizeof(list) - used, "%s\n",
                                         tree->parents[h].path);
        if (fsetxattr(tree->parents[0].fd, PARENTS_ATTRIBUTE, list, used, 0) < 0)
                log_debug("cannot list the groups: group=%s error=%s", tree->parents[0].path,
                          strerrorname_np(errno));
}

static int create_identity(struct cgroup_tree *tree, int *ret_base_fd)
{
        _cleanup_(closep) int base_fd = -1;
        int r;

        r = make_group(tree->parents[0].base, &base_fd);
        if (r)
                return error_fold(r);
        if (needs_enabling(base_fd) && !is_exempt_root(base_fd) && holds_caller(base_fd)) {
                r = step_into_leaf(tree->parents[0].base);
                if (r)
                        log_warning("cannot move to a leaf group: path=%s error=%s",
                                    tree->parents[0].base, strerrorname_np(-r));
        }
        r = make_group(tree->parents[0].path, &tree->parents[0].fd);
        if (r)
                return error_fold(r);
        if (!take_lock(tree->parents[0].fd, tree->parents[0].path))
                return CGROUP_TREE_E_TAKEN;
        list_parents(tree);
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

static DIR *open_directory(int dir_fd, const char *name)
{
        int fd = openat(dir_fd, name, DIR_FLAGS | O_NOFOLLOW);
        DIR *dir = fd >= 0 ? fdopendir(fd) : NULL;

        if (!dir)
                (void)close_fd(fd);
        return dir;
}

/* Depth first. Removes what it can and reports the first failure. */
static int remove_below(int dir_fd, const char *name, unsigned depth)
{
        DIR *dir = open_directory(dir_fd, name);
        int first_error = 0;

        if (!dir)
                return errno == ENOENT ? 0 : -errno;
        for (struct dirent *entry = readdir(dir); entry && depth > 0; entry = readdir(dir)) {
                int r;

                if (entry->d_type != DT_DIR || entry->d_name[0] == '.')
                        continue;
                r = remove_below(dirfd(dir), entry->d_name, depth - 1);
                if (r && !first_error)
                        first_error = r;
        }
        (void)closedir(dir);
        if (unlinkat(dir_fd, name, AT_REMOVEDIR) < 0 && errno != ENOENT && !first_error)
                first_error = -errno;
        return first_error;
}

static bool is_leftover_path(const char *path)
{
        const char *name = strrchr(path, '/');

        return path[0] == '/' && name && !strstr(path, "/../") &&
               strncmp(name + 1, CGROUP_NAME_PREFIX, strlen(CGROUP_NAME_PREFIX)) == 0;
}

int cgroup_remove_leftover(const char *path, unsigned timeout_msec)
{
        const struct timespec pause = { .tv_nsec = LEFTOVER_PAUSE_MSEC * 1000000L };
        _cleanup_(closep) int fd = -1;
        struct statfs file_system;
        int r;

        if (!is_leftover_path(path))
                return CGROUP_TREE_E_NOT_OURS;
        fd = open(path, DIR_FLAGS | O_NOFOLLOW);
        if (fd < 0)
                return errno == ENOENT ? 0 : -errno;
        if (fstatfs(fd, &file_system) < 0)
                return error_origin(-errno);
        if (file_system.f_type != CGROUP_SUPER_MAGIC && file_system.f_type != CGROUP2_SUPER_MAGIC)
                return CGROUP_TREE_E_NOT_OURS;

        for (unsigned waited = 0;; waited += LEFTOVER_PAUSE_MSEC) {
                /* Every process of a sandbox is in the cgroup2 tree, so v1 needs no killing. */
                if (file_system.f_type == CGROUP2_SUPER_MAGIC)
                        (void)io_write_file(fd, "cgroup.kill", "1");
                r = remove_below(AT_FDCWD, path, LEFTOVER_DEPTH_MAX);
                if (!r || waited >= timeout_msec)
                        return r;
                (void)nanosleep(&pause, NULL);
        }
}

/* CGROUP_NAME_PREFIX and 26 characters of base32. */
static bool is_instance_name(const char *name)
{
        size_t n_prefix = strlen(CGROUP_NAME_PREFIX);

        return strncmp(name, CGROUP_NAME_PREFIX, n_prefix) == 0 && strlen(name) == n_prefix + 26 &&
               strspn(name + n_prefix, "abcdefghijklmnopqrstuvwxyz234567") == 26;
}

static void remove_abandoned(const char *path, unsigned timeout_msec)
{
        int r = cgroup_remove_leftover(path, timeout_msec);

        if (r)
                log_warning("cannot remove an abandoned group: group=%s error=%d", path, r);
        else
                log_info("no abandoned group is left: group=%s", path);
}

/* Only groups of the same name: the list is not to be believed further. */
static void remove_listed(char *list, const char *name, unsigned timeout_msec)
{
        char *position = NULL;

        for (char *path = strtok_r(list, "\n", &position); path;
             path = strtok_r(NULL, "\n", &position)) {
                const char *last = strrchr(path, '/');

                if (last && strcmp(last + 1, name) == 0)
                        remove_abandoned(path, timeout_msec);
        }
}

/* An owner holds its lock for as long as it lives. */
static void remove_if_abandoned(const char *base, const char *name, unsigned timeout_msec)
{
        char list[CGROUP_HIERARCHIES_MAX * (CGROUP_PATH_MAX + 1)];
        _cleanup_(closep) int fd = -1;
        char path[CGROUP_PATH_MAX];
        ssize_t n;

        if (join_path(path, base, name))
                return;
        fd = open(path, DIR_FLAGS | O_NOFOLLOW);
        if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
                return;
        n = fgetxattr(fd, PARENTS_ATTRIBUTE, list, sizeof(list) - 1);
        list[n > 0 ? n : 0] = '\0';
        /* The processes first: they are all in cgroup2. */
        remove_abandoned(path, timeout_msec);
        remove_listed(list, name, timeout_msec);
}

void cgroup_remove_abandoned(const struct cgroup_tree *tree, unsigned timeout_msec)
{
        DIR *dir = opendir(tree->parents[0].base);

        if (!dir)
                return;
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
                if (is_instance_name(entry->d_name))
                        remove_if_abandoned(tree->parents[0].base, entry->d_name, timeout_msec);
        (void)closedir(dir);
}
