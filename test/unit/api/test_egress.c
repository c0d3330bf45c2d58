/* Which egress policies are refused and where the mistake is said to be; what becomes of good ones
 * on their way in and out. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "hotcell/v1/sandbox_service.pb-c.h"
#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/check_egress.h"
#include "server/api/convert.h"
#include "server/api/decode.h"
#include "server/api/digest.h"
#include "server/api/rule_rate.h"
#include "test/lib/suite.h"

enum {
        ALLOW = HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_ALLOW,
        DENY = HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_DENY,
        UDP = HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_UDP,
        ICMP = HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_ICMP,
        ALLOW_PUBLIC = HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_ALLOW_PUBLIC,
        PORTS_MAX = 10,
};

/* A rule with room for all that it points at. */
struct rule {
        Hotcell__V1__EgressRule message;
        Hotcell__V1__EgressPorts ports[PORTS_MAX];
        Hotcell__V1__EgressPorts *pointers[PORTS_MAX];
};

static bool has_direct_mode; /* of the runtime */
static struct api api;
static struct api_call *call;
static Hotcell__V1__EgressPolicy policy;
static struct rule *rules;
static Hotcell__V1__EgressRule **pointers;

bool __wrap_session_has_direct_mode(const struct session *session);

bool __wrap_session_has_direct_mode(const struct session *session)
{
        (void)session;
        return has_direct_mode;
}

static void set_up(void)
{
        call = calloc(1, sizeof(*call));
        ck_assert_ptr_nonnull(call);
        call->api = &api;
        call->n_holders = 1;
        has_direct_mode = false;
        hotcell__v1__egress_policy__init(&policy);
}

static void tear_down(void)
{
        api_call_release(call);
        free(rules);
        free(pointers);
}

static void make_rules(size_t n)
{
        rules = calloc(n, sizeof(*rules));
        pointers = calloc(n, sizeof(void *));
        for (size_t i = 0; i < n; i++) {
                hotcell__v1__egress_rule__init(&rules[i].message);
                rules[i].message.ports = rules[i].pointers;
                pointers[i] = &rules[i].message;
        }
        policy.rules = pointers;
        policy.n_rules = n;
}

static void set_cidr(struct rule *rule, int action, const char *cidr)
{
        rule->message.action = (Hotcell__V1__EgressAction)action;
        rule->message.destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_CIDR;
        rule->message.cidr = unconst(cidr);
}

static void set_domain(struct rule *rule, int action, const char *domain)
{
        rule->message.action = (Hotcell__V1__EgressAction)action;
        rule->message.destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_DOMAIN;
        rule->message.domain = unconst(domain);
}

static void add_ports(struct rule *rule, int32_t first, int32_t last)
{
        size_t n = rule->message.n_ports++;

        hotcell__v1__egress_ports__init(&rule->ports[n]);
        rule->ports[n].first = first;
        rule->ports[n].last = last;
        rule->pointers[n] = &rule->ports[n];
}

static void expect_blame(const char *path, enum reason reason, const char *text)
{
        ck_assert(!check_egress(call, "spec.egress", &policy));
        ck_assert_uint_ge(call->status.n_fields, 1);
        ck_assert_str_eq(call->status.fields[0].path, path);
        ck_assert_int_eq(call->status.reason, reason);
        ck_assert_msg(strstr(call->status.fields[0].description, text), "'%s' in: %s", text,
                      call->status.fields[0].description);
        ck_assert_ptr_null(call->egress);
        ck_assert(!call->arena.failed);
}

/* --- refusals --- */

