/* Addresses with ports, as a configuration writes them. */
#include <check.h>
#include <stdlib.h>

#include "runtime/base/address_port.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"

START_TEST(addresses_are_taken_with_and_without_a_port)
{
        static const struct {
                const char *text;
                bool is_v6;
                uint16_t port;
        } rows[] = {
                { "8.8.8.8", false, 53 },
                { "8.8.8.8:1", false, 1 },
                { "8.8.8.8:65535", false, 65535 },
                { "2001:4860:4860::8888", true, 53 },
                { "[2001:4860:4860::8888]", true, 53 },
                { "[2001:4860:4860::8888]:5353", true, 5353 },
                { "::ffff:255.255.255.255", true, 53 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                struct address_port parsed;

                ck_assert_msg(address_port_parse(rows[i].text, 53, &parsed), "%s", rows[i].text);
                ck_assert(parsed.is_v6 == rows[i].is_v6);
                ck_assert_uint_eq(parsed.port, rows[i].port);
        }
}
END_TEST

START_TEST(all_else_is_refused)
{
        static const char *const texts[] = {
                "",
                "foo",
                "ns.example.org",
                "1.2.3",
                "1.2.3.4:",
                "1.2.3.4:0",
                "1.2.3.4:65536",
                "1.2.3.4:99999",
                "1.2.3.4:dns",
                "1.2.3.4,8.8.8.8",
                "[1.2.3.4]:53",
                "[::1",
                "[::1]53",
                "::1]:53",
                "fe80::1%eth0",
                "[2001:4860:4860:2001:4860:4860:2001:4860:4860:2001:4860:4860::8888]:53",
        };

        for (size_t i = 0; i < ARRAY_SIZE(texts); i++) {
                struct address_port parsed = { .port = 7 };

                ck_assert_msg(!address_port_parse(texts[i], 53, &parsed), "%s", texts[i]);
                ck_assert_uint_eq(parsed.port, 7);
        }
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("address_port");
        TCase *tests = tcase_create("all");

        tcase_add_test(tests, addresses_are_taken_with_and_without_a_port);
        tcase_add_test(tests, all_else_is_refused);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
