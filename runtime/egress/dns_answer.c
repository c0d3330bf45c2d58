/*
 * Reads answers of an upstream: follows the CNAMEs from the question, whatever the order of the
 * records is, and collects what stands at their end. All else in the message is passed over.
 */
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_format.h"
#include "runtime/egress/dns_message.h"

enum { LOOKED_AT_MAX = 256 /* records of a message */ };

/* A record of the answer section, where the reader has just passed it. */
struct record {
        char owner[DNS_NAME_BUFFER];
        bool is_odd; /* its owner is no name that could be asked for */
        uint16_t type;
        uint16_t class;
        uint32_t ttl_sec;
        struct dns_reader
                data; /* ends where the record does: what stands before may be pointed to */
};

/* The answer section. */
struct section {
        struct dns_reader begin;
        size_t n_records;
};

static bool read_record(struct dns_reader *reader, struct record *ret_record)
{
        int r = dns_name_read(reader, true, ret_record->owner);
        uint16_t n_data;

        ret_record->is_odd = r == DNS_NAME_E_ODD;
        if (r == DNS_NAME_E_MALFORMED || !dns_read_u16(reader, &ret_record->type) ||
            !dns_read_u16(reader, &ret_record->class) ||
            !dns_read_u32(reader, &ret_record->ttl_sec) || !dns_read_u16(reader, &n_data))
                return false;
        ret_record->data = *reader;
        if (!dns_skip(reader, n_data))
                return false;
        ret_record->data.n_bytes = reader->at;
        /* RFC 2181: a TTL with the highest bit is zero. */
        if (ret_record->ttl_sec > INT32_MAX)
                ret_record->ttl_sec = 0;
        return true;
}

static bool is_of(const struct record *record, const char *owner, uint16_t type)
{
        return !record->is_odd && record->type == type && record->class == DNS_CLASS_IN &&
               strcmp(record->owner, owner) == 0;
}

/* 0, or DNS_E_MALFORMED; *@ret_is_found whether @owner is an alias, of *@ret_record then. */
static int find_cname(const struct section *section, const char *owner, struct record *ret_record,
                      bool *ret_is_found)
{
        struct dns_reader reader = section->begin;

        *ret_is_found = false;
        for (size_t i = 0; i < section->n_records && !*ret_is_found; i++) {
                if (!read_record(&reader, ret_record))
                        return DNS_E_MALFORMED;
                *ret_is_found = is_of(ret_record, owner, DNS_TYPE_CNAME);
        }
        return 0;
}

static const char *end_of_chain(const struct dns_answer *answer, const char *name)
{
        return answer->n_chain > 0 ? answer->chain[answer->n_chain - 1] : name;
}

/* One that goes round is one that is too long. */
static int follow_chain(const struct section *section, const char *name, struct dns_answer *answer)
{
        for (;;) {
                char target[DNS_NAME_BUFFER] = { 0 };
                struct record record;
                bool is_alias;
                int r = find_cname(section, end_of_chain(answer, name), &record, &is_alias);

                if (r || !is_alias)
                        return r;
                if (answer->n_chain == DNS_CHAIN_MAX || dns_name_read(&record.data, true, target) ||
                    record.data.at < record.data.n_bytes || target[0] == '\0')
                        return DNS_E_MALFORMED;
                memcpy(answer->chain[answer->n_chain++], target, sizeof(target));
                answer->ttl_sec = MIN(answer->ttl_sec, record.ttl_sec);
        }
}

static int add_address(const struct record *record, struct dns_answer *answer)
{
        struct dns_address address = { .is_v6 = record->type == DNS_TYPE_AAAA };
        size_t n_bytes = address.is_v6 ? 16 : 4;

        if (record->data.n_bytes - record->data.at != n_bytes)
                return DNS_E_MALFORMED;
        memcpy(address.bytes, record->data.bytes + record->data.at, n_bytes);
        if (answer->n_addresses < DNS_ADDRESSES_MAX)
                answer->addresses[answer->n_addresses++] = address;
        return 0;
}

/*
 * The types, other than addresses, whose data can be passed on, and where the name is in it that an
 * upstream may have compressed. It is always at the end. What is not here may have pointers that
 * nobody would know of.
 */
static const struct {
        uint16_t type;
        int8_t name_at; /* bytes before it; -1: no name, or one that is never compressed */
} forwarded_types[] = {
        { DNS_TYPE_NS, 0 },     { DNS_TYPE_CNAME, 0 }, { DNS_TYPE_NULL, -1 }, { DNS_TYPE_PTR, 0 },
        { DNS_TYPE_HINFO, -1 }, { DNS_TYPE_MX, 2 },    { DNS_TYPE_TXT, -1 },  { DNS_TYPE_SRV, 6 },
        { DNS_TYPE_SSHFP, -1 }, { DNS_TYPE_TLSA, -1 }, { DNS_TYPE_URI, -1 },  { DNS_TYPE_CAA, -1 },
};

