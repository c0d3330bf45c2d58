/* Which prefixes direct mode takes, and which addresses it gives out of them. */
#include <arpa/inet.h>
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/supervisor/direct_pool.h"
#include "test/lib/suite.h"

static const struct {
        const char *text;
        int problem;
} prefixes[] = {
        { "198.51.100.0/22", 0 },
        { "10.0.0.0/8", 0 },
        { "2001:db8:7::/64", 0 },
        { "fd00::/8", 0 },
        { "", DIRECT_POOL_E_FORM },
        { "198.51.100.0", DIRECT_POOL_E_FORM },
        { "198.51.100.0/", DIRECT_POOL_E_FORM },
        { "198.51.100.0/33", DIRECT_POOL_E_FORM },
        { "198.51.100.0/-1", DIRECT_POOL_E_FORM },
        { "198.51.100/24", DIRECT_POOL_E_FORM },
        { "example.org/24", DIRECT_POOL_E_FORM },
        { "2001:db8::/129", DIRECT_POOL_E_FORM },
        { "2001:db8:0000:0000:0000:0000:0000:0000:0000:0000:0000/64", DIRECT_POOL_E_FORM },
        { "198.51.101.0/23", DIRECT_POOL_E_HOST_BITS },
        { "2001:db8::1/64", DIRECT_POOL_E_HOST_BITS },
        { "0.0.0.0/0", DIRECT_POOL_E_KIND },
        { "0.0.0.0/8", DIRECT_POOL_E_KIND },
        { "127.7.0.0/16", DIRECT_POOL_E_KIND },
        { "126.0.0.0/7", DIRECT_POOL_E_KIND },
        { "169.254.0.0/16", DIRECT_POOL_E_KIND },
        { "239.0.0.0/8", DIRECT_POOL_E_KIND },
        { "240.0.0.0/8", DIRECT_POOL_E_KIND },
        { "::/0", DIRECT_POOL_E_KIND },
        { "::ffff:198.51.100.0/120", DIRECT_POOL_E_KIND },
        { "64:ff9b::/96", DIRECT_POOL_E_KIND },
        { "fe80::/10", DIRECT_POOL_E_KIND },
        { "ff00::/8", DIRECT_POOL_E_KIND },
};

START_TEST(only_prefixes_of_what_a_device_may_have_are_taken)
{
        struct direct_pool pool = { 0 };

        ck_assert_msg(direct_pool_add(&pool, prefixes[_i].text) == prefixes[_i].problem, "%s",
                      prefixes[_i].text);
        ck_assert_int_eq(direct_pool_is_set(&pool), prefixes[_i].problem == 0);
        ck_assert_str_ne(direct_pool_problem_text(prefixes[_i].problem), "");
}
END_TEST

START_TEST(there_is_one_of_each_family)
{
        struct direct_pool pool = { 0 };

        ck_assert_int_eq(direct_pool_add(&pool, "198.51.100.0/24"), 0);
        ck_assert_int_eq(direct_pool_add(&pool, "203.0.113.0/24"), DIRECT_POOL_E_TWICE);
        ck_assert_int_eq(direct_pool_add(&pool, "2001:db8::/64"), 0);
        ck_assert_int_eq(direct_pool_add(&pool, "2001:db8:1::/64"), DIRECT_POOL_E_TWICE);
        ck_assert_uint_eq(direct_pool_size(&pool), 254);
}
END_TEST

static const struct {
        const char *text;
        uint32_t size;
} sizes[] = {
        { "198.51.100.0/32", 0 },    { "198.51.100.0/31", 0 },    { "198.51.100.0/30", 2 },
        { "198.51.100.0/23", 510 },  { "10.64.0.0/16", 65534 },   { "10.64.0.0/15", 65536 },
        { "10.0.0.0/8", 65536 },     { "2001:db8::/128", 0 },     { "2001:db8::/127", 1 },
        { "2001:db8::/112", 65535 }, { "2001:db8::/111", 65536 }, { "2001:db8::/64", 65536 },
};

START_TEST(the_first_address_and_of_ipv4_the_last_are_not_given_out)
{
        struct direct_pool pool = { 0 };

        ck_assert_int_eq(direct_pool_add(&pool, sizes[_i].text), 0);
        ck_assert_msg(direct_pool_size(&pool) == sizes[_i].size, "%s: %u", sizes[_i].text,
                      direct_pool_size(&pool));
}
END_TEST

static void expect_address(const struct direct_pool *pool, uint32_t index, const char *v4,
                           const char *v6)
{
        struct direct_address address = direct_pool_address(pool, index);
        char text[INET6_ADDRSTRLEN];

        ck_assert_str_eq(inet_ntop(AF_INET, &address.v4, text, sizeof(text)), v4);
        ck_assert_str_eq(inet_ntop(AF_INET6, address.v6, text, sizeof(text)), v6);
}

START_TEST(addresses_follow_each_other)
{
        struct direct_pool pool = { 0 };

        ck_assert_int_eq(direct_pool_add(&pool, "10.64.0.0/15"), 0);
        expect_address(&pool, 0, "10.64.0.1", "::");
        expect_address(&pool, 65535, "10.65.0.0", "::");
        ck_assert_int_eq(direct_pool_add(&pool, "2001:db8:7::/64"), 0);
        expect_address(&pool, 254, "10.64.0.255", "2001:db8:7::ff");
        expect_address(&pool, 65535, "10.65.0.0", "2001:db8:7::1:0");
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("direct_pool");
        TCase *tcase = tcase_create("direct_pool");

        tcase_add_loop_test(tcase, only_prefixes_of_what_a_device_may_have_are_taken, 0,
                            ARRAY_SIZE(prefixes));
        tcase_add_test(tcase, there_is_one_of_each_family);
        tcase_add_loop_test(tcase, the_first_address_and_of_ipv4_the_last_are_not_given_out, 0,
                            ARRAY_SIZE(sizes));
        tcase_add_test(tcase, addresses_follow_each_other);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
