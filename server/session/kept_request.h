/*
 * An execution's request in the form in which it is kept, in memory and in the database, until its
 * execution has ended: whoever holds it can run the code, or send it again.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"
#include "server/session/session.h"

#include "hotcell/server/v1/kept.pb-c.h"

struct kept_request {
        uint8_t *bytes; /* owned; NULL: none */
        size_t n;
};

/* -ENOMEM. */
int kept_request_make(const struct execute_request *request, struct kept_request *ret_kept);
int kept_request_copy(const void *bytes, size_t n, struct kept_request *ret_kept);
void kept_request_drop(struct kept_request *kept);

/* NULL: there is no memory, or it is none. To be freed with kept_message_free. */
Hotcell__Server__V1__KeptRequest *kept_request_open(const struct kept_request *kept);
Hotcell__Server__V1__KeptRequest *kept_message_free(Hotcell__Server__V1__KeptRequest *message);

DEFINE_CLEANUP(Hotcell__Server__V1__KeptRequest, kept_message_free)
