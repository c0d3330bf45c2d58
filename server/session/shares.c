#include "server/session/shares.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"

void shares_init(struct shares *shares, const struct session_share_rules *rules)
{
        *shares = (struct shares){ .rules = *rules };
}

bool owner_is_operator(const char *name)
{
        return strncmp(name, "uid:", strlen("uid:")) == 0;
}

struct share_owner *shares_find(const struct shares *shares, const char *name)
{
        return MAP_ITEM(map_find(&shares->owners, name, strlen(name)), struct share_owner, by_name);
}

struct share_owner *shares_hold(struct shares *shares, const char *name)
{
        struct share_owner *owner = shares_find(shares, name);

        if (!owner) {
                owner = calloc(1, sizeof(*owner));
                if (!owner)
                        return NULL;
                owner->shares = shares;
                owner->is_operator = owner_is_operator(name);
                (void)snprintf(owner->name, sizeof(owner->name), "%s", name);
                TAILQ_INIT(&owner->retained);
                map_add(&shares->owners, &owner->by_name, owner->name, strlen(owner->name));
        }
        owner->n_holds++;
        return owner;
}

struct share_owner *share_owner_release(struct share_owner *owner)
{
        if (!owner || --owner->n_holds > 0)
                return NULL;
        for (size_t i = 0; i < _SESSION_SHARE_N; i++)
                assert(owner->used[i] == 0);
        map_remove(&owner->shares->owners, &owner->by_name);
        free(owner);
        return NULL;
}

static int64_t held_by(const struct shares *shares, const char *name, enum session_share share)
{
        const struct share_owner *owner = shares_find(shares, name);

        return owner ? owner->used[share] : 0;
}

/* What is free for keys: what operators hold counts against their reserve first. */
static int64_t free_for_keys(const struct shares *shares, enum session_share share)
{
        int64_t total = shares->rules.total[share];
        int64_t reserve = total / 100 * shares->rules.operator_percent +
                          total % 100 * shares->rules.operator_percent / 100;
        int64_t of_operators = shares->used_by_operators[share];
        int64_t of_keys = shares->used[share] - of_operators;

        return MAX(total - of_keys - MAX(of_operators, reserve), (int64_t)0);
}

int64_t shares_quota_of(const struct shares *shares, const char *name, enum session_share share)
{
        const struct session_share_rules *rules = &shares->rules;

        return rules->quota_of ? rules->quota_of(rules->userdata, name, share) : 0;
}

/* The lowest of what is said of the owner alone; zero: nothing is. */
static int64_t most_of(const struct shares *shares, const char *name, enum session_share share)
{
        int64_t most = shares->rules.owner_max[share];
        int64_t quota = shares_quota_of(shares, name, share);

        return quota > 0 && (most == 0 || quota < most) ? quota : most;
}

int shares_check(const struct shares *shares, const char *name, enum session_share share,
                 int64_t amount)
{
        const struct session_share_rules *rules = &shares->rules;
        int64_t held = held_by(shares, name, share);
        int64_t left = rules->total[share] - shares->used[share];
        double part = (double)rules->owner_percent;
        int64_t most;

        if (amount > left)
                return SHARES_E_TOTAL;
        if (owner_is_operator(name))
                return 0;
        most = most_of(shares, name, share);
        if (most > 0 && amount > most - held)
                return most == rules->owner_max[share] ? SHARES_E_OWNER_MAX : SHARES_E_QUOTA;
        left = free_for_keys(shares, share);
        if (amount > left)
                return held > 0 ? SHARES_E_OWNER : SHARES_E_TOTAL;
        /* The one more is what makes one owner of one thing possible. */
        left = left - amount + 1;
        if (((double)held + (double)amount) * (100 - part) > part * (double)left)
                return SHARES_E_OWNER;
        return 0;
}

int64_t shares_limit_of(const struct shares *shares, const char *name, enum session_share share)
{
        const struct session_share_rules *rules = &shares->rules;
        int64_t held = held_by(shares, name, share);
        int64_t left = free_for_keys(shares, share);
        double part = (double)rules->owner_percent / 100;
        int64_t limit, most;

        if (owner_is_operator(name))
                return rules->total[share] - (shares->used[share] - held);
        /* The highest that shares_check lets through. */
        limit = (int64_t)(part * ((double)left + (double)held + 1));
        limit = MIN(limit, held + left);
        most = most_of(shares, name, share);
        if (most > 0)
                limit = MIN(limit, most);
        return MAX(limit, held);
}

int64_t shares_limit_alone(const struct shares *shares, const char *name, enum session_share share)
{
        const struct shares empty = { .rules = shares->rules };

        return shares_limit_of(&empty, name, share);
}

void share_owner_take(struct share_owner *owner, enum session_share share, int64_t amount)
{
        struct shares *shares = owner->shares;

        assert(amount >= 0 || owner->used[share] >= -amount);
        owner->used[share] += amount;
        shares->used[share] += amount;
        if (owner->is_operator)
                shares->used_by_operators[share] += amount;
}

void share_owner_count_ending(struct share_owner *owner, int change)
{
        assert(change >= 0 || owner->n_ending > 0);
        owner->n_ending += (size_t)change;
        owner->shares->n_ending += (size_t)change;
}

struct share_owner *shares_largest(const struct shares *shares, enum session_share share)
{
        struct share_owner *largest = NULL;
        struct map_node *node;

        for (node = map_first(&shares->owners); node; node = map_next(node)) {
                struct share_owner *owner = CONTAINER_OF(node, struct share_owner, by_name);

                if (owner->used[share] > (largest ? largest->used[share] : 0))
                        largest = owner;
        }
        return largest;
}
