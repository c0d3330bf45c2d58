/* From what the user wrote to a whole id: asks the server only when it is not one already. */
#pragma once

#include <stdbool.h>

struct client;

/* Each returns 0 and the id, which the caller frees, or the exit code after saying why not. */
int resolve_sandbox(struct client *client, const char *text, bool also_ended, char **ret_id);
int resolve_context(struct client *client, const char *sandbox_id, const char *text, char **ret_id);
int resolve_execution(struct client *client, const char *text, char **ret_id);
int resolve_key(struct client *client, const char *text, char **ret_id);

/* Whose things a key makes. `uid:…` and whole ids of keys are taken as they are. */
int resolve_owner(struct client *client, const char *text, char **ret_owner);
