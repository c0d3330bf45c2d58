#include "server/session/refusal.h"

#include <inttypes.h>
#include <stdio.h>

#include "runtime/base/macros.h"

enum { NUMBER_SIZE = 32, ADVICE_SIZE = 160 };

enum unit {
        UNIT_ONE,
        UNIT_BYTES,
        UNIT_MILLIS,
};

static const struct {
        const char *name;
        const char *what; /* as in `your quota of …` */
        enum unit unit;
        int outcome;
        int64_t retry_usec;
        bool is_of_sandboxes; /* which hold it to their end */
        const char *advice;   /* what the owner can do */
        const char *flag;     /* of `hotcell key update`; NULL: keys have no quota of it */
} shares[] = {
        [SESSION_SHARE_SANDBOXES] = { "sandboxes", "sandboxes", UNIT_ONE, SESSION_E_SANDBOX_LIMIT,
                                      1000000, true, "Delete a sandbox", "--max-sandboxes" },
        [SESSION_SHARE_MEMORY] = { "memory_bytes", "memory", UNIT_BYTES, SESSION_E_MEMORY_LIMIT,
                                   1000000, true, "Delete a sandbox or lower its memory limit",
                                   "--max-memory" },
        [SESSION_SHARE_CPU] = { "cpu_millis", "CPUs", UNIT_MILLIS, SESSION_E_CPU_LIMIT, 1000000,
                                true, "Delete a sandbox or lower its CPU limit", "--max-cpus" },
        [SESSION_SHARE_CREATIONS] = { "creations", "sandboxes being made", UNIT_ONE,
                                      SESSION_E_CREATION_LIMIT, 200000, false,
                                      "Wait until one is made", NULL },
        [SESSION_SHARE_EXECUTIONS] = { "executions", "executions at a time", UNIT_ONE,
                                       SESSION_E_EXECUTION_LIMIT, 500000, false,
                                       "Wait until one has ended", "--max-executions" },
        [SESSION_SHARE_QUEUED] = { "queued_executions", "executions that wait", UNIT_ONE,
                                   SESSION_E_QUEUE_LIMIT, 500000, false, "Wait until one runs",
                                   NULL },
        [SESSION_SHARE_QUEUED_BYTES] = { "queued_code_bytes", "code that waits", UNIT_BYTES,
                                         SESSION_E_QUEUE_LIMIT, 500000, false,
                                         "Wait until some of it runs", NULL },
        [SESSION_SHARE_STREAMS] = { "streams", "open streams", UNIT_ONE, SESSION_E_STREAM_LIMIT,
                                    1000000, false, "Close one", NULL },
        [SESSION_SHARE_RINGS] = { "retained_output_bytes", "retained output", UNIT_BYTES, 0, 0,
                                  false, "", NULL },
        [SESSION_SHARE_EGRESS] = { "egress_rule_bytes", "memory for egress rules", UNIT_BYTES,
                                   SESSION_E_EGRESS_LIMIT, 1000000, true, "Take out egress rules",
                                   NULL },
        [SESSION_SHARE_EGRESS_RULES] = { "egress_rules", "egress rules", UNIT_ONE,
                                         SESSION_E_EGRESS_LIMIT, 1000000, true,
                                         "Take out egress rules", NULL },
};
static_assert(ARRAY_SIZE(shares) == _SESSION_SHARE_N, "every share has a row");

const char *session_share_name(enum session_share share)
{
        return shares[share].name;
}

int64_t share_retry_usec(enum session_share share)
{
        return shares[share].retry_usec;
}

void log_refusal(struct session *session, const char *owner, const char *limit)
{
        struct share_owner *holder = shares_find(&session->shares, owner);

        session->n_refusals++;
        log_info_of(holder ? &holder->log : &session->refusals_log,
                    "a request was refused at a limit owner=%s limit=%s refusals=%" PRIu64, owner,
                    limit, session->n_refusals);
}

static const char *show(enum session_share share, int64_t amount, char ret_text[NUMBER_SIZE])
{
        const int64_t mib = 1 << 20;

        if (shares[share].unit == UNIT_MILLIS)
                (void)snprintf(ret_text, NUMBER_SIZE, "%.6g", (double)amount / 1000);
        else if (shares[share].unit == UNIT_BYTES && amount % mib == 0)
                (void)snprintf(ret_text, NUMBER_SIZE, "%" PRId64 " MiB", amount / mib);
        else
                (void)snprintf(ret_text, NUMBER_SIZE, "%" PRId64 "%s", amount,
                               shares[share].unit == UNIT_BYTES ? " bytes" : "");
        return ret_text;
}

