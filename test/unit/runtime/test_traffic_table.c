/* Bytes are counted for who has the place, whoever had it before and whatever the other side does.
 */

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "runtime/channel/traffic_table.h"
#include "test/lib/suite.h"

enum { N_PLACES = 128, SANDBOX = 7000 };

static struct traffic_table *table; /* the runtime's */
static struct traffic_table *there; /* hotcell-egress's */

static struct traffic_table *map_again(void)
{
        struct traffic_table *mapped;

        ck_assert_int_eq(traffic_table_map(dup(traffic_table_fd(table)), &mapped), 0);
        return mapped;
}

static void setup(void)
{
        ck_assert_int_eq(traffic_table_new(N_PLACES, &table), 0);
        there = map_again();
}

static void teardown(void)
{
        there = traffic_table_free(there);
        table = traffic_table_free(table);
}

static struct traffic_meter give(uint64_t cgroup_id)
{
        struct traffic_meter meter;

        ck_assert_int_eq(traffic_table_give(table, cgroup_id, &meter), 0);
        return meter;
}

static struct traffic_account open_account(uint64_t leaf_id)
{
        struct traffic_account account;

        traffic_account_open(there, leaf_id, SANDBOX, &account);
        return account;
}

static void carry(const struct traffic_account *account, uint64_t sent, uint64_t received)
{
        traffic_account_add(there, account, sent, received);
}

static void expect(struct traffic_meter *meter, uint64_t sent, uint64_t received, uint64_t n)
{
        traffic_table_read(table, meter);
        ck_assert_uint_eq(meter->count.sent_bytes, sent);
        ck_assert_uint_eq(meter->count.received_bytes, received);
        ck_assert_uint_eq(meter->count.n_connections, n);
}

static void expect_lost(uint64_t sent, uint64_t received)
{
        struct traffic_count lost;

        traffic_table_take_lost(table, &lost);
        ck_assert_uint_eq(lost.sent_bytes, sent);
        ck_assert_uint_eq(lost.received_bytes, received);
}

START_TEST(each_is_counted_for_its_own)
{
        struct traffic_meter sandbox = give(SANDBOX);
        struct traffic_meter meters[40];
        struct traffic_account accounts[ARRAY_SIZE(meters)];

        for (size_t i = 0; i < ARRAY_SIZE(meters); i++) {
                meters[i] = give(100 + i);
                accounts[i] = open_account(100 + i);
        }
        for (size_t i = 0; i < ARRAY_SIZE(meters); i++)
                carry(&accounts[i], i, 10 * i);
        for (size_t i = 0; i < ARRAY_SIZE(meters); i++)
                expect(&meters[i], i, 10 * i, 1);
        expect(&sandbox, 0, 0, 0);
        expect_lost(0, 0);
}
END_TEST

START_TEST(what_a_connection_carries_after_its_process_is_the_sandboxs)
{
        struct traffic_meter sandbox = give(SANDBOX);
        struct traffic_meter leaf = give(1);
        struct traffic_account account = open_account(1);

        carry(&account, 5, 6);
        traffic_table_take_back(table, &leaf);
        ck_assert_uint_eq(leaf.count.sent_bytes, 5);
        carry(&account, 100, 200);
        expect(&sandbox, 100, 200, 0);
        traffic_table_take_back(table, &sandbox);
        carry(&account, 1000, 2000);
        expect_lost(1000, 2000);
        expect_lost(0, 0);
}
END_TEST

START_TEST(what_has_no_place_is_the_sandboxs)
{
        struct traffic_meter sandbox = give(SANDBOX);
        struct traffic_account unknown = open_account(99);
        struct traffic_account none = open_account(0);

        carry(&unknown, 1, 2);
        carry(&none, 10, 20);
        expect(&sandbox, 11, 22, 2);
}
END_TEST

START_TEST(a_place_that_is_used_again_starts_at_nothing)
{
        struct traffic_meter first = give(1);
        struct traffic_account account = open_account(1);

        carry(&account, 5, 6);
        /* All others are taken, so that the next one can only have this. */
        for (uint64_t id = 1000; id < 10000; id++) {
                struct traffic_meter other;

                (void)traffic_table_give(table, id, &other);
        }
        traffic_table_take_back(table, &first);
        for (uint64_t id = 10000;; id++) {
                struct traffic_meter next;

                if (traffic_table_give(table, id, &next))
                        continue;
                ck_assert_uint_eq(next.place, first.place);
                expect(&next, 0, 0, 0);
                carry(&account, 7, 8); /* of who had it before */
                expect(&next, 0, 0, 0);
                account = open_account(id);
                carry(&account, 9, 10);
                expect(&next, 9, 10, 1);
                break;
        }
}
END_TEST

