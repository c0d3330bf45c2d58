/* What sandboxes and upstreams may send, and what comes of it. */
#include <arpa/inet.h>
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_message.h"
#include "test/unit/egress/packet.h"

static struct packet packet;
static struct dns_query query;
static struct dns_answer answer;
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

static int decode_answer(unsigned type)
{
        uint8_t *bytes = malloc(packet.n_bytes + 1);
        int r;

        ck_assert_ptr_nonnull(bytes);
        memcpy(bytes + 1, packet.bytes, packet.n_bytes);
        r = dns_answer_decode(bytes + 1, packet.n_bytes, "www.example.org", (uint16_t)type,
                              &answer);
        free(bytes);
        return r;
}

static void begin_answer(unsigned n_answers, unsigned type)
{
        put_header(&packet, PACKET_ID, PACKET_ANSWER, n_answers);
        put_question(&packet, "www.example.org", type);
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
        begin_answer(0, DNS_TYPE_A);
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

START_TEST(addresses_of_an_answer_are_read)
{
        begin_answer(3, DNS_TYPE_A);
        put_address(&packet, "www.example.org", 70, "192.0.2.1");
        put_address(&packet, "WWW.example.ORG", 60, "192.0.2.2");
        put_address(&packet, "www.example.org", 80, "192.0.2.3");
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
        ck_assert_uint_eq(answer.n_addresses, 3);
        ck_assert_uint_eq(answer.addresses[1].bytes[3], 2);
        ck_assert_uint_eq(answer.ttl_sec, 60);
}
END_TEST

START_TEST(records_of_others_are_passed_over)
{
        begin_answer(5, DNS_TYPE_A);
        put_address(&packet, "other.example.org", 1, "192.0.2.1");
        put_address(&packet, "www.example.org", 2, "2001:db8::1");
        put_address(&packet, "www.example.org", 3, "192.0.2.3");
        packet.bytes[packet.n_bytes - 11] = 3; /* another class */
        put_address(&packet, "a b.example.org", 4, "192.0.2.4");
        put_address(&packet, "www.example.org", 5, "192.0.2.5");
        put_address(&packet, "www.example.org", 6, "192.0.2.6"); /* not in the answer section */
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
        ck_assert_uint_eq(answer.n_addresses, 1);
        ck_assert_uint_eq(answer.addresses[0].bytes[3], 5);
        ck_assert_uint_eq(answer.ttl_sec, 5);
}
END_TEST

START_TEST(chain_is_followed_in_any_order)
{
        begin_answer(4, DNS_TYPE_A);
        put_address(&packet, "c.example", 90, "192.0.2.1");
        put_cname(&packet, "b.example", 30, "C.example");
        put_cname(&packet, "www.example.org", 40, "b.example");
        put_address(&packet, "www.example.org", 1, "192.0.2.99");
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
        ck_assert_uint_eq(answer.n_chain, 2);
        ck_assert_str_eq(answer.chain[0], "b.example");
        ck_assert_str_eq(answer.chain[1], "c.example");
        ck_assert_uint_eq(answer.n_addresses, 1);
        ck_assert_uint_eq(answer.addresses[0].bytes[3], 1);
        ck_assert_uint_eq(answer.ttl_sec, 30);
}
END_TEST

START_TEST(chain_without_end_is_malformed)
{
        begin_answer(1, DNS_TYPE_A);
        put_cname(&packet, "www.example.org", 1, "www.example.org");
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
        begin_answer(3, DNS_TYPE_A);
        put_cname(&packet, "www.example.org", 1, "a");
        put_cname(&packet, "a", 1, "b");
        put_cname(&packet, "b", 1, "a");
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
}
END_TEST

static int decode_chain_of(unsigned n)
{
        char owner[20] = "www.example.org";

        begin_answer(n, DNS_TYPE_A);
        for (unsigned i = 0; i < n; i++) {
                char target[20];

                (void)snprintf(target, sizeof(target), "n%u", i);
                put_cname(&packet, owner, 1, target);
                memcpy(owner, target, sizeof(owner));
        }
        return decode_answer(DNS_TYPE_A);
}

START_TEST(length_of_a_chain_is_bounded)
{
        ck_assert_int_eq(decode_chain_of(DNS_CHAIN_MAX), 0);
        ck_assert_uint_eq(answer.n_chain, DNS_CHAIN_MAX);
        ck_assert_int_eq(decode_chain_of(DNS_CHAIN_MAX + 1), DNS_E_MALFORMED);
}
END_TEST

/* The name of the question at 12, and a label before a pointer into it. */
START_TEST(compressed_names_are_read)
{
        static const struct {
                const char *bytes;
                size_t n_bytes;
        } names[] = { { "\xc0\x0c", 2 }, { "\3www\xc0\x10", 6 } };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                begin_answer(1, DNS_TYPE_A);
                put_bytes(&packet, names[i].bytes, names[i].n_bytes);
                put_bytes(&packet, "\0\1\0\1\0\0\0\7\0\4\xc0\0\2\1", 14);
                ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
                ck_assert_uint_eq(answer.n_addresses, 1);
        }
}
END_TEST

