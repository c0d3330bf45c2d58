/* The ring against a simple model, and its promises one by one. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "server/session/ring.h"
#include "test/lib/suite.h"

static int64_t append(struct ring *ring, uint16_t stream, const void *data, size_t n)
{
        struct ring_entry entry = { .kind = 3, .stream = stream, .time_usec = 99 };
        struct ring_piece piece = { data, n };

        return ring_append(ring, &entry, &piece, 1);
}

START_TEST(records_come_back_in_order_with_their_totals)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        struct ring_record record;
        uint64_t position;

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        ck_assert_int_eq(append(ring, RING_STREAM_STDOUT, "abc", 3), 1);
        ck_assert_int_eq(append(ring, RING_STREAM_STDERR, "defg", 4), 2);
        ck_assert_int_eq(append(ring, RING_STREAM_STDOUT, "", 0), 3);

        position = ring_seek(ring, 1);
        ck_assert(ring_read(ring, &position, &record));
        ck_assert_int_eq(record.sequence, 2);
        ck_assert_int_eq(record.before.stdout_bytes, 3);
        ck_assert_int_eq(record.before.stderr_bytes, 0);
        ck_assert_mem_eq(record.payload, "defg", 4);
        ck_assert(ring_read(ring, &position, &record));
        ck_assert_int_eq(record.before.stderr_bytes, 4);
        ck_assert(!ring_read(ring, &position, &record));
}
END_TEST

START_TEST(a_floor_keeps_what_is_still_to_be_read)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        static uint8_t block[400 << 10];

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        append(ring, RING_STREAM_STDOUT, block, sizeof(block));
        append(ring, RING_STREAM_STDOUT, block, sizeof(block));

        ck_assert(!ring_has_room(ring, sizeof(block)));
        ck_assert(!ring_make_room(ring, sizeof(block), 1, UINT64_MAX));
        ck_assert_int_eq(ring_first_sequence(ring), 1);
        ck_assert(ring_make_room(ring, sizeof(block), 2, UINT64_MAX));
        ck_assert_int_eq(ring_first_sequence(ring), 2);
        ck_assert_int_eq(ring_totals_at(ring, 1).stdout_bytes, sizeof(block));
}
END_TEST

START_TEST(a_record_may_wrap_around)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        static uint8_t block[300 << 10];
        struct ring_record record;

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        for (unsigned i = 0; i < 40; i++) {
                uint64_t position;

                memset(block, (int)i, sizeof(block));
                ck_assert(ring_make_room(ring, sizeof(block), INT64_MAX, UINT64_MAX));
                append(ring, RING_STREAM_STDOUT, block, sizeof(block));
                position = ring_seek(ring, i);
                ck_assert(ring_read(ring, &position, &record));
                ck_assert_mem_eq(record.payload, block, sizeof(block));
        }
}
END_TEST

START_TEST(memory_grows_with_what_is_kept_and_not_beyond)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        static uint8_t block[64 << 10];

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        append(ring, 0, "x", 1);
        ck_assert_uint_le(ring_memory(ring), 3 * 4096);
        for (unsigned i = 0; i < 100; i++) {
                ck_assert(ring_make_room(ring, sizeof(block), INT64_MAX, UINT64_MAX));
                append(ring, 0, block, sizeof(block));
        }
        ck_assert_uint_le(ring_memory(ring), RING_CAPACITY_MIN + 10 * 4096);
}
END_TEST

START_TEST(totals_of_evicted_records_are_exact_at_first_and_near_later)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        static uint8_t block[4096];
        const int n = 20000;

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        for (int i = 0; i < n; i++) {
                ck_assert(ring_make_room(ring, sizeof(block), INT64_MAX, UINT64_MAX));
                append(ring, RING_STREAM_STDOUT, block, sizeof(block));
                if (ring_first_sequence(ring) == RING_MARKS)
                        ck_assert_int_eq(ring_totals_at(ring, 500).stdout_bytes, 500 * 4096);
        }
        for (int64_t i = 1; i < ring_first_sequence(ring); i += 97) {
                int64_t found = ring_totals_at(ring, i).stdout_bytes;

                ck_assert_int_le(found, i * 4096);
                ck_assert_int_ge(found, (i - 3 * n / RING_MARKS) * 4096);
        }
}
END_TEST

static void check_frozen(size_t n_block)
{
        struct ring *spare = NULL;
        _cleanup_(ring_freep) struct ring *ring = NULL;
        static uint8_t block[300 << 10];
        struct ring_record record;
        uint64_t position;
        uint64_t before;

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        for (unsigned i = 1; i <= 3; i++) {
                memset(block, (int)i, sizeof(block));
                append(ring, RING_STREAM_STDOUT, block, n_block);
        }
        before = ring_seek(ring, 1);
        ring_freeze(ring, &spare);
        ck_assert_uint_eq(ring_seek(ring, 1), before);
        position = before;
        ck_assert(ring_read(ring, &position, &record));
        ck_assert_int_eq(record.sequence, 2);
        ck_assert_uint_eq(record.payload[n_block - 1], 2);
        ck_assert_int_eq(ring_totals_now(ring).stdout_bytes, 3 * n_block);
        ck_assert_int_eq(ring_totals_at(ring, 0).stdout_bytes, 0);
        if (n_block < 1000) {
                ck_assert_uint_lt(ring_memory(ring), 2000);
                ck_assert_int_eq(append(spare, 0, "new", 3), 1);
                ck_assert_int_eq(ring_totals_now(spare).stdout_bytes, 0);
                position = before;
                ck_assert(ring_read(ring, &position, &record));
                ck_assert_uint_eq(record.payload[n_block - 1], 2);
        } else
                ck_assert_ptr_null(spare);
        (void)ring_free(spare);
}

START_TEST(a_frozen_ring_reads_the_same)
{
        check_frozen(100);
        check_frozen(300 << 10);
}
END_TEST

enum { PIPE_SIZE = 64 << 10 };

/* One record of bytes that come through a pipe; returns how many it took of them. */
static size_t fill(struct ring *ring, const int pipes[2], const uint8_t *bytes, size_t n)
{
        struct ring_entry entry = { .kind = 3 };
        uint8_t rest[4096];
        size_t n_taken;

        ck_assert_int_eq(write(pipes[1], bytes, n), n);
        ck_assert_int_eq(ring_fill(ring, &entry, pipes[0], n, &n_taken), 0);
        ck_assert_uint_gt(n_taken, 0);
        while (read(pipes[0], rest, sizeof(rest)) > 0)
                ;
        return n_taken;
}

