/*
 * Which name a ClientHello asks for. Real ones are those of test/corpus/fuzz_tls_hello, as clients
 * sent them; the others are put together here.
 */

#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/egress/tls_hello.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"

enum { BYTES_MAX = 40000, RECORD_HEADER = 5 };

struct bytes {
        uint8_t data[BYTES_MAX];
        size_t n;
};

static void add(struct bytes *bytes, const void *data, size_t n)
{
        ck_assert_uint_le(bytes->n + n, BYTES_MAX);
        if (n > 0)
                memcpy(bytes->data + bytes->n, data, n);
        bytes->n += n;
}

static void add_number(struct bytes *bytes, size_t value, unsigned n_bytes)
{
        for (unsigned i = n_bytes; i > 0; i--) {
                uint8_t byte = (uint8_t)(value >> (8 * (i - 1)));

                add(bytes, &byte, 1);
        }
}

static struct tls_hello take_all(const struct bytes *bytes)
{
        struct tls_hello hello = { 0 };

        (void)tls_hello_take(&hello, bytes->data, bytes->n);
        return hello;
}

static void expect_same(const struct tls_hello *a, const struct tls_hello *b)
{
        ck_assert_int_eq(a->state, b->state);
        ck_assert_str_eq(a->name, b->name);
        ck_assert_uint_eq(a->n_seen, b->n_seen);
}

/* Whole, in two pieces at each place, and each byte alone; no part of it may be enough. */
static void expect(const struct bytes *bytes, enum tls_hello_state state, const char *name)
{
        const struct tls_hello whole = take_all(bytes);
        struct tls_hello single = { 0 };

        ck_assert_int_eq(whole.state, state);
        ck_assert_str_eq(whole.name, name);
        for (size_t i = 0; i < bytes->n; i++) {
                struct tls_hello two = { 0 };

                if (i < whole.n_seen)
                        ck_assert_int_eq(tls_hello_take(&two, bytes->data, i), TLS_HELLO_NEED_MORE);
                else
                        (void)tls_hello_take(&two, bytes->data, i);
                (void)tls_hello_take(&two, bytes->data + i, bytes->n - i);
                expect_same(&two, &whole);
                (void)tls_hello_take(&single, bytes->data + i, 1);
        }
        expect_same(&single, &whole);
}

/* Lengths of what comes before the extensions. */
struct sizes {
        size_t n_session;
        size_t n_suites;
        size_t n_methods;
};

static const struct sizes usual = { .n_suites = 2, .n_methods = 1 };

static void add_zeros(struct bytes *bytes, size_t n)
{
        for (size_t i = 0; i < n; i++)
                add_number(bytes, 0, 1);
}

static void add_message(struct bytes *bytes, const struct sizes *sizes,
                        const struct bytes *extensions)
{
        size_t n = 34 + 1 + sizes->n_session + 2 + sizes->n_suites + 1 + sizes->n_methods + 2;

        add_number(bytes, 1, 1);
        add_number(bytes, n + extensions->n, 3);
        add_number(bytes, 0x0303, 2);
        add_zeros(bytes, 32);
        add_number(bytes, sizes->n_session, 1);
        add_zeros(bytes, sizes->n_session);
        add_number(bytes, sizes->n_suites, 2);
        add_zeros(bytes, sizes->n_suites);
        add_number(bytes, sizes->n_methods, 1);
        add_zeros(bytes, sizes->n_methods);
        add_number(bytes, extensions->n, 2);
        add(bytes, extensions->data, extensions->n);
}

static void add_records(struct bytes *bytes, const struct bytes *message, size_t n_each)
{
        for (size_t at = 0; at < message->n; at += n_each) {
                size_t n = MIN(n_each, message->n - at);

                add_number(bytes, 0x160301, 3);
                add_number(bytes, n, 2);
                add(bytes, message->data + at, n);
        }
}

static struct bytes hello_of(const struct bytes *extensions)
{
        struct bytes message = { 0 };
        struct bytes hello = { 0 };

        add_message(&message, &usual, extensions);
        add_records(&hello, &message, 16384);
        return hello;
}

static void add_name(struct bytes *extensions, const void *name, size_t n)
{
        add_number(extensions, 0, 2);
        add_number(extensions, n + 5, 2);
        add_number(extensions, n + 3, 2);
        add_number(extensions, 0, 1);
        add_number(extensions, n, 2);
        add(extensions, name, n);
}

