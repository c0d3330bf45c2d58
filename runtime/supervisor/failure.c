#include "runtime/supervisor/failure.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

struct failure *failure_set(struct failure *failure, Hotcell__Runtime__V1__FailureReason reason,
                            int error, const char *format, ...)
{
        va_list arguments;

        failure->reason = reason;
        failure->error_number = abs(error);
        va_start(arguments, format);
        (void)vsnprintf(failure->message, sizeof(failure->message), format, arguments);
        va_end(arguments);
        return failure;
}

Hotcell__Runtime__V1__FailureReason failure_reason_of(int error)
{
        switch (abs(error)) {
        case EADDRNOTAVAIL: /* all of direct mode's are in use */
        case EMFILE:
        case ENFILE:
        case ENOMEM:
                return FAILURE(EXHAUSTED);
        default:
                return FAILURE(SYSTEM);
        }
}