/* As a successor does, but for the death of the one before. */
static void take_over(struct ring **ring)
{
        struct ring *next;
        int fd = dup(ring_fd(*ring));

        ck_assert_int_eq(ring_open(fd, &next), 0);
        (void)ring_free(*ring);
        *ring = next;
}

START_TEST(a_pipe_that_is_empty_or_at_its_end_leaves_no_record)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        struct ring_entry entry = { .kind = 3 };
        size_t n = 1;
        int pipes[2];

        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        ck_assert_int_eq(ring_fill(ring, &entry, pipes[0], 100, &n), -EAGAIN);
        ck_assert_uint_eq(n, 0);
        (void)close(pipes[1]);
        ck_assert_int_eq(ring_fill(ring, &entry, pipes[0], 100, &n), 0);
        ck_assert_uint_eq(n, 0);
        take_over(&ring);
        ck_assert_int_eq(ring_next_sequence(ring), 1);
}
END_TEST

START_TEST(what_is_no_ring_is_refused)
{
        struct ring *opened = NULL;
        struct ring *ring = NULL;
        int fd, copy;

        fd = memfd_create("empty", MFD_CLOEXEC);
        ck_assert_int_eq(ring_open(fd, &opened), RING_E_BAD);
        fd = memfd_create("zeros", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(fd, 8 << 20), 0);
        ck_assert_int_eq(ring_open(fd, &opened), RING_E_BAD);

        for (off_t offset = 0; offset < 300; offset += 8) {
                uint64_t word = UINT64_MAX / 3;

                ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
                append(ring, RING_STREAM_STDOUT, "abc", 3);
                copy = dup(ring_fd(ring));
                ck_assert_int_eq(pwrite(copy, &word, sizeof(word), offset), sizeof(word));
                if (ring_open(copy, &opened) == 0)
                        opened = ring_free(opened);
                ring = ring_free(ring);
        }
}
END_TEST

