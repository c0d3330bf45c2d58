/* What sandboxes may send, and what they are answered. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_message.h"
#include "test/lib/suite.h"
#include "test/unit/egress/packet.h"

static struct packet packet;
static struct dns_query query;
static uint8_t encoded[DNS_ANSWER_BUFFER];

/* The bytes stand at the end of an allocation, so that a sanitizer sees each byte too many. */
static int decode_by(enum dns_transport transport)
{
        uint8_t *bytes = malloc(packet.n_bytes + 1);
        int r;

        ck_assert_ptr_nonnull(bytes);
        memcpy(bytes + 1, packet.bytes, packet.n_bytes);
        r = dns_query_decode(transport, bytes + 1, packet.n_bytes, &query);
        free(bytes);
        return r;
}

static int decode_query(void)
{
        return decode_by(DNS_UDP);
}

START_TEST(plain_query_is_read)
{
        put_query(&packet, "wWw.Example.ORG", DNS_TYPE_AAAA);
        ck_assert_int_eq(decode_query(), 0);
        ck_assert_uint_eq(query.id, PACKET_ID);
        ck_assert_str_eq(query.name, "www.example.org");
        ck_assert_uint_eq(query.type, DNS_TYPE_AAAA);
        ck_assert(!query.has_edns);
        ck_assert_uint_eq(query.n_question, packet.n_bytes - 12);
        ck_assert_mem_eq(query.question, packet.bytes + 12, query.n_question);
}
END_TEST

START_TEST(edns_is_read_with_its_options)
{
        put_query(&packet, "a.example", DNS_TYPE_A);
        put_edns(&packet, 4000, 0);
        packet.bytes[packet.n_bytes - 1] = 6;
        put_bytes(&packet, "\0\x0a\0\2xy", 6);
        ck_assert_int_eq(decode_query(), 0);
        ck_assert(query.has_edns);
        ck_assert_uint_eq(query.edns_bytes, 4000);
}
END_TEST

START_TEST(what_is_no_query_is_left_without_an_answer)
{
        put_query(&packet, "a.example", DNS_TYPE_A);
        for (size_t n = 0; n < 12; n++) {
                packet.n_bytes = n;
                ck_assert_int_eq(decode_query(), DNS_E_SILENT);
        }
        put_header(&packet, PACKET_ID, PACKET_ANSWER, 0);
        put_question(&packet, "www.example.org", DNS_TYPE_A);
        ck_assert_int_eq(decode_query(), DNS_E_SILENT);
}
END_TEST

START_TEST(each_part_of_a_query_is_malformed)
{
        size_t n_bytes;

        put_query(&packet, "a.example", DNS_TYPE_A);
        put_edns(&packet, 4096, 0);
        n_bytes = packet.n_bytes;
        for (packet.n_bytes = 12; packet.n_bytes < n_bytes; packet.n_bytes++)
                ck_assert_int_eq(decode_query(), DNS_FORMERR);
        ck_assert_int_eq(decode_query(), 0);
        put_u8(&packet, 0);
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
}
END_TEST

START_TEST(counts_other_than_one_question_are_malformed)
{
        static const size_t places[] = { 4, 5, 6, 7, 8, 9, 10 };

        for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
                put_query(&packet, "a.example", DNS_TYPE_A);
                packet.bytes[places[i]]++;
                ck_assert_int_eq(decode_query(), DNS_FORMERR);
        }
        put_query(&packet, "a.example", DNS_TYPE_A);
        packet.bytes[5] = 0;
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
        put_query(&packet, "a.example", DNS_TYPE_A);
        put_edns(&packet, 512, 0);
        put_edns(&packet, 512, 0);
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
        put_query(&packet, "a.example", DNS_TYPE_A);
        put_edns(&packet, 512, 0);
        packet.bytes[11] = 2;
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
}
END_TEST

START_TEST(additional_record_must_be_edns)
{
        put_query(&packet, "a.example", DNS_TYPE_A);
        put_address(&packet, "", 0, "127.0.0.1");
        packet.bytes[11] = 1;
        ck_assert_int_eq(decode_query(), DNS_FORMERR);

        put_query(&packet, "a.example", DNS_TYPE_A);
        put_record(&packet, "b", 41, 0, NULL, 0);
        packet.bytes[11] = 1;
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
}
END_TEST

