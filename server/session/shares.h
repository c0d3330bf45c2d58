/*
 * What all owners share, how much of it each holds, and whether one may have more.
 *
 * Operators may have all that is free. An API key's owner may hold a part of the total while nobody
 * else holds any, and less as others do: with a part of one half, what it holds may grow up to what
 * is still free, so one owner gets a half, the next a quarter, two that take in turns a third each,
 * and something is always left for the next. A reserve is for operators alone.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/queue.h>

#include "runtime/base/log.h"
#include "runtime/base/token_bucket.h"
#include "server/session/map.h"
#include "server/session/session.h"

struct execution;

/* Outcomes of shares_check. */
enum {
        SHARES_E_TOTAL = 1, /* there is not that much left of the total */
        SHARES_E_OWNER,     /* the owner has its part of it, which depends on what others have */
        SHARES_E_OWNER_MAX, /* it has what the server lets any owner have */
        SHARES_E_QUOTA,     /* it has all of its own quota */
};

/* One who holds something, or somebody's wish to. */
struct share_owner {
        struct map_node by_name;
        struct shares *shares;
        char name[OWNER_BUFFER];
        bool is_operator;
        unsigned n_holds;
        size_t n_ending; /* sandboxes that end and still hold what they had */
        int64_t used[_SESSION_SHARE_N];
        struct token_bucket updates;
        int64_t rules_on_way; /* of egress policies that updates are about, until these end */
        struct log_quota log; /* lines about what is its */
        TAILQ_HEAD(, execution) retained; /* ended ones that can be replayed, oldest first */
};

struct shares {
        struct session_share_rules rules;
        struct map owners;
        int64_t used[_SESSION_SHARE_N];
        int64_t used_by_operators[_SESSION_SHARE_N];
        size_t n_ending;
};

void shares_init(struct shares *shares, const struct session_share_rules *rules);

/* Each is released once; the last release forgets the owner. NULL: no memory. */
struct share_owner *shares_hold(struct shares *shares, const char *name);
struct share_owner *share_owner_release(struct share_owner *owner);

/* NULL: it holds nothing. */
struct share_owner *shares_find(const struct shares *shares, const char *name);

/* Peers of the unix socket without a key. */
bool owner_is_operator(const char *name);

/* Whether @name may have @amount more: 0 or SHARES_E_. */
int shares_check(const struct shares *shares, const char *name, enum session_share share,
                 int64_t amount);

/* Takes what was checked, or gives it back when @amount is negative. */
void share_owner_take(struct share_owner *owner, enum session_share share, int64_t amount);

/* One more of its sandboxes ends, or (-1) is gone with what it held. */
void share_owner_count_ending(struct share_owner *owner, int change);

/* How much @name may hold as things are. */
int64_t shares_limit_of(const struct shares *shares, const char *name, enum session_share share);

/* The same while nobody holds any: to ask for more is hopeless. */
int64_t shares_limit_alone(const struct shares *shares, const char *name, enum session_share share);

/* The owner's own; zero: it has none. */
int64_t shares_quota_of(const struct shares *shares, const char *name, enum session_share share);

/* The owner that holds most of it; NULL: nobody holds any. */
struct share_owner *shares_largest(const struct shares *shares, enum session_share share);
