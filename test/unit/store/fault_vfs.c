/* Every file is the default system's, behind methods that count. Operations come from the worker
 * while the test waits, and from the test while there is no worker: hence the atomics. */
#include "test/unit/store/fault_vfs.h"

#include <sqlite3.h>
#include <stdatomic.h>
#include <string.h>

struct fault_file {
        sqlite3_file base;
        sqlite3_file *real; /* right behind */
};

static sqlite3_vfs *real_vfs;
static atomic_int armed, fired, n_left, n_syncs;

static sqlite3_file *real_of(sqlite3_file *file)
{
        return ((struct fault_file *)file)->real;
}

/* Counts one operation; SQLITE_OK or what it fails with. */
static int count(int io_error)
{
        if (atomic_load(&n_left) == 0 || atomic_fetch_sub(&n_left, 1) != 1)
                return SQLITE_OK;
        atomic_store(&fired, 1);
        return atomic_load(&armed) == FAULT_FULL ? SQLITE_FULL : io_error;
}

#define FORWARD(file, method, ...) real_of(file)->pMethods->method(real_of(file), ##__VA_ARGS__)

static int on_close(sqlite3_file *file)
{
        return FORWARD(file, xClose);
}

static int on_read(sqlite3_file *file, void *bytes, int n, sqlite3_int64 offset)
{
        return FORWARD(file, xRead, bytes, n, offset);
}

static int on_write(sqlite3_file *file, const void *bytes, int n, sqlite3_int64 offset)
{
        int r = count(SQLITE_IOERR_WRITE);

        return r ? r : FORWARD(file, xWrite, bytes, n, offset);
}

static int on_truncate(sqlite3_file *file, sqlite3_int64 size)
{
        int r = count(SQLITE_IOERR_TRUNCATE);

        return r ? r : FORWARD(file, xTruncate, size);
}

static int on_sync(sqlite3_file *file, int flags)
{
        int r = count(SQLITE_IOERR_FSYNC);

        (void)atomic_fetch_add(&n_syncs, 1);
        return r ? r : FORWARD(file, xSync, flags);
}

static int on_size(sqlite3_file *file, sqlite3_int64 *size)
{
        return FORWARD(file, xFileSize, size);
}

static int on_lock(sqlite3_file *file, int level)
{
        return FORWARD(file, xLock, level);
}

static int on_unlock(sqlite3_file *file, int level)
{
        return FORWARD(file, xUnlock, level);
}

static int on_check_lock(sqlite3_file *file, int *result)
{
        return FORWARD(file, xCheckReservedLock, result);
}

static int on_control(sqlite3_file *file, int operation, void *argument)
{
        return FORWARD(file, xFileControl, operation, argument);
}

static int on_sector_size(sqlite3_file *file)
{
        return FORWARD(file, xSectorSize);
}

static int on_characteristics(sqlite3_file *file)
{
        return FORWARD(file, xDeviceCharacteristics);
}

static int on_shm_map(sqlite3_file *file, int page, int size, int extend, void volatile **memory)
{
        int r = extend ? count(SQLITE_IOERR_SHMSIZE) : SQLITE_OK;

        return r ? r : FORWARD(file, xShmMap, page, size, extend, memory);
}

static int on_shm_lock(sqlite3_file *file, int offset, int n, int flags)
{
        return FORWARD(file, xShmLock, offset, n, flags);
}

static void on_shm_barrier(sqlite3_file *file)
{
        FORWARD(file, xShmBarrier);
}

static int on_shm_unmap(sqlite3_file *file, int delete)
{
        return FORWARD(file, xShmUnmap, delete);
}

static const sqlite3_io_methods methods = {
        .iVersion = 2,
        .xClose = on_close,
        .xRead = on_read,
        .xWrite = on_write,
        .xTruncate = on_truncate,
        .xSync = on_sync,
        .xFileSize = on_size,
        .xLock = on_lock,
        .xUnlock = on_unlock,
        .xCheckReservedLock = on_check_lock,
        .xFileControl = on_control,
        .xSectorSize = on_sector_size,
        .xDeviceCharacteristics = on_characteristics,
        .xShmMap = on_shm_map,
        .xShmLock = on_shm_lock,
        .xShmBarrier = on_shm_barrier,
        .xShmUnmap = on_shm_unmap,
};

static int on_open(sqlite3_vfs *vfs, const char *name, sqlite3_file *file, int flags,
                   int *ret_flags)
{
        struct fault_file *fault = (struct fault_file *)file;
        int r;

        (void)vfs;
        fault->real = (sqlite3_file *)(fault + 1);
        memset(fault->real, 0, (size_t)real_vfs->szOsFile);
        r = real_vfs->xOpen(real_vfs, name, fault->real, flags, ret_flags);
        fault->base.pMethods = r == SQLITE_OK ? &methods : NULL;
        return r;
}

void fault_vfs_install(void)
{
        static sqlite3_vfs vfs;

        real_vfs = sqlite3_vfs_find(NULL);
        vfs = *real_vfs;
        vfs.zName = "fault";
        vfs.szOsFile = (int)sizeof(struct fault_file) + real_vfs->szOsFile;
        vfs.xOpen = on_open;
        (void)sqlite3_vfs_register(&vfs, 1);
}

void fault_arm(enum fault fault, int nth)
{
        atomic_store(&armed, (int)fault);
        atomic_store(&fired, 0);
        atomic_store(&n_left, nth);
}

int fault_n_syncs(void)
{
        return atomic_load(&n_syncs);
}

int fault_has_fired(void)
{
        return atomic_load(&fired);
}
