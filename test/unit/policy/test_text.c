/* What may be written in a rule, and what is said of what may not. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include <openssl/evp.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/policy.h"
#include "runtime/policy/record_types.h"
#include "test/unit/policy/written.h"

START_TEST(prefixes_are_written_in_one_way)
{
        static const char *const texts[][2] = {
                { "10.0.0.0/8", "10.0.0.0/8" },
                { "192.0.2.7", "192.0.2.7/32" },
                { "0.0.0.0/0", "0.0.0.0/0" },
                { "2001:DB8:0:0::/32", "2001:db8::/32" },
                { "::1", "::1/128" },
                { "::/0", "::/0" },
                { "::192.0.2.0/120", "::192.0.2.0/120" },
                { "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128",
                  "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff/128" },
                { "64:ff9b::192.0.2.0/120", "64:ff9b::c000:200/120" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                struct policy_prefix prefix;
                char text[POLICY_CIDR_BUFFER];

                ck_assert_msg(policy_parse_cidr(texts[i][0], &prefix) == 0, "%s", texts[i][0]);
                policy_format_cidr(&prefix, text);
                ck_assert_str_eq(text, texts[i][1]);
        }
}
END_TEST

START_TEST(bad_prefixes_are_refused_with_their_problem)
{
        static const struct {
                const char *text;
                int problem;
        } bad[] = {
                { "", POLICY_E_CIDR_FORM },
                { "/8", POLICY_E_CIDR_FORM },
                { "10.0.0.0/", POLICY_E_CIDR_FORM },
                { "10.0.0.0/33", POLICY_E_CIDR_FORM },
                { "10.0.0.0/08", POLICY_E_CIDR_FORM },
                { "10.0.0.0/+8", POLICY_E_CIDR_FORM },
                { "10.0.0.0/8/8", POLICY_E_CIDR_FORM },
                { "10.0.0.0/8 ", POLICY_E_CIDR_FORM },
                { " 10.0.0.0/8", POLICY_E_CIDR_FORM },
                { "10.0.0.0/18446744073709551624", POLICY_E_CIDR_FORM },
                { "10.0.0/8", POLICY_E_CIDR_FORM },
                { "010.0.0.0/8", POLICY_E_CIDR_FORM },
                { "0x7f.0.0.1", POLICY_E_CIDR_FORM },
                { "2130706433", POLICY_E_CIDR_FORM },
                { "fe80::1%lo", POLICY_E_CIDR_FORM },
                { "[::1]", POLICY_E_CIDR_FORM },
                { "::/129", POLICY_E_CIDR_FORM },
                { ":::/12", POLICY_E_CIDR_FORM },
                { "example.org", POLICY_E_CIDR_FORM },
                { "1111:2222:3333:4444:5555:6666:111.111.111.1111/128", POLICY_E_CIDR_FORM },
                { "10.0.0.1/31", POLICY_E_CIDR_HOST_BITS },
                { "128.0.0.0/0", POLICY_E_CIDR_HOST_BITS },
                { "2001:db8::1/127", POLICY_E_CIDR_HOST_BITS },
                { "8000::/0", POLICY_E_CIDR_HOST_BITS },
                { "::ffff:0:0/80", POLICY_E_CIDR_HOST_BITS },
                { "::ffff:192.0.2.1", POLICY_E_CIDR_V4_MAPPED },
                { "::ffff:0:0/96", POLICY_E_CIDR_V4_MAPPED },
                { "::ffff:10.0.0.1/104", POLICY_E_CIDR_V4_MAPPED },
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct policy_prefix prefix = { .n_bits = 77 };

                ck_assert_msg(policy_parse_cidr(bad[i].text, &prefix) == bad[i].problem, "%s",
                              bad[i].text);
                ck_assert_uint_eq(prefix.n_bits, 77);
        }
}
END_TEST

START_TEST(mapped_addresses_are_ipv4_ones)
{
        struct policy_address address = address_of("::ffff:192.0.2.7");

        ck_assert(!address.is_v6);
        ck_assert_mem_eq(address.bytes, ((const uint8_t[16]){ 192, 0, 2, 7 }), 16);
        ck_assert(address_of("::192.0.2.7").is_v6);
        ck_assert(address_of("::1:ffff:192.0.2.7").is_v6);
}
END_TEST

#define LABEL_63 "a12345678901234567890123456789012345678901234567890123456789012"
#define NAME_251                                                                                   \
        LABEL_63 "." LABEL_63 "." LABEL_63                                                         \
                 ".b1234567890123456789012345678901234567890123456789012345678"
START_TEST(domains_are_written_in_one_way)
{
        static const char *const texts[][2] = {
                { "example.org", "example.org" },
                { "Example.ORG.", "example.org" },
                { "*.example.org", "*.example.org" },
                { "*.Example.org.", "*.example.org" },
                { "localhost", "localhost" },
                { "_dmarc.a-b.example", "_dmarc.a-b.example" },
                { "r3---sn-a.example", "r3---sn-a.example" },
                { "1.example", "1.example" },
                { "1e1", "1e1" },
                { "0xg", "0xg" },
                { "bücher.example", "xn--bcher-kva.example" },
                { "*.BÜCHER.example", "*.xn--bcher-kva.example" },
                { "XN--Bcher-KVA.example", "xn--bcher-kva.example" },
                { "fa\u00df.example", "xn--fa-hia.example" },
                { "例え。テスト", "xn--r8jz45g.xn--zckzah" },
                /* Registered although IDNA does not allow it. */
                { "xn--i-7iq.example", "xn--i-7iq.example" },
                { "r3---sn-a.xn--bcher-kva.example", "r3---sn-a.xn--bcher-kva.example" },
                { LABEL_63 ".example", LABEL_63 ".example" },
                { NAME_251 "cd", NAME_251 "cd" },
                { NAME_251 "cd.", NAME_251 "cd" },
                { "*." NAME_251, "*." NAME_251 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                bool is_wildcard;
                char domain[POLICY_DOMAIN_BUFFER], text[POLICY_DOMAIN_BUFFER];

                ck_assert_msg(policy_parse_domain(texts[i][0], &is_wildcard, domain) == 0, "%s",
                              texts[i][0]);
                policy_format_domain(is_wildcard, domain, text);
                ck_assert_str_eq(text, texts[i][1]);
        }
}
END_TEST