START_TEST(pointers_that_go_round_are_malformed)
{
        /* Past the question at 12 to 32 a name begins at 33: to itself, forward, out, and round. */
        static const struct {
                const char *bytes;
                size_t n_bytes;
        } names[] = { { "\xc0\x21", 2 },    { "\xc0\x23\0", 3 },     { "\xff\xff", 2 },
                      { "\1a\xc0\x21", 4 }, { "\1a\1b\xc0\x23", 6 }, { "\xc0", 1 } };

        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                begin_answer(1, DNS_TYPE_A);
                ck_assert_uint_eq(packet.n_bytes, 33);
                put_bytes(&packet, names[i].bytes, names[i].n_bytes);
                if (names[i].n_bytes > 1)
                        put_bytes(&packet, "\0\1\0\1\0\0\0\7\0\4\xc0\0\2\1", 14);
                ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
        }
}
END_TEST

START_TEST(name_that_grows_by_pointers_is_bounded)
{
        /* Owners of records, each a label of 63 bytes and a pointer to the one before. */
        size_t before = 0;

        begin_answer(6, DNS_TYPE_A);
        for (unsigned i = 0; i < 6; i++) {
                size_t here = packet.n_bytes;
                char label[64];

                (void)snprintf(label, sizeof(label), "%063u", i);
                put_u8(&packet, 63);
                put_bytes(&packet, label, 63);
                if (i == 0)
                        put_u8(&packet, 0);
                else
                        put_u16(&packet, 0xc000 | (unsigned)before);
                put_bytes(&packet, "\0\1\0\1\0\0\0\7\0\4\xc0\0\2\1", 14);
                before = here;
                packet.bytes[7] = (uint8_t)(i + 1);
                ck_assert_int_eq(decode_answer(DNS_TYPE_A), i < 3 ? 0 : DNS_E_MALFORMED);
        }
}
END_TEST

START_TEST(answer_to_another_question_is_malformed)
{
        put_header(&packet, PACKET_ID, PACKET_ANSWER, 0);
        put_question(&packet, "www.example.com", DNS_TYPE_A);
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
        begin_answer(0, DNS_TYPE_AAAA);
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
        begin_answer(0, DNS_TYPE_A);
        packet.bytes[packet.n_bytes - 1] = 3;
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
        packet.bytes[packet.n_bytes - 1] = 1;
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
        packet.bytes[5] = 2;
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
}
END_TEST

START_TEST(what_is_no_whole_answer_is_malformed)
{
        static const unsigned flags[] = { PACKET_QUERY, PACKET_ANSWER | PACKET_TRUNCATED,
                                          PACKET_ANSWER | 4 << 11 };
        size_t n_bytes;

        for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
                put_header(&packet, PACKET_ID, flags[i], 0);
                put_question(&packet, "www.example.org", DNS_TYPE_A);
                ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
        }
        begin_answer(2, DNS_TYPE_A);
        put_cname(&packet, "www.example.org", 1, "b");
        put_address(&packet, "b", 1, "192.0.2.1");
        n_bytes = packet.n_bytes;
        for (packet.n_bytes = 0; packet.n_bytes < n_bytes; packet.n_bytes++)
                ck_assert_int_eq(decode_answer(DNS_TYPE_A), DNS_E_MALFORMED);
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
}
END_TEST