START_TEST(a_tag_tells_what_was_recorded)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        struct ring_entry entry = { .kind = 3, .tag = 700 };

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        ck_assert_uint_eq(ring_tag(ring), 0);
        ck_assert_int_eq(ring_tag_sequence(ring), 0);
        append(ring, 0, "w", 1);
        (void)ring_append(ring, &entry, NULL, 0);
        append(ring, 0, "x", 1);
        take_over(&ring);
        append(ring, 0, "y", 1);
        ck_assert_uint_eq(ring_tag(ring), 700);
        ck_assert_int_eq(ring_tag_sequence(ring), 2);
}
END_TEST

START_TEST(a_copy_goes_on_where_the_first_one_was)
{
        _cleanup_(ring_freep) struct ring *from = NULL;
        _cleanup_(ring_freep) struct ring *to = NULL;
        struct ring_record record;
        uint64_t position;

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &from), 0);
        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &to), 0);
        append(to, RING_STREAM_STDERR, "old", 3);
        append(from, RING_STREAM_STDOUT, "first", 5);
        position = ring_seek(from, 1);
        ring_copy(from, to);
        ck_assert_int_eq(append(to, RING_STREAM_STDOUT, "second", 6), 2);
        ck_assert(ring_read(to, &position, &record));
        ck_assert_int_eq(record.before.stdout_bytes, 5);
        ck_assert_int_eq(record.before.stderr_bytes, 0);
        ck_assert_mem_eq(record.payload, "second", 6);
}
END_TEST

static const struct ring_entry ended = { .kind = 11, .time_usec = 7 };

START_TEST(a_dump_comes_back_with_one_record_more)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        struct ring_record record, other;
        uint64_t position, at;
        static uint8_t block[300000];

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        /* Empty, with little, over its end, with evicted records. */
        for (int i = 0; i < 9; i++) {
                _cleanup_(ring_freep) struct ring *loaded = NULL;
                size_t n = ring_dump_size(ring);
                uint8_t *bytes = malloc(n);

                ring_dump(ring, bytes);
                ck_assert_int_eq(ring_load(bytes, n, &ended, &loaded), 0);
                free(bytes);
                ck_assert_int_eq(ring_first_sequence(loaded), ring_first_sequence(ring));
                ck_assert_int_eq(ring_next_sequence(loaded), ring_next_sequence(ring) + 1);
                position = ring_seek(ring, 0);
                at = ring_seek(loaded, 0);
                while (ring_read(ring, &position, &record)) {
                        ck_assert(ring_read(loaded, &at, &other));
                        ck_assert_int_eq(other.sequence, record.sequence);
                        ck_assert_int_eq(other.stream, record.stream);
                        ck_assert_int_eq(other.before.stdout_bytes, record.before.stdout_bytes);
                        ck_assert_uint_eq(other.n_payload, record.n_payload);
                        ck_assert_mem_eq(other.payload, record.payload, record.n_payload);
                }
                ck_assert(ring_read(loaded, &at, &other));
                ck_assert_int_eq(other.kind, ended.kind);
                ck_assert_int_eq(other.time_usec, ended.time_usec);
                ck_assert_uint_eq(other.n_payload, 0);
                ck_assert(!ring_read(loaded, &at, &other));
                memset(block, i + 1, sizeof(block));
                ck_assert(ring_make_room(ring, sizeof(block), INT64_MAX, UINT64_MAX));
                append(ring, RING_STREAM_STDOUT, block, i == 0 ? 5 : sizeof(block));
        }
}
END_TEST

