/* Requests from strangers. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "hotcell/v1/execution_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"
#include "runtime/base/macros.h"
#include "server/api/clip.h"
#include "server/api/decode.h"
#include "test/lib/suite.h"

/* --- wire bytes, made by hand: protobuf-c would not write bad ones --- */

struct wire {
        uint8_t bytes[4096];
        size_t n;
};

static void put_varint(struct wire *wire, uint64_t value)
{
        for (; value >= 0x80; value >>= 7)
                wire->bytes[wire->n++] = (uint8_t)(value | 0x80);
        wire->bytes[wire->n++] = (uint8_t)value;
}

static void put_bytes(struct wire *wire, unsigned number, const void *bytes, size_t n)
{
        put_varint(wire, number << 3 | 2);
        put_varint(wire, n);
        memcpy(wire->bytes + wire->n, bytes, n);
        wire->n += n;
}

static void put_text(struct wire *wire, unsigned number, const char *text)
{
        put_bytes(wire, number, text, strlen(text));
}

static void put_wire(struct wire *wire, unsigned number, const struct wire *inner)
{
        put_bytes(wire, number, inner->bytes, inner->n);
}

static struct wire entry(const char *key, size_t n_key, const char *value, size_t n_value)
{
        struct wire wire = { .n = 0 };

        put_bytes(&wire, 1, key, n_key);
        put_bytes(&wire, 2, value, n_value);
        return wire;
}

static int decode(const ProtobufCMessageDescriptor *type, const struct wire *wire,
                  struct decode_path *path)
{
        ProtobufCMessage *message = NULL;
        int r;

        strcpy(path->text, "(unset)");
        r = decode_message(type, wire->bytes, wire->n, &message, path);
        if (r == 0)
                protobuf_c_message_free_unpacked(message, NULL);
        return r;
}

#define CREATE  &hotcell__v1__create_sandbox_request__descriptor
#define EXECUTE &hotcell__v1__execute_request__descriptor
#define LIST    &hotcell__v1__list_sandboxes_request__descriptor
#define UPDATE  &hotcell__v1__update_sandbox_request__descriptor

/* --- text --- */

START_TEST(good_text_passes)
{
        struct wire wire = { .n = 0 };
        struct decode_path path;
        ProtobufCMessage *message;
        const Hotcell__V1__ExecuteRequest *request;

        put_text(&wire, 5, "print('ä€𝄞')");
        ck_assert_int_eq(decode_message(EXECUTE, wire.bytes, wire.n, &message, &path), 0);
        request = (const Hotcell__V1__ExecuteRequest *)message;
        ck_assert_str_eq(request->code, "print('ä€𝄞')");
        protobuf_c_message_free_unpacked(message, NULL);

        wire.n = 0;
        ck_assert_int_eq(decode(EXECUTE, &wire, &path), 0);
}
END_TEST

START_TEST(nul_in_text_is_found)
{
        struct wire wire = { .n = 0 };
        struct decode_path path;

        put_bytes(&wire, 5, "ab\0cd", 5);
        ck_assert_int_eq(decode(EXECUTE, &wire, &path), DECODE_E_TEXT);
        ck_assert_str_eq(path.text, "code");

        wire.n = 0;
        put_bytes(&wire, 5, "ab\0", 3);
        ck_assert_int_eq(decode(EXECUTE, &wire, &path), DECODE_E_TEXT);
}
END_TEST

START_TEST(bad_utf8_is_found)
{
        static const char *const bad[] = { "\xff", "\xc0\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                                           "a\xe2\x82" };
        struct decode_path path;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct wire wire = { .n = 0 };

                put_text(&wire, 4, bad[i]);
                ck_assert_int_eq(decode(EXECUTE, &wire, &path), DECODE_E_TEXT);
                ck_assert_str_eq(path.text, "language");
        }
}
END_TEST

START_TEST(overwritten_text_is_checked_too)
{
        struct wire wire = { .n = 0 };
        struct decode_path path;

        put_text(&wire, 5, "\xff");
        put_text(&wire, 5, "good");
        ck_assert_int_eq(decode(EXECUTE, &wire, &path), DECODE_E_TEXT);
}
END_TEST

