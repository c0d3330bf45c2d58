/* What does not depend on how a policy is written: neither its tables nor how large they are. */
#include <check.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/policy/compile.h"
#include "test/unit/policy/random_policy.h"
#include "test/unit/policy/written.h"

static void shuffle(struct random *random, struct policy *policy)
{
        for (unsigned i = (unsigned)policy->n_rules - 1; i > 0; i--) {
                unsigned other = below(random, i + 1);
                struct policy_rule rule = policy->rules[i];

                policy->rules[i] = policy->rules[other];
                policy->rules[other] = rule;
        }
}

static void expect_same_ranges(const struct policy_range *a, const struct policy_range *b, size_t n)
{
        for (size_t i = 0; i < n; i++) {
                ck_assert_uint_eq(a[i].low, b[i].low);
                ck_assert_uint_eq(a[i].high, b[i].high);
                ck_assert_uint_eq(a[i].action, b[i].action);
                ck_assert_uint_eq(a[i].protocol, b[i].protocol);
        }
}

static void expect_same_tables(const struct policy_table *a, const struct policy_table *b)
{
        ck_assert_uint_eq(a->n_entries, b->n_entries);
        for (size_t i = 0; i < a->n_entries; i++) {
                const struct policy_entry *left = &a->entries[i], *right = &b->entries[i];

                ck_assert_int_eq(policy_prefix_compare(&left->prefix, &right->prefix), 0);
                ck_assert_uint_eq(left->n_ranges, right->n_ranges);
                expect_same_ranges(left->ranges, right->ranges, left->n_ranges);
        }
        ck_assert_uint_eq(a->n_names, b->n_names);
        for (size_t i = 0; i < a->n_names; i++) {
                const struct policy_name *left = &a->names[i], *right = &b->names[i];

                ck_assert_str_eq(left->domain, right->domain);
                ck_assert_uint_eq(left->n_ranges, right->n_ranges);
                expect_same_ranges(left->ranges, right->ranges, left->n_ranges);
        }
}

START_TEST(the_order_of_rules_means_nothing)
{
        unsigned n_refused = 0;

        for (unsigned seed = 1; seed <= 400; seed++) {
                _cleanup_(policy_deinit) struct policy policy = { 0 };
                _cleanup_(policy_table_deinit) struct policy_table table = { 0 }, again = { 0 };
                struct random random = { seed };
                uint8_t digests[2][32];
                size_t rule;
                int r;

                random_policy(&random, &policy);
                r = policy_compile(&policy, &table, &rule);
                ck_assert_int_eq(policy_digest(&policy, digests[0]), 0);
                shuffle(&random, &policy);
                ck_assert_int_eq(policy_compile(&policy, &again, &rule), r);
                ck_assert_int_eq(policy_digest(&policy, digests[1]), 0);
                ck_assert_mem_eq(digests[0], digests[1], 32);
                expect_same_tables(&table, &again);
                n_refused += r != 0;
        }
        ck_assert_uint_gt(n_refused, 5);
        ck_assert_uint_lt(n_refused, 300);
}
END_TEST

/* What @ranges, or of these those in @chosen, say of a port: the strongest action, or 0. */
static unsigned action_at(const struct policy_range *ranges, size_t n, unsigned chosen,
                          unsigned port)
{
        unsigned action = 0;

        for (size_t i = 0; i < n; i++) {
                if (chosen >> i & 1 && ranges[i].low <= port && port <= ranges[i].high)
                        action = action == POLICY_DENY ? action : ranges[i].action;
        }
        return action;
}

/* By trying all choices. */
static unsigned count_fewest(const struct policy_range *ranges, size_t n)
{
        unsigned fewest = (unsigned)n;

        for (unsigned chosen = 0; chosen < 1U << n; chosen++) {
                bool is_same = (unsigned)__builtin_popcount(chosen) < fewest;

                for (unsigned port = 0; is_same && port < 32; port++)
                        is_same = action_at(ranges, n, chosen, port) ==
                                  action_at(ranges, n, UINT32_MAX, port);
                if (is_same)
                        fewest = (unsigned)__builtin_popcount(chosen);
        }
        return fewest;
}

START_TEST(reduced_ranges_are_the_fewest_that_say_the_same)
{
        unsigned n_too_many = 0;

        for (unsigned seed = 1; seed <= 400; seed++) {
                struct policy_range ranges[11], reduced[POLICY_ENTRY_RANGES];
                struct random random = { seed };
                size_t n = below(&random, ARRAY_SIZE(ranges)) + 1;
                unsigned width = seed % 4 ? 12 : 1;
                size_t fewest, n_reduced;

                for (size_t i = 0; i < n; i++) {
                        unsigned low = below(&random, 32), high = low + below(&random, width);

                        ranges[i] = (struct policy_range){
                                .low = (uint16_t)low,
                                .high = (uint16_t)MIN(high, 31),
                                .action = below(&random, 3) ? POLICY_ALLOW : POLICY_DENY,
                                .protocol = POLICY_TCP,
                        };
                }
                fewest = count_fewest(ranges, n);
                n_reduced = policy_ranges_reduce(ranges, n, reduced);
                ck_assert_msg(MIN(n_reduced, POLICY_ENTRY_RANGES + 1) ==
                                      MIN(fewest, POLICY_ENTRY_RANGES + 1),
                              "seed %u: %zu, not %zu", seed, n_reduced, fewest);
                n_too_many += n_reduced > POLICY_ENTRY_RANGES;
                for (unsigned port = 0; n_reduced <= POLICY_ENTRY_RANGES && port < 40; port++) {
                        const struct policy_range *found =
                                policy_ranges_find(reduced, n_reduced, POLICY_TCP, (uint16_t)port);

                        if ((found ? found->action : 0U) != action_at(ranges, n, UINT32_MAX, port))
                                ck_abort_msg("seed %u, port %u", seed, port);
                }
        }
        ck_assert_uint_gt(n_too_many, 5);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                the_order_of_rules_means_nothing,
                reduced_ranges_are_the_fewest_that_say_the_same,
        };

        return run_tests("policy_order", tests, ARRAY_SIZE(tests));
}
