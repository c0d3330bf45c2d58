#include "runtime/supervisor/direct_pool.h"

#include <arpa/inet.h>
#include <assert.h>
#include <netinet/in.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/base/text.h"

enum {
        V4_BITS = 32,
        V6_BITS = 128,
};

static const char *const problem_texts[] = {
        [DIRECT_POOL_OK] = "is good",
        [DIRECT_POOL_E_FORM] = "is not a prefix, such as 198.51.100.0/22 or 2001:db8:7::/64",
        [DIRECT_POOL_E_HOST_BITS] = "has bits set behind its prefix length",
        [DIRECT_POOL_E_KIND] = "has addresses that no device may have",
        [DIRECT_POOL_E_TWICE] = "is the second of its family: there is one of each",
};
static_assert(ARRAY_SIZE(problem_texts) == _DIRECT_POOL_PROBLEM_N, "every problem has a sentence");

const char *direct_pool_problem_text(int problem)
{
        assert(problem >= 0 && problem < _DIRECT_POOL_PROBLEM_N);

        return problem_texts[problem];
}

/* Of the whole number from bit @n_bits on. */
static bool has_host_bits(const uint8_t bytes[static 16], unsigned n_bits, unsigned width)
{
        for (unsigned i = n_bits; i < width; i++)
                if (bytes[i / 8] & 0x80 >> i % 8)
                        return true;
        return false;
}

static bool overlaps(const struct direct_prefix *prefix, const uint8_t *bytes, unsigned n_bits)
{
        unsigned n = MIN(prefix->n_bits, n_bits);

        for (unsigned i = 0; i < n; i++)
                if ((prefix->bytes[i / 8] ^ bytes[i / 8]) & 0x80 >> i % 8)
                        return false;
        return true;
}

/* This network, loopback, link-local, multicast and what is reserved. */
static bool is_odd4(const struct direct_prefix *prefix)
{
        static const struct {
                uint8_t bytes[4];
                unsigned n_bits;
        } odd[] = { { { 0 }, 8 }, { { 127 }, 8 }, { { 169, 254 }, 16 }, { { 224 }, 3 } };

        for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
                if (overlaps(prefix, odd[i].bytes, odd[i].n_bits))
                        return true;
        return false;
}

/* All below 100::, where loopback, mapped and translated addresses are; link-local, multicast. */
static bool is_odd6(const struct direct_prefix *prefix)
{
        static const struct {
                uint8_t bytes[2];
                unsigned n_bits;
        } odd[] = { { { 0 }, 8 }, { { 0xfe, 0x80 }, 9 }, { { 0xff }, 8 } };

        for (size_t i = 0; i < ARRAY_SIZE(odd); i++)
                if (overlaps(prefix, odd[i].bytes, odd[i].n_bits))
                        return true;
        return false;
}

static int parse(const char *text, bool *ret_is_v6, struct direct_prefix *ret_prefix)
{
        struct direct_prefix prefix = { .is_set = true };
        char address[INET6_ADDRSTRLEN];
        const char *slash = strchr(text, '/');
        bool is_v6 = strchr(text, ':') != NULL;
        unsigned width = is_v6 ? V6_BITS : V4_BITS;
        uint64_t n_bits;

        if (!slash || (size_t)(slash - text) >= sizeof(address))
                return DIRECT_POOL_E_FORM;
        memcpy(address, text, (size_t)(slash - text));
        address[slash - text] = '\0';
        if (inet_pton(is_v6 ? AF_INET6 : AF_INET, address, prefix.bytes) != 1 ||
            !text_to_uint64(slash + 1, width, &n_bits))
                return DIRECT_POOL_E_FORM;
        prefix.n_bits = (uint8_t)n_bits;
        if (has_host_bits(prefix.bytes, prefix.n_bits, width))
                return DIRECT_POOL_E_HOST_BITS;
        *ret_is_v6 = is_v6;
        *ret_prefix = prefix;
        return 0;
}

int direct_pool_add(struct direct_pool *pool, const char *text)
{
        struct direct_prefix prefix, *place;
        bool is_v6;
        int r = parse(text, &is_v6, &prefix);

        if (r)
                return r;
        place = is_v6 ? &pool->v6 : &pool->v4;
        if (place->is_set)
                return DIRECT_POOL_E_TWICE;
        if (is_v6 ? is_odd6(&prefix) : is_odd4(&prefix))
                return DIRECT_POOL_E_KIND;
        *place = prefix;
        return 0;
}

static uint32_t size_of(const struct direct_prefix *prefix, unsigned width, uint32_t n_unused)
{
        unsigned n_bits = width - prefix->n_bits;
        uint32_t n = n_bits >= 17 ? DIRECT_POOL_MAX + n_unused : 1U << n_bits;

        if (!prefix->is_set)
                return DIRECT_POOL_MAX;
        return n > n_unused ? MIN(n - n_unused, (uint32_t)DIRECT_POOL_MAX) : 0;
}

uint32_t direct_pool_size(const struct direct_pool *pool)
{
        return MIN(size_of(&pool->v4, V4_BITS, 2), size_of(&pool->v6, V6_BITS, 1));
}

struct direct_address direct_pool_address(const struct direct_pool *pool, uint32_t index)
{
        struct direct_address address = { 0 };

        assert(index < direct_pool_size(pool));
        if (pool->v4.is_set) {
                memcpy(&address.v4, pool->v4.bytes, sizeof(address.v4));
                address.v4 = htonl(ntohl(address.v4) + 1 + index);
        }
        if (pool->v6.is_set) {
                memcpy(address.v6, pool->v6.bytes, sizeof(address.v6));
                /* Lower bits of a prefix are zero, so nothing is carried. */
                address.v6[3] = htonl(ntohl(address.v6[3]) + 1 + index);
        }
        return address;
}
