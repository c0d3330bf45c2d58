#include "server/session/egress_check.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/policy/policy.h"

enum {
        PORT_MAX = 65535,
        PROTOCOL_MAX = 65535,
        ERROR_NUMBER_MAX = 4095, /* the kernel's MAX_ERRNO */
        CLOCK_SLACK_USEC = 60 * 1000 * 1000,
};

#define SOURCE(name)   HOTCELL__EGRESS__V1__SOURCE__SOURCE_##name
#define DECISION(name) HOTCELL__EGRESS__V1__DECISION__DECISION_##name
#define REASON(name)   HOTCELL__EGRESS__V1__REASON__REASON_##name

/* Enums are looked up here and not switched over: what comes need not be one of them. */
static const enum egress_event_type types[] = {
        [DECISION(DENIED)] = EGRESS_EVENT_DENIED,
        [DECISION(FAILED)] = EGRESS_EVENT_FAILED,
        [DECISION(FLOW_ENDED)] = EGRESS_EVENT_FLOW_ENDED,
};

static const enum egress_reason reasons[] = {
        [REASON(UNSPECIFIED)] = EGRESS_REASON_NONE,
        [REASON(DEFAULT)] = EGRESS_REASON_DEFAULT,
        [REASON(RULE)] = EGRESS_REASON_RULE,
        [REASON(ALWAYS_DENIED)] = EGRESS_REASON_ALWAYS_DENIED,
        [REASON(PROTOCOL)] = EGRESS_REASON_PROTOCOL,
        [REASON(NAME_MISMATCH)] = EGRESS_REASON_NAME_MISMATCH,
        [REASON(RECORD_TYPE)] = EGRESS_REASON_RECORD_TYPE,
        [REASON(RATE)] = EGRESS_REASON_LIMIT,
        [REASON(REBINDING)] = EGRESS_REASON_ALWAYS_DENIED,
        [REASON(POLICY_CHANGED)] = EGRESS_REASON_POLICY_CHANGED,
        [REASON(FORGED)] = EGRESS_REASON_UNAVAILABLE,
        [REASON(OVERWRITTEN)] = EGRESS_REASON_LIMIT,
        [REASON(TORN)] = EGRESS_REASON_LIMIT,
        [REASON(MALFORMED)] = EGRESS_REASON_MALFORMED,
        [REASON(NAME_ABSENT)] = EGRESS_REASON_NAME_ABSENT,
        [REASON(UNAVAILABLE)] = EGRESS_REASON_UNAVAILABLE,
};

static bool take_kind(const Hotcell__Egress__V1__Event *message, struct egress_record *record)
{
        unsigned decision = (unsigned)message->decision, reason = (unsigned)message->reason;
        unsigned source = (unsigned)message->source;

        if (decision == 0 || decision >= ARRAY_SIZE(types) || reason >= ARRAY_SIZE(reasons) ||
            source == 0 || source > SOURCE(RESOLVER))
                return false;
        record->type = types[decision];
        record->reason = reasons[reason];
        record->source = (enum egress_decider)source;
        /* To the resolver, that no rule allows it means that nothing is allowed under the name. */
        if (source == SOURCE(RESOLVER) && reason == REASON(DEFAULT))
                record->reason = EGRESS_REASON_RESOLVER;
        if (reason != REASON(RULE))
                return true;
        record->rule_index = message->rule == UINT32_MAX ? -1 : (int32_t)message->rule;
        return record->rule_index < POLICY_RULES_MAX && record->rule_index >= -1;
}

static enum egress_protocol protocol_of(uint32_t number)
{
        switch (number) {
        case IPPROTO_TCP:
                return EGRESS_PROTOCOL_TCP;
        case IPPROTO_UDP:
                return EGRESS_PROTOCOL_UDP;
        case IPPROTO_ICMP:
        case IPPROTO_ICMPV6:
                return EGRESS_PROTOCOL_ICMP;
        default:
                return EGRESS_PROTOCOL_OTHER;
        }
}

static bool take_destination(const Hotcell__Egress__V1__Event *message,
                             struct egress_record *record)
{
        const ProtobufCBinaryData *address = &message->address;

        if (message->port > PORT_MAX || message->protocol > PROTOCOL_MAX)
                return false;
        record->port = (int32_t)message->port;
        record->protocol = protocol_of(message->protocol);
        if (address->len == 0)
                return true;
        if (address->len != sizeof(struct in_addr) && address->len != sizeof(struct in6_addr))
                return false;
        return inet_ntop(address->len == sizeof(struct in_addr) ? AF_INET : AF_INET6, address->data,
                         record->address, sizeof(record->address));
}

