#include "test/lib/scratch.h"

#include <errno.h>
#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "runtime/base/macros.h"
#include "test/lib/janitor.h"

enum { OPEN_FOLDERS = 8 };

/* What this process has made. */
static struct scratch {
        char path[128];
        struct janitor janitor;
} scratches[8];

static _Noreturn void fail(const char *what, const char *path)
{
        (void)fprintf(stderr, "scratch: %s: %s: %s\n", what, path, strerror(errno));
        abort();
}

static int remove_entry(const char *path, const struct stat *status, int type, struct FTW *walk)
{
        (void)status;
        (void)type;
        (void)walk;
        return remove(path);
}

int scratch_remove_tree(const char *path)
{
        return nftw(path, remove_entry, OPEN_FOLDERS, FTW_DEPTH | FTW_MOUNT | FTW_PHYS) < 0 ? -errno
                                                                                            : 0;
}

static void remove_left(const void *data)
{
        (void)scratch_remove_tree(data);
}

/* The one of that path; an empty path finds a free place. */
static struct scratch *find(const char *path)
{
        for (size_t i = 0; i < ARRAY_SIZE(scratches); i++)
                if (strcmp(scratches[i].path, path) == 0)
                        return &scratches[i];
        errno = ENOENT;
        fail("no such folder", path);
}

void scratch_make(char *path)
{
        struct scratch *scratch = find("");

        if (strlen(path) >= sizeof(scratch->path) || !mkdtemp(path))
                fail("cannot make", path);
        (void)strcpy(scratch->path, path);
        janitor_hire(&scratch->janitor, remove_left, scratch->path);
}

void scratch_remove(const char *path)
{
        struct scratch *scratch = find(path);
        int r = scratch_remove_tree(path);

        if (r && r != -ENOENT)
                fail("cannot remove", path);
        janitor_dismiss(&scratch->janitor);
        scratch->path[0] = '\0';
}