static const struct {
        int action;
        const char *cidr;
        const char *domain;
        int protocol;
        const char *path; /* below that of the rule */
        enum reason reason;
        const char *text;
} bad_rules[] = {
        { 0, "10.0.0.0/8", NULL, 0, ".action", REASON_INVALID_FIELD, "ALLOW or DENY" },
        { 3, "10.0.0.0/8", NULL, 0, ".action", REASON_INVALID_FIELD, "ALLOW or DENY" },
        { -1, "10.0.0.0/8", NULL, 0, ".action", REASON_INVALID_FIELD, "ALLOW or DENY" },
        { ALLOW, NULL, NULL, 0, "", REASON_INVALID_FIELD, "cidr or domain" },
        { ALLOW, "10.0.0.0/8", NULL, UDP, ".protocol", REASON_NEEDS_DIRECT_MODE, "direct mode" },
        { ALLOW, "10.0.0.0/8", NULL, ICMP, ".protocol", REASON_NEEDS_DIRECT_MODE, "direct mode" },
        { ALLOW, "10.0.0.0/8", NULL, 4, ".protocol", REASON_INVALID_FIELD, "protocol" },
        { ALLOW, "10.0.0.0/8", NULL, -1, ".protocol", REASON_INVALID_FIELD, "protocol" },
        { ALLOW, "", NULL, 0, ".cidr", REASON_INVALID_FIELD, "'' is not" },
        { ALLOW, "example.org", NULL, 0, ".cidr", REASON_INVALID_FIELD, "'example.org' is not" },
        { ALLOW, "10.0.0.0/33", NULL, 0, ".cidr", REASON_INVALID_FIELD, "93.184.216.0/24" },
        { ALLOW, "10.0.0.0/8 ", NULL, 0, ".cidr", REASON_INVALID_FIELD, "93.184.216.0/24" },
        { ALLOW, "10.0.0.1/8", NULL, 0, ".cidr", REASON_INVALID_FIELD, "'10.0.0.1/8' has bits" },
        { ALLOW, "::ffff:1.2.3.4", NULL, 0, ".cidr", REASON_INVALID_FIELD, "write it as IPv4" },
        { ALLOW, NULL, "", 0, ".domain", REASON_INVALID_FIELD, "example.org" },
        { ALLOW, NULL, "10.0.0.1", 0, ".domain", REASON_INVALID_FIELD, "cidr instead" },
        { ALLOW, NULL, "a.*.example.org", 0, ".domain", REASON_INVALID_FIELD, "first label" },
        { ALLOW, NULL,
          "https:"
          "//example.org",
          0, ".domain", REASON_INVALID_FIELD, "scheme" },
        { ALLOW, NULL, "\xe2\x80\x8b.example", 0, ".domain", REASON_INVALID_FIELD, "'" },
};

static const struct {
        bool has_direct_mode;
        bool has_ports;
        const char *domain;
        int protocol;
        const char *path; /* NULL: it is good */
        enum reason reason;
} protocols[] = {
        { true, true, NULL, UDP, NULL, 0 },
        { true, false, NULL, UDP, NULL, 0 },
        { true, false, NULL, ICMP, NULL, 0 },
        { true, true, NULL, ICMP, ".ports", REASON_INVALID_FIELD },
        { true, true, "example.org", UDP, ".protocol", REASON_INVALID_FIELD },
        { true, false, "example.org", ICMP, ".protocol", REASON_INVALID_FIELD },
        { false, true, NULL, UDP, ".protocol", REASON_NEEDS_DIRECT_MODE },
        { false, true, NULL, ICMP, ".protocol", REASON_NEEDS_DIRECT_MODE },
        { false, true, "example.org", UDP, ".protocol", REASON_NEEDS_DIRECT_MODE },
};

START_TEST(udp_and_icmp_go_by_address_in_direct_mode)
{
        char path[64];

        has_direct_mode = protocols[_i].has_direct_mode;
        make_rules(1);
        if (protocols[_i].domain)
                set_domain(&rules[0], ALLOW, protocols[_i].domain);
        else
                set_cidr(&rules[0], ALLOW, "192.0.2.0/24");
        rules[0].message.protocol = (Hotcell__V1__EgressProtocol)protocols[_i].protocol;
        if (protocols[_i].has_ports)
                add_ports(&rules[0], 53, 0);
        if (!protocols[_i].path) {
                ck_assert(check_egress(call, "spec.egress", &policy));
                return;
        }
        (void)snprintf(path, sizeof(path), "spec.egress.rules[0]%s", protocols[_i].path);
        expect_blame(path, protocols[_i].reason, "");
        ck_assert_uint_eq(call->status.n_fields, 1);
}
END_TEST