static struct bytes hello_for(const char *name)
{
        struct bytes extensions = { 0 };

        add_name(&extensions, name, strlen(name));
        return hello_of(&extensions);
}

static const struct {
        const char *file;
        enum tls_hello_state state;
        const char *name;
} kept[] = {
        { "openssl", TLS_HELLO_FOUND, "openssl.example" },
        { "openssl-1.2", TLS_HELLO_FOUND, "openssl-1-2.example" },
        { "openssl-no-name", TLS_HELLO_ABSENT, "" },
        { "python", TLS_HELLO_FOUND, "python.example" },
        { "python-dot", TLS_HELLO_FOUND, "dot.python.example" },
        { "curl-h2", TLS_HELLO_FOUND, "curl.example" },
        { "gnutls", TLS_HELLO_FOUND, "gnutls.example" },
        { "node", TLS_HELLO_FOUND, "node.example" },
        { "java", TLS_HELLO_FOUND, "java.example" },
        { "go", TLS_HELLO_FOUND, "go.example" },
        { "go-ech", TLS_HELLO_FOUND, "public.example" },
};

/* Its first byte is the fuzzer's. */
static struct bytes read_kept(const char *name)
{
        struct bytes bytes = { 0 };
        char path[512];
        size_t n;

        (void)snprintf(path, sizeof(path), CORPUS "/fuzz_tls_hello/%s", name);
        ck_assert_int_eq(io_read_file(AT_FDCWD, path, (char *)bytes.data, BYTES_MAX, &n), 0);
        ck_assert_uint_gt(n, 1);
        memmove(bytes.data, bytes.data + 1, n - 1);
        bytes.n = n - 1;
        return bytes;
}

START_TEST(what_clients_send_is_read_however_it_is_cut)
{
        const struct bytes bytes = read_kept(kept[_i].file);

        expect(&bytes, kept[_i].state, kept[_i].name);
}
END_TEST

START_TEST(records_of_any_size_carry_the_same_message)
{
        const struct bytes original = read_kept(kept[_i].file);
        struct bytes message = { 0 };

        add(&message, original.data + RECORD_HEADER, original.n - RECORD_HEADER);
        for (size_t n_each = 1; n_each < message.n; n_each++) {
                static struct bytes bytes;
                struct tls_hello hello;

                bytes.n = 0;
                add_records(&bytes, &message, n_each);
                hello = take_all(&bytes);
                ck_assert_int_eq(hello.state, kept[_i].state);
                ck_assert_str_eq(hello.name, kept[_i].name);
        }
}
END_TEST

static const struct {
        const char *sent;
        const char *read; /* NULL: refused */
} names[] = {
        { "example.org", "example.org" },
        { "EXAMPLE.Org.", "example.org" },
        { "a", "a" },
        { "a_b.example", "a_b.example" },
        { "xn--bcher-kva.example", "xn--bcher-kva.example" },
        { "1.2.3.4.example", "1.2.3.4.example" },
        { "0x.a", "0x.a" },
        { "", NULL },
        { ".", NULL },
        { "..", NULL },
        { ".example", NULL },
        { "example..", NULL },
        { "a..example", NULL },
        { "192.0.2.1", NULL },
        { "127.1", NULL },
        { "2130706433", NULL },
        { "0x7f000001", NULL },
        { "a.0x", NULL },
        { "a.1", NULL },
        { "2001:db8::1", NULL },
        { "[::1]", NULL },
        { "-a.example", NULL },
        { "a-.example", NULL },
        { "a b.example", NULL },
        { "a.example:443", NULL },
        { "*.example", NULL },
        { "b\303\274cher.example", NULL },
        { "a\r\n.example", NULL },
};

