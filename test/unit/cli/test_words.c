/* From messages to what people, scripts and terminals see. */

#include <check.h>
#include <stdlib.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "hotcell/v1/execution.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/candidates.h"
#include "cli/enum_name.h"
#include "cli/error.h"
#include "cli/escape.h"
#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/message.h"
#include "cli/options.h"
#include "cli/print_pressure.h"
#include "cli/print_text.h"
#include "cli/runtime_probe.h"
#include "cli/saver.h"
#include "cli/target.h"
#include "hotcell/v1/server_service.pb-c.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"
#include "test/unit/cli/fixture.h"

START_TEST(exit_codes_never_pretend_success)
{
        Hotcell__V1__Ended ended = HOTCELL__V1__ENDED__INIT;

        for (int outcome = 2; outcome < 40; outcome++) {
                ended.outcome = (Hotcell__V1__Outcome)outcome;
                for (int signal = -1; signal < 300; signal++) {
                        ended.signal = signal;
                        ck_assert_int_gt(exit_code_of(&ended), 0);
                        ck_assert_int_lt(exit_code_of(&ended), 256);
                }
        }
}
END_TEST

START_TEST(json_hides_nothing_from_a_terminal)
{
        _cleanup_(json_putp) struct json_object *text =
                json_from_text("\x1b[2J \x7f \xc2\x9b"
                               "31m \u202eevil \u200f \u061c \u2028 gr\u00fcn \u2603 \"\\");
        char *printed = NULL;
        size_t n_printed = 0;
        FILE *out = open_memstream(&printed, &n_printed);

        ck_assert_ptr_nonnull(out);
        json_print_line(out, text);
        (void)fclose(out);
        ck_assert_str_eq(printed,
                         "\"\\u001b[2J \\u007f \\u009b31m \\u202eevil \\u200f \\u061c \\u2028 "
                         "gr\u00fcn \u2603 \\\"\\\\\"\n");
        free(printed);
}
END_TEST

START_TEST(exit_codes_beyond_a_byte_stay_failures)
{
        static const struct {
                int code, expected;
        } cases[] = { { 0, 0 },   { 1, 1 },    { 255, 255 },  { 256, 125 },
                      { 257, 1 }, { -1, 255 }, { 65536, 125 } };
        Hotcell__V1__Ended ended = HOTCELL__V1__ENDED__INIT;

        ended.outcome = HOTCELL__V1__OUTCOME__OUTCOME_EXITED;
        ended._exit_code_case = HOTCELL__V1__ENDED___EXIT_CODE_EXIT_CODE;
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                ended.exit_code = cases[i].code;
                ck_assert_int_eq(exit_code_of(&ended), cases[i].expected);
        }
}
END_TEST

static const struct {
        const char *text, *expected;
} escapes[] = {
        { "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80",
          "plain \xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80" },
        { "\x1b[31m", "\\x1b[31m" },
        { "a\rb\x7f", "a\\rb\\x7f" },
        { "a\nb\t", "a\\nb\\t" },
        { "\xc2\x9b"
          "0m",
          "\\xc2\\x9b0m" }, /* CSI as a C1 control */
        /* NOLINTNEXTLINE(misc-misleading-bidirectional): that is what is tested */
        { "\xe2\x80\xae", "\\xe2\\x80\\xae" }, /* right-to-left override */
        /* NOLINTNEXTLINE(misc-misleading-bidirectional): that is what is tested */
        { "\xe2\x81\xa6", "\\xe2\\x81\\xa6" }, /* isolate */
        { "\x9b"
          "0m",
          "\\x9b0m" },       /* a bare 8-bit CSI */
        { "\xc3", "\\xc3" }, /* cut */
        { "\xe2\x82"
          "A",
          "\\xe2\\x82A" },                     /* cut by a letter */
        { "\xed\xa0\x80", "\\xed\\xa0\\x80" }, /* surrogate */
        { "\xc0\xaf", "\\xc0\\xaf" },          /* overlong */
        { "\xc3\xc3\xa4", "\\xc3\xc3\xa4" },   /* cut by a whole one */
};