START_TEST(data_of_another_size_is_malformed)
{
        static const struct {
                unsigned asked, type;
                const char *data;
                size_t n_data;
        } records[] = { { DNS_TYPE_A, DNS_TYPE_A, "12345", 5 },
                        { DNS_TYPE_AAAA, DNS_TYPE_AAAA, "1234", 4 },
                        { DNS_TYPE_A, DNS_TYPE_CNAME, "\1a\0x", 4 },
                        { DNS_TYPE_A, DNS_TYPE_CNAME, "\1 \0", 3 },
                        { DNS_TYPE_A, DNS_TYPE_CNAME, "\0", 1 } };

        for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
                begin_answer(1, records[i].asked);
                put_record(&packet, "www.example.org", records[i].type, 1, records[i].data,
                           records[i].n_data);
                ck_assert_msg(decode_answer(records[i].asked) == DNS_E_MALFORMED, "record %zu", i);
        }
}
END_TEST

START_TEST(rcodes_of_an_upstream_are_few)
{
        for (unsigned rcode = 0; rcode < 16; rcode++) {
                put_header(&packet, PACKET_ID, PACKET_ANSWER | rcode, 1);
                put_question(&packet, "www.example.org", DNS_TYPE_A);
                put_address(&packet, "www.example.org", 1, "192.0.2.1");
                ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
                ck_assert_uint_eq(answer.rcode, rcode == DNS_NOERROR || rcode == DNS_NXDOMAIN
                                                        ? rcode
                                                        : DNS_SERVFAIL);
                ck_assert_uint_eq(answer.n_addresses, rcode == DNS_NOERROR);
        }
}
END_TEST

START_TEST(number_of_addresses_is_bounded)
{
        begin_answer(1000, DNS_TYPE_A);
        for (unsigned i = 0; i < 1000; i++)
                put_address(&packet, "www.example.org", 1000 - i, "192.0.2.1");
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
        ck_assert_uint_eq(answer.n_addresses, DNS_ADDRESSES_MAX);
}
END_TEST

START_TEST(ttl_with_the_highest_bit_is_zero)
{
        begin_answer(1, DNS_TYPE_A);
        put_address(&packet, "www.example.org", 0x80000001, "192.0.2.1");
        ck_assert_int_eq(decode_answer(DNS_TYPE_A), 0);
        ck_assert_uint_eq(answer.ttl_sec, 0);
}
END_TEST

START_TEST(names_in_data_are_written_out)
{
        static const struct {
                unsigned type;
                const char *data;
                size_t n_data;
                size_t n_begin;
        } types[] = { { DNS_TYPE_MX, "\0\5\1m\xc0\x10", 6, 2 },
                      { DNS_TYPE_SRV, "\0\1\0\2\0\3\1m\xc0\x10", 10, 6 },
                      { DNS_TYPE_PTR, "\1m\xc0\x10", 4, 0 },
                      { DNS_TYPE_NS, "\1m\xc0\x10", 4, 0 },
                      { DNS_TYPE_CNAME, "\1m\xc0\x10", 4, 0 } };
        static const char name[] = "\1m\7example\3org";

        for (size_t i = 0; i < ARRAY_SIZE(types); i++) {
                begin_answer(1, types[i].type);
                put_record(&packet, "www.example.org", types[i].type, 9, types[i].data,
                           types[i].n_data);
                ck_assert_int_eq(decode_answer(types[i].type), 0);
                ck_assert_uint_eq(answer.n_chain, 0);
                ck_assert_uint_eq(answer.n_records, 1);
                ck_assert_uint_eq(answer.records[0].n_bytes, types[i].n_begin + sizeof(name));
                ck_assert_mem_eq(answer.data, types[i].data, types[i].n_begin);
                ck_assert_mem_eq(answer.data + types[i].n_begin, name, sizeof(name));
        }
}
END_TEST

