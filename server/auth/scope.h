/* What a caller may do: one scope for each method, any set of them for a key. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

/* The numbers of a key's scopes are stored, as bits: never change one. */
enum scope {
        SCOPE_SANDBOXES_READ = 0,
        SCOPE_SANDBOXES_WRITE = 1,
        SCOPE_EXECUTIONS_READ = 2, /* contexts, too */
        SCOPE_EXECUTIONS_WRITE = 3,
        SCOPE_SERVER_READ = 4,
        SCOPE_USAGE_READ = 5,
        _SCOPE_KEY_N,
        /* No key has it. So a key that leaks makes no others, and no key reaches beyond its owner.
         */
        SCOPE_OPERATOR = _SCOPE_KEY_N,
};

/* For people. */
#define SCOPE_NAMES                                                                                \
        "sandboxes:read, sandboxes:write, executions:read, executions:write, server:read and usage:read"

/* All that a key can have. */
enum { SCOPES_OF_KEYS = (1 << _SCOPE_KEY_N) - 1 };

/* Such as `sandboxes:read`; @scope is a key's. */
const char *scope_name(enum scope scope);

/* False when no key's scope has that name. */
bool scope_of_name(const char *name, enum scope *ret_scope);
