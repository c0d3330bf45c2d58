/*
 * The first bytes of a connection: what is found in them does not depend on how they are cut. The
 * first byte says how they are.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/tls_hello.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct tls_hello take_all(const uint8_t *data, size_t size, size_t piece)
{
        struct tls_hello hello = { 0 };

        for (size_t i = 0; i < size; i += piece) {
                enum tls_hello_state state = tls_hello_take(&hello, data + i, MIN(piece, size - i));

                if (state != hello.state)
                        abort();
        }
        return hello;
}

static void check(const struct tls_hello *hello, size_t size)
{
        char again[HOST_BUFFER];

        if (hello->n_seen > MIN(size, TLS_HELLO_MAX) || hello->state > TLS_HELLO_MALFORMED)
                abort();
        if (hello->state == TLS_HELLO_NEED_MORE && size >= TLS_HELLO_MAX)
                abort();
        if (hello->state == TLS_HELLO_FOUND &&
            (!host_name_read(hello->name, strlen(hello->name), again) ||
             strcmp(hello->name, again) != 0))
                abort();
        if (hello->state > TLS_HELLO_FOUND && hello->name[0] != '\0')
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct tls_hello whole;
        struct tls_hello pieces;

        if (size < 2)
                return 0;
        whole = take_all(data + 1, size - 1, size);
        pieces = take_all(data + 1, size - 1, data[0] % 32 + 1U);
        check(&whole, size - 1);
        if (whole.state != pieces.state || whole.n_seen != pieces.n_seen ||
            memcmp(whole.name, pieces.name, sizeof(whole.name)) != 0)
                abort();
        return 0;
}
