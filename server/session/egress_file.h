/* The rules of an egress policy as hotcell-egress takes them: a memfd with one Policy. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "server/store/egress.h"

/* What hotcell-egress takes; 10,000 rules of the longest names with 8 ranges each are less. */
enum { EGRESS_FILE_MAX = 4 << 20 };

/*
 * Makes a sealed memfd, which is the caller's; -1 and no bytes for a policy without rules. Hosts
 * are written in the one form that they have in tables, so that nobody needs to convert them again.
 * A negative errno; -EUCLEAN: what is packed in @egress is none of ours.
 */
int egress_file_make(const struct egress *egress, int *ret_fd, uint32_t *ret_n_bytes);
