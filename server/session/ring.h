/*
 * The bounded event log of one execution: records with a sequence and a time, the oldest of which
 * may be evicted. It lives in a memfd of its own (header and data): whoever holds the descriptor
 * finds everything up to the last record in it, whenever the process that wrote it was killed.
 *
 * A position is a count of bytes since the ring was made; it stays good until its record is
 * evicted. Records are contiguous in memory.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/cleanup.h"

struct ring;

enum {
        RING_CAPACITY_MIN = 1 << 20, /* bytes: twice the largest record and more */
        RING_RECORD_MAX = 448 << 10, /* bytes of one record with its header */
        RING_RECORD_HEADER = 48,     /* bytes that a record takes besides its payload */
        RING_STREAM_NONE = 0,
        RING_STREAM_STDOUT = 1,
        RING_STREAM_STDERR = 2,
};

/* What came before something: for offsets and for counting what is gone. */
struct ring_totals {
        int64_t stdout_bytes;
        int64_t stderr_bytes;
};

struct ring_record {
        int64_t sequence;
        int64_t time_usec;
        uint16_t kind;
        uint16_t stream;
        struct ring_totals before; /* bytes in the records before this one */
        const uint8_t *payload;
        size_t n_payload;
};

/* What a new record says; its payload comes apart. */
struct ring_entry {
        uint16_t kind;
        uint16_t stream; /* whose totals the payload counts in */
        int64_t time_usec;
        uint64_t tag; /* what it was made from, rising; zero: nothing that could come again */
};

struct ring_piece {
        const void *data;
        size_t n;
};

/* @capacity is rounded up to whole pages and to RING_CAPACITY_MIN. */
int ring_new(size_t capacity, struct ring **ret_ring);
struct ring *ring_free(struct ring *ring);

enum {
        RING_E_BAD = 1, /* the descriptor is no ring that can be read */
};

/*
 * The ring that another process wrote, as it was when that process ended: what ring_fill had taken
 * but not recorded is recorded now. Takes the descriptor, also when it fails.
 */
int ring_open(int fd, struct ring **ret_ring);

/* Of a ring that is not frozen; stays the ring's. */
int ring_fd(const struct ring *ring);

/* Makes @to, of the same capacity and whatever it held, what @from is; positions stay good. Nothing
 * may be in @from that was evicted. */
void ring_copy(const struct ring *from, struct ring *to);

/* Empty again, as if it were new. Its pages keep bytes that no record covers. */
void ring_clear(struct ring *ring);

/*
 * Nothing will be appended any more: gives the descriptor back, and, when little is in it, the
 * mappings, which are scarcer than memory. Positions stay good. *@ret_spare (NULL when there is
 * none) becomes an empty ring made of what was given back: a new one costs some 100 us.
 */
void ring_freeze(struct ring *ring, struct ring **ret_spare);

/* All records as bytes that ring_load understands, also in another process or later. */
size_t ring_dump_size(const struct ring *ring);
void ring_dump(const struct ring *ring, uint8_t *ret_bytes);

/* A frozen ring of what was dumped, and of one more record without payload. 0, RING_E_BAD, -ENOMEM.
 */
int ring_load(const void *bytes, size_t n_bytes, const struct ring_entry *last,
              struct ring **ret_ring);

/* Bytes of memory that it has touched. */
size_t ring_memory(const struct ring *ring);

/* A record of @n_payload bytes fits without evicting anything. */
bool ring_has_room(const struct ring *ring, size_t n_payload);

/* Evicts records with a sequence below @floor that begin before the position @kept, oldest first,
 * until @n_payload bytes fit. False when they do not even then. */
bool ring_make_room(struct ring *ring, size_t n_payload, int64_t floor, uint64_t kept);

size_t ring_capacity(const struct ring *ring);

/* Appends one record; there must be room. Returns its sequence. */
int64_t ring_append(struct ring *ring, const struct ring_entry *entry,
                    const struct ring_piece *pieces, size_t n_pieces);

/*
 * Moves up to @limit bytes from the pipe @fd into one new record; there must be room for as many.
 * *@ret_n: how many, zero at the end of file. The kernel counts them in the descriptor itself, so
 * that a kill at any moment loses none. Negative: -EAGAIN and others of splice(2).
 */
int ring_fill(struct ring *ring, const struct ring_entry *entry, int fd, size_t limit,
              size_t *ret_n);

/* Highest tag of a record so far, the evicted ones included. */
uint64_t ring_tag(const struct ring *ring);

/* Sequence of the record with that tag. */
int64_t ring_tag_sequence(const struct ring *ring);

/* Sequence of the oldest record kept and of the next to come; equal when it is empty. */
int64_t ring_first_sequence(const struct ring *ring);
int64_t ring_next_sequence(const struct ring *ring);

/* Position of the first record kept with a sequence after @after_sequence. */
uint64_t ring_seek(const struct ring *ring, int64_t after_sequence);

/* Reads the record at *@position and moves it on. False at the end. */
bool ring_read(const struct ring *ring, uint64_t *position, struct ring_record *ret_record);

/*
 * Totals up to and including the evicted record @sequence. Exact for the first RING_MARKS evicted
 * records, later to the nearest mark before it.
 */
enum { RING_MARKS = 1024 };
struct ring_totals ring_totals_at(const struct ring *ring, int64_t sequence);

/* Totals of all records so far. */
struct ring_totals ring_totals_now(const struct ring *ring);

DEFINE_CLEANUP(struct ring, ring_free)
