/* inet_pton takes only the usual forms: four decimal numbers without leading zeros, RFC 4291. */
#include <arpa/inet.h>
#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/text.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/prefix.h"

static bool parse_address(const char *text, size_t length, struct policy_prefix *prefix)
{
        char address[INET6_ADDRSTRLEN];

        if (length >= sizeof(address))
                return false;
        memcpy(address, text, length);
        address[length] = '\0';
        prefix->is_v6 = strchr(address, ':');
        return inet_pton(prefix->is_v6 ? AF_INET6 : AF_INET, address, prefix->bytes) == 1;
}

/* @text begins with the slash, or is empty. */
static bool parse_length(const char *text, struct policy_prefix *prefix)
{
        uint64_t n_bits = prefix->is_v6 ? POLICY_V6_BITS : POLICY_V4_BITS;
        bool is_good = *text == '\0' ||
                       (!(text[1] == '0' && text[2]) && text_to_uint64(text + 1, n_bits, &n_bits));

        prefix->n_bits = (uint8_t)n_bits;
        return is_good;
}

static bool has_host_bits(const struct policy_prefix *prefix)
{
        for (unsigned i = prefix->n_bits; i < POLICY_V6_BITS; i++) {
                if (prefix->bytes[i / 8] & 0x80 >> i % 8)
                        return true;
        }
        return false;
}

int policy_parse_cidr(const char *text, struct policy_prefix *ret_prefix)
{
        struct policy_prefix prefix = { 0 };
        size_t n_address = strcspn(text, "/");

        if (!parse_address(text, n_address, &prefix) || !parse_length(text + n_address, &prefix))
                return POLICY_E_CIDR_FORM;
        if (prefix.is_v6 && prefix.n_bits >= 96 && policy_is_v4_mapped(prefix.bytes))
                return POLICY_E_CIDR_V4_MAPPED;
        if (has_host_bits(&prefix))
                return POLICY_E_CIDR_HOST_BITS;
        *ret_prefix = prefix;
        return 0;
}

void policy_format_cidr(const struct policy_prefix *prefix,
                        char ret_text[static POLICY_CIDR_BUFFER])
{
        char address[INET6_ADDRSTRLEN];
        const char *text = inet_ntop(prefix->is_v6 ? AF_INET6 : AF_INET, prefix->bytes, address,
                                     sizeof(address));

        assert(text);

        (void)snprintf(ret_text, POLICY_CIDR_BUFFER, "%s/%u", text, prefix->n_bits);
}
