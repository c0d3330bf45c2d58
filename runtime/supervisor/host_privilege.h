/* What the runtime may do on the host: only what it needs, from the start on. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * Drops every capability that is not on the list, from the bounding set, too, so that no child gets
 * it back. Those on the list that are missing are left for the walls to report.
 */
int host_privilege_limit(void);

/* Gives up everything for good: for children that are to be nobody in particular. */
int host_privilege_give_up(void);
