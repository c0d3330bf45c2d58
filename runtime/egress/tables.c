#include "runtime/egress/tables.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <bpf/bpf.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

static_assert((int)EGRESS_PREFIXES_MAX == (int)POLICY_WALL_PREFIXES,
              "what hotcelld gives shares of");

enum {
        POLICY_BITS = 32, /* of the policy's number, before the address, in the key of a prefix */
        TOKEN_READS_MAX = 64, /* a token is written in less than the time of one */
};

static size_t tokens_size(const struct tables *tables)
{
        return (size_t)tables->n_slots * EGRESS_TOKENS * sizeof(struct egress_token);
}

int tables_init(struct tables *tables, const int fds[static _EGRESS_MAP_N], uint32_t n_slots)
{
        void *tokens;

        *tables = (struct tables){ .n_slots = n_slots };
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                tables->fds[i] = fds[i];
        tokens = mmap(NULL, tokens_size(tables), PROT_READ, MAP_SHARED, fds[EGRESS_MAP_TOKENS], 0);
        if (tokens == MAP_FAILED) {
                int r = -errno;

                tables_deinit(tables);
                return error_origin(r);
        }
        tables->tokens = tokens;
        return 0;
}

void tables_deinit(struct tables *tables)
{
        if (tables->tokens)
                (void)munmap((void *)(uintptr_t)tables->tokens, tokens_size(tables));
        tables->tokens = NULL;
        for (size_t i = 0; i < _EGRESS_MAP_N; i++)
                tables->fds[i] = close_fd(tables->fds[i]);
}

/* Large enough for each of the keys. */
union key {
        struct egress_prefix4 prefix4;
        struct egress_prefix6 prefix6;
        struct egress_name_key name;
};

/* The search for a first key goes over all that is empty: so each is looked for from the one
 * before, as long as that is there. */
static int empty_map(int fd)
{
        union key key, next;
        bool has_more = bpf_map_get_next_key(fd, NULL, &key) == 0;

        while (has_more) {
                int r;

                has_more = bpf_map_get_next_key(fd, &key, &next) == 0;
                r = bpf_map_delete_elem(fd, &key);
                if (r)
                        return error_origin(r);
                key = next;
        }
        return 0;
}

/* Not while its keys are walked: an entry that is written moves in its bucket, and may come again.
 */
static size_t list_sandboxes(int fd, uint64_t *ret_ids, size_t max)
{
        const uint64_t *previous = NULL;
        size_t n = 0;

        while (n < max && bpf_map_get_next_key(fd, previous, &ret_ids[n]) == 0)
                previous = &ret_ids[n++];
        return n;
}

static int take_policy_away(int fd, uint64_t cgroup_id)
{
        struct egress_sandbox entry;
        int r;

        /* The runtime may have removed it. */
        if (bpf_map_lookup_elem(fd, &cgroup_id, &entry))
                return 0;
        entry.policy = EGRESS_POLICY_ALWAYS;
        r = bpf_map_update_elem(fd, &cgroup_id, &entry, BPF_EXIST);
        return r && r != -ENOENT ? error_origin(r) : 0;
}

static int take_policies_away(const struct tables *tables)
{
        _cleanup_(freep) uint64_t *ids = calloc(tables->n_slots, sizeof(*ids));
        int fd = tables->fds[EGRESS_MAP_SANDBOXES];
        size_t n;
        int r = 0;

        if (!ids)
                return error_origin(-ENOMEM);
        n = list_sandboxes(fd, ids, tables->n_slots);
        for (size_t i = 0; i < n && !r; i++)
                r = take_policy_away(fd, ids[i]);
        return r;
}

int tables_sweep(const struct tables *tables)
{
        static const enum egress_map written[] = { EGRESS_MAP_PREFIXES4, EGRESS_MAP_PREFIXES6,
                                                   EGRESS_MAP_NAMES };
        int r = take_policies_away(tables);

        for (size_t i = 0; i < ARRAY_SIZE(written) && !r; i++)
                r = empty_map(tables->fds[written[i]]);
        return r;
}

