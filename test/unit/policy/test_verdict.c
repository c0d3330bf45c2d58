/* Who has the last word. */
#include <check.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/policy/verdict.h"
#include "test/unit/policy/written.h"

#define RULES(...) ((const char *const[]){ __VA_ARGS__, NULL })

struct fixture {
        struct policy policy;
        struct policy_always always;
        struct policy_table table;
        struct policy_view view;
};

static void set_up(struct fixture *f, enum policy_default default_action, const char *const *rules)
{
        const struct policy_prefix opened = prefix_of("10.1.2.0/24"), extra = prefix_of("9.9.9.9");
        size_t rule;

        *f = (struct fixture){ .policy.default_action = default_action };
        for (; *rules; rules++)
                add_written(&f->policy, *rules);
        ck_assert_int_eq(policy_compile(&f->policy, &f->table, &rule), 0);
        ck_assert_int_eq(policy_always_init(&f->always, &(struct policy_prefixes){ &opened, 1 },
                                            &(struct policy_prefixes){ &extra, 1 }),
                         0);
        f->view = (struct policy_view){ &f->always, &f->table };
}

static void fixture_deinit(struct fixture *f)
{
        policy_deinit(&f->policy);
        policy_table_deinit(&f->table);
        policy_always_deinit(&f->always);
}

/* @rule: -1 where the verdict is by none. */
static void expect_ruling(struct policy_ruling ruling, enum policy_verdict verdict, int rule)
{
        ck_assert_int_eq(ruling.verdict, verdict);
        if (rule >= 0)
                ck_assert_uint_eq(ruling.rule, (unsigned)rule);
        ck_assert(!!ruling.always == (verdict == POLICY_VERDICT_DENIED_ALWAYS));
        ck_assert(policy_verdict_allows(verdict) == (verdict == POLICY_VERDICT_ALLOWED_RULE ||
                                                     verdict == POLICY_VERDICT_ALLOWED_DEFAULT));
}

static void expect_verdict(struct fixture *f, const char *address, const char *name, int port,
                           enum policy_verdict verdict, int rule)
{
        struct policy_address parsed = address_of(address ? address : "::");
        struct policy_flow flow = { address ? &parsed : NULL, name, (uint16_t)port, POLICY_TCP };

        expect_ruling(policy_judge(&f->view, &flow), verdict, rule);
}

