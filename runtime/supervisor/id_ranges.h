/* The ranges of user and group ids that sandboxes have on the host: each its own, none shared. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct id_ranges {
        uint32_t base; /* first id of the first range */
        uint32_t n_ranges;
        uint32_t next; /* where the search begins: a range is reused as late as possible */
        bool *is_taken;
};

enum {
        ID_RANGE_SIZE = 65536,
        ID_RANGES_E_EXHAUSTED = 1, /* all are taken */
};

int id_ranges_init(struct id_ranges *ranges, uint32_t base, uint32_t n_ranges);
void id_ranges_deinit(struct id_ranges *ranges);

/* Sets *@ret_first to the first id of a free range. */
int id_ranges_take(struct id_ranges *ranges, uint32_t *ret_first);

/* Number of the range, from 0, that begins with @first. */
uint32_t id_ranges_index(const struct id_ranges *ranges, uint32_t first);

void id_ranges_release(struct id_ranges *ranges, uint32_t first);
