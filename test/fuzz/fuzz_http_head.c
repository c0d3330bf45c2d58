/*
 * The first bytes of a connection: which host is found in them does not depend on how they are cut.
 * The first byte says how they are.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/egress/http_head.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct http_head take_all(const uint8_t *data, size_t size, size_t piece)
{
        struct http_head head = { 0 };

        for (size_t i = 0; i < size; i += piece) {
                enum http_head_state state = http_head_take(&head, data + i, MIN(piece, size - i));

                if (state != head.state)
                        abort();
        }
        return head;
}

/* What was found is found in what is written of it. */
static bool is_same_when_read(const struct host *host)
{
        char text[HOST_BUFFER + 2];
        struct host again;
        uint16_t port;
        int n = snprintf(text, sizeof(text), host->kind == HOST_V6 ? "[%s]" : "%s", host->text);

        return n > 0 && host_read(text, (size_t)n, &again, &port) && port == 0 &&
               again.kind == host->kind && strcmp(again.text, host->text) == 0;
}

static void check(const struct http_head *head, size_t size)
{
        if (head->n_seen > MIN(size, HTTP_HEAD_MAX) || head->state > HTTP_HEAD_MALFORMED)
                abort();
        if (head->state == HTTP_HEAD_NEED_MORE && size >= HTTP_HEAD_MAX)
                abort();
        if (head->state == HTTP_HEAD_FOUND && !is_same_when_read(&head->host))
                abort();
        if (head->state > HTTP_HEAD_FOUND && head->host.text[0] != '\0')
                abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct http_head whole;
        struct http_head pieces;

        if (size < 2)
                return 0;
        whole = take_all(data + 1, size - 1, size);
        pieces = take_all(data + 1, size - 1, data[0] % 32 + 1U);
        check(&whole, size - 1);
        if (whole.state != pieces.state || whole.n_seen != pieces.n_seen ||
            whole.host.kind != pieces.host.kind || strcmp(whole.host.text, pieces.host.text) != 0)
                abort();
        return 0;
}
