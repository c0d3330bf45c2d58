#include "test/unit/egress/packet.h"

#include <arpa/inet.h>
#include <check.h>
#include <string.h>

void put_bytes(struct packet *packet, const void *bytes, size_t n_bytes)
{
        ck_assert_uint_le(n_bytes, sizeof(packet->bytes) - packet->n_bytes);
        if (n_bytes > 0)
                memcpy(packet->bytes + packet->n_bytes, bytes, n_bytes);
        packet->n_bytes += n_bytes;
}

void put_u8(struct packet *packet, unsigned value)
{
        const uint8_t byte = (uint8_t)value;

        put_bytes(packet, &byte, 1);
}

void put_u16(struct packet *packet, unsigned value)
{
        put_u8(packet, value >> 8);
        put_u8(packet, value & 0xff);
}

void put_u32(struct packet *packet, uint32_t value)
{
        put_u16(packet, value >> 16);
        put_u16(packet, value & 0xffff);
}

void put_name(struct packet *packet, const char *name)
{
        while (*name) {
                size_t n = strcspn(name, ".");

                put_u8(packet, (unsigned)n);
                put_bytes(packet, name, n);
                name += n + (name[n] == '.');
        }
        put_u8(packet, 0);
}

void put_header(struct packet *packet, unsigned id, unsigned flags, unsigned n_answers)
{
        packet->n_bytes = 0;
        put_u16(packet, id);
        put_u16(packet, flags);
        put_u16(packet, 1);
        put_u16(packet, n_answers);
        put_u32(packet, 0);
}

void put_question(struct packet *packet, const char *name, unsigned type)
{
        put_name(packet, name);
        put_u16(packet, type);
        put_u16(packet, 1);
}

void put_query(struct packet *packet, const char *name, unsigned type)
{
        put_header(packet, PACKET_ID, PACKET_QUERY, 0);
        put_question(packet, name, type);
}

void put_edns(struct packet *packet, unsigned size, unsigned version)
{
        packet->bytes[11]++;
        put_name(packet, "");
        put_u16(packet, 41);
        put_u16(packet, size);
        put_u32(packet, version << 16);
        put_u16(packet, 0);
}

void put_record(struct packet *packet, const char *owner, unsigned type, uint32_t ttl,
                const void *data, size_t n_data)
{
        put_name(packet, owner);
        put_u16(packet, type);
        put_u16(packet, 1);
        put_u32(packet, ttl);
        put_u16(packet, (unsigned)n_data);
        put_bytes(packet, data, n_data);
}

void put_cname(struct packet *packet, const char *owner, uint32_t ttl, const char *target)
{
        static struct packet data;

        data.n_bytes = 0;
        put_name(&data, target);
        put_record(packet, owner, 5, ttl, data.bytes, data.n_bytes);
}

void put_address(struct packet *packet, const char *owner, uint32_t ttl, const char *text)
{
        bool is_v6 = strchr(text, ':');
        uint8_t data[16];

        ck_assert_int_eq(inet_pton(is_v6 ? AF_INET6 : AF_INET, text, data), 1);
        put_record(packet, owner, is_v6 ? 28 : 1, ttl, data, is_v6 ? 16 : 4);
}

unsigned get_u16(const uint8_t *bytes, size_t at)
{
        return (unsigned)bytes[at] << 8 | bytes[at + 1];
}

unsigned get_rcode(const uint8_t *bytes)
{
        return bytes[3] & 15U;
}

unsigned get_n_answers(const uint8_t *bytes)
{
        return get_u16(bytes, 6);
}

bool is_truncated(const uint8_t *bytes)
{
        return bytes[2] & 2;
}
