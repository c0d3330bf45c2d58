/*
 * Types of DNS records that a policy may let be asked for, besides addresses. A set of them has the
 * bit of each; the types' numbers are those of the public API (EgressRecordType), so sets may be
 * kept.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum policy_record_type {
        POLICY_RECORD_NS = 1,
        POLICY_RECORD_CNAME,
        POLICY_RECORD_NULL,
        POLICY_RECORD_PTR,
        POLICY_RECORD_HINFO,
        POLICY_RECORD_MX,
        POLICY_RECORD_TXT,
        POLICY_RECORD_SRV,
        POLICY_RECORD_SSHFP,
        POLICY_RECORD_TLSA,
        POLICY_RECORD_ANY, /* no type of a record, but of a question */
        POLICY_RECORD_URI,
        POLICY_RECORD_CAA,
        _POLICY_RECORD_N,
};

/* The type that has this number in the DNS; zero: it is none of these. */
enum policy_record_type policy_record_type_of(uint32_t dns_number);

/* In the DNS, and as people write it. */
uint16_t policy_record_dns_number(enum policy_record_type type);
const char *policy_record_name(enum policy_record_type type);

/* Whether the type with this number in the DNS is in the set. */
bool policy_records_have(uint32_t set, uint32_t dns_number);

/* The numbers in the DNS of all in the set, ascending; returns how many. */
size_t policy_records_list(uint32_t set, uint32_t ret_dns_numbers[static _POLICY_RECORD_N]);