START_TEST(a_dump_that_was_spoiled_is_refused_or_reads_within_its_bounds)
{
        _cleanup_(ring_freep) struct ring *ring = NULL;
        struct ring *loaded = NULL;
        size_t n;
        uint8_t *bytes, *spoiled;

        srandom((unsigned)_i + 1);
        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        append(ring, RING_STREAM_STDOUT, "first", 5);
        append(ring, RING_STREAM_STDERR, "second one", 10);
        append(ring, RING_STREAM_NONE, "", 0);
        n = ring_dump_size(ring);
        bytes = malloc(n);
        ring_dump(ring, bytes);
        for (size_t cut = 0; cut < n; cut++) {
                spoiled = malloc(cut + 1);
                memcpy(spoiled, bytes, cut);
                ck_assert_int_eq(ring_load(spoiled, cut, &ended, &loaded), RING_E_BAD);
                free(spoiled);
        }
        for (int i = 0; i < 20000; i++) {
                struct ring_record record;
                uint64_t position;

                spoiled = malloc(n);
                memcpy(spoiled, bytes, n);
                for (int j = 0; j <= i % 3; j++)
                        spoiled[(size_t)random() % n] = (uint8_t)random();
                if (ring_load(spoiled, n, &ended, &loaded) == 0) {
                        position = ring_seek(loaded, 0);
                        while (ring_read(loaded, &position, &record))
                                ck_assert_uint_le(record.n_payload, n);
                        (void)ring_totals_at(loaded, 1);
                        loaded = ring_free(loaded);
                }
                ck_assert_ptr_null(loaded);
                free(spoiled);
        }
        free(bytes);
}
END_TEST

enum { KILL_BYTES = 8 << 20 };

static uint8_t stream_byte(size_t position)
{
        return (uint8_t)(position * 2654435761U >> 13);
}

/* Writes a stream whose every byte can be told from its place. */
static void write_stream(int fd)
{
        static uint8_t block[8191];
        size_t n_written = 0;

        while (n_written < KILL_BYTES) {
                size_t n = MIN(sizeof(block), KILL_BYTES - n_written);

                for (size_t i = 0; i < n; i++)
                        block[i] = stream_byte(n_written + i);
                for (size_t sent = 0; sent < n;) {
                        ssize_t now = write(fd, block + sent, n - sent);

                        if (now < 0)
                                _exit(1);
                        sent += (size_t)now;
                }
                n_written += n;
        }
        _exit(0);
}

/* Takes from the pipe into the ring until it is killed or the stream is over. Evicts only what is
 * before @floor. */
static void fill_until_killed(struct ring *ring, int fd, int64_t floor)
{
        struct ring_entry entry = { .kind = 3, .stream = RING_STREAM_STDOUT };
        struct pollfd readable = { .fd = fd, .events = POLLIN };
        size_t n;
        int r;

        for (;;) {
                (void)poll(&readable, 1, -1);
                while (!ring_make_room(ring, PIPE_SIZE, floor, UINT64_MAX))
                        (void)pause();
                r = ring_fill(ring, &entry, fd, PIPE_SIZE, &n);
                if (r == 0 && n == 0)
                        _exit(0);
                if (r && r != -EAGAIN)
                        _exit(1);
        }
}

/* Compares what is new in the ring with the stream; returns how much of it was seen now. */
static size_t compare_stream(const struct ring *ring, size_t n_seen, int64_t *sequence)
{
        uint64_t position = ring_seek(ring, *sequence);
        struct ring_record record;
        bool is_equal = true;

        ck_assert_int_ge(*sequence + 1, ring_first_sequence(ring));
        while (ring_read(ring, &position, &record)) {
                size_t start = (size_t)record.before.stdout_bytes;

                ck_assert_uint_ge(start, n_seen);
                for (size_t i = 0; i < record.n_payload; i++)
                        is_equal &= record.payload[i] == stream_byte(start + i);
                ck_assert(is_equal);
                n_seen = start + record.n_payload;
                *sequence = record.sequence;
        }
        return n_seen;
}

