#include "server/store/egress.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>

struct egress *egress_new(size_t n_bytes)
{
        struct egress *egress = calloc(1, sizeof(*egress) + n_bytes);

        if (!egress)
                return NULL;
        egress->n_holds = 1;
        egress->n_bytes = n_bytes;
        return egress;
}

struct egress *egress_hold(struct egress *egress)
{
        if (egress)
                egress->n_holds++;
        return egress;
}

struct egress *egress_release(struct egress *egress)
{
        if (!egress)
                return NULL;
        assert(egress->n_holds > 0);
        if (--egress->n_holds > 0)
                return NULL;
        free(egress->marks);
        free(egress);
        return NULL;
}

size_t egress_memory(const struct egress *egress)
{
        return egress ? sizeof(*egress) + egress->n_bytes : 0;
}

bool egress_is_same(const struct egress *a, const struct egress *b)
{
        if (!a || !b)
                return a == b;
        return a->default_action == b->default_action && a->record_types == b->record_types &&
               a->n_bytes == b->n_bytes && memcmp(a->bytes, b->bytes, a->n_bytes) == 0;
}