START_TEST(lines_are_safe_for_terminals)
{
        char *line = escape_line(escapes[_i].text);

        ck_assert_str_eq(line, escapes[_i].expected);
        free(line);
}
END_TEST

START_TEST(cutting_anywhere_changes_nothing)
{
        /* NOLINTNEXTLINE(misc-misleading-bidirectional): that is what is tested */
        const char text[] = "a\xc3\xa4\xe2\x80\xae\xf0\x9f\x98\x80\x1b\xff.";

        for (size_t cut = 0; cut < sizeof(text); cut++) {
                struct escaper escaper = { 0 };
                FILE *file = tmpfile();
                char *got;

                escaper_write(&escaper, file, text, cut);
                escaper_write(&escaper, file, text + cut, sizeof(text) - 1 - cut);
                escaper_finish(&escaper, file);
                got = written(file);
                ck_assert_str_eq(got, "a\xc3\xa4\\xe2\\x80\\xae\xf0\x9f\x98\x80\\x1b\\xff.");
                free(got);
        }
}
END_TEST

START_TEST(ids_names_and_beginnings)
{
        static const struct {
                const char *text, *expected;
                int outcome;
        } cases[] = {
                { "alpha", "sbx-kk", 0 },
                { "sbx-kk", "sbx-kk", 0 },
                { "k", "sbx-kk", 0 },
                { "m", "sbx-mm1", CANDIDATES_E_AMBIGUOUS },
                { "mm2", "sbx-mm2", 0 },
                { "twice", "sbx-tt1", 0 }, /* a living one wins over an ended one */
                { "gone", NULL, CANDIDATES_E_AMBIGUOUS },
                { "sbx-", NULL, CANDIDATES_E_NONE },
                { "sbx", NULL, CANDIDATES_E_NONE },
                { "", NULL, CANDIDATES_E_NONE },
                { "nothing", NULL, CANDIDATES_E_NONE },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                struct candidates candidates = { .kind = "sbx", .text = cases[i].text };
                const char *id = NULL;

                candidates_offer(&candidates, "sbx-kk", "alpha", false);
                candidates_offer(&candidates, "sbx-mm1", "", false);
                candidates_offer(&candidates, "sbx-mm2", "", false);
                candidates_offer(&candidates, "sbx-tt1", "twice", false);
                candidates_offer(&candidates, "sbx-tt2", "twice", true);
                candidates_offer(&candidates, "sbx-gg1", "gone", true);
                candidates_offer(&candidates, "sbx-gg2", "gone", true);
                ck_assert_int_eq(candidates_pick(&candidates, &id), cases[i].outcome);
                if (!cases[i].outcome)
                        ck_assert_str_eq(id, cases[i].expected);
                candidates_deinit(&candidates);
        }
}
END_TEST

START_TEST(whole_ids_are_known)
{
        ck_assert(candidates_is_whole_id("sbx", "sbx-abcdefghijklmnopqrstuvwxyz"));
        ck_assert(candidates_is_whole_id("sbx", "sbx-node1-abcdefghijklmnopqrstuvwxyz"));
        ck_assert(!candidates_is_whole_id("sbx", "sbx-abcdefghijklmnopqrstuvwxy"));
        ck_assert(!candidates_is_whole_id("sbx", "exe-abcdefghijklmnopqrstuvwxyz"));
        ck_assert(!candidates_is_whole_id("sbx", "sbx-ABCDEFGHIJKLMNOPQRSTUVWXYZ"));
}
END_TEST

