#include "runtime/base/error.h"

#include <errno.h>
#include <string.h>

#include "runtime/base/log.h"

int error_trace_origin(int error, const char *file, int line, const char *function)
{
        log_debug("error=%s at=%s:%d function=%s", strerrorname_np(-error), file, line, function);
        return error;
}

int error_trace_fold(int error, const char *file, int line, const char *function)
{
        /* An outcome that a caller does not handle is our own mistake, not the user's. */
        int folded = error > 0 ? -ENOTRECOVERABLE : error;

        log_debug("error=%d passes=%s:%d function=%s", error, file, line, function);
        return folded;
}