START_TEST(bad_domains_are_refused_with_their_problem)
{
        static const struct {
                const char *text;
                int problem;
        } bad[] = {
                { "", POLICY_E_DOMAIN_FORM },
                { ".", POLICY_E_DOMAIN_FORM },
                { "*.", POLICY_E_DOMAIN_FORM },
                { "*..", POLICY_E_DOMAIN_FORM },
                { ".example", POLICY_E_DOMAIN_FORM },
                { "example..", POLICY_E_DOMAIN_FORM },
                { "a..b", POLICY_E_DOMAIN_FORM },
                { "-a.b", POLICY_E_DOMAIN_FORM },
                { "a-.b", POLICY_E_DOMAIN_FORM },
                { "a b", POLICY_E_DOMAIN_FORM },
                { "a\n", POLICY_E_DOMAIN_FORM },
                { "a\x01.b", POLICY_E_DOMAIN_FORM },
                { "a/b", POLICY_E_DOMAIN_FORM },
                { "https://a.example", POLICY_E_DOMAIN_FORM },
                { "example.org:443", POLICY_E_DOMAIN_FORM },
                { "user@example.org", POLICY_E_DOMAIN_FORM },
                { "192.0.2.7", POLICY_E_DOMAIN_IS_ADDRESS },
                { "192.0.2.7.", POLICY_E_DOMAIN_IS_ADDRESS },
                { "*.192.0.2.7", POLICY_E_DOMAIN_IS_ADDRESS },
                { "10.0.0.0/8", POLICY_E_DOMAIN_IS_ADDRESS },
                { "10.0.0.1/8", POLICY_E_DOMAIN_IS_ADDRESS },
                { "127.1", POLICY_E_DOMAIN_IS_ADDRESS },
                { "2130706433", POLICY_E_DOMAIN_IS_ADDRESS },
                { "0x7F000001", POLICY_E_DOMAIN_IS_ADDRESS },
                { "0177.0.0.01", POLICY_E_DOMAIN_IS_ADDRESS },
                { "1.0x", POLICY_E_DOMAIN_IS_ADDRESS },
                { "example.1", POLICY_E_DOMAIN_IS_ADDRESS },
                { "::1", POLICY_E_DOMAIN_IS_ADDRESS },
                { "[::1]", POLICY_E_DOMAIN_IS_ADDRESS },
                { "::ffff:192.0.2.7", POLICY_E_DOMAIN_IS_ADDRESS },
                { "１２７.0。0.1", POLICY_E_DOMAIN_IS_ADDRESS },
                { "*", POLICY_E_DOMAIN_WILDCARD },
                { "*example.org", POLICY_E_DOMAIN_WILDCARD },
                { "a.*.org", POLICY_E_DOMAIN_WILDCARD },
                { "*.*.org", POLICY_E_DOMAIN_WILDCARD },
                { "a*.org", POLICY_E_DOMAIN_WILDCARD },
                { "example.*", POLICY_E_DOMAIN_WILDCARD },
                { "xn--.example", POLICY_E_DOMAIN_FORM },
                { "xn--99999999.example", POLICY_E_DOMAIN_IDN },
                { "xn--a", POLICY_E_DOMAIN_IDN }, /* U+0080 */
                { "www.xn--a.example", POLICY_E_DOMAIN_IDN },
                { "xn--bcher-kva.xn--a", POLICY_E_DOMAIN_IDN },
                { "xn--abc-.example", POLICY_E_DOMAIN_FORM },
                { "xn--zzzzzzz99999.org", POLICY_E_DOMAIN_IDN },
                { "xn--1ug.example", POLICY_E_DOMAIN_IDN }, /* U+200D without what it joins */
                { "a.xn--abc-0", POLICY_E_DOMAIN_IDN },
                /* What they decode to is made of another one, by which it is asked for. */
                { "xn--u-ccb.example", POLICY_E_DOMAIN_IDN }, /* u and a diaeresis, not ü */
                { "xn--wca.example", POLICY_E_DOMAIN_IDN },   /* Ü */
                { "xn--22g.example", POLICY_E_DOMAIN_IDN },   /* the sign of Ohm, not omega */
                { "\xff.example", POLICY_E_DOMAIN_IDN },
                { "a\xc3", POLICY_E_DOMAIN_IDN },
                { "-ü.example", POLICY_E_DOMAIN_IDN },
                { "☕.example", POLICY_E_DOMAIN_IDN },
                { "℀.example", POLICY_E_DOMAIN_IDN },        /* becomes a/c */
                { "＊.example", POLICY_E_DOMAIN_IDN },       /* becomes a star */
                { "a.\u00ad.example", POLICY_E_DOMAIN_IDN }, /* becomes nothing */
                { "b" LABEL_63 ".example", POLICY_E_DOMAIN_LENGTH },
                { NAME_251 "cde", POLICY_E_DOMAIN_LENGTH },
                { "*." NAME_251 "c", POLICY_E_DOMAIN_LENGTH },
                { "ü" LABEL_63 ".example", POLICY_E_DOMAIN_LENGTH },
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                bool is_wildcard;
                char domain[POLICY_DOMAIN_BUFFER] = "as it was";
                int r = policy_parse_domain(bad[i].text, &is_wildcard, domain);

                ck_assert_msg(r == bad[i].problem, "%s: %d, not %d", bad[i].text, r,
                              bad[i].problem);
                ck_assert_str_eq(domain, "as it was");
        }
}
END_TEST

