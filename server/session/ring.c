/*
 * The data pages are mapped twice, one after the other: what wraps around is contiguous all the
 * same, so read(2) writes straight into the ring and readers get one pointer for each record.
 * The memfd is sparse: an execution that says little costs three pages.
 */
#include "server/session/ring.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

/* Evicted records whose totals are remembered: every one at first, then every second, fourth … */
struct ring_mark {
        int64_t sequence;
        struct ring_totals totals;
};

/* First pages of the memfd. */
struct ring_header {
        uint64_t magic;
        uint64_t capacity;
        uint64_t head; /* position after the newest record */
        uint64_t tail; /* position of the oldest record */
        int64_t first_sequence;
        int64_t next_sequence;
        struct ring_totals totals; /* of all records so far */
        uint64_t n_evicted;
        uint64_t mark_stride;
        uint64_t n_marks; /* RING_MARKS of them follow */
};

/* Before each payload in the data pages. */
struct record_header {
        uint32_t size; /* with header and padding */
        uint32_t n_payload;
        int64_t sequence;
        int64_t time_usec;
        struct ring_totals before;
        uint16_t kind;
        uint16_t stream;
        uint32_t zero;
};
static_assert(sizeof(struct record_header) == RING_RECORD_HEADER, "as promised");

struct ring {
        int fd;
        struct ring_header *header;
        struct ring_mark *marks; /* none in a compact ring */
        uint8_t *data;
        size_t n_header; /* bytes mapped */
        uint64_t high_water;
        /* Compact: header and data are on the heap, data begins at the position @base. */
        bool is_compact;
        uint64_t base;
};

enum {
        PAGE = 4096,
        ALIGNMENT = 8,
        COMPACT_MAX = 256 << 10, /* bytes worth a copy */
};
static const uint64_t RING_MAGIC = 0x31676e6972636868; /* "hhcring1" */

static size_t round_up(size_t n, size_t unit)
{
        return (n + unit - 1) / unit * unit;
}

static size_t record_size(size_t n_payload)
{
        return sizeof(struct record_header) + round_up(n_payload, ALIGNMENT);
}

static struct record_header *record_at(const struct ring *ring, uint64_t position)
{
        if (ring->is_compact)
                return (void *)(ring->data + (position - ring->base));
        return (void *)(ring->data + position % ring->header->capacity);
}

/* Maps the data pages twice into one reserved range. */
static int map_data(struct ring *ring, size_t capacity)
{
        const int protection = PROT_READ | PROT_WRITE;
        uint8_t *range;

        range = mmap(NULL, capacity * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (range == MAP_FAILED)
                return error_origin(-errno);

        for (size_t i = 0; i < 2; i++) {
                if (mmap(range + i * capacity, capacity, protection, MAP_SHARED | MAP_FIXED,
                         ring->fd, (off_t)ring->n_header) == MAP_FAILED) {
                        int r = -errno;

                        (void)munmap(range, capacity * 2);
                        return error_origin(r);
                }
        }
        ring->data = range;
        return 0;
}

static void reset(struct ring *ring, uint64_t capacity)
{
        *ring->header = (struct ring_header){
                .magic = RING_MAGIC,
                .capacity = capacity,
                .first_sequence = 1,
                .next_sequence = 1,
                .mark_stride = 1,
        };
}

int ring_new(size_t capacity, struct ring **ret_ring)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        void *header;
        int r;

        ring = calloc(1, sizeof(*ring));
        if (!ring)
                return error_origin(-ENOMEM);
        capacity = round_up(MAX(capacity, (size_t)RING_CAPACITY_MIN), PAGE);
        ring->n_header =
                round_up(sizeof(struct ring_header) + RING_MARKS * sizeof(struct ring_mark), PAGE);

        ring->fd = memfd_create("hotcell-ring", MFD_CLOEXEC);
        if (ring->fd < 0)
                return error_origin(-errno);
        if (ftruncate(ring->fd, (off_t)(ring->n_header + capacity)))
                return error_origin(-errno);
        header = mmap(NULL, ring->n_header, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);
        if (header == MAP_FAILED)
                return error_origin(-errno);
        ring->header = header;
        ring->marks = (struct ring_mark *)(ring->header + 1);

        reset(ring, capacity);
        r = map_data(ring, capacity);
        if (r)
                return error_fold(r);

        *ret_ring = take(ring);
        return 0;
}

