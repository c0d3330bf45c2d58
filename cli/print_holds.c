#include "cli/print_holds.h"

#include <stdio.h>
#include <string.h>

#include "cli/memory.h"
#include "cli/print_ended.h"
#include "runtime/base/macros.h"

/* The names are those of Quota. */
static const struct {
        const char *name;
        const char *what;
        size_t offset; /* in KeyQuotas */
        double unit;   /* zero: bytes */
} rows[] = {
        { "sandboxes", "sandboxes", offsetof(Hotcell__V1__KeyQuotas, sandboxes), 1 },
        { "memory_bytes", "memory", offsetof(Hotcell__V1__KeyQuotas, memory_bytes), 0 },
        { "cpu_millis", "CPUs", offsetof(Hotcell__V1__KeyQuotas, cpu_millis), 1000 },
        { "executions", "executions", offsetof(Hotcell__V1__KeyQuotas, executions), 1 },
};

static void add_amount(FILE *out, size_t row, int64_t amount)
{
        if (rows[row].unit > 0)
                (void)fprintf(out, "%.6g", (double)amount / rows[row].unit);
        else
                (void)fprintf(out, "%s", show_bytes(amount));
}

/* @most: zero is without bound. */
static void add_row(FILE *out, size_t row, int64_t used, int64_t most)
{
        if (ftell(out) > 0)
                (void)fprintf(out, ", ");
        add_amount(out, row, used);
        if (most > 0) {
                (void)fprintf(out, " of ");
                add_amount(out, row, most);
        }
        (void)fprintf(out, " %s", rows[row].what);
}

static int64_t amount_of(const Hotcell__V1__KeyQuotas *quotas, size_t row)
{
        return quotas ? *(const int64_t *)((const char *)quotas + rows[row].offset) : 0;
}

char *show_holds(const Hotcell__V1__Key *key)
{
        char *text = NULL;
        size_t n_text = 0;
        FILE *out = must(open_memstream(&text, &n_text));

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                int64_t used = amount_of(key->used, i), most = amount_of(key->quotas, i);

                if (used > 0 || most > 0)
                        add_row(out, i, used, most);
        }
        if (ftell(out) == 0)
                (void)fprintf(out, "-");
        (void)fclose(out);
        return must(text);
}

char *show_own_holds(const Hotcell__V1__GetServerInfoResponse *info)
{
        char *text = NULL;
        size_t n_text = 0;
        FILE *out = must(open_memstream(&text, &n_text));

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++)
                for (size_t k = 0; k < info->n_quotas; k++)
                        if (strcmp(info->quotas[k]->name, rows[i].name) == 0)
                                add_row(out, i, info->quotas[k]->owner_used,
                                        info->quotas[k]->owner_limit);
        (void)fclose(out);
        return must(text);
}
