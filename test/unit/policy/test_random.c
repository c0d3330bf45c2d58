/*
 * Random policies, judged by the tables and by going through all rules one by one. The seed of a
 * policy is its number.
 */
#include <check.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/policy/verdict.h"
#include "test/unit/policy/random_policy.h"
#include "test/unit/policy/reference.h"
#include "test/unit/policy/written.h"

enum {
        POLICIES = 1000,
        PORT_PROBES = 8,
};

static unsigned n_compared[POLICY_VERDICT_ALLOWED_DEFAULT + 1];

/* Check notes each assertion that holds, which would take most of the time. */
static void compare(unsigned seed, const struct policy *policy, const struct policy_view *view,
                    const struct policy_flow *flow)
{
        enum policy_verdict expected = reference_judge(policy, view->always, flow);
        struct policy_ruling found = policy_judge(view, flow);
        const struct policy_rule *rule = &policy->rules[found.rule];
        enum policy_action action =
                expected == POLICY_VERDICT_DENIED_RULE ? POLICY_DENY : POLICY_ALLOW;

        n_compared[expected]++;
        if (found.verdict != expected)
                ck_abort_msg("seed %u, port %u, name %s: %d, not %d", seed, flow->port,
                             flow->name ? flow->name : "-", found.verdict, expected);
        if (expected == POLICY_VERDICT_DENIED_ALWAYS &&
            found.always != reference_longest(view->always, flow->address))
                ck_abort_msg("seed %u: %s", seed, found.always->what);
        if ((expected == POLICY_VERDICT_DENIED_RULE || expected == POLICY_VERDICT_ALLOWED_RULE) &&
            (!reference_concerns(rule, flow) || rule->action != action))
                ck_abort_msg("seed %u: rule %u", seed, found.rule);
}

/* Adds or subtracts one; over the ends it goes around. */
static void step(struct policy_address *address, int by)
{
        for (int i = address->is_v6 ? 15 : 3; i >= 0; i--) {
                address->bytes[i] = (uint8_t)(address->bytes[i] + by);
                if (address->bytes[i] != (by > 0 ? 0 : 255))
                        return;
        }
}

/* The last address below @from, the first and last in it, the first above it. */
static void find_edges(const struct policy_prefix *prefix, struct policy_address ret_edges[4])
{
        struct policy_address first = { .is_v6 = prefix->is_v6 }, last;

        memcpy(first.bytes, prefix->bytes, 16);
        last = first;
        for (unsigned i = prefix->n_bits; i < (prefix->is_v6 ? 128U : 32U); i++)
                last.bytes[i / 8] |= (uint8_t)(0x80 >> i % 8);
        ret_edges[0] = ret_edges[1] = first;
        ret_edges[2] = ret_edges[3] = last;
        step(&ret_edges[0], -1);
        step(&ret_edges[3], 1);
        for (int i = 0; i < 4; i++) {
                if (ret_edges[i].is_v6)
                        ret_edges[i] = policy_address_v6(ret_edges[i].bytes);
        }
}

static unsigned random_port(struct random *random, const struct policy *policy)
{
        const struct policy_rule *rule = &policy->rules[below(random, (unsigned)policy->n_rules)];
        const struct policy_ports *ports;
        unsigned edge;

        if (rule->n_ports == 0)
                return below(random, 65536);
        ports = &rule->ports[below(random, (unsigned)rule->n_ports)];
        edge = below(random, 2) ? ports->low : ports->high;
        return (edge + 65535 + below(random, 3)) % 65536;
}

/* TCP most often: only it has names and a default. */
static const enum policy_protocol protocols[] = { POLICY_TCP, POLICY_TCP, POLICY_TCP, POLICY_UDP,
                                                  POLICY_ICMP };

static void ask(unsigned seed, struct random *random, const struct policy *policy,
                const struct policy_view *view)
{
        for (size_t i = 0; i < policy->n_rules; i++) {
                struct policy_prefix prefix = policy->rules[i].is_domain ? random_prefix(random)
                                                                         : policy->rules[i].prefix;
                struct policy_address edges[4];

                find_edges(&prefix, edges);
                for (unsigned j = 0; j < PORT_PROBES; j++) {
                        char name[POLICY_DOMAIN_BUFFER];
                        struct policy_flow flow = {
                                .address = &edges[j % 4],
                                .port = (uint16_t)random_port(random, policy),
                                .protocol = protocols[below(random, ARRAY_SIZE(protocols))],
                        };

                        if (flow.protocol == POLICY_ICMP)
                                flow.port = 0;

                        compare(seed, policy, view, &flow);
                        random_name(random, name);
                        flow.name = name;
                        compare(seed, policy, view, &flow);
                        flow.address = NULL;
                        compare(seed, policy, view, &flow);
                }
        }
}