START_TEST(a_text_without_end_is_too_long)
{
        static char text[1 << 20];
        char domain[POLICY_DOMAIN_BUFFER];
        bool is_wildcard;

        for (size_t i = 0; i + 2 < sizeof(text); i += 2)
                memcpy(text + i, "ü", 2);
        /* It is not converted first, which would take long. */
        fail_allocation(1);
        ck_assert_int_eq(policy_parse_domain(text, &is_wildcard, domain), POLICY_E_DOMAIN_LENGTH);
}
END_TEST

START_TEST(names_from_the_wire_are_ascii)
{
        char name[POLICY_DOMAIN_BUFFER];

        ck_assert_int_eq(policy_parse_name("WWW.Example.Org.", name), 0);
        ck_assert_str_eq(name, "www.example.org");
        ck_assert_int_eq(policy_parse_name("xn--99999999.org", name), 0);
        ck_assert_int_eq(policy_parse_name("bücher.example", name), POLICY_E_DOMAIN_FORM);
        ck_assert_int_eq(policy_parse_name("*.example", name), POLICY_E_DOMAIN_FORM);
        ck_assert_int_eq(policy_parse_name("192.0.2.7", name), POLICY_E_DOMAIN_IS_ADDRESS);
        ck_assert_int_eq(policy_parse_name(NAME_251 "cde", name), POLICY_E_DOMAIN_LENGTH);
        ck_assert_int_eq(policy_parse_name("", name), POLICY_E_DOMAIN_FORM);
        ck_assert_str_eq(name, "xn--99999999.org");
}
END_TEST