START_TEST(other_operations_are_not_implemented)
{
        for (unsigned opcode = 1; opcode < 16; opcode++) {
                put_header(&packet, 7, opcode << 11, 0);
                put_question(&packet, "a.example", DNS_TYPE_A);
                ck_assert_int_eq(decode_query(), DNS_NOTIMP);
                ck_assert_uint_eq(dns_rcode_encode(&query, DNS_NOTIMP, encoded), 12);
                ck_assert_uint_eq(get_u16(encoded, 0), 7);
                ck_assert_uint_eq(encoded[2], 0x80 | opcode << 3);
                ck_assert_uint_eq(get_rcode(encoded), DNS_NOTIMP);
        }
}
END_TEST

START_TEST(other_classes_are_refused)
{
        put_query(&packet, "a.example", DNS_TYPE_A);
        packet.bytes[packet.n_bytes - 1] = 3;
        ck_assert_int_eq(decode_query(), DNS_REFUSED);
}
END_TEST

START_TEST(later_edns_is_told_the_version)
{
        put_query(&packet, "a.example", DNS_TYPE_A);
        put_edns(&packet, 4096, 1);
        ck_assert_int_eq(decode_query(), DNS_BADVERS);
        ck_assert_uint_eq(dns_rcode_encode(&query, DNS_BADVERS, encoded), packet.n_bytes);
        ck_assert_uint_eq(get_rcode(encoded), 0);
        ck_assert_uint_eq(encoded[packet.n_bytes - 6], 1); /* the upper bits of 16 */
        ck_assert_uint_eq(encoded[packet.n_bytes - 5], 0); /* the version that is spoken */
}
END_TEST

START_TEST(names_that_no_host_has_are_refused)
{
        static const char *const odd[] = { "a b.example",
                                           "a\\.example",
                                           "\xc3\xa4.example",
                                           "*.example",
                                           "a/b",
                                           "a\nb",
                                           "a\x7f",
                                           "" };

        for (size_t i = 0; i < ARRAY_SIZE(odd); i++) {
                put_query(&packet, odd[i], DNS_TYPE_A);
                ck_assert_int_eq(decode_query(), DNS_REFUSED);
                ck_assert_uint_gt(query.n_question, 0);
        }
        /* A dot or a NUL within a label. */
        put_query(&packet, "a-b.example", DNS_TYPE_A);
        packet.bytes[14] = '.';
        ck_assert_int_eq(decode_query(), DNS_REFUSED);
        packet.bytes[14] = '\0';
        ck_assert_int_eq(decode_query(), DNS_REFUSED);
        packet.bytes[14] = '_';
        ck_assert_int_eq(decode_query(), 0);
        ck_assert_str_eq(query.name, "a_b.example");
}
END_TEST

/* Labels of so many bytes, in a query. */
static int decode_labels(unsigned n_first, unsigned n_others, unsigned n_last)
{
        char name[400] = "";

        for (unsigned i = 0; i < n_others; i++)
                (void)snprintf(name + strlen(name), sizeof(name) - strlen(name), "%0*d.",
                               (int)n_first, 0);
        (void)snprintf(name + strlen(name), sizeof(name) - strlen(name), "%0*d", (int)n_last, 0);
        put_query(&packet, name, DNS_TYPE_A);
        return decode_query();
}

START_TEST(lengths_of_names_are_checked)
{
        ck_assert_int_eq(decode_labels(0, 0, 63), 0);
        ck_assert_int_eq(decode_labels(0, 0, 64), DNS_FORMERR);
        /* 3 * 64 + 62 + 1 = 255 bytes. */
        ck_assert_int_eq(decode_labels(63, 3, 61), 0);
        ck_assert_uint_eq(strlen(query.name), DNS_NAME_BUFFER - 1);
        ck_assert_int_eq(decode_labels(63, 3, 62), DNS_FORMERR);
        ck_assert_int_eq(decode_labels(1, 126, 1), 0);
        ck_assert_int_eq(decode_labels(1, 127, 1), DNS_FORMERR);
}
END_TEST

