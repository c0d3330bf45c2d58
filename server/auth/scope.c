#include "server/auth/scope.h"

#include <stddef.h>
#include <string.h>

#include "runtime/base/macros.h"

static const char *const names[] = {
        [SCOPE_SANDBOXES_READ] = "sandboxes:read",   [SCOPE_SANDBOXES_WRITE] = "sandboxes:write",
        [SCOPE_EXECUTIONS_READ] = "executions:read", [SCOPE_EXECUTIONS_WRITE] = "executions:write",
        [SCOPE_SERVER_READ] = "server:read",         [SCOPE_USAGE_READ] = "usage:read",
};
static_assert(ARRAY_SIZE(names) == _SCOPE_KEY_N, "every scope of keys has a name");

const char *scope_name(enum scope scope)
{
        assert(scope < _SCOPE_KEY_N);
        return names[scope];
}

bool scope_of_name(const char *name, enum scope *ret_scope)
{
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                if (strcmp(names[i], name) != 0)
                        continue;
                *ret_scope = (enum scope)i;
                return true;
        }
        return false;
}
