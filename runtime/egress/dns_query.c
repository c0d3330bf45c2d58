/* Reads queries. Stub resolvers send plain ones, so all that is unusual is refused. */
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_format.h"
#include "runtime/egress/dns_message.h"

struct counts {
        uint16_t n_questions;
        uint16_t n_answers;
        uint16_t n_authorities;
        uint16_t n_additional;
};

/* 0, DNS_E_SILENT or DNS_NOTIMP. */
static int read_header(struct dns_reader *reader, struct dns_query *query, struct counts *counts)
{
        uint16_t flags;

        if (!dns_read_u16(reader, &query->id) || !dns_read_u16(reader, &flags) ||
            !dns_read_u16(reader, &counts->n_questions) ||
            !dns_read_u16(reader, &counts->n_answers) ||
            !dns_read_u16(reader, &counts->n_authorities) ||
            !dns_read_u16(reader, &counts->n_additional))
                return DNS_E_SILENT;
        /* An answer to an answer could go round for ever. */
        if (flags & DNS_FLAG_RESPONSE)
                return DNS_E_SILENT;
        query->flags = flags &
                       (DNS_FLAGS_OPCODE | DNS_FLAG_RECURSION_DESIRED | DNS_FLAG_CHECKING_DISABLED);
        return flags & DNS_FLAGS_OPCODE ? DNS_NOTIMP : 0;
}

static int read_question(struct dns_reader *reader, struct dns_query *query)
{
        const uint8_t *begin = reader->bytes + reader->at;
        int r = dns_name_read(reader, false, query->name);
        uint16_t class;

        if (r == DNS_NAME_E_MALFORMED || !dns_read_u16(reader, &query->type) ||
            !dns_read_u16(reader, &class))
                return DNS_FORMERR;
        query->n_question = (size_t)(reader->bytes + reader->at - begin);
        assert(query->n_question <= sizeof(query->question));
        memcpy(query->question, begin, query->n_question);
        if (r || class != DNS_CLASS_IN || query->name[0] == '\0')
                return DNS_REFUSED;
        return 0;
}

/* An OPT record has the client's size in place of a class, and the version in that of a TTL. */
static int read_edns(struct dns_reader *reader, struct dns_query *query)
{
        char owner[DNS_NAME_BUFFER];
        uint16_t type;
        uint16_t n_bytes;
        uint16_t n_options;
        uint32_t ttl;

        if (dns_name_read(reader, false, owner) || owner[0] != '\0' ||
            !dns_read_u16(reader, &type) || type != DNS_TYPE_OPT ||
            !dns_read_u16(reader, &n_bytes) || !dns_read_u32(reader, &ttl) ||
            !dns_read_u16(reader, &n_options) || !dns_skip(reader, n_options))
                return DNS_FORMERR;
        query->has_edns = true;
        query->edns_bytes = n_bytes;
        return ttl >> 16 & 0xff ? DNS_BADVERS : 0;
}

int dns_query_decode(enum dns_transport transport, const uint8_t *bytes, size_t n_bytes,
                     struct dns_query *ret_query)
{
        struct dns_reader reader = { .bytes = bytes, .n_bytes = n_bytes };
        struct counts counts;
        int edns = 0;
        int r;

        *ret_query = (struct dns_query){ .transport = transport };
        if (n_bytes < DNS_HEADER_SIZE)
                return DNS_E_SILENT;
        r = read_header(&reader, ret_query, &counts);
        if (r)
                return r;
        if (counts.n_questions != 1 || counts.n_answers > 0 || counts.n_authorities > 0 ||
            counts.n_additional > 1 || (transport == DNS_UDP && n_bytes > DNS_UDP_QUERY_MAX))
                return DNS_FORMERR;
        r = read_question(&reader, ret_query);
        if (r == DNS_FORMERR)
                return r;
        if (counts.n_additional > 0)
                edns = read_edns(&reader, ret_query);
        if (edns == DNS_FORMERR || reader.at < n_bytes)
                return DNS_FORMERR;
        return edns ? edns : r;
}
