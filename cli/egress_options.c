/* `[PROTOCOL:]HOST[:PORTS]`: only its parts are told apart here; what they may be, the server says.
 */
#include "cli/egress_options.h"

#include <stdlib.h>
#include <string.h>

#include "hotcell/v1/egress.pb-c.h"

#include "cli/egress_slip.h"
#include "cli/enum_name.h"
#include "cli/exit_code.h"
#include "cli/field_flag.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/say.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

#define HOST "[PROTOCOL:]HOST[:PORTS]"

struct option_group egress_options_group(struct egress_options *options)
{
        /* In the order of the enum. */
        static const char *const defaults[] = { "", "deny", "allow-public", NULL };
        static const struct option_row rows[] = {
                { 0, "allow", OPTION_TEXTS, offsetof(struct egress_options, allow), HOST,
                  "let TCP to it through, such as example.org:443, *.example.org, "
                  "93.184.216.0/24 or [2606:2800:220::/48]:443,8000-8080; every port unless "
                  "given; in direct mode also UDP and ping to addresses, such as "
                  "udp:93.184.216.0/24:53 or icmp:2606:2800:220::/48; may be repeated",
                  NULL, 0 },
                { 0, "deny", OPTION_TEXTS, offsetof(struct egress_options, deny), HOST,
                  "never let it through: a deny beats every allow; a name is then not resolved, "
                  "its addresses stay as they are; with ports it is, and these are refused at its "
                  "addresses; may be repeated",
                  NULL, 0 },
                { 0, "dns-type", OPTION_TEXTS, offsetof(struct egress_options, dns_types), "TYPE",
                  "let DNS records of this type be asked for, besides A and AAAA, under all names "
                  "that are let through, such as MX or SRV; TXT and NULL above all are a way for "
                  "data out and in, by whoever serves such a name; may be repeated",
                  NULL, 0 },
                { 0, "egress-default", OPTION_CHOICE,
                  offsetof(struct egress_options, default_action), "deny|allow-public",
                  "for all other hosts; deny unless given. Only rules let UDP and ping through. Never let through, whatever is allowed, unless the operator opens "
                  "it: private, link-local and documentation addresses, the host's own, multicast "
                  "and the metadata of clouds",
                  defaults, 0 },
        };

        return (struct option_group)OPTION_GROUP("What may leave it (nothing unless given)", rows,
                                                 options);
}

/* --- one rule --- */

/* What is before the host, if it is a protocol: a host of that name takes `tcp:` before it. */
static const char *skip_protocol(const char *text, Hotcell__V1__EgressProtocol *ret_protocol)
{
        static const struct {
                const char *prefix;
                Hotcell__V1__EgressProtocol protocol;
        } protocols[] = {
                { "tcp:", HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_TCP },
                { "udp:", HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_UDP },
                { "icmp:", HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_ICMP },
        };

        for (size_t i = 0; i < ARRAY_SIZE(protocols); i++) {
                size_t n = strlen(protocols[i].prefix);

                if (strncmp(text, protocols[i].prefix, n) == 0) {
                        *ret_protocol = protocols[i].protocol;
                        return text + n;
                }
        }
        return text;
}

/* @text is written to: its host is cut off. *@ret_ports: what is behind a colon; NULL: none. */
static bool split(char *text, char **ret_host, char **ret_ports)
{
        char *colon = strchr(text, ':');
        char *end;

        *ret_host = text;
        *ret_ports = NULL;
        if (*text == '[') {
                *ret_host = text + 1;
                end = strchr(text, ']');
                if (!end || (end[1] && end[1] != ':'))
                        return false;
                *ret_ports = end[1] ? end + 2 : NULL;
                *end = '\0';
        } else if (colon && !strchr(colon + 1, ':')) { /* with more of them it is IPv6 */
                *ret_ports = colon + 1;
                *colon = '\0';
        }
        return **ret_host != '\0';
}

static bool is_cidr(const char *host)
{
        return strpbrk(host, "/:") || host[strspn(host, "0123456789.")] == '\0';
}

/* `443` or `8000-8080`. */
static bool read_range(char *text, Hotcell__V1__EgressPorts *range)
{
        char *dash = strchr(text, '-');
        uint64_t first, last = 0;

        if (dash)
                *dash = '\0';
        if (!text_to_uint64(text, UINT16_MAX, &first) || first == 0 ||
            (dash && (!text_to_uint64(dash + 1, UINT16_MAX, &last) || last < first)))
                return false;
        range->first = (int32_t)first;
        range->last = (int32_t)last;
        return true;
}

static bool read_ports(char *text, Hotcell__V1__EgressRule *rule)
{
        char *range;

        while ((range = strsep(&text, ","))) {
                rule->ports = reallocate(rule->ports, rule->n_ports + 1, sizeof(void *));
                rule->ports[rule->n_ports] = message_new(&hotcell__v1__egress_ports__descriptor);
                if (!read_range(range, rule->ports[rule->n_ports++]))
                        return false;
        }
        return true;
}

