/*
 * The pages are mapped twice, one after the other, so that a frame is in one piece wherever it
 * begins. One byte always stays free: a full inlet and an empty one would look alike.
 */
#include "server/session/inlet.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum {
        TOUCHED_MAX = 64 << 10, /* bytes whose pages an empty inlet keeps */
};

struct inlet {
        int fd;
        uint8_t *data;
        uint64_t consumed;
        uint64_t received;
        size_t n_touched; /* since its pages were given back */
};

static int map(struct inlet *inlet)
{
        uint8_t *range = mmap(NULL, 2 * (size_t)INLET_CAPACITY, PROT_NONE,
                              MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        if (range == MAP_FAILED)
                return error_origin(-errno);
        inlet->data = range; /* inlet_free unmaps all of it */
        for (size_t i = 0; i < 2; i++)
                if (mmap(range + i * INLET_CAPACITY, INLET_CAPACITY, PROT_READ | PROT_WRITE,
                         MAP_SHARED | MAP_FIXED, inlet->fd, 0) == MAP_FAILED)
                        return error_origin(-errno);
        return 0;
}

int inlet_new(struct inlet **ret_inlet)
{
        _cleanup_(inlet_freep) struct inlet *inlet = calloc(1, sizeof(*inlet));
        int r;

        if (!inlet)
                return error_origin(-ENOMEM);
        inlet->fd = memfd_create("hotcell-inlet", MFD_CLOEXEC);
        if (inlet->fd < 0 || ftruncate(inlet->fd, INLET_CAPACITY))
                return error_origin(-errno);
        r = map(inlet);
        if (r)
                return error_fold(r);
        *ret_inlet = take(inlet);
        return 0;
}

int inlet_open(int fd, uint64_t consumed, struct inlet **ret_inlet)
{
        _cleanup_(inlet_freep) struct inlet *inlet = calloc(1, sizeof(*inlet));
        struct stat status;
        off_t offset;
        int r;

        if (!inlet) {
                (void)close(fd);
                return error_origin(-ENOMEM);
        }
        inlet->fd = fd;
        offset = lseek(fd, 0, SEEK_CUR);
        if (offset < 0 || offset > INLET_CAPACITY || fstat(fd, &status) ||
            status.st_size != INLET_CAPACITY)
                return INLET_E_BAD;
        r = map(inlet);
        if (r)
                return error_fold(r);
        inlet->consumed = consumed;
        inlet->received =
                consumed +
                ((uint64_t)offset + INLET_CAPACITY - consumed % INLET_CAPACITY) % INLET_CAPACITY;
        inlet->n_touched = INLET_CAPACITY;
        *ret_inlet = take(inlet);
        return 0;
}

struct inlet *inlet_free(struct inlet *inlet)
{
        if (!inlet)
                return NULL;
        if (inlet->data)
                (void)munmap(inlet->data, 2 * (size_t)INLET_CAPACITY);
        (void)close_fd(inlet->fd);
        free(inlet);
        return NULL;
}

int inlet_fd(const struct inlet *inlet)
{
        return inlet->fd;
}

/* An empty inlet gives the pages of large frames back. */
static void drop_pages(struct inlet *inlet)
{
        if (inlet->received != inlet->consumed || inlet->n_touched < TOUCHED_MAX)
                return;
        (void)fallocate(inlet->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, INLET_CAPACITY);
        inlet->n_touched = 0;
}

int inlet_fill(struct inlet *inlet, int fd, size_t limit, size_t *ret_n)
{
        size_t start = inlet->received % INLET_CAPACITY;
        size_t room = INLET_CAPACITY - 1 - (size_t)(inlet->received - inlet->consumed);
        ssize_t n;

        *ret_n = 0;
        drop_pages(inlet);
        if (room == 0)
                return error_origin(-ENOBUFS);
        limit = MIN(MIN(limit, room), INLET_CAPACITY - start);
        /* Where the last one ended; the file's end is its beginning, too. */
        if (start == 0 && lseek(inlet->fd, 0, SEEK_SET) < 0)
                return error_origin(-errno);
        do
                n = splice(fd, NULL, inlet->fd, NULL, limit, SPLICE_F_NONBLOCK);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return -errno;
        inlet->received += (uint64_t)n;
        inlet->n_touched += (size_t)n;
        *ret_n = (size_t)n;
        return 0;
}

const uint8_t *inlet_bytes(const struct inlet *inlet, size_t *ret_n)
{
        *ret_n = (size_t)(inlet->received - inlet->consumed);
        return inlet->data + inlet->consumed % INLET_CAPACITY;
}

void inlet_consume(struct inlet *inlet, size_t n)
{
        assert(n <= inlet->received - inlet->consumed);

        inlet->consumed += n;
}
