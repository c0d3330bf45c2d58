#include "server/session/egress_rules.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

enum {
        HEAD_BUFFER = 160, /* a rule with 8 ranges of the longest ports, without its destination */
        WORD_BUFFER = 112,
        PORT_HIGHEST = 65535,
        MARK_EVERY = 64, /* so many rules */
};

static const char *const actions[] = { [POLICY_DENY] = "deny", [POLICY_ALLOW] = "allow" };
static const char *const protocols[] = {
        [POLICY_TCP] = "tcp", [POLICY_UDP] = "udp", [POLICY_ICMP] = "icmp"
};
static const char *const kinds[] = { "cidr", "domain" };

/* --- to text --- */

static int format_ports(const struct egress_rule *rule, char *to, size_t size)
{
        int n = 0;

        if (rule->n_ports == 0)
                return snprintf(to, size, "-");
        for (size_t i = 0; i < rule->n_ports; i++) {
                const struct policy_ports *ports = &rule->ports[i];

                n += snprintf(to + n, size - (size_t)n, "%s%u", i ? "," : "", ports->low);
                if (ports->high != ports->low)
                        n += snprintf(to + n, size - (size_t)n, "-%u", ports->high);
        }
        return n;
}

/* All before the destination. */
static size_t format_head(const struct egress_rule *rule, char ret_head[static HEAD_BUFFER])
{
        int n = snprintf(ret_head, HEAD_BUFFER, "%s %s ", actions[rule->action],
                         protocols[rule->protocol]);

        n += format_ports(rule, ret_head + n, HEAD_BUFFER - (size_t)n);
        n += snprintf(ret_head + n, HEAD_BUFFER - (size_t)n, " %s ", kinds[rule->is_domain]);
        assert(n < HEAD_BUFFER);
        return (size_t)n;
}

size_t egress_rule_size(const struct egress_rule *rule)
{
        char head[HEAD_BUFFER];

        return format_head(rule, head) + strlen(rule->destination) + 1;
}

char *egress_rule_pack(const struct egress_rule *rule, char *to)
{
        char head[HEAD_BUFFER];

        to = mempcpy(to, head, format_head(rule, head));
        return stpcpy(to, rule->destination) + 1;
}

/* Of UTF-8, so that no character is cut in two. */
static void cut(char *text, size_t n_max)
{
        size_t n = strnlen(text, n_max + 1);

        if (n <= n_max)
                return;
        for (n = n_max; n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80; n--)
                ;
        text[n] = '\0';
}

void egress_rule_show(const struct egress_rule *rule, char ret_text[static RULE_BUFFER])
{
        bool is_plain = rule->protocol == POLICY_TCP;
        bool has_ports = rule->n_ports > 0;
        bool needs_brackets = has_ports && strchr(rule->destination, ':');
        char ports[WORD_BUFFER], text[RULE_BUFFER + 4];

        (void)format_ports(rule, ports, sizeof(ports));
        (void)snprintf(text, sizeof(text), "%s %s%s%s%s%s%s%s", actions[rule->action],
                       is_plain ? "" : protocols[rule->protocol], is_plain ? "" : ":",
                       needs_brackets ? "[" : "", rule->destination, needs_brackets ? "]" : "",
                       has_ports ? ":" : "", has_ports ? ports : "");
        cut(text, RULE_BUFFER - 1);
        memcpy(ret_text, text, strlen(text) + 1);
}

/* --- from text --- */

/* Takes what is up to the next blank, and that. */
static bool take_word(const char **text, char ret_word[static WORD_BUFFER])
{
        size_t n = strcspn(*text, " ");

        if (n >= WORD_BUFFER || (*text)[n] != ' ')
                return false;
        memcpy(ret_word, *text, n);
        ret_word[n] = '\0';
        *text += n + 1;
        return true;
}