static void unmap(struct ring *ring)
{
        if (ring->data)
                (void)munmap(ring->data, ring->header->capacity * 2);
        if (ring->header)
                (void)munmap(ring->header, ring->n_header);
}

struct ring *ring_free(struct ring *ring)
{
        if (!ring)
                return NULL;

        if (ring->is_compact) {
                free(ring->data);
                free(ring->header);
        } else
                unmap(ring);
        (void)close_fd(ring->fd);
        free(ring);
        return NULL;
}

/* A ring of the same mappings, as if it were new. Its pages keep bytes that no record covers. */
static struct ring *make_spare(const struct ring *ring)
{
        struct ring *spare = malloc(sizeof(*spare));

        if (!spare)
                return NULL;
        *spare = *ring;
        spare->high_water = 0;
        reset(spare, ring->header->capacity);
        return spare;
}

/* Moves what is kept to the heap. Without memory for it nothing changes. */
static void compact(struct ring *ring, struct ring **spare)
{
        size_t n_data = ring->header->head - ring->header->tail;
        struct ring_header *header = malloc(sizeof(*header));
        uint8_t *data = malloc(n_data + 1);

        if (!header || !data) {
                free(header);
                free(data);
                return;
        }
        memcpy(header, ring->header, sizeof(*header));
        memcpy(data, record_at(ring, ring->header->tail), n_data);
        if (!*spare && ring->high_water <= COMPACT_MAX)
                *spare = make_spare(ring);
        if (*spare && (*spare)->data == ring->data)
                ring->fd = -1; /* the spare's */
        else
                unmap(ring);
        ring->header = header;
        ring->marks = NULL;
        ring->data = data;
        ring->base = header->tail;
        ring->is_compact = true;
}

void ring_freeze(struct ring *ring, struct ring **spare)
{
        if (ring->header->head - ring->header->tail <= COMPACT_MAX && ring->header->n_marks == 0)
                compact(ring, spare);
        ring->fd = close_fd(ring->fd);
}

size_t ring_memory(const struct ring *ring)
{
        size_t data = round_up(MIN(ring->high_water, ring->header->capacity), PAGE);
        size_t marks = round_up(ring->header->n_marks * sizeof(struct ring_mark), PAGE);

        if (ring->is_compact)
                return sizeof(struct ring_header) + (ring->header->head - ring->base);
        return PAGE + marks + data;
}

static bool has_room_for(const struct ring *ring, size_t size)
{
        return ring->header->capacity - (ring->header->head - ring->header->tail) >= size;
}

bool ring_has_room(const struct ring *ring, size_t n_payload)
{
        assert(!ring->is_compact);

        return has_room_for(ring, record_size(n_payload));
}

static void thin_marks(struct ring *ring)
{
        ring->header->n_marks /= 2;
        for (uint64_t i = 0; i < ring->header->n_marks; i++)
                ring->marks[i] = ring->marks[i * 2 + 1];
        ring->header->mark_stride *= 2;
}

static void evict_oldest(struct ring *ring)
{
        struct ring_header *header = ring->header;
        const struct record_header *record = record_at(ring, header->tail);
        struct ring_totals totals = record->before;

        if (record->stream == RING_STREAM_STDOUT)
                totals.stdout_bytes += record->n_payload;
        if (record->stream == RING_STREAM_STDERR)
                totals.stderr_bytes += record->n_payload;

        header->n_evicted++;
        if (header->n_marks == RING_MARKS)
                thin_marks(ring);
        if (header->n_evicted % header->mark_stride == 0)
                ring->marks[header->n_marks++] =
                        (struct ring_mark){ .sequence = record->sequence, .totals = totals };
        header->first_sequence = record->sequence + 1;
        header->tail += record->size;
}

