#include "runtime/policy/record_types.h"

#include <assert.h>

#include "runtime/base/macros.h"

static const struct {
        uint16_t dns_number;
        const char *name;
} types[] = {
        [POLICY_RECORD_NS] = { 2, "NS" },        [POLICY_RECORD_CNAME] = { 5, "CNAME" },
        [POLICY_RECORD_NULL] = { 10, "NULL" },   [POLICY_RECORD_PTR] = { 12, "PTR" },
        [POLICY_RECORD_HINFO] = { 13, "HINFO" }, [POLICY_RECORD_MX] = { 15, "MX" },
        [POLICY_RECORD_TXT] = { 16, "TXT" },     [POLICY_RECORD_SRV] = { 33, "SRV" },
        [POLICY_RECORD_SSHFP] = { 44, "SSHFP" }, [POLICY_RECORD_TLSA] = { 52, "TLSA" },
        [POLICY_RECORD_ANY] = { 255, "ANY" },    [POLICY_RECORD_URI] = { 256, "URI" },
        [POLICY_RECORD_CAA] = { 257, "CAA" },
};
static_assert(ARRAY_SIZE(types) == _POLICY_RECORD_N, "every type has a row");
static_assert(_POLICY_RECORD_N <= 32, "every type has a bit");

enum policy_record_type policy_record_type_of(uint32_t dns_number)
{
        for (enum policy_record_type i = POLICY_RECORD_NS; i < _POLICY_RECORD_N; i++)
                if (types[i].dns_number == dns_number)
                        return i;
        return 0;
}

uint16_t policy_record_dns_number(enum policy_record_type type)
{
        assert(type >= POLICY_RECORD_NS && type < _POLICY_RECORD_N);

        return types[type].dns_number;
}

const char *policy_record_name(enum policy_record_type type)
{
        assert(type >= POLICY_RECORD_NS && type < _POLICY_RECORD_N);

        return types[type].name;
}

bool policy_records_have(uint32_t set, uint32_t dns_number)
{
        const enum policy_record_type type = policy_record_type_of(dns_number);

        return type && set & BIT(type);
}

size_t policy_records_list(uint32_t set, uint32_t ret_dns_numbers[static _POLICY_RECORD_N])
{
        size_t n = 0;

        for (enum policy_record_type i = POLICY_RECORD_NS; i < _POLICY_RECORD_N; i++)
                if (set & BIT(i))
                        ret_dns_numbers[n++] = types[i].dns_number;
        return n;
}
