#include "cli/usage_filter.h"

#include <string.h>
#include <time.h>

#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/resolve.h"
#include "cli/say.h"
#include "google/protobuf/timestamp.pb-c.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

#define NSEC_PER_SEC INT64_C(1000000000)

struct option_group usage_filter_group(struct usage_filter *filter)
{
        static const struct option_row rows[] = {
                { 0, "execution", OPTION_TEXT, offsetof(struct usage_filter, execution),
                  "EXECUTION", "only of this execution", NULL, 0 },
                { 'l', "label", OPTION_PAIRS, offsetof(struct usage_filter, labels), "KEY=VALUE",
                  "only of sandboxes with this label; may be repeated", NULL, 0 },
                { 0, "owner", OPTION_TEXT, offsetof(struct usage_filter, owner), "OWNER",
                  "only of this one, `key-…` or `uid:…`; of others only for operators", NULL, 0 },
                { 0, "since", OPTION_TEXT, offsetof(struct usage_filter, since), "TIME",
                  "only what ended since 2026-01-31, 2026-01-31T12:00:00Z or so long ago: 24h",
                  NULL, 0 },
                { 0, "until", OPTION_TEXT, offsetof(struct usage_filter, until), "TIME",
                  "only what ended before that", NULL, 0 },
        };

        return (struct option_group)OPTION_GROUP("Which records", rows, filter);
}

bool usage_time_parse(const char *text, int64_t now, int64_t *ret_seconds)
{
        static const char *const forms[] = { "%Y-%m-%dT%H:%M:%SZ", "%Y-%m-%d %H:%M:%S",
                                             "%Y-%m-%dT%H:%M", "%Y-%m-%d" };
        int64_t nanoseconds;

        if (text_to_duration(text, &nanoseconds)) {
                *ret_seconds = MAX(now - nanoseconds / NSEC_PER_SEC, INT64_C(0));
                return true;
        }
        for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
                struct tm tm = { 0 };
                const char *end = strptime(text, forms[i], &tm);

                if (!end || *end)
                        continue;
                *ret_seconds = timegm(&tm);
                return *ret_seconds >= 0;
        }
        return false;
}

static int set_time(const char *command, const char *option, const char *text,
                    Google__Protobuf__Timestamp **ret_time)
{
        int64_t seconds;

        if (!text)
                return 0;
        if (!usage_time_parse(text, time(NULL), &seconds)) {
                say_of(command,
                       "--%s takes a time (UTC) such as 2026-01-31 or 2026-01-31T12:00:00Z, or "
                       "a duration before now such as 90m or 7d, not '%s'",
                       option, text);
                return EXIT_OURS;
        }
        *ret_time = message_new(&google__protobuf__timestamp__descriptor);
        (*ret_time)->seconds = seconds;
        return 0;
}

int usage_filter_set(const char *command, const struct usage_filter *filter, const char *sandbox,
                     struct client *client, Hotcell__V1__GetUsageRequest *ask)
{
        int r = set_time(command, "since", filter->since, &ask->start_time);

        if (r == 0)
                r = set_time(command, "until", filter->until, &ask->end_time);
        if (r == 0 && sandbox)
                r = resolve_sandbox(client, sandbox, true, &ask->sandbox_id);
        if (r == 0 && filter->execution)
                r = resolve_execution(client, filter->execution, &ask->execution_id);
        if (r)
                return r;
        if (filter->owner)
                message_set_text(&ask->owner, filter->owner);
        message_set_map(ask, "labels", &filter->labels);
        ask->page_size = 1000;
        return 0;
}
