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
#include "bpf/egress_direct.skel.h"
#pragma GCC diagnostic pop

struct egress_wall {
        struct egress_bpf *skeleton;
        struct egress_direct_bpf *direct; /* NULL: no direct mode */
        int map_fds[_EGRESS_MAP_N];       /* the skeleton's */
        uint32_t program_ids[EGRESS_PROGRAMS_DIRECT];
        size_t n_programs;
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

static int note_id(struct egress_wall *wall, const struct bpf_program *program)
{
        int r;

        if (wall->n_programs >= EGRESS_PROGRAMS_DIRECT)
                return -E2BIG;
        r = find_id(bpf_program__fd(program), &wall->program_ids[wall->n_programs]);
        if (!r)
                wall->n_programs++;
        return r;
}

/* Not by links: those end with their process, and the wall with them. */
static int attach(struct egress_wall *wall, int cgroup_fd, const char **ret_program)
{
        struct bpf_program *program;

        bpf_object__for_each_program(program, wall->skeleton->obj)
        {
                int r;

                *ret_program = bpf_program__name(program);
                r = bpf_prog_attach(bpf_program__fd(program), cgroup_fd,
                                    bpf_program__expected_attach_type(program), BPF_F_ALLOW_MULTI);
                if (!r)
                        r = note_id(wall, program);
                if (r)
                        return r;
        }
        return wall->n_programs == EGRESS_PROGRAMS ? 0 : -ENOENT;
}

/* Its tables but one are those of the wall: one look at a policy, whatever asks. */
static int share_maps(const struct egress_bpf *from, const struct egress_direct_bpf *to)
{
        const struct {
                struct bpf_map *from;
                struct bpf_map *to;
        } shared[] = {
                { from->maps.sandboxes, to->maps.sandboxes },
                { from->maps.counts, to->maps.counts },
                { from->maps.prefixes4, to->maps.prefixes4 },
                { from->maps.prefixes6, to->maps.prefixes6 },
                { from->maps.names, to->maps.names },
                { from->maps.events, to->maps.events },
        };
        int r = 0;

        for (size_t i = 0; i < ARRAY_SIZE(shared) && !r; i++)
                r = bpf_map__reuse_fd(shared[i].to, bpf_map__fd(shared[i].from));
        return r;
}

static int load_direct(struct egress_wall *wall, uint32_t n_devices)
{
        int r;

        wall->direct = egress_direct_bpf__open();
        if (!wall->direct)
                return -errno;
        r = share_maps(wall->skeleton, wall->direct);
        if (!r)
                r = bpf_map__set_max_entries(wall->direct->maps.devices, n_devices);
        if (!r)
                r = egress_direct_bpf__load(wall->direct);
        if (!r)
                r = note_id(wall, wall->direct->progs.egress_from_sandbox);
        return r ? r : note_id(wall, wall->direct->progs.egress_to_sandbox);
}

/* Says in @ret_why what failed. */
static int put_up(struct egress_wall *wall, const struct egress_wall_config *config,
                  char ret_why[static EGRESS_WHY_BUFFER])
{
        const char *program = "";
        int r = load(wall, config);

        if (r) {
                (void)snprintf(ret_why, EGRESS_WHY_BUFFER, "the programs cannot be loaded: %s",
                               strerrordesc_np(-r));
                return r;
        }
        collect_maps(wall);
        r = attach(wall, config->cgroup_fd, &program);
        if (r) {
                (void)snprintf(ret_why, EGRESS_WHY_BUFFER, "%s cannot be attached: %s", program,
                               strerrordesc_np(-r));
                return r;
        }
        r = config->n_devices > 0 ? load_direct(wall, config->n_devices) : 0;
        if (r)
                (void)snprintf(ret_why, EGRESS_WHY_BUFFER,
                               "the programs of direct mode cannot be loaded: %s",
                               strerrordesc_np(-r));
        return r;
}

int egress_wall_new(const struct egress_wall_config *config, struct egress_wall **ret_wall,
                    char ret_why[static EGRESS_WHY_BUFFER])
{
        struct egress_wall *wall = calloc(1, sizeof(*wall));
        int r;

        if (!wall)
                return error_origin(-ENOMEM);
        (void)libbpf_set_print(keep_quiet);
        r = put_up(wall, config, ret_why);
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
                egress_direct_bpf__destroy(wall->direct);
                egress_bpf__destroy(wall->skeleton);
                free(wall);
        }
        return NULL;
}

const uint32_t *egress_wall_program_ids(const struct egress_wall *wall, size_t *ret_n)
{
        *ret_n = wall->n_programs;
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

static int put_program(uint32_t number, enum bpf_tc_attach_point point,
                       const struct bpf_program *program)
{
        DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)number, .attach_point = point);
        DECLARE_LIBBPF_OPTS(bpf_tc_opts, options, .prog_fd = bpf_program__fd(program));

        return bpf_tc_attach(&hook, &options);
}

int egress_wall_guard_device(const struct egress_wall *wall, uint32_t number)
{
        DECLARE_LIBBPF_OPTS(bpf_tc_hook, hook, .ifindex = (int)number,
                            .attach_point = BPF_TC_INGRESS | BPF_TC_EGRESS);
        int r = bpf_tc_hook_create(&hook);

        if (!r)
                r = put_program(number, BPF_TC_INGRESS, wall->direct->progs.egress_from_sandbox);
        if (!r)
                r = put_program(number, BPF_TC_EGRESS, wall->direct->progs.egress_to_sandbox);
        return r ? error_origin(r) : 0;
}

int egress_wall_bind_device(const struct egress_wall *wall, uint32_t number,
                            const struct egress_device *device)
{
        int r = bpf_map_update_elem(bpf_map__fd(wall->direct->maps.devices), &number, device,
                                    BPF_ANY);

        return r ? error_origin(r) : 0;
}

void egress_wall_forget_device(const struct egress_wall *wall, uint32_t number)
{
        (void)bpf_map_delete_elem(bpf_map__fd(wall->direct->maps.devices), &number);
}

int egress_wall_read_counts(const struct egress_wall *wall, uint64_t cgroup_id,
                            struct egress_counts *ret_counts)
{
        return bpf_map_lookup_elem(wall->map_fds[EGRESS_MAP_COUNTS], &cgroup_id, ret_counts);
}