START_TEST(a_bad_rule_is_refused_with_its_path)
{
        char path[64];

        (void)snprintf(path, sizeof(path), "spec.egress.rules[1]%s", bad_rules[_i].path);
        make_rules(2);
        set_cidr(&rules[0], DENY, "192.0.2.0/24");
        rules[1].message.action = (Hotcell__V1__EgressAction)bad_rules[_i].action;
        rules[1].message.protocol = (Hotcell__V1__EgressProtocol)bad_rules[_i].protocol;
        if (bad_rules[_i].cidr)
                set_cidr(&rules[1], bad_rules[_i].action, bad_rules[_i].cidr);
        if (bad_rules[_i].domain)
                set_domain(&rules[1], bad_rules[_i].action, bad_rules[_i].domain);
        expect_blame(path, bad_rules[_i].reason, bad_rules[_i].text);
        ck_assert_uint_eq(call->status.n_fields, 1);
}
END_TEST

static const struct {
        int32_t first, last;
        const char *path;
        const char *text;
} bad_ports[] = {
        { 0, 0, ".ports[1].first", "is 0" },
        { 0, 80, ".ports[1].first", "is 0" },
        { -1, 0, ".ports[1].first", "1 to 65535" },
        { 65536, 0, ".ports[1].first", "1 to 65535" },
        { 80, 65536, ".ports[1].last", "1 to 65535" },
        { 80, -1, ".ports[1].last", "1 to 65535" },
        { 80, 79, ".ports[1]", "swap" },
};

START_TEST(bad_ports_are_refused_with_their_path)
{
        char path[64];

        (void)snprintf(path, sizeof(path), "spec.egress.rules[0]%s", bad_ports[_i].path);
        make_rules(1);
        set_cidr(&rules[0], ALLOW, "10.0.0.0/8");
        add_ports(&rules[0], 443, 0);
        add_ports(&rules[0], bad_ports[_i].first, bad_ports[_i].last);
        expect_blame(path, REASON_INVALID_FIELD, bad_ports[_i].text);
}
END_TEST

START_TEST(more_ranges_than_there_is_room_for_are_too_complex)
{
        make_rules(1);
        set_cidr(&rules[0], ALLOW, "10.0.0.0/8");
        for (int32_t port = 1; port <= 9; port++)
                add_ports(&rules[0], port * 100, 0);
        expect_blame("spec.egress.rules[0].ports", REASON_RULE_TOO_COMPLEX, "8 ranges");
}
END_TEST

START_TEST(rules_that_are_too_much_together_are_too_complex)
{
        make_rules(9);
        for (int32_t i = 0; i < 9; i++) {
                set_cidr(&rules[i], ALLOW, "10.0.0.0/8");
                add_ports(&rules[i], i * 100 + 1, 0);
        }
        ck_assert(!check_egress(call, "egress", &policy));
        ck_assert_int_eq(call->status.reason, REASON_RULE_TOO_COMPLEX);
        ck_assert_int_eq(strncmp(call->status.fields[0].path, "egress.rules[", 13), 0);
        policy.n_rules = 8;
        call->status.n_fields = 0;
        ck_assert(check_egress(call, "egress", &policy));
}
END_TEST

START_TEST(an_unknown_default_is_refused)
{
        policy.default_action = (Hotcell__V1__EgressDefaultAction)3;
        expect_blame("spec.egress.default_action", REASON_INVALID_FIELD, "ALLOW_PUBLIC");
}
END_TEST

/* To leave out what a newer client says could let more through than it means. */
START_TEST(fields_that_are_not_known_are_refused)
{
        ProtobufCMessageUnknownField unknown = { .tag = 77 };
        ProtobufCMessage *messages[3];
        static const char *const paths[] = { "spec.egress", "spec.egress.rules[0]",
                                             "spec.egress.rules[0].ports[0]" };

        make_rules(1);
        set_cidr(&rules[0], ALLOW, "10.0.0.0/8");
        add_ports(&rules[0], 443, 0);
        messages[0] = &policy.base;
        messages[1] = &rules[0].message.base;
        messages[2] = &rules[0].ports[0].base;
        for (size_t i = 0; i < ARRAY_SIZE(messages); i++) {
                messages[i]->n_unknown_fields = 1;
                messages[i]->unknown_fields = &unknown;
                expect_blame(paths[i], REASON_INVALID_FIELD, "field 77");
                messages[i]->n_unknown_fields = 0;
                call->status.n_fields = 0;
        }
        ck_assert(check_egress(call, "spec.egress", &policy));
}
END_TEST