START_TEST(targets)
{
        static const struct {
                const char *text, *expected;
                int outcome;
        } cases[] = {
                { "unix:/a/b", "unix:/a/b", 0 },
                { "unix:///a/b", "unix:/a/b", 0 },
                { "/a/b", "unix:/a/b", 0 },
                { "127.0.0.1:80", "127.0.0.1:80", 0 },
                { "127.9.9.9:80", "127.9.9.9:80", 0 },
                { "[::1]:80", "[::1]:80", 0 },
                { "LocalHost:80", "LocalHost:80", 0 },
                { "unix:relative", NULL, TARGET_E_BAD },
                { "127.0.0.1", NULL, TARGET_E_BAD },
                { "127.0.0.1:0", NULL, TARGET_E_BAD },
                { "127.0.0.1:65536", NULL, TARGET_E_BAD },
                { ":80", NULL, TARGET_E_BAD },
                { "", NULL, TARGET_E_BAD },
                { "dns:///evil:80", NULL, TARGET_E_BAD },
                { "10.0.0.1:80", NULL, TARGET_E_NOT_LOOPBACK },
                { "example.com:80", NULL, TARGET_E_NOT_LOOPBACK },
                { "127.0.0.1.example.com:80", NULL, TARGET_E_NOT_LOOPBACK },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                char *target = NULL;

                ck_assert_int_eq(target_parse(cases[i].text, &target), cases[i].outcome);
                ck_assert_pstr_eq(target, cases[i].expected);
                free(target);
        }
}
END_TEST

START_TEST(enum_names_have_no_prefix)
{
        const ProtobufCEnumDescriptor *states = &hotcell__v1__sandbox_state__descriptor;

        ck_assert_str_eq(enum_name(states, 2), "RUNNING");
        ck_assert_str_eq(enum_name(states, 99), "UNKNOWN");
        ck_assert_int_eq(enum_value(states, "running"), 2);
        ck_assert_int_eq(enum_value(states, "UNSPECIFIED"), -1);
        ck_assert_int_eq(enum_value(states, "nonsense"), -1);
}
END_TEST

START_TEST(extensions_are_ours)
{
        ck_assert_str_eq(saver_extension("image/png"), "png");
        ck_assert_str_eq(saver_extension("IMAGE/SVG+XML; charset=utf-8"), "svg");
        ck_assert_str_eq(saver_extension("application/vnd.hotcell.chart.v1+json"), "json");
        ck_assert_str_eq(saver_extension("../../etc/passwd"), "bin");
        ck_assert_str_eq(saver_extension("image/png/../x.sh"), "bin");
        ck_assert_str_eq(saver_extension(""), "bin");
}
END_TEST

/* The message as one line of JSON. */
static void assert_json(const void *message, const char *expected)
{
        struct json_object *object = json_from_message(message);
        FILE *file = tmpfile();
        char *got;

        json_print_line(file, object);
        json_object_put(object);
        got = written(file);
        got[strcspn(got, "\n")] = '\0';
        ck_assert_str_eq(got, expected);
        free(got);
}

START_TEST(bytes_are_base64_with_text_where_nothing_is_lost)
{
        Hotcell__V1__OutputChunk chunk = HOTCELL__V1__OUTPUT_CHUNK__INIT;
        uint8_t text[] = { 'h', 'i', '\n' }, junk[] = { 0xff, 0 };

        assert_json(&chunk, "{\"data\":\"\",\"text\":\"\",\"offset\":0}");
        chunk.data = (ProtobufCBinaryData){ sizeof(text), text };
        chunk.offset = INT64_MAX;
        assert_json(&chunk,
                    "{\"data\":\"aGkK\",\"text\":\"hi\\n\",\"offset\":9223372036854775807}");
        chunk.data = (ProtobufCBinaryData){ sizeof(junk), junk };
        assert_json(&chunk, "{\"data\":\"/wA=\",\"offset\":9223372036854775807}");
}
END_TEST