START_TEST(the_place_that_is_free_for_longest_is_used_first)
{
        struct traffic_meter last = give(1);

        /* Of a full turn no place comes twice, though all of them are free all the time. */
        for (unsigned i = 0; i < TRAFFIC_PROBES - 1; i++) {
                struct traffic_meter next;

                traffic_table_take_back(table, &last);
                next = give(1);
                ck_assert_uint_ne(next.place, last.place);
                last = next;
        }
}
END_TEST

START_TEST(a_full_table_says_so_and_has_room_again)
{
        struct traffic_meter meters[N_PLACES];
        struct traffic_meter more;
        size_t n = 0;
        uint64_t id = 1;

        while (n < N_PLACES && id < 100000)
                n += traffic_table_give(table, id++, &meters[n]) == 0;
        ck_assert_uint_eq(n, N_PLACES);
        ck_assert_int_eq(traffic_table_give(table, id, &more), TRAFFIC_E_FULL);
        for (size_t i = 0; i < N_PLACES; i++)
                traffic_table_take_back(table, &meters[i]);
        ck_assert_int_eq(traffic_table_give(table, id, &more), 0);
}
END_TEST

/* The table has room for twice as many as there are: what lives long must not be in each other's
 * way, however many came and went. */
START_TEST(a_table_that_is_half_full_has_room_for_each)
{
        struct traffic_meter meters[N_PLACES / 2];
        uint64_t id = (uint64_t)1 << 32;

        for (size_t i = 0; i < ARRAY_SIZE(meters); i++)
                meters[i] = give(id++);
        for (unsigned i = 0; i < 100000; i++) {
                size_t which = (i * 7919U) % ARRAY_SIZE(meters);

                traffic_table_take_back(table, &meters[which]);
                meters[which] = give(id++);
        }
}
END_TEST

static _Atomic uint64_t *words(void)
{
        void *bytes = mmap(NULL, (N_PLACES + 1) * 32, PROT_READ | PROT_WRITE, MAP_SHARED,
                           traffic_table_fd(table), 0);

        ck_assert_ptr_ne(bytes, MAP_FAILED);
        return bytes;
}

START_TEST(counts_that_fall_did_not_move)
{
        struct traffic_meter meter = give(1);
        _Atomic uint64_t *sent = &words()[meter.place * 4 + 1];

        *sent = 500;
        expect(&meter, 500, 0, 0);
        *sent = 3;
        expect(&meter, 500, 0, 0);
        *sent = 499;
        expect(&meter, 500, 0, 0);
        *sent = 501;
        expect(&meter, 501, 0, 0);
}
END_TEST

START_TEST(lies_do_not_overflow)
{
        struct traffic_meter meter = give(1);
        _Atomic uint64_t *place = &words()[meter.place * 4];

        place[1] = UINT64_MAX;
        place[2] = TRAFFIC_BYTES_MAX + 1;
        expect(&meter, TRAFFIC_BYTES_MAX, TRAFFIC_BYTES_MAX, 0);
        place[1] = 0; /* it began anew, and goes round */
        place[2] = UINT64_MAX;
        expect(&meter, TRAFFIC_BYTES_MAX, TRAFFIC_BYTES_MAX, 0);
}
END_TEST

/* Ids are the runtime's: whatever is written there, it takes back what it gave. */
START_TEST(ids_that_were_overwritten_change_nothing_for_the_runtime)
{
        struct traffic_meter meter = give(1);
        struct traffic_meter again;
        _Atomic uint64_t *all = words();

        for (size_t i = 0; i < N_PLACES * 4; i++)
                all[i] = UINT64_MAX;
        traffic_table_take_back(table, &meter);
        again = give(1);
        traffic_table_take_back(table, &again);
}
END_TEST

