/* The check of an egress policy, and its packed form for the session. */
#pragma once

#include <stdbool.h>

#include "hotcell/v1/egress.pb-c.h"

struct api_call;

enum {
        /* Of the packed rules. What answers need around them keeps below the 4 MiB that clients of
         * gRPC take unless told otherwise. */
        EGRESS_BYTES_MAX = 15 << 18,
        /* Labels of names that are not ASCII, or in their xn-- form: to convert one there and back
         * takes some 10 us, in which the loop serves nobody else. */
        EGRESS_CONVERTED_MAX = 1000,
};

/*
 * Checks @policy (NULL: the default one, that nothing may leave) and sets call->egress. False: what
 * is wrong was blamed with paths below @path, at most as many as a status has room for; or there is
 * no memory, and then the call's arena has failed.
 */
bool check_egress(struct api_call *call, const char *path, const Hotcell__V1__EgressPolicy *policy);
