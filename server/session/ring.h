/*
 * The bounded event log of one execution: records with a sequence and a time, the oldest of which
 * may be evicted. It lives in a memfd of its own (header and data), so that it can be handed over.
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
};

struct ring_piece {
        const void *data;
        size_t n;
};

/* @capacity is rounded up to whole pages and to RING_CAPACITY_MIN. */
int ring_new(size_t capacity, struct ring **ret_ring);
struct ring *ring_free(struct ring *ring);

/*
 * Nothing will be appended any more: gives the descriptor back, and, when little is in it, the
 * mappings, which are scarcer than memory. Positions stay good. *@spare (may be NULL before and
 * after) becomes an empty ring made of what was given back: a new one costs some 100 us.
 */
void ring_freeze(struct ring *ring, struct ring **spare);

/* Bytes of memory that it has touched. */
size_t ring_memory(const struct ring *ring);

/* A record of @n_payload bytes fits without evicting anything. */
bool ring_has_room(const struct ring *ring, size_t n_payload);

/* Evicts records with a sequence below @floor, oldest first, until @n_payload bytes fit. False when
 * they do not even then. */
bool ring_make_room(struct ring *ring, size_t n_payload, int64_t floor);

/* Appends one record; there must be room. Returns its sequence. */
int64_t ring_append(struct ring *ring, const struct ring_entry *entry,
                    const struct ring_piece *pieces, size_t n_pieces);

/* Where the payload of the next record can be written in place, up to the size that there is room
 * for; ring_commit appends it. */
uint8_t *ring_reserve(struct ring *ring, size_t n_payload);
int64_t ring_commit(struct ring *ring, const struct ring_entry *entry, size_t n_payload);

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
