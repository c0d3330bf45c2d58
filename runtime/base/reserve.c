#include "runtime/base/reserve.h"

#include <stdalign.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"

enum {
        N_SMALL = 64,
        SMALL_BYTES = 512, /* the buckets of a new hash table */
        N_LARGE = 32,
};

/* Pages that were never used take no memory. */
static alignas(max_align_t) uint8_t small[N_SMALL][SMALL_BYTES];
static alignas(max_align_t) uint8_t large[N_LARGE][RESERVE_BYTES_MAX];
static bool is_taken[N_SMALL + N_LARGE];

static void *slot(size_t i)
{
        return i < N_SMALL ? small[i] : large[i - N_SMALL];
}

void *reserve_alloc(size_t n)
{
        void *bytes = calloc(1, n);

        if (n > RESERVE_BYTES_MAX)
                return bytes;
        for (size_t i = n <= SMALL_BYTES ? 0 : N_SMALL; !bytes && i < ARRAY_SIZE(is_taken); i++) {
                if (is_taken[i])
                        continue;
                is_taken[i] = true;
                bytes = memset(slot(i), 0, n);
        }
        return bytes;
}

void reserve_free(void *bytes)
{
        for (size_t i = 0; i < ARRAY_SIZE(is_taken); i++) {
                if (bytes != slot(i))
                        continue;
                is_taken[i] = false;
                return;
        }
        free(bytes);
}

void *reserve_alloc_surely(size_t n)
{
        void *bytes = reserve_alloc(n);

        if (!bytes)
                reserve_exhausted();
        return bytes;
}

_Noreturn void reserve_exhausted(void)
{
        log_error("ending: there is no memory for what has begun");
        abort();
}
