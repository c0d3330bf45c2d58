/* A wall in groups and networks of one's own, and processes that are born behind it. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "bpf/egress.h"
#include "runtime/cgroup/group.h"
#include "runtime/supervisor/netns.h"
#include "test/lib/janitor.h"

enum {
        BOXES = 2,
        UNEXPECTED = 254, /* of what is returned in boxes, which else are errnos */
};

struct box {
        struct cgroup group;
        struct cgroup leaf;
        struct netns netns;
};

struct fixture {
        struct cgroup_tree tree;
        struct janitor janitor; /* removes the tree after a test that failed */
        struct egress_wall *wall;
        int home_fd;
        struct box boxes[BOXES];
};

/* Makes a tree with two groups, each with a network of its own; both are admitted, without a
 * policy. */
void fixture_init(struct fixture *f);
void fixture_deinit(struct fixture *f);

/* What is done in the box; what it returns comes back (0 to 255). */
typedef int box_body(const void *data);

int in_box(const struct box *box, box_body *body, const void *data);

/* So many connections from the box, which the wall refuses as long as nothing lets them through. */
enum { REFUSED_PORT = 4711 };

void refuse_in_box(const struct box *box, int n);

/* In a box: where to go, as a socket wants it; @is_mapped: IPv4 through a socket of IPv6. */
socklen_t fill_address(const char *address, uint16_t port, bool is_mapped,
                       struct sockaddr_storage *storage);

struct egress_counts counts_of(const struct fixture *f, const struct box *box);

/* The next event that nobody has read. Fails when there is none. */
struct egress_event next_event(const struct fixture *f);
