#include "server/store/usage.h"

#include <assert.h>
#include <stddef.h>

#include "runtime/base/macros.h"

struct field {
        size_t offset;
        enum usage_kind kind;
};

#define FIELD(field, kind) { offsetof(struct usage, field), USAGE_##kind },

static const struct field fields[] = { USAGE_FIELDS(FIELD) };
static_assert(ARRAY_SIZE(fields) * sizeof(int64_t) == offsetof(struct usage, missing),
              "a field of struct usage is not in the list");
static_assert(sizeof(struct usage) <= offsetof(struct usage, missing) + sizeof(int64_t),
              "missing comes last");

static int64_t get(const struct usage *usage, const struct field *field)
{
        return *(const int64_t *)((const char *)usage + field->offset);
}

static void set(struct usage *usage, const struct field *field, int64_t value)
{
        *(int64_t *)((char *)usage + field->offset) = value;
}

/* Byte-seconds of many sandboxes may become too many: they stay at the most then. */
static int64_t sum_of(int64_t a, int64_t b)
{
        int64_t sum;

        return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

void usage_add(struct usage *sum, const struct usage *amount)
{
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                const struct field *field = &fields[i];
                int64_t a = get(sum, field), b = get(amount, field);

                set(sum, field, field->kind == USAGE_PEAK ? MAX(a, b) : sum_of(a, b));
        }
        sum->missing |= amount->missing;
}

/* The kernel scales them to fit the whole anew at each reading: one of them may even fall. */
static void fit_cpu_parts(struct usage *usage)
{
        usage->cpu_user_usec = MIN(usage->cpu_user_usec, usage->cpu_usec);
        usage->cpu_system_usec = usage->cpu_usec - usage->cpu_user_usec;
}

void usage_since(const struct usage *now, const struct usage *before, struct usage *ret_usage)
{
        struct usage usage = *now;

        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                const struct field *field = &fields[i];

                if (field->kind != USAGE_PEAK)
                        set(&usage, field, MAX(get(now, field) - get(before, field), 0));
        }
        if (now->cpu_user_usec + now->cpu_system_usec > 0)
                fit_cpu_parts(&usage);
        usage.missing = now->missing | before->missing;
        *ret_usage = usage;
}

uint32_t usage_missing_wholes(uint32_t missing)
{
        if (missing & BIT(USAGE_PART_REST))
                return BIT(USAGE_PART_REST);
        if (missing & BIT(USAGE_PART_MEMORY))
                missing &= ~BIT(USAGE_PART_MEMORY_PEAK);
        if (missing & BIT(USAGE_PART_SCHEDULED))
                missing &= ~BIT(USAGE_PART_WAIT);
        return missing;
}

void usage_gaps_count(struct usage_gaps *gaps, uint32_t missing, bool is_incomplete)
{
        uint32_t wholes = usage_missing_wholes(missing & ~BIT(USAGE_PART_REST));

        for (int part = 1; part < _USAGE_PART_N; part++)
                gaps->n_without[part] += wholes >> part & 1;
        gaps->n_incomplete += is_incomplete;
}

void usage_gaps_add(struct usage_gaps *sum, const struct usage_gaps *gaps)
{
        for (int part = 1; part < _USAGE_PART_N; part++)
                sum->n_without[part] += gaps->n_without[part];
        sum->n_incomplete += gaps->n_incomplete;
}

static void clear(struct usage *usage, enum usage_kind kind)
{
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                if (fields[i].kind == kind)
                        set(usage, &fields[i], 0);
        }
}

void usage_rest(const struct usage *total, const struct usage *billed, struct usage *ret_rest)
{
        usage_since(total, billed, ret_rest);
        clear(ret_rest, USAGE_AMOUNT_OF_EXECUTION);
        ret_rest->missing = total->missing;
}

void usage_drop_of_sandbox(struct usage *usage)
{
        clear(usage, USAGE_AMOUNT_OF_SANDBOX);
        usage->missing &= ~BIT(USAGE_PART_THROTTLED);
}

void usage_raise_peaks(struct usage *usage, const struct usage *other)
{
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                const struct field *field = &fields[i];

                if (field->kind == USAGE_PEAK)
                        set(usage, field, MAX(get(usage, field), get(other, field)));
        }
}

bool usage_is_nothing(const struct usage *usage)
{
        for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
                enum usage_kind kind = fields[i].kind;

                if (kind != USAGE_TIME && kind != USAGE_PEAK && get(usage, &fields[i]) != 0)
                        return false;
        }
        return true;
}
