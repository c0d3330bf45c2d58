/* From the options of every command (--target, --api-key-file) and the environment to a client. */
#pragma once

struct client;
struct option_group;

/* The options, for options_set_global(). */
const struct option_group *connect_options(void);

/* Exit code when it cannot be made, which was said; else 0. */
int connect_open(struct client **ret_client);
