/*
 * Writes answers. Names are compressed in the one way that is needed: the owner of each record is a
 * pointer to the question or to the target of the CNAME before it.
 */
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_format.h"
#include "runtime/egress/dns_message.h"

enum {
        RECORD_HEAD = 12, /* with an owner that is a pointer */
        CHAIN_MAX = DNS_CHAIN_MAX * (RECORD_HEAD + DNS_NAME_WIRE_MAX),
        ADDRESSES_MAX = DNS_ADDRESSES_MAX * (RECORD_HEAD + 16),
        RECORDS_MAX = DNS_RECORDS_MAX * RECORD_HEAD + DNS_DATA_MAX,
        POINTER = 0xc000,
};
static_assert(DNS_HEADER_SIZE + DNS_NAME_WIRE_MAX + 4 + CHAIN_MAX + ADDRESSES_MAX + RECORDS_MAX +
                              DNS_OPT_SIZE <=
                      DNS_ANSWER_BUFFER,
              "so that no answer is too large");
static_assert(DNS_HEADER_SIZE + DNS_NAME_WIRE_MAX + 4 + DNS_OPT_SIZE <= DNS_UDP_ANSWER_MIN,
              "a client always takes the question and EDNS");
static_assert(DNS_QUESTION_AT + DNS_NAME_WIRE_MAX + 4 + CHAIN_MAX < 0x4000,
              "a pointer reaches each owner");

struct dns_writer {
        uint8_t *bytes;
        size_t n_bytes;
        uint16_t n_records;
};

static void write_u16(struct dns_writer *writer, uint16_t value)
{
        writer->bytes[writer->n_bytes++] = (uint8_t)(value >> 8);
        writer->bytes[writer->n_bytes++] = (uint8_t)value;
}

static void write_u32(struct dns_writer *writer, uint32_t value)
{
        write_u16(writer, (uint16_t)(value >> 16));
        write_u16(writer, (uint16_t)value);
}

static void write_bytes(struct dns_writer *writer, const void *bytes, size_t n_bytes)
{
        memcpy(writer->bytes + writer->n_bytes, bytes, n_bytes);
        writer->n_bytes += n_bytes;
}

struct record {
        size_t owner_at;
        uint16_t type;
        uint32_t ttl_sec;
};

static void write_record(struct dns_writer *writer, const struct record *record, const void *data,
                         size_t n_data)
{
        write_u16(writer, (uint16_t)(POINTER | record->owner_at));
        write_u16(writer, record->type);
        write_u16(writer, DNS_CLASS_IN);
        write_u32(writer, record->ttl_sec);
        write_u16(writer, (uint16_t)n_data);
        write_bytes(writer, data, n_data);
        writer->n_records++;
}

/* Where the name stands that has the answer's records. */
static size_t write_chain(struct dns_writer *writer, const struct dns_answer *answer)
{
        struct record record = { .owner_at = DNS_QUESTION_AT,
                                 .type = DNS_TYPE_CNAME,
                                 .ttl_sec = answer->ttl_sec };

        for (size_t i = 0; i < answer->n_chain; i++) {
                uint8_t target[DNS_NAME_WIRE_MAX];
                size_t n_target = dns_name_write(answer->chain[i], target);

                write_record(writer, &record, target, n_target);
                record.owner_at = writer->n_bytes - n_target;
        }
        return record.owner_at;
}

static void write_records(struct dns_writer *writer, const struct dns_query *query,
                          const struct dns_answer *answer)
{
        struct record record = { .owner_at = write_chain(writer, answer),
                                 .type = query->type,
                                 .ttl_sec = answer->ttl_sec };

        for (size_t i = 0; i < answer->n_addresses; i++) {
                const struct dns_address *address = &answer->addresses[i];

                record.type = address->is_v6 ? DNS_TYPE_AAAA : DNS_TYPE_A;
                write_record(writer, &record, address->bytes, address->is_v6 ? 16 : 4);
        }
        record.type = query->type;
        for (size_t i = 0; i < answer->n_records; i++) {
                const struct dns_record *other = &answer->records[i];

                write_record(writer, &record, answer->data + other->offset, other->n_bytes);
        }
}

static void write_edns(struct dns_writer *writer, enum dns_rcode rcode)
{
        const uint8_t root = 0;

        write_bytes(writer, &root, 1);
        write_u16(writer, DNS_TYPE_OPT);
        write_u16(writer, DNS_UDP_QUERY_MAX);
        write_u32(writer, (uint32_t)rcode >> 4 << 24);
        write_u16(writer, 0);
}

static void write_header(const struct dns_query *query, uint16_t flags, uint16_t n_records,
                         uint8_t *bytes)
{
        struct dns_writer writer = { .bytes = bytes };

        write_u16(&writer, query->id);
        write_u16(&writer, (uint16_t)(flags | query->flags | DNS_FLAG_RESPONSE |
                                      DNS_FLAG_RECURSION_AVAILABLE));
        write_u16(&writer, query->n_question > 0);
        write_u16(&writer, n_records);
        write_u16(&writer, 0);
        write_u16(&writer, query->has_edns);
}

static size_t size_taken_by(const struct dns_query *query)
{
        if (query->transport == DNS_TCP)
                return DNS_ANSWER_BUFFER;
        if (!query->has_edns || query->edns_bytes < DNS_UDP_ANSWER_MIN)
                return DNS_UDP_ANSWER_MIN;
        return MIN(query->edns_bytes, DNS_UDP_ANSWER_MAX);
}

size_t dns_answer_encode(const struct dns_query *query, const struct dns_answer *answer,
                         uint8_t ret_bytes[static DNS_ANSWER_BUFFER])
{
        struct dns_writer writer = { .bytes = ret_bytes, .n_bytes = DNS_HEADER_SIZE };
        size_t max = size_taken_by(query) - (query->has_edns ? DNS_OPT_SIZE : 0);
        uint16_t flags = answer->rcode & DNS_FLAGS_RCODE;
        size_t n_question;

        write_bytes(&writer, query->question, query->n_question);
        n_question = writer.n_bytes;
        if (query->n_question > 0)
                write_records(&writer, query, answer);
        if (writer.n_bytes > max) {
                flags |= DNS_FLAG_TRUNCATED;
                writer.n_bytes = n_question;
                writer.n_records = 0;
        }
        if (query->has_edns)
                write_edns(&writer, answer->rcode);
        write_header(query, flags, writer.n_records, ret_bytes);
        return writer.n_bytes;
}

size_t dns_rcode_encode(const struct dns_query *query, enum dns_rcode rcode,
                        uint8_t ret_bytes[static DNS_ANSWER_BUFFER])
{
        const struct dns_answer answer = { .rcode = rcode };

        return dns_answer_encode(query, &answer, ret_bytes);
}
