/* The ring against a simple model, and its promises one by one. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "server/session/ring.h"

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
        ck_assert(!ring_make_room(ring, sizeof(block), 1));
        ck_assert_int_eq(ring_first_sequence(ring), 1);
        ck_assert(ring_make_room(ring, sizeof(block), 2));
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
                ck_assert(ring_make_room(ring, sizeof(block), INT64_MAX));
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
                ck_assert(ring_make_room(ring, sizeof(block), INT64_MAX));
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
                ck_assert(ring_make_room(ring, sizeof(block), INT64_MAX));
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
        _cleanup_(ring_freep) struct ring *spare = NULL;
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
}

START_TEST(a_frozen_ring_reads_the_same)
{
        check_frozen(100);
        check_frozen(300 << 10);
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

        srandom((unsigned)_i + 1);
        ck_assert_int_eq(ring_new(RING_CAPACITY_MIN, &ring), 0);
        for (int64_t i = 1; i <= STEPS; i++) {
                size_t n = (size_t)random() % (random() % 50 ? 300 : sizeof(block));
                struct ring_record record;
                uint64_t position;

                memset(block, (int)(i & 0xff), n);
                if (!ring_make_room(ring, n, floor)) {
                        ck_assert_int_ge(ring_first_sequence(ring), floor);
                        floor = ring_next_sequence(ring) - random() % 3;
                        ck_assert(ring_make_room(ring, n, INT64_MAX));
                }
                if (random() % 2) {
                        struct ring_entry entry = { .kind = 3 };

                        memcpy(ring_reserve(ring, n), block, n);
                        ck_assert_int_eq(ring_commit(ring, &entry, n), i);
                } else
                        ck_assert_int_eq(append(ring, 0, block, n), i);
                sizes[i] = n;

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
        SRunner *runner;
        int n_failed;

        tcase_set_timeout(tcase, 60);
        tcase_add_test(tcase, records_come_back_in_order_with_their_totals);
        tcase_add_test(tcase, a_floor_keeps_what_is_still_to_be_read);
        tcase_add_test(tcase, a_record_may_wrap_around);
        tcase_add_test(tcase, memory_grows_with_what_is_kept_and_not_beyond);
        tcase_add_test(tcase, totals_of_evicted_records_are_exact_at_first_and_near_later);
        tcase_add_test(tcase, a_frozen_ring_reads_the_same);
        tcase_add_loop_test(tcase, random_use_agrees_with_a_model, 0, 4);
        suite_add_tcase(suite, tcase);
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
