/*
 * The list follows the IANA registries of special-purpose IPv4 and IPv6 addresses (RFC 6890, as
 * they stand) where these say "not globally reachable", and the clouds' documentation. Addresses
 * that are in a range of the list already are named there, for those who look for them.
 *
 * What is left out although a registry has it: 192.31.196.0/24, 192.52.193.0/24 and 192.175.48.0/24
 * (AS112, AMT) and 2620:4f:8000::/48 are globally reachable. Those parts of 2001::/23 that are (the
 * anycast addresses of PCP, TURN and SRP, AMT, AS112, ORCHIDv2, DRIP) are denied with the rest:
 * they are for protocols that nothing here carries.
 *
 * IPv6 addresses that translators and tunnels lead to an IPv4 address: the well-known prefix of
 * NAT64, 6to4 and IPv4-compatible ones are denied with what they lead to (prefix.h), mapped ones
 * are IPv4. All of SIIT's, of a network's own NAT64 by its well-known prefix and of Teredo are
 * denied. ISATAP's are in any prefix, so no table has them: policy_always_find() looks. NAT64 by a
 * prefix out of a network's own addresses cannot be told from other addresses.
 */
#include "runtime/policy/always.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum { ISATAP_UNIVERSAL = 2 }; /* the bit of an IPv4 address that is the only one (RFC 5214 6.1) */

static const struct {
        const char *cidr;
        const char *what;
} shipped[] = {
        { "0.0.0.0/8", "this network, by which Linux reaches itself (RFC 791 3.2)" },
        { "10.0.0.0/8", "private (RFC 1918)" },
        /* With 100.100.100.200, where Alibaba Cloud's machines find their metadata. */
        { "100.64.0.0/10", "shared by carriers, with a cloud's metadata (RFC 6598)" },
        { "127.0.0.0/8", "loopback (RFC 1122 3.2.1.3)" },
        /* With 169.254.169.254 (metadata of AWS, Google Cloud, Azure and most others) and
         * 169.254.170.2 (credentials of AWS ECS's tasks). */
        { "169.254.0.0/16", "link-local, with the clouds' metadata (RFC 3927)" },
        { "172.16.0.0/12", "private (RFC 1918)" },
        /* With 192.0.0.192, metadata of Oracle Cloud's classic machines. */
        { "192.0.0.0/24", "protocol assignments (RFC 6890)" },
        { "192.0.2.0/24", "documentation (RFC 5737)" },
        { "192.88.99.0/24", "6to4 relays, deprecated (RFC 7526)" },
        { "192.168.0.0/16", "private (RFC 1918)" },
        { "198.18.0.0/15", "benchmarks of networks (RFC 2544)" },
        { "198.51.100.0/24", "documentation (RFC 5737)" },
        { "203.0.113.0/24", "documentation (RFC 5737)" },
        { "224.0.0.0/4", "multicast (RFC 5771)" },
        /* With 255.255.255.255. */
        { "240.0.0.0/4", "reserved, with broadcast (RFC 1112 4, RFC 919 7)" },
        /* A public address, and the same in every region. */
        { "168.63.129.16/32",
          "Azure's host agent (Microsoft: \"What is IP address 168.63.129.16?\")" },

        { "::/128", "the unspecified address, by which Linux reaches itself (RFC 4291 2.5.2)" },
        { "::1/128", "loopback (RFC 4291 2.5.3)" },
        { "::ffff:0:0:0/96", "IPv4-translated, of SIIT (RFC 2765 2.1)" },
        { "64:ff9b:1::/48", "NAT64 of a network's own (RFC 8215)" },
        { "100::/64", "discarded (RFC 6666)" },
        { "100:0:0:1::/64", "dummy addresses (RFC 9780)" },
        { "2001::/23", "protocol assignments, with ORCHID (RFC 2928, RFC 4843)" },
        { "2001::/32", "Teredo (RFC 4380)" },
        { "2001:2::/48", "benchmarks of networks (RFC 5180)" },
        { "2001:db8::/32", "documentation (RFC 3849)" },
        { "3fff::/20", "documentation (RFC 9637)" },
        { "5f00::/16", "segment routing (RFC 9602)" },
        /* With fd00:ec2::254 (metadata of AWS) and fd20:ce::254 (of Google Cloud). */
        { "fc00::/7", "unique local, with the clouds' metadata (RFC 4193)" },
        { "fe80::/10", "link-local (RFC 4291 2.5.6)" },
        { "fec0::/10", "site-local, deprecated (RFC 3879)" },
        { "ff00::/8", "multicast (RFC 4291 2.7)" },
};

static void put(struct policy_always *always, const struct policy_always_entry *entry)
{
        always->entries[always->n_entries++] = *entry;
}

/* With all forms in which it may be reached. */
static void put_denied(struct policy_always *always, const struct policy_always_entry *entry)
{
        put(always, entry);
        for (unsigned i = 0; !entry->prefix.is_v6 && i < POLICY_EMBEDDINGS; i++) {
                struct policy_always_entry embedded = *entry;

                embedded.prefix = policy_embed_v4(&entry->prefix, i);
                put(always, &embedded);
        }
}

static struct policy_prefix parse_shipped(size_t i)
{
        struct policy_prefix prefix = { 0 };
        int r = policy_parse_cidr(shipped[i].cidr, &prefix);

        assert(r == 0);
        (void)r;
        return prefix;
}

