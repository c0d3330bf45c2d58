/* Policies by chance, the same for the same seed everywhere. */
#pragma once

#include "runtime/policy/policy.h"

/* Begins with its seed, which is not zero. */
struct random {
        uint64_t state;
};

/* A number from 0 to n - 1. */
unsigned below(struct random *random, unsigned n);

/* Around a few places, so that they lie inside and beside one another. */
struct policy_prefix random_prefix(struct random *random);

/* Of up to four labels, of which there are few. */
void random_name(struct random *random, char name[POLICY_DOMAIN_BUFFER]);

/* One to 40 rules. Their ports begin or end at 1 to 32 and at 65530 to 65535, nowhere else. */
void random_policy(struct random *random, struct policy *policy);
