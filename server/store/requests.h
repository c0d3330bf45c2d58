/* How the files of the store remember a request in the transaction of its change. */
#pragma once

#include "server/store/database.h"

struct store;

/* The request that a change was asked by, as part of the change's job. */
struct asked_by {
        bool is_set; /* false: by none that wants to be remembered */
        struct request_record record;
        int64_t time_usec;
        int64_t requests_max; /* of its owner; zero: no bound */
};

/* Loop thread. @request may be NULL. */
void asked_by_set(struct asked_by *asked_by, const struct store *store,
                  const struct request_record *request);

/* Worker thread, inside the transaction of the change. */
int asked_by_remember(const struct asked_by *asked_by, struct database *database);
