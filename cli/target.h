/* Where the server is: checked before gRPC sees it, and explained when nobody answers there. */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#define TARGET_DEFAULT "unix:/run/hotcell/hotcell.sock"

enum {
        TARGET_E_BAD = 1,      /* neither a socket's path nor HOST:PORT */
        TARGET_E_NOT_LOOPBACK, /* plaintext to another machine */
};

/* `unix:/path`, `/path` or a loopback `HOST:PORT`, as gRPC names it. The caller frees. */
int target_parse(const char *text, char **ret_target);

/* Its socket is there: somebody listens on it, or did until it was killed. */
bool target_has_socket(const char *target);

/* One sentence why nobody answers at @target, and the next step. */
void target_explain(const char *target, FILE *out);