START_TEST(a_kill_at_any_moment_loses_no_byte)
{
        struct ring *ring = NULL;
        int64_t sequence = 0;
        size_t n_seen = 0;
        unsigned n_kills = 0;
        int pipes[2];
        int status;
        pid_t writer;

        srandom((unsigned)_i + 1);
        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        writer = fork();
        if (writer == 0)
                write_stream(pipes[1]);
        (void)close(pipes[1]);
        do {
                struct timespec pause = { .tv_nsec = random() % 3000000 };
                pid_t reader = fork();

                if (reader == 0)
                        fill_until_killed(ring, pipes[0], sequence + 1);
                /* The moment is what is random here, nothing is waited for. */
                (void)nanosleep(&pause, NULL);
                (void)kill(reader, SIGKILL);
                ck_assert_int_eq(waitpid(reader, &status, 0), reader);
                ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
                n_kills += WIFSIGNALED(status);
                take_over(&ring);
                n_seen = compare_stream(ring, n_seen, &sequence);
        } while (WIFSIGNALED(status));
        ck_assert_uint_eq(n_seen, KILL_BYTES);
        ck_assert_uint_gt(n_kills, 3);
        ck_assert_int_eq(waitpid(writer, &status, 0), writer);
        (void)ring_free(ring);
        (void)close(pipes[0]);
}
END_TEST

/* What is written over next is not there any more for one who takes over now. */
START_TEST(a_successor_does_not_find_what_was_evicted)
{
        static const uint8_t payload[RING_CAPACITY_MIN / 8];
        struct ring_entry entry = { .kind = 3 };
        struct ring *ring = NULL;
        int64_t first = 1;

        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        for (unsigned i = 0; i < 20; i++) {
                if (!ring_has_room(ring, sizeof(payload))) {
                        ck_assert(ring_make_room(ring, sizeof(payload), INT64_MAX, UINT64_MAX));
                        first = ring_first_sequence(ring);
                        take_over(&ring);
                        ck_assert_int_eq(ring_first_sequence(ring), first);
                }
                (void)ring_append(ring, &entry, &(struct ring_piece){ payload, sizeof(payload) },
                                  1);
        }
        ck_assert_int_gt(first, 10);
        (void)ring_free(ring);
}
END_TEST

static bool dies_after_splice; /* in a child of the test */

ssize_t __real_splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t n,
                      unsigned flags);
ssize_t __wrap_splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t n,
                      unsigned flags);

ssize_t __wrap_splice(int from, off64_t *from_offset, int to, off64_t *to_offset, size_t n,
                      unsigned flags)
{
        ssize_t r = __real_splice(from, from_offset, to, to_offset, n, flags);

        if (dies_after_splice)
                (void)kill(getpid(), SIGKILL);
        return r;
}

START_TEST(bytes_that_were_taken_and_not_recorded_are_found)
{
        struct ring_entry entry = { .kind = 3, .stream = RING_STREAM_STDERR, .time_usec = 7 };
        struct ring *ring = NULL;
        struct ring_record record;
        uint64_t position;
        int pipes[2];
        int status;
        pid_t child;
        size_t n;

        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC), 0);
        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        for (int64_t i = 1; i <= 3; i++) {
                ck_assert_int_eq(write(pipes[1], "taken", 5), 5);
                child = fork();
                if (child == 0) {
                        dies_after_splice = true;
                        (void)ring_fill(ring, &entry, pipes[0], 100, &n);
                        _exit(1);
                }
                ck_assert_int_eq(waitpid(child, &status, 0), child);
                ck_assert(WIFSIGNALED(status));
                take_over(&ring);
                ck_assert_int_eq(ring_next_sequence(ring), i + 1);
                position = ring_seek(ring, i - 1);
                ck_assert(ring_read(ring, &position, &record));
                ck_assert_uint_eq(record.n_payload, 5);
                ck_assert_mem_eq(record.payload, "taken", 5);
                ck_assert_int_eq(record.stream, RING_STREAM_STDERR);
                ck_assert_int_eq(record.time_usec, 7);
                ck_assert_uint_eq(ring_totals_now(ring).stderr_bytes, 5 * (uint64_t)i);
                /* Once: the next takeover finds nothing new. */
                take_over(&ring);
                ck_assert_int_eq(ring_next_sequence(ring), i + 1);
        }
        (void)ring_free(ring);
        (void)close(pipes[0]);
        (void)close(pipes[1]);
}
END_TEST

