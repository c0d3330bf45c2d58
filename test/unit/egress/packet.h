/* Messages of the DNS as tests write them: by hand, without the code under test. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        PACKET_ID = 0x1234,
        PACKET_QUERY = 0x0100,  /* flags: recursion desired */
        PACKET_ANSWER = 0x8180, /* flags: response, recursion desired and available */
        PACKET_TRUNCATED = 0x0200,
};

struct packet {
        uint8_t bytes[65535];
        size_t n_bytes;
};

void put_u8(struct packet *packet, unsigned value);
void put_u16(struct packet *packet, unsigned value);
void put_u32(struct packet *packet, uint32_t value);
void put_bytes(struct packet *packet, const void *bytes, size_t n_bytes);

/* Labels with dots between; "" is the root. */
void put_name(struct packet *packet, const char *name);

/* Begins anew: a header that promises one question and @n_answers. */
void put_header(struct packet *packet, unsigned id, unsigned flags, unsigned n_answers);
void put_question(struct packet *packet, const char *name, unsigned type);

/* All of a query, without EDNS. */
void put_query(struct packet *packet, const char *name, unsigned type);

/* An OPT record, and its number in the header. */
void put_edns(struct packet *packet, unsigned size, unsigned version);

void put_record(struct packet *packet, const char *owner, unsigned type, uint32_t ttl,
                const void *data, size_t n_data);
void put_cname(struct packet *packet, const char *owner, uint32_t ttl, const char *target);

/* A or AAAA, by the form of the text. */
void put_address(struct packet *packet, const char *owner, uint32_t ttl, const char *text);

/* Of a message that came: parts of its header. */
unsigned get_u16(const uint8_t *bytes, size_t at);
unsigned get_rcode(const uint8_t *bytes);
unsigned get_n_answers(const uint8_t *bytes);
bool is_truncated(const uint8_t *bytes);
