/* The runtime is asked to start a kernel's process, and may refuse. */
#pragma once

#include "server/session/runtime_client.h"
#include "server/session/session.h"

struct context;

/* Asks for the process of @context in its present generation; @on_answer gets @context. A negative
 * errno or SESSION_E_*: it was not asked. */
int kernel_request_start(struct context *context, runtime_on_answer on_answer);

/* What a refusal, or the want of an answer (NULL), means for a client. */
struct session_result kernel_explain_refusal(const struct context *context,
                                             const Hotcell__Runtime__V1__FromRuntime *answer);