START_TEST(always_comes_before_deny_before_allow_before_the_default)
{
        _cleanup_(fixture_deinit) struct fixture f;

        set_up(&f, POLICY_DEFAULT_DENY,
               RULES("allow 0.0.0.0/0 80", "allow 10.0.0.0/8", "deny 8.8.0.0/16 80-90",
                     "allow 8.8.8.8", "deny 127.0.0.0/8", "allow 9.9.9.9"));
        expect_verdict(&f, "10.1.1.1", NULL, 80, POLICY_VERDICT_DENIED_ALWAYS, -1);
        expect_verdict(&f, "127.0.0.1", NULL, 80, POLICY_VERDICT_DENIED_ALWAYS, -1);
        expect_verdict(&f, "9.9.9.9", NULL, 80, POLICY_VERDICT_DENIED_ALWAYS, -1);
        expect_verdict(&f, "10.1.2.3", NULL, 81, POLICY_VERDICT_ALLOWED_RULE, 1);
        expect_verdict(&f, "8.8.8.8", NULL, 80, POLICY_VERDICT_DENIED_RULE, 2);
        expect_verdict(&f, "::ffff:8.8.8.8", NULL, 80, POLICY_VERDICT_DENIED_RULE, 2);
        expect_verdict(&f, "8.8.8.8", NULL, 91, POLICY_VERDICT_ALLOWED_RULE, 3);
        expect_verdict(&f, "8.8.8.9", NULL, 91, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_verdict(&f, "7.7.7.7", NULL, 80, POLICY_VERDICT_ALLOWED_RULE, 0);
        expect_verdict(&f, "2600::1", NULL, 80, POLICY_VERDICT_DENIED_DEFAULT, -1);
}
END_TEST

START_TEST(a_deny_beats_an_allow_wherever_it_stands)
{
        static const char *const orders[][3] = {
                { "deny 8.8.0.0/16 80", "allow 8.8.8.8 80", NULL },
                { "allow 8.8.8.8 80", "deny 8.8.0.0/16 80", NULL },
                { "deny 8.8.8.8 80", "allow 8.8.0.0/16", NULL },
                { "allow 8.8.0.0/16", "deny 8.8.8.8 80", NULL },
                { "deny 8.8.8.8", "allow 8.8.8.8", NULL },
                { "allow 8.8.8.8", "deny 8.8.8.8", NULL },
        };

        for (size_t i = 0; i < ARRAY_SIZE(orders); i++) {
                _cleanup_(fixture_deinit) struct fixture f;

                set_up(&f, POLICY_DEFAULT_ALLOW_PUBLIC, orders[i]);
                expect_verdict(&f, "8.8.8.8", NULL, 80, POLICY_VERDICT_DENIED_RULE, (int)i % 2);
        }
}
END_TEST

START_TEST(allow_public_is_all_that_is_not_always_denied)
{
        _cleanup_(fixture_deinit) struct fixture f;

        set_up(&f, POLICY_DEFAULT_ALLOW_PUBLIC, RULES("deny 8.0.0.0/8 25", "deny *.bad.example"));
        expect_verdict(&f, "8.8.8.8", NULL, 80, POLICY_VERDICT_ALLOWED_DEFAULT, -1);
        expect_verdict(&f, "2600::1", NULL, 80, POLICY_VERDICT_ALLOWED_DEFAULT, -1);
        expect_verdict(&f, "8.8.8.8", NULL, 25, POLICY_VERDICT_DENIED_RULE, 0);
        expect_verdict(&f, "192.168.1.1", NULL, 80, POLICY_VERDICT_DENIED_ALWAYS, -1);
        /* What the operator opened is not public. */
        expect_verdict(&f, "10.1.2.3", NULL, 80, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_verdict(&f, "10.1.2.3", "good.example", 80, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_verdict(&f, "2606:4700::5efe:10.1.2.7", NULL, 80, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_verdict(&f, NULL, "good.example", 80, POLICY_VERDICT_ALLOWED_DEFAULT, -1);
        expect_verdict(&f, NULL, "a.bad.example", 80, POLICY_VERDICT_DENIED_RULE, 1);
}
END_TEST

START_TEST(denied_addresses_are_denied_through_translators)
{
        _cleanup_(fixture_deinit) struct fixture f;

        set_up(&f, POLICY_DEFAULT_ALLOW_PUBLIC,
               RULES("deny 8.8.8.0/24 80", "allow ::/0 80", "allow 7.7.7.7"));
        expect_verdict(&f, "64:ff9b::8.8.8.8", NULL, 80, POLICY_VERDICT_DENIED_RULE, 0);
        expect_verdict(&f, "2002:808:808::1", NULL, 80, POLICY_VERDICT_DENIED_RULE, 0);
        expect_verdict(&f, "::8.8.8.8", NULL, 80, POLICY_VERDICT_DENIED_RULE, 0);
        expect_verdict(&f, "64:ff9b::8.8.9.8", NULL, 80, POLICY_VERDICT_ALLOWED_RULE, 1);
        expect_verdict(&f, "64:ff9b::8.8.8.8", NULL, 81, POLICY_VERDICT_ALLOWED_DEFAULT, -1);
        fixture_deinit(&f);
        set_up(&f, POLICY_DEFAULT_DENY, RULES("allow 7.7.7.7"));
        expect_verdict(&f, "7.7.7.7", NULL, 80, POLICY_VERDICT_ALLOWED_RULE, 0);
        expect_verdict(&f, "64:ff9b::7.7.7.7", NULL, 80, POLICY_VERDICT_DENIED_DEFAULT, -1);
}
END_TEST

START_TEST(name_and_address_may_both_deny_and_both_allow)
{
        _cleanup_(fixture_deinit) struct fixture f;

        set_up(&f, POLICY_DEFAULT_DENY,
               RULES("allow *.example.org 443", "deny 8.8.8.8", "allow 7.0.0.0/8 443",
                     "deny bad.example.org"));
        expect_verdict(&f, "6.6.6.6", "a.example.org", 443, POLICY_VERDICT_ALLOWED_RULE, 0);
        expect_verdict(&f, "6.6.6.6", "a.example.org", 80, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_verdict(&f, "6.6.6.6", "example.org", 443, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_verdict(&f, "8.8.8.8", "a.example.org", 443, POLICY_VERDICT_DENIED_RULE, 1);
        expect_verdict(&f, "7.7.7.7", "other.example", 443, POLICY_VERDICT_ALLOWED_RULE, 2);
        expect_verdict(&f, "7.7.7.7", "bad.example.org", 443, POLICY_VERDICT_DENIED_RULE, 3);
        expect_verdict(&f, "127.0.0.1", "a.example.org", 443, POLICY_VERDICT_DENIED_ALWAYS, -1);
        expect_verdict(&f, "7.7.7.7", NULL, 443, POLICY_VERDICT_ALLOWED_RULE, 2);
}
END_TEST

static void expect_by(struct fixture *f, enum policy_protocol protocol, const char *address,
                      int port, enum policy_verdict verdict, int rule)
{
        struct policy_address parsed = address_of(address);
        struct policy_flow flow = { &parsed, NULL, (uint16_t)port, protocol };

        expect_ruling(policy_judge(&f->view, &flow), verdict, rule);
}

START_TEST(rules_are_about_one_protocol)
{
        _cleanup_(fixture_deinit) struct fixture f;

        set_up(&f, POLICY_DEFAULT_ALLOW_PUBLIC,
               RULES("allow udp 8.8.0.0/16 53", "deny udp 8.8.8.0/24", "allow icmp 8.8.8.8",
                     "deny 8.8.8.8 80", "allow udp 10.0.0.0/8"));
        expect_by(&f, POLICY_UDP, "8.8.4.4", 53, POLICY_VERDICT_ALLOWED_RULE, 0);
        expect_by(&f, POLICY_UDP, "8.8.4.4", 54, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_by(&f, POLICY_UDP, "8.8.8.8", 53, POLICY_VERDICT_DENIED_RULE, 1);
        expect_by(&f, POLICY_UDP, "64:ff9b::8.8.8.8", 53, POLICY_VERDICT_DENIED_RULE, 1);
        expect_by(&f, POLICY_UDP, "10.0.0.1", 53, POLICY_VERDICT_DENIED_ALWAYS, -1);
        expect_by(&f, POLICY_UDP, "7.7.7.7", 53, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_by(&f, POLICY_ICMP, "8.8.8.8", 0, POLICY_VERDICT_ALLOWED_RULE, 2);
        expect_by(&f, POLICY_ICMP, "8.8.4.4", 0, POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_by(&f, POLICY_TCP, "8.8.8.8", 53, POLICY_VERDICT_ALLOWED_DEFAULT, -1);
        expect_by(&f, POLICY_TCP, "8.8.8.8", 80, POLICY_VERDICT_DENIED_RULE, 3);
}
END_TEST

START_TEST(a_name_resolves_when_a_port_is_left)
{
        _cleanup_(fixture_deinit) struct fixture f;
        struct policy_view *view = &f.view;

        set_up(&f, POLICY_DEFAULT_DENY,
               RULES("allow some.example 80-90", "deny some.example 1-89",
                     "allow none.example 80-90", "deny none.example 80-90",
                     "deny all.example 1-100,90-65535", "deny most.example 2-65535",
                     "deny gap.example 1-99,101-65535", "deny last.example 1-65534"));
        expect_ruling(policy_judge_query(view, "some.example"), POLICY_VERDICT_ALLOWED_RULE, 0);
        expect_ruling(policy_judge_query(view, "none.example"), POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_ruling(policy_judge_query(view, "all.example"), POLICY_VERDICT_DENIED_RULE, 4);
        expect_ruling(policy_judge_query(view, "most.example"), POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_ruling(policy_judge_query(view, "gap.example"), POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_ruling(policy_judge_query(view, "last.example"), POLICY_VERDICT_DENIED_DEFAULT, -1);
        expect_ruling(policy_judge_query(view, "other.example"), POLICY_VERDICT_DENIED_DEFAULT, -1);
        f.table.default_action = POLICY_DEFAULT_ALLOW_PUBLIC;
        expect_ruling(policy_judge_query(view, "none.example"), POLICY_VERDICT_ALLOWED_DEFAULT, -1);
        expect_ruling(policy_judge_query(view, "all.example"), POLICY_VERDICT_DENIED_RULE, 4);
        expect_ruling(policy_judge_query(view, "gap.example"), POLICY_VERDICT_ALLOWED_DEFAULT, -1);
        expect_ruling(policy_judge_query(view, "most.example"), POLICY_VERDICT_ALLOWED_DEFAULT, -1);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                always_comes_before_deny_before_allow_before_the_default,
                a_deny_beats_an_allow_wherever_it_stands,
                allow_public_is_all_that_is_not_always_denied,
                denied_addresses_are_denied_through_translators,
                name_and_address_may_both_deny_and_both_allow,
                rules_are_about_one_protocol,
                a_name_resolves_when_a_port_is_left,
        };

        return run_tests("policy_verdict", tests, ARRAY_SIZE(tests));
}
