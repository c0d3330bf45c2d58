/* Etags: whoever changes or deletes a sandbox can insist on the one that it saw. */
#include <check.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/unit/session/fixture.h"

static const char *etag_of(const struct sandbox_record *record)
{
        static char etags[4][ETAG_BUFFER];
        static size_t n;
        char *etag = etags[n++ % ARRAY_SIZE(etags)];

        sandbox_etag(record, etag);
        return etag;
}

START_TEST(an_etag_changes_with_what_an_update_can_change)
{
        struct pair some[] = { { (char *)"a", (char *)"1" }, { (char *)"b", (char *)"2" } };
        struct pair turned[] = { some[1], some[0] };
        struct pair shifted[] = { { (char *)"a1", (char *)"" }, some[1] };
        struct sandbox_record base = { .expire_time_usec = 5, .labels = { some, 2 } };
        struct sandbox_record other = base;

        other.labels.items = turned;
        other.state = SANDBOX_ENDED;
        other.usage.total.cpu_usec = 1;
        ck_assert_str_eq(etag_of(&other), etag_of(&base));
        other.labels.items = shifted;
        ck_assert_str_ne(etag_of(&other), etag_of(&base));
        other = base;
        other.labels.n = 1;
        ck_assert_str_ne(etag_of(&other), etag_of(&base));
        other = base;
        other.expire_time_usec = 6;
        ck_assert_str_ne(etag_of(&other), etag_of(&base));
        other.expire_time_usec = 0;
        other.idle_timeout_usec = 5;
        ck_assert_str_ne(etag_of(&other), etag_of(&base));
        other = base;
        other.egress_version = 2;
        ck_assert_str_ne(etag_of(&other), etag_of(&base));
}
END_TEST

START_TEST(an_update_of_another_version_is_a_conflict)
{
        struct answer sandbox = new_sandbox();
        struct sandbox_update update = {
                .etag = etag_of(&sandbox.sandbox),
                .set_idle_timeout = true,
                .idle_timeout_usec = INT64_C(3600) * 1000000,
        };
        struct answer answer = update_sandbox(sandbox.sandbox.sandbox_id, &update);

        ck_assert_int_eq(answer.result.outcome, 0);
        update.idle_timeout_usec = 0;
        answer = update_sandbox(sandbox.sandbox.sandbox_id, &update);
        ck_assert_int_eq(answer.result.outcome, SESSION_E_CONFLICT);
        answer = get_sandbox(sandbox.sandbox.sandbox_id);
        ck_assert_int_eq(answer.sandbox.idle_timeout_usec, INT64_C(3600) * 1000000);

        update.etag = etag_of(&answer.sandbox);
        ck_assert_int_eq(update_sandbox(sandbox.sandbox.sandbox_id, &update).result.outcome, 0);
}
END_TEST

START_TEST(a_delete_of_another_version_is_a_conflict_while_it_lives)
{
        struct answer sandbox = new_sandbox();
        const char *id = sandbox.sandbox.sandbox_id;

        ck_assert_int_eq(delete_sandbox_if(id, "other").result.outcome, SESSION_E_CONFLICT);
        ck_assert_int_eq(get_sandbox(id).sandbox.state, SANDBOX_RUNNING);
        ck_assert_int_eq(delete_sandbox_if(id, etag_of(&sandbox.sandbox)).result.outcome, 0);
        ck_assert_int_eq(delete_sandbox_if(id, "other").result.outcome, 0);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &an_etag_changes_with_what_an_update_can_change,
                &an_update_of_another_version_is_a_conflict,
                &a_delete_of_another_version_is_a_conflict_while_it_lives,
        };
        const TTest *all[ARRAY_SIZE(tests)];

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                all[i] = *tests[i];
        return run_suite("etags", all, ARRAY_SIZE(all));
}
