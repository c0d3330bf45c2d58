#include "cli/retry.h"

#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "cli/client.h"
#include "cli/error.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/target.h"
#include "runtime/base/clock.h"
#include "runtime/base/macros.h"

enum {
        PATIENCE_MSEC = 30 * 1000,
        /* With a socket whose server did not answer once: it may be about to start again. */
        PATIENCE_SOCKET_MSEC = 5 * 1000,
        PAUSE_FIRST_MSEC = 100,
        PAUSE_MAX_MSEC = 2000,
};

/* A random UUID (version 4). */
static char *uuid_new(void)
{
        uint8_t b[16];

        must(getrandom(b, sizeof(b), 0) == sizeof(b) ? b : NULL);
        b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
        b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
        return format_text("%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
                           b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
                           b[12], b[13], b[14], b[15]);
}

bool retry_identify(ProtobufCMessage *message)
{
        const ProtobufCFieldDescriptor *field =
                protobuf_c_message_descriptor_get_field_by_name(message->descriptor, "request_id");
        _cleanup_(freep) char *id = NULL;

        if (!field)
                return false;
        id = uuid_new();
        message_set_text((char **)((char *)message + field->offset), id);
        return true;
}

/* A connection may be lost in these ways; all other errors are the server's answer. */
static bool is_lost(const struct rpc_error *error)
{
        if (error->code == RPC_OK || error->code == RPC_UNAVAILABLE)
                return true;
        return (error->code == RPC_INTERNAL || error->code == RPC_UNKNOWN) && !error->status;
}

/* Where there has never been a server it is better to say so at once. */
static int64_t patience_msec(const struct client *client)
{
        if (client_has_connected(client))
                return PATIENCE_MSEC;
        return target_has_socket(client_target(client)) ? PATIENCE_SOCKET_MSEC : -1;
}

bool retry_is_due(struct retry *retry, const struct client *client, const struct rpc_error *error)
{
        int64_t now = (int64_t)clock_monotonic_msec();

        if (!is_lost(error))
                return false;
        if (!retry->since_msec)
                *retry = (struct retry){ .since_msec = now, .pause_msec = PAUSE_FIRST_MSEC };
        return now - retry->since_msec <= patience_msec(client);
}

int retry_pause(struct retry *retry, struct client *client)
{
        int64_t pause_msec = retry->pause_msec;

        retry->pause_msec = MIN(2 * pause_msec, (int64_t)PAUSE_MAX_MSEC);
        return client_sleep(client, pause_msec);
}

void retry_reset(struct retry *retry)
{
        *retry = (struct retry){ 0 };
}
