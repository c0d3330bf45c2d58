/* Which host a request of HTTP/1 asks for. */

#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/http_head.h"
#include "test/lib/patience.h"
#include "test/lib/suite.h"

#define END "\r\n\r\n"

struct request {
        const char *text;
        enum http_head_state state;
        const char *host;
        size_t n_text; /* 0: up to its NUL */
};

static size_t length_of(const struct request *request)
{
        return request->n_text ? request->n_text : strlen(request->text);
}

static void expect_same(const struct http_head *a, const struct http_head *b)
{
        ck_assert_int_eq(a->state, b->state);
        ck_assert_str_eq(a->host.text, b->host.text);
        ck_assert_int_eq(a->host.kind, b->host.kind);
        ck_assert_uint_eq(a->n_seen, b->n_seen);
}

/* Whole, in two pieces at each place, and each byte alone; no part of it may be enough. */
static void expect(const struct request *request)
{
        size_t n = length_of(request);
        struct http_head whole = { 0 };
        struct http_head single = { 0 };

        (void)http_head_take(&whole, request->text, n);
        ck_assert_msg(whole.state == request->state, "%s: state %d", request->text, whole.state);
        ck_assert_str_eq(whole.host.text, request->host ? request->host : "");
        for (size_t i = 0; i < n; i++) {
                struct http_head two = { 0 };
                enum http_head_state state = http_head_take(&two, request->text, i);

                if (i < whole.n_seen)
                        ck_assert_int_eq(state, HTTP_HEAD_NEED_MORE);
                (void)http_head_take(&two, request->text + i, n - i);
                expect_same(&two, &whole);
                (void)http_head_take(&single, request->text + i, 1);
        }
        expect_same(&single, &whole);
}

static const struct request found[] = {
        { "GET / HTTP/1.1\r\nHost: example.org" END, HTTP_HEAD_FOUND, "example.org", 0 },
        { "POST /a?b=%20 HTTP/1.1\r\nAccept: */*\r\nhOsT:\t EXAMPLE.org.:8080 \t\r\nX:\r\n\r\nbody",
          HTTP_HEAD_FOUND, "example.org", 0 },
        { "GET / HTTP/1.1\r\nHost:192.0.2.1:80" END, HTTP_HEAD_FOUND, "192.0.2.1", 0 },
        { "GET / HTTP/1.1\r\nHost: [2001:DB8:0::1]:80" END, HTTP_HEAD_FOUND, "2001:db8::1", 0 },
        { "GET / HTTP/1.1\r\nHost: [::1]" END, HTTP_HEAD_FOUND, "::1", 0 },
        { "GET / HTTP/1.1\r\nHost: a:" END, HTTP_HEAD_FOUND, "a", 0 },
        { "GET / HTTP/1.1\r\nHost: a:65535" END, HTTP_HEAD_FOUND, "a", 0 },
        { "GET / HTTP/1.9\r\nHost: a" END, HTTP_HEAD_FOUND, "a", 0 },
        { "GET / HTTP/1.0\r\nHost: a" END, HTTP_HEAD_FOUND, "a", 0 },
        { "GET /\303\274 HTTP/1.1\r\nX: \303\274\r\nHost: a" END, HTTP_HEAD_FOUND, "a", 0 },
        { "OPTIONS * HTTP/1.1\r\nHost: a" END, HTTP_HEAD_FOUND, "a", 0 },
        { "M-SEARCH / HTTP/1.1\r\nHosts: b\r\nX-Host: c\r\nHost: a" END, HTTP_HEAD_FOUND, "a", 0 },
        { "GET http://www.example/x HTTP/1.1\r\nHost: www.example" END, HTTP_HEAD_FOUND,
          "www.example", 0 },
        { "GET HTTP://Www.Example:80?x HTTP/1.1\r\nHost: www.example" END, HTTP_HEAD_FOUND,
          "www.example", 0 },
        { "GET https://a HTTP/1.1\r\nHost: a:443" END, HTTP_HEAD_FOUND, "a", 0 },
        { "GET http://[::1]:8/ HTTP/1.1\r\nHost: [0::1]:8" END, HTTP_HEAD_FOUND, "::1", 0 },
        { "GET http://a/ HTTP/1.0" END, HTTP_HEAD_FOUND, "a", 0 },
};

