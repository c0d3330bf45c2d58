/*
 * The rules are sorted so that those of one destination are neighbours, and come after those of all
 * that enclose it. An entry's ranges are then those of its own rules and of the nearest entry that
 * encloses it, which has its enclosing ones' already: at most eight, so the work for an entry does
 * not grow with the number of prefixes around it.
 */
#include "runtime/policy/compile.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

/* Of either kind of destination. */
struct compiler {
        const struct policy *policy;
        struct policy_table *table;
        const struct policy_rule **rules; /* sorted */
        size_t n_rules;
        struct policy_range *scratch; /* for the ranges of all rules and of an entry */
        size_t refused;               /* the rule that does not fit */
};

/* The rules of one destination, ascending, and what encloses it. */
struct group {
        const struct policy_rule **rules;
        size_t n_rules;
        const struct policy_range *outer;
        size_t n_outer;
};

static size_t rule_index(const struct compiler *compiler, const struct policy_rule *rule)
{
        return (size_t)(rule - compiler->policy->rules);
}

static int compare_places(const struct policy_rule *a, const struct policy_rule *b)
{
        return (a > b) - (a < b);
}

static int compare_prefixes(const void *left, const void *right)
{
        const struct policy_rule *a = *(const struct policy_rule *const *)left;
        const struct policy_rule *b = *(const struct policy_rule *const *)right;
        int order = policy_prefix_compare(&a->prefix, &b->prefix);

        return order ? order : compare_places(a, b);
}

/* By length, for what encloses a name is shorter. */
static int compare_domains(const struct policy_rule *a, const struct policy_rule *b)
{
        size_t a_length = strlen(a->domain), b_length = strlen(b->domain);
        int order;

        if (a_length != b_length)
                return a_length < b_length ? -1 : 1;
        order = memcmp(a->domain, b->domain, a_length);
        return order ? order : (int)a->is_wildcard - (int)b->is_wildcard;
}

static int compare_names(const void *left, const void *right)
{
        const struct policy_rule *a = *(const struct policy_rule *const *)left;
        const struct policy_rule *b = *(const struct policy_rule *const *)right;
        int order = compare_domains(a, b);

        return order ? order : compare_places(a, b);
}

static int compiler_init(struct compiler *compiler, const struct policy *policy, bool is_domain)
{
        size_t n_ranges = (policy->n_rules + 1) * POLICY_PORTS_MAX;

        compiler->policy = policy;
        compiler->rules = calloc(policy->n_rules + 1, sizeof(struct policy_rule *));
        compiler->scratch = calloc(n_ranges, sizeof(*compiler->scratch));
        if (!compiler->rules || !compiler->scratch)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < policy->n_rules; i++) {
                const struct policy_rule *rule = &policy->rules[i];

                if (rule->is_domain == is_domain)
                        compiler->rules[compiler->n_rules++] = rule;
        }
        qsort(compiler->rules, compiler->n_rules, sizeof(struct policy_rule *),
              is_domain ? compare_names : compare_prefixes);
        return 0;
}

static void compiler_deinit(struct compiler *compiler)
{
        free((void *)compiler->rules);
        free(compiler->scratch);
}

static struct group next_group(const struct compiler *compiler, size_t first)
{
        struct group group = { .rules = compiler->rules + first, .n_rules = 1 };
        const struct policy_rule *rule = group.rules[0];

        for (; first + group.n_rules < compiler->n_rules; group.n_rules++) {
                const struct policy_rule *next = group.rules[group.n_rules];

                if (rule->is_domain ? compare_domains(rule, next) != 0
                                    : policy_prefix_compare(&rule->prefix, &next->prefix) != 0)
                        break;
        }
        return group;
}

/* The first rule with which the ranges do not fit any more. */
static size_t find_refused(struct compiler *compiler, const struct group *group)
{
        struct policy_range kept[POLICY_ENTRY_RANGES] = { 0 };
        size_t n_kept = group->n_outer;

        if (n_kept > 0)
                memcpy(kept, group->outer, n_kept * sizeof(*kept));
        for (size_t i = 0;; i++) {
                size_t rule, n = n_kept;

                /* All together have no fewer ranges than the fewest of them. */
                assert(i < group->n_rules);
                rule = rule_index(compiler, group->rules[i]);
                memcpy(compiler->scratch, kept, n * sizeof(*kept));
                n += policy_ranges_of(compiler->policy, rule, compiler->scratch + n);
                n_kept = policy_ranges_reduce(compiler->scratch, n, kept);
                if (n_kept > POLICY_ENTRY_RANGES)
                        return rule;
        }
}

