/* What a kernel may say: every cap, from both sides, and the order of its frames. */
#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/session/kernel_frame.h"
#include "test/lib/suite.h"

#define FRAME_TYPE(name) HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_##name

static uint8_t payload[2 << 20];

static struct frame pack(uint8_t type, uint32_t execution, const ProtobufCMessage *message)
{
        struct frame frame = { .type = type, .execution = execution, .payload = payload };

        if (message)
                frame.n_payload = protobuf_c_message_pack(message, payload);
        return frame;
}

static int decode(uint8_t type, const ProtobufCMessage *message)
{
        struct frame frame = pack(type, 1, message);
        struct kernel_frame decoded;
        const char *why = NULL;
        int r = kernel_frame_decode(&frame, &decoded, &why);

        if (r == 0)
                kernel_frame_deinit(&decoded);
        if (r == KERNEL_FRAME_E_MALFORMED)
                ck_assert_ptr_nonnull(why);
        return r;
}

static char *text_of(size_t n, char c)
{
        char *text = malloc(n + 1);

        memset(text, c, n);
        text[n] = '\0';
        return text;
}

static int decode_part(const char *mime, size_t size, size_t n_data)
{
        Hotcell__Sandbox__V1__Bundle bundle;
        Hotcell__Sandbox__V1__Part part;
        Hotcell__Sandbox__V1__Part *parts[] = { &part };
        static uint8_t data[512 << 10];

        hotcell__sandbox__v1__bundle__init(&bundle);
        hotcell__sandbox__v1__part__init(&part);
        part.type = (char *)(uintptr_t)mime;
        part.size = size;
        part.data = (ProtobufCBinaryData){ n_data, data };
        bundle.parts = parts;
        bundle.n_parts = 1;
        return decode(FRAME_TYPE(DISPLAY), &bundle.base);
}

START_TEST(mime_types_are_plain_names)
{
        static const struct {
                const char *type;
                bool is_good;
        } cases[] = {
                { "text/plain", true },
                { "image/svg+xml", true },
                { "application/vnd.plotly.v1+json", true },
                { "", false },
                { "text", false },
                { "/plain", false },
                { "text/", false },
                { "Text/Plain", false },
                { "text/plain; charset=utf-8", false },
                { "text/pl\nain", false },
                { "text/plain/x", false },
                { "text/\xff", false },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++)
                ck_assert_msg((decode_part(cases[i].type, 0, 0) == 0) == cases[i].is_good, "%s",
                              cases[i].type);
}
END_TEST

START_TEST(long_mime_types_are_refused)
{
        char *type = text_of(KERNEL_MIME_MAX + 1, 'a');

        type[4] = '/';
        ck_assert_int_eq(decode_part(type, 0, 0), KERNEL_FRAME_E_MALFORMED);
        type[KERNEL_MIME_MAX] = '\0';
        ck_assert_int_eq(decode_part(type, 0, 0), 0);
        free(type);
}
END_TEST