/* Cut between characters, and with `?` for what is no UTF-8. */
static void take_text(const char *text, char *ret_text, size_t size)
{
        size_t n = strnlen(text, size);

        if (n == size)
                for (n = size - 1; n > 0 && ((unsigned char)text[n] & 0xC0) == 0x80;)
                        n--;
        (void)snprintf(ret_text, size, "%.*s", (int)n, text);
        if (text_is_utf8(ret_text, n))
                return;
        for (; *ret_text; ret_text++)
                if ((unsigned char)*ret_text >= 0x80)
                        *ret_text = '?';
}

/* What tells events of a source apart: of the wall's the serial, which may be of another count than
 * the number of all events. */
static bool take_serial(const Hotcell__Egress__V1__Event *message, struct egress_record *record)
{
        uint64_t serial = record->source == EGRESS_DECIDER_WALL ? message->serial : message->number;

        record->serial = (int64_t)serial;
        return serial > 0 && serial <= INT64_MAX;
}

static bool take_numbers(const Hotcell__Egress__V1__Event *message, struct egress_record *record)
{
        if (message->policy_version < 0 || message->error_number < 0 ||
            message->error_number > ERROR_NUMBER_MAX || message->sent_bytes > INT64_MAX ||
            message->received_bytes > INT64_MAX || message->duration_usec < 0)
                return false;
        record->policy_version = message->policy_version;
        record->error_number = message->error_number;
        record->sent_bytes = (int64_t)message->sent_bytes;
        record->received_bytes = (int64_t)message->received_bytes;
        record->duration_usec = message->duration_usec;
        record->pid = message->pid;
        record->count = MAX(message->count, 1U);
        return true;
}

bool egress_check_event(const Hotcell__Egress__V1__Event *message, int64_t now_usec,
                        struct egress_event *ret_event)
{
        struct egress_event event = {
                .number = message->number,
                .cgroup_id = message->cgroup_id,
                .leaf_cgroup_id = message->leaf_cgroup_id,
        };
        struct egress_record *record = &event.record;

        if (message->number == 0 || message->cgroup_id == 0 || !take_kind(message, record) ||
            !take_serial(message, record) || !take_destination(message, record) ||
            !take_numbers(message, record))
                return false;
        take_text(message->name, record->name, sizeof(record->name));
        take_text(message->command, record->command, sizeof(record->command));
        record->event_time_usec = message->time_usec;
        if (message->time_usec <= 0 || message->time_usec > now_usec + CLOCK_SLACK_USEC)
                record->event_time_usec = now_usec;
        event.asked_time_usec = record->event_time_usec;
        if (message->asked_time_usec > 0)
                event.asked_time_usec = MIN(message->asked_time_usec, record->event_time_usec);
        *ret_event = event;
        return true;
}

bool egress_check_enforced(const Hotcell__Egress__V1__Enforced *message,
                           struct egress_enforced *ret_enforced)
{
        if (message->policy_digest.len != sizeof(ret_enforced->sha256) ||
            message->n_program_ids > EGRESS_PROGRAMS_MAX)
                return false;
        memcpy(ret_enforced->sha256, message->policy_digest.data, sizeof(ret_enforced->sha256));
        for (size_t i = 0; i < message->n_program_ids; i++)
                ret_enforced->program_ids[i] = message->program_ids[i];
        ret_enforced->n_program_ids = message->n_program_ids;
        return true;
}

bool egress_check_count(const Hotcell__Egress__V1__Count *message,
                        struct egress_refusals *ret_refusals)
{
        if (message->cgroup_id == 0 || message->n_logged > INT64_MAX / 2 ||
            message->n_dropped > INT64_MAX / 2)
                return false;
        *ret_refusals = (struct egress_refusals){ .is_known = true,
                                                  .logged = (int64_t)message->n_logged,
                                                  .dropped = (int64_t)message->n_dropped };
        return true;
}

void egress_check_text(const char *text, char ret_text[static EGRESS_REASON_BUFFER])
{
        take_text(text, ret_text, EGRESS_REASON_BUFFER);
        for (; *ret_text; ret_text++)
                if ((unsigned char)*ret_text < ' ' || *ret_text == 0x7F)
                        *ret_text = ' ';
}
