#include "server/store/sqlite_error.h"

#include <errno.h>

/* A full disk does not always come as SQLITE_FULL: growing the WAL index fails as an I/O error. */
static int io_error(sqlite3 *connection)
{
        int system_error = sqlite3_system_errno(connection);

        switch (system_error) {
        case ENOSPC:
        case EDQUOT:
        case EROFS:
                return -system_error;
        default:
                return -EIO;
        }
}

int sqlite_error(sqlite3 *connection, int code)
{
        switch (code & 0xff) {
        case SQLITE_FULL:
                return -ENOSPC;
        case SQLITE_READONLY:
                return -EROFS;
        case SQLITE_NOMEM:
                return -ENOMEM;
        case SQLITE_BUSY:
        case SQLITE_LOCKED:
                return -EBUSY;
        case SQLITE_CORRUPT:
        case SQLITE_NOTADB:
                return -EUCLEAN;
        case SQLITE_CONSTRAINT:
        case SQLITE_MISMATCH:
        case SQLITE_RANGE:
        case SQLITE_TOOBIG:
                return -EINVAL;
        default:
                return io_error(connection);
        }
}

bool sqlite_error_is_io(int error)
{
        switch (-error) {
        case EIO:
        case ENOSPC:
        case EDQUOT:
        case EROFS:
        case EUCLEAN:
        case EBUSY:
                return true;
        default:
                return false;
        }
}