START_TEST(broken_text_is_repaired_for_json)
{
        Hotcell__V1__ExecutionError error = HOTCELL__V1__EXECUTION_ERROR__INIT;
        char name[] = "N\xff\xc3\xa4\xe2\x82", line[] = "a\x1b";
        char *lines[] = { line };

        error.name = name;
        error.traceback = lines;
        error.n_traceback = 1;
        assert_json(&error, "{\"name\":\"N\xef\xbf\xbd\xc3\xa4\xef\xbf\xbd\xef\xbf\xbd\",\"value\":"
                            "\"\",\"traceback\":[\"a\\u001b\"]}");
}
END_TEST

START_TEST(only_the_member_that_is_set_is_shown)
{
        Hotcell__V1__ExecutionEvent event = HOTCELL__V1__EXECUTION_EVENT__INIT;
        Hotcell__V1__Ended ended = HOTCELL__V1__ENDED__INIT;
        Hotcell__V1__Usage usage = HOTCELL__V1__USAGE__INIT;

        event.sequence = 9;
        event.event_case = HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED;
        event.ended = &ended;
        ended.outcome = HOTCELL__V1__OUTCOME__OUTCOME_OOM;
        ended.usage = &usage;
        usage.cpu_time = message_duration(1500000000);
        usage.wall_time = message_duration(0);
        assert_json(&event,
                    "{\"sequence\":9,\"ended\":{\"outcome\":\"OOM\",\"cause\":\"UNSPECIFIED\","
                    "\"signal\":0,\"state_lost\":false,\"message\":\"\",\"usage\":{\"cpu_time\":"
                    "\"1.5s\",\"wall_time\":\"0s\",\"memory_peak_bytes\":0,\"stdout_bytes\":0,"
                    "\"stderr_bytes\":0,\"rich_bytes\":0,\"context_switches\":0,"
                    "\"rss_peak_bytes\":0,\"memory_byte_seconds\":0,\"sent_bytes\":0,"
                    "\"received_bytes\":0,\"oom_kills\":0,\"throttled_periods\":0,"
                    "\"missing\":[],\"memory_mean_bytes\":0},\"truncated_bytes\":0}}");
        message_free(usage.cpu_time);
        message_free(usage.wall_time);
}
END_TEST

START_TEST(maps_are_objects)
{
        Hotcell__V1__ListSandboxesRequest *list =
                message_new(&hotcell__v1__list_sandboxes_request__descriptor);
        struct option_pair pair = { (char[]){ "key" }, (char[]){ "value" } };
        const struct option_pairs pairs = { &pair, 1 };

        message_set_map(list, "labels", &pairs);
        assert_json(list, "{\"states\":[],\"labels\":{\"key\":\"value\"},\"name\":\"\","
                          "\"page_size\":0,\"page_token\":\"\"}");
        message_free(list);
}
END_TEST

START_TEST(times_out_of_range_are_empty)
{
        Google__Protobuf__Timestamp time = GOOGLE__PROTOBUF__TIMESTAMP__INIT;
        char text[MESSAGE_TIME_SIZE];

        ck_assert_str_eq(message_time(&time, text), "1970-01-01T00:00:00.000Z");
        time.seconds = INT64_MAX;
        ck_assert_str_eq(message_time(&time, text), "");
        time.seconds = INT64_MIN;
        ck_assert_str_eq(message_time(&time, text), "");
        time.seconds = 0;
        time.nanos = -1;
        ck_assert_str_eq(message_time(&time, text), "");
        ck_assert_str_eq(message_time(NULL, text), "");
}
END_TEST