START_TEST(pointers_in_a_query_are_malformed)
{
        put_header(&packet, PACKET_ID, PACKET_QUERY, 0);
        put_u8(&packet, 1);
        put_u8(&packet, 'a');
        put_u16(&packet, 0xc00c);
        put_u32(&packet, 0x00010001);
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
        packet.bytes[15] = 10; /* to a zero in the header: would be the root */
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
        packet.bytes[14] = 0x41; /* a label of a kind that is not in use */
        ck_assert_int_eq(decode_query(), DNS_FORMERR);
}
END_TEST

START_TEST(size_of_a_query_is_bounded_by_udp)
{
        put_query(&packet, "a.example", DNS_TYPE_A);
        put_edns(&packet, 512, 0);
        packet.bytes[packet.n_bytes - 2] = 0xff;
        packet.bytes[packet.n_bytes - 1] = 0x00;
        while (packet.n_bytes < 38 + 0xff00)
                put_u8(&packet, 0);
        ck_assert_int_eq(decode_by(DNS_TCP), 0);
        ck_assert_int_eq(decode_by(DNS_UDP), DNS_FORMERR);
}
END_TEST

START_TEST(question_and_flags_come_back)
{
        put_query(&packet, "wWw.Example.ORG", DNS_TYPE_A);
        packet.bytes[3] |= 0x10; /* checking disabled */
        ck_assert_int_eq(decode_query(), 0);
        ck_assert_uint_eq(dns_rcode_encode(&query, DNS_REFUSED, encoded), packet.n_bytes);
        ck_assert_uint_eq(get_u16(encoded, 2), 0x8195);
        ck_assert_uint_eq(get_u16(encoded, 4), 1);
        ck_assert_mem_eq(encoded + 12, packet.bytes + 12, packet.n_bytes - 12);
}
END_TEST

START_TEST(answer_is_written_as_the_rfc_says)
{
        static const uint8_t expected[] = {
                0x12, 0x34, 0x81, 0x80, 0, 1, 0, 3, 0, 0,  0, 0, /* header */
                1,    'A',  0,    0,    1, 0, 1,                 /* question */
                0xc0, 12,   0,    5,    0, 1, 0, 0, 0, 60, 0, 5, 1,   'b', 1, 'c',
                0,                                                               /* CNAME, at 31 */
                0xc0, 31,   0,    1,    0, 1, 0, 0, 0, 60, 0, 4, 192, 0,   2, 1, /* A */
                0xc0, 31,   0,    1,    0, 1, 0, 0, 0, 60, 0, 4, 192, 0,   2, 2, /* A */
        };
        const struct dns_answer given = { .ttl_sec = 60,
                                          .n_chain = 1,
                                          .chain = { "b.c" },
                                          .n_addresses = 2,
                                          .addresses = { { .bytes = { 192, 0, 2, 1 } },
                                                         { .bytes = { 192, 0, 2, 2 } } } };

        put_query(&packet, "A", DNS_TYPE_A);
        ck_assert_int_eq(decode_query(), 0);
        ck_assert_uint_eq(dns_answer_encode(&query, &given, encoded), sizeof(expected));
        ck_assert_mem_eq(encoded, expected, sizeof(expected));
}
END_TEST

static size_t encode_many(enum dns_transport transport, unsigned edns, size_t n_addresses)
{
        struct dns_answer given = { .ttl_sec = 60, .n_addresses = n_addresses };

        for (size_t i = 0; i < n_addresses; i++)
                given.addresses[i].is_v6 = true;
        put_query(&packet, "a.example", DNS_TYPE_AAAA);
        if (edns)
                put_edns(&packet, edns, 0);
        ck_assert_int_eq(decode_by(transport), 0);
        return dns_answer_encode(&query, &given, encoded);
}

/* The largest number of AAAA that fits, and one more. */
static void expect_limit(unsigned edns, size_t n_fits)
{
        ck_assert_uint_eq(encode_many(DNS_UDP, edns, n_fits), packet.n_bytes + n_fits * 28);
        ck_assert(!is_truncated(encoded));
        ck_assert_uint_eq(encode_many(DNS_UDP, edns, n_fits + 1), packet.n_bytes);
        ck_assert(is_truncated(encoded));
        ck_assert_uint_eq(get_n_answers(encoded), 0);
        ck_assert_uint_eq(get_u16(encoded, 10), edns > 0);
}

