/* What hotcelld asks for, one function for each request, and what sandboxes report back. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct sandbox_observer;
struct supervisor;

/* One packet of the connected hotcelld. */
void requests_handle(struct supervisor *supervisor, const uint8_t *bytes, size_t n_bytes, int *fds,
                     size_t n_fds);

/* Answers and events of sandboxes; its userdata is the supervisor. */
extern const struct sandbox_observer requests_observer;
