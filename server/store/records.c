#include "server/store/records.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

static void pair_deinit(struct pair *pair)
{
        free(pair->name);
        free(pair->value);
}

void pairs_deinit(struct pairs *pairs)
{
        for (size_t i = 0; i < pairs->n; i++)
                pair_deinit(&pairs->items[i]);
        free(pairs->items);
        *pairs = (struct pairs){ 0 };
}

/* Capacities are powers of two, so the count alone tells when the array is full. */
static int make_room(struct pairs *pairs)
{
        struct pair *items;
        size_t capacity = pairs->n ? pairs->n * 2 : 1;

        if (pairs->n & (pairs->n - 1))
                return 0;
        items = reallocarray(pairs->items, capacity, sizeof(*items));
        if (!items)
                return error_origin(-ENOMEM);
        pairs->items = items;
        return 0;
}

int pairs_add(struct pairs *pairs, const char *name, const char *value)
{
        struct pair pair = { .name = strdup(name), .value = strdup(value) };

        if (!pair.name || !pair.value || make_room(pairs)) {
                pair_deinit(&pair);
                return error_origin(-ENOMEM);
        }
        assert(pairs->items);
        pairs->items[pairs->n++] = pair;
        return 0;
}

size_t pairs_packed_bytes(const struct pairs *pairs)
{
        size_t n_bytes = 0;

        for (size_t i = 0; i < pairs->n; i++)
                n_bytes += strlen(pairs->items[i].name) + strlen(pairs->items[i].value) + 2;
        return n_bytes;
}

int pairs_pack(const struct pairs *pairs, char **ret_bytes, size_t *ret_n_bytes)
{
        size_t n_bytes = pairs_packed_bytes(pairs);
        char *bytes = malloc(n_bytes + 1);
        char *end = bytes;

        if (!bytes)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < pairs->n; i++) {
                end = stpcpy(end, pairs->items[i].name) + 1;
                end = stpcpy(end, pairs->items[i].value) + 1;
        }
        *ret_bytes = bytes;
        *ret_n_bytes = n_bytes;
        return 0;
}

int pairs_unpack(const char *bytes, size_t n_bytes, struct pairs *pairs)
{
        const char *end;

        if (n_bytes == 0)
                return 0;
        end = bytes + n_bytes;
        while (bytes < end) {
                const char *value = memchr(bytes, '\0', (size_t)(end - bytes));
                const char *after =
                        value ? memchr(value + 1, '\0', (size_t)(end - value - 1)) : NULL;
                int r;

                if (!value || !after)
                        return error_origin(-EUCLEAN);
                r = pairs_add(pairs, bytes, value + 1);
                if (r)
                        return error_fold(r);
                bytes = after + 1;
        }
        return 0;
}

int pairs_copy(const struct pairs *pairs, struct pairs *ret_pairs)
{
        struct pairs copy = { 0 };

        for (size_t i = 0; i < pairs->n; i++) {
                if (pairs_add(&copy, pairs->items[i].name, pairs->items[i].value)) {
                        pairs_deinit(&copy);
                        return error_fold(-ENOMEM);
                }
        }
        *ret_pairs = copy;
        return 0;
}

int sandbox_record_copy(const struct sandbox_record *record, struct sandbox_record *ret_record)
{
        struct sandbox_record copy = *record;

        copy.labels = copy.environment = (struct pairs){ 0 };
        (void)egress_hold(copy.egress);
        if (pairs_copy(&record->labels, &copy.labels) ||
            pairs_copy(&record->environment, &copy.environment)) {
                sandbox_record_deinit(&copy);
                return error_fold(-ENOMEM);
        }
        *ret_record = copy;
        return 0;
}

int request_record_copy(const struct request_record *record, struct request_record **ret_record)
{
        struct request_record *copy = NULL;

        if (record) {
                copy = malloc(sizeof(*copy));
                if (!copy)
                        return error_origin(-ENOMEM);
                *copy = *record;
        }
        *ret_record = copy;
        return 0;
}

void sandbox_record_deinit(struct sandbox_record *record)
{
        pairs_deinit(&record->labels);
        pairs_deinit(&record->environment);
        record->egress = egress_release(record->egress);
}
