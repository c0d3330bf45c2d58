/* Policies as they come from hotcelld: what is taken, what is refused and which rule it is. */

#include <check.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_message.h"
#include "runtime/egress/policy_reader.h"
#include "runtime/policy/record_types.h"
#include "test/lib/suite.h"

enum { RULES_MAX = 16 };

static Hotcell__Egress__V1__Rule rules[RULES_MAX];
static Hotcell__Egress__V1__Rule *pointers[RULES_MAX];
static Hotcell__Egress__V1__Ports ports[RULES_MAX];
static Hotcell__Egress__V1__Ports *port_pointers[RULES_MAX];
static size_t n_rules;
static uint32_t types[_POLICY_RECORD_N + 1];
static size_t n_types;
static struct policy policy;
static size_t bad_rule;
static int fd = -1;

static void setup(void)
{
        n_rules = 0;
        n_types = 0;
        bad_rule = 99;
        policy = (struct policy){ 0 };
        fd = -1;
}

static void teardown(void)
{
        policy_deinit(&policy);
        if (fd >= 0)
                (void)close(fd);
}

static Hotcell__Egress__V1__Rule *add(const char *cidr, const char *domain)
{
        Hotcell__Egress__V1__Rule *rule = &rules[n_rules];

        hotcell__egress__v1__rule__init(rule);
        rule->is_allow = true;
        if (cidr) {
                rule->destination_case = HOTCELL__EGRESS__V1__RULE__DESTINATION_CIDR;
                rule->cidr = (char *)(uintptr_t)cidr;
        } else if (domain) {
                rule->destination_case = HOTCELL__EGRESS__V1__RULE__DESTINATION_DOMAIN;
                rule->domain = (char *)(uintptr_t)domain;
        }
        pointers[n_rules] = rule;
        n_rules++;
        return rule;
}

static void add_ports(Hotcell__Egress__V1__Rule *rule, uint32_t low, uint32_t high)
{
        size_t i = (size_t)(rule - rules);

        hotcell__egress__v1__ports__init(&ports[i]);
        ports[i].first = low;
        ports[i].last = high;
        port_pointers[i] = &ports[i];
        rule->ports = &port_pointers[i];
        rule->n_ports = 1;
}

