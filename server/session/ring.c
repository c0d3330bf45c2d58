/*
 * The data pages are mapped twice, one after the other: what wraps around is contiguous all the
 * same, so readers get one pointer for each record. The memfd is sparse: an execution that says
 * little costs three pages.
 *
 * What a killed process leaves is whole: the state in the header has two slots, the one that is not
 * current is written, then one store makes it current. Bytes of a pipe that were taken but not
 * recorded are counted by the descriptor's own offset, which splice(2) moves before it returns and
 * which outlives the process with the descriptor.
 */
#include "server/session/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

/* Evicted records whose totals are remembered: every one at first, then every second, fourth … A
 * kill while they are thinned may blur what a gap counts. */
struct ring_mark {
        int64_t sequence;
        struct ring_totals totals;
};

struct ring_state {
        uint64_t head; /* position after the newest record */
        uint64_t tail; /* position of the oldest record */
        int64_t first_sequence;
        int64_t next_sequence;
        struct ring_totals totals; /* of all records so far */
        uint64_t n_evicted;
        uint64_t mark_stride;
        uint64_t n_marks; /* RING_MARKS of them follow the header */
        uint64_t tag;
        int64_t tag_sequence;      /* of the record with that tag */
        struct ring_entry filling; /* the record that bytes are taken for; kind zero: none */
};

/* First pages of the memfd. */
struct ring_header {
        uint64_t magic;
        uint64_t capacity;
        _Atomic uint64_t current; /* slot */
        struct ring_state slots[2];
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
        struct ring_state state; /* what the current slot says, too */
        uint64_t capacity;
        struct ring_header *header; /* none in a compact ring */
        struct ring_mark *marks;    /* likewise */
        uint8_t *data;
        uint64_t high_water;
        /* Compact: the data is on the heap and begins at the position @base. */
        bool is_compact;
        uint64_t base;
};

enum {
        PAGE = 4096,
        ALIGNMENT = 8,
        COMPACT_MAX = 256 << 10, /* bytes worth a copy */
        HEADER_SIZE =
                (sizeof(struct ring_header) + RING_MARKS * sizeof(struct ring_mark) + PAGE - 1) /
                PAGE * PAGE,
};
static const uint64_t RING_MAGIC = 0x33676e6972636868; /* "hhcring3" */

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
        return (void *)(ring->data + position % ring->capacity);
}

/* What is in the state becomes what a successor finds. */
static void publish(struct ring *ring)
{
        uint64_t next;

        if (ring->is_compact)
                return;
        next = 1 - atomic_load_explicit(&ring->header->current, memory_order_relaxed);

        ring->header->slots[next] = ring->state;
        atomic_store_explicit(&ring->header->current, next, memory_order_release);
}

/* Maps the data pages twice into one reserved range. */
static int map_data(struct ring *ring)
{
        const int protection = PROT_READ | PROT_WRITE;
        size_t capacity = ring->capacity;
        uint8_t *range;

        range = mmap(NULL, capacity * 2, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (range == MAP_FAILED)
                return error_origin(-errno);

        for (size_t i = 0; i < 2; i++) {
                if (mmap(range + i * capacity, capacity, protection, MAP_SHARED | MAP_FIXED,
                         ring->fd, HEADER_SIZE) == MAP_FAILED) {
                        int r = -errno;

                        (void)munmap(range, capacity * 2);
                        return error_origin(r);
                }
        }
        ring->data = range;
        return 0;
}

static int map_header(struct ring *ring)
{
        void *header = mmap(NULL, HEADER_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, ring->fd, 0);

        if (header == MAP_FAILED)
                return error_origin(-errno);
        ring->header = header;
        ring->marks = (struct ring_mark *)(ring->header + 1);
        return 0;
}

void ring_clear(struct ring *ring)
{
        ring->state = (struct ring_state){
                .first_sequence = 1,
                .next_sequence = 1,
                .mark_stride = 1,
        };
        ring->high_water = 0;
        publish(ring);
}

int ring_new(size_t capacity, struct ring **ret_ring)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        int r;

        ring = calloc(1, sizeof(*ring));
        if (!ring)
                return error_origin(-ENOMEM);
        ring->capacity = round_up(MAX(capacity, (size_t)RING_CAPACITY_MIN), PAGE);

        ring->fd = memfd_create("hotcell-ring", MFD_CLOEXEC);
        if (ring->fd < 0)
                return error_origin(-errno);
        if (ftruncate(ring->fd, (off_t)(HEADER_SIZE + ring->capacity)))
                return error_origin(-errno);
        r = map_header(ring);
        if (!r)
                r = map_data(ring);
        if (r)
                return error_fold(r);
        assert(ring->header);
        ring->header->magic = RING_MAGIC;
        ring->header->capacity = ring->capacity;
        ring_clear(ring);

        *ret_ring = take(ring);
        return 0;
}