START_TEST(answer_is_cut_at_what_the_client_takes)
{
        expect_limit(0, 17);     /* 27 + 17 * 28 = 503 of 512 */
        expect_limit(100, 16);   /* 512, and 11 for EDNS */
        expect_limit(1000, 34);  /* 27 + 34 * 28 + 11 = 990 */
        expect_limit(1232, 42);  /* 27 + 42 * 28 + 11 = 1214 */
        expect_limit(65535, 42); /* not more by UDP */
        ck_assert_uint_eq(encode_many(DNS_TCP, 512, 64), packet.n_bytes + (size_t)64 * 28);
        ck_assert(!is_truncated(encoded));
}
END_TEST

/* As much of everything as an answer holds. */
START_TEST(largest_answer_fits)
{
        static struct dns_answer given;
        char label[64];

        put_query(&packet, "a", DNS_TYPE_TXT);
        ck_assert_int_eq(decode_by(DNS_TCP), 0);
        (void)snprintf(label, sizeof(label), "%063d", 0);
        given.n_chain = DNS_CHAIN_MAX;
        for (size_t i = 0; i < DNS_CHAIN_MAX; i++)
                (void)snprintf(given.chain[i], DNS_NAME_BUFFER, "%s.%s.%s.%.61s", label, label,
                               label, label);
        given.n_addresses = DNS_ADDRESSES_MAX;
        for (size_t i = 0; i < DNS_ADDRESSES_MAX; i++)
                given.addresses[i].is_v6 = true;
        given.n_records = DNS_RECORDS_MAX;
        for (size_t i = 0; i < DNS_RECORDS_MAX; i++)
                given.records[i].n_bytes = DNS_DATA_MAX / DNS_RECORDS_MAX;
        ck_assert_uint_eq(dns_answer_encode(&query, &given, encoded),
                          12 + 7 + DNS_CHAIN_MAX * (12 + 255) + DNS_ADDRESSES_MAX * 28 +
                                  DNS_RECORDS_MAX * 12 + DNS_DATA_MAX);
}
END_TEST

START_TEST(orders_to_a_server_cannot_be_forwarded)
{
        static const uint16_t forwarded[] = { DNS_TYPE_TXT, DNS_TYPE_NULL, DNS_TYPE_MX,
                                              DNS_TYPE_SRV, DNS_TYPE_PTR,  DNS_TYPE_CAA };
        static const uint16_t others[] = {
                0,
                DNS_TYPE_A,
                DNS_TYPE_AAAA,
                DNS_TYPE_OPT,
                DNS_TYPE_ANY,
                DNS_TYPE_HTTPS,
                DNS_TYPE_SVCB,
                6 /* SOA */,
                251 /* IXFR */,
                252 /* AXFR */
        };

        for (size_t i = 0; i < ARRAY_SIZE(forwarded); i++)
                ck_assert(dns_type_is_forwarded(forwarded[i]));
        for (size_t i = 0; i < ARRAY_SIZE(others); i++)
                ck_assert(!dns_type_is_forwarded(others[i]));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("dns_query");
        TCase *tcase = tcase_create("dns_query");

        tcase_add_test(tcase, plain_query_is_read);
        tcase_add_test(tcase, edns_is_read_with_its_options);
        tcase_add_test(tcase, what_is_no_query_is_left_without_an_answer);
        tcase_add_test(tcase, each_part_of_a_query_is_malformed);
        tcase_add_test(tcase, counts_other_than_one_question_are_malformed);
        tcase_add_test(tcase, additional_record_must_be_edns);
        tcase_add_test(tcase, other_operations_are_not_implemented);
        tcase_add_test(tcase, other_classes_are_refused);
        tcase_add_test(tcase, later_edns_is_told_the_version);
        tcase_add_test(tcase, names_that_no_host_has_are_refused);
        tcase_add_test(tcase, lengths_of_names_are_checked);
        tcase_add_test(tcase, pointers_in_a_query_are_malformed);
        tcase_add_test(tcase, size_of_a_query_is_bounded_by_udp);
        tcase_add_test(tcase, question_and_flags_come_back);
        tcase_add_test(tcase, answer_is_written_as_the_rfc_says);
        tcase_add_test(tcase, answer_is_cut_at_what_the_client_takes);
        tcase_add_test(tcase, largest_answer_fits);
        tcase_add_test(tcase, orders_to_a_server_cannot_be_forwarded);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
