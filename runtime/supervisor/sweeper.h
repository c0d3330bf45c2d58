/*
 * Removes groups that are over. The kernel may need a while after the last process was reaped, so
 * this tries again by and by and nobody waits for it. A sandbox's ids are free again only when its
 * group is gone: then nothing can run with them.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <systemd/sd-event.h>

#include "runtime/cgroup/group.h"

struct id_ranges;
struct sweeper;

/* @ids: where ranges are given back. Borrowed. */
int sweeper_new(sd_event *event, struct id_ranges *ids, struct sweeper **ret_sweeper);

/* What could not be removed by now stays. */
struct sweeper *sweeper_free(struct sweeper *sweeper);

/* Takes over @group; often it is gone when this returns. Leaves come before their sandbox. */
void sweeper_add_leaf(struct sweeper *sweeper, const struct cgroup *group);
void sweeper_add_sandbox(struct sweeper *sweeper, const struct cgroup *group, uint32_t id_base);

/* Nothing is left to be removed. */
bool sweeper_is_idle(const struct sweeper *sweeper);
