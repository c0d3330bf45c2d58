/* Why a request failed, as it is told to hotcelld. */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>

struct failure {
        Hotcell__Runtime__V1__FailureReason reason;
        char message[256];
        int error_number; /* positive errno, or zero */
};

/* Fills @failure and returns it. @error: a negative or positive errno, or zero. */
__attribute__((format(printf, 4, 5))) struct failure *
failure_set(struct failure *failure, Hotcell__Runtime__V1__FailureReason reason, int error,
            const char *format, ...);

/* What an errno of the host comes to: EXHAUSTED for a want that may pass, else SYSTEM. */
Hotcell__Runtime__V1__FailureReason failure_reason_of(int error);

#define FAILURE(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name