START_TEST(there_are_at_most_ten_thousand_rules)
{
        make_rules(10001);
        expect_blame("spec.egress.rules", REASON_LIMIT_OUT_OF_RANGE, "10000");
        ck_assert_uint_eq(call->status.n_fields, 1);
}
END_TEST

START_TEST(only_as_many_mistakes_are_looked_for_as_can_be_told)
{
        make_rules(10000);
        for (size_t i = STATUS_FIELDS_MAX; i < policy.n_rules; i++)
                pointers[i] = NULL; /* nobody looks */
        expect_blame("spec.egress.rules[0].action", REASON_INVALID_FIELD, "ALLOW or DENY");
        ck_assert_uint_eq(call->status.n_fields, STATUS_FIELDS_MAX);
        ck_assert_str_eq(call->status.fields[7].path, "spec.egress.rules[3]");
}
END_TEST

static char *long_name(size_t i)
{
        char *name = malloc(300);

        (void)snprintf(name, 300, "%06zu%057d.%063d.%063d.%061d", i, 0, 0, 0, 0);
        for (char *c = name + 6; (c = strchr(c, '0'));)
                *c = 'a';
        ck_assert_uint_eq(strlen(name), 253);
        return name;
}

/* Of soft hyphens nothing is left when a name is converted. */
static char *soft_name(size_t i)
{
        static const char last[] = ".example.org";
        char *name = malloc(1000), *end = name;

        end += snprintf(name, 10, "a%06zu", i);
        for (size_t n = 0; n < 480; n++)
                end = mempcpy(end, "\xc2\xad", 2);
        memcpy(end, last, sizeof(last));
        return name;
}

START_TEST(rules_are_bounded_in_bytes_too)
{
        make_rules(10000);
        for (size_t i = 0; i < 10000; i++) {
                set_domain(&rules[i], ALLOW, long_name(i));
                for (int32_t port = 0; port < 8; port++)
                        add_ports(&rules[i], 50000 + port * 100, 50050 + port * 100);
        }
        /* As many as there may be, of the longest kind: they pass. */
        ck_assert(check_egress(call, "spec.egress", &policy));
        ck_assert_uint_gt(call->egress->n_bytes, 3500000);
        ck_assert_uint_le(call->egress->n_bytes, EGRESS_BYTES_MAX);
        for (size_t i = 0; i < 10000; i++)
                free(rules[i].message.domain);
        for (size_t i = 0; i < 10000; i++)
                rules[i].message.domain = i < EGRESS_CONVERTED_MAX ? soft_name(i) : long_name(i);
        expect_blame("spec.egress.rules", REASON_LIMIT_OUT_OF_RANGE, "3.75 MiB");
        for (size_t i = 0; i < 10000; i++)
                free(rules[i].message.domain);
}
END_TEST

START_TEST(only_so_many_labels_are_converted)
{
        make_rules(EGRESS_CONVERTED_MAX + 3);
        for (size_t i = 0; i < policy.n_rules; i++)
                set_domain(&rules[i], ALLOW,
                           "b\xc3\xbc"
                           "cher.example");
        set_domain(&rules[2], ALLOW, "www.xn--bcher-kva.example");
        set_domain(&rules[3], ALLOW, "www.bucher.example");
        expect_blame("spec.egress.rules[1001].domain", REASON_LIMIT_OUT_OF_RANGE, "xn--");
        ck_assert_uint_eq(call->status.n_fields, 1);
        policy.n_rules = EGRESS_CONVERTED_MAX + 1;
        call->status.n_fields = 0;
        ck_assert(check_egress(call, "spec.egress", &policy));
}
END_TEST

/* Each label counts, also behind the dots of other scripts. */
START_TEST(all_labels_of_a_name_are_counted)
{
        static const char *const names[] = { "XN--BCHER-KVA.xn--bcher-kva.example",
                                             "b\xc3\xbc\xe3\x80\x82"
                                             "cher.example" };

        make_rules(EGRESS_CONVERTED_MAX / 2 + 2);
        for (size_t i = 0; i < policy.n_rules; i++)
                set_domain(&rules[i], ALLOW, names[_i]);
        expect_blame("spec.egress.rules[500].domain", REASON_LIMIT_OUT_OF_RANGE, "1,000 labels");
        ck_assert_uint_eq(call->status.n_fields, 1);
}
END_TEST

