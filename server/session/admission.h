/* What depends on state is checked here, before anything is done. */
#pragma once

#include "server/session/session_private.h"

/* Outcome 0: a sandbox may be made. */
struct session_result admit_sandbox(struct session *session, const struct sandbox_request *request);

/* Outcome 0: no other of its owner's has the name. */
struct session_result admit_name(struct session *session, const struct sandbox_request *request);

/* Outcome 0: the sandbox takes work now. */
struct session_result admit_work(const struct sandbox *sandbox);

/* The context to run in: the one named, or the default one of a language (made if need be). */
struct session_result admit_context(struct sandbox *sandbox, const char *context_id,
                                    const char *language, struct context **ret_context);

/* The same, when it exists; else NULL. */
struct context *find_context(struct sandbox *sandbox, const char *context_id, const char *language);

/* Outcome 0: @owner may have @amount more. */
struct session_result admit_share(struct session *session, const char *owner,
                                  enum session_share share, int64_t amount);

/* Of what a sandbox shares with all others, there is enough for one more. */
struct session_result admit_room(struct session *session, const struct sandbox_request *request);

/* It can be held to, and kept instead of @present; NULL is the default policy. */
struct session_result admit_egress(struct session *session, const char *owner,
                                   const struct egress *egress, const struct egress *present);

/* Its owner has that instead of @present. */
void take_egress_shares(struct share_owner *holder, const struct egress *egress,
                        const struct egress *present);

/* Policies that have so many rules as the new one has may be on their way for its owner, too. */
struct session_result admit_rules_on_way(const struct sandbox *sandbox,
                                         const struct egress *egress);

/* Now these are of the sandbox's; zero: it has none on their way any more. */
void sandbox_set_rules_on_way(struct sandbox *sandbox, int64_t n_rules);

/* Outcome 0: the owner may be charged with these limits of the sandbox. */
struct session_result admit_promise(const struct sandbox *sandbox,
                                    const struct sandbox_limits *limits);

/* It may be updated; counts. */
struct session_result admit_update(struct sandbox *sandbox);

/* An execution in a context that exists, and the first one of a context that is to be made. */
struct session_result admit_execution(struct context *context,
                                      const struct execute_request *request);
struct session_result admit_first_execution(struct session *session,
                                            const struct execute_request *request);