START_TEST(ports_are_checked)
{
        struct policy_rule rule = { 0 };

        ck_assert_int_eq(policy_rule_add_ports(&rule, 0, 80), POLICY_E_PORT_ZERO);
        ck_assert_int_eq(policy_rule_add_ports(&rule, 80, 0), POLICY_E_PORT_ZERO);
        ck_assert_int_eq(policy_rule_add_ports(&rule, -1, 80), POLICY_E_PORT_LARGE);
        ck_assert_int_eq(policy_rule_add_ports(&rule, 80, 65536), POLICY_E_PORT_LARGE);
        ck_assert_int_eq(policy_rule_add_ports(&rule, 65536, 80), POLICY_E_PORT_LARGE);
        ck_assert_int_eq(policy_rule_add_ports(&rule, 65536 + 80, 65536 + 81), POLICY_E_PORT_LARGE);
        ck_assert_int_eq(policy_rule_add_ports(&rule, 81, 80), POLICY_E_PORT_ORDER);
        ck_assert_uint_eq(rule.n_ports, 0);
        for (int i = 1; i <= POLICY_PORTS_MAX; i++)
                ck_assert_int_eq(policy_rule_add_ports(&rule, i, 65535), 0);
        ck_assert_int_eq(policy_rule_add_ports(&rule, 1, 1), POLICY_E_PORTS_MANY);
        ck_assert_uint_eq(rule.n_ports, POLICY_PORTS_MAX);
        ck_assert_uint_eq(rule.ports[7].low, 8);
        ck_assert_uint_eq(rule.ports[7].high, 65535);
}
END_TEST

START_TEST(rules_are_checked_before_they_are_added)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        struct policy_rule rule = { .protocol = POLICY_TCP };

        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_ACTION);
        rule.action = POLICY_ALLOW + 1;
        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_ACTION);
        rule.action = POLICY_ALLOW;
        rule.is_domain = true;
        rule.protocol = POLICY_UDP;
        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_NAME_PROTOCOL);
        rule.protocol = POLICY_ICMP;
        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_NAME_PROTOCOL);
        rule.is_domain = false;
        ck_assert_int_eq(policy_rule_add_ports(&rule, 1, 2), 0);
        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_ICMP_PORTS);
        rule.n_ports = 0;
        rule.protocol = POLICY_ICMP + 1;
        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_PROTOCOL);
        rule.protocol = 0;
        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_PROTOCOL);
        ck_assert_uint_eq(policy.n_rules, 0);
}
END_TEST

