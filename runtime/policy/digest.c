/*
 * The text that is digested: two lines, one more with the types of records if it lets any be asked
 * for, in the order of their numbers; then a line of each rule, sorted, without repetitions; its
 * ports sorted, too, and joined where they touch. `sha256sum` of it gives the same.
 *
 *     hotcell egress policy 1
 *     default deny
 *     records MX,TXT
 *     allow tcp *.example.org 80,443
 *     deny tcp 192.0.2.0/24 all
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <openssl/evp.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/record_types.h"

const uint8_t policy_digest_of_none[32] = {
        0xfa, 0xd8, 0x84, 0x38, 0x62, 0x9c, 0xa0, 0x28, 0xa7, 0xba, 0xac,
        0x89, 0x1d, 0xe7, 0x43, 0xc4, 0xe8, 0x83, 0xf7, 0x36, 0xf8, 0xb0,
        0x71, 0x94, 0x4f, 0x19, 0x45, 0xd7, 0x9b, 0xa8, 0x2d, 0xce,
};

enum { LINE_BUFFER = 384 };

static_assert(LINE_BUFFER > sizeof("allow icmp ") + POLICY_DOMAIN_BUFFER +
                                    POLICY_PORTS_MAX * sizeof("65535-65535,"),
              "every rule fits");

struct line {
        char text[LINE_BUFFER];
};

__attribute__((format(printf, 2, 3))) static void append(struct line *line, const char *format, ...)
{
        size_t used = strlen(line->text);
        va_list arguments;

        va_start(arguments, format);
        (void)vsnprintf(line->text + used, sizeof(line->text) - used, format, arguments);
        va_end(arguments);
}

static int compare_ports(const void *left, const void *right)
{
        const struct policy_ports *a = left, *b = right;

        return (a->low > b->low) - (a->low < b->low);
}

/* Sorts @ports and joins those that touch; how many are left. */
static size_t join_ports(struct policy_ports *ports, size_t n)
{
        size_t n_joined = 0;

        qsort(ports, n, sizeof(*ports), compare_ports);
        for (size_t i = 0; i < n; i++) {
                if (n_joined > 0 && ports[i].low <= ports[n_joined - 1].high + 1)
                        ports[n_joined - 1].high = MAX(ports[n_joined - 1].high, ports[i].high);
                else
                        ports[n_joined++] = ports[i];
        }
        return n_joined;
}

static void append_ports(struct line *line, const struct policy_rule *rule)
{
        struct policy_ports ports[POLICY_PORTS_MAX];
        size_t n;

        memcpy(ports, rule->ports, sizeof(ports));
        n = join_ports(ports, rule->n_ports);
        for (size_t i = 0; i < n; i++) {
                append(line, "%s%u", i ? "," : " ", ports[i].low);
                if (ports[i].high > ports[i].low)
                        append(line, "-%u", ports[i].high);
        }
        append(line, "%s\n", n ? "" : " all");
}

static const char *protocol_name(enum policy_protocol protocol)
{
        switch (protocol) {
        case POLICY_UDP:
                return "udp";
        case POLICY_ICMP:
                return "icmp";
        case POLICY_TCP:
        default:
                return "tcp";
        }
}

static void print_rule(const struct policy_rule *rule, struct line *line)
{
        static_assert(POLICY_DOMAIN_BUFFER > POLICY_CIDR_BUFFER, "room for either");
        char destination[POLICY_DOMAIN_BUFFER];

        if (rule->is_domain)
                policy_format_domain(rule->is_wildcard, rule->domain, destination);
        else
                policy_format_cidr(&rule->prefix, destination);
        append(line, "%s %s %s", rule->action == POLICY_ALLOW ? "allow" : "deny",
               protocol_name(rule->protocol), destination);
        append_ports(line, rule);
}

static int compare_lines(const void *left, const void *right)
{
        const struct line *a = left, *b = right;

        return strcmp(a->text, b->text);
}

static bool update(EVP_MD_CTX *context, const char *text)
{
        return EVP_DigestUpdate(context, text, strlen(text)) == 1;
}

static bool update_records(EVP_MD_CTX *context, uint32_t set)
{
        struct line line = { "records" };
        const char *separator = " ";

        for (enum policy_record_type i = POLICY_RECORD_NS; i < _POLICY_RECORD_N; i++) {
                if (!(set & BIT(i)))
                        continue;
                append(&line, "%s%s", separator, policy_record_name(i));
                separator = ",";
        }
        append(&line, "\n");
        return set == 0 || update(context, line.text);
}

static bool digest_lines(EVP_MD_CTX *context, const struct policy *policy, const struct line *lines)
{
        bool is_public = policy->default_action == POLICY_DEFAULT_ALLOW_PUBLIC;
        bool is_good = EVP_DigestInit_ex(context, EVP_sha256(), NULL) == 1 &&
                       update(context, "hotcell egress policy 1\n") &&
                       update(context, is_public ? "default allow public\n" : "default deny\n") &&
                       update_records(context, policy->record_types);

        for (size_t i = 0; is_good && i < policy->n_rules; i++) {
                if (i == 0 || strcmp(lines[i].text, lines[i - 1].text) != 0)
                        is_good = update(context, lines[i].text);
        }
        return is_good;
}

int policy_digest(const struct policy *policy, uint8_t ret_digest[static 32])
{
        _cleanup_(freep) struct line *lines = calloc(policy->n_rules + 1, sizeof(*lines));
        EVP_MD_CTX *context;
        bool is_good;

        if (!lines)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < policy->n_rules; i++)
                print_rule(&policy->rules[i], &lines[i]);
        qsort(lines, policy->n_rules, sizeof(*lines), compare_lines);
        context = EVP_MD_CTX_new();
        if (!context)
                return error_origin(-ENOMEM);
        is_good = digest_lines(context, policy, lines) &&
                  EVP_DigestFinal_ex(context, ret_digest, NULL) == 1;
        EVP_MD_CTX_free(context);
        return is_good ? 0 : error_origin(-EIO);
}
