/* Who is let in, and as whom. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/auth/auth.h"
#include "server/rpc/rpc.h"
#include "test/lib/suite.h"
#include "test/unit/store/fixture.h"

static const struct rpc_peer unix_peer = { .is_unix = true, .uid = 1000 };
static const struct rpc_peer tcp_peer = { .is_unix = false };

static struct fixture fixture;
static struct auth *auth;

static void open_auth(void)
{
        struct answer loaded = { 0 };

        fixture_open(&fixture);
        ck_assert_int_eq(auth_new(fixture.loop, fixture.store, on_answer, &loaded, &auth), 0);
        wait_for(&fixture, &loaded.n_calls, 1);
        ck_assert_int_eq(loaded.result, 0);
}

static void close_auth(void)
{
        fixture_close(&fixture);
        auth = auth_free(auth);
}

static void set_up(void)
{
        fixture = fixture_new();
        open_auth();
}

static void tear_down(void)
{
        close_auth();
        fixture_free(&fixture);
}

struct key_answer {
        int n_calls;
        int result;
        struct key_record key;
        char secret[SECRET_BUFFER];
};

static void on_key(void *userdata, int result, const struct key_record *record, const char *secret)
{
        struct key_answer *answer = userdata;

        ck_assert_int_eq(result == 0, record != NULL);
        answer->n_calls++;
        answer->result = result;
        if (record)
                answer->key = *record;
        if (secret)
                (void)strcpy(answer->secret, secret);
}

static struct key_answer create(const struct key_request *request)
{
        struct key_answer answer = { 0 };

        auth_create_key(auth, request, on_key, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer;
}

static struct key_request request_of(const char *name)
{
        return (struct key_request){ .name = name, .scopes = SCOPES_OF_KEYS, .owner_key_id = "" };
}

static struct key_answer create_key(const char *name)
{
        struct key_request request = request_of(name);

        return create(&request);
}

static struct key_answer revoke_key(const char *key_id)
{
        struct key_answer answer = { 0 };

        auth_revoke_key(auth, key_id, on_key, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer;
}

static int identify(const struct rpc_peer *peer, const char *authorization, const char *api_key,
                    struct identity *ret_identity)
{
        return auth_identify(auth, peer, authorization, api_key, ret_identity);
}

START_TEST(a_peer_of_the_unix_socket_is_its_uid_and_an_operator)
{
        struct identity identity;

        ck_assert_int_eq(identify(&unix_peer, NULL, NULL, &identity), 0);
        ck_assert_str_eq(identity.owner, "uid:1000");
        ck_assert(identity.is_operator);
}
END_TEST

START_TEST(tcp_needs_a_key)
{
        struct identity identity;

        ck_assert_int_eq(identify(&tcp_peer, NULL, NULL, &identity), AUTH_E_MISSING);
}
END_TEST

START_TEST(a_key_lets_in_by_either_header_as_itself)
{
        struct key_answer made = create_key("ci");
        struct identity identity;
        char bearer[80];

        ck_assert_int_eq(made.result, 0);
        ck_assert_uint_eq(strlen(made.secret), 56);
        ck_assert_int_eq(strncmp(made.secret, "hck_", 4), 0);
        (void)snprintf(bearer, sizeof(bearer), "bEARER  %s", made.secret);

        ck_assert_int_eq(identify(&tcp_peer, bearer, NULL, &identity), 0);
        ck_assert_str_eq(identity.owner, made.key.key_id);
        ck_assert(!identity.is_operator);
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), 0);
        /* Also on the unix socket: whoever shows a key wants to be that key. */
        ck_assert_int_eq(identify(&unix_peer, NULL, made.secret, &identity), 0);
        ck_assert_str_eq(identity.owner, made.key.key_id);
        ck_assert(!identity.is_operator);
}
END_TEST

START_TEST(what_is_no_good_key_is_invalid_everywhere)
{
        struct key_answer made = create_key("ci");
        char other[SECRET_BUFFER], bearer[80];
        struct identity identity;

        (void)strcpy(other, made.secret);
        other[20] = other[20] == 'a' ? 'b' : 'a';
        (void)snprintf(bearer, sizeof(bearer), "Basic %s", made.secret);
        const char *const authorizations[] = {
                bearer, "", "Bearer", "Bearer ", "hck_", made.secret
        };
        const char *const keys[] = { other, "", "hck_", "x", made.secret + 1 };

        for (size_t i = 0; i < ARRAY_SIZE(authorizations); i++) {
                ck_assert_int_eq(identify(&tcp_peer, authorizations[i], NULL, &identity),
                                 AUTH_E_INVALID);
                ck_assert_int_eq(identify(&unix_peer, authorizations[i], NULL, &identity),
                                 AUTH_E_INVALID);
                /* A good second header does not mend a bad first one. */
                ck_assert_int_eq(identify(&tcp_peer, authorizations[i], made.secret, &identity),
                                 AUTH_E_INVALID);
        }
        for (size_t i = 0; i < ARRAY_SIZE(keys); i++)
                ck_assert_int_eq(identify(&unix_peer, NULL, keys[i], &identity), AUTH_E_INVALID);
}
END_TEST

