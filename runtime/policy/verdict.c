#include "runtime/policy/verdict.h"

#include "runtime/policy/prefix.h"

/* The strongest of the ranges that were found so far; NULL: none. */
struct opinion {
        const struct policy_range *denied;
        const struct policy_range *allowed;
};

static void consider(struct opinion *opinion, const struct policy_range *range)
{
        if (range && range->action == POLICY_DENY)
                opinion->denied = range;
        else if (range)
                opinion->allowed = range;
}

static void consider_address(struct opinion *opinion, const struct policy_table *table,
                             const struct policy_flow *flow)
{
        const struct policy_entry *entry = policy_table_find(table, flow->address);
        const struct policy_range *range;
        struct policy_address embedded;

        if (entry)
                consider(opinion, policy_ranges_find(entry->ranges, entry->n_ranges, flow->protocol,
                                                     flow->port));
        if (!policy_embedded_v4(flow->address, &embedded))
                return;
        entry = policy_table_find(table, &embedded);
        if (!entry)
                return;
        range = policy_ranges_find(entry->ranges, entry->n_ranges, flow->protocol, flow->port);
        if (range && range->action == POLICY_DENY)
                consider(opinion, range);
}

static void consider_name(struct opinion *opinion, const struct policy_table *table,
                          const struct policy_flow *flow)
{
        const struct policy_name *name = policy_table_find_name(table, flow->name);

        if (name)
                consider(opinion, policy_ranges_find(name->ranges, name->n_ranges, flow->protocol,
                                                     flow->port));
}

/* The default lets through TCP alone: what is not carried by way of the relay takes a rule. */
static struct policy_ruling settle(const struct policy_table *table, const struct opinion *opinion,
                                   enum policy_protocol protocol)
{
        if (opinion->denied)
                return (struct policy_ruling){ .verdict = POLICY_VERDICT_DENIED_RULE,
                                               .rule = opinion->denied->rule };
        if (opinion->allowed)
                return (struct policy_ruling){ .verdict = POLICY_VERDICT_ALLOWED_RULE,
                                               .rule = opinion->allowed->rule };
        return (struct policy_ruling){
                .verdict = table->default_action == POLICY_DEFAULT_ALLOW_PUBLIC &&
                                           protocol == POLICY_TCP
                                   ? POLICY_VERDICT_ALLOWED_DEFAULT
                                   : POLICY_VERDICT_DENIED_DEFAULT,
        };
}

struct policy_ruling policy_judge(const struct policy_view *view, const struct policy_flow *flow)
{
        struct policy_ruling ruling;
        struct opinion opinion = { 0 };

        if (flow->address) {
                const struct policy_always_entry *always =
                        policy_always_find(view->always, flow->address);

                if (always)
                        return (struct policy_ruling){ .verdict = POLICY_VERDICT_DENIED_ALWAYS,
                                                       .always = always };
                consider_address(&opinion, view->table, flow);
        }
        if (flow->name)
                consider_name(&opinion, view->table, flow);
        ruling = settle(view->table, &opinion, flow->protocol);
        if (ruling.verdict == POLICY_VERDICT_ALLOWED_DEFAULT && flow->address &&
            !policy_always_is_public(view->always, flow->address))
                ruling.verdict = POLICY_VERDICT_DENIED_DEFAULT;
        return ruling;
}

/* When every port but 0 is denied: the range that denies the last of them. */
static const struct policy_range *find_full_denial(const struct policy_name *name)
{
        uint32_t port = 1;

        for (size_t i = 0; i < name->n_ranges && name->ranges[i].action == POLICY_DENY; i++) {
                if (name->ranges[i].low > port)
                        return NULL;
                port = name->ranges[i].high + 1U;
                if (port > UINT16_MAX)
                        return &name->ranges[i];
        }
        return NULL;
}

struct policy_ruling policy_judge_query(const struct policy_view *view, const char *name)
{
        const struct policy_name *found = policy_table_find_name(view->table, name);
        struct opinion opinion = { 0 };

        if (found) {
                opinion.denied = find_full_denial(found);
                /* Ranges that allow only what is denied are not in an entry. */
                for (size_t i = 0; i < found->n_ranges && !opinion.allowed; i++) {
                        if (found->ranges[i].action == POLICY_ALLOW)
                                opinion.allowed = &found->ranges[i];
                }
        }
        return settle(view->table, &opinion, POLICY_TCP);
}

bool policy_verdict_allows(enum policy_verdict verdict)
{
        return verdict == POLICY_VERDICT_ALLOWED_RULE || verdict == POLICY_VERDICT_ALLOWED_DEFAULT;
}
