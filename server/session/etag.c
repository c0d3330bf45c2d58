/* FNV-1a: an etag has to tell versions of one sandbox apart, not to withstand its own owner. */
#include <inttypes.h>
#include <stdio.h>

#include "server/session/session.h"

static const uint64_t basis = UINT64_C(0xcbf29ce484222325);
static const uint64_t prime = UINT64_C(0x100000001b3);

static uint64_t add_byte(uint64_t hash, uint8_t byte)
{
        return (hash ^ byte) * prime;
}

/* With the NUL, so that no two texts run into each other. */
static uint64_t add_text(uint64_t hash, const char *text)
{
        do
                hash = add_byte(hash, (uint8_t)*text);
        while (*text++);
        return hash;
}

static uint64_t add_number(uint64_t hash, uint64_t number)
{
        for (unsigned shift = 0; shift < 64; shift += 8)
                hash = add_byte(hash, (uint8_t)(number >> shift));
        return hash;
}

/* Labels have no order: the database gives them back in another one than the request. */
static uint64_t sum_labels(const struct pairs *labels)
{
        uint64_t sum = 0;

        for (size_t i = 0; i < labels->n; i++)
                sum += add_text(add_text(basis, labels->items[i].name), labels->items[i].value);
        return sum;
}

static uint64_t add_limits(uint64_t hash, const struct sandbox_limits *limits)
{
        hash = add_number(hash, (uint64_t)limits->memory_bytes);
        hash = add_number(hash, (uint64_t)limits->cpu_millis);
        hash = add_number(hash, (uint64_t)limits->cpu_weight);
        hash = add_number(hash, (uint64_t)limits->processes);
        hash = add_number(hash, (uint64_t)limits->disk_bytes);
        hash = add_number(hash, (uint64_t)limits->disk_inodes);
        hash = add_number(hash, (uint64_t)limits->open_files);
        hash = add_number(hash, (uint64_t)limits->io_bytes_per_second);
        hash = add_number(hash, (uint64_t)limits->execution.timeout_usec);
        return add_number(hash, (uint64_t)limits->execution.output_bytes);
}

void sandbox_etag(const struct sandbox_record *record, char ret_etag[static ETAG_BUFFER])
{
        uint64_t hash = add_number(basis, sum_labels(&record->labels));

        hash = add_number(hash, (uint64_t)record->expire_time_usec);
        hash = add_number(hash, (uint64_t)record->idle_timeout_usec);
        hash = add_number(hash, (uint64_t)record->egress_version);
        hash = add_limits(hash, &record->limits);
        (void)snprintf(ret_etag, ETAG_BUFFER, "%016" PRIx64, hash);
}
