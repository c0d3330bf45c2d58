/* What the sandbox of an execution used, beside the execution itself. */
#pragma once

#include <stdbool.h>

struct client;

/*
 * Says it, if the server can be asked; of one that ends (@is_one_shot) it is the whole bill, which
 * is waited for, but not long.
 */
void sandbox_usage_say(struct client *client, const char *sandbox_id, bool is_one_shot);
