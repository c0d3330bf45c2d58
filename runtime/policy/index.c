#include "runtime/policy/index.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>

#include "runtime/base/error.h"

/* From here on the answer is @value. Where several begin, the last one counts. */
static void start_stretch(struct policy_index *index, unsigned __int128 start, uint32_t value)
{
        index->starts[index->n_stretches] = start;
        index->values[index->n_stretches] = value;
        index->n_stretches++;
}

static uint32_t top_value(const struct policy_index_builder *builder)
{
        return builder->depth ? builder->stack[builder->depth - 1].value : POLICY_INDEX_NONE;
}

/* The first address behind a prefix; false: there is none. */
static bool find_end(const struct policy_prefix *prefix, unsigned __int128 *ret_end)
{
        unsigned width = prefix->is_v6 ? POLICY_V6_BITS : POLICY_V4_BITS;
        unsigned __int128 start = policy_number(prefix->bytes, prefix->is_v6);
        unsigned __int128 end;

        if (prefix->n_bits == 0)
                return false;
        end = start + ((unsigned __int128)1 << (width - prefix->n_bits));
        *ret_end = end;
        return prefix->is_v6 ? end != 0 : end >> POLICY_V4_BITS == 0;
}

static void pop(struct policy_index_builder *builder)
{
        unsigned __int128 end;

        builder->depth--;
        if (find_end(&builder->stack[builder->depth].prefix, &end))
                start_stretch(builder->index, end, top_value(builder));
}

static void begin_v6(struct policy_index_builder *builder)
{
        while (builder->depth > 0)
                pop(builder);
        builder->index->n_v4 = builder->index->n_stretches;
        start_stretch(builder->index, 0, POLICY_INDEX_NONE);
        builder->is_v6 = true;
}

int policy_index_begin(struct policy_index_builder *builder, struct policy_index *index,
                       size_t n_prefixes)
{
        /* A prefix begins one stretch and ends one; each family has one before all others. */
        size_t n_max = 2 * n_prefixes + 2;

        *index = (struct policy_index){
                .starts = calloc(n_max, sizeof(*index->starts)),
                .values = calloc(n_max, sizeof(*index->values)),
        };
        if (!index->starts || !index->values) {
                policy_index_deinit(index);
                return error_origin(-ENOMEM);
        }
        builder->index = index;
        builder->is_v6 = false;
        builder->depth = 0;
        start_stretch(index, 0, POLICY_INDEX_NONE);
        return 0;
}

uint32_t policy_index_enclosing(struct policy_index_builder *builder,
                                const struct policy_prefix *prefix)
{
        if (prefix->is_v6 && !builder->is_v6)
                begin_v6(builder);
        while (builder->depth > 0 &&
               !policy_prefix_encloses(&builder->stack[builder->depth - 1].prefix, prefix))
                pop(builder);
        return top_value(builder);
}

void policy_index_add(struct policy_index_builder *builder, const struct policy_prefix *prefix,
                      uint32_t value)
{
        (void)policy_index_enclosing(builder, prefix);
        start_stretch(builder->index, policy_number(prefix->bytes, prefix->is_v6), value);
        builder->stack[builder->depth].prefix = *prefix;
        builder->stack[builder->depth].value = value;
        builder->depth++;
}

void policy_index_end(struct policy_index_builder *builder)
{
        if (!builder->is_v6)
                begin_v6(builder);
        while (builder->depth > 0)
                pop(builder);
}

uint32_t policy_index_find(const struct policy_index *index, const struct policy_address *address)
{
        unsigned __int128 number = policy_number(address->bytes, address->is_v6);
        size_t base = address->is_v6 ? index->n_v4 : 0;
        size_t n = address->is_v6 ? index->n_stretches - index->n_v4 : index->n_v4;

        assert(n > 0);

        /* The last that begins at or before the address; the first begins at zero. */
        while (n > 1) {
                size_t half = n / 2;

                base += index->starts[base + half] <= number ? half : 0;
                n -= half;
        }
        return index->values[base];
}

void policy_index_deinit(struct policy_index *index)
{
        free(index->starts);
        free(index->values);
        *index = (struct policy_index){ 0 };
}
