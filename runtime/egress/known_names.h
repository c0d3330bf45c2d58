/*
 * Which names were asked for lately: the last KNOWN_NAMES_MAX of them, as hashes under a key that
 * nobody outside knows, so that no two names are taken for one on purpose. Pure.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

enum { KNOWN_NAMES_MAX = 256 };

/* Of zeros it knows none. */
struct known_names {
        uint64_t hashes[KNOWN_NAMES_MAX];
        uint32_t n_added; /* ever; the next place is its rest */
};

/* @key is random. Never zero. */
uint64_t known_names_hash(const char *name, uint64_t key);

bool known_names_has(const struct known_names *names, uint64_t hash);

/* The oldest is forgotten for it. */
void known_names_add(struct known_names *names, uint64_t hash);
