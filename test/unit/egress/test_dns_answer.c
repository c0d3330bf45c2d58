/* What upstreams may answer, and what comes of it. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_message.h"
#include "test/lib/suite.h"
#include "test/unit/egress/packet.h"

static struct packet packet;
static struct dns_answer answer;

/* The bytes stand at the end of an allocation, so that a sanitizer sees each byte too many. */
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

int main(void)
{
        Suite *suite = suite_create("dns_answer");
        TCase *tcase = tcase_create("dns_answer");

        tcase_add_test(tcase, addresses_of_an_answer_are_read);
        tcase_add_test(tcase, records_of_others_are_passed_over);
        tcase_add_test(tcase, chain_is_followed_in_any_order);
        tcase_add_test(tcase, chain_without_end_is_malformed);
        tcase_add_test(tcase, length_of_a_chain_is_bounded);
        tcase_add_test(tcase, compressed_names_are_read);
        tcase_add_test(tcase, pointers_that_go_round_are_malformed);
        tcase_add_test(tcase, name_that_grows_by_pointers_is_bounded);
        tcase_add_test(tcase, answer_to_another_question_is_malformed);
        tcase_add_test(tcase, what_is_no_whole_answer_is_malformed);
        tcase_add_test(tcase, data_of_another_size_is_malformed);
        tcase_add_test(tcase, rcodes_of_an_upstream_are_few);
        tcase_add_test(tcase, number_of_addresses_is_bounded);
        tcase_add_test(tcase, ttl_with_the_highest_bit_is_zero);
        tcase_add_test(tcase, names_in_data_are_written_out);
        tcase_add_test(tcase, data_of_other_types_is_bounded);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
