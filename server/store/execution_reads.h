/* Reading rows of executions. Worker thread. */
#pragma once

#include <stddef.h>

#include <sqlite3.h>

#include "server/store/records.h"

struct executions {
        struct execution_record *items; /* owned */
        size_t n;
};

/* Appends all that the statement finds. */
int executions_read(sqlite3_stmt *statement, struct executions *executions);
