/* Runs tests that each get a spawner, in cgroups that they share. */
#pragma once

#include <check.h>
#include <stddef.h>

#include "test/container/fixture.h"

extern struct fixture fixture;

/* Runs @code in Python as the user and expects what it prints. */
#define ck_assert_python(box, code, wanted)                                                        \
        do {                                                                                       \
                static struct outcome python_outcome;                                              \
                                                                                                   \
                python_run(&fixture, (box), (code), &python_outcome);                              \
                ck_assert_str_eq(python_outcome.output, (wanted));                                 \
        } while (0)

#define ck_assert_shell(box, code, wanted)                                                         \
        do {                                                                                       \
                static struct outcome shell_outcome;                                               \
                                                                                                   \
                shell_run(&fixture, (box), (code), &shell_outcome);                                \
                ck_assert_str_eq(shell_outcome.output, (wanted));                                  \
        } while (0)

/* For main(): an exit code. START_TEST makes each name a pointer; @tests are their addresses. */
int suite_run(const char *name, const TTest **const *tests, size_t n_tests);