static void expect_rate(bool is_kept)
{
        call->status.n_fields = 0;
        ck_assert_int_eq(check_egress(call, "spec.egress", &policy), is_kept);
        if (is_kept)
                return;
        ck_assert_int_eq((int)call->status.reason, REASON_UPDATE_RATE);
        ck_assert_str_eq(call->status.quota_subject, call->identity.owner);
        ck_assert_uint_gt(call->status.retry_usec, 0);
        ck_assert_uint_le(call->status.retry_usec, UINT64_C(10000000));
}

/* Also of those that are refused. */
START_TEST(rules_come_at_a_rate_of_their_owner)
{
        (void)snprintf(call->identity.owner, sizeof(call->identity.owner), "key-one");
        make_rules(10000);
        for (size_t i = 0; i < policy.n_rules; i++)
                set_cidr(&rules[i], ALLOW, "93.184.216.34");
        for (size_t n = 0; n <= RULE_RATE_BURST; n += policy.n_rules)
                expect_rate(true);
        expect_rate(false);
        (void)snprintf(call->identity.owner, sizeof(call->identity.owner), "key-other");
        set_cidr(&rules[9999], ALLOW, "93.184.216.34/8");
        call->status.n_fields = 0;
        for (size_t n = 0; n <= RULE_RATE_BURST; n += policy.n_rules) {
                ck_assert(!check_egress(call, "spec.egress", &policy));
                ck_assert_int_eq((int)call->status.reason, REASON_INVALID_FIELD);
                call->status.n_fields = 0;
        }
        expect_rate(false);
        policy.n_rules = 0;
        expect_rate(true);
        policy.n_rules = 10000;
        set_cidr(&rules[9999], ALLOW, "93.184.216.34");
        (void)snprintf(call->identity.owner, sizeof(call->identity.owner), "uid:1000");
        for (size_t n = 0; n <= 2 * RULE_RATE_BURST; n += policy.n_rules)
                expect_rate(true);
}
END_TEST

/* --- types of records --- */

static const struct {
        int types[3];
        const char *path;
        const char *text;
} bad_types[] = {
        { { 0 }, ".record_types[0]", "no type of records" },
        { { 7, 0 }, ".record_types[1]", "no type of records" },
        { { 7, -1 }, ".record_types[1]", "no type of records" },
        { { 7, 14 }, ".record_types[1]", "no type of records" },
        { { 7, 257 }, ".record_types[1]", "no type of records" },
        { { 7, 6, 7 }, ".record_types[2]", "is there already" },
};

static void set_types(const int *types, size_t n)
{
        static Hotcell__V1__EgressRecordType copied[16];

        for (size_t i = 0; i < n; i++)
                copied[i] = (Hotcell__V1__EgressRecordType)types[i];
        policy.record_types = copied;
        policy.n_record_types = n;
}

START_TEST(a_bad_type_is_refused_with_its_path)
{
        const char *number = strchr(bad_types[_i].path, '[') + 1;
        char path[64];

        set_types(bad_types[_i].types, strtoul(number, NULL, 10) + 1);
        (void)snprintf(path, sizeof(path), "spec.egress%s", bad_types[_i].path);
        expect_blame(path, REASON_INVALID_FIELD, bad_types[_i].text);
        ck_assert_uint_eq(call->status.n_fields, 1);
}
END_TEST

/* --- what is good --- */

START_TEST(no_policy_and_an_empty_one_are_the_default)
{
        ck_assert(check_egress(call, "egress", NULL));
        ck_assert_ptr_null(call->egress);
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert_ptr_null(call->egress);
        policy.default_action = (Hotcell__V1__EgressDefaultAction)ALLOW_PUBLIC;
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert_ptr_nonnull(call->egress);
        ck_assert(call->egress->allows);
        ck_assert_uint_eq(call->egress->n_bytes, 0);
        /* The second check of a call counts. */
        ck_assert(check_egress(call, "egress", NULL));
        ck_assert_ptr_null(call->egress);
}
END_TEST