/* An error with one BadRequest whose violations are many. */
static char *print_error_with(size_t n_violations, size_t n_text)
{
        Google__Rpc__BadRequest bad = GOOGLE__RPC__BAD_REQUEST__INIT;
        Google__Rpc__BadRequest__FieldViolation one =
                GOOGLE__RPC__BAD_REQUEST__FIELD_VIOLATION__INIT;
        Google__Rpc__BadRequest__FieldViolation *all[64];
        Google__Rpc__Status status = GOOGLE__RPC__STATUS__INIT;
        Google__Protobuf__Any any = GOOGLE__PROTOBUF__ANY__INIT;
        Google__Protobuf__Any *anys[] = { &any };
        static uint8_t packed_bad[16384], packed_status[16384];
        char text[4096];
        struct rpc_error error;
        FILE *file = tmpfile();

        memset(text, 'x', n_text);
        text[n_text] = '\0';
        one.field = (char[]){ "field" };
        one.description = text;
        for (size_t i = 0; i < n_violations; i++)
                all[i] = &one;
        bad.field_violations = all;
        bad.n_field_violations = n_violations;
        any.type_url = (char[]){ "type.googleapis.com/google.rpc.BadRequest" };
        any.value.len = google__rpc__bad_request__pack(&bad, packed_bad);
        any.value.data = packed_bad;
        status.details = anys;
        status.n_details = 1;
        rpc_error_init(&error, 3, "no", packed_status,
                       google__rpc__status__pack(&status, packed_status));
        rpc_error_print(&error, file);
        rpc_error_deinit(&error);
        return written(file);
}

START_TEST(errors_are_bounded)
{
        char *text = print_error_with(60, 10);
        size_t n_lines = 0;

        for (char *at = text; (at = strchr(at, '\n')); at++)
                n_lines++;
        ck_assert_uint_eq(n_lines, 1 + 32);
        free(text);
        text = print_error_with(1, 4000);
        ck_assert_uint_lt(strlen(text), 1100);
        free(text);
}
END_TEST

START_TEST(broken_details_are_left_out)
{
        struct rpc_error error;
        FILE *file = tmpfile();
        char *text;

        rpc_error_init(&error, RPC_UNAUTHENTICATED, "", "\x1a\xff\xff", 3);
        rpc_error_print(&error, file);
        rpc_error_deinit(&error);
        text = written(file);
        ck_assert_str_eq(text,
                         "hotcell: not authenticated\n  hint: set HOTCELL_API_KEY or "
                         "--api-key-file; `hotcell key create NAME` on the server's machine makes "
                         "a key\n");
        free(text);
}
END_TEST

static void print_one(struct text_printer *printer, int which, void *body)
{
        Hotcell__V1__ExecutionEvent event = HOTCELL__V1__EXECUTION_EVENT__INIT;

        event.sequence = 7;
        event.event_case = (Hotcell__V1__ExecutionEvent__EventCase)which;
        event.result = body;
        text_printer_event(printer, &event);
}

START_TEST(a_result_on_a_terminal_is_escaped_and_alone_on_its_line)
{
        Hotcell__V1__OutputChunk chunk = HOTCELL__V1__OUTPUT_CHUNK__INIT;
        Hotcell__V1__Result result = HOTCELL__V1__RESULT__INIT;
        Hotcell__V1__MimeBundle bundle = HOTCELL__V1__MIME_BUNDLE__INIT;
        Hotcell__V1__MimePart part = HOTCELL__V1__MIME_PART__INIT, *parts[] = { &part };
        Hotcell__V1__PartData data = HOTCELL__V1__PART_DATA__INIT;
        uint8_t raw[] = { '\x1b', '?' }, first[] = { 'r', 0xe2, 0x80 }, rest[] = { 0xae };
        const struct event_printer_config config = {
                .out = tmpfile(), .err = tmpfile(), .escapes_out = true, .escapes_err = true
        };
        struct text_printer printer;
        char *out;

        chunk.data = (ProtobufCBinaryData){ sizeof(raw), raw };
        part.type = (char[]){ "text/plain" };
        part.data = (ProtobufCBinaryData){ sizeof(first), first };
        part.size_bytes = 4;
        bundle.parts = parts;
        bundle.n_parts = 1;
        result.bundle = &bundle;
        data.bundle_sequence = 7;
        data.data = (ProtobufCBinaryData){ sizeof(rest), rest };

        text_printer_init(&printer, &config);
        print_one(&printer, HOTCELL__V1__EXECUTION_EVENT__EVENT_STDOUT, &chunk);
        print_one(&printer, HOTCELL__V1__EXECUTION_EVENT__EVENT_RESULT, &result);
        print_one(&printer, HOTCELL__V1__EXECUTION_EVENT__EVENT_PART_DATA, &data);
        text_printer_finish(&printer);
        out = written(config.out);
        ck_assert_str_eq(out, "\x1b?\nr\\xe2\\x80\\xae\n");
        free(out);
        fclose(config.err);
}
END_TEST

