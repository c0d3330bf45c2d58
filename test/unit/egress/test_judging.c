/* What a policy says of a connection to an address that stands for names: the same in whatever
 * order they were asked for. */

#include <check.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "test/lib/suite.h"

enum {
        RULES_MAX = 4,
        NAMES_MAX = 2,
        SSH = 22,
        HTTP = 80,
        TLS = 443,
};

#define WHERE "93.184.216.0/24"

struct rule {
        enum policy_action action;
        const char *where; /* a name, or WHERE */
        uint16_t port;     /* zero: all */
};

static struct egress egress;
static struct network network;

static void setup(void)
{
        egress = (struct egress){ 0 };
        network = (struct network){ .egress = &egress, .names = { .n_all = &egress.n_named } };
        ck_assert_int_eq(policy_always_init(&egress.always, &(struct policy_prefixes){ 0 },
                                            &(struct policy_prefixes){ 0 }),
                         0);
}

static void teardown(void)
{
        policy_always_deinit(&egress.always);
}

static void set_policy(const struct rule *rules)
{
        struct policy policy = { 0 };
        size_t refused;

        for (size_t i = 0; i < RULES_MAX && rules[i].where; i++) {
                struct policy_rule rule = { .action = rules[i].action, .protocol = POLICY_TCP };

                rule.is_domain = strcmp(rules[i].where, WHERE) != 0;
                if (rule.is_domain)
                        (void)snprintf(rule.domain, sizeof(rule.domain), "%s", rules[i].where);
                else
                        ck_assert_int_eq(policy_parse_cidr(WHERE, &rule.prefix), 0);
                if (rules[i].port)
                        ck_assert_int_eq(policy_rule_add_ports(&rule, rules[i].port, rules[i].port),
                                         0);
                ck_assert_int_eq(policy_add(&policy, &rule), 0);
        }
        ck_assert_int_eq(policy_compile(&policy, &network.policy.table, &refused), 0);
        network.has_policy = true;
        policy_deinit(&policy);
}

static void drop(const struct named_address *address, void *userdata)
{
        (void)address;
        (void)userdata;
}

static const uint8_t bytes[4] = { 93, 184, 216, 34 };

static void name_it(const char *name)
{
        const struct policy_address address = policy_address_v4(bytes);
        struct name_entry entry = { .expire_usec = UINT64_MAX };

        (void)snprintf(entry.name, sizeof(entry.name), "%s", name);
        ck_assert_int_eq(
                names_admit(&network.names, &address, &entry, clock_monotonic_usec(), drop, NULL),
                0);
}

#define ALLOWED    EGRESS_REASON(UNSPECIFIED)
#define BY_RULE    EGRESS_REASON(RULE)
#define BY_DEFAULT EGRESS_REASON(DEFAULT)

static const struct {
        struct rule rules[RULES_MAX];
        const char *names[NAMES_MAX]; /* that the address stands for */
        uint16_t port;
        int reason;
        bool is_by_name;
        uint32_t rule;
        const char *name;
} cases[] = {
        { { { POLICY_ALLOW, "a.test", 0 } }, { "a.test" }, SSH, ALLOWED, true, 0, "a.test" },
        { { { POLICY_ALLOW, "a.test", 0 } }, { 0 }, SSH, BY_DEFAULT, false, 0, "" },
        { { { POLICY_ALLOW, "a.test", HTTP } }, { "a.test" }, SSH, BY_DEFAULT, false, 0, "a.test" },
        { { { POLICY_ALLOW, WHERE, 0 } }, { "a.test" }, SSH, ALLOWED, false, 0, "a.test" },
        /* A deny beats an allow, of whichever name. */
        { { { POLICY_ALLOW, "a.test", 0 },
            { POLICY_DENY, "a.test", SSH },
            { POLICY_ALLOW, "b.test", SSH } },
          { "a.test", "b.test" },
          SSH,
          BY_RULE,
          false,
          1,
          "a.test" },
        { { { POLICY_ALLOW, "a.test", 0 },
            { POLICY_DENY, "a.test", SSH },
            { POLICY_ALLOW, "b.test", SSH },
            { POLICY_ALLOW, WHERE, SSH } },
          { "a.test", "b.test" },
          SSH,
          BY_RULE,
          false,
          1,
          "a.test" },
        { { { POLICY_ALLOW, "a.test", 0 },
            { POLICY_DENY, "a.test", SSH },
            { POLICY_ALLOW, "b.test", HTTP } },
          { "a.test", "b.test" },
          SSH,
          BY_RULE,
          false,
          1,
          "a.test" },
        { { { POLICY_DENY, "b.test", SSH }, { POLICY_DENY, "a.test", SSH } },
          { "a.test", "b.test" },
          SSH,
          BY_RULE,
          false,
          0,
          "b.test" },
        { { { POLICY_ALLOW, WHERE, 0 }, { POLICY_DENY, "a.test", SSH } },
          { "b.test" },
          SSH,
          ALLOWED,
          false,
          0,
          "b.test" },
        /* Where the name is said, that decides. */
        { { { POLICY_DENY, "a.test", TLS }, { POLICY_ALLOW, "b.test", 0 } },
          { "a.test", "b.test" },
          TLS,
          ALLOWED,
          true,
          0,
          "b.test" },
        { { { POLICY_DENY, "a.test", HTTP }, { POLICY_ALLOW, "b.test", TLS } },
          { "a.test", "b.test" },
          HTTP,
          BY_RULE,
          false,
          0,
          "a.test" },
        /* But not over what the address allows, where nobody looks at what is said. */
        { { { POLICY_DENY, "a.test", TLS }, { POLICY_ALLOW, WHERE, 0 } },
          { "a.test", "b.test" },
          TLS,
          BY_RULE,
          false,
          0,
          "a.test" },
        /* A rule that denies the address denies all its names. */
        { { { POLICY_DENY, WHERE, 0 }, { POLICY_ALLOW, "a.test", 0 } },
          { "a.test" },
          TLS,
          BY_RULE,
          false,
          0,
          "a.test" },
};

START_TEST(names_are_judged_in_no_order)
{
        const size_t i = (size_t)_i / NAMES_MAX;
        const size_t first = (size_t)_i % NAMES_MAX;
        const struct policy_address address = policy_address_v4(bytes);
        struct network_ruling ruling;

        set_policy(cases[i].rules);
        for (size_t k = 0; k < NAMES_MAX; k++) {
                const char *name = cases[i].names[(first + k) % NAMES_MAX];

                if (name)
                        name_it(name);
        }
        network_judge(&network, &address, cases[i].port, &ruling);
        ck_assert_int_eq(ruling.is_allowed, cases[i].reason == ALLOWED);
        ck_assert_int_eq((int)ruling.reason, cases[i].reason);
        ck_assert_int_eq(ruling.is_by_name, cases[i].is_by_name);
        if (cases[i].reason == BY_RULE)
                ck_assert_uint_eq(ruling.rule, cases[i].rule);
        if (cases[i].is_by_name || cases[i].reason == BY_RULE || !cases[i].names[1])
                ck_assert_str_eq(ruling.name, cases[i].name);
        names_deinit(&network.names);
        policy_table_deinit(&network.policy.table);
        ck_assert_uint_eq(egress.n_named, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("judging");
        TCase *tests = tcase_create("judging");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_loop_test(tests, names_are_judged_in_no_order, 0,
                            (int)ARRAY_SIZE(cases) * NAMES_MAX);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