static void check_round_trip(void)
{
        struct arena arena = { 0 };
        Hotcell__V1__EgressPolicy *out;
        uint8_t *in_bytes, *out_bytes;
        size_t n;

        ck_assert(check_egress(call, "egress", &policy));
        out = convert_egress(&arena, call->egress);
        ck_assert(!arena.failed);
        n = hotcell__v1__egress_policy__get_packed_size(&policy);
        ck_assert_uint_eq(hotcell__v1__egress_policy__get_packed_size(out), n);
        in_bytes = malloc(n + 1);
        out_bytes = malloc(n + 1);
        (void)hotcell__v1__egress_policy__pack(&policy, in_bytes);
        (void)hotcell__v1__egress_policy__pack(out, out_bytes);
        ck_assert_mem_eq(in_bytes, out_bytes, n);
        free(in_bytes);
        free(out_bytes);
        arena_deinit(&arena);
}

START_TEST(types_in_any_order_mean_the_same)
{
        static const int types[] = { 7, 11, 3 }, others[] = { 3, 7, 11 };
        struct egress *first;

        policy.default_action = HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_DENY;
        make_rules(1);
        set_domain(&rules[0], ALLOW, "example.org");
        rules[0].message.protocol = HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_TCP;
        set_types(types, ARRAY_SIZE(types));
        ck_assert(check_egress(call, "egress", &policy));
        first = egress_hold(call->egress);
        set_types(others, ARRAY_SIZE(others));
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert(egress_is_same(first, call->egress));
        ck_assert_mem_eq(first->sha256, call->egress->sha256, 32);
        check_round_trip();
        set_types(others, 2);
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert(!egress_is_same(first, call->egress));
        ck_assert_mem_ne(first->sha256, call->egress->sha256, 32);
        (void)egress_release(first);
}
END_TEST

START_TEST(types_alone_are_a_policy_that_allows_nothing)
{
        static const int all[] = { 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13 };

        set_types(all, ARRAY_SIZE(all));
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert_ptr_nonnull(call->egress);
        ck_assert(!call->egress->allows);
}
END_TEST

START_TEST(a_policy_comes_back_as_it_was_given)
{
        make_rules(5);
        policy.default_action = (Hotcell__V1__EgressDefaultAction)ALLOW_PUBLIC;
        set_cidr(&rules[0], DENY, "2001:DB8:0:0::/32");
        set_cidr(&rules[1], ALLOW, "192.0.2.7");
        set_domain(&rules[2], ALLOW,
                   "*.B\xc3\xbc"
                   "cher.example.");
        set_domain(&rules[3], DENY, "example.org");
        set_cidr(&rules[4], DENY, "0.0.0.0/0");
        add_ports(&rules[1], 8080, 0);
        add_ports(&rules[1], 1, 65535);
        add_ports(&rules[2], 443, 0);
        for (size_t i = 0; i < 5; i++)
                rules[i].message.protocol = HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_TCP;
        check_round_trip();
        ck_assert(call->egress->allows);
        ck_assert_int_eq(call->egress->n_rules, 5);
}
END_TEST

START_TEST(rules_that_are_none_of_ours_are_not_shown_in_part)
{
        static const char bytes[] = "deny tcp - cidr 10.0.0.0/8\0deny";
        struct egress *egress = egress_new(sizeof(bytes));
        struct arena arena = { 0 };

        memcpy(egress->bytes, bytes, sizeof(bytes));
        egress->n_rules = 2;
        ck_assert_ptr_null(convert_egress(&arena, egress));
        ck_assert(!arena.failed);
        (void)egress_release(egress);
        arena_deinit(&arena);
}
END_TEST

START_TEST(ten_thousand_rules_come_back_as_they_were_given)
{
        int64_t start_usec = (int64_t)clock_monotonic_usec();

        make_rules(10000);
        policy.default_action = HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_DENY;
        for (size_t i = 0; i < 10000; i++) {
                char *cidr = malloc(32);

                (void)snprintf(cidr, 32, "10.%zu.%zu.0/24", i / 256, i % 256);
                set_cidr(&rules[i], DENY, cidr);
                rules[i].message.protocol = HOTCELL__V1__EGRESS_PROTOCOL__EGRESS_PROTOCOL_TCP;
                add_ports(&rules[i], 443, 0);
        }
        check_round_trip();
        ck_assert(!call->egress->allows);
        (void)fprintf(stderr, "# 10,000 rules in and out: %lld us, %zu bytes\n",
                      (long long)clock_monotonic_usec() - (long long)start_usec,
                      call->egress->n_bytes);
        for (size_t i = 0; i < 10000; i++)
                free(rules[i].message.cidr);
}
END_TEST

