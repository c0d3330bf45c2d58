/*
 * Text of a rule's destination: what parses as a prefix or a domain is written in one form, which
 * parses to the same, and only the problems of each are told. A domain without a wildcard is also a
 * name as programs ask for it.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/policy.h"

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

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        /* As large as the text, so that a sanitizer sees each byte too many. */
        _cleanup_(freep) char *text = malloc(size + 1);

        require(text);
        memcpy(text, data, size);
        text[size] = '\0';
        check_cidr(text);
        check_domain(text);
        return 0;
}
