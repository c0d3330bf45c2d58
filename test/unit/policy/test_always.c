/* What no policy lets through, and what the operator opens of it. */
#include <check.h>
#include <errno.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/policy/always.h"
#include "test/unit/policy/written.h"

#define PREFIXES(...) ((const char *const[]){ __VA_ARGS__, NULL })

static void init(struct policy_always *always, const char *const *opened, const char *const *extra)
{
        struct policy_prefix prefixes[2][8];
        struct policy_prefixes lists[2] = { { prefixes[0], 0 }, { prefixes[1], 0 } };

        for (; *opened; opened++)
                prefixes[0][lists[0].n++] = prefix_of(*opened);
        for (; *extra; extra++)
                prefixes[1][lists[1].n++] = prefix_of(*extra);
        ck_assert_int_eq(policy_always_init(always, &lists[0], &lists[1]), 0);
}

static const struct policy_always_entry *find(const struct policy_always *always, const char *text)
{
        struct policy_address address = address_of(text);

        return policy_always_find(always, &address);
}

static void expect(const struct policy_always *always, const char *address, bool is_denied)
{
        ck_assert_msg(!!find(always, address) == is_denied, "%s is %s", address,
                      is_denied ? "not denied" : "denied");
}

START_TEST(the_shipped_list_ends_where_it_should)
{
        /* Beside, first, last, beside. */
        static const char *const edges[][4] = {
                { NULL, "0.0.0.0", "0.255.255.255", "1.0.0.0" },
                { "9.255.255.255", "10.0.0.0", "10.255.255.255", "11.0.0.0" },
                { "100.63.255.255", "100.64.0.0", "100.127.255.255", "100.128.0.0" },
                { "126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0" },
                { "168.63.129.15", "168.63.129.16", "168.63.129.16", "168.63.129.17" },
                { "169.253.255.255", "169.254.0.0", "169.254.255.255", "169.255.0.0" },
                { "172.15.255.255", "172.16.0.0", "172.31.255.255", "172.32.0.0" },
                { "191.255.255.255", "192.0.0.0", "192.0.0.255", "192.0.1.0" },
                { "192.0.1.255", "192.0.2.0", "192.0.2.255", "192.0.3.0" },
                { "192.88.98.255", "192.88.99.0", "192.88.99.255", "192.88.100.0" },
                { "192.167.255.255", "192.168.0.0", "192.168.255.255", "192.169.0.0" },
                { "198.17.255.255", "198.18.0.0", "198.19.255.255", "198.20.0.0" },
                { "198.51.99.255", "198.51.100.0", "198.51.100.255", "198.51.101.0" },
                { "203.0.112.255", "203.0.113.0", "203.0.113.255", "203.0.114.0" },
                { "223.255.255.255", "224.0.0.0", "239.255.255.255", NULL },
                { NULL, "240.0.0.0", "255.255.255.255", NULL },
                { NULL, "::", "::1", "::100:0" },
                { "64:ff9b:0:ffff:ffff:ffff:ffff:ffff",
                  "64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", "64:ff9b:2::" },
                { "::fffe:ffff:ffff:ffff", "::ffff:0:0:0", "::ffff:0:ffff:ffff", "::ffff:1:0:0" },
                { "ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "100::", "100:0:0:1:ffff:ffff:ffff:ffff",
                  "100:0:0:2::" },
                { "2000:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                  "2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", "2001:200::" },
                { "2001:db7:ffff:ffff:ffff:ffff:ffff:ffff",
                  "2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", "2001:db9::" },
                { "3ffe:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                  "3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", "3fff:1000::" },
                { "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                  "5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "5f01::" },
                { "fbff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                  "fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", "fe00::" },
                { "fe7f:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
                  "fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL },
                { NULL, "fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL },
                { NULL, "ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", NULL },
        };
        _cleanup_(policy_always_deinit) struct policy_always always;

        init(&always, PREFIXES(NULL), PREFIXES(NULL));
        for (size_t i = 0; i < ARRAY_SIZE(edges); i++) {
                for (size_t j = 0; j < 4; j++) {
                        if (edges[i][j])
                                expect(&always, edges[i][j], j == 1 || j == 2);
                }
        }
}
END_TEST

START_TEST(metadata_services_are_denied)
{
        static const char *const services[] = {
                "169.254.169.254", "169.254.170.2", "100.100.100.200", "168.63.129.16",
                "192.0.0.192",     "fd00:ec2::254", "fd20:ce::254",    "::ffff:169.254.169.254",
        };
        _cleanup_(policy_always_deinit) struct policy_always always;

        init(&always, PREFIXES(NULL), PREFIXES(NULL));
        for (size_t i = 0; i < ARRAY_SIZE(services); i++)
                expect(&always, services[i], true);
}
END_TEST

START_TEST(embedded_forms_are_denied_with_what_they_lead_to)
{
        static const struct {
                const char *address;
                bool is_denied;
        } forms[] = {
                { "::ffff:10.1.2.3", true },
                { "64:ff9b::10.1.2.3", true },
                { "::10.1.2.3", true },
                { "2002:a01:203::1", true },
                { "2002:a01:203:ffff::", true },
                { "64:ff9b::127.0.0.1", true },
                { "2002:7f00:1::", true },
                { "64:ff9b::169.254.169.254", true },
                { "2002:a9fe:a9fe::", true },
                { "64:ff9b::168.63.129.16", true },
                { "64:ff9b::168.63.129.17", false },
                { "2002:a83f:8110::", true },
                { "2002:a83f:8111::", false },
                { "64:ff9b::255.255.255.255", true },
                { "2002:ffff:ffff:ffff::", true },
                { "64:ff9b::8.8.8.8", false },
                { "2002:808:808::1", false },
                { "::8.8.8.8", false },
                { "::ffff:8.8.8.8", false },
                { "64:ff9b:0:0:0:1:a01:203", false },
                /* SIIT, a network's own NAT64, Teredo: all of it, also of public addresses. */
                { "::ffff:0:10.1.2.3", true },
                { "::ffff:0:8.8.8.8", true },
                { "64:ff9b:1::8.8.8.8", true },
                { "64:ff9b:1:ffff::8.8.8.8", true },
                { "2001:0:808:808:0:ffff:f7f7:f7f7", true },
                /* ISATAP, in any prefix. */
                { "2606:4700::5efe:10.1.2.3", true },
                { "2606:4700::200:5efe:10.1.2.3", true },
                { "2606:4700:0:7::5efe:169.254.169.254", true },
                { "2606:4700::5efe:8.8.8.8", false },
                { "2606:4700::200:5efe:8.8.8.8", false },
                { "2606:4700::100:5efe:10.1.2.3", false },
                { "2606:4700::5eff:10.1.2.3", false },
                { "fe80::5efe:8.8.8.8", true },
                { "fe80::200:5efe:8.8.8.8", true },
        };
        _cleanup_(policy_always_deinit) struct policy_always always;

        init(&always, PREFIXES(NULL), PREFIXES(NULL));
        for (size_t i = 0; i < ARRAY_SIZE(forms); i++)
                expect(&always, forms[i].address, forms[i].is_denied);
}
END_TEST

/* What the registry calls not globally reachable, and is no form of an IPv4 address. */
START_TEST(what_the_registry_has_is_named)
{
        static const struct {
                const char *address;
                const char *source;
        } rows[] = {
                { "::ffff:0:8.8.8.8", "RFC 2765" },
                { "64:ff9b:1::1", "RFC 8215" },
                { "100::1", "RFC 6666" },
                { "100:0:0:1::1", "RFC 9780" },
                { "2001::1", "RFC 4380" },
                { "2001:1::1", "RFC 2928" },
                { "2001:2::1", "RFC 5180" },
                { "2001:10::1", "RFC 4843" },
                { "2001:1ff::1", "RFC 2928" },
                { "2001:db8::1", "RFC 3849" },
                { "3fff::1", "RFC 9637" },
                { "5f00::1", "RFC 9602" },
                { "2606:4700::5efe:10.0.0.1", "RFC 1918" },
        };
        _cleanup_(policy_always_deinit) struct policy_always always;

        init(&always, PREFIXES(NULL), PREFIXES(NULL));
        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                const struct policy_always_entry *found = find(&always, rows[i].address);

                ck_assert_msg(found && strstr(found->what, rows[i].source), "%s: %s",
                              rows[i].address, found ? found->what : "not denied");
        }
}
END_TEST

START_TEST(what_is_opened_is_open_as_far_as_it_was_written)
{
        _cleanup_(policy_always_deinit) struct policy_always always;

        init(&always,
             PREFIXES("10.1.2.0/24", "192.168.0.0/16", "172.0.0.0/8", "fd00:1::/32", "0.0.0.0/0"),
             PREFIXES(NULL));
        expect(&always, "10.1.1.255", true);
        expect(&always, "10.1.2.0", false);
        expect(&always, "10.1.2.255", false);
        expect(&always, "::ffff:10.1.2.7", false);
        expect(&always, "10.1.3.0", true);
        expect(&always, "192.168.3.4", false); /* the shipped prefix itself */
        expect(&always, "172.16.0.1", true);   /* one around it opens nothing */
        expect(&always, "127.0.0.1", true);
        expect(&always, "fd00:1::7", false);
        expect(&always, "fd00:2::7", true);
        expect(&always, "64:ff9b::10.1.2.7", true);
        expect(&always, "2002:a01:207::", true);
        expect(&always, "2606:4700::5efe:10.1.2.7", false);
        expect(&always, "2606:4700::5efe:10.1.3.7", true);
}
END_TEST

START_TEST(nothing_opens_what_was_added)
{
        _cleanup_(policy_always_deinit) struct policy_always always;

        init(&always,
             PREFIXES("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "8.8.8.8/32",
                      "2600:1::/64"),
             PREFIXES("10.1.2.0/24", "8.8.8.8", "8.8.8.8/31", "2600:1::7"));
        expect(&always, "10.1.1.9", false);
        expect(&always, "10.1.2.3", true);
        expect(&always, "10.1.2.4", true);
        expect(&always, "8.8.8.8", true);
        expect(&always, "8.8.8.9", true);
        expect(&always, "8.8.8.10", false);
        expect(&always, "64:ff9b::8.8.8.8", true);
        expect(&always, "2002:808:808:5::", true);
        expect(&always, "::8.8.8.8", true);
        expect(&always, "2600:1::6", false);
        expect(&always, "2600:1::7", true);
        ck_assert_int_eq(find(&always, "10.1.2.3")->kind, POLICY_ALWAYS_EXTRA);
        ck_assert_int_eq(find(&always, "10.1.2.3")->prefix.n_bits, 24);
}
END_TEST

START_TEST(only_parts_of_what_is_denied_can_be_opened)
{
        static const struct {
                const char *text;
                int result;
        } rows[] = {
                { "10.0.0.0/8", 0 },
                { "10.1.2.0/24", 0 },
                { "169.254.169.254", 0 },
                { "fc00::/7", 0 },
                { "fd00:1::7", 0 },
                { "64:ff9b::10.0.0.0/104", 0 },
                { "2002:a00::/24", 0 },
                { "10.0.0.0/7", POLICY_E_OPENS_NOTHING },
                { "0.0.0.0/0", POLICY_E_OPENS_NOTHING },
                { "8.8.8.0/24", POLICY_E_OPENS_NOTHING },
                { "::/0", POLICY_E_OPENS_NOTHING },
                { "64:ff9b::8.8.8.8", POLICY_E_OPENS_NOTHING },
                { "10.0.0.1/8", POLICY_E_CIDR_HOST_BITS },
                { "::ffff:10.0.0.1", POLICY_E_CIDR_V4_MAPPED },
                { "foo", POLICY_E_CIDR_FORM },
                { "", POLICY_E_CIDR_FORM },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct policy_prefix prefix;

                ck_assert_msg(policy_always_parse_opened(rows[i].text, &prefix) == rows[i].result,
                              "%s", rows[i].text);
        }
}
END_TEST

START_TEST(want_of_memory_is_told)
{
        struct policy_always always = { .n_entries = 77 };
        const struct policy_prefixes none = { 0 };
        unsigned n = 0;
        int r;

        do {
                fail_allocation(++n);
                r = policy_always_init(&always, &none, &none);
                ck_assert(r == 0 || (r == -ENOMEM && always.n_entries == 77));
        } while (r);
        ck_assert_uint_eq(n, 4);
        policy_always_deinit(&always);
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                the_shipped_list_ends_where_it_should,
                metadata_services_are_denied,
                embedded_forms_are_denied_with_what_they_lead_to,
                what_the_registry_has_is_named,
                what_is_opened_is_open_as_far_as_it_was_written,
                nothing_opens_what_was_added,
                only_parts_of_what_is_denied_can_be_opened,
                want_of_memory_is_told,
        };

        return run_tests("policy_always", tests, ARRAY_SIZE(tests));
}