START_TEST(one_rule_that_allows_is_enough_to_allow_something)
{
        make_rules(3);
        set_cidr(&rules[0], DENY, "10.0.0.0/8");
        set_domain(&rules[1], DENY, "example.org");
        set_cidr(&rules[2], DENY, "192.0.2.7");
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert(!call->egress->allows);
        set_cidr(&rules[1], ALLOW, "192.0.2.7");
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert(call->egress->allows);
}
END_TEST

START_TEST(policies_that_mean_the_same_have_one_digest)
{
        uint8_t first[32];

        make_rules(2);
        set_cidr(&rules[0], DENY, "10.0.0.0/8");
        set_domain(&rules[1], DENY, "Example.org.");
        ck_assert(check_egress(call, "egress", &policy));
        memcpy(first, call->egress->sha256, 32);
        set_domain(&rules[0], DENY, "example.ORG");
        set_cidr(&rules[1], DENY, "10.0.0.0/8");
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert_mem_eq(call->egress->sha256, first, 32);
        set_cidr(&rules[1], ALLOW, "10.0.0.0/8");
        ck_assert(check_egress(call, "egress", &policy));
        ck_assert_mem_ne(call->egress->sha256, first, 32);
}
END_TEST

/* --- answers --- */

START_TEST(only_whole_answers_have_the_rules)
{
        struct sandbox_record record = { .state = SANDBOX_RUNNING, .egress_version = 3 };
        struct arena arena = { 0 };
        Hotcell__V1__Sandbox *message;

        make_rules(1);
        set_cidr(&rules[0], DENY, "10.0.0.0/8");
        ck_assert(check_egress(call, "egress", &policy));
        record.egress = call->egress;
        message = convert_sandbox(&arena, &record);
        ck_assert_ptr_null(message->egress);
        ck_assert_int_eq(message->egress_status->policy_version, 3);
        ck_assert_str_eq(message->egress_status->policy_digest, "");
        ck_assert(!message->egress_status->enforced);

        record.enforcement = (struct egress_enforcement){ .version = 3,
                                                          .program_ids = { 7, 9 },
                                                          .n_program_ids = 2 };
        message = convert_whole_sandbox(&arena, &record);
        ck_assert_uint_eq(message->egress->n_rules, 1);
        ck_assert(message->egress_status->enforced);
        ck_assert_uint_eq(message->egress_status->n_program_ids, 2);
        ck_assert_uint_eq(message->egress_status->program_ids[1], 9);
        ck_assert_int_eq(strncmp(message->egress_status->policy_digest, "sha256-", 7), 0);
        ck_assert_uint_eq(strlen(message->egress_status->policy_digest), 7 + 64);

        record.state = SANDBOX_ENDED;
        message = convert_whole_sandbox(&arena, &record);
        ck_assert_ptr_null(message->egress);
        ck_assert(!message->egress_status->enforced);
        ck_assert_uint_eq(strlen(message->egress_status->policy_digest), 7 + 64);
        arena_deinit(&arena);
}
END_TEST

/* What nobody proved is not said, also not of a policy that allows nothing. */
START_TEST(only_what_is_known_to_be_in_force_is_shown_as_enforced)
{
        struct sandbox_record record = { .state = SANDBOX_RUNNING, .egress_version = 2 };
        struct arena arena = { 0 };
        Hotcell__V1__Sandbox *message = convert_whole_sandbox(&arena, &record);

        ck_assert_int_eq(message->egress->default_action,
                         HOTCELL__V1__EGRESS_DEFAULT_ACTION__EGRESS_DEFAULT_ACTION_DENY);
        ck_assert_uint_eq(message->egress->n_rules, 0);
        ck_assert(!message->egress_status->enforced);
        ck_assert_uint_eq(strlen(message->egress_status->policy_digest), 7 + 64);

        record.enforcement = (struct egress_enforcement){ .version = 1, .n_program_ids = 1 };
        message = convert_whole_sandbox(&arena, &record);
        ck_assert(!message->egress_status->enforced); /* it is the policy before */
        ck_assert_uint_eq(message->egress_status->n_program_ids, 0);
        record.enforcement.version = 2;
        ck_assert(convert_whole_sandbox(&arena, &record)->egress_status->enforced);
        record.state = SANDBOX_ENDING;
        ck_assert(!convert_whole_sandbox(&arena, &record)->egress_status->enforced);
        arena_deinit(&arena);
}
END_TEST