static int64_t commit(struct ring *ring, const struct ring_entry *entry, size_t n_payload);

/* Every record from the oldest to the newest is one. */
static bool is_sound(const struct ring *ring)
{
        const struct ring_state *state = &ring->state;
        int64_t sequence = state->first_sequence;
        uint64_t position = state->tail;

        if (state->head < state->tail || state->head - state->tail > ring->capacity ||
            state->n_marks > RING_MARKS || state->mark_stride == 0)
                return false;
        while (position < state->head) {
                const struct record_header *record = record_at(ring, position);

                if (record->sequence != sequence || record->n_payload > RING_RECORD_MAX ||
                    record->size != record_size(record->n_payload) ||
                    record->size > state->head - position)
                        return false;
                position += record->size;
                sequence++;
        }
        return sequence == state->next_sequence;
}

/* Offset in the memfd of the payload of the next record. */
static off_t next_payload(const struct ring *ring)
{
        return (off_t)(HEADER_SIZE +
                       (ring->state.head + sizeof(struct record_header)) % ring->capacity);
}

/* Bytes that were taken from a pipe when the end came. */
static int record_what_was_taken(struct ring *ring)
{
        struct ring_entry entry = ring->state.filling;
        off_t start = next_payload(ring);
        off_t end = lseek(ring->fd, 0, SEEK_CUR);

        if (entry.kind == 0)
                return 0;
        ring->state.filling = (struct ring_entry){ 0 };
        if (end < start || record_size((size_t)(end - start)) >
                                   ring->capacity - (ring->state.head - ring->state.tail))
                return RING_E_BAD;
        if (end > start)
                (void)commit(ring, &entry, (size_t)(end - start));
        else
                publish(ring);
        return 0;
}

static int check_header(struct ring *ring)
{
        assert(ring->header);

        uint64_t current = atomic_load_explicit(&ring->header->current, memory_order_acquire);
        struct stat status;

        ring->capacity = ring->header->capacity;
        if (ring->header->magic != RING_MAGIC || current > 1 || fstat(ring->fd, &status) ||
            ring->capacity < RING_CAPACITY_MIN || ring->capacity % PAGE != 0 ||
            (uint64_t)status.st_size != HEADER_SIZE + ring->capacity)
                return RING_E_BAD;
        ring->state = ring->header->slots[current];
        ring->high_water = ring->state.head;
        return 0;
}

int ring_open(int fd, struct ring **ret_ring)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        struct stat status;
        int r;

        ring = calloc(1, sizeof(*ring));
        if (!ring) {
                (void)close(fd);
                return error_origin(-ENOMEM);
        }
        ring->fd = fd;
        if (fstat(fd, &status) || status.st_size < HEADER_SIZE)
                return RING_E_BAD;
        r = map_header(ring);
        if (!r)
                r = check_header(ring);
        if (!r)
                r = map_data(ring);
        if (!r && !is_sound(ring))
                r = RING_E_BAD;
        if (!r)
                r = record_what_was_taken(ring);
        if (r)
                return r;

        *ret_ring = take(ring);
        return 0;
}

int ring_fd(const struct ring *ring)
{
        assert(!ring->is_compact);

        return ring->fd;
}

void ring_copy(const struct ring *from, struct ring *to)
{
        assert(!from->is_compact && !to->is_compact && from->capacity == to->capacity);
        assert(from->state.n_evicted == 0);

        ring_clear(to); /* whose records are overwritten now */
        /* The records first: nobody may find a state without them. */
        memcpy(record_at(to, from->state.tail), record_at(from, from->state.tail),
               from->state.head - from->state.tail);
        to->state = from->state;
        to->high_water = from->state.head;
        publish(to);
}

static void unmap(struct ring *ring)
{
        if (ring->data)
                (void)munmap(ring->data, ring->capacity * 2);
        if (ring->header)
                (void)munmap(ring->header, HEADER_SIZE);
}

struct ring *ring_free(struct ring *ring)
{
        if (!ring)
                return NULL;

        if (ring->is_compact)
                free(ring->data);
        else
                unmap(ring);
        (void)close_fd(ring->fd);
        free(ring);
        return NULL;
}

