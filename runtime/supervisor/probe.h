/*
 * Tries of single kernel features, each by doing it in a throw-away child or on a throw-away
 * object. All return 0 when it works, else a negative errno.
 */
#pragma once

struct cgroup_tree;

/* A new user namespace with 65,536 mapped ids. */
int probe_user_namespace(void);

/* One other namespace, by its CLONE_NEW* flag. */
int probe_namespace(int flag);

/* A network namespace with `lo` up and nothing else. */
int probe_network_namespace(void);

/* That no packet comes back to its sender in one. -ENOENT: that is the whole host's to say here. */
int probe_packet_times(void);

struct netns_pool;

/* Direct mode: a network with `lo` and its device, at which the wall's programs stand. */
int probe_direct(struct netns_pool *pool);

/* An id-mapped clone of @directory. */
int probe_idmapped_mount(const char *directory);

/* An overlay of @lower with a tmpfs on top, mounted over @place in a private namespace. */
int probe_overlay(const char *lower, const char *place);

/* A process born in a group, killed by cgroup.kill. Needs no controller. */
int probe_cgroup_identity(const struct cgroup_tree *tree);

struct egress_counts;
struct egress_wall;

/* The egress wall's refusals to a process in a group of its own and a new network; @ret_counts:
 * what the wall counted of them. */
int probe_egress(const struct cgroup_tree *tree, struct egress_wall *wall, int home_fd,
                 struct egress_counts *ret_counts);

/* A seccomp filter that answers as it was told. */
int probe_seccomp(void);

/* All capabilities given up for good, and no_new_privs. */
int probe_capability_drop(void);

/* Waiting for a child and signalling it by its pidfd. */
int probe_pidfd(void);
