/* What SQLite's result codes mean to us. */
#pragma once

#include <stdbool.h>

#include <sqlite3.h>

/* The negative errno of the failed call's result @code. */
int sqlite_error(sqlite3 *connection, int code);

/* @error tells of the disk or the file, not of the one statement. */
bool sqlite_error_is_io(int error);
