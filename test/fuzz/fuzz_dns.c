/*
 * Queries as if a sandbox had sent them, answers as if an upstream had: what decodes encodes,
 * within what the client takes, and decodes to the same again. Byte 0: by TCP. Bytes 1 and 2: the
 * size of the query, which follows; the rest is the upstream's answer to it.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/dns_message.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool is_true)
{
        if (!is_true)
                abort();
}

/* So that a rule, a log and a client read it alike. */
static void check_name(const char *name)
{
        size_t n = strlen(name);

        check(n < DNS_NAME_BUFFER);
        check(strspn(name, "abcdefghijklmnopqrstuvwxyz0123456789-_.") == n);
        check(!strstr(name, "..") && name[0] != '.' && (n == 0 || name[n - 1] != '.'));
}

static bool is_truncated(const uint8_t *bytes)
{
        return bytes[2] & 2;
}

static void check_size(const struct dns_query *query, size_t n_bytes)
{
        size_t max =
                query->has_edns ? MAX(query->edns_bytes, DNS_UDP_ANSWER_MIN) : DNS_UDP_ANSWER_MIN;

        check(n_bytes >= 12 && n_bytes <= DNS_ANSWER_BUFFER);
        if (query->transport == DNS_UDP)
                check(n_bytes <= MIN(max, DNS_UDP_ANSWER_MAX));
}

static void check_same(const struct dns_answer *a, const struct dns_answer *b)
{
        check(a->rcode == b->rcode && a->ttl_sec == b->ttl_sec);
        check(a->n_chain == b->n_chain && a->n_addresses == b->n_addresses);
        check(a->n_records == b->n_records && a->n_data == b->n_data);
        for (size_t i = 0; i < a->n_chain; i++)
                check(strcmp(a->chain[i], b->chain[i]) == 0);
        for (size_t i = 0; i < a->n_addresses; i++)
                check(a->addresses[i].is_v6 == b->addresses[i].is_v6 &&
                      memcmp(a->addresses[i].bytes, b->addresses[i].bytes, 16) == 0);
        for (size_t i = 0; i < a->n_records; i++)
                check(a->records[i].offset == b->records[i].offset &&
                      a->records[i].n_bytes == b->records[i].n_bytes);
        check(memcmp(a->data, b->data, a->n_data) == 0);
}

static void check_answer(const struct dns_query *query, const struct dns_answer *answer)
{
        static uint8_t bytes[DNS_ANSWER_BUFFER];
        static struct dns_answer again;
        size_t n_bytes = dns_answer_encode(query, answer, bytes);

        for (size_t i = 0; i < answer->n_chain; i++) {
                check_name(answer->chain[i]);
                check(answer->chain[i][0] != '\0');
        }
        check_size(query, n_bytes);
        if (is_truncated(bytes))
                return;
        check(dns_answer_decode(bytes, n_bytes, query->name, query->type, &again) == 0);
        check_same(answer, &again);
}

static bool is_looked_up(uint16_t type)
{
        return type == DNS_TYPE_A || type == DNS_TYPE_AAAA || dns_type_is_forwarded(type);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static uint8_t bytes[DNS_ANSWER_BUFFER];
        static struct dns_answer answer;
        struct dns_query query;
        size_t n_query;
        int r;

        if (size < 3)
                return 0;
        n_query = MIN((size_t)data[1] << 8 | data[2], size - 3);
        r = dns_query_decode(data[0] & 1 ? DNS_TCP : DNS_UDP, data + 3, n_query, &query);
        if (r == DNS_E_SILENT)
                return 0;
        check_size(&query, dns_rcode_encode(&query, (enum dns_rcode)r, bytes));
        if (r)
                return 0;
        check_name(query.name);
        check(query.name[0] != '\0');
        if (is_looked_up(query.type) && dns_answer_decode(data + 3 + n_query, size - 3 - n_query,
                                                          query.name, query.type, &answer) == 0)
                check_answer(&query, &answer);
        return 0;
}