bool ring_make_room(struct ring *ring, size_t n_payload, int64_t floor)
{
        size_t size = record_size(n_payload);

        while (!has_room_for(ring, size)) {
                if (ring->header->tail == ring->header->head ||
                    ring->header->first_sequence >= floor)
                        return false;
                evict_oldest(ring);
        }
        return true;
}

uint8_t *ring_reserve(struct ring *ring, size_t n_payload)
{
        assert(ring_has_room(ring, n_payload));

        return (uint8_t *)(record_at(ring, ring->header->head) + 1);
}

int64_t ring_commit(struct ring *ring, const struct ring_entry *entry, size_t n_payload)
{
        struct ring_header *header = ring->header;
        size_t size = record_size(n_payload);

        assert(size <= RING_RECORD_MAX && has_room_for(ring, size));

        *record_at(ring, header->head) = (struct record_header){
                .size = (uint32_t)size,
                .n_payload = (uint32_t)n_payload,
                .sequence = header->next_sequence,
                .time_usec = entry->time_usec,
                .before = header->totals,
                .kind = entry->kind,
                .stream = entry->stream,
        };
        if (entry->stream == RING_STREAM_STDOUT)
                header->totals.stdout_bytes += (int64_t)n_payload;
        if (entry->stream == RING_STREAM_STDERR)
                header->totals.stderr_bytes += (int64_t)n_payload;
        header->head += size;
        ring->high_water = MAX(ring->high_water, header->head);
        return header->next_sequence++;
}

int64_t ring_append(struct ring *ring, const struct ring_entry *entry,
                    const struct ring_piece *pieces, size_t n_pieces)
{
        uint8_t *payload;
        size_t n_payload = 0;

        for (size_t i = 0; i < n_pieces; i++)
                n_payload += pieces[i].n;
        payload = ring_reserve(ring, n_payload);
        for (size_t i = 0; i < n_pieces; i++) {
                if (pieces[i].n > 0)
                        memcpy(payload, pieces[i].data, pieces[i].n);
                payload += pieces[i].n;
        }
        return ring_commit(ring, entry, n_payload);
}

int64_t ring_first_sequence(const struct ring *ring)
{
        return ring->header->first_sequence;
}

int64_t ring_next_sequence(const struct ring *ring)
{
        return ring->header->next_sequence;
}

uint64_t ring_seek(const struct ring *ring, int64_t after_sequence)
{
        uint64_t position = ring->header->tail;

        while (position < ring->header->head) {
                const struct record_header *record = record_at(ring, position);

                if (record->sequence > after_sequence)
                        break;
                position += record->size;
        }
        return position;
}

bool ring_read(const struct ring *ring, uint64_t *position, struct ring_record *ret_record)
{
        const struct record_header *record;

        assert(*position >= ring->header->tail && *position <= ring->header->head);
        if (*position == ring->header->head)
                return false;

        record = record_at(ring, *position);
        *ret_record = (struct ring_record){
                .sequence = record->sequence,
                .time_usec = record->time_usec,
                .kind = record->kind,
                .stream = record->stream,
                .before = record->before,
                .payload = (const uint8_t *)(record + 1),
                .n_payload = record->n_payload,
        };
        *position += record->size;
        return true;
}

struct ring_totals ring_totals_at(const struct ring *ring, int64_t sequence)
{
        const struct ring_header *header = ring->header;
        uint64_t low = 0;
        uint64_t high = header->n_marks;

        while (low < high) {
                uint64_t middle = low + (high - low) / 2;

                if (ring->marks[middle].sequence <= sequence)
                        low = middle + 1;
                else
                        high = middle;
        }
        return low > 0 ? ring->marks[low - 1].totals : (struct ring_totals){ 0 };
}

struct ring_totals ring_totals_now(const struct ring *ring)
{
        return ring->header->totals;
}