START_TEST(a_revoked_key_lets_nobody_in_also_after_a_restart)
{
        struct key_answer made = create_key("ci"), kept = create_key("kept"), revoked;
        struct identity identity;

        revoked = revoke_key(made.key.key_id);
        ck_assert_int_eq(revoked.result, 0);
        ck_assert_int_gt(revoked.key.revoke_time_usec, 0);
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), AUTH_E_REVOKED);
        ck_assert_int_eq(revoke_key(made.key.key_id).key.revoke_time_usec,
                         revoked.key.revoke_time_usec);

        close_auth();
        open_auth();
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), AUTH_E_REVOKED);
        ck_assert_int_eq(identify(&tcp_peer, NULL, kept.secret, &identity), 0);
        ck_assert_str_eq(identity.owner, kept.key.key_id);
}
END_TEST

static struct key_answer update_key(const char *key_id, unsigned set, struct key_quotas quotas)
{
        struct key_answer answer = { 0 };

        auth_update_key(auth, key_id, set, &quotas, on_key, &answer);
        wait_for(&fixture, &answer.n_calls, 1);
        return answer;
}

START_TEST(quotas_are_the_owners_and_kept)
{
        struct key_request request = request_of("ci");
        struct key_answer first, second, updated;

        request.quotas = (struct key_quotas){ { 1, 2, 3, 4 } };
        first = create(&request);
        request = request_of("second");
        request.owner_key_id = first.key.key_id;
        second = create(&request);
        ck_assert_int_eq(second.key.quotas.most[KEY_QUOTA_EXECUTIONS], 4);
        ck_assert_int_eq(create_key("other").key.quotas.most[KEY_QUOTA_SANDBOXES], 0);

        updated = update_key(second.key.key_id, BIT(KEY_QUOTA_SANDBOXES),
                             (struct key_quotas){ { 9, 9, 9, 9 } });
        ck_assert_int_eq(updated.result, 0);
        ck_assert_int_eq(updated.key.quotas.most[KEY_QUOTA_SANDBOXES], 9);
        for (int i = 0; i < 2; i++) {
                const struct key_quotas *quotas = auth_quotas_of(auth, first.key.key_id);

                ck_assert_ptr_nonnull(quotas);
                ck_assert_int_eq(quotas->most[KEY_QUOTA_SANDBOXES], 9);
                ck_assert_int_eq(quotas->most[KEY_QUOTA_MEMORY], 2);
                ck_assert_int_eq(quotas->most[KEY_QUOTA_CPU], 3);
                ck_assert_int_eq(quotas->most[KEY_QUOTA_EXECUTIONS], 4);
                close_auth();
                open_auth();
        }
        ck_assert_ptr_null(auth_quotas_of(auth, "key-none"));
        ck_assert_int_eq(update_key("key-none", 1, (struct key_quotas){ 0 }).result,
                         AUTH_E_NOT_FOUND);
}
END_TEST

START_TEST(a_key_has_its_scopes_and_no_others)
{
        struct key_request request = request_of("ci");
        struct identity identity;
        struct key_answer made;

        request.scopes = BIT(SCOPE_EXECUTIONS_WRITE);
        made = create(&request);
        close_auth();
        open_auth();
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), 0);
        for (int scope = 0; scope <= SCOPE_OPERATOR; scope++)
                ck_assert_int_eq(identity_has_scope(&identity, (enum scope)scope),
                                 scope == SCOPE_EXECUTIONS_WRITE);

        made = create_key("all");
        ck_assert_int_eq(identify(&unix_peer, NULL, made.secret, &identity), 0);
        for (int scope = 0; scope <= SCOPE_OPERATOR; scope++)
                ck_assert_int_eq(identity_has_scope(&identity, (enum scope)scope),
                                 scope != SCOPE_OPERATOR);
        ck_assert_int_eq(identify(&unix_peer, NULL, NULL, &identity), 0);
        ck_assert(identity_has_scope(&identity, SCOPE_OPERATOR));
}
END_TEST

