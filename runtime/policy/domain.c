/*
 * libidn2 converts whole names that are not ASCII. ASCII names do not go through it: it would
 * refuse some that exist, such as `r3---sn-a.example` (hyphens where A-labels have theirs).
 * A-labels in them must decode to what they are made of again. Only characters that the library's
 * tables do not allow may be in them, too, for registries also gave out such (emoji); no controls.
 */
#include "runtime/policy/domain.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <idn2.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/dns_label.h"
#include "runtime/base/error.h"

enum {
        NAME_MAX_BYTES = POLICY_DOMAIN_BUFFER - 1,
        /* Of UTF-8 text: no character takes more than four, nor less than one afterwards; those
         * that conversion drops do not count on. */
        TEXT_MAX_BYTES = 4 * NAME_MAX_BYTES,
};

static void idn2_freep(char **text)
{
        idn2_free(*text);
}

static bool is_ascii(const char *text)
{
        for (; *text; text++) {
                if ((unsigned char)*text >= 0x80)
                        return false;
        }
        return true;
}

static int fold_idn(int error)
{
        switch (error) {
        case IDN2_OK:
                return 0;
        case IDN2_MALLOC:
                return error_origin(-ENOMEM);
        case IDN2_TOO_BIG_DOMAIN:
        case IDN2_TOO_BIG_LABEL:
        case IDN2_PUNYCODE_BIG_OUTPUT:
                return POLICY_E_DOMAIN_LENGTH;
        default:
                return POLICY_E_DOMAIN_IDN;
        }
}

static int check_label(const char *label, size_t length)
{
        if (length > DNS_LABEL_MAX)
                return POLICY_E_DOMAIN_LENGTH;
        if (length == 0 || label[0] == '-' || label[length - 1] == '-')
                return POLICY_E_DOMAIN_FORM;
        if (strspn(label, "abcdefghijklmnopqrstuvwxyz0123456789-_") < length)
                return POLICY_E_DOMAIN_FORM;
        return 0;
}

/*
 * A name whose last label is a number is an address to inet_aton() and browsers: 127.1, 0x7f000001.
 * No top-level domain is one (RFC 3696 2).
 */
static bool is_number(const char *label)
{
        if (label[0] == '0' && label[1] == 'x')
                return label[2 + strspn(label + 2, "0123456789abcdef")] == '\0';
        return label[strspn(label, "0123456789")] == '\0';
}

static int check_labels(const char *name)
{
        const char *label = name;

        while (true) {
                size_t length = strcspn(label, ".");
                int r = check_label(label, length);

                if (r)
                        return r;
                if (label[length] == '\0')
                        return is_number(label) ? POLICY_E_DOMAIN_IS_ADDRESS : 0;
                label += length + 1;
        }
}

int policy_parse_name(const char *text, char ret_name[static POLICY_DOMAIN_BUFFER])
{
        char name[POLICY_DOMAIN_BUFFER];
        size_t length = strlen(text);
        int r;

        if (length > 0 && text[length - 1] == '.')
                length--;
        if (length > NAME_MAX_BYTES)
                return POLICY_E_DOMAIN_LENGTH;
        for (size_t i = 0; i < length; i++) {
                bool is_upper = text[i] >= 'A' && text[i] <= 'Z';

                name[i] = (char)(is_upper ? text[i] | 0x20 : text[i]);
        }
        name[length] = '\0';
        r = check_labels(name);
        if (r == 0)
                memcpy(ret_name, name, length + 1);
        return r;
}

enum { CONVERSION = IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL };

/* Of C1, U+0080 to U+009F: the others are ASCII, and decoding refuses those. */
static bool has_control(const char *utf8)
{
        for (; *utf8; utf8++) {
                if ((unsigned char)utf8[0] == 0xC2 && (unsigned char)utf8[1] < 0xA0)
                        return true;
        }
        return false;
}

static int check_a_label(const char *label, size_t length)
{
        _cleanup_(idn2_freep) char *decoded = NULL;
        _cleanup_(idn2_freep) char *encoded = NULL;
        char copy[DNS_LABEL_MAX + 1];
        int r;

        memcpy(copy, label, length);
        copy[length] = '\0';
        r = idn2_to_unicode_8z8z(copy, &decoded, 0);
        if (r)
                return fold_idn(r);
        r = idn2_to_ascii_8z(decoded, &encoded, CONVERSION);
        if (r == IDN2_DISALLOWED && !has_control(decoded))
                return 0;
        if (r)
                return fold_idn(r);
        return strcmp(copy, encoded) == 0 ? 0 : POLICY_E_DOMAIN_IDN;
}

static int parse_ascii(const char *text, char ret_name[static POLICY_DOMAIN_BUFFER])
{
        int r = policy_parse_name(text, ret_name);

        for (const char *label = ret_name; !r && *label;) {
                size_t length = strcspn(label, ".");

                if (strncmp(label, "xn--", 4) == 0)
                        r = check_a_label(label, length);
                label += length + (label[length] == '.');
        }
        return r;
}

static int parse_idn(const char *text, char ret_name[static POLICY_DOMAIN_BUFFER])
{
        _cleanup_(idn2_freep) char *ascii = NULL;
        int r = fold_idn(idn2_to_ascii_8z(text, &ascii, CONVERSION));

        if (r)
                return r;
        r = parse_ascii(ascii, ret_name);
        /* Some characters become others, such as a slash, and some become nothing. */
        return r == POLICY_E_DOMAIN_FORM ? POLICY_E_DOMAIN_IDN : r;
}

static bool is_address(const char *text)
{
        struct policy_prefix prefix;

        return text[0] == '[' || policy_parse_cidr(text, &prefix) != POLICY_E_CIDR_FORM;
}

int policy_parse_domain(const char *text, bool *ret_is_wildcard,
                        char ret_domain[static POLICY_DOMAIN_BUFFER])
{
        bool is_wildcard = strncmp(text, "*.", 2) == 0;
        const char *name = text + (is_wildcard ? 2 : 0);
        char domain[POLICY_DOMAIN_BUFFER];
        int r;

        if (strchr(name, '*'))
                return POLICY_E_DOMAIN_WILDCARD;
        if (is_address(name))
                return POLICY_E_DOMAIN_IS_ADDRESS;
        if (strlen(name) > TEXT_MAX_BYTES)
                return POLICY_E_DOMAIN_LENGTH;
        r = is_ascii(name) ? parse_ascii(name, domain) : parse_idn(name, domain);
        if (r)
                return r < 0 ? error_fold(r) : r;
        if (is_wildcard && strlen(domain) + 2 > NAME_MAX_BYTES)
                return POLICY_E_DOMAIN_LENGTH;
        memcpy(ret_domain, domain, strlen(domain) + 1);
        *ret_is_wildcard = is_wildcard;
        return 0;
}

void policy_format_domain(bool is_wildcard, const char *domain,
                          char ret_text[static POLICY_DOMAIN_BUFFER])
{
        (void)snprintf(ret_text, POLICY_DOMAIN_BUFFER, "%s%s", is_wildcard ? "*." : "", domain);
}
