/* Which names are taken for new. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/egress/known_names.h"
#include "test/lib/suite.h"

START_TEST(lately_asked_names_are_known)
{
        static struct known_names names;
        uint64_t first = known_names_hash("first.example", 12345);

        ck_assert(!known_names_has(&names, first));
        known_names_add(&names, first);
        for (unsigned i = 1; i < KNOWN_NAMES_MAX; i++) {
                char name[32];

                ck_assert(known_names_has(&names, first));
                (void)snprintf(name, sizeof(name), "n%u.example", i);
                ck_assert(!known_names_has(&names, known_names_hash(name, 12345)));
                known_names_add(&names, known_names_hash(name, 12345));
        }
        ck_assert(known_names_has(&names, first));
        known_names_add(&names, known_names_hash("last.example", 12345));
        ck_assert(!known_names_has(&names, first));
}
END_TEST

START_TEST(hashes_depend_on_the_key)
{
        ck_assert_uint_ne(known_names_hash("a.example", 1000), known_names_hash("a.example", 1001));
        ck_assert_uint_ne(known_names_hash("a.example", 1000), known_names_hash("b.example", 1000));
        ck_assert_uint_ne(known_names_hash("ab", 1000), known_names_hash("ba", 1000));
        ck_assert_uint_ne(known_names_hash("", 0), 0);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("known_names");
        TCase *all = tcase_create("all");

        tcase_add_test(all, lately_asked_names_are_known);
        tcase_add_test(all, hashes_depend_on_the_key);
        suite_add_tcase(suite, all);
        return suite_main(suite);
}
