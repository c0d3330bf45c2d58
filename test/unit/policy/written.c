#include "test/unit/policy/written.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <idn2.h>

#include "runtime/policy/domain.h"
#include "test/lib/suite.h"

static unsigned n_until_failure;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);
void *__real_reallocarray(void *old, size_t n, size_t size);
void *__wrap_reallocarray(void *old, size_t n, size_t size);
int __real_idn2_to_ascii_8z(const char *input, char **output, int flags);
int __wrap_idn2_to_ascii_8z(const char *input, char **output, int flags);

void fail_allocation(unsigned n)
{
        n_until_failure = n;
}

static bool is_failing(void)
{
        return n_until_failure > 0 && --n_until_failure == 0;
}

void *__wrap_calloc(size_t n, size_t size)
{
        return is_failing() ? NULL : __real_calloc(n, size);
}

void *__wrap_reallocarray(void *old, size_t n, size_t size)
{
        return is_failing() ? NULL : __real_reallocarray(old, n, size);
}

int __wrap_idn2_to_ascii_8z(const char *input, char **output, int flags)
{
        return is_failing() ? IDN2_MALLOC : __real_idn2_to_ascii_8z(input, output, flags);
}

static void add_ports(struct policy_rule *rule, char *text)
{
        char *rest;

        for (char *range = strtok_r(text, ",", &rest); range; range = strtok_r(NULL, ",", &rest)) {
                char *end;
                long low = strtol(range, &end, 10);
                long high = *end == '-' ? strtol(end + 1, &end, 10) : low;

                ck_assert(*end == '\0');
                ck_assert_int_eq(policy_rule_add_ports(rule, low, high), 0);
        }
}

void add_written(struct policy *policy, const char *text)
{
        struct policy_rule rule = { .protocol = POLICY_TCP };
        char action[8], destination[300], ports[100] = "";
        int n = 0;

        ck_assert_int_eq(sscanf(text, "%7s %n", action, &n), 1);
        text += n;
        if (strncmp(text, "udp ", 4) == 0)
                rule.protocol = POLICY_UDP;
        else if (strncmp(text, "icmp ", 5) == 0)
                rule.protocol = POLICY_ICMP;
        if (rule.protocol != POLICY_TCP)
                text = strchr(text, ' ') + 1;
        ck_assert_int_ge(sscanf(text, "%299s %99s", destination, ports), 1);
        rule.action = strcmp(action, "deny") == 0 ? POLICY_DENY : POLICY_ALLOW;
        if (policy_parse_cidr(destination, &rule.prefix) != 0) {
                rule.is_domain = true;
                ck_assert_int_eq(policy_parse_domain(destination, &rule.is_wildcard, rule.domain),
                                 0);
        }
        add_ports(&rule, ports);
        ck_assert_int_eq(policy_add(policy, &rule), 0);
}

struct policy_prefix prefix_of(const char *text)
{
        struct policy_prefix prefix;

        ck_assert_msg(policy_parse_cidr(text, &prefix) == 0, "%s", text);
        return prefix;
}

struct policy_address address_of(const char *text)
{
        uint8_t bytes[16];

        if (inet_pton(AF_INET, text, bytes) == 1)
                return policy_address_v4(bytes);
        ck_assert_msg(inet_pton(AF_INET6, text, bytes) == 1, "%s", text);
        return policy_address_v6(bytes);
}

int run_tests(const char *name, const TTest *const *tests, size_t n)
{
        TCase *tcase = tcase_create(name);
        Suite *suite = suite_create(name);

        for (size_t i = 0; i < n; i++)
                tcase_add_test(tcase, tests[i]);
        tcase_set_timeout(tcase, 120);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
