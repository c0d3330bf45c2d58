/* Policies as tests write them, and allocations that fail. */
#pragma once

#include <check.h>

#include "runtime/policy/policy.h"

/* Adds a rule such as `deny 10.0.0.0/8 80-90,443`, `allow udp 10.0.0.0/8` or `allow *.example.org`.
 */
void add_written(struct policy *policy, const char *text);

struct policy_prefix prefix_of(const char *text);
struct policy_address address_of(const char *text);

/* The n-th allocation from now on fails, and no other; 0: none does. */
void fail_allocation(unsigned n);

/* Runs the tests of a suite and says how main() ends. */
int run_tests(const char *name, const TTest *const *tests, size_t n);