START_TEST(hosts_are_found_without_port_and_in_lower_case)
{
        expect(&found[_i]);
}
END_TEST

START_TEST(kinds_of_hosts_are_told)
{
        static const struct {
                const char *text;
                enum host_kind kind;
        } kinds[] = {
                { "GET / HTTP/1.1\r\nHost: a.example" END, HOST_NAME },
                { "GET / HTTP/1.1\r\nHost: 192.0.2.1" END, HOST_V4 },
                { "GET / HTTP/1.1\r\nHost: [::1]" END, HOST_V6 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(kinds); i++) {
                struct http_head head = { 0 };

                (void)http_head_take(&head, kinds[i].text, strlen(kinds[i].text));
                ck_assert_int_eq(head.host.kind, kinds[i].kind);
        }
}
END_TEST

static const struct request others[] = {
        { "GET / HTTP/1.0\r\nAccept: */*" END, HTTP_HEAD_ABSENT, NULL, 0 },
        { "GET / HTTP/1.0" END, HTTP_HEAD_ABSENT, NULL, 0 },
        { "CONNECT a:443 HTTP/1.1\r\nHost: a:443" END, HTTP_HEAD_CONNECT, NULL, 0 },
        { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", HTTP_HEAD_NOT_HTTP, NULL, 0 },
        { "SSH-2.0-OpenSSH_9.2\r\n", HTTP_HEAD_NOT_HTTP, NULL, 0 },
        { "PING\r\n", HTTP_HEAD_NOT_HTTP, NULL, 0 },
        { "\x16\x03\x01\x02", HTTP_HEAD_NOT_HTTP, NULL, 0 },
        { "\0\0\0\1", HTTP_HEAD_NOT_HTTP, NULL, 4 },
        { "{\"id\": 1}", HTTP_HEAD_NOT_HTTP, NULL, 0 },
        { "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 / HTTP/1.1", HTTP_HEAD_NOT_HTTP, NULL, 0 },
};

START_TEST(what_has_no_host_is_told_apart)
{
        expect(&others[_i]);
}
END_TEST

#define BAD(text)                                                                                  \
        {                                                                                          \
                text, HTTP_HEAD_MALFORMED, NULL, sizeof(text) - 1                                  \
        }
#define BAD_HOST(host) BAD("GET / HTTP/1.1\r\nHost: " host END)

static const struct request bad[] = {
        /* Host: none, two, or none that is one. */
        BAD("GET / HTTP/1.1" END),
        BAD("GET / HTTP/1.1\r\nHost: a\r\nHost: a" END),
        BAD("GET / HTTP/1.0\r\nHost: a\r\nX: y\r\nhost: b" END),
        BAD_HOST(""),
        BAD_HOST("a, b"),
        BAD_HOST("a b"),
        BAD_HOST("u@a"),
        BAD_HOST("a/"),
        BAD_HOST("a%2eb"),
        BAD_HOST("a..b"),
        BAD_HOST("127.1"),
        BAD_HOST("1.2.3.256"),
        BAD_HOST("01.2.3.4"),
        BAD_HOST("a:0"),
        BAD_HOST("a:65536"),
        BAD_HOST("a:000080"),
        BAD_HOST("a:8o"),
        BAD_HOST("a:-1"),
        BAD_HOST("a:80:80"),
        BAD_HOST(":80"),
        BAD_HOST("::1"),
        BAD_HOST("[::1"),
        BAD_HOST("[]"),
        BAD_HOST("[::1]x"),
        BAD_HOST("[::1%25eth0]"),
        BAD_HOST("[1.2.3.4]"),
        BAD_HOST("[a]"),
        BAD_HOST("b\303\274cher.example"),
        BAD_HOST("a\0b"),
        /* Lines. */
        BAD("GET / HTTP/1.1\nHost: a\n\n"),
        BAD("GET / HTTP/1.1\r\nHost: a\n\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a\r\r\n"),
        BAD("GET / HTTP/1.1\r\nHost: a\rX: y" END),
        BAD("GET / HTTP/1.1\rHost: a" END),
        BAD("GET / HTTP/1.1\r\nHost: a\r\n\rX"),
        BAD("GET / HTTP/1.1\r\nHost: a\r\n b" END),
        BAD("GET / HTTP/1.1\r\nX: y\r\n\tHost: b\r\nHost: a" END),
        BAD("GET / HTTP/1.1\r\n Host: a" END),
        BAD("GET / HTTP/1.1\r\nHost : a" END),
        BAD("GET / HTTP/1.1\r\nX\r\nHost: a" END),
        BAD("GET / HTTP/1.1\r\n: y\r\nHost: a" END),
        /* A carriage return alone is the end of a line to some. */
        BAD("GET / HTTP/1.1\r\nX: y\r_Host: a" END),
        BAD("GET / HTTP/1.1\r_Host: a" END),
        BAD("GET / HTTP/1.1\r\nHost: a\r_X: y" END),
        BAD("GET / HTTP/1.1\r\nX: \0\r\nHost: a" END),
        BAD("GET / HTTP/1.1\r\nX: \x7f\r\nHost: a" END),
        BAD("GET / HTTP/1.1\r\nX: \x1b[1m\r\nHost: a" END),
        BAD("GET / HTTP/1.1\r\nX\0: y\r\nHost: a" END),
        /* The first line. */
        BAD("\r\nGET / HTTP/1.1\r\nHost: a" END),
        BAD("\nGET / HTTP/1.1\r\nHost: a" END),
        BAD(" GET / HTTP/1.1\r\nHost: a" END),
        BAD("GET\t/ HTTP/1.1\r\nHost: a" END),
        BAD("GET\r/ HTTP/1.1\r\nHost: a" END),
        BAD("GET  / HTTP/1.1\r\nHost: a" END),
        BAD("GET /  HTTP/1.1\r\nHost: a" END),
        BAD("GET / HTTP/1.1 \r\nHost: a" END),
        BAD("GET / x HTTP/1.1\r\nHost: a" END),
        BAD("GET /\r\n"),
        BAD("GET /\0 HTTP/1.1\r\nHost: a" END),
        BAD("GET /\t HTTP/1.1\r\nHost: a" END),
        BAD("GET / HTTP/2.0\r\nHost: a" END),
        BAD("GET / HTTP/0.9\r\nHost: a" END),
        BAD("GET / HTTP/1.\r\nHost: a" END),
        BAD("GET / HTTP/1.10\r\nHost: a" END),
        BAD("GET / HTTP/1.x\r\nHost: a" END),
        BAD("GET / http/1.1\r\nHost: a" END),
        BAD("GET * HTTP/1.1\r\nHost: a" END),
        BAD("OPTIONS *x HTTP/1.1\r\nHost: a" END),
        BAD("GET a:80 HTTP/1.1\r\nHost: a" END),
        BAD("GET ?x HTTP/1.1\r\nHost: a" END),
        BAD("connect a:443 HTTP/1.1\r\nHost: a" END),
        BAD("PRI * HTTP/2.0\r\nHost: a" END),
        BAD("PRI / HTTP/1.1\r\nHost: a" END),
        /* Absolute form. */
        BAD("GET http://a/ HTTP/1.1" END),
        BAD("GET http://a/ HTTP/1.1\r\nHost: b" END),
        BAD("GET http://a/ HTTP/1.0\r\nHost: b" END),
        BAD("GET http://a:81/ HTTP/1.1\r\nHost: a" END),
        BAD("GET https://a/ HTTP/1.1\r\nHost: a:80" END),
        BAD("GET http://127.0.0.1/ HTTP/1.1\r\nHost: [::ffff:127.0.0.1]" END),
        BAD("GET ftp://a/ HTTP/1.1\r\nHost: a" END),
        BAD("GET httpx://a/ HTTP/1.1\r\nHost: a" END),
        BAD("GET http:a HTTP/1.1\r\nHost: a" END),
        BAD("GET http:/a HTTP/1.1\r\nHost: a" END),
        BAD("GET http:///a HTTP/1.1\r\nHost: a" END),
        BAD("GET http://u:secret@a/ HTTP/1.1\r\nHost: a" END),
        BAD("GET http://a\\@b/ HTTP/1.1\r\nHost: a" END),
        BAD("GET http://a#b HTTP/1.1\r\nHost: a" END),
        BAD("GET http://a\r\n"),
};

START_TEST(what_two_readers_could_read_differently_is_refused)
{
        expect(&bad[_i]);
}
END_TEST

START_TEST(long_host_is_refused)
{
        char text[800];

        for (size_t n = 253; n < 600; n += 1) {
                char name[700];
                struct http_head head = { 0 };

                for (size_t i = 0; i < n; i++)
                        name[i] = i % 50 == 49 ? '.' : 'a';
                name[n] = '\0';
                (void)snprintf(text, sizeof(text), "GET / HTTP/1.1\r\nHost: %s" END, name);
                ck_assert_int_eq(http_head_take(&head, text, strlen(text)),
                                 n > 254 || (n == 254 && name[253] != '.') ? HTTP_HEAD_MALFORMED
                                                                           : HTTP_HEAD_FOUND);
        }
}
END_TEST

/* A request whose last byte is the @n-th of the connection. */
static void make_request(char *ret_text, size_t n)
{
        static const char start[] = "GET / HTTP/1.1\r\nHost: a\r\nX: ";

        memset(ret_text, 'x', n);
        memcpy(ret_text, start, strlen(start));
        memcpy(ret_text + n - 4, END, 4);
}

START_TEST(head_has_at_most_16_kib)
{
        static char text[HTTP_HEAD_MAX + 1];
        struct http_head head = { 0 };

        make_request(text, HTTP_HEAD_MAX);
        ck_assert_int_eq(http_head_take(&head, text, HTTP_HEAD_MAX), HTTP_HEAD_FOUND);
        make_request(text, HTTP_HEAD_MAX + 1);
        head = (struct http_head){ 0 };
        ck_assert_int_eq(http_head_take(&head, text, HTTP_HEAD_MAX - 1), HTTP_HEAD_NEED_MORE);
        ck_assert_int_eq(http_head_take(&head, text + HTTP_HEAD_MAX - 1, 2), HTTP_HEAD_MALFORMED);
        ck_assert_uint_eq(head.n_seen, HTTP_HEAD_MAX);
        ck_assert_str_eq(head.host.text, "");
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("http_head");
        TCase *tests = tcase_create("http_head");

        tcase_set_timeout(tests, 30.0 * test_patience());
        tcase_add_loop_test(tests, hosts_are_found_without_port_and_in_lower_case, 0,
                            ARRAY_SIZE(found));
        tcase_add_test(tests, kinds_of_hosts_are_told);
        tcase_add_loop_test(tests, what_has_no_host_is_told_apart, 0, ARRAY_SIZE(others));
        tcase_add_loop_test(tests, what_two_readers_could_read_differently_is_refused, 0,
                            ARRAY_SIZE(bad));
        tcase_add_test(tests, long_host_is_refused);
        tcase_add_test(tests, head_has_at_most_16_kib);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
