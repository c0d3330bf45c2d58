/* Keys: what they may, when they were used, and how many are kept. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"
#include "test/unit/store/records.h"

struct keys {
        int n_calls;
        size_t n;
        struct key_record records[STORE_KEYS_MAX];
};

static void on_keys(void *userdata, int result, const struct key_record *records, size_t n)
{
        struct keys *keys = userdata;

        ck_assert_int_eq(result, 0);
        ck_assert_uint_le(n, ARRAY_SIZE(keys->records));
        keys->n_calls++;
        keys->n = n;
        if (n)
                (void)memcpy(keys->records, records, n * sizeof(*records));
}

static const struct keys *list_keys(void)
{
        static struct keys keys;

        keys.n_calls = 0;
        store_list_keys(fixture.store, on_keys, &keys);
        wait_for(&fixture, &keys.n_calls, 1);
        return &keys;
}

START_TEST(keys_are_kept_revoked_and_their_names_freed)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci"), again = make_key(2, "ci");
        const struct keys *keys;

        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_insert_key(fixture.store, &again, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, STORE_E_NAME_IN_USE);

        store_revoke_key(fixture.store, key.key_id, 50, on_answer, &answer);
        store_revoke_key(fixture.store, key.key_id, 60, on_answer, &answer); /* stays at 50 */
        store_insert_key(fixture.store, &again, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 5);
        ck_assert_int_eq(answer.result, 0);
        store_revoke_key(fixture.store, "key-none", 50, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 6);
        ck_assert_int_eq(answer.result, STORE_E_NOT_FOUND);

        keys = list_keys();
        ck_assert_uint_eq(keys->n, 2);
        ck_assert_str_eq(keys->records[0].key_id, "key-000002");
        ck_assert_int_eq(keys->records[1].revoke_time_usec, 50);
        ck_assert_mem_eq(keys->records[1].secret_sha256, key.secret_sha256, 32);
}
END_TEST

START_TEST(an_expired_key_gives_its_name_free)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci"), early = make_key(99, "ci"),
                          later = make_key(100, "ci");

        key.expire_time_usec = 100;
        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_insert_key(fixture.store, &early, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, STORE_E_NAME_IN_USE);
        store_insert_key(fixture.store, &later, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 3);
        ck_assert_int_eq(answer.result, 0);
}
END_TEST

START_TEST(what_a_key_may_and_when_it_was_used_comes_back)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci");
        const struct keys *keys;

        (void)strcpy(key.owner, "key-older");
        key.scopes = 5;
        key.expire_time_usec = 100;
        key.quotas = (struct key_quotas){ { 11, 12, 13, 14 } };
        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_touch_key(fixture.store, key.key_id, 60, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, 0);
        fixture_close(&fixture);
        fixture_open(&fixture);

        keys = list_keys();
        ck_assert_str_eq(keys->records[0].owner, "key-older");
        ck_assert_int_eq(keys->records[0].scopes, 5);
        ck_assert_int_eq(keys->records[0].expire_time_usec, 100);
        ck_assert_int_eq(keys->records[0].last_used_time_usec, 60);
        ck_assert_mem_eq(&keys->records[0].quotas, &key.quotas, sizeof(key.quotas));
}
END_TEST

/* Whoever comes later gets what the owner has, whatever it was told. */
START_TEST(all_keys_of_an_owner_have_its_quotas)
{
        struct answer answer = { 0 };
        struct key_record first = make_key(1, "a"), second = make_key(2, "b"),
                          other = make_key(3, "c");
        const struct key_quotas wanted = { { 5, 6, 7, 8 } };
        const struct keys *keys;

        (void)strcpy(first.owner, "key-000001");
        (void)strcpy(second.owner, "key-000001");
        (void)strcpy(other.owner, "key-000003");
        first.quotas = (struct key_quotas){ { 1, 2, 3, 4 } };
        store_insert_key(fixture.store, &first, on_answer, &answer);
        store_insert_key(fixture.store, &other, on_answer, &answer);
        store_set_quotas(fixture.store, first.key_id, BIT(KEY_QUOTA_MEMORY), &wanted, on_answer,
                         &answer);
        store_insert_key(fixture.store, &second, on_answer, &answer);
        store_set_quotas(fixture.store, second.key_id, BIT(KEY_QUOTA_CPU), &wanted, on_answer,
                         &answer);
        wait_for(&fixture, &answer.n_calls, 5);
        ck_assert_int_eq(answer.result, 0);
        store_set_quotas(fixture.store, "key-none", 1, &wanted, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 6);
        ck_assert_int_eq(answer.result, STORE_E_NOT_FOUND);

        keys = list_keys();
        ck_assert_uint_eq(keys->n, 3);
        for (size_t i = 0; i < keys->n; i++) {
                bool is_other = strcmp(keys->records[i].owner, other.owner) == 0;
                const struct key_quotas expected = { { 1, 6, 7, 4 } };

                ck_assert_mem_eq(&keys->records[i].quotas, is_other ? &other.quotas : &expected,
                                 sizeof(expected));
        }
}
END_TEST

START_TEST(the_same_secret_twice_is_our_mistake)
{
        struct answer answer = { 0 };
        struct key_record key = make_key(1, "ci"), again = make_key(2, "other");

        (void)memcpy(again.secret_sha256, key.secret_sha256, sizeof(key.secret_sha256));
        store_insert_key(fixture.store, &key, on_answer, &answer);
        store_insert_key(fixture.store, &again, on_answer, &answer);
        wait_for(&fixture, &answer.n_calls, 2);
        ck_assert_int_eq(answer.result, -EEXIST);
}
END_TEST

START_TEST(old_revoked_keys_are_forgotten_for_new_ones)
{
        struct answer answer = { 0 };
        const struct keys *keys;

        for (int i = 1; i <= STORE_KEYS_MAX + 5; i++) {
                struct key_record key = make_key(i, "same");

                store_insert_key(fixture.store, &key, on_answer, &answer);
                store_revoke_key(fixture.store, key.key_id, i, on_answer, &answer);
        }
        wait_for(&fixture, &answer.n_calls, 2 * (STORE_KEYS_MAX + 5));
        keys = list_keys();
        ck_assert_uint_eq(keys->n, STORE_KEYS_MAX);
        ck_assert_str_eq(keys->records[STORE_KEYS_MAX - 1].key_id, "key-000006");
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                keys_are_kept_revoked_and_their_names_freed,
                an_expired_key_gives_its_name_free,
                what_a_key_may_and_when_it_was_used_comes_back,
                all_keys_of_an_owner_have_its_quotas,
                the_same_secret_twice_is_our_mistake,
                old_revoked_keys_are_forgotten_for_new_ones,
        };
        TCase *tcase = tcase_create("keys");
        Suite *suite = suite_create("store keys");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