static int find_name_place(uint16_t type)
{
        for (size_t i = 0; i < ARRAY_SIZE(forwarded_types); i++) {
                if (forwarded_types[i].type == type)
                        return forwarded_types[i].name_at;
        }
        return -1;
}

bool dns_type_is_forwarded(uint16_t type)
{
        bool is_found = false;

        for (size_t i = 0; i < ARRAY_SIZE(forwarded_types) && !is_found; i++)
                is_found = forwarded_types[i].type == type;
        return is_found;
}

/* Pointers in the data would lead elsewhere in another message: the name is written out. */
static int add_record(const struct record *record, struct dns_answer *answer)
{
        struct dns_reader data = record->data;
        const uint8_t *begin = data.bytes + data.at;
        size_t n_begin = data.n_bytes - data.at;
        uint8_t name[DNS_NAME_WIRE_MAX];
        size_t n_name = 0;
        int place = find_name_place(record->type);

        if (place >= 0) {
                char text[DNS_NAME_BUFFER];

                n_begin = (size_t)place;
                if (!dns_skip(&data, n_begin) || dns_name_read(&data, true, text) ||
                    data.at < data.n_bytes)
                        return DNS_E_MALFORMED;
                n_name = dns_name_write(text, name);
        }
        if (answer->n_records == DNS_RECORDS_MAX ||
            n_begin + n_name > sizeof(answer->data) - answer->n_data)
                return 0;
        answer->records[answer->n_records++] =
                (struct dns_record){ .offset = (uint16_t)answer->n_data,
                                     .n_bytes = (uint16_t)(n_begin + n_name) };
        memcpy(answer->data + answer->n_data, begin, n_begin);
        memcpy(answer->data + answer->n_data + n_begin, name, n_name);
        answer->n_data += n_begin + n_name;
        return 0;
}

static int collect(const struct section *section, const char *owner, uint16_t type,
                   struct dns_answer *answer)
{
        struct dns_reader reader = section->begin;

        for (size_t i = 0; i < section->n_records; i++) {
                struct record record;
                int r;

                if (!read_record(&reader, &record))
                        return DNS_E_MALFORMED;
                if (!is_of(&record, owner, type))
                        continue;
                r = type == DNS_TYPE_A || type == DNS_TYPE_AAAA ? add_address(&record, answer)
                                                                : add_record(&record, answer);
                if (r)
                        return r;
                answer->ttl_sec = MIN(answer->ttl_sec, record.ttl_sec);
        }
        return 0;
}

/* The header and a question that is the one that was asked. */
static int read_begin(struct dns_reader *reader, const char *name, uint16_t type,
                      struct section *ret_section, enum dns_rcode *ret_rcode)
{
        char asked[DNS_NAME_BUFFER];
        uint16_t flags;
        uint16_t n_questions;
        uint16_t n_answers;
        uint16_t asked_type;
        uint16_t class;

        if (!dns_skip(reader, 2) || !dns_read_u16(reader, &flags) ||
            !dns_read_u16(reader, &n_questions) || !dns_read_u16(reader, &n_answers) ||
            !dns_skip(reader, 4))
                return DNS_E_MALFORMED;
        if ((flags & (DNS_FLAG_RESPONSE | DNS_FLAGS_OPCODE | DNS_FLAG_TRUNCATED)) !=
                    DNS_FLAG_RESPONSE ||
            n_questions != 1)
                return DNS_E_MALFORMED;
        if (dns_name_read(reader, false, asked) || !dns_read_u16(reader, &asked_type) ||
            !dns_read_u16(reader, &class) || strcmp(asked, name) != 0 || asked_type != type ||
            class != DNS_CLASS_IN)
                return DNS_E_MALFORMED;
        *ret_section =
                (struct section){ .begin = *reader, .n_records = MIN(n_answers, LOOKED_AT_MAX) };
        *ret_rcode = (enum dns_rcode)(flags & DNS_FLAGS_RCODE);
        return 0;
}

int dns_answer_decode(const uint8_t *bytes, size_t n_bytes, const char *name, uint16_t type,
                      struct dns_answer *ret_answer)
{
        struct dns_reader reader = { .bytes = bytes, .n_bytes = n_bytes };
        struct section section;
        enum dns_rcode rcode;
        int r;

        if (n_bytes < DNS_HEADER_SIZE)
                return DNS_E_MALFORMED;
        r = read_begin(&reader, name, type, &section, &rcode);
        if (r)
                return r;
        *ret_answer = (struct dns_answer){ .rcode = rcode, .ttl_sec = UINT32_MAX };
        if (rcode != DNS_NOERROR && rcode != DNS_NXDOMAIN) {
                *ret_answer = (struct dns_answer){ .rcode = DNS_SERVFAIL };
                return 0;
        }
        if (type != DNS_TYPE_CNAME)
                r = follow_chain(&section, name, ret_answer);
        if (!r && rcode == DNS_NOERROR)
                r = collect(&section, end_of_chain(ret_answer, name), type, ret_answer);
        if (ret_answer->ttl_sec == UINT32_MAX)
                ret_answer->ttl_sec = 0;
        return r;
}
