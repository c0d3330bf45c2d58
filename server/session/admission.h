/* What depends on state is checked here, before anything is done. */
#pragma once

#include "server/session/session_private.h"

/* Outcome 0: a sandbox may be made. */
struct session_result admit_sandbox(struct session *session, const struct sandbox_request *request);

/* Outcome 0: the sandbox takes work now. */
struct session_result admit_work(const struct sandbox *sandbox);

/* The context to run in: the one named, or the default one of a language (made if need be). */
struct session_result admit_context(struct sandbox *sandbox, const char *context_id,
                                    const char *language, struct context **ret_context);