START_TEST(udp_and_icmp_take_direct_mode)
{
        static const bool is_direct[] = {
                [POLICY_TCP] = false, [POLICY_UDP] = true, [POLICY_ICMP] = true
        };
        _cleanup_(policy_deinit) struct policy policy = { 0 };

        for (unsigned i = POLICY_TCP; i < ARRAY_SIZE(is_direct); i++) {
                const struct policy_rule rule = { .action = POLICY_ALLOW,
                                                  .protocol = (enum policy_protocol)i };

                ck_assert_int_eq(policy_add(&policy, &rule), 0);
                ck_assert_int_eq(policy_rule_is_direct(&rule), is_direct[i]);
        }
}
END_TEST

START_TEST(ten_thousand_rules_are_the_most)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        struct policy_rule rule = { .action = POLICY_DENY, .protocol = POLICY_TCP };

        for (size_t i = 0; i < 10000; i++) {
                rule.prefix.n_bits = (uint8_t)(i % 33);
                ck_assert_int_eq(policy_add(&policy, &rule), 0);
        }
        ck_assert_int_eq(policy_add(&policy, &rule), POLICY_E_RULES_MANY);
        ck_assert_uint_eq(policy.n_rules, 10000);
        ck_assert_uint_eq(policy.rules[9999].prefix.n_bits, 9999 % 33);
}
END_TEST

START_TEST(every_problem_has_a_sentence_of_its_own)
{
        for (int i = 0; i < _POLICY_PROBLEM_N; i++) {
                ck_assert_uint_gt(strlen(policy_problem_text(i)), 10);
                /* It stands behind `rules[0].ports`, and behind `it`. */
                ck_assert_int_ne(strncmp(policy_problem_text(i), "do ", 3), 0);
                for (int j = 0; j < i; j++)
                        ck_assert_str_ne(policy_problem_text(i), policy_problem_text(j));
        }
}
END_TEST

static void digest(enum policy_default default_action, const char *const *rules,
                   uint8_t ret_digest[32])
{
        _cleanup_(policy_deinit) struct policy policy = { .default_action = default_action };

        for (; *rules; rules++)
                add_written(&policy, *rules);
        ck_assert_int_eq(policy_digest(&policy, ret_digest), 0);
}

#define RULES(...) ((const char *const[]){ __VA_ARGS__, NULL })
START_TEST(the_digest_is_of_the_text_that_is_documented)
{
        static const char text[] = "hotcell egress policy 1\n"
                                   "default deny\n"
                                   "allow tcp *.example.org 80,443\n"
                                   "allow tcp 2001:db8::/32 all\n"
                                   "deny tcp 192.0.2.0/24 1-7,9-65535\n";
        uint8_t expected[32], found[32];
        unsigned n;

        ck_assert_int_eq(EVP_Digest(text, strlen(text), expected, &n, EVP_sha256(), NULL), 1);
        digest(POLICY_DEFAULT_DENY,
               RULES("deny 192.0.2.0/24 100-65535,5-7,9-120,1-4,110,111,113-115,112",
                     "allow 2001:DB8::/32", "allow *.Example.org. 443,80", "allow 2001:DB8::/32"),
               found);
        ck_assert_mem_eq(found, expected, 32);
}
END_TEST