static uint32_t write_bytes(const void *bytes, size_t n)
{
        fd = memfd_create("policy", MFD_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(write(fd, bytes, n), (ssize_t)n);
        return (uint32_t)n;
}

static int read_set(uint32_t n_bytes, Hotcell__Egress__V1__DefaultAction action)
{
        Hotcell__Egress__V1__SetPolicy set;
        struct policy_head head;

        hotcell__egress__v1__set_policy__init(&set);
        set.policy_version = 7;
        set.policy_bytes = n_bytes;
        set.default_action = action;
        set.record_types = types;
        set.n_record_types = n_types;
        if (policy_reader_head(&set, &head))
                return POLICY_READER_E_INVALID;
        ck_assert_int_eq(head.version, 7);
        return policy_reader_read(&head, fd, &policy, &bad_rule);
}

static int read_rules(void)
{
        Hotcell__Egress__V1__Policy message;
        uint8_t bytes[4096];

        hotcell__egress__v1__policy__init(&message);
        message.rules = pointers;
        message.n_rules = n_rules;
        ck_assert_uint_le(hotcell__egress__v1__policy__get_packed_size(&message), sizeof(bytes));
        return read_set(write_bytes(bytes, hotcell__egress__v1__policy__pack(&message, bytes)),
                        HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY);
}

START_TEST(the_default_needs_no_rules)
{
        ck_assert_int_eq(read_set(0, HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY), 0);
        ck_assert_int_eq(policy.default_action, POLICY_DEFAULT_DENY);
        ck_assert_uint_eq(policy.n_rules, 0);
        ck_assert_int_eq(
                read_set(0, HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_ALLOW_PUBLIC), 0);
        ck_assert_int_eq(policy.default_action, POLICY_DEFAULT_ALLOW_PUBLIC);
        /* What is not known is the narrower one. */
        ck_assert_int_eq(read_set(0, (Hotcell__Egress__V1__DefaultAction)7), 0);
        ck_assert_int_eq(policy.default_action, POLICY_DEFAULT_DENY);
}
END_TEST

static int read_types(size_t n)
{
        n_types = n;
        return read_set(0, HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY);
}

START_TEST(types_of_records_are_taken_as_a_set)
{
        ck_assert_int_eq(read_types(0), 0);
        ck_assert_uint_eq(policy.record_types, 0);
        types[0] = DNS_TYPE_TXT;
        types[1] = DNS_TYPE_ANY;
        ck_assert_int_eq(read_types(2), 0);
        ck_assert_uint_eq(policy.record_types, BIT(POLICY_RECORD_TXT) | BIT(POLICY_RECORD_ANY));
        ck_assert_uint_eq(policy_records_list(UINT32_MAX, types), _POLICY_RECORD_N - 1);
        ck_assert_int_eq(read_types(_POLICY_RECORD_N - 1), 0);
}
END_TEST

START_TEST(types_that_are_none_or_come_twice_are_refused)
{
        static const uint32_t none[] = { 0,   DNS_TYPE_A, DNS_TYPE_AAAA, DNS_TYPE_HTTPS,
                                         252, 65536 + 16 };

        for (size_t i = 0; i < ARRAY_SIZE(none); i++) {
                types[0] = DNS_TYPE_MX;
                types[1] = none[i];
                ck_assert_int_eq(read_types(2), POLICY_READER_E_INVALID);
        }
        types[1] = DNS_TYPE_MX;
        ck_assert_int_eq(read_types(2), POLICY_READER_E_INVALID);
}
END_TEST

/* What a policy may allow and what the resolver can pass on are the same types. */
START_TEST(each_type_that_can_be_passed_on_may_be_allowed)
{
        for (uint16_t number = 0; number < UINT16_MAX; number++)
                ck_assert_int_eq(policy_record_type_of(number) != 0,
                                 number == DNS_TYPE_ANY || dns_type_is_forwarded(number));
}
END_TEST

START_TEST(rules_are_taken_in_their_order)
{
        add_ports(add("10.0.0.0/8", NULL), 80, 443);
        add(NULL, "*.Example.org")->is_allow = false;
        add("2001:db8::/32", NULL);
        add("192.0.2.0/24", NULL)->protocol = IPPROTO_UDP;
        add("192.0.2.0/24", NULL)->protocol = IPPROTO_ICMP;
        ck_assert_int_eq(read_rules(), 0);
        ck_assert_uint_eq(policy.n_rules, 5);
        ck_assert_int_eq(policy.rules[0].action, POLICY_ALLOW);
        ck_assert_uint_eq(policy.rules[0].prefix.n_bits, 8);
        ck_assert_uint_eq(policy.rules[0].ports[0].low, 80);
        ck_assert_uint_eq(policy.rules[0].ports[0].high, 443);
        ck_assert_int_eq(policy.rules[1].action, POLICY_DENY);
        ck_assert(policy.rules[1].is_domain && policy.rules[1].is_wildcard);
        ck_assert_str_eq(policy.rules[1].domain, "example.org");
        ck_assert(policy.rules[2].prefix.is_v6);
        ck_assert_int_eq(policy.rules[2].protocol, POLICY_TCP);
        ck_assert_int_eq(policy.rules[3].protocol, POLICY_UDP);
        ck_assert_int_eq(policy.rules[4].protocol, POLICY_ICMP);
}
END_TEST

/* Each stands behind a good one. */
static const struct {
        const char *cidr;
        const char *domain;
        uint32_t low, high; /* zero: no ports */
        uint32_t protocol;
} bad[] = {
        { NULL, NULL, 0, 0, 0 },
        { "10.0.0.1/8", NULL, 0, 0, 0 },
        { "", NULL, 0, 0, 0 },
        { NULL, "", 0, 0, 0 },
        { NULL, "1.2.3.4", 0, 0, 0 },
        { NULL, "a.*.org", 0, 0, 0 },
        { "10.0.0.0/8", NULL, 2, 1, 0 },
        { "10.0.0.0/8", NULL, 1, 65536, 0 },
        { "10.0.0.0/8", NULL, 0, 0, IPPROTO_SCTP },
        { "10.0.0.0/8", NULL, 0, 0, IPPROTO_ICMPV6 },
        { NULL, "example.org", 0, 0, IPPROTO_UDP },
        { "10.0.0.0/8", NULL, 1, 2, IPPROTO_ICMP },
};

START_TEST(a_rule_that_is_none_is_named)
{
        Hotcell__Egress__V1__Rule *rule;

        add("10.0.0.0/8", NULL);
        rule = add(bad[_i].cidr, bad[_i].domain);
        if (bad[_i].low)
                add_ports(rule, bad[_i].low, bad[_i].high);
        rule->protocol = bad[_i].protocol;
        ck_assert_int_eq(read_rules(), POLICY_READER_E_INVALID);
        ck_assert_uint_eq(bad_rule, 1);
}
END_TEST

START_TEST(bytes_that_are_no_message_are_refused)
{
        static const uint8_t bytes[] = { 0x0a, 0x7f, 0x00 };

        ck_assert_int_eq(read_set(write_bytes(bytes, sizeof(bytes)),
                                  HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY),
                         POLICY_READER_E_INVALID);
}
END_TEST

START_TEST(less_than_was_announced_is_refused)
{
        ck_assert_int_lt(read_set(write_bytes("x", 1) + 1,
                                  HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY),
                         0);
}
END_TEST

START_TEST(a_policy_without_its_descriptor_or_too_large_is_refused)
{
        ck_assert_int_eq(read_set(5, HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY),
                         POLICY_READER_E_INVALID);
        (void)write_bytes("x", 1);
        ck_assert_int_eq(read_set(POLICY_READER_BYTES_MAX + 1,
                                  HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY),
                         POLICY_READER_E_INVALID);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("policy_reader");
        TCase *tests = tcase_create("policy_reader");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, the_default_needs_no_rules);
        tcase_add_test(tests, types_of_records_are_taken_as_a_set);
        tcase_add_test(tests, types_that_are_none_or_come_twice_are_refused);
        tcase_add_test(tests, each_type_that_can_be_passed_on_may_be_allowed);
        tcase_add_test(tests, rules_are_taken_in_their_order);
        tcase_add_loop_test(tests, a_rule_that_is_none_is_named, 0, ARRAY_SIZE(bad));
        tcase_add_test(tests, bytes_that_are_no_message_are_refused);
        tcase_add_test(tests, less_than_was_announced_is_refused);
        tcase_add_test(tests, a_policy_without_its_descriptor_or_too_large_is_refused);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