START_TEST(names_are_checked_as_those_of_hosts)
{
        const struct bytes bytes = hello_for(names[_i].sent);

        if (names[_i].read)
                expect(&bytes, TLS_HELLO_FOUND, names[_i].read);
        else
                expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

START_TEST(nul_in_a_name_is_refused)
{
        struct bytes extensions = { 0 };
        struct bytes bytes;

        add_name(&extensions, "good.example\0.evil.example", 26);
        bytes = hello_of(&extensions);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

/* 253 bytes of labels of 63, 63, 63 and 61. */
static void fill_name(char *ret_name, size_t n)
{
        memset(ret_name, 'a', n);
        ret_name[63] = ret_name[127] = ret_name[191] = '.';
        ret_name[n] = '\0';
}

START_TEST(names_have_at_most_253_bytes_and_labels_63)
{
        char name[300];
        struct bytes bytes;

        fill_name(name, 253);
        bytes = hello_for(name);
        expect(&bytes, TLS_HELLO_FOUND, name);
        name[253] = '.';
        name[254] = '\0';
        bytes = hello_for(name);
        name[253] = '\0';
        expect(&bytes, TLS_HELLO_FOUND, name);
        fill_name(name, 254);
        bytes = hello_for(name);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
        fill_name(name, 255);
        bytes = hello_for(name);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
        fill_name(name, 253);
        name[63] = 'a';
        bytes = hello_for(name);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

START_TEST(other_protocols_are_not_tls)
{
        static const struct {
                const char *data;
                size_t n;
        } others[] = {
                { "SSH-2.0-OpenSSH_9.2\r\n", 21 },
                { "GET / HTTP/1.1\r\n", 16 },
                { "\x80\x2e\x01\x03\x01", 5 }, /* ClientHello of SSL 2 */
                { "\x16\xfe\xff\x00", 4 },     /* DTLS */
                { "\x15\x03\x01\x00\x02", 5 }, /* an alert */
                { "\0", 1 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(others); i++) {
                struct bytes bytes = { 0 };

                add(&bytes, others[i].data, others[i].n);
                expect(&bytes, TLS_HELLO_NOT_TLS, "");
        }
}
END_TEST

START_TEST(hello_without_extensions_has_no_name)
{
        struct bytes extensions = { 0 };
        struct bytes bytes = hello_of(&extensions);

        expect(&bytes, TLS_HELLO_ABSENT, "");
        /* As before TLS 1.3: not even their length. */
        bytes.n -= 2;
        bytes.data[4] = (uint8_t)(bytes.data[4] - 2);
        bytes.data[8] = (uint8_t)(bytes.data[8] - 2);
        expect(&bytes, TLS_HELLO_ABSENT, "");
}
END_TEST

static void add_empty_extension(struct bytes *extensions, unsigned type)
{
        add_number(extensions, type, 2);
        add_number(extensions, 0, 2);
}

START_TEST(the_outer_name_counts_on_either_side_of_an_encrypted_one)
{
        for (unsigned i = 0; i < 4; i++) {
                unsigned type = i % 2 ? 0xfe0d : 0xffce;
                struct bytes extensions = { 0 };
                struct bytes bytes;

                if (i < 2)
                        add_empty_extension(&extensions, type);
                add_name(&extensions, "outer.example", 13);
                if (i >= 2)
                        add_empty_extension(&extensions, type);
                bytes = hello_of(&extensions);
                expect(&bytes, TLS_HELLO_FOUND, "outer.example");
        }
}
END_TEST

START_TEST(encrypted_name_alone_is_no_name)
{
        struct bytes extensions = { 0 };
        struct bytes bytes;

        add_empty_extension(&extensions, 0xfe0d);
        bytes = hello_of(&extensions);
        expect(&bytes, TLS_HELLO_ABSENT, "");
}
END_TEST

START_TEST(second_name_is_refused)
{
        struct bytes extensions = { 0 };
        struct bytes bytes;

        add_name(&extensions, "one.example", 11);
        add_name(&extensions, "two.example", 11);
        bytes = hello_of(&extensions);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
        /* In one list. */
        extensions = (struct bytes){ 0 };
        add(&extensions, "\0\0\0\x0e\0\x0c\0\0\3one\0\0\3two", 18);
        bytes = hello_of(&extensions);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

/* One byte of a good message, and what it is changed to: each breaks a rule. */
static const struct {
        const char *what;
        size_t at;
        uint8_t value;
} faults[] = {
        { "record of no bytes", 4, 0 },
        { "record of too many bytes", 3, 0x41 },
        { "not a ClientHello", 5, 2 },
        { "message longer than is looked at", 6, 1 },
        { "message that ends within its fields", 8, 40 },
        { "message without version", 8, 1 },
        { "long session", 43, 33 },
        { "session beyond the message", 43, 32 },
        { "no suites", 45, 0 },
        { "odd suites", 45, 3 },
        { "suites beyond the message", 44, 2 },
        { "no methods", 48, 0 },
        { "methods beyond the message", 48, 200 },
        { "extensions shorter than the message", 51, 4 },
        { "extensions longer than the message", 51, 200 },
        { "extension longer than the message", 55, 200 },
        { "extension shorter than its list", 55, 6 },
        { "list longer than its extension", 57, 40 },
        { "list shorter than its extension", 57, 9 },
        { "other type of name", 58, 1 },
        { "name longer than its list", 60, 60 },
        { "name shorter than its list", 60, 5 },
};

START_TEST(broken_hellos_are_refused)
{
        struct bytes bytes = hello_for("example.org");
        size_t n_good = bytes.n;

        expect(&bytes, TLS_HELLO_FOUND, "example.org");
        ck_assert_msg(bytes.data[faults[_i].at] != faults[_i].value, "%s", faults[_i].what);
        bytes.data[faults[_i].at] = faults[_i].value;
        /* Enough, should it be ready to read on; but it may not be. */
        memset(bytes.data + bytes.n, 'x', 1000);
        bytes.n += 1000;
        ck_assert_msg(take_all(&bytes).state == TLS_HELLO_MALFORMED, "%s", faults[_i].what);
        ck_assert_msg(take_all(&bytes).n_seen <= n_good, "%s", faults[_i].what);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

START_TEST(sizes_of_fields_are_checked)
{
        static const struct {
                struct sizes sizes;
                bool is_good;
        } cases[] = {
                { { 0, 2, 1 }, true },  { { 32, 2, 1 }, true },  { { 33, 2, 1 }, false },
                { { 0, 0, 1 }, false }, { { 0, 1, 1 }, false },  { { 0, 3, 1 }, false },
                { { 0, 4, 1 }, true },  { { 0, 600, 1 }, true }, { { 0, 2, 0 }, false },
                { { 0, 2, 2 }, true },  { { 0, 2, 255 }, true },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct bytes extensions = { 0 };
                struct bytes message = { 0 };
                struct bytes bytes = { 0 };

                add_name(&extensions, "example.org", 11);
                add_message(&message, &cases[i].sizes, &extensions);
                add_records(&bytes, &message, 16384);
                if (cases[i].is_good)
                        expect(&bytes, TLS_HELLO_FOUND, "example.org");
                else
                        expect(&bytes, TLS_HELLO_MALFORMED, "");
        }
}
END_TEST

START_TEST(bytes_that_are_no_extension_are_refused)
{
        for (size_t n = 1; n < 4; n++) {
                struct bytes extensions = { 0 };
                struct bytes bytes;

                add_name(&extensions, "example.org", 11);
                add_zeros(&extensions, n);
                bytes = hello_of(&extensions);
                expect(&bytes, TLS_HELLO_MALFORMED, "");
        }
}
END_TEST

START_TEST(extension_that_ends_behind_the_message_is_refused)
{
        struct bytes extensions = { 0 };
        struct bytes bytes;

        add_name(&extensions, "example.org", 11);
        add_number(&extensions, 21, 2);
        add_number(&extensions, 1, 2);
        bytes = hello_of(&extensions);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

/* They would be an extension if they stood behind it. */
START_TEST(bytes_behind_a_name_are_refused)
{
        struct bytes extensions = { 0 };
        struct bytes bytes;

        add(&extensions, "\0\0\0\x0c\0\x0a\0\0\3one\0\x15\0\0", 16);
        bytes = hello_of(&extensions);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
        extensions.data[5] = 6; /* behind the list of names */
        bytes = hello_of(&extensions);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

START_TEST(empty_record_is_refused)
{
        const struct bytes good = hello_for("example.org");
        struct bytes bytes = { 0 };

        add(&bytes, "\x16\3\1\0\0", RECORD_HEADER);
        add(&bytes, good.data, good.n);
        expect(&bytes, TLS_HELLO_MALFORMED, "");
}
END_TEST

START_TEST(other_record_within_the_message_is_refused)
{
        static const uint8_t seconds[][3] = {
                { 20, 3, 1 }, { 21, 3, 1 }, { 23, 3, 3 }, { 22, 2, 0 }
        };
        const struct bytes good = hello_for("example.org");

        for (size_t i = 0; i < ARRAY_SIZE(seconds); i++) {
                struct bytes message = { 0 };
                struct bytes bytes = { 0 };

                add(&message, good.data + RECORD_HEADER, good.n - RECORD_HEADER);
                add_records(&bytes, &message, 50);
                memcpy(bytes.data + RECORD_HEADER + 50, seconds[i], 3);
                expect(&bytes, TLS_HELLO_MALFORMED, "");
        }
}
END_TEST

START_TEST(what_follows_the_hello_does_not_matter)
{
        struct bytes bytes = hello_for("example.org");
        size_t n = bytes.n;

        add(&bytes, "\x17\x03\x03garbage", 10);
        expect(&bytes, TLS_HELLO_FOUND, "example.org");
        ck_assert_uint_eq(take_all(&bytes).n_seen, n);
}
END_TEST

/* A hello whose last byte is the @n-th of the connection. */
static struct bytes hello_of_length(size_t n)
{
        struct bytes extensions = { 0 };
        struct bytes message = { 0 };
        struct bytes bytes = { 0 };
        size_t n_padding;

        add_name(&extensions, "example.org", 11);
        n_padding = n - hello_of(&extensions).n - 4;
        add_number(&extensions, 21, 2);
        add_number(&extensions, n_padding, 2);
        memset(extensions.data + extensions.n, 0, n_padding);
        extensions.n += n_padding;
        add_message(&message, &usual, &extensions);
        add_records(&bytes, &message, 16384);
        ck_assert_uint_eq(bytes.n, n);
        return bytes;
}

START_TEST(hello_has_at_most_16_kib)
{
        struct bytes bytes = hello_of_length(TLS_HELLO_MAX);

        ck_assert_int_eq(take_all(&bytes).state, TLS_HELLO_FOUND);
        bytes = hello_of_length(TLS_HELLO_MAX + 1);
        ck_assert_int_eq(take_all(&bytes).state, TLS_HELLO_MALFORMED);
        ck_assert_uint_eq(take_all(&bytes).n_seen, TLS_HELLO_MAX);
        bytes.data[RECORD_HEADER + 1] = 1; /* which it says itself */
        ck_assert_uint_eq(take_all(&bytes).n_seen, RECORD_HEADER + 4);
        bytes.data[RECORD_HEADER + 1] = 0;
        bytes.n = TLS_HELLO_MAX - 1;
        ck_assert_int_eq(take_all(&bytes).state, TLS_HELLO_NEED_MORE);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("tls_hello");
        TCase *tests = tcase_create("tls_hello");

        tcase_set_timeout(tests, 30.0 * test_patience());
        tcase_add_loop_test(tests, what_clients_send_is_read_however_it_is_cut, 0,
                            ARRAY_SIZE(kept));
        tcase_add_loop_test(tests, records_of_any_size_carry_the_same_message, 0, ARRAY_SIZE(kept));
        tcase_add_loop_test(tests, names_are_checked_as_those_of_hosts, 0, ARRAY_SIZE(names));
        tcase_add_test(tests, nul_in_a_name_is_refused);
        tcase_add_test(tests, names_have_at_most_253_bytes_and_labels_63);
        tcase_add_test(tests, other_protocols_are_not_tls);
        tcase_add_test(tests, hello_without_extensions_has_no_name);
        tcase_add_test(tests, the_outer_name_counts_on_either_side_of_an_encrypted_one);
        tcase_add_test(tests, encrypted_name_alone_is_no_name);
        tcase_add_test(tests, second_name_is_refused);
        tcase_add_loop_test(tests, broken_hellos_are_refused, 0, ARRAY_SIZE(faults));
        tcase_add_test(tests, sizes_of_fields_are_checked);
        tcase_add_test(tests, bytes_that_are_no_extension_are_refused);
        tcase_add_test(tests, extension_that_ends_behind_the_message_is_refused);
        tcase_add_test(tests, bytes_behind_a_name_are_refused);
        tcase_add_test(tests, empty_record_is_refused);
        tcase_add_test(tests, other_record_within_the_message_is_refused);
        tcase_add_test(tests, what_follows_the_hello_does_not_matter);
        tcase_add_test(tests, hello_has_at_most_16_kib);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