/* A ring of the same mappings, as if it were new. */
static struct ring *make_spare(const struct ring *ring)
{
        struct ring *spare = malloc(sizeof(*spare));

        if (!spare)
                return NULL;
        *spare = *ring;
        ring_clear(spare);
        return spare;
}

/* Moves what is kept to the heap. Without memory for it nothing changes. */
static void compact(struct ring *ring, struct ring **ret_spare)
{
        size_t n_data = ring->state.head - ring->state.tail;
        uint8_t *data = malloc(n_data + 1);

        if (!data)
                return;
        memcpy(data, record_at(ring, ring->state.tail), n_data);
        if (ring->high_water <= COMPACT_MAX)
                *ret_spare = make_spare(ring);
        if (!*ret_spare) {
                unmap(ring);
                (void)close_fd(ring->fd);
        }
        ring->fd = -1;
        ring->header = NULL;
        ring->marks = NULL;
        ring->data = data;
        ring->base = ring->state.tail;
        ring->is_compact = true;
}

void ring_freeze(struct ring *ring, struct ring **ret_spare)
{
        assert(!ring->is_compact);

        *ret_spare = NULL;
        if (ring->state.head - ring->state.tail <= COMPACT_MAX && ring->state.n_marks == 0)
                compact(ring, ret_spare);
        ring->fd = close_fd(ring->fd);
}

/* Before the records; marks are left out. */
struct dump_header {
        uint64_t magic;
        struct ring_state state;
};

size_t ring_dump_size(const struct ring *ring)
{
        return sizeof(struct dump_header) + (ring->state.head - ring->state.tail);
}

void ring_dump(const struct ring *ring, uint8_t *ret_bytes)
{
        struct dump_header header = { .magic = RING_MAGIC, .state = ring->state };

        header.state.n_marks = 0;
        memcpy(ret_bytes, &header, sizeof(header));
        memcpy(ret_bytes + sizeof(header), record_at(ring, ring->state.tail),
               ring->state.head - ring->state.tail);
}

int ring_load(const void *bytes, size_t n_bytes, const struct ring_entry *last,
              struct ring **ret_ring)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        struct dump_header header;
        size_t n_data = n_bytes - sizeof(header);

        if (n_bytes < sizeof(header))
                return RING_E_BAD;
        memcpy(&header, bytes, sizeof(header));
        ring = calloc(1, sizeof(*ring));
        if (!ring)
                return error_origin(-ENOMEM);
        ring->fd = -1;
        ring->is_compact = true;
        ring->state = header.state;
        ring->base = header.state.tail;
        ring->capacity = n_data;
        ring->data = malloc(n_data + sizeof(struct record_header));
        if (!ring->data)
                return error_origin(-ENOMEM);
        memcpy(ring->data, (const uint8_t *)bytes + sizeof(header), n_data);
        if (header.magic != RING_MAGIC || header.state.n_marks != 0 ||
            header.state.head - header.state.tail != n_data || !is_sound(ring))
                return RING_E_BAD;
        ring->capacity += sizeof(struct record_header);
        (void)commit(ring, last, 0);
        *ret_ring = take(ring);
        return 0;
}

size_t ring_memory(const struct ring *ring)
{
        size_t data = round_up(MIN(ring->high_water, ring->capacity), PAGE);
        size_t marks = round_up(ring->state.n_marks * sizeof(struct ring_mark), PAGE);

        if (ring->is_compact)
                return ring->state.head - ring->base;
        return PAGE + marks + data;
}

static bool has_room_for(const struct ring *ring, size_t size)
{
        return ring->capacity - (ring->state.head - ring->state.tail) >= size;
}

bool ring_has_room(const struct ring *ring, size_t n_payload)
{
        assert(!ring->is_compact);

        return has_room_for(ring, record_size(n_payload));
}

static void thin_marks(struct ring *ring)
{
        ring->state.n_marks /= 2;
        for (uint64_t i = 0; i < ring->state.n_marks; i++)
                ring->marks[i] = ring->marks[i * 2 + 1];
        ring->state.mark_stride *= 2;
}

static void evict_oldest(struct ring *ring)
{
        struct ring_state *state = &ring->state;
        const struct record_header *record = record_at(ring, state->tail);
        struct ring_totals totals = record->before;

        if (record->stream == RING_STREAM_STDOUT)
                totals.stdout_bytes += record->n_payload;
        if (record->stream == RING_STREAM_STDERR)
                totals.stderr_bytes += record->n_payload;

        state->n_evicted++;
        if (state->n_marks == RING_MARKS)
                thin_marks(ring);
        if (state->n_evicted % state->mark_stride == 0)
                ring->marks[state->n_marks++] =
                        (struct ring_mark){ .sequence = record->sequence, .totals = totals };
        state->first_sequence = record->sequence + 1;
        state->tail += record->size;
}

