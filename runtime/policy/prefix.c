/* Where IPv6 addresses carry IPv4 ones: RFC 6052 (NAT64), RFC 3056 (6to4), RFC 4291 2.5.5. */
#include "runtime/policy/prefix.h"

#include <assert.h>
#include <string.h>

#include "runtime/base/macros.h"

static const struct {
        uint8_t n_bytes; /* in front of the IPv4 address */
        uint8_t bytes[12];
} embeddings[] = {
        { 12, { 0x00, 0x64, 0xff, 0x9b } },
        { 2, { 0x20, 0x02 } },
        { 12, { 0 } },
};
static_assert(ARRAY_SIZE(embeddings) == POLICY_EMBEDDINGS, "as the header says");

unsigned __int128 policy_number(const uint8_t *bytes, bool is_v6)
{
        unsigned __int128 number = 0;

        for (size_t i = 0; i < (is_v6 ? 16U : 4U); i++)
                number = number << 8 | bytes[i];
        return number;
}

int policy_prefix_compare(const struct policy_prefix *a, const struct policy_prefix *b)
{
        int order;

        if (a->is_v6 != b->is_v6)
                return a->is_v6 ? 1 : -1;
        order = memcmp(a->bytes, b->bytes, sizeof(a->bytes));
        if (order)
                return order;
        return (a->n_bits > b->n_bits) - (a->n_bits < b->n_bits);
}

bool policy_prefix_encloses(const struct policy_prefix *outer, const struct policy_prefix *inner)
{
        size_t n_bytes = outer->n_bits / 8;
        uint8_t mask = (uint8_t)(0xff00 >> outer->n_bits % 8);

        if (outer->is_v6 != inner->is_v6 || outer->n_bits > inner->n_bits)
                return false;
        if (memcmp(outer->bytes, inner->bytes, n_bytes) != 0)
                return false;
        return mask == 0 || ((outer->bytes[n_bytes] ^ inner->bytes[n_bytes]) & mask) == 0;
}

bool policy_is_v4_mapped(const uint8_t bytes[static 16])
{
        static const uint8_t mapped[12] = { [10] = 0xff, [11] = 0xff };

        return memcmp(bytes, mapped, sizeof(mapped)) == 0;
}

struct policy_address policy_address_v4(const void *bytes)
{
        struct policy_address address = { 0 };

        memcpy(address.bytes, bytes, 4);
        return address;
}

struct policy_address policy_address_v6(const void *bytes)
{
        struct policy_address address = { .is_v6 = true };

        memcpy(address.bytes, bytes, sizeof(address.bytes));
        return policy_is_v4_mapped(address.bytes) ? policy_address_v4(address.bytes + 12) : address;
}

bool policy_embedded_v4(const struct policy_address *address, struct policy_address *ret_v4)
{
        if (!address->is_v6)
                return false;
        for (unsigned i = 0; i < POLICY_EMBEDDINGS; i++) {
                if (memcmp(address->bytes, embeddings[i].bytes, embeddings[i].n_bytes) != 0)
                        continue;
                *ret_v4 = policy_address_v4(address->bytes + embeddings[i].n_bytes);
                return true;
        }
        return false;
}

struct policy_prefix policy_embed_v4(const struct policy_prefix *v4, unsigned embedding)
{
        uint8_t n_bytes = embeddings[embedding].n_bytes;
        struct policy_prefix prefix = { .is_v6 = true };

        assert(!v4->is_v6);

        prefix.n_bits = (uint8_t)(8 * n_bytes + v4->n_bits);
        memcpy(prefix.bytes, embeddings[embedding].bytes, n_bytes);
        memcpy(prefix.bytes + n_bytes, v4->bytes, 4);
        return prefix;
}