START_TEST(sizes_of_parts_must_agree)
{
        ck_assert_int_eq(decode_part("a/b", 10, 10), 0);
        ck_assert_int_eq(decode_part("a/b", 10, 0), 0);
        ck_assert_int_eq(decode_part("a/b", 10, 11), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(decode_part("a/b", SIZE_MAX, 1), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(decode_part("a/b", KERNEL_INLINE_MAX, KERNEL_INLINE_MAX), 0);
        ck_assert_int_eq(decode_part("a/b", KERNEL_INLINE_MAX + 1, KERNEL_INLINE_MAX + 1),
                         KERNEL_FRAME_E_MALFORMED);
}
END_TEST

static int decode_parts(size_t n)
{
        Hotcell__Sandbox__V1__Bundle bundle;
        Hotcell__Sandbox__V1__Part part;
        Hotcell__Sandbox__V1__Part **parts = calloc(n, sizeof(*parts));
        int r;

        hotcell__sandbox__v1__bundle__init(&bundle);
        hotcell__sandbox__v1__part__init(&part);
        part.type = (char *)"a/b";
        for (size_t i = 0; i < n; i++)
                parts[i] = &part;
        bundle.parts = parts;
        bundle.n_parts = n;
        r = decode(FRAME_TYPE(RESULT), &bundle.base);
        free(parts);
        return r;
}

START_TEST(bundles_have_few_parts)
{
        ck_assert_int_eq(decode_parts(KERNEL_PARTS_MAX), 0);
        ck_assert_int_eq(decode_parts(KERNEL_PARTS_MAX + 1), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(decode_parts(50000), KERNEL_FRAME_E_MALFORMED);
}
END_TEST

START_TEST(small_bytes_cannot_make_large_structures)
{
        struct frame frame = { .type = FRAME_TYPE(RESULT), .payload = payload };
        struct kernel_frame decoded;
        const char *why;

        /* Empty parts: two bytes each. */
        for (size_t i = 0; i < KERNEL_FRAME_MAX / 2; i++) {
                payload[2 * i] = 0x0a;
                payload[2 * i + 1] = 0;
        }
        frame.n_payload = KERNEL_FRAME_MAX;
        ck_assert_int_eq(kernel_frame_decode(&frame, &decoded, &why), KERNEL_FRAME_E_MALFORMED);
}
END_TEST

static int decode_error(size_t n_name, size_t n_value, size_t n_lines, size_t n_line, char c)
{
        Hotcell__Sandbox__V1__Error error;
        char *name = text_of(n_name, c);
        char *value = text_of(n_value, c);
        char *line = text_of(n_line, c);
        char **lines = calloc(n_lines + 1, sizeof(*lines));
        int r;

        hotcell__sandbox__v1__error__init(&error);
        for (size_t i = 0; i < n_lines; i++)
                lines[i] = line;
        error.name = name;
        error.value = value;
        error.traceback = lines;
        error.n_traceback = n_lines;
        r = decode(FRAME_TYPE(ERROR), &error.base);
        free(lines);
        free(line);
        free(value);
        free(name);
        return r;
}

START_TEST(errors_are_capped)
{
        ck_assert_int_eq(decode_error(KERNEL_ERROR_NAME_MAX, KERNEL_ERROR_VALUE_MAX, 2, 1000, 'x'),
                         0);
        ck_assert_int_eq(decode_error(KERNEL_ERROR_NAME_MAX + 1, 1, 0, 0, 'x'),
                         KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(decode_error(1, KERNEL_ERROR_VALUE_MAX + 1, 0, 0, 'x'),
                         KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(decode_error(1, 1, 2, KERNEL_TRACEBACK_MAX / 2, 'x'), 0);
        ck_assert_int_eq(decode_error(1, 1, 2, KERNEL_TRACEBACK_MAX / 2 + 1, 'x'),
                         KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(decode_error(1, 1, KERNEL_TRACEBACK_LINES_MAX + 1, 1, 'x'),
                         KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(decode_error(1, 1, 0, 0, '\xff'), KERNEL_FRAME_E_MALFORMED);
}
END_TEST

START_TEST(types_are_known_or_skipped)
{
        struct frame frame = { .type = 200, .payload = payload, .n_payload = 10 };
        struct kernel_frame decoded;
        const char *why;

        ck_assert_int_eq(kernel_frame_decode(&frame, &decoded, &why), KERNEL_FRAME_E_UNKNOWN);
        frame.type = FRAME_TYPE(BARRIER);
        ck_assert_int_eq(kernel_frame_decode(&frame, &decoded, &why), KERNEL_FRAME_E_MALFORMED);
        frame.n_payload = 0;
        ck_assert_int_eq(kernel_frame_decode(&frame, &decoded, &why), 0);
        frame.type = FRAME_TYPE(DONE);
        frame.n_payload = KERNEL_FRAME_MAX + 1;
        ck_assert_int_eq(kernel_frame_decode(&frame, &decoded, &why), KERNEL_FRAME_E_MALFORMED);
}
END_TEST

/* The order. */

static int take(struct kernel_order *order, uint8_t type, uint32_t execution,
                const ProtobufCMessage *message)
{
        struct frame frame = pack(type, execution, message);
        struct kernel_frame decoded;
        const char *why = NULL;
        int r;

        ck_assert_int_eq(kernel_frame_decode(&frame, &decoded, &why), 0);
        r = kernel_order_take(order, &decoded, &why);
        kernel_frame_deinit(&decoded);
        if (r == KERNEL_FRAME_E_MALFORMED)
                ck_assert_ptr_nonnull(why);
        return r;
}

static int take_ready(struct kernel_order *order)
{
        Hotcell__Sandbox__V1__Ready ready;

        hotcell__sandbox__v1__ready__init(&ready);
        ready.protocol = KERNEL_PROTOCOL;
        return take(order, FRAME_TYPE(READY), 0, &ready.base);
}

static int take_started(struct kernel_order *order, uint32_t execution)
{
        Hotcell__Sandbox__V1__Started started;

        hotcell__sandbox__v1__started__init(&started);
        return take(order, FRAME_TYPE(STARTED), execution, &started.base);
}

static int take_done(struct kernel_order *order, uint32_t execution)
{
        Hotcell__Sandbox__V1__Done done;

        hotcell__sandbox__v1__done__init(&done);
        return take(order, FRAME_TYPE(DONE), execution, &done.base);
}

static int take_bundle(struct kernel_order *order, uint64_t first, uint64_t second)
{
        Hotcell__Sandbox__V1__Bundle bundle;
        Hotcell__Sandbox__V1__Part parts[2];
        Hotcell__Sandbox__V1__Part *pointers[] = { &parts[0], &parts[1] };

        hotcell__sandbox__v1__bundle__init(&bundle);
        for (size_t i = 0; i < 2; i++) {
                hotcell__sandbox__v1__part__init(&parts[i]);
                parts[i].type = (char *)"a/b";
                parts[i].size = i == 0 ? first : second;
        }
        bundle.parts = pointers;
        bundle.n_parts = 2;
        return take(order, FRAME_TYPE(DISPLAY), order->execution, &bundle.base);
}

static int take_part(struct kernel_order *order, uint32_t part, uint64_t offset, size_t n)
{
        static uint8_t data[1000];
        Hotcell__Sandbox__V1__PartData message;

        hotcell__sandbox__v1__part_data__init(&message);
        message.part = part;
        message.offset = offset;
        message.data = (ProtobufCBinaryData){ n, data };
        return take(order, FRAME_TYPE(PART_DATA), order->execution, &message.base);
}

START_TEST(frames_come_in_their_order)
{
        struct kernel_order order;

        kernel_order_init(&order, 1 << 20);
        ck_assert_int_eq(take_done(&order, 0), KERNEL_FRAME_E_MALFORMED);
        kernel_order_init(&order, 1 << 20);
        ck_assert_int_eq(take_ready(&order), 0);
        ck_assert_int_eq(take_started(&order, 0), KERNEL_FRAME_E_DROP);
        ck_assert_uint_eq(kernel_order_execute(&order), 1);
        ck_assert_int_eq(take_started(&order, 2), KERNEL_FRAME_E_DROP);
        ck_assert_int_eq(take_bundle(&order, 0, 0), KERNEL_FRAME_E_DROP);
        ck_assert_int_eq(take_started(&order, 1), 0);
        ck_assert_int_eq(take_bundle(&order, 0, 0), 0);
        ck_assert_int_eq(take_done(&order, 7), KERNEL_FRAME_E_DROP);
        ck_assert_int_eq(take_done(&order, 1), 0);
        ck_assert_int_eq(take_done(&order, 1), KERNEL_FRAME_E_DROP);
        ck_assert_uint_eq(kernel_order_execute(&order), 2);
        ck_assert_int_eq(take_started(&order, 2), 0);
        ck_assert_int_eq(take_started(&order, 2), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(take_ready(&order), KERNEL_FRAME_E_MALFORMED);
        ck_assert_uint_eq(order.n_dropped, 5);
}
END_TEST

static struct kernel_order running_order(void)
{
        struct kernel_order order;

        kernel_order_init(&order, 500);
        ck_assert_int_eq(take_ready(&order), 0);
        ck_assert_int_eq(take_started(&order, kernel_order_execute(&order)), 0);
        return order;
}

START_TEST(part_data_continues_its_bundle)
{
        struct kernel_order order = running_order();

        ck_assert_int_eq(take_part(&order, 0, 0, 1), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(take_bundle(&order, 100, 200), 0);
        ck_assert_int_eq(take_part(&order, 1, 0, 10), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(take_part(&order, 0, 1, 10), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(take_part(&order, 0, 0, 101), KERNEL_FRAME_E_MALFORMED);
        ck_assert_int_eq(take_part(&order, 0, 0, 60), 0);
        ck_assert_int_eq(take_part(&order, 0, 60, 40), 0);
        ck_assert_int_eq(take_part(&order, 1, 0, 200), 0);
        ck_assert_int_eq(take_part(&order, 1, 200, 0), KERNEL_FRAME_E_MALFORMED);
        /* An interrupt may cut a bundle short: the next one begins anew. */
        ck_assert_int_eq(take_bundle(&order, 100, 200), 0);
        ck_assert_int_eq(take_bundle(&order, 0, 2), 0);
        ck_assert_int_eq(take_part(&order, 1, 0, 2), 0);
}
END_TEST

START_TEST(a_part_above_the_limit_is_told_and_its_data_dropped)
{
        struct kernel_order order = running_order();

        ck_assert_int_eq(take_bundle(&order, 10, 501), KERNEL_FRAME_E_TOO_LARGE);
        ck_assert_int_eq(take_part(&order, 0, 0, 10), KERNEL_FRAME_E_DROP);
        ck_assert_int_eq(take_part(&order, 1, 0, 500), KERNEL_FRAME_E_DROP);
        ck_assert_int_eq(take_bundle(&order, 10, 500), 0);
        ck_assert_int_eq(take_part(&order, 0, 0, 10), 0);
}
END_TEST

int main(void)
{
        static const TTest *const *const tests[] = {
                &mime_types_are_plain_names,
                &long_mime_types_are_refused,
                &sizes_of_parts_must_agree,
                &bundles_have_few_parts,
                &small_bytes_cannot_make_large_structures,
                &errors_are_capped,
                &types_are_known_or_skipped,
                &frames_come_in_their_order,
                &part_data_continues_its_bundle,
                &a_part_above_the_limit_is_told_and_its_data_dropped,
        };
        Suite *suite = suite_create("kernel_frame");
        TCase *tcase = tcase_create("kernel_frame");

        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, *tests[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