size_t ring_capacity(const struct ring *ring)
{
        return ring->capacity;
}

bool ring_make_room(struct ring *ring, size_t n_payload, int64_t floor, uint64_t kept)
{
        size_t size = record_size(n_payload);
        uint64_t tail = ring->state.tail;
        bool has_room = true;

        while (has_room && !has_room_for(ring, size)) {
                if (ring->state.tail == ring->state.head || ring->state.tail >= kept ||
                    ring->state.first_sequence >= floor)
                        has_room = false;
                else
                        evict_oldest(ring);
        }
        /* Before anything is written where they were. */
        if (ring->state.tail != tail)
                publish(ring);
        return has_room;
}

static int64_t commit(struct ring *ring, const struct ring_entry *entry, size_t n_payload)
{
        struct ring_state *state = &ring->state;
        size_t size = record_size(n_payload);

        assert(size <= RING_RECORD_MAX && has_room_for(ring, size));

        *record_at(ring, state->head) = (struct record_header){
                .size = (uint32_t)size,
                .n_payload = (uint32_t)n_payload,
                .sequence = state->next_sequence,
                .time_usec = entry->time_usec,
                .before = state->totals,
                .kind = entry->kind,
                .stream = entry->stream,
        };
        if (entry->stream == RING_STREAM_STDOUT)
                state->totals.stdout_bytes += (int64_t)n_payload;
        if (entry->stream == RING_STREAM_STDERR)
                state->totals.stderr_bytes += (int64_t)n_payload;
        state->head += size;
        if (entry->tag > state->tag) {
                state->tag = entry->tag;
                state->tag_sequence = state->next_sequence;
        }
        state->next_sequence++;
        ring->high_water = MAX(ring->high_water, state->head);
        publish(ring);
        return state->next_sequence - 1;
}

int64_t ring_append(struct ring *ring, const struct ring_entry *entry,
                    const struct ring_piece *pieces, size_t n_pieces)
{
        uint8_t *payload = (uint8_t *)(record_at(ring, ring->state.head) + 1);
        size_t n_payload = 0;

        for (size_t i = 0; i < n_pieces; i++)
                n_payload += pieces[i].n;
        assert(ring_has_room(ring, n_payload));

        for (size_t i = 0; i < n_pieces; i++) {
                if (pieces[i].n > 0)
                        memcpy(payload, pieces[i].data, pieces[i].n);
                payload += pieces[i].n;
        }
        return commit(ring, entry, n_payload);
}

int ring_fill(struct ring *ring, const struct ring_entry *entry, int fd, size_t limit,
              size_t *ret_n)
{
        off_t start = next_payload(ring);
        ssize_t n;
        int r = 0;

        assert(ring_has_room(ring, limit) && entry->kind != 0);

        /* The offset is in the file, which does not go on where the pages are mapped again. */
        limit = MIN(limit, (size_t)(HEADER_SIZE + (off_t)ring->capacity - start));
        if (lseek(ring->fd, start, SEEK_SET) < 0)
                return error_origin(-errno);
        ring->state.filling = *entry;
        publish(ring);

        do
                n = splice(fd, NULL, ring->fd, NULL, limit, SPLICE_F_NONBLOCK);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                r = -errno;

        ring->state.filling = (struct ring_entry){ 0 };
        if (n > 0)
                (void)commit(ring, entry, (size_t)n);
        else
                publish(ring);
        *ret_n = n > 0 ? (size_t)n : 0;
        return r;
}

uint64_t ring_tag(const struct ring *ring)
{
        return ring->state.tag;
}

int64_t ring_tag_sequence(const struct ring *ring)
{
        return ring->state.tag_sequence;
}

int64_t ring_first_sequence(const struct ring *ring)
{
        return ring->state.first_sequence;
}

int64_t ring_next_sequence(const struct ring *ring)
{
        return ring->state.next_sequence;
}

uint64_t ring_seek(const struct ring *ring, int64_t after_sequence)
{
        uint64_t position = ring->state.tail;

        while (position < ring->state.head) {
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

        assert(*position >= ring->state.tail && *position <= ring->state.head);
        if (*position == ring->state.head)
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
        uint64_t low = 0;
        uint64_t high = ring->state.n_marks;

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
        return ring->state.totals;
}
