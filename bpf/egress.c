#include "bpf/egress.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <bpf/bpf.h>
#include <bpf/libbpf.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wcast-qual" /* in what bpftool writes */
#include "bpf/egress.skel.h"
#pragma GCC diagnostic pop

struct egress_wall {
        struct egress_bpf *skeleton;
        int map_fds[_EGRESS_MAP_N]; /* the skeleton's */
        uint32_t program_ids[EGRESS_PROGRAMS];
};

static int keep_quiet(enum libbpf_print_level level, const char *format, va_list arguments)
{
        (void)level;
        (void)format;
        (void)arguments;
        return 0;
}

static int set_sizes(struct egress_bpf *skeleton, uint32_t n_sandboxes)
{
        int r = bpf_map__set_max_entries(skeleton->maps.sandboxes, n_sandboxes);

        if (!r)
                r = bpf_map__set_max_entries(skeleton->maps.counts, n_sandboxes);
        if (!r)
                r = bpf_map__set_max_entries(skeleton->maps.tokens, n_sandboxes * EGRESS_TOKENS);
        return r;
}

static void collect_maps(struct egress_wall *wall)
{
        const struct egress_bpf *skeleton = wall->skeleton;
        struct bpf_map *const maps[] = {
                [EGRESS_MAP_SANDBOXES] = skeleton->maps.sandboxes,
                [EGRESS_MAP_COUNTS] = skeleton->maps.counts,
                [EGRESS_MAP_PREFIXES4] = skeleton->maps.prefixes4,
                [EGRESS_MAP_PREFIXES6] = skeleton->maps.prefixes6,
                [EGRESS_MAP_NAMES] = skeleton->maps.names,
                [EGRESS_MAP_TOKENS] = skeleton->maps.tokens,
                [EGRESS_MAP_EVENTS] = skeleton->maps.events,
        };
        static_assert(ARRAY_SIZE(maps) == _EGRESS_MAP_N, "every map has a row");

        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                wall->map_fds[i] = bpf_map__fd(maps[i]);
}

static int load(struct egress_wall *wall, const struct egress_wall_config *config)
{
        int r;

        wall->skeleton = egress_bpf__open();
        if (!wall->skeleton)
                return -errno;
        r = set_sizes(wall->skeleton, config->n_sandboxes);
        if (r)
                return r;
        wall->skeleton->rodata->parent_id = config->cgroup_id;
        return egress_bpf__load(wall->skeleton);
}

static int find_id(int program_fd, uint32_t *ret_id)
{
        struct bpf_prog_info info = { 0 };
        uint32_t n_info = sizeof(info);
        int r = bpf_obj_get_info_by_fd(program_fd, &info, &n_info);

        *ret_id = info.id;
        return r;
}

/* Not by links: those end with their process, and the wall with them. */
static int attach(struct egress_wall *wall, int cgroup_fd, const char **ret_program)
{
        struct bpf_program *program;
        size_t n = 0;

        bpf_object__for_each_program(program, wall->skeleton->obj)
        {
                int r;

                *ret_program = bpf_program__name(program);
                if (n >= EGRESS_PROGRAMS)
                        return -E2BIG;
                r = bpf_prog_attach(bpf_program__fd(program), cgroup_fd,
                                    bpf_program__expected_attach_type(program), BPF_F_ALLOW_MULTI);
                if (!r)
                        r = find_id(bpf_program__fd(program), &wall->program_ids[n++]);
                if (r)
                        return r;
        }
        return n == EGRESS_PROGRAMS ? 0 : -ENOENT;
}

int egress_wall_new(const struct egress_wall_config *config, struct egress_wall **ret_wall,
                    char ret_why[static EGRESS_WHY_BUFFER])
{
        struct egress_wall *wall = calloc(1, sizeof(*wall));
        const char *program = "";
        int r;

        if (!wall)
                return error_origin(-ENOMEM);
        (void)libbpf_set_print(keep_quiet);
        r = load(wall, config);
        if (r) {
                (void)snprintf(ret_why, EGRESS_WHY_BUFFER, "the programs cannot be loaded: %s",
                               strerrordesc_np(-r));
        } else {
                collect_maps(wall);
                r = attach(wall, config->cgroup_fd, &program);
                if (r)
                        (void)snprintf(ret_why, EGRESS_WHY_BUFFER, "%s cannot be attached: %s",
                                       program, strerrordesc_np(-r));
        }
        if (r) {
                (void)egress_wall_free(wall);
                return error_origin(r);
        }
        *ret_wall = wall;
        return 0;
}

struct egress_wall *egress_wall_free(struct egress_wall *wall)
{
        if (wall) {
                egress_bpf__destroy(wall->skeleton);
                free(wall);
        }
        return NULL;
}

const uint32_t *egress_wall_program_ids(const struct egress_wall *wall)
{
        return wall->program_ids;
}

int egress_wall_map_fd(const struct egress_wall *wall, enum egress_map map)
{
        return wall->map_fds[map];
}

int egress_wall_admit(struct egress_wall *wall, uint64_t cgroup_id,
                      const struct egress_sandbox *sandbox)
{
        const struct egress_counts none = { 0 };
        int r = bpf_map_update_elem(wall->map_fds[EGRESS_MAP_COUNTS], &cgroup_id, &none, BPF_ANY);

        if (!r)
                r = bpf_map_update_elem(wall->map_fds[EGRESS_MAP_SANDBOXES], &cgroup_id, sandbox,
                                        BPF_ANY);
        if (r)
                egress_wall_forget(wall, cgroup_id);
        return r ? error_origin(r) : 0;
}

void egress_wall_forget(struct egress_wall *wall, uint64_t cgroup_id)
{
        (void)bpf_map_delete_elem(wall->map_fds[EGRESS_MAP_SANDBOXES], &cgroup_id);
        (void)bpf_map_delete_elem(wall->map_fds[EGRESS_MAP_COUNTS], &cgroup_id);
}

int egress_wall_read_counts(const struct egress_wall *wall, uint64_t cgroup_id,
                            struct egress_counts *ret_counts)
{
        return bpf_map_lookup_elem(wall->map_fds[EGRESS_MAP_COUNTS], &cgroup_id, ret_counts);
}
