/* What the owner of an API key may have at once: the one list of it, which all others follow. */
#pragma once

#include <stdbool.h>

#include "hotcell/v1/key_service.pb-c.h"
#include "server/session/session.h"
#include "server/store/records.h"

struct api_call;
struct arena;

/* How much of it the owner may have; zero: no quota is about it. */
int64_t key_quota_of_share(const struct key_quotas *quotas, enum session_share share);

/* NULL: no quotas. Blames call->request's `quotas`. */
struct key_quotas check_quotas(struct api_call *call, const Hotcell__V1__KeyQuotas *quotas);

/* BIT(enum key_quota) of a path of an update_mask, such as `quotas.sandboxes`; blames others. */
unsigned check_quota_path(struct api_call *call, const char *path);

Hotcell__V1__KeyQuotas *convert_quotas(struct arena *arena, const struct key_quotas *quotas);

/* How much of each the owner has now. */
Hotcell__V1__KeyQuotas *convert_used_quotas(struct arena *arena, const struct session *session,
                                            const char *owner);