static void put_all(struct policy_always *always, const struct policy_prefixes *opened,
                    const struct policy_prefixes *extra)
{
        struct policy_always_entry entry = { .kind = POLICY_ALWAYS_SHIPPED };

        for (size_t i = 0; i < ARRAY_SIZE(shipped); i++) {
                entry.prefix = parse_shipped(i);
                entry.what = shipped[i].what;
                put_denied(always, &entry);
        }
        entry.kind = POLICY_ALWAYS_OPENED;
        entry.what = "opened by the operator";
        for (size_t i = 0; i < opened->n; i++) {
                entry.prefix = opened->prefixes[i];
                put(always, &entry);
        }
        entry.kind = POLICY_ALWAYS_EXTRA;
        entry.what = "of this host, or denied by the operator";
        for (size_t i = 0; i < extra->n; i++) {
                entry.prefix = extra->prefixes[i];
                put_denied(always, &entry);
        }
}

/* Of the same prefix the strongest comes first. */
static int compare(const void *left, const void *right)
{
        const struct policy_always_entry *a = left, *b = right;
        int order = policy_prefix_compare(&a->prefix, &b->prefix);

        return order ? order : (int)b->kind - (int)a->kind;
}

/* What is inside an extra prefix is denied with it, so it needs no entry: and so none opens it. */
static bool is_needless(const struct policy_always *always, size_t n_kept, uint32_t enclosing,
                        const struct policy_prefix *prefix)
{
        if (n_kept > 0 && policy_prefix_compare(&always->entries[n_kept - 1].prefix, prefix) == 0)
                return true;
        return enclosing != POLICY_INDEX_NONE &&
               always->entries[enclosing].kind == POLICY_ALWAYS_EXTRA;
}

static int build_index(struct policy_always *always)
{
        struct policy_index_builder builder;
        size_t n_kept = 0;
        int r = policy_index_begin(&builder, &always->index, always->n_entries);

        if (r)
                return error_fold(r);
        for (size_t i = 0; i < always->n_entries; i++) {
                struct policy_always_entry entry = always->entries[i];
                uint32_t enclosing = policy_index_enclosing(&builder, &entry.prefix);

                if (is_needless(always, n_kept, enclosing, &entry.prefix))
                        continue;
                policy_index_add(&builder, &entry.prefix, (uint32_t)n_kept);
                always->entries[n_kept++] = entry;
        }
        policy_index_end(&builder);
        always->n_entries = n_kept;
        return 0;
}

int policy_always_init(struct policy_always *always, const struct policy_prefixes *opened,
                       const struct policy_prefixes *extra)
{
        size_t n_max = (ARRAY_SIZE(shipped) + extra->n) * (1 + POLICY_EMBEDDINGS) + opened->n;
        _cleanup_(policy_always_deinit) struct policy_always made = {
                .entries = calloc(n_max, sizeof(*made.entries)),
        };
        int r;

        if (!made.entries)
                return error_origin(-ENOMEM);
        put_all(&made, opened, extra);
        qsort(made.entries, made.n_entries, sizeof(*made.entries), compare);
        r = build_index(&made);
        if (r)
                return error_fold(r);
        *always = made;
        made = (struct policy_always){ 0 };
        return 0;
}

void policy_always_deinit(struct policy_always *always)
{
        free(always->entries);
        policy_index_deinit(&always->index);
        *always = (struct policy_always){ 0 };
}

/* An interface identifier of ISATAP (RFC 5214 6.1), whose router sends on to the IPv4 address. */
static bool read_isatap(const struct policy_address *address, struct policy_address *ret_v4)
{
        static const uint8_t identifier[4] = { 0, 0, 0x5e, 0xfe };
        const uint8_t *half = address->bytes + 8;

        if (!address->is_v6 || (half[0] & ~ISATAP_UNIVERSAL) != identifier[0] ||
            memcmp(half + 1, identifier + 1, sizeof(identifier) - 1) != 0)
                return false;
        *ret_v4 = policy_address_v4(half + sizeof(identifier));
        return true;
}

static const struct policy_always_entry *look_up(const struct policy_always *always,
                                                 const struct policy_address *address)
{
        uint32_t found = policy_index_find(&always->index, address);

        return found == POLICY_INDEX_NONE ? NULL : &always->entries[found];
}

static const struct policy_always_entry *find(const struct policy_always *always,
                                              const struct policy_address *address)
{
        const struct policy_always_entry *found = look_up(always, address);
        struct policy_address v4;

        return !found && read_isatap(address, &v4) ? look_up(always, &v4) : found;
}

const struct policy_always_entry *policy_always_find(const struct policy_always *always,
                                                     const struct policy_address *address)
{
        const struct policy_always_entry *found = find(always, address);

        return found && found->kind != POLICY_ALWAYS_OPENED ? found : NULL;
}

bool policy_always_is_public(const struct policy_always *always,
                             const struct policy_address *address)
{
        return !find(always, address);
}

/* Also of one of the forms in which an IPv4 prefix is denied, too. */
static bool is_part_of(const struct policy_prefix whole, const struct policy_prefix *prefix)
{
        bool is_part = policy_prefix_encloses(&whole, prefix);

        for (unsigned i = 0; !whole.is_v6 && !is_part && i < POLICY_EMBEDDINGS; i++) {
                const struct policy_prefix embedded = policy_embed_v4(&whole, i);

                is_part = policy_prefix_encloses(&embedded, prefix);
        }
        return is_part;
}

int policy_always_parse_opened(const char *text, struct policy_prefix *ret_prefix)
{
        struct policy_prefix prefix;
        int r = policy_parse_cidr(text, &prefix);

        if (r)
                return r;
        for (size_t i = 0; i < ARRAY_SIZE(shipped); i++) {
                if (is_part_of(parse_shipped(i), &prefix)) {
                        *ret_prefix = prefix;
                        return 0;
                }
        }
        return POLICY_E_OPENS_NOTHING;
}