/* The model: sizes and first bytes of all records ever, and which is the oldest kept. */
START_TEST(random_use_agrees_with_a_model)
{
        enum { STEPS = 20000 };
        static size_t sizes[STEPS + 1];
        static uint8_t block[200 << 10];
        _cleanup_(ring_freep) struct ring *ring = NULL;
        int64_t floor = 1;
        int pipes[2];

        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
        srandom((unsigned)_i + 1);
        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        for (int64_t i = 1; i <= STEPS; i++) {
                size_t n = (size_t)random() % (random() % 50 ? 300 : sizeof(block));
                struct ring_record record;
                uint64_t position;

                memset(block, (int)(i & 0xff), n);
                if (!ring_make_room(ring, n, floor, UINT64_MAX)) {
                        ck_assert_int_ge(ring_first_sequence(ring), floor);
                        floor = ring_next_sequence(ring) - random() % 3;
                        ck_assert(ring_make_room(ring, n, INT64_MAX, UINT64_MAX));
                }
                if (random() % 2 && n > 0 && n <= PIPE_SIZE)
                        n = fill(ring, pipes, block, n);
                else
                        ck_assert_int_eq(append(ring, 0, block, n), i);
                ck_assert_int_eq(ring_next_sequence(ring), i + 1);
                sizes[i] = n;
                if (random() % 100 == 0)
                        take_over(&ring);

                position = ring_seek(ring, 0);
                ck_assert(ring_read(ring, &position, &record));
                ck_assert_int_eq(record.sequence, ring_first_sequence(ring));
                ck_assert_uint_eq(record.n_payload, sizes[record.sequence]);
                if (record.n_payload)
                        ck_assert_uint_eq(record.payload[record.n_payload - 1],
                                          record.sequence & 0xff);
        }
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("ring");
        TCase *tcase = tcase_create("ring");

        tcase_set_timeout(tcase, 60);
        tcase_add_test(tcase, records_come_back_in_order_with_their_totals);
        tcase_add_test(tcase, a_floor_keeps_what_is_still_to_be_read);
        tcase_add_test(tcase, a_record_may_wrap_around);
        tcase_add_test(tcase, memory_grows_with_what_is_kept_and_not_beyond);
        tcase_add_test(tcase, totals_of_evicted_records_are_exact_at_first_and_near_later);
        tcase_add_test(tcase, a_frozen_ring_reads_the_same);
        tcase_add_test(tcase, a_pipe_that_is_empty_or_at_its_end_leaves_no_record);
        tcase_add_test(tcase, what_is_no_ring_is_refused);
        tcase_add_test(tcase, a_tag_tells_what_was_recorded);
        tcase_add_test(tcase, a_copy_goes_on_where_the_first_one_was);
        tcase_add_test(tcase, a_dump_comes_back_with_one_record_more);
        tcase_add_loop_test(tcase, a_dump_that_was_spoiled_is_refused_or_reads_within_its_bounds, 0,
                            4);
        tcase_add_test(tcase, a_successor_does_not_find_what_was_evicted);
        tcase_add_test(tcase, bytes_that_were_taken_and_not_recorded_are_found);
        tcase_add_loop_test(tcase, a_kill_at_any_moment_loses_no_byte, 0, 2);
        tcase_add_loop_test(tcase, random_use_agrees_with_a_model, 0, 4);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