START_TEST(data_of_other_types_is_bounded)
{
        static const uint8_t text[1000];

        begin_answer(20, DNS_TYPE_TXT);
        for (unsigned i = 0; i < 20; i++)
                put_record(&packet, "www.example.org", DNS_TYPE_TXT, 1, text, sizeof(text));
        ck_assert_int_eq(decode_answer(DNS_TYPE_TXT), 0);
        ck_assert_uint_eq(answer.n_records, DNS_DATA_MAX / sizeof(text));
        begin_answer(200, DNS_TYPE_TXT);
        for (unsigned i = 0; i < 200; i++)
                put_record(&packet, "www.example.org", DNS_TYPE_TXT, 1, text, 1);
        ck_assert_int_eq(decode_answer(DNS_TYPE_TXT), 0);
        ck_assert_uint_eq(answer.n_records, DNS_RECORDS_MAX);
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
        Suite *suite = suite_create("dns_message");
        TCase *queries = tcase_create("queries");
        TCase *answers = tcase_create("answers");
        SRunner *runner;
        int n_failed;

        tcase_add_test(queries, plain_query_is_read);
        tcase_add_test(queries, edns_is_read_with_its_options);
        tcase_add_test(queries, what_is_no_query_is_left_without_an_answer);
        tcase_add_test(queries, each_part_of_a_query_is_malformed);
        tcase_add_test(queries, counts_other_than_one_question_are_malformed);
        tcase_add_test(queries, additional_record_must_be_edns);
        tcase_add_test(queries, other_operations_are_not_implemented);
        tcase_add_test(queries, other_classes_are_refused);
        tcase_add_test(queries, later_edns_is_told_the_version);
        tcase_add_test(queries, names_that_no_host_has_are_refused);
        tcase_add_test(queries, lengths_of_names_are_checked);
        tcase_add_test(queries, pointers_in_a_query_are_malformed);
        tcase_add_test(queries, size_of_a_query_is_bounded_by_udp);
        tcase_add_test(queries, question_and_flags_come_back);
        tcase_add_test(queries, answer_is_written_as_the_rfc_says);
        tcase_add_test(queries, answer_is_cut_at_what_the_client_takes);
        tcase_add_test(queries, largest_answer_fits);
        tcase_add_test(queries, orders_to_a_server_cannot_be_forwarded);
        suite_add_tcase(suite, queries);
        tcase_add_test(answers, addresses_of_an_answer_are_read);
        tcase_add_test(answers, records_of_others_are_passed_over);
        tcase_add_test(answers, chain_is_followed_in_any_order);
        tcase_add_test(answers, chain_without_end_is_malformed);
        tcase_add_test(answers, length_of_a_chain_is_bounded);
        tcase_add_test(answers, compressed_names_are_read);
        tcase_add_test(answers, pointers_that_go_round_are_malformed);
        tcase_add_test(answers, name_that_grows_by_pointers_is_bounded);
        tcase_add_test(answers, answer_to_another_question_is_malformed);
        tcase_add_test(answers, what_is_no_whole_answer_is_malformed);
        tcase_add_test(answers, data_of_another_size_is_malformed);
        tcase_add_test(answers, rcodes_of_an_upstream_are_few);
        tcase_add_test(answers, number_of_addresses_is_bounded);
        tcase_add_test(answers, ttl_with_the_highest_bit_is_zero);
        tcase_add_test(answers, names_in_data_are_written_out);
        tcase_add_test(answers, data_of_other_types_is_bounded);
        suite_add_tcase(suite, answers);
        runner = srunner_create(suite);
        srunner_run_all(runner, CK_ENV);
        n_failed = srunner_ntests_failed(runner);
        srunner_free(runner);
        return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
