#include "cli/option_value.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/memory.h"
#include "cli/say.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

/* `1`, `1.5`, `0.25`: thousandths; finer is refused rather than rounded. */
static bool text_to_millis(const char *text, uint64_t max, uint64_t *ret_millis)
{
        const char *point = strchr(text, '.');
        size_t n_fraction = point ? strlen(point + 1) : 0;
        char digits[24];

        if (n_fraction > 3 || (point && (n_fraction == 0 || point == text)) ||
            strlen(text) >= sizeof(digits) - 4)
                return false;
        (void)snprintf(digits, sizeof(digits), "%.*s%s%.*s", point ? (int)(point - text) : 20, text,
                       point ? point + 1 : "", (int)(3 - n_fraction), "000");
        return text_to_uint64(digits, max, ret_millis);
}

static bool read_number(const struct option_row *row, const char *text, int64_t *ret_value)
{
        uint64_t max = row->max ? (uint64_t)row->max : INT64_MAX;
        uint64_t value = 0;
        bool ok;

        if (row->type == OPTION_DURATION)
                return text_to_duration(text, ret_value);
        if (row->type == OPTION_BYTES)
                ok = text_to_bytes(text, &value);
        else if (row->type == OPTION_CPUS)
                ok = text_to_millis(text, max, &value);
        else
                ok = text_to_uint64(text, max, &value);
        if (!ok || value > max)
                return false;
        *ret_value = (int64_t)value;
        return true;
}

static const char *accepted_form(enum option_type type)
{
        switch (type) {
        case OPTION_BYTES:
                return "bytes such as 1048576, 512M or 2GiB";
        case OPTION_DURATION:
                return "a duration such as 250ms, 1.5s, 2m, 1h or 7d";
        case OPTION_CPUS:
                return "CPUs such as 1 or 1.5, in steps of 0.001";
        case OPTION_COUNT:
                return "a whole number";
        case OPTION_PAIRS:
                return "KEY=VALUE";
        case OPTION_FLAG:
        case OPTION_TEXT:
        case OPTION_TEXTS:
        case OPTION_CHOICE:
                break;
        }
        return "text";
}

static int set_number(const char *command, const struct option_row *row, struct option_number *into,
                      const char *text)
{
        int64_t value;

        if (read_number(row, text, &value)) {
                *into = (struct option_number){ .is_set = true, .value = value };
                return 0;
        }
        if (row->max)
                say_of(command, "--%s takes %s up to %lld, not '%s'", row->name,
                       accepted_form(row->type), (long long)row->max, text);
        else
                say_of(command, "--%s takes %s, not '%s'", row->name, accepted_form(row->type),
                       text);
        return OPTIONS_E_USAGE;
}

static int set_choice(const char *command, const struct option_row *row, int *into,
                      const char *text)
{
        size_t n = 0;

        for (; row->choices[n]; n++) {
                if (!*text || strcasecmp(row->choices[n], text) != 0)
                        continue;
                *into = (int)n;
                return 0;
        }
        say_of(command, "--%s is one of %s, not '%s'", row->name, row->value_name, text);
        return OPTIONS_E_USAGE;
}

/* No value of these begins with a dash: then it was forgotten, and this is the next option. */
static int append_text(const char *command, const struct option_row *row,
                       struct option_texts *texts, const char *text)
{
        if (*text == '-') {
                say_of(command, "--%s needs a value: %s, not '%s'", row->name, row->value_name,
                       text);
                return OPTIONS_E_USAGE;
        }
        texts->items = reallocate(texts->items, texts->n + 1, sizeof(*texts->items));
        texts->items[texts->n++] = text;
        return 0;
}

static void set_pair(struct option_pairs *pairs, const char *text, size_t n_key, const char *value)
{
        char *key = format_text("%.*s", (int)n_key, text);

        /* The last one wins: the messages carry maps. */
        for (size_t i = 0; i < pairs->n; i++) {
                if (strcmp(pairs->items[i].key, key) != 0)
                        continue;
                free(key);
                free(pairs->items[i].value);
                pairs->items[i].value = duplicate(value);
                return;
        }
        pairs->items = reallocate(pairs->items, pairs->n + 1, sizeof(*pairs->items));
        pairs->items[pairs->n++] = (struct option_pair){ .key = key, .value = duplicate(value) };
}

/* KEY=VALUE, or for --env as docker has it KEY alone: its value in our own environment. */
static int append_pair(const char *command, const struct option_row *row,
                       struct option_pairs *pairs, const char *text)
{
        const char *equals = strchr(text, '=');
        const char *value = equals ? equals + 1 : NULL;

        if (equals == text || !*text || (!equals && strcmp(row->name, "env") != 0)) {
                say_of(command, "--%s takes KEY=VALUE, not '%s'", row->name, text);
                return OPTIONS_E_USAGE;
        }
        if (!equals)
                value = getenv(text);
        if (!value) {
                say_of(command, "--%s %s: there is no such variable here; use %s=VALUE", row->name,
                       text, text);
                return OPTIONS_E_USAGE;
        }
        set_pair(pairs, text, equals ? (size_t)(equals - text) : strlen(text), value);
        return 0;
}

int option_value_set(const char *command, const struct option_row *row, void *into,
                     const char *text)
{
        void *field = (char *)into + row->offset;

        if (row->type == OPTION_FLAG) {
                *(bool *)field = true;
                return 0;
        }
        assert(text);
        /* Everything goes into messages, where only UTF-8 is text. */
        if (!text_is_utf8(text, strlen(text))) {
                say_of(command, "the value of --%s is not UTF-8", row->name);
                return OPTIONS_E_USAGE;
        }
        switch (row->type) {
        case OPTION_TEXT:
                *(const char **)field = text;
                return 0;
        case OPTION_TEXTS:
                return append_text(command, row, field, text);
        case OPTION_PAIRS:
                return append_pair(command, row, field, text);
        case OPTION_CHOICE:
                return set_choice(command, row, field, text);
        case OPTION_COUNT:
        case OPTION_BYTES:
        case OPTION_DURATION:
        case OPTION_CPUS:
                return set_number(command, row, field, text);
        case OPTION_FLAG:
                break;
        }
        assert(false);
        return OPTIONS_E_USAGE;
}

static void release_pairs(struct option_pairs *pairs)
{
        for (size_t i = 0; i < pairs->n; i++) {
                free(pairs->items[i].key);
                free(pairs->items[i].value);
        }
        free(pairs->items);
        *pairs = (struct option_pairs){ 0 };
}

void option_value_release(const struct option_row *row, void *into)
{
        void *field = (char *)into + row->offset;

        if (row->type == OPTION_PAIRS)
                release_pairs(field);
        if (row->type == OPTION_TEXTS) {
                struct option_texts *texts = field;

                free(texts->items);
                *texts = (struct option_texts){ 0 };
        }
}
