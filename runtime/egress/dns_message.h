/*
 * Messages of the DNS (RFC 1035, EDNS of RFC 6891): what a sandbox asks, what an upstream answers,
 * and what a sandbox is told. Pure: bytes in, structs out, and back. Both kinds of bytes that come
 * in are hostile.
 *
 * Nothing of a message that came in is passed on but what is in these structs: no options, no
 * records of the authority and additional sections, no flags of an upstream.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/egress/dns_name.h"

enum {
        DNS_UDP_QUERY_MAX = 4096,  /* bytes that a query may have by UDP */
        DNS_UDP_ANSWER_MIN = 512,  /* bytes that each client takes by UDP */
        DNS_UDP_ANSWER_MAX = 1232, /* larger ones would be cut to fragments somewhere */
        DNS_ANSWER_BUFFER = 16384, /* for every answer that dns_answer_encode() makes */
        DNS_CHAIN_MAX = 12,        /* CNAMEs between a name and its records */
        DNS_ADDRESSES_MAX = 64,    /* of an answer that are kept */
        DNS_RECORDS_MAX = 64,      /* of other types, that are kept */
        DNS_DATA_MAX = 8192,       /* bytes of their data together */
};

enum dns_type {
        DNS_TYPE_A = 1,
        DNS_TYPE_NS = 2,
        DNS_TYPE_CNAME = 5,
        DNS_TYPE_NULL = 10,
        DNS_TYPE_PTR = 12,
        DNS_TYPE_HINFO = 13,
        DNS_TYPE_MX = 15,
        DNS_TYPE_TXT = 16,
        DNS_TYPE_AAAA = 28,
        DNS_TYPE_SRV = 33,
        DNS_TYPE_OPT = 41, /* no type: EDNS */
        DNS_TYPE_SSHFP = 44,
        DNS_TYPE_TLSA = 52,
        DNS_TYPE_SVCB = 64,
        DNS_TYPE_HTTPS = 65,
        DNS_TYPE_ANY = 255, /* no type either */
        DNS_TYPE_URI = 256,
        DNS_TYPE_CAA = 257,
};

enum dns_rcode {
        DNS_NOERROR = 0,
        DNS_FORMERR = 1,
        DNS_SERVFAIL = 2,
        DNS_NXDOMAIN = 3,
        DNS_NOTIMP = 4,
        DNS_REFUSED = 5,
        DNS_BADVERS = 16, /* of EDNS */
};

enum {
        DNS_E_SILENT = 4096, /* is to be left without an answer; above each rcode */
        DNS_E_MALFORMED,
};

enum dns_transport {
        DNS_UDP,
        DNS_TCP, /* without the two bytes of length */
};

/* A question and what its answer needs of it. */
struct dns_query {
        enum dns_transport transport;
        uint16_t id;
        uint16_t flags; /* opcode, RD, CD: they come back */
        bool has_edns;
        uint16_t edns_bytes; /* what the client says it takes by UDP */
        uint16_t type;
        char name[DNS_NAME_BUFFER];
        uint8_t question[DNS_NAME_WIRE_MAX + 4]; /* as it was asked, with its capital letters */
        size_t n_question;                       /* zero: none could be read */
};

struct dns_address {
        bool is_v6;
        uint8_t bytes[16]; /* network order; v4 in the first 4 */
};

/* Data of another type, in data[] of its answer. */
struct dns_record {
        uint16_t offset;
        uint16_t n_bytes;
};

/* What there is about a name and a type. */
struct dns_answer {
        enum dns_rcode rcode;
        uint32_t ttl_sec; /* the smallest one on the way; zero without records */
        size_t n_chain;
        size_t n_addresses;
        size_t n_records;
        size_t n_data;
        char chain[DNS_CHAIN_MAX]
                  [DNS_NAME_BUFFER]; /* from CNAME to CNAME; the last has the records */
        struct dns_address addresses[DNS_ADDRESSES_MAX];
        struct dns_record records[DNS_RECORDS_MAX];
        uint8_t data[DNS_DATA_MAX];
};

/*
 * Reads what a sandbox sent. Returns 0, the rcode to answer with, or DNS_E_SILENT. With an rcode
 * *@ret_query has what dns_answer_encode() needs, and else is not to be relied on.
 *   DNS_FORMERR  is no message, has not exactly one question, has records other than one of EDNS,
 *                a compressed name, or bytes behind its end
 *   DNS_NOTIMP   is no query but an update, a notification or the like
 *   DNS_BADVERS  is of a later EDNS
 *   DNS_REFUSED  asks in another class than IN, for the root, or for a name that no host can have
 */
int dns_query_decode(enum dns_transport transport, const uint8_t *bytes, size_t n_bytes,
                     struct dns_query *ret_query);

/*
 * Writes the answer to @query; returns its size. By UDP it is cut off, and says so, when it is
 * larger than the client takes.
 */
size_t dns_answer_encode(const struct dns_query *query, const struct dns_answer *answer,
                         uint8_t ret_bytes[static DNS_ANSWER_BUFFER]);

/* The same for an answer that has nothing but its rcode. */
size_t dns_rcode_encode(const struct dns_query *query, enum dns_rcode rcode,
                        uint8_t ret_bytes[static DNS_ANSWER_BUFFER]);

/*
 * Whether data of a type other than A and AAAA can be passed on: of the common types that are no
 * orders to a server such as ANY and AXFR, and whose layout is known.
 */
bool dns_type_is_forwarded(uint16_t type);

/*
 * Reads what an upstream answered to the question for @name and @type: 0 or DNS_E_MALFORMED, also
 * for an answer to another question and for a chain of CNAMEs that has no end. An rcode other than
 * NOERROR and NXDOMAIN becomes SERVFAIL. What is more than the limits above is left out. @type is
 * A, AAAA or one that is forwarded.
 */
int dns_answer_decode(const uint8_t *bytes, size_t n_bytes, const char *name, uint16_t type,
                      struct dns_answer *ret_answer);