START_TEST(what_is_short_is_the_rest_of_a_line)
{
        static const char *const rows[][2] = {
                { "Memory is nearly full: 486 of 512 MiB.",
                  "memory is nearly full: 486 of 512 MiB" },
                { "", "something is short in the sandbox" },
                { ".", "" },
                { "x", "x" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                Hotcell__V1__Pressure pressure = HOTCELL__V1__PRESSURE__INIT;
                char *text;

                pressure.message = (char *)(uintptr_t)rows[i][0];
                text = pressure_sentence(&pressure);
                ck_assert_str_eq(text, rows[i][1]);
                free(text);
        }
}
END_TEST

START_TEST(only_walls_are_taken_from_the_runtime)
{
        static const char *const broken[] = {
                "", "null", "[]", "{}", "{\"walls\": 1}", "{\"walls\": [", "{\"walls\": {}}"
        };
        Hotcell__V1__GetServerInfoResponse *info = runtime_probe_parse(
                "{\"walls\": [{\"name\": \"a\", \"holds\": true, \"required\": true}, 7, "
                "{\"name\": 3, \"fix\": \"f\"}]}");

        ck_assert_ptr_nonnull(info);
        ck_assert_uint_eq(info->n_walls, 3);
        ck_assert_str_eq(info->walls[0]->name, "a");
        ck_assert(info->walls[0]->holds);
        ck_assert(!info->walls[1]->holds);
        ck_assert_str_eq(info->walls[2]->name, "");
        ck_assert_str_eq(info->walls[2]->fix, "f");
        message_free(info);
        for (size_t i = 0; i < ARRAY_SIZE(broken); i++)
                ck_assert_ptr_null(runtime_probe_parse(broken[i]));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("cli words");
        TCase *tests = tcase_create("words");

        tcase_add_test(tests, exit_codes_never_pretend_success);
        tcase_add_test(tests, json_hides_nothing_from_a_terminal);
        tcase_add_test(tests, exit_codes_beyond_a_byte_stay_failures);
        tcase_add_loop_test(tests, lines_are_safe_for_terminals, 0, ARRAY_SIZE(escapes));
        tcase_add_test(tests, cutting_anywhere_changes_nothing);
        tcase_add_test(tests, ids_names_and_beginnings);
        tcase_add_test(tests, whole_ids_are_known);
        tcase_add_test(tests, targets);
        tcase_add_test(tests, enum_names_have_no_prefix);
        tcase_add_test(tests, extensions_are_ours);
        tcase_add_test(tests, bytes_are_base64_with_text_where_nothing_is_lost);
        tcase_add_test(tests, broken_text_is_repaired_for_json);
        tcase_add_test(tests, only_the_member_that_is_set_is_shown);
        tcase_add_test(tests, maps_are_objects);
        tcase_add_test(tests, times_out_of_range_are_empty);
        tcase_add_test(tests, errors_are_bounded);
        tcase_add_test(tests, broken_details_are_left_out);
        tcase_add_test(tests, a_result_on_a_terminal_is_escaped_and_alone_on_its_line);
        tcase_add_test(tests, what_is_short_is_the_rest_of_a_line);
        tcase_add_test(tests, only_walls_are_taken_from_the_runtime);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
