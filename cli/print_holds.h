/* What an owner has of what is bounded, and may have: `1 of 2 sandboxes, 128.0 MiB of 1.0 GiB
 * memory`. */
#pragma once

#include "hotcell/v1/key_service.pb-c.h"
#include "hotcell/v1/server_service.pb-c.h"

/* Of a key's owner: what it has none of, and no quota, is left out. The caller frees it. */
char *show_holds(const Hotcell__V1__Key *key);

/* Of whoever asked. */
char *show_own_holds(const Hotcell__V1__GetServerInfoResponse *info);
