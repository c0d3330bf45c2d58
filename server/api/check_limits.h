/* Limits of a sandbox, as a request asks for them. */
#pragma once

#include <stdbool.h>

#include "hotcell/v1/sandbox.pb-c.h"
#include "server/api/call.h"
#include "server/session/session.h"

/* All of them; what is unset gets this server's default. @limits may be NULL. */
bool check_sandbox_limits(struct api_call *call, const char *prefix,
                          const Hotcell__V1__SandboxLimits *limits,
                          struct sandbox_limits *ret_limits);

/* The lowest that a sandbox can have; of those that sandboxes have. */
int64_t limit_least(enum sandbox_limit limit);

/* For the path of an update mask, such as `limits.memory_bytes`, or `limits`: all. False: it is
 * none of limits. What is wrong with the value is blamed on the call. */
bool check_limits_path(struct api_call *call, const char *path,
                       const Hotcell__V1__SandboxLimits *limits, struct sandbox_update *update);