START_TEST(scopes_have_names_that_people_are_told)
{
        enum scope scope;

        for (int i = 0; i < _SCOPE_KEY_N; i++) {
                ck_assert(scope_of_name(scope_name((enum scope)i), &scope));
                ck_assert_int_eq(scope, i);
                ck_assert_ptr_nonnull(strstr(SCOPE_NAMES, scope_name(scope)));
        }
        ck_assert(!scope_of_name("operator", &scope));
        ck_assert(!scope_of_name("", &scope));
}
END_TEST

START_TEST(a_key_can_share_the_owner_of_an_older_one)
{
        struct key_answer first = create_key("first"), second, third;
        struct key_request request = request_of("second");
        struct identity identity;

        (void)revoke_key(first.key.key_id);
        request.owner_key_id = first.key.key_id;
        second = create(&request);
        ck_assert_int_eq(identify(&tcp_peer, NULL, second.secret, &identity), 0);
        ck_assert_str_eq(identity.owner, first.key.key_id);
        ck_assert_str_eq(identity.key_id, second.key.key_id);

        request = request_of("third");
        request.owner_key_id = second.key.key_id;
        third = create(&request);
        ck_assert_str_eq(third.key.owner, first.key.key_id);

        request.owner_key_id = "key-none";
        ck_assert_int_eq(create(&request).result, AUTH_E_NOT_FOUND);
}
END_TEST

/* Who was told to be over. */
struct over {
        int n_calls;
        int outcome;
        char key_id[ID_BUFFER];
};

static void on_key_over(void *userdata, const char *key_id, int outcome)
{
        struct over *over = userdata;

        over->n_calls++;
        over->outcome = outcome;
        (void)strcpy(over->key_id, key_id);
}

START_TEST(a_key_expires_at_its_time_and_that_is_told)
{
        struct key_request request = request_of("short");
        struct key_answer made, later;
        struct over over = { 0 };
        struct identity identity;

        auth_observe(auth, on_key_over, &over);
        request.expire_time_usec = time_now_usec() + INT64_C(3600000000);
        later = create(&request);
        request.name = "shorter";
        request.expire_time_usec = time_now_usec() + 500000;
        made = create(&request);
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), 0);

        wait_for(&fixture, &over.n_calls, 1);
        ck_assert_int_ge(time_now_usec(), request.expire_time_usec);
        ck_assert_str_eq(over.key_id, made.key.key_id);
        ck_assert_int_eq(over.outcome, AUTH_E_EXPIRED);
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), AUTH_E_EXPIRED);
        ck_assert_int_eq(identify(&tcp_peer, NULL, later.secret, &identity), 0);
        ck_assert_int_eq(create_key("shorter").result, 0); /* the name is free again */

        close_auth();
        open_auth();
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), AUTH_E_EXPIRED);
        ck_assert_int_eq(revoke_key(made.key.key_id).result, 0);
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), AUTH_E_REVOKED);
}
END_TEST

START_TEST(each_key_expires_after_the_one_before_it)
{
        struct key_request request = request_of("second");
        struct key_answer second;
        struct over over = { 0 };

        auth_observe(auth, on_key_over, &over);
        request.expire_time_usec = time_now_usec() + 900000;
        second = create(&request);
        request.name = "first";
        request.expire_time_usec = time_now_usec() + 300000;
        (void)create(&request);
        wait_for(&fixture, &over.n_calls, 2);
        ck_assert_str_eq(over.key_id, second.key.key_id);
        ck_assert_int_eq(over.outcome, AUTH_E_EXPIRED);
}
END_TEST

START_TEST(a_key_expires_on_time_after_a_restart)
{
        struct key_request request = request_of("short");
        struct over over = { 0 };

        request.expire_time_usec = time_now_usec() + 500000;
        (void)create(&request);
        close_auth();
        open_auth();
        auth_observe(auth, on_key_over, &over);
        wait_for(&fixture, &over.n_calls, 1);
        ck_assert_int_eq(over.outcome, AUTH_E_EXPIRED);
}
END_TEST

START_TEST(a_revocation_is_told_once_before_its_answer)
{
        struct key_answer made = create_key("ci");
        struct over over = { 0 };

        auth_observe(auth, on_key_over, &over);
        (void)revoke_key(made.key.key_id);
        ck_assert_int_eq(over.n_calls, 1);
        ck_assert_str_eq(over.key_id, made.key.key_id);
        ck_assert_int_eq(over.outcome, AUTH_E_REVOKED);
        (void)revoke_key(made.key.key_id);
        ck_assert_int_eq(over.n_calls, 1);
}
END_TEST

