#include <check.h>
#include <stdint.h>
#include <stdlib.h>

#include "runtime/supervisor/terminals.h"
#include "test/lib/suite.h"

START_TEST(all_sandboxes_together_take_no_more_than_there_are)
{
        for (uint32_t n_sandboxes = 1; n_sandboxes <= 1024; n_sandboxes++) {
                struct terminals found = terminals_share(4096, 1024, n_sandboxes);

                ck_assert(found.is_enough);
                ck_assert_uint_eq(found.n_host, 3072);
                ck_assert_uint_le((uint64_t)found.n_sandbox * n_sandboxes, 3072);
                ck_assert_uint_ge(found.n_sandbox, TERMINALS_MIN);
                ck_assert_uint_le(found.n_sandbox, TERMINALS_MOST);
        }
        ck_assert_uint_eq(terminals_share(4096, 1024, 1).n_sandbox, TERMINALS_MOST);
        ck_assert_uint_eq(terminals_share(4096, 1024, 60).n_sandbox, 51);
}
END_TEST

START_TEST(a_sandbox_has_some_even_where_there_are_not_enough)
{
        ck_assert(!terminals_share(4096, 1024, 1025).is_enough);
        ck_assert_uint_eq(terminals_share(4096, 1024, 16384).n_sandbox, TERMINALS_MIN);
        ck_assert(!terminals_share(100, 1024, 1).is_enough);
        ck_assert_uint_eq(terminals_share(100, 1024, 1).n_sandbox, TERMINALS_MIN);
        ck_assert(terminals_share(UINT32_MAX, 0, 1).is_enough);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("terminals");
        TCase *tcase = tcase_create("terminals");

        tcase_add_test(tcase, all_sandboxes_together_take_no_more_than_there_are);
        tcase_add_test(tcase, a_sandbox_has_some_even_where_there_are_not_enough);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
