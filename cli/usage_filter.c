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
                  "only of this one: a key or its name, or `uid:…`; of others only for operators",
                  NULL, 0 },
                { 0, "since", OPTION_TEXT, offsetof(struct usage_filter, since), "TIME",
                  "only what ended since 2026-01-31, 2026-01-31T12:00:00Z or so long ago: 24h",
                  NULL, 0 },
                { 0, "until", OPTION_TEXT, offsetof(struct usage_filter, until), "TIME",
                  "only what ended before that", NULL, 0 },
        };

        return (struct option_group)OPTION_GROUP("Which records", rows, filter);
}

/* `.735`: nanoseconds; nothing is zero. NULL: it is not one. */
static const char *parse_fraction(const char *text, int32_t *ret_nanos)
{
        int32_t unit = NSEC_PER_SEC / 10;

        *ret_nanos = 0;
        if (*text != '.')
                return text;
        for (text++; *text >= '0' && *text <= '9' && unit > 0; text++, unit /= 10)
                *ret_nanos += (*text - '0') * unit;
        return text[-1] == '.' ? NULL : text;
}

/* Two digits of a number up to @max; -1: they are not. */
static int parse_two(const char *text, int max)
{
        int number;

        if (text[0] < '0' || text[0] > '9' || text[1] < '0' || text[1] > '9')
                return -1;
        number = (text[0] - '0') * 10 + text[1] - '0';
        return number <= max ? number : -1;
}

/* `Z`, `+01:00`: how far local time is ahead; nothing is UTC. */
static bool parse_zone(const char *text, int64_t *ret_seconds)
{
        int hours, minutes;

        *ret_seconds = 0;
        if (*text == '\0' || strcmp(text, "Z") == 0)
                return true;
        if (strlen(text) != strlen("+00:00") || (*text != '+' && *text != '-') || text[3] != ':')
                return false;
        hours = parse_two(text + 1, 23);
        minutes = parse_two(text + 4, 59);
        if (hours < 0 || minutes < 0)
                return false;
        *ret_seconds = (hours * INT64_C(3600) + minutes * INT64_C(60)) * (*text == '+' ? 1 : -1);
        return true;
}

/* False: there is no such day; timegm() would make 3 March of 31 February. */
static bool count_seconds(const struct tm *given, int64_t *ret_seconds)
{
        struct tm tm = *given;

        *ret_seconds = timegm(&tm);
        return tm.tm_mday == given->tm_mday && tm.tm_mon == given->tm_mon;
}

static bool parse_date(const char *text, struct usage_time *ret_time)
{
        static const char *const forms[] = { "%Y-%m-%dT%H:%M:%S", "%Y-%m-%d %H:%M:%S",
                                             "%Y-%m-%dT%H:%M", "%Y-%m-%d" };

        for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
                struct tm tm = { 0 };
                const char *rest = strptime(text, forms[i], &tm);
                bool has_clock = forms[i][strlen("%Y-%m-%d")] != '\0';
                int64_t ahead = 0;

                ret_time->nanos = 0;
                if (rest && has_clock)
                        rest = parse_fraction(rest, &ret_time->nanos);
                if (!rest || (has_clock ? !parse_zone(rest, &ahead) : *rest))
                        continue;
                if (!count_seconds(&tm, &ret_time->seconds))
                        return false;
                ret_time->seconds -= ahead;
                return ret_time->seconds >= 0;
        }
        return false;
}

bool usage_time_parse(const char *text, int64_t now, struct usage_time *ret_time)
{
        bool has_unit = text[strspn(text, "0123456789.")] != '\0';
        int64_t nanoseconds;

        /* 2026 is a year that was not finished, and no duration. */
        if (!has_unit || !text_to_duration(text, &nanoseconds))
                return parse_date(text, ret_time);
        *ret_time =
                (struct usage_time){ .seconds = MAX(now - nanoseconds / NSEC_PER_SEC, INT64_C(0)) };
        return true;
}

static int set_time(const char *command, const char *option, const char *text,
                    Google__Protobuf__Timestamp **ret_time)
{
        struct usage_time when;

        if (!text)
                return 0;
        if (!usage_time_parse(text, time(NULL), &when)) {
                say_of(command,
                       "--%s takes a time such as 2026-01-31 or 2026-01-31T12:00:00Z (UTC unless "
                       "it says otherwise), or a duration before now such as 90m or 7d, not '%s'",
                       option, text);
                return EXIT_OURS;
        }
        *ret_time = message_new(&google__protobuf__timestamp__descriptor);
        (*ret_time)->seconds = when.seconds;
        (*ret_time)->nanos = when.nanos;
        return 0;
}

/* What is asked for is over: nothing that fits can come any more. */
static bool is_complete(const Google__Protobuf__Timestamp *end,
                        const Google__Protobuf__Timestamp *complete_until)
{
        if (!complete_until)
                return true;
        return end &&
               (end->seconds < complete_until->seconds ||
                (end->seconds == complete_until->seconds && end->nanos <= complete_until->nanos));
}

void usage_filter_say_none(const char *command, const Hotcell__V1__GetUsageRequest *ask,
                           const Hotcell__V1__GetUsageResponse *first)
{
        char time[MESSAGE_TIME_SIZE];

        (void)fflush(stdout); /* both may go to the same file */
        if (first->records_total > 0)
                return;
        if (!is_complete(ask->end_time, first->complete_until))
                say_of(command,
                       "no record of the ledger fits yet: what lives has one every ledger_period, "
                       "and an execution at its end (complete until %s)",
                       message_time(first->complete_until, time));
        else
                say_of(command, "no record of the ledger fits");
}

int usage_filter_set(const char *command, const struct usage_filter *filter, const char *sandbox,
                     struct client *client, Hotcell__V1__GetUsageRequest *ask)
{
        int r = sandbox ? resolve_sandbox(client, sandbox, true, &ask->sandbox_id) : 0;

        if (r == 0)
                r = set_time(command, "since", filter->since, &ask->start_time);
        if (r == 0)
                r = set_time(command, "until", filter->until, &ask->end_time);
        if (r == 0 && filter->execution)
                r = resolve_execution(client, filter->execution, &ask->execution_id);
        if (r == 0 && filter->owner)
                r = resolve_owner(client, filter->owner, &ask->owner);
        if (r)
                return r;
        message_set_map(ask, "labels", &filter->labels);
        ask->page_size = 1000;
        return 0;
}