START_TEST(path_goes_through_messages_and_maps)
{
        struct wire create = { .n = 0 };
        struct wire spec = { .n = 0 };
        struct wire label = entry("ok", 2, "fine", 4);
        struct decode_path path;

        put_wire(&spec, 8, &label);
        label = entry("a", 1, "\xff", 1);
        put_wire(&spec, 8, &label);
        put_wire(&create, 1, &spec);
        ck_assert_int_eq(decode(CREATE, &create, &path), DECODE_E_TEXT);
        ck_assert_str_eq(path.text, "spec.labels[\"a\"].value");

        spec.n = create.n = 0;
        label = entry("ok", 2, "fine", 4);
        put_wire(&spec, 8, &label);
        label = entry("a\0b", 3, "v", 1);
        put_wire(&spec, 8, &label);
        put_wire(&create, 1, &spec);
        ck_assert_int_eq(decode(CREATE, &create, &path), DECODE_E_TEXT);
        ck_assert_str_eq(path.text, "spec.labels[1].key");
}
END_TEST

START_TEST(path_counts_repeated_fields)
{
        struct wire mask = { .n = 0 };
        struct wire update = { .n = 0 };
        struct decode_path path;

        put_text(&mask, 1, "labels");
        put_text(&mask, 1, "ttl");
        put_text(&mask, 1, "\xfe");
        put_wire(&update, 2, &mask);
        ck_assert_int_eq(decode(UPDATE, &update, &path), DECODE_E_TEXT);
        ck_assert_str_eq(path.text, "update_mask.paths[2]");
}
END_TEST

START_TEST(long_key_is_cut_in_the_path)
{
        struct wire spec = { .n = 0 };
        struct wire create = { .n = 0 };
        struct wire label;
        struct decode_path path;
        char key[500];

        memset(key, 'k', sizeof(key));
        label = entry(key, sizeof(key), "\xff", 1);
        put_wire(&spec, 8, &label);
        put_wire(&create, 1, &spec);
        ck_assert_int_eq(decode(CREATE, &create, &path), DECODE_E_TEXT);
        ck_assert_int_eq(strncmp(path.text, "spec.labels[\"kkkk", 16), 0);
        ck_assert_ptr_nonnull(strstr(path.text, "…\"].value"));
}
END_TEST

/* --- form --- */