START_TEST(types_of_records_are_a_line_of_the_digest_if_there_are_any)
{
        static const char text[] = "hotcell egress policy 1\n"
                                   "default deny\n"
                                   "records NULL,TXT,CAA\n";
        struct policy policy = { .record_types = BIT(POLICY_RECORD_CAA) | BIT(POLICY_RECORD_NULL) |
                                                 BIT(POLICY_RECORD_TXT) };
        uint8_t expected[32], found[32];
        unsigned n;

        ck_assert_int_eq(EVP_Digest(text, strlen(text), expected, &n, EVP_sha256(), NULL), 1);
        ck_assert_int_eq(policy_digest(&policy, found), 0);
        ck_assert_mem_eq(found, expected, 32);
        policy.record_types = 0;
        ck_assert_int_eq(policy_digest(&policy, found), 0);
        ck_assert_mem_eq(found, policy_digest_of_none, 32);
}
END_TEST

START_TEST(the_digest_of_none_is_known)
{
        uint8_t found[32];

        digest(POLICY_DEFAULT_DENY, RULES(NULL), found);
        ck_assert_mem_eq(found, policy_digest_of_none, sizeof(found));
}
END_TEST

START_TEST(the_digest_tells_policies_apart)
{
        uint8_t digests[10][32];

        digest(POLICY_DEFAULT_DENY, RULES(NULL), digests[0]);
        digest(POLICY_DEFAULT_ALLOW_PUBLIC, RULES(NULL), digests[1]);
        digest(POLICY_DEFAULT_DENY, RULES("allow 192.0.2.0/24"), digests[2]);
        digest(POLICY_DEFAULT_DENY, RULES("deny 192.0.2.0/24"), digests[3]);
        digest(POLICY_DEFAULT_DENY, RULES("allow 192.0.2.0/25"), digests[4]);
        digest(POLICY_DEFAULT_DENY, RULES("allow 192.0.2.0/24 1-443"), digests[5]);
        digest(POLICY_DEFAULT_DENY, RULES("allow 192.0.2.0/24 1,443"), digests[6]);
        digest(POLICY_DEFAULT_DENY, RULES("allow example.org"), digests[7]);
        digest(POLICY_DEFAULT_DENY, RULES("allow *.example.org"), digests[8]);
        digest(POLICY_DEFAULT_DENY, RULES("allow *.example.org", "deny *.example.org"), digests[9]);
        for (size_t i = 0; i < ARRAY_SIZE(digests); i++) {
                for (size_t j = 0; j < i; j++)
                        ck_assert_mem_ne(digests[i], digests[j], 32);
        }
}
END_TEST

START_TEST(want_of_memory_is_no_problem_of_the_text)
{
        _cleanup_(policy_deinit) struct policy policy = { 0 };
        struct policy_rule rule = { .action = POLICY_DENY, .protocol = POLICY_TCP };
        uint8_t bytes[32];

        fail_allocation(1);
        ck_assert_int_eq(policy_add(&policy, &rule), -ENOMEM);
        ck_assert_uint_eq(policy.n_rules, 0);
        fail_allocation(1);
        ck_assert_int_eq(policy_digest(&policy, bytes), -ENOMEM);
        fail_allocation(1);
        ck_assert_int_eq(policy_parse_domain("bücher.example", &rule.is_wildcard, rule.domain),
                         -ENOMEM);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                prefixes_are_written_in_one_way,
                bad_prefixes_are_refused_with_their_problem,
                mapped_addresses_are_ipv4_ones,
                domains_are_written_in_one_way,
                bad_domains_are_refused_with_their_problem,
                a_text_without_end_is_too_long,
                names_from_the_wire_are_ascii,
                ports_are_checked,
                rules_are_checked_before_they_are_added,
                udp_and_icmp_take_direct_mode,
                ten_thousand_rules_are_the_most,
                every_problem_has_a_sentence_of_its_own,
                the_digest_is_of_the_text_that_is_documented,
                types_of_records_are_a_line_of_the_digest_if_there_are_any,
                the_digest_of_none_is_known,
                the_digest_tells_policies_apart,
                want_of_memory_is_no_problem_of_the_text,
        };

        return run_tests("policy_text", tests, ARRAY_SIZE(tests));
}
