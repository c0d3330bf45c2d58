#include "server/api/amount.h"

#include <inttypes.h>
#include <stdio.h>

enum { USEC_PER_SEC = 1000000 };

/* Largest first. */
struct amount_unit {
        int64_t size;
        const char *name;
};

static const struct amount_unit byte_units[] = {
        { INT64_C(1) << 40, "TiB" }, { 1 << 30, "GiB" }, { 1 << 20, "MiB" },
        { 1 << 10, "KiB" },          { 1, "B" },
};

static const struct amount_unit time_units[] = {
        { INT64_C(86400) * USEC_PER_SEC, "d" },
        { INT64_C(3600) * USEC_PER_SEC, "h" },
        { INT64_C(60) * USEC_PER_SEC, "min" },
        { USEC_PER_SEC, "s" },
        { 1000, "ms" },
        { 1, "us" },
};

/* The last unit is 1. */
static const char *show_amount(int64_t amount, const struct amount_unit *units,
                               char ret_text[static AMOUNT_TEXT])
{
        while (units->size > 1 && (amount == 0 || amount % units->size != 0))
                units++;
        (void)snprintf(ret_text, AMOUNT_TEXT, "%" PRId64 " %s", amount / units->size, units->name);
        return ret_text;
}

const char *amount_show_bytes(int64_t n_bytes, char ret_text[static AMOUNT_TEXT])
{
        return show_amount(n_bytes, byte_units, ret_text);
}

const char *amount_show_duration(int64_t usec, char ret_text[static AMOUNT_TEXT])
{
        return show_amount(usec, time_units, ret_text);
}

void join_path(char ret_path[static FIELD_PATH], const char *prefix, const char *name)
{
        (void)snprintf(ret_path, FIELD_PATH, "%.120s.%.60s", prefix, name);
}
