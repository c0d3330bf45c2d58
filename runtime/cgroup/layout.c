#include "runtime/cgroup/layout.h"

#include <errno.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

static const struct {
        const char *v2;
        const char *v1;
} controller_names[] = {
        [CGROUP_MEMORY] = { "memory", "memory" },
        [CGROUP_CPU] = { "cpu", "cpu" },
        [CGROUP_PIDS] = { "pids", "pids" },
        [CGROUP_IO] = { "io", "blkio" },
};
static_assert(ARRAY_SIZE(controller_names) == _CGROUP_CONTROLLER_N, "every controller has a name");

/* The fields of a mountinfo line that matter here; they point into the line. */
struct mount_line {
        char *root;
        char *mount_point;
        char *type;
        char *options; /* of the superblock: the controllers of a v1 hierarchy */
};

const char *cgroup_controller_name(enum cgroup_controller controller)
{
        return controller_names[controller].v2;
}

static unsigned controllers_from_list(char *list)
{
        unsigned controllers = 0;
        char *position = NULL;

        for (char *name = strtok_r(list, ",", &position); name;
             name = strtok_r(NULL, ",", &position))
                for (size_t i = 0; i < ARRAY_SIZE(controller_names); i++)
                        if (strcmp(name, controller_names[i].v1) == 0)
                                controllers |= BIT(i);
        return controllers;
}

/* The kernel writes blank, tab, newline and backslash in paths as three octal digits. */
static void unescape_octal(char *text)
{
        char *to = text;

        for (const char *from = text; *from; to++) {
                if (from[0] == '\\' && from[1] >= '0' && from[1] <= '3' && from[2] >= '0' &&
                    from[2] <= '7' && from[3] >= '0' && from[3] <= '7') {
                        *to = (char)((from[1] - '0') * 64 + (from[2] - '0') * 8 + (from[3] - '0'));
                        from += 4;
                } else {
                        *to = *from++;
                }
        }
        *to = '\0';
}

/* `id parent device root mount-point options [optional fields] - type source super-options` */
static bool parse_mount_line(char *line, struct mount_line *ret_fields)
{
        char *separator = strstr(line, " - ");
        char *position = NULL;
        char *field;

        if (!separator)
                return false;
        *separator = '\0';

        (void)strtok_r(line, " ", &position);
        (void)strtok_r(NULL, " ", &position);
        (void)strtok_r(NULL, " ", &position);
        ret_fields->root = strtok_r(NULL, " ", &position);
        ret_fields->mount_point = strtok_r(NULL, " ", &position);

        position = NULL;
        ret_fields->type = strtok_r(separator + 3, " \n", &position);
        field = strtok_r(NULL, " \n", &position);
        ret_fields->options = strtok_r(NULL, " \n", &position);
        if (!ret_fields->mount_point || !field || !ret_fields->options)
                return false;

        unescape_octal(ret_fields->root);
        unescape_octal(ret_fields->mount_point);
        return true;
}

static int copy_text(char to[static CGROUP_PATH_MAX], const char *from)
{
        size_t length = strlen(from);

        if (length >= CGROUP_PATH_MAX)
                return error_origin(-ENAMETOOLONG);
        memcpy(to, from, length + 1);
        return 0;
}

static int hierarchy_init(struct cgroup_hierarchy *hierarchy, const struct mount_line *line,
                          unsigned controllers)
{
        int r;

        r = copy_text(hierarchy->mount, line->mount_point);
        if (!r)
                r = copy_text(hierarchy->root, line->root);
        hierarchy->controllers = controllers;
        return r;
}

static int add_mount(struct cgroup_layout *layout, struct mount_line *line, unsigned *found)
{
        unsigned controllers;
        int r;

        if (strcmp(line->type, "cgroup2") == 0 && !layout->hierarchies[0].mount[0])
                return hierarchy_init(&layout->hierarchies[0], line, 0);
        if (strcmp(line->type, "cgroup") != 0)
                return 0;

        /* Of a hierarchy that is mounted twice the first mount will do. */
        controllers = controllers_from_list(line->options) & ~*found;
        if (!controllers)
                return 0;
        r = hierarchy_init(&layout->hierarchies[layout->n_hierarchies], line, controllers);
        if (r)
                return r;
        *found |= controllers;
        layout->n_hierarchies++;
        return 0;
}