static int put_prefix(const struct tables *tables, uint32_t number,
                      const struct policy_prefix *prefix, const struct egress_ranges *ranges)
{
        struct egress_prefix4 key4 = { .prefix_bits = POLICY_BITS + prefix->n_bits,
                                       .policy = number };
        struct egress_prefix6 key6 = { .prefix_bits = POLICY_BITS + prefix->n_bits,
                                       .policy = number };
        int r;

        if (prefix->is_v6) {
                (void)memcpy(key6.address, prefix->bytes, sizeof(key6.address));
                r = bpf_map_update_elem(tables->fds[EGRESS_MAP_PREFIXES6], &key6, ranges, BPF_ANY);
        } else {
                (void)memcpy(key4.address, prefix->bytes, sizeof(key4.address));
                r = bpf_map_update_elem(tables->fds[EGRESS_MAP_PREFIXES4], &key4, ranges, BPF_ANY);
        }
        /* A prefix table says that it is full by ENOSPC. */
        return r == -ENOSPC ? error_origin(-E2BIG) : r ? error_origin(r) : 0;
}

static void remove_prefix(const struct tables *tables, uint32_t number,
                          const struct policy_prefix *prefix)
{
        struct egress_prefix4 key4 = { .prefix_bits = POLICY_BITS + prefix->n_bits,
                                       .policy = number };
        struct egress_prefix6 key6 = { .prefix_bits = POLICY_BITS + prefix->n_bits,
                                       .policy = number };

        if (prefix->is_v6) {
                (void)memcpy(key6.address, prefix->bytes, sizeof(key6.address));
                (void)bpf_map_delete_elem(tables->fds[EGRESS_MAP_PREFIXES6], &key6);
        } else {
                (void)memcpy(key4.address, prefix->bytes, sizeof(key4.address));
                (void)bpf_map_delete_elem(tables->fds[EGRESS_MAP_PREFIXES4], &key4);
        }
}

static uint8_t protocol_number(uint8_t protocol)
{
        static const uint8_t numbers[] = {
                [POLICY_TCP] = IPPROTO_TCP, [POLICY_UDP] = IPPROTO_UDP, [POLICY_ICMP] = IPPROTO_ICMP
        };

        assert(protocol >= POLICY_TCP && protocol <= POLICY_ICMP);
        return numbers[protocol];
}

static void fill_ranges(const struct policy_range *ranges, size_t n_ranges,
                        struct egress_ranges *ret_ranges)
{
        *ret_ranges = (struct egress_ranges){ .n_ranges = (uint32_t)n_ranges };
        for (size_t i = 0; i < n_ranges; i++)
                ret_ranges->ranges[i] = (struct egress_range){
                        .low = ranges[i].low,
                        .high = ranges[i].high,
                        .action = ranges[i].action == POLICY_ALLOW ? EGRESS_ALLOW : EGRESS_DENY,
                        .protocol = protocol_number(ranges[i].protocol),
                        .rule = (uint16_t)ranges[i].rule,
                };
}

/* What the operator opened is an entry that says nothing: the longest match is the one that counts.
 */
int tables_put_always(const struct tables *tables, const struct policy_always *always)
{
        const struct egress_ranges denied = {
                .n_ranges = 1, .ranges = { { .high = UINT16_MAX, .action = EGRESS_DENY } }
        };
        const struct egress_ranges open = { 0 };

        for (size_t i = 0; i < always->n_entries; i++) {
                const struct policy_always_entry *entry = &always->entries[i];
                int r = put_prefix(tables, EGRESS_POLICY_ALWAYS, &entry->prefix,
                                   entry->kind == POLICY_ALWAYS_OPENED ? &open : &denied);

                if (r)
                        return r;
        }
        return 0;
}

uint32_t tables_new_number(struct tables *tables)
{
        tables->n_numbers++;
        if (tables->n_numbers == EGRESS_POLICY_ALWAYS)
                tables->n_numbers++;
        return tables->n_numbers;
}

int tables_put_entry(const struct tables *tables, uint32_t number, const struct policy_entry *entry)
{
        struct egress_ranges ranges;

        fill_ranges(entry->ranges, entry->n_ranges, &ranges);
        return put_prefix(tables, number, &entry->prefix, &ranges);
}

