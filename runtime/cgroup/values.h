/* What cgroup files say. */
#pragma once

#include <stdint.h>

enum { CGROUP_VALUE_MAX = 64 }; /* of a file that holds one number */

/* One decimal number and a newline; `max` is UINT64_MAX. -EBADMSG when it is something else. */
int cgroup_parse_number(const char *text, uint64_t *ret_value);

/* The number after @key in lines of `key number`; -ENODATA when there is no such line. */
int cgroup_parse_key(const char *text, const char *key, uint64_t *ret_value);