static const struct {
        const char *bytes;
        size_t n;
} malformed[] = {
        { "\x2a\x05"
          "abc",
          5 },                                                      /* shorter than it says */
        { "\x2a\xff\xff\xff\xff\x0f", 6 },                          /* 4 GiB long */
        { "\x2a\xff\xff\xff\xff\x7f", 6 },                          /* more than 32 bits */
        { "\x2a", 1 },                                              /* no length */
        { "\x80", 1 },                                              /* half a tag */
        { "\x00\x01", 2 },                                          /* field 0 */
        { "\x2b\x2c", 2 },                                          /* a group */
        { "\x28\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12 }, /* endless varint */
        { "\x28\x01", 2 },                                          /* code as a number */
        { "\x0f", 1 },                                              /* wire type 7 */
};

START_TEST(malformed_is_refused)
{
        struct decode_path path;

        for (size_t i = 0; i < ARRAY_SIZE(malformed); i++) {
                struct wire wire = { .n = malformed[i].n };
                int r;

                memcpy(wire.bytes, malformed[i].bytes, malformed[i].n);
                r = decode(EXECUTE, &wire, &path);
                ck_assert_msg(r == DECODE_E_MALFORMED, "%zu: %d", i, r);
        }
}
END_TEST

START_TEST(unknown_fields_are_no_error)
{
        struct wire wire = { .n = 0 };
        struct decode_path path;

        put_bytes(&wire, 1000, "\xff\0", 2);
        put_text(&wire, 5, "1+1");
        ck_assert_int_eq(decode(EXECUTE, &wire, &path), 0);
}
END_TEST

/* 1 MiB of two-byte sub-messages would take some 100 MiB. */
START_TEST(amplification_is_refused)
{
        size_t n = MIB(1);
        uint8_t *bytes = malloc(n);
        ProtobufCMessage *message;
        struct decode_path path;

        for (size_t i = 0; i < n; i += 2) {
                bytes[i] = 2 << 3 | 2; /* labels */
                bytes[i + 1] = 0;
        }
        ck_assert_int_eq(decode_message(LIST, bytes, n, &message, &path), DECODE_E_TOO_COMPLEX);
        free(bytes);
}
END_TEST

/* What the documentation allows must pass: 64 KiB of the shortest variables. */
START_TEST(many_small_variables_pass)
{
        struct wire one = entry("A", 1, "1", 1);
        size_t n = KIB(64) / 8;
        size_t size = one.n + 2;
        uint8_t *bytes = malloc(n * size);
        ProtobufCMessage *message;
        struct decode_path path;

        for (size_t i = 0; i < n; i++) {
                bytes[i * size] = 6 << 3 | 2;
                bytes[i * size + 1] = (uint8_t)one.n;
                memcpy(bytes + i * size + 2, one.bytes, one.n);
        }
        ck_assert_int_eq(decode_message(EXECUTE, bytes, n * size, &message, &path), 0);
        protobuf_c_message_free_unpacked(message, NULL);
        free(bytes);
}
END_TEST

START_TEST(a_mebibyte_of_code_passes)
{
        size_t n = MIB(2);
        uint8_t *bytes = malloc(n + 8);
        struct wire head = { .n = 0 };
        ProtobufCMessage *message;
        struct decode_path path;

        put_varint(&head, 5 << 3 | 2);
        put_varint(&head, n);
        memcpy(bytes, head.bytes, head.n);
        memset(bytes + head.n, 'x', n);
        ck_assert_int_eq(decode_message(EXECUTE, bytes, head.n + n, &message, &path), 0);
        protobuf_c_message_free_unpacked(message, NULL);
        free(bytes);
}
END_TEST

/* CreateSandbox with @n_rules rules, each with @n_ports ranges, of @n_range bytes; they are the
 * caller's. */
static uint8_t *make_policy(size_t n_rules, size_t n_ports, size_t n_range, size_t *ret_n)
{
        struct wire range = { .n = 0 }, rule = { .n = 0 }, head[3] = { 0 };
        uint8_t *bytes, *end;
        size_t n;

        for (size_t i = 0; i < n_range; i += 2) {
                put_varint(&range, i ? 2 << 3 : 1 << 3);
                put_varint(&range, 80 + i);
        }
        put_text(&rule, 2, "192.0.2.0/24");
        for (size_t i = 0; i < n_ports; i++)
                put_wire(&rule, 4, &range);
        put_varint(&head[0], 2 << 3 | 2);
        put_varint(&head[0], rule.n);
        n = n_rules * (head[0].n + rule.n);
        put_varint(&head[1], 9 << 3 | 2);
        put_varint(&head[1], n);
        put_varint(&head[2], 1 << 3 | 2);
        put_varint(&head[2], n + head[1].n);
        bytes = malloc(n + 32);
        end = mempcpy(mempcpy(bytes, head[2].bytes, head[2].n), head[1].bytes, head[1].n);
        for (size_t i = 0; i < n_rules; i++)
                end = mempcpy(mempcpy(end, head[0].bytes, head[0].n), rule.bytes, rule.n);
        *ret_n = (size_t)(end - bytes);
        return bytes;
}

/* What the documentation allows: 10,000 rules with 8 ranges of ports. */
START_TEST(as_many_egress_rules_as_there_may_be_pass)
{
        const Hotcell__V1__CreateSandboxRequest *request;
        ProtobufCMessage *message;
        struct decode_path path;
        size_t n;
        uint8_t *bytes = make_policy(10000, 8, 4, &n);

        ck_assert_int_eq(decode_message(CREATE, bytes, n, &message, &path), 0);
        request = (const Hotcell__V1__CreateSandboxRequest *)message;
        ck_assert_uint_eq(request->spec->egress->n_rules, 10000);
        ck_assert_uint_eq(request->spec->egress->rules[9999]->n_ports, 8);
        protobuf_c_message_free_unpacked(message, NULL);
        free(bytes);
}
END_TEST

START_TEST(egress_rules_do_not_amplify_beyond_that)
{
        ProtobufCMessage *message;
        struct decode_path path;
        size_t n;
        uint8_t *bytes = make_policy(60000, 8, 0, &n);

        ck_assert_int_eq(decode_message(CREATE, bytes, n, &message, &path), DECODE_E_TOO_COMPLEX);
        free(bytes);
        /* The room that rules have is only theirs as far as there are any. */
        bytes = make_policy(100, 100, 0, &n);
        ck_assert_int_eq(decode_message(CREATE, bytes, n, &message, &path), 0);
        protobuf_c_message_free_unpacked(message, NULL);
        free(bytes);
        bytes = make_policy(100, 500, 0, &n);
        ck_assert_int_eq(decode_message(CREATE, bytes, n, &message, &path), DECODE_E_TOO_COMPLEX);
        free(bytes);
}
END_TEST

START_TEST(bad_text_in_a_rule_is_found_there)
{
        struct wire rule = { .n = 0 }, good = { .n = 0 }, policy = { .n = 0 }, spec = { .n = 0 };
        struct wire create = { .n = 0 };
        struct decode_path path;

        put_text(&good, 2, "10.0.0.0/8");
        put_bytes(&rule, 3, "example.org\0.evil", 17);
        put_wire(&policy, 2, &good);
        put_wire(&policy, 2, &rule);
        put_wire(&spec, 9, &policy);
        put_wire(&create, 1, &spec);
        ck_assert_int_eq(decode(CREATE, &create, &path), DECODE_E_TEXT);
        ck_assert_str_eq(path.text, "spec.egress.rules[1].domain");
}
END_TEST

/* No request of ours is recursive; DescriptorProto is. */
START_TEST(depth_is_bounded)
{
        struct wire wire = { .n = 0 };
        struct decode_path path;

        for (int i = 0; i < 200; i++) {
                struct wire outer = { .n = 0 };

                put_wire(&outer, 3, &wire);
                wire = outer;
        }
        ck_assert_int_eq(decode(&google__protobuf__descriptor_proto__descriptor, &wire, &path),
                         DECODE_E_TOO_COMPLEX);
}
END_TEST

/* --- maps --- */

START_TEST(last_entry_of_a_key_wins)
{
        static const char *const pairs[][2] = {
                { "b", "1" }, { "a", "2" }, { "b", "3" }, { "c", "4" }, { "a", "5" }, { "b", "6" },
        };
        struct wire wire = { .n = 0 };
        struct decode_path path;
        ProtobufCMessage *message;
        Hotcell__V1__ListSandboxesRequest *request;

        for (size_t i = 0; i < ARRAY_SIZE(pairs); i++) {
                struct wire pair = entry(pairs[i][0], 1, pairs[i][1], 1);

                put_wire(&wire, 2, &pair);
        }
        ck_assert_int_eq(decode_message(LIST, wire.bytes, wire.n, &message, &path), 0);
        request = (Hotcell__V1__ListSandboxesRequest *)message;
        ck_assert_uint_eq(request->n_labels, 6);
        ck_assert_int_eq(decode_map_unique(request->labels, &request->n_labels), 0);
        ck_assert_uint_eq(request->n_labels, 3);
        ck_assert_str_eq(request->labels[0]->key, "c");
        ck_assert_str_eq(request->labels[1]->value, "5");
        ck_assert_str_eq(request->labels[2]->value, "6");
        protobuf_c_message_free_unpacked(message, NULL);
}
END_TEST

/* --- clips --- */

static const struct {
        const char *text;
        size_t size;
        const char *clipped;
} clips[] = {
        { "hello", 6, "hello" },
        { "hello", 5, "h…" },
        { "hello", 4, "…" },
        { "hello", 3, "he" },
        { "ääää", 9, "ääää" },
        { "ääää", 8, "ää…" },
        { "ääää", 6, "ä…" },
        { "a\xff"
          "b",
          10, "a?b" },
        { "", 1, "" },
        { "𝄞𝄞", 9, "𝄞𝄞" },
        { "𝄞𝄞", 8, "𝄞…" },
        { "x", 1, "" },
};

START_TEST(text_is_cut_between_characters)
{
        for (size_t i = 0; i < ARRAY_SIZE(clips); i++) {
                char buffer[32];
                size_t n = clip_copy(buffer, clips[i].size, clips[i].text);

                ck_assert_str_eq(buffer, clips[i].clipped);
                ck_assert_uint_eq(n, strlen(clips[i].clipped));
                ck_assert_uint_lt(n, clips[i].size);
        }
        ck_assert_uint_eq(clip_header_size("a b%\n"), 3 + 3 + 3);
        ck_assert_uint_eq(clip_header_size("ä"), 6);
}
END_TEST

int main(void)
{
        Suite *all = suite_create("decode");
        TCase *tests = tcase_create("decode");

        tcase_add_test(tests, good_text_passes);
        tcase_add_test(tests, nul_in_text_is_found);
        tcase_add_test(tests, bad_utf8_is_found);
        tcase_add_test(tests, overwritten_text_is_checked_too);
        tcase_add_test(tests, path_goes_through_messages_and_maps);
        tcase_add_test(tests, path_counts_repeated_fields);
        tcase_add_test(tests, long_key_is_cut_in_the_path);
        tcase_add_test(tests, malformed_is_refused);
        tcase_add_test(tests, unknown_fields_are_no_error);
        tcase_add_test(tests, amplification_is_refused);
        tcase_add_test(tests, many_small_variables_pass);
        tcase_add_test(tests, a_mebibyte_of_code_passes);
        tcase_add_test(tests, as_many_egress_rules_as_there_may_be_pass);
        tcase_add_test(tests, egress_rules_do_not_amplify_beyond_that);
        tcase_add_test(tests, bad_text_in_a_rule_is_found_there);
        tcase_add_test(tests, depth_is_bounded);
        tcase_add_test(tests, last_entry_of_a_key_wins);
        tcase_add_test(tests, text_is_cut_between_characters);
        suite_add_tcase(all, tests);
        return suite_main(all);
}