static int parse_mountinfo(FILE *mountinfo, struct cgroup_layout *layout)
{
        _cleanup_(freep) char *line = NULL;
        size_t size = 0;
        unsigned found = 0;

        layout->n_hierarchies = 1;
        while (getline(&line, &size, mountinfo) >= 0) {
                struct mount_line fields;
                int r;

                if (!parse_mount_line(line, &fields))
                        continue;
                r = add_mount(layout, &fields, &found);
                if (r)
                        return r;
        }
        return layout->hierarchies[0].mount[0] ? 0 : CGROUP_LAYOUT_E_NO_CGROUP2;
}

static struct cgroup_hierarchy *find_hierarchy(struct cgroup_layout *layout, char *controllers)
{
        unsigned wanted;

        if (!*controllers)
                return &layout->hierarchies[0];
        wanted = controllers_from_list(controllers);
        for (size_t i = 1; i < layout->n_hierarchies; i++)
                if (layout->hierarchies[i].controllers & wanted)
                        return &layout->hierarchies[i];
        return NULL;
}

/* `number:controllers:path`, no controllers in the line of cgroup2 */
static int parse_self_cgroup(FILE *self_cgroup, struct cgroup_layout *layout)
{
        _cleanup_(freep) char *line = NULL;
        size_t size = 0;

        while (getline(&line, &size, self_cgroup) >= 0) {
                struct cgroup_hierarchy *hierarchy;
                char *controllers = strchr(line, ':');
                char *path = controllers ? strchr(controllers + 1, ':') : NULL;
                int r;

                if (!path)
                        continue;
                *path++ = '\0';
                path[strcspn(path, "\n")] = '\0';
                hierarchy = find_hierarchy(layout, controllers + 1);
                if (!hierarchy)
                        continue;
                r = copy_text(hierarchy->own, path);
                if (r)
                        return r;
        }
        return 0;
}

int cgroup_layout_parse(FILE *mountinfo, FILE *self_cgroup, struct cgroup_layout *ret_layout)
{
        struct cgroup_layout layout = { 0 };
        int r;

        r = parse_mountinfo(mountinfo, &layout);
        if (r)
                return r;
        r = parse_self_cgroup(self_cgroup, &layout);
        if (r)
                return r;
        *ret_layout = layout;
        return 0;
}

int cgroup_layout_read(struct cgroup_layout *ret_layout)
{
        _cleanup_(fclosep) FILE *mountinfo = fopen("/proc/self/mountinfo", "re");
        _cleanup_(fclosep) FILE *self_cgroup = fopen("/proc/self/cgroup", "re");

        if (!mountinfo || !self_cgroup)
                return error_origin(-errno);
        return cgroup_layout_parse(mountinfo, self_cgroup, ret_layout);
}

int cgroup_hierarchy_path(const struct cgroup_hierarchy *hierarchy, const char *group,
                          char ret_path[static CGROUP_PATH_MAX])
{
        const char *below = group;
        size_t n_root = strlen(hierarchy->root);
        int n;

        /* The mount was made outside of the reader's cgroup namespace: names do not tell the way.
         */
        if (strncmp(hierarchy->root, "/..", 3) == 0)
                return error_origin(-EXDEV);
        if (strcmp(hierarchy->root, "/") != 0) {
                if (strncmp(group, hierarchy->root, n_root) == 0 &&
                    (group[n_root] == '/' || group[n_root] == '\0'))
                        below = group + n_root;
                else
                        below = "";
        }
        while (*below == '/')
                below++;
        n = snprintf(ret_path, CGROUP_PATH_MAX, "%s%s%s", hierarchy->mount, *below ? "/" : "",
                     below);
        return n >= 0 && n < CGROUP_PATH_MAX ? 0 : error_origin(-ENAMETOOLONG);
}