START_TEST(the_use_of_a_key_is_noted_to_the_minute_and_kept)
{
        struct key_answer made = create_key("ci");
        int64_t before = time_now_usec(), noted;
        struct identity identity;
        size_t n;

        ck_assert_int_eq(auth_list(auth, &n)[0].last_used_time_usec, 0);
        ck_assert_int_eq(identify(&tcp_peer, NULL, made.secret, &identity), 0);
        noted = auth_list(auth, &n)[0].last_used_time_usec;
        ck_assert_int_eq(noted % 60000000, 0);
        ck_assert_int_gt(noted, before - 60000000);
        ck_assert_int_le(noted, time_now_usec());
        close_auth();
        open_auth();
        ck_assert_int_eq(auth_list(auth, &n)[0].last_used_time_usec, noted);
}
END_TEST

START_TEST(names_are_unique_among_good_keys)
{
        struct key_answer first = create_key("ci");

        ck_assert_int_eq(create_key("ci").result, AUTH_E_NAME_IN_USE);
        (void)revoke_key(first.key.key_id);
        ck_assert_int_eq(create_key("ci").result, 0);
        ck_assert_int_eq(revoke_key("key-none").result, AUTH_E_NOT_FOUND);
}
END_TEST

START_TEST(keys_are_listed_newest_first)
{
        size_t n;

        (void)create_key("first");
        (void)create_key("second");
        ck_assert_str_eq(auth_list(auth, &n)[0].name, "second");
        ck_assert_uint_eq(n, 2);
}
END_TEST

START_TEST(there_are_at_most_a_thousand_good_keys)
{
        struct key_answer answers = { 0 }, oldest = create_key("oldest"), again;
        struct key_request request;
        char name[16];
        size_t n;

        for (int i = 1; i < STORE_KEYS_MAX; i++) {
                (void)snprintf(name, sizeof(name), "key %d", i);
                request = request_of(name);
                auth_create_key(auth, &request, on_key, &answers);
        }
        wait_for(&fixture, &answers.n_calls, STORE_KEYS_MAX - 1);
        ck_assert_int_eq(answers.result, 0);
        ck_assert_int_eq(create_key("one more").result, AUTH_E_KEY_LIMIT);

        (void)revoke_key(oldest.key.key_id);
        again = create_key("one more");
        ck_assert_int_eq(again.result, 0);
        ck_assert_str_eq(auth_list(auth, &n)[0].key_id, again.key.key_id);
        ck_assert_uint_eq(n, STORE_KEYS_MAX);

        close_auth();
        open_auth();
        (void)auth_list(auth, &n);
        ck_assert_uint_eq(n, STORE_KEYS_MAX);
        ck_assert_int_eq(revoke_key(oldest.key.key_id).result, AUTH_E_NOT_FOUND); /* forgotten */
}
END_TEST

START_TEST(a_secret_is_nowhere_in_the_database)
{
        struct key_answer made = create_key("ci");
        size_t size;
        char *bytes;

        close_auth();
        bytes = read_file(fixture_path(&fixture, "hotcell.db"), &size);
        ck_assert_ptr_null(memmem(bytes, size, made.secret + 4, 16));
        ck_assert_ptr_nonnull(memmem(bytes, size, made.key.key_id, 16));
        free(bytes);
        open_auth();
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                a_peer_of_the_unix_socket_is_its_uid_and_an_operator,
                tcp_needs_a_key,
                a_key_lets_in_by_either_header_as_itself,
                what_is_no_good_key_is_invalid_everywhere,
                a_revoked_key_lets_nobody_in_also_after_a_restart,
                quotas_are_the_owners_and_kept,
                a_key_has_its_scopes_and_no_others,
                scopes_have_names_that_people_are_told,
                a_key_can_share_the_owner_of_an_older_one,
                a_key_expires_at_its_time_and_that_is_told,
                each_key_expires_after_the_one_before_it,
                a_key_expires_on_time_after_a_restart,
                a_revocation_is_told_once_before_its_answer,
                the_use_of_a_key_is_noted_to_the_minute_and_kept,
                names_are_unique_among_good_keys,
                keys_are_listed_newest_first,
                there_are_at_most_a_thousand_good_keys,
                a_secret_is_nowhere_in_the_database,
        };
        TCase *tcase = tcase_create("auth");
        Suite *suite = suite_create("auth");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
