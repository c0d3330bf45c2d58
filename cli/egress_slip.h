/* Common slips in `[PROTOCOL:]HOST[:PORTS]`, told before anything is sent, with what to write. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/* What is wrong with @text, whose first @n_protocol bytes are its protocol and colon, and what to
 * write instead, as the rest of a sentence; NULL: nothing that is known here. To be freed. */
char *egress_slip(const char *text, size_t n_protocol, bool is_deny);
