#include "cli/print_egress.h"

#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "hotcell/v1/egress.pb-c.h"

#include "cli/memory.h"

enum { DNS_PORT = 53 };

static const char *protocol_word(const Hotcell__V1__EgressEvent *event)
{
        switch ((int)event->protocol) {
        case HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_TCP:
                return "tcp";
        case HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_UDP:
                return "udp";
        case HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_ICMP:
                return "icmp";
        default:
                return "ip";
        }
}

/* What the resolver says. Of UDP that a program sent the wall alone tells, and it knows why. */
static bool is_lookup(const Hotcell__V1__EgressEvent *event)
{
        bool is_dns = (int)event->protocol == HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_UDP &&
                      event->port == DNS_PORT;

        if (!*event->address)
                return *event->name || is_dns;
        /* A name whose addresses no rule can allow: the address is one of these. */
        return is_dns && *event->name &&
               (int)event->reason == HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_ALWAYS_DENIED;
}

char *egress_destination(const Hotcell__V1__EgressEvent *event)
{
        bool is_v6 = strchr(event->address, ':') != NULL;
        const char *protocol = protocol_word(event);

        if (is_lookup(event))
                return duplicate("dns");
        if (!*event->address)
                return duplicate(protocol);
        if (event->port == 0)
                return format_text("%s %s", protocol, event->address);
        return format_text(is_v6 ? "%s [%s]:%d" : "%s %s:%d", protocol, event->address,
                           event->port);
}

static const char *reason_text(const Hotcell__V1__EgressEvent *event)
{
        switch ((int)event->reason) {
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_UNSPECIFIED:
                return "";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_DEFAULT:
                return "no rule allows it";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_ALWAYS_DENIED:
                return "no rule can allow it";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_NAME_MISMATCH:
                return "it is not allowed under this name";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_NAME_ABSENT:
                return "the program named no host";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_RESOLVER:
                return "the policy does not allow the name";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_PROTOCOL:
                return "the network does not carry this protocol";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_LIMIT:
                return "a limit was reached";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_UNAVAILABLE:
                return "it could not be judged";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_POLICY_CHANGED:
                return "the policy was changed";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_RECORD_TYPE:
                return "the policy does not let records of this type be asked for";
        case HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_MALFORMED:
                return "the question is malformed";
        default:
                return "for a reason that this client does not know";
        }
}

/* Of what asks the host's name servers: the error is ours, no name server said it. */
static const char *lookup_error_text(const char *error)
{
        if (strcmp(error, "EREMOTEIO") == 0)
                return "the name server failed or cannot be reached";
        if (strcmp(error, "ETIMEDOUT") == 0)
                return "no name server answered";
        return error;
}

char *egress_reason(const Hotcell__V1__EgressEvent *event)
{
        if (*event->error)
                return duplicate(is_lookup(event) ? lookup_error_text(event->error) : event->error);
        if ((int)event->reason == HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_RULE && *event->rule)
                return format_text("rule %d of policy version %" PRId64 ": %s", event->rule_index,
                                   event->policy_version, event->rule);
        if ((int)event->reason == HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_RULE &&
            event->rule_index < 0)
                return format_text("several rules of policy version %" PRId64 " deny it",
                                   event->policy_version);
        if ((int)event->reason == HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_RULE)
                return format_text("rule %d of policy version %" PRId64 " denies it",
                                   event->rule_index, event->policy_version);
        if (is_lookup(event) && *event->address)
                return format_text("it is %s, which no rule can allow", event->address);
        return duplicate(reason_text(event));
}

/* `, 12 times` and `; 3 others are left out`. */
static char *counts(const Hotcell__V1__EgressEvent *event)
{
        char *text =
                event->count > 1 ? format_text(", %" PRId64 " times", event->count) : duplicate("");
        char *longer;

        if (event->left_out == 0)
                return text;
        longer = format_text("%s; %" PRId64 " before it are only in `hotcell egress log`", text,
                             event->left_out);
        free(text);
        return longer;
}

bool egress_is_told(const Hotcell__V1__EgressEvent *event)
{
        switch ((int)event->type) {
        case HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_DENIED:
        case HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FAILED:
                return true;
        case HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FLOW_ENDED:
                return event->reason == HOTCELL__V1__EGRESS_REASON__EGRESS_REASON_POLICY_CHANGED;
        default:
                return false;
        }
}

/* Of flows an execution is told of those alone that a new policy cut. */
static const char *decision_word(const Hotcell__V1__EgressEvent *event)
{
        switch ((int)event->type) {
        case HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FAILED:
                return "failed";
        case HOTCELL__V1__EGRESS_EVENT_TYPE__EGRESS_EVENT_TYPE_FLOW_ENDED:
                return "cut";
        default:
                return "denied";
        }
}

char *egress_sentence(const Hotcell__V1__EgressEvent *event)
{
        _cleanup_(freep) char *destination = egress_destination(event);
        _cleanup_(freep) char *times = counts(event);
        _cleanup_(freep) char *reason = egress_reason(event);
        bool has_reason = *reason != '\0';

        return format_text("egress %s: %s%s%s%s%s%s%s", decision_word(event), destination,
                           *event->name ? " " : "", event->name, has_reason ? " (" : "", reason,
                           has_reason ? ")" : "", times);
}
