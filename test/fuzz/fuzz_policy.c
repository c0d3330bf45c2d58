/*
 * Text of a rule's destination: what parses as a prefix or a domain is written in one form, which
 * parses to the same, and only the problems of each are told. A domain without a wildcard is also a
 * name as programs ask for it. And types of DNS records by their numbers, two bytes each: as a set
 * they are the same in any order, and so is the digest.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/record_types.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void check_cidr(const char *text)
{
        struct policy_prefix prefix, again;
        char written[POLICY_CIDR_BUFFER];
        int r = policy_parse_cidr(text, &prefix);

        if (r) {
                require(r >= POLICY_E_CIDR_FORM && r <= POLICY_E_CIDR_V4_MAPPED);
                return;
        }
        require(prefix.n_bits <= (prefix.is_v6 ? 128 : 32));
        policy_format_cidr(&prefix, written);
        require(policy_parse_cidr(written, &again) == 0);
        require(prefix.is_v6 == again.is_v6 && prefix.n_bits == again.n_bits);
        require(memcmp(prefix.bytes, again.bytes, sizeof(prefix.bytes)) == 0);
}

static void check_domain(const char *text)
{
        char domain[POLICY_DOMAIN_BUFFER], again[POLICY_DOMAIN_BUFFER];
        char written[POLICY_DOMAIN_BUFFER];
        bool is_wildcard, is_wildcard_again;
        int r = policy_parse_domain(text, &is_wildcard, domain);

        if (r) {
                require(r >= POLICY_E_DOMAIN_FORM && r <= POLICY_E_DOMAIN_LENGTH);
                return;
        }
        policy_format_domain(is_wildcard, domain, written);
        require(strlen(written) == strlen(domain) + (is_wildcard ? 2 : 0));
        require(policy_parse_domain(written, &is_wildcard_again, again) == 0);
        require(is_wildcard == is_wildcard_again && strcmp(domain, again) == 0);
        require(policy_parse_name(domain, again) == 0 && strcmp(domain, again) == 0);
}

static uint32_t number_at(const uint8_t *data, size_t i)
{
        return (uint32_t)data[2 * i] << 8 | data[2 * i + 1];
}

/* Zero is in no set: a number that is none adds nothing. */
static uint32_t add_type(uint32_t set, uint32_t number)
{
        return (set | BIT(policy_record_type_of(number))) & ~1U;
}

static void check_digest(uint32_t set)
{
        const struct policy policy = { .record_types = set };
        uint8_t digest[32];

        require(policy_digest(&policy, digest) == 0);
        require((memcmp(digest, policy_digest_of_none, sizeof(digest)) == 0) == (set == 0));
}

static void check_types(const uint8_t *data, size_t n)
{
        uint32_t numbers[_POLICY_RECORD_N], set = 0, backwards = 0, again = 0;

        for (size_t i = 0; i < n; i++) {
                set = add_type(set, number_at(data, i));
                backwards = add_type(backwards, number_at(data, n - 1 - i));
        }
        require(set == backwards);
        for (size_t i = 0; i < n; i++)
                require(policy_records_have(set, number_at(data, i)) ==
                        (policy_record_type_of(number_at(data, i)) != 0));
        n = policy_records_list(set, numbers);
        for (size_t i = 0; i < n; i++)
                again = add_type(again, numbers[i]);
        require(again == set);
        check_digest(set);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        /* As large as the text, so that a sanitizer sees each byte too many. */
        _cleanup_(freep) char *text = malloc(size + 1);

        require(text);
        memcpy(text, data, size);
        text[size] = '\0';
        check_cidr(text);
        check_domain(text);
        check_types(data, size / 2);
        return 0;
}
