#include "server/session/living_copy.h"

#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"

/* What is const for those who read it. */
static void *owned(const void *pointer)
{
        return (void *)(uintptr_t)pointer;
}

void living_deinit(struct living *living)
{
        for (size_t i = 0; i < living->n_sandboxes; i++)
                sandbox_record_deinit(owned(&living->sandboxes[i]));
        for (size_t i = 0; living->requests && i < living->n_executions; i++)
                free(owned(living->requests[i].data));
        free(owned(living->sandboxes));
        free(owned(living->contexts));
        free(owned(living->executions));
        free(owned(living->requests));
        *living = (struct living){ 0 };
}

static void *copy_array(const void *items, size_t n, size_t size)
{
        void *copy = calloc(n + 1, size);

        if (copy && n > 0)
                memcpy(copy, items, n * size);
        return copy;
}

static int copy_sandboxes(const struct living *living, struct living *copy)
{
        struct sandbox_record *records = calloc(living->n_sandboxes + 1, sizeof(*records));

        copy->sandboxes = records;
        if (!records)
                return error_origin(-ENOMEM);
        for (; copy->n_sandboxes < living->n_sandboxes; copy->n_sandboxes++)
                if (sandbox_record_copy(&living->sandboxes[copy->n_sandboxes],
                                        &records[copy->n_sandboxes]))
                        return error_origin(-ENOMEM);
        return 0;
}

static int copy_executions(const struct living *living, struct living *copy)
{
        struct store_blob *requests = calloc(living->n_executions + 1, sizeof(*requests));

        copy->requests = requests;
        copy->executions =
                copy_array(living->executions, living->n_executions, sizeof(*living->executions));
        if (!requests || !copy->executions)
                return error_origin(-ENOMEM);
        copy->n_executions = living->n_executions;
        for (size_t i = 0; i < living->n_executions; i++) {
                requests[i].data = copy_array(living->requests[i].data, living->requests[i].n, 1);
                if (!requests[i].data)
                        return error_origin(-ENOMEM);
                requests[i].n = living->requests[i].n;
        }
        return 0;
}

int living_copy(const struct living *living, struct living *ret_living)
{
        struct living copy = { 0 };
        int r = copy_sandboxes(living, &copy);

        if (!r)
                r = copy_executions(living, &copy);
        copy.contexts = copy_array(living->contexts, living->n_contexts, sizeof(*living->contexts));
        copy.n_contexts = living->n_contexts;
        if (!r && !copy.contexts)
                r = error_origin(-ENOMEM);
        if (r) {
                living_deinit(&copy);
                return r;
        }
        *ret_living = copy;
        return 0;
}
