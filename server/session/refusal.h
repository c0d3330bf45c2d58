/* What is said to whoever may not have more of what all share: whose limit it is, how much of it is
 * used, what to do, and whether it helps to ask again. */
#pragma once

#include "server/session/session_private.h"
#include "server/session/shares.h"

/* What an owner asks for. */
struct wish {
        enum session_share share;
        int64_t more;
        int64_t whole; /* with what it is to replace */
};

/* For @owner, who may not have what it wishes; @reason: SHARES_E_. Logs and counts it. */
struct session_result refuse_share(struct session *session, const char *owner,
                                   const struct wish *wish, int reason);

/* How long what holds it lasts at least, by experience. */
int64_t share_retry_usec(enum session_share share);

/* One line for each, but not for each of a thousand in a second. */
void log_refusal(struct session *session, const char *owner, const char *limit);
