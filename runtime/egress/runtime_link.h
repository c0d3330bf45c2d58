/* What hotcell-runtime says: what the wall is, which networks there are, and who hotcelld is. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct egress;

/* A packet of the runtime's. Takes the descriptors that it needs out of @fds. */
void runtime_link_handle(struct egress *egress, const uint8_t *bytes, size_t n_bytes, int *fds,
                         size_t n_fds);