/* Which of @names the next word is; negative: none. */
static int take_name(const char **text, const char *const *names, size_t n_names)
{
        char word[WORD_BUFFER];

        if (!take_word(text, word))
                return -1;
        for (size_t i = 0; i < n_names; i++)
                if (names[i] && strcmp(names[i], word) == 0)
                        return (int)i;
        return -1;
}

static bool read_range(const char *text, struct policy_ports *ret_ports)
{
        char *dash = strchr(text, '-');
        uint64_t low, high;

        if (dash)
                *dash = '\0';
        if (!text_to_uint64(text, PORT_HIGHEST, &low))
                return false;
        high = low;
        if (dash && !text_to_uint64(dash + 1, PORT_HIGHEST, &high))
                return false;
        *ret_ports = (struct policy_ports){ (uint16_t)low, (uint16_t)high };
        return true;
}

static bool take_ports(const char **text, struct egress_rule *rule)
{
        char word[WORD_BUFFER], *rest = word, *range;

        if (!take_word(text, word))
                return false;
        if (strcmp(word, "-") == 0)
                return true;
        while ((range = strsep(&rest, ",")))
                if (rule->n_ports == POLICY_PORTS_MAX ||
                    !read_range(range, &rule->ports[rule->n_ports++]))
                        return false;
        return true;
}

static bool read_rule(const char *text, struct egress_rule *ret_rule)
{
        int action = take_name(&text, actions, ARRAY_SIZE(actions));
        int protocol = take_name(&text, protocols, ARRAY_SIZE(protocols));
        int kind;

        *ret_rule = (struct egress_rule){ 0 };
        if (action < 0 || protocol < 0 || !take_ports(&text, ret_rule))
                return false;
        kind = take_name(&text, kinds, ARRAY_SIZE(kinds));
        if (kind < 0 || !*text)
                return false;
        ret_rule->action = (enum policy_action)action;
        ret_rule->protocol = (enum policy_protocol)protocol;
        ret_rule->is_domain = kind > 0;
        ret_rule->destination = text;
        return true;
}

int egress_rule_next(const struct egress *egress, size_t *offset, struct egress_rule *ret_rule)
{
        const char *text = egress->bytes + *offset;
        const char *end = memchr(text, '\0', egress->n_bytes - *offset);

        if (*offset == egress->n_bytes)
                return EGRESS_E_END;
        if (!end || !read_rule(text, ret_rule))
                return error_origin(-EUCLEAN);
        *offset = (size_t)(end + 1 - egress->bytes);
        return 0;
}

static int skip_rule(const struct egress *egress, size_t *offset)
{
        const char *end = memchr(egress->bytes + *offset, '\0', egress->n_bytes - *offset);

        if (!end)
                return error_origin(-EUCLEAN);
        *offset = (size_t)(end + 1 - egress->bytes);
        return 0;
}

/* Programs can have rules looked for many times a second. */
static int make_marks(struct egress *egress)
{
        size_t n_rules = (size_t)egress->n_rules, offset = 0;
        uint32_t *marks = calloc((n_rules + MARK_EVERY - 1) / MARK_EVERY, sizeof(*marks));
        int r = 0;

        if (!marks)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < n_rules && r == 0; i++) {
                if (i % MARK_EVERY == 0)
                        marks[i / MARK_EVERY] = (uint32_t)offset;
                r = skip_rule(egress, &offset);
        }
        if (r)
                free(marks);
        else
                egress->marks = marks;
        return r;
}

int egress_rule_at(struct egress *egress, int64_t index, struct egress_rule *ret_rule)
{
        size_t offset;
        int r = 0;

        if (index < 0 || index >= egress->n_rules || egress->n_bytes == 0)
                return EGRESS_E_END;
        if (!egress->marks)
                r = make_marks(egress);
        if (!egress->marks)
                return r;
        offset = egress->marks[index / MARK_EVERY];
        for (int64_t i = 0; i < index % MARK_EVERY && r == 0; i++)
                r = skip_rule(egress, &offset);
        return r ? r : egress_rule_next(egress, &offset, ret_rule);
}
