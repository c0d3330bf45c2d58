/*
 * Bytes as if a client had sent them, without the preface: what the guard says of them does not
 * depend on how they are cut. The first byte says how they are.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/rpc/http2_guard.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static enum http2_verdict take_all(const uint8_t *data, size_t size, size_t piece)
{
        static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        const struct http2_limits limits = { .message_max_bytes = 5000, .streams_max = 4 };
        struct http2_guard *guard;
        enum http2_verdict verdict;

        if (http2_guard_new(&limits, &guard))
                abort();
        verdict = http2_guard_take(guard, preface, strlen(preface), 1);
        for (size_t i = 0; i < size; i += piece)
                verdict = http2_guard_take(guard, data + i, MIN(piece, size - i), 1);
        if (verdict != http2_guard_verdict(guard) || !http2_verdict_text(verdict))
                abort();
        guard = http2_guard_free(guard);
        return verdict;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        if (size < 2)
                return 0;
        if (take_all(data + 1, size - 1, size) != take_all(data + 1, size - 1, data[0] % 16 + 1U))
                abort();
        return 0;
}
