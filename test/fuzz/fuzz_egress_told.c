/*
 * What hotcell-egress tells: of whatever it sends, an event that is taken is one that can be shown
 * and stored, and the sentence of a refusal is a line of text.
 */
#include <arpa/inet.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/text.h"
#include "runtime/base/wire.h"
#include "server/session/egress_check.h"

enum { ARENA_MAX = 2 << 20, NOW_USEC = 1000000 };

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void check_text(const char *text, size_t size)
{
        size_t n = strnlen(text, size);

        require(n < size && text_is_utf8(text, n));
}

static void check_event(const Hotcell__Egress__V1__Event *message)
{
        struct egress_event event;
        const struct egress_record *record = &event.record;
        uint8_t address[16];

        if (!egress_check_event(message, NOW_USEC, &event))
                return;
        require(event.number > 0 && event.cgroup_id > 0 && record->serial > 0);
        require(record->source > 0 && record->source < _EGRESS_DECIDER_N);
        require(record->type > 0 && record->type < _EGRESS_EVENT_TYPE_N);
        require((unsigned)record->reason < _EGRESS_REASON_N);
        require((unsigned)record->protocol < _EGRESS_PROTOCOL_N);
        require(record->port >= 0 && record->port <= 65535 && record->count > 0);
        require(record->rule_index >= -1 && record->rule_index < 10000);
        require(record->event_time_usec > 0 && record->policy_version >= 0 && record->pid >= 0);
        require(record->sent_bytes >= 0 && record->received_bytes >= 0);
        require(record->duration_usec >= 0 && record->error_number >= 0);
        check_text(record->address, sizeof(record->address));
        check_text(record->name, sizeof(record->name));
        check_text(record->command, sizeof(record->command));
        require(!*record->address || inet_pton(AF_INET, record->address, address) == 1 ||
                inet_pton(AF_INET6, record->address, address) == 1);
}

static void check_failure(const Hotcell__Egress__V1__Failure *failure)
{
        char text[EGRESS_REASON_BUFFER];

        egress_check_text(failure->message, text);
        check_text(text, sizeof(text));
        for (const char *c = text; *c; c++)
                require((unsigned char)*c >= ' ' && *c != 0x7F);
}

static void check(const Hotcell__Egress__V1__ToServer *message)
{
        struct egress_enforced enforced;

        switch ((int)message->body_case) {
        case HOTCELL__EGRESS__V1__TO_SERVER__BODY_ENFORCED:
                require(!egress_check_enforced(message->enforced, &enforced) ||
                        enforced.n_program_ids <= EGRESS_PROGRAMS_MAX);
                break;
        case HOTCELL__EGRESS__V1__TO_SERVER__BODY_FAILURE:
                check_failure(message->failure);
                break;
        case HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS:
                for (size_t i = 0; i < message->events->n_events; i++)
                        check_event(message->events->events[i]);
                break;
        default:
                break;
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        static struct wire_arena arena;
        const Hotcell__Egress__V1__ToServer *message;

        if (!arena.bytes)
                require(wire_arena_init(&arena, ARENA_MAX) == 0);
        wire_arena_reset(&arena);
        message = hotcell__egress__v1__to_server__unpack(&arena.allocator, size, data);
        if (message)
                check(message);
        return 0;
}
