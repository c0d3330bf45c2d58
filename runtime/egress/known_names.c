/*
 * The hash is the name as a polynomial at the key, modulo a prime (universal hashing): two names
 * that were chosen without knowledge of the key meet with a chance of 254 in 2^61.
 */
#include "runtime/egress/known_names.h"

__extension__ typedef unsigned __int128 uint128;

static const uint64_t prime = (UINT64_C(1) << 61) - 1;

uint64_t known_names_hash(const char *name, uint64_t key)
{
        uint64_t hash = 1;

        key %= prime;
        for (; *name; name++) {
                uint128 sum = (uint128)hash * key + (uint8_t)*name;

                hash = (uint64_t)(sum & prime) + (uint64_t)(sum >> 61);
                hash %= prime;
        }
        return hash + 1;
}

bool known_names_has(const struct known_names *names, uint64_t hash)
{
        bool is_found = false;

        for (uint32_t i = 0; i < KNOWN_NAMES_MAX && !is_found; i++)
                is_found = names->hashes[i] == hash;
        return is_found;
}

void known_names_add(struct known_names *names, uint64_t hash)
{
        names->hashes[names->n_added++ % KNOWN_NAMES_MAX] = hash;
}
