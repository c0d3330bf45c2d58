#include "cli/age.h"

#include <stdio.h>
#include <time.h>

#include "google/protobuf/timestamp.pb-c.h"

#include "runtime/base/macros.h"

/* Whole units, the largest that gives two or more of them. */
static void format_span(int64_t seconds, const char *before, const char *after, char *text)
{
        static const struct {
                int64_t seconds;
                char letter;
        } units[] = { { 86400, 'd' }, { 3600, 'h' }, { 60, 'm' }, { 1, 's' } };
        size_t i = 0;

        while (i + 1 < ARRAY_SIZE(units) && seconds < 2 * units[i].seconds)
                i++;
        (void)snprintf(text, AGE_SIZE, "%s%lld%c%s", before,
                       (long long)(seconds / units[i].seconds), units[i].letter, after);
}

const char *age_span(int64_t seconds, char ret_text[static AGE_SIZE])
{
        format_span(seconds, "", "", ret_text);
        return ret_text;
}

const char *age_since(const Google__Protobuf__Timestamp *when, char ret_text[static AGE_SIZE])
{
        if (!when)
                return "-";
        format_span(MAX((int64_t)time(NULL) - when->seconds, INT64_C(0)), "", " ago", ret_text);
        return ret_text;
}

const char *age_until(const Google__Protobuf__Timestamp *when, char ret_text[static AGE_SIZE])
{
        int64_t left;

        if (!when)
                return "never";
        left = when->seconds - (int64_t)time(NULL);
        if (left < 0)
                return age_since(when, ret_text);
        format_span(left, "in ", "", ret_text);
        return ret_text;
}