START_TEST(what_is_no_table_is_refused)
{
        struct traffic_table *mapped = NULL;
        int fd = memfd_create("other", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        ck_assert_int_eq(ftruncate(fd, 33 * 32), 0);
        ck_assert_int_eq(traffic_table_map(dup(fd), &mapped), -EPROTO); /* it could shrink */
        ck_assert_int_eq(fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK), 0);
        ck_assert_int_eq(ftruncate(fd, 34 * 32), 0);
        ck_assert_int_eq(traffic_table_map(dup(fd), &mapped), -EPROTO);
        (void)close(fd);
        ck_assert_int_eq(traffic_table_map(open("/dev/zero", O_RDWR | O_CLOEXEC), &mapped),
                         -EPROTO);
        ck_assert_int_eq(traffic_table_map(-1, &mapped), -EPROTO);
        ck_assert_ptr_null(mapped);
}
END_TEST

START_TEST(its_size_stays)
{
        int fd = traffic_table_fd(table);

        ck_assert_int_lt(ftruncate(fd, 0), 0);
        ck_assert_int_lt(ftruncate(fd, 1 << 20), 0);
        ck_assert_int_lt(fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE), 0);
}
END_TEST

START_TEST(a_successor_goes_on_counting)
{
        struct traffic_meter meter = give(1);
        struct traffic_account account = open_account(1);

        carry(&account, 5, 6);
        there = traffic_table_free(there);
        there = map_again();
        account = open_account(1);
        carry(&account, 50, 60);
        expect(&meter, 55, 66, 2);
}
END_TEST

/* --- both at once -------------------------------------------------------------------------------
 */

enum { N_ADDED = 400000 };

static void *add_many(void *argument)
{
        const struct traffic_account *account = argument;

        for (unsigned i = 0; i < N_ADDED; i++)
                carry(account, 1, 2);
        return NULL;
}

START_TEST(nothing_is_lost_while_both_are_at_it)
{
        struct traffic_meter sandbox = give(SANDBOX);
        struct traffic_meter leaf = give(1);
        struct traffic_account account = open_account(1);
        struct traffic_count lost;
        uint64_t before = 0;
        pthread_t thread;

        ck_assert_int_eq(pthread_create(&thread, NULL, add_many, &account), 0);
        for (unsigned i = 0; i < 1000; i++) {
                struct traffic_meter other = give(1000 + i);

                traffic_table_read(table, &leaf);
                ck_assert_uint_ge(leaf.count.sent_bytes, before);
                before = leaf.count.sent_bytes;
                traffic_table_take_back(table, &other);
                ck_assert_uint_eq(other.count.sent_bytes, 0);
        }
        ck_assert_int_eq(pthread_join(thread, NULL), 0);
        traffic_table_take_back(table, &leaf);
        traffic_table_take_back(table, &sandbox);
        traffic_table_take_lost(table, &lost);
        ck_assert_uint_eq(leaf.count.sent_bytes, N_ADDED);
        ck_assert_uint_eq(leaf.count.received_bytes, 2 * (uint64_t)N_ADDED);
        ck_assert_uint_eq(sandbox.count.sent_bytes + lost.sent_bytes, 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("traffic_table");
        TCase *tests = tcase_create("traffic_table");

        tcase_add_checked_fixture(tests, setup, teardown);
        tcase_add_test(tests, each_is_counted_for_its_own);
        tcase_add_test(tests, what_a_connection_carries_after_its_process_is_the_sandboxs);
        tcase_add_test(tests, what_has_no_place_is_the_sandboxs);
        tcase_add_test(tests, a_place_that_is_used_again_starts_at_nothing);
        tcase_add_test(tests, the_place_that_is_free_for_longest_is_used_first);
        tcase_add_test(tests, a_full_table_says_so_and_has_room_again);
        tcase_add_test(tests, a_table_that_is_half_full_has_room_for_each);
        tcase_add_test(tests, counts_that_fall_did_not_move);
        tcase_add_test(tests, lies_do_not_overflow);
        tcase_add_test(tests, ids_that_were_overwritten_change_nothing_for_the_runtime);
        tcase_add_test(tests, what_is_no_table_is_refused);
        tcase_add_test(tests, its_size_stays);
        tcase_add_test(tests, a_successor_goes_on_counting);
        tcase_add_test(tests, nothing_is_lost_while_both_are_at_it);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