/* One verdict between any two edges of ports, so those are enough to ask for. */
static enum policy_verdict judge_query(const struct policy *policy, const char *name)
{
        bool is_allowed = false, is_denied = true;

        for (unsigned port = 1; port < 65536; port++) {
                struct policy_flow flow = { .name = name,
                                            .port = (uint16_t)port,
                                            .protocol = POLICY_TCP };
                enum policy_verdict verdict = reference_judge(policy, NULL, &flow);

                is_allowed = is_allowed || verdict == POLICY_VERDICT_ALLOWED_RULE;
                is_denied = is_denied && verdict == POLICY_VERDICT_DENIED_RULE;
                if (port == 40)
                        port = 65520; /* random_ports() has no edges between */
        }
        if (is_allowed)
                return POLICY_VERDICT_ALLOWED_RULE;
        if (is_denied)
                return POLICY_VERDICT_DENIED_RULE;
        return policy->default_action == POLICY_DEFAULT_ALLOW_PUBLIC
                       ? POLICY_VERDICT_ALLOWED_DEFAULT
                       : POLICY_VERDICT_DENIED_DEFAULT;
}

static void init_always(struct random *random, struct policy_always *always)
{
        struct policy_prefix prefixes[2][3];

        for (size_t i = 0; i < 6; i++)
                prefixes[i / 3][i % 3] = random_prefix(random);
        ck_assert_int_eq(policy_always_init(
                                 always, &(struct policy_prefixes){ prefixes[0], below(random, 4) },
                                 &(struct policy_prefixes){ prefixes[1], below(random, 2) }),
                         0);
}

START_TEST(tables_say_what_the_rules_say)
{
        unsigned n_too_complex = 0, n_compiled = 0;

        for (unsigned seed = 1; n_compiled < POLICIES; seed++) {
                _cleanup_(policy_deinit) struct policy policy = { 0 };
                _cleanup_(policy_always_deinit) struct policy_always always = { 0 };
                _cleanup_(policy_table_deinit) struct policy_table table = { 0 };
                const struct policy_view view = { &always, &table };
                struct random random = { seed };
                size_t rule;
                int r;

                random_policy(&random, &policy);
                init_always(&random, &always);
                r = policy_compile(&policy, &table, &rule);
                ck_assert(r == 0 || r == POLICY_E_TOO_COMPLEX);
                if (r) {
                        n_too_complex++;
                        continue;
                }
                n_compiled++;
                ask(seed, &random, &policy, &view);
        }
        /* Otherwise it was not this that was tested. */
        ck_assert_uint_lt(n_too_complex, POLICIES);
        for (size_t i = 0; i < ARRAY_SIZE(n_compared); i++)
                ck_assert_uint_gt(n_compared[i], 10000);
}
END_TEST

START_TEST(queries_say_what_the_ports_say)
{
        unsigned n_found[POLICY_VERDICT_ALLOWED_DEFAULT + 1] = { 0 };

        for (unsigned seed = 1; seed <= 1000; seed++) {
                _cleanup_(policy_deinit) struct policy policy = { 0 };
                _cleanup_(policy_table_deinit) struct policy_table table = { 0 };
                struct random random = { seed };
                char name[POLICY_DOMAIN_BUFFER];
                size_t rule;

                random_policy(&random, &policy);
                if (policy_compile(&policy, &table, &rule) != 0)
                        continue;
                for (unsigned i = 0; i < 10; i++) {
                        struct policy_ruling ruling;

                        random_name(&random, name);
                        ruling = policy_judge_query(&(struct policy_view){ .table = &table }, name);
                        ck_assert_msg(ruling.verdict == judge_query(&policy, name), "seed %u: %s",
                                      seed, name);
                        n_found[ruling.verdict]++;
                }
        }
        for (size_t i = POLICY_VERDICT_DENIED_RULE; i < ARRAY_SIZE(n_found); i++)
                ck_assert_uint_gt(n_found[i], 50);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                tables_say_what_the_rules_say,
                queries_say_what_the_ports_say,
        };

        return run_tests("policy_random", tests, ARRAY_SIZE(tests));
}
