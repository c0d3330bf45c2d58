#include "runtime/supervisor/id_ranges.h"

#include <errno.h>
#include <stdlib.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

int id_ranges_init(struct id_ranges *ranges, uint32_t base, uint32_t n_ranges)
{
        *ranges = (struct id_ranges){ .base = base, .n_ranges = n_ranges };
        ranges->is_taken = calloc(n_ranges, sizeof(*ranges->is_taken));
        return ranges->is_taken ? 0 : error_origin(-ENOMEM);
}

void id_ranges_deinit(struct id_ranges *ranges)
{
        free(ranges->is_taken);
        ranges->is_taken = NULL;
        ranges->n_ranges = 0;
}

int id_ranges_take(struct id_ranges *ranges, uint32_t *ret_first)
{
        for (uint32_t tried = 0; tried < ranges->n_ranges; tried++) {
                uint32_t range = (ranges->next + tried) % ranges->n_ranges;

                if (ranges->is_taken[range])
                        continue;
                ranges->is_taken[range] = true;
                ranges->next = (range + 1) % ranges->n_ranges;
                *ret_first = ranges->base + range * ID_RANGE_SIZE;
                return 0;
        }
        return ID_RANGES_E_EXHAUSTED;
}

uint32_t id_ranges_index(const struct id_ranges *ranges, uint32_t first)
{
        return (first - ranges->base) / ID_RANGE_SIZE;
}

void id_ranges_release(struct id_ranges *ranges, uint32_t first)
{
        uint32_t range = id_ranges_index(ranges, first);

        assert(range < ranges->n_ranges && ranges->is_taken[range]);
        ranges->is_taken[range] = false;
}