START_TEST(refusals_are_shown_once_they_are_known)
{
        struct sandbox_record record = { .state = SANDBOX_RUNNING };
        const Hotcell__V1__EgressRefusals *refusals;
        struct arena arena = { 0 };

        record.egress_refusals.logged = 3;
        ck_assert_ptr_null(convert_whole_sandbox(&arena, &record)->egress_status->refusals);
        record.egress_refusals.is_known = true;
        record.egress_refusals.dropped = 40;
        refusals = convert_whole_sandbox(&arena, &record)->egress_status->refusals;
        ck_assert_int_eq(refusals->denied, 43);
        ck_assert_int_eq(refusals->logged, 3);
        ck_assert_int_eq(refusals->dropped, 40);
        record.state = SANDBOX_ENDED;
        ck_assert_ptr_nonnull(convert_whole_sandbox(&arena, &record)->egress_status->refusals);
        arena_deinit(&arena);
}
END_TEST

/* --- requests --- */

START_TEST(the_policy_is_part_of_what_makes_a_request_the_same)
{
        Hotcell__V1__UpdateSandboxRequest request = HOTCELL__V1__UPDATE_SANDBOX_REQUEST__INIT;
        uint8_t without[32], with[32], other[32];

        ck_assert_int_eq(digest_message(&request.base, without), 0);
        make_rules(1);
        set_cidr(&rules[0], DENY, "10.0.0.0/8");
        request.egress = &policy;
        ck_assert_int_eq(digest_message(&request.base, with), 0);
        ck_assert_mem_ne(with, without, 32);
        add_ports(&rules[0], 443, 0);
        ck_assert_int_eq(digest_message(&request.base, other), 0);
        ck_assert_mem_ne(other, with, 32);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &more_ranges_than_there_is_room_for_are_too_complex,
                &rules_that_are_too_much_together_are_too_complex,
                &an_unknown_default_is_refused,
                &fields_that_are_not_known_are_refused,
                &there_are_at_most_ten_thousand_rules,
                &only_as_many_mistakes_are_looked_for_as_can_be_told,
                &rules_are_bounded_in_bytes_too,
                &only_so_many_labels_are_converted,
                &rules_come_at_a_rate_of_their_owner,
                &no_policy_and_an_empty_one_are_the_default,
                &a_policy_comes_back_as_it_was_given,
                &rules_that_are_none_of_ours_are_not_shown_in_part,
                &ten_thousand_rules_come_back_as_they_were_given,
                &one_rule_that_allows_is_enough_to_allow_something,
                &policies_that_mean_the_same_have_one_digest,
                &types_in_any_order_mean_the_same,
                &types_alone_are_a_policy_that_allows_nothing,
                &only_whole_answers_have_the_rules,
                &only_what_is_known_to_be_in_force_is_shown_as_enforced,
                &refusals_are_shown_once_they_are_known,
                &the_policy_is_part_of_what_makes_a_request_the_same,
        };
        Suite *all = suite_create("egress");
        TCase *tcase = tcase_create("policies");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        tcase_add_loop_test(tcase, a_bad_rule_is_refused_with_its_path, 0, ARRAY_SIZE(bad_rules));
        tcase_add_loop_test(tcase, udp_and_icmp_go_by_address_in_direct_mode, 0,
                            ARRAY_SIZE(protocols));
        tcase_add_loop_test(tcase, bad_ports_are_refused_with_their_path, 0, ARRAY_SIZE(bad_ports));
        tcase_add_loop_test(tcase, a_bad_type_is_refused_with_its_path, 0, ARRAY_SIZE(bad_types));
        tcase_add_loop_test(tcase, all_labels_of_a_name_are_counted, 0, 2);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, *tests[i]);
        suite_add_tcase(all, tcase);
        return suite_main(all);
}