static int merge(struct compiler *compiler, const struct group *group,
                 struct policy_range ret_ranges[static POLICY_ENTRY_RANGES], uint8_t *ret_n)
{
        struct policy_range *scratch = compiler->scratch;
        size_t n = group->n_outer;

        if (n > 0)
                memcpy(scratch, group->outer, n * sizeof(*scratch));
        for (size_t i = 0; i < group->n_rules; i++)
                n += policy_ranges_of(compiler->policy, rule_index(compiler, group->rules[i]),
                                      scratch + n);
        n = policy_ranges_reduce(scratch, n, ret_ranges);
        if (n > POLICY_ENTRY_RANGES) {
                compiler->refused = find_refused(compiler, group);
                return POLICY_E_TOO_COMPLEX;
        }
        *ret_n = (uint8_t)n;
        return 0;
}

static int add_entry(struct compiler *compiler, struct policy_index_builder *builder,
                     struct group *group)
{
        struct policy_table *table = compiler->table;
        struct policy_entry *entry = &table->entries[table->n_entries];
        uint32_t enclosing;
        int r;

        entry->prefix = group->rules[0]->prefix;
        enclosing = policy_index_enclosing(builder, &entry->prefix);
        if (enclosing != POLICY_INDEX_NONE) {
                group->outer = table->entries[enclosing].ranges;
                group->n_outer = table->entries[enclosing].n_ranges;
        }
        r = merge(compiler, group, entry->ranges, &entry->n_ranges);
        if (r)
                return r;
        policy_index_add(builder, &entry->prefix, (uint32_t)table->n_entries++);
        return 0;
}

static int compile_prefixes(struct compiler *compiler)
{
        struct policy_table *table = compiler->table;
        struct policy_index_builder builder;
        struct group group;
        int r = policy_index_begin(&builder, &table->index, compiler->n_rules);

        if (r)
                return error_fold(r);
        table->entries = calloc(compiler->n_rules + 1, sizeof(*table->entries));
        if (!table->entries)
                return error_origin(-ENOMEM);
        for (size_t first = 0; first < compiler->n_rules; first += group.n_rules) {
                group = next_group(compiler, first);
                r = add_entry(compiler, &builder, &group);
                if (r)
                        return r;
        }
        policy_index_end(&builder);
        return 0;
}

static int add_name(struct compiler *compiler, struct group *group)
{
        const struct policy_rule *rule = group->rules[0];
        struct policy_table *table = compiler->table;
        struct policy_name *name = &table->names[table->n_names];
        const struct policy_name *outer = policy_table_find_wildcard(table, rule->domain);
        int r;

        name->is_wildcard = rule->is_wildcard;
        name->length = (uint8_t)strlen(rule->domain);
        memcpy(name->domain, rule->domain, name->length + 1U);
        if (outer) {
                group->outer = outer->ranges;
                group->n_outer = outer->n_ranges;
        }
        r = merge(compiler, group, name->ranges, &name->n_ranges);
        if (r)
                return r;
        table->n_names++;
        return 0;
}

static int compile_names(struct compiler *compiler)
{
        struct policy_table *table = compiler->table;
        struct group group;

        table->names = calloc(compiler->n_rules + 1, sizeof(*table->names));
        if (!table->names)
                return error_origin(-ENOMEM);
        for (size_t first = 0; first < compiler->n_rules; first += group.n_rules) {
                int r;

                group = next_group(compiler, first);
                r = add_name(compiler, &group);
                if (r)
                        return r;
        }
        return 0;
}

static int compile(const struct policy *policy, struct policy_table *table, bool is_domain,
                   size_t *ret_rule)
{
        _cleanup_(compiler_deinit) struct compiler compiler = { .table = table };
        int r = compiler_init(&compiler, policy, is_domain);

        if (r)
                return error_fold(r);
        r = is_domain ? compile_names(&compiler) : compile_prefixes(&compiler);
        if (r == POLICY_E_TOO_COMPLEX)
                *ret_rule = compiler.refused;
        return r;
}

int policy_compile(const struct policy *policy, struct policy_table *ret_table, size_t *ret_rule)
{
        _cleanup_(policy_table_deinit) struct policy_table table = {
                .default_action = policy->default_action,
                .record_types = policy->record_types,
        };
        int r = compile(policy, &table, false, ret_rule);

        if (r == 0)
                r = compile(policy, &table, true, ret_rule);
        if (r)
                return r < 0 ? error_fold(r) : r;
        *ret_table = table;
        table = (struct policy_table){ 0 };
        return 0;
}
