#include "test/container/suite.h"
#include "test/lib/suite.h"

#include <stdio.h>
#include <stdlib.h>

enum { TEST_SECONDS = 120 };

struct fixture fixture;

/* In the parent, so that they are removed after a test that failed, too. */
static void setup_once(void)
{
        fixture_init_cgroups(&fixture);
}

static void teardown_once(void)
{
        fixture_deinit_cgroups(&fixture);
}

static void setup(void)
{
        fixture_init(&fixture);
}

static void teardown(void)
{
        fixture_deinit(&fixture);
}

int suite_run(const char *name, const TTest **const *tests, size_t n_tests)
{
        const char *missing = fixture_missing();
        Suite *suite = suite_create(name);
        TCase *tcase = tcase_create(name);

        if (missing) {
                (void)printf("1..0 # SKIP %s\n", missing);
                return EXIT_SUCCESS;
        }
        tcase_set_timeout(tcase, TEST_SECONDS);
        tcase_add_unchecked_fixture(tcase, setup_once, teardown_once);
        tcase_add_checked_fixture(tcase, setup, teardown);
        for (size_t i = 0; i < n_tests; i++)
                tcase_add_test(tcase, *tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