void tables_remove_entry(const struct tables *tables, uint32_t number,
                         const struct policy_entry *entry)
{
        remove_prefix(tables, number, &entry->prefix);
}

int tables_set_sandbox(const struct tables *tables, uint64_t cgroup_id,
                       const struct egress_sandbox *entry)
{
        /* Not anew: the runtime may have removed it. */
        int r = bpf_map_update_elem(tables->fds[EGRESS_MAP_SANDBOXES], &cgroup_id, entry,
                                    BPF_EXIST);

        return r ? error_origin(r) : 0;
}

static struct egress_name_key name_key(uint32_t number, const struct policy_address *address)
{
        struct egress_name_key key = { .policy = number };

        if (address->is_v6) {
                (void)memcpy(key.address, address->bytes, sizeof(key.address));
        } else {
                key.address[10] = key.address[11] = 0xff;
                (void)memcpy(key.address + 12, address->bytes, 4);
        }
        return key;
}

int tables_put_name(const struct tables *tables, uint32_t number,
                    const struct policy_address *address, const struct policy_range *ranges,
                    size_t n_ranges, uint64_t expire_nsec)
{
        const struct egress_name_key key = name_key(number, address);
        struct egress_name name = { .expire_nsec = expire_nsec };
        int r;

        fill_ranges(ranges, n_ranges, &name.allowed);
        r = bpf_map_update_elem(tables->fds[EGRESS_MAP_NAMES], &key, &name, BPF_ANY);
        return r ? error_origin(r) : 0;
}

void tables_remove_name(const struct tables *tables, uint32_t number,
                        const struct policy_address *address)
{
        const struct egress_name_key key = name_key(number, address);

        (void)bpf_map_delete_elem(tables->fds[EGRESS_MAP_NAMES], &key);
}

int tables_read_counts(const struct tables *tables, uint64_t cgroup_id,
                       struct egress_counts *ret_counts)
{
        return bpf_map_lookup_elem(tables->fds[EGRESS_MAP_COUNTS], &cgroup_id, ret_counts);
}

/* False: it was written meanwhile, of which the serial number is the first to change. */
static bool read_token(const struct egress_token *token, struct egress_token *ret_token)
{
        const __u64 serial = __atomic_load_n(&token->serial, __ATOMIC_ACQUIRE);

        *ret_token = *token;
        ret_token->serial = serial;
        atomic_thread_fence(memory_order_acquire);
        /* One that was never written is whole, too. */
        return *(const volatile __u64 *)&token->serial == ret_token->serial &&
               (ret_token->serial != 0 || ret_token->cgroup_id == 0);
}

/* Whether the place had this number before the one that it has now: numbers rise. */
static bool was_given(const struct egress_token *token, uint64_t serial, uint64_t serial_bits)
{
        return ((token->serial - serial) & serial_bits) < token->serial;
}

int tables_find_token(const struct tables *tables, uint32_t slot, uint64_t cgroup_id,
                      uint32_t number, unsigned n_number_bits, struct egress_token *ret_token)
{
        const uint64_t serial_bits = EGRESS_TOKEN_SERIAL((1ULL << n_number_bits) - 1);
        const uint64_t serial = EGRESS_TOKEN_SERIAL(number);
        const struct egress_token *token;
        unsigned n_reads = 1;

        if (slot >= tables->n_slots)
                return TABLES_E_FORGED;
        token = &tables->tokens[(size_t)slot * EGRESS_TOKENS + EGRESS_TOKEN_PLACE(number)];
        while (!read_token(token, ret_token))
                if (n_reads++ == TOKEN_READS_MAX)
                        return TABLES_E_TORN;
        /* What a sandbox before had in this slot is nothing of this one. */
        if (ret_token->serial == 0 || ret_token->cgroup_id != cgroup_id)
                return TABLES_E_FORGED;
        if ((ret_token->serial & serial_bits) == serial)
                return 0;
        return was_given(ret_token, serial, serial_bits) ? TABLES_E_OVERWRITTEN : TABLES_E_FORGED;
}
