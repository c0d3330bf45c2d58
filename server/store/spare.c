#include "server/store/spare.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"

static const char spare_name[] = "hotcell.spare";

int spare_make(struct spare *spare, int directory_fd)
{
        int r;

        if (spare->bytes == 0 || spare->is_there)
                return 0;
        if (spare->fd < 0)
                spare->fd = openat(directory_fd, spare_name,
                                   O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
        if (spare->fd < 0)
                return error_origin(-errno);
        r = posix_fallocate(spare->fd, 0, spare->bytes);
        if (r) {
                (void)!ftruncate(spare->fd, 0); /* part of it would only take others' room */
                return -r;                      /* common while the disk is full: no trace */
        }
        spare->is_there = true;
        spare->is_given = false;
        return 0;
}

bool spare_give(struct spare *spare)
{
        if (!spare->is_there || ftruncate(spare->fd, 0) < 0)
                return false;
        spare->is_there = false;
        spare->is_given = true;
        return true;
}

/* The file stays: its room is taken again at the next start, before anybody else takes it. */
void spare_close(struct spare *spare)
{
        spare->fd = close_fd(spare->fd);
}