static bool read_rule(const char *text, Hotcell__V1__EgressRule *rule)
{
        _cleanup_(freep) char *copy = duplicate(skip_protocol(text, &rule->protocol));
        char *host, *ports;

        if (!split(copy, &host, &ports) || (ports && !read_ports(ports, rule)))
                return false;
        if (is_cidr(host)) {
                rule->destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_CIDR;
                rule->cidr = duplicate(host);
        } else {
                rule->destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_DOMAIN;
                rule->domain = duplicate(host);
        }
        return true;
}

/* --- all of them --- */

static char *slip_of(const char *option, const char *text)
{
        Hotcell__V1__EgressProtocol protocol;

        return egress_slip(text, (size_t)(skip_protocol(text, &protocol) - text),
                           strcmp(option, "deny") == 0);
}

static void say_what_is_wrong(const char *command, const char *option, const char *text)
{
        _cleanup_(freep) char *slip = slip_of(option, text);

        if (slip)
                say_of(command, "--%s '%s' %s", option, text, slip);
        else
                say_of(command,
                       "--%s takes " HOST ", such as example.org:443, udp:93.184.216.34:53 or "
                       "[2606:2800:220::/48]:443,8000-8080, with ports from 1 to 65535, not '%s'",
                       option, text);
}

static int add_rules(const char *command, const char *option, const struct option_texts *texts,
                     Hotcell__V1__EgressAction action, Hotcell__V1__EgressPolicy *policy)
{
        for (size_t i = 0; i < texts->n; i++) {
                Hotcell__V1__EgressRule *rule = message_new(&hotcell__v1__egress_rule__descriptor);
                _cleanup_(freep) char *slip = slip_of(option, texts->items[i]);

                rule->action = action;
                policy->rules = reallocate(policy->rules, policy->n_rules + 1, sizeof(void *));
                policy->rules[policy->n_rules++] = rule;
                if (slip || !read_rule(texts->items[i], rule)) {
                        say_what_is_wrong(command, option, texts->items[i]);
                        return EXIT_OURS;
                }
        }
        return 0;
}

/* The names of values that follow one another from 1. */
static char *type_names(void)
{
        const ProtobufCEnumDescriptor *types = &hotcell__v1__egress_record_type__descriptor;
        char *names = duplicate(enum_name(types, 1));

        for (unsigned i = 2; i < types->n_values; i++) {
                char *longer = format_text("%s, %s", names, enum_name(types, (int)i));

                free(names);
                names = longer;
        }
        return names;
}

static bool has_type(const Hotcell__V1__EgressPolicy *policy, int type)
{
        for (size_t i = 0; i < policy->n_record_types; i++)
                if ((int)policy->record_types[i] == type)
                        return true;
        return false;
}

static int add_types(const char *command, const struct option_texts *texts,
                     Hotcell__V1__EgressPolicy *policy)
{
        for (size_t i = 0; i < texts->n; i++) {
                int type =
                        enum_value(&hotcell__v1__egress_record_type__descriptor, texts->items[i]);

                if (type < 0) {
                        _cleanup_(freep) char *known = type_names();

                        say_of(command, "--dns-type takes one of %s, not '%s'", known,
                               texts->items[i]);
                        return EXIT_OURS;
                }
                if (has_type(policy, type))
                        continue;
                policy->record_types = reallocate(policy->record_types, policy->n_record_types + 1,
                                                  sizeof(*policy->record_types));
                policy->record_types[policy->n_record_types++] =
                        (Hotcell__V1__EgressRecordType)type;
        }
        return 0;
}

/* For what the server says of them; in the order of the policy. */
static void remember_texts(const struct egress_options *options)
{
        const struct option_texts *lists[] = { &options->allow, &options->deny };
        char **texts = allocate(options->allow.n + options->deny.n + 1, sizeof(*texts));
        size_t n = 0;

        for (size_t i = 0; i < ARRAY_SIZE(lists); i++)
                for (size_t j = 0; j < lists[i]->n; j++)
                        texts[n++] = format_text("--%s '%s'", i == 0 ? "allow" : "deny",
                                                 lists[i]->items[j]);
        field_flag_set_rules(texts, n);
}

int egress_options_message(const char *command, const struct egress_options *options,
                           Hotcell__V1__EgressPolicy **ret_policy)
{
        _cleanup_(message_freep) Hotcell__V1__EgressPolicy *policy = NULL;
        int r;

        *ret_policy = NULL;
        if (!options->allow.n && !options->deny.n && !options->dns_types.n &&
            !options->default_action)
                return 0;
        policy = message_new(&hotcell__v1__egress_policy__descriptor);
        policy->default_action = (Hotcell__V1__EgressDefaultAction)options->default_action;
        r = add_rules(command, "allow", &options->allow,
                      HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_ALLOW, policy);
        if (r == 0)
                r = add_rules(command, "deny", &options->deny,
                              HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_DENY, policy);
        if (r == 0)
                r = add_types(command, &options->dns_types, policy);
        if (r == 0) {
                remember_texts(options);
                *ret_policy = take(policy);
        }
        return r;
}