/* Behind which limit it is, and how much that allows. */
static int64_t find_limit(const struct shares *all, const char *owner, enum session_share share,
                          int reason, const char **ret_whose)
{
        if (reason == SHARES_E_QUOTA) {
                *ret_whose = "Your quota";
                return shares_quota_of(all, owner, share);
        }
        if (reason == SHARES_E_OWNER_MAX) {
                *ret_whose = "Each owner's quota";
                return all->rules.owner_max[share];
        }
        if (reason == SHARES_E_OWNER) {
                *ret_whose = "Your present part";
                return shares_limit_of(all, owner, share);
        }
        *ret_whose = "The server's total";
        return all->rules.total[share];
}

/* Named as the API does; the command line calls them as its flags. */
static const char *less_of(enum session_share share)
{
        if (share == SESSION_SHARE_MEMORY)
                return "Ask for less (limits.memory_bytes)";
        if (share == SESSION_SHARE_CPU)
                return "Ask for less (limits.cpu_millis)";
        return "Ask for less";
}

/* What to do instead of asking for the same again. */
static void advise(const char *owner, enum session_share share, int reason, bool is_hopeless,
                   char ret_advice[ADVICE_SIZE])
{
        const char *first = is_hopeless                ? less_of(share)
                            : reason == SHARES_E_TOTAL ? "Try again when others have less"
                                                       : shares[share].advice;

        if (reason == SHARES_E_QUOTA && shares[share].flag)
                (void)snprintf(ret_advice, ADVICE_SIZE,
                               "%s, or ask the operator for: hotcell key update %s N %s", first,
                               shares[share].flag, owner);
        else
                (void)snprintf(ret_advice, ADVICE_SIZE, "%s.", first);
}

/* However little others have, and all that it has besides is given back. */
static bool is_hopeless(const struct session *session, const char *owner, const struct wish *wish)
{
        return wish->whole > shares_limit_alone(&session->shares, owner, wish->share);
}

static struct session_result explain_hopeless(const struct session *session, const char *owner,
                                              const struct wish *wish, const char *advice)
{
        enum session_share share = wish->share;
        char most[NUMBER_SIZE], asked[NUMBER_SIZE];

        return result_of(shares[share].outcome, "Of %s you may have %s at most: %s asked for. %s",
                         shares[share].what,
                         show(share, shares_limit_alone(&session->shares, owner, share), most),
                         show(share, wish->whole, asked), advice);
}

static struct session_result explain(const struct session *session, const char *owner,
                                     const struct wish *wish, int reason)
{
        const struct shares *all = &session->shares;
        enum session_share share = wish->share;
        int64_t held = reason == SHARES_E_TOTAL ? all->used[share]
                                                : session_share_used(session, owner, share);
        char most[NUMBER_SIZE], used[NUMBER_SIZE], asked[NUMBER_SIZE], advice[ADVICE_SIZE];
        const char *whose;
        int64_t limit = find_limit(all, owner, share, reason, &whose);

        advise(owner, share, reason, is_hopeless(session, owner, wish), advice);
        if (is_hopeless(session, owner, wish))
                return explain_hopeless(session, owner, wish, advice);
        return result_of(shares[share].outcome, "%s of %s is %s: %s used, %s more asked for. %s",
                         whose, shares[share].what, show(share, limit, most),
                         show(share, held, used), show(share, wish->more, asked), advice);
}

/* Whether sandboxes that end hold any of it, of the owner's or of all. */
static bool is_held_by_ending(const struct session *session, const char *owner,
                              enum session_share share, int reason)
{
        const struct share_owner *holder = shares_find(&session->shares, owner);
        size_t n_owners = holder ? holder->n_ending : 0;
        size_t n_ending = reason == SHARES_E_TOTAL ? session->shares.n_ending : n_owners;

        return shares[share].is_of_sandboxes && n_ending > 0 && !session->is_leaving;
}

struct session_result refuse_share(struct session *session, const char *owner,
                                   const struct wish *wish, int reason)
{
        const bool is_vain = is_hopeless(session, owner, wish);
        enum session_share share = wish->share;
        struct session_result result = explain(session, owner, wish, reason);

        if (reason != SHARES_E_TOTAL)
                (void)snprintf(result.quota, sizeof(result.quota), "%s", owner);
        result.limit = shares[share].name;
        result.retry_usec = is_vain ? SESSION_RETRY_NEVER : shares[share].retry_usec;
        result.may_pass = !is_vain && is_held_by_ending(session, owner, share, reason);
        if (!result.may_pass)
                log_refusal(session, owner, shares[share].name);
        return result;
}
