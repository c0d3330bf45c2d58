/* How the program of a suite ends. */
#pragma once

#include <check.h>
#include <stdlib.h>

/* For main(): an exit code. Runs all tests, and reports them as the environment says; takes the
 * suite. */
static inline int suite_main(Suite *suite)
{
        SRunner *runner = srunner_create(suite);
        int n_failed;

        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed == 0 ? EXIT_SUCCESS : EXIT_FAILURE;
}
