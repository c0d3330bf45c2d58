/* What the runtime accepts of hotcelld, field by field. */

#include <check.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "runtime/supervisor/control.h"
#include "test/lib/suite.h"

#define DIGEST     "sha256-0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
#define LABEL63    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define BODY(name) HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_##name

/* One request of each kind, all good; a test spoils a field. */
struct samples {
        Hotcell__Runtime__V1__Hello hello;
        Hotcell__Runtime__V1__CreateSandbox create;
        Hotcell__Runtime__V1__SandboxLimits limits;
        Hotcell__Runtime__V1__DestroySandbox destroy;
        Hotcell__Runtime__V1__StartProcess start;
        Hotcell__Runtime__V1__Variable variable;
        Hotcell__Runtime__V1__Variable *environment[1];
        char *argv[2];
        Hotcell__Runtime__V1__SignalProcess signal;
        Hotcell__Runtime__V1__AcknowledgeEnd acknowledge;
        Hotcell__Runtime__V1__KeepDescriptors keep;
        Hotcell__Runtime__V1__TakeProcess take;
        Hotcell__Runtime__V1__ReadUsage read;
        Hotcell__Runtime__V1__ListSandboxes list;
        Hotcell__Runtime__V1__ProbeWalls probe;
        Hotcell__Runtime__V1__ReadMeters meters;
        Hotcell__Runtime__V1__UpdateLimits update;
};

static struct samples samples;

static char *text(const char *literal)
{
        return (char *)(uintptr_t)literal;
}

static struct wire_arena arena;

static void init_samples(void)
{
        wire_arena_deinit(&arena);
        ck_assert_int_eq(wire_arena_init(&arena, CONTROL_ARENA_MAX), 0);
        hotcell__runtime__v1__hello__init(&samples.hello);
        samples.hello.protocol_oldest = samples.hello.protocol_newest = 1;
        hotcell__runtime__v1__sandbox_limits__init(&samples.limits);
        samples.limits.memory_bytes = 256 << 20;
        samples.limits.cpu_millis = 1000;
        samples.limits.processes = 64;
        samples.limits.disk_bytes = 192 << 20;
        samples.limits.open_files = 256;
        hotcell__runtime__v1__create_sandbox__init(&samples.create);
        samples.create.sandbox_id = text("sbx-a");
        samples.create.template_digest = text(DIGEST);
        samples.create.hostname = text("box");
        samples.create.limits = &samples.limits;
        hotcell__runtime__v1__destroy_sandbox__init(&samples.destroy);
        samples.destroy.sandbox_id = text("sbx-a");
        hotcell__runtime__v1__variable__init(&samples.variable);
        samples.variable.name = text("NAME");
        samples.variable.value = text("a=b");
        samples.environment[0] = &samples.variable;
        samples.argv[0] = text("/bin/true");
        samples.argv[1] = text("");
        hotcell__runtime__v1__start_process__init(&samples.start);
        samples.start.sandbox_id = text("sbx-a");
        samples.start.process_id = text("exe-b");
        samples.start.argv = samples.argv;
        samples.start.n_argv = 2;
        samples.start.environment = samples.environment;
        samples.start.n_environment = 1;
        samples.start.working_directory = text("/");
        hotcell__runtime__v1__signal_process__init(&samples.signal);
        samples.signal.sandbox_id = text("sbx-a");
        samples.signal.process_id = text("exe-b");
        samples.signal.signal = SIGTERM;
        hotcell__runtime__v1__acknowledge_end__init(&samples.acknowledge);
        samples.acknowledge.sandbox_id = text("sbx-a");
        samples.acknowledge.process_id = text("exe-b");
        hotcell__runtime__v1__keep_descriptors__init(&samples.keep);
        samples.keep.sandbox_id = text("sbx-a");
        samples.keep.process_id = text("exe-b");
        hotcell__runtime__v1__take_process__init(&samples.take);
        samples.take.sandbox_id = text("sbx-a");
        samples.take.process_id = text("exe-b");
        hotcell__runtime__v1__read_usage__init(&samples.read);
        samples.read.sandbox_id = text("sbx-a");
        hotcell__runtime__v1__list_sandboxes__init(&samples.list);
        hotcell__runtime__v1__probe_walls__init(&samples.probe);
        hotcell__runtime__v1__read_meters__init(&samples.meters);
        hotcell__runtime__v1__update_limits__init(&samples.update);
        samples.update.sandbox_id = text("sbx-a");
        samples.update.limits = &samples.limits;
}

/* The union of bodies is pointers only, so any of them sets it. */
static const struct {
        Hotcell__Runtime__V1__ToRuntime__BodyCase body;
        void *sample;
} bodies[] = {
        { BODY(HELLO), &samples.hello },
        { BODY(CREATE_SANDBOX), &samples.create },
        { BODY(DESTROY_SANDBOX), &samples.destroy },
        { BODY(START_PROCESS), &samples.start },
        { BODY(SIGNAL_PROCESS), &samples.signal },
        { BODY(ACKNOWLEDGE_END), &samples.acknowledge },
        { BODY(KEEP_DESCRIPTORS), &samples.keep },
        { BODY(TAKE_PROCESS), &samples.take },
        { BODY(READ_USAGE), &samples.read },
        { BODY(LIST_SANDBOXES), &samples.list },
        { BODY(PROBE_WALLS), &samples.probe },
        { BODY(READ_METERS), &samples.meters },
        { BODY(UPDATE_LIMITS), &samples.update },
};

static int decode(Hotcell__Runtime__V1__ToRuntime__BodyCase body, uint64_t number,
                  struct failure *failure)
{
        static uint8_t bytes[CONTROL_PACKET_MAX];
        Hotcell__Runtime__V1__ToRuntime message;
        struct control_request request;
        size_t n_bytes;
        int r;

        hotcell__runtime__v1__to_runtime__init(&message);
        message.request = number;
        message.body_case = body;
        for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
                if (bodies[i].body == body)
                        message.hello = bodies[i].sample;
        n_bytes = hotcell__runtime__v1__to_runtime__get_packed_size(&message);
        ck_assert_uint_le(n_bytes, sizeof(bytes));
        (void)hotcell__runtime__v1__to_runtime__pack(&message, bytes);
        r = control_decode(&arena, bytes, n_bytes, &request, failure);
        if (r != CONTROL_E_MALFORMED) {
                ck_assert_uint_eq(request.number, number);
                control_request_deinit(&request);
        }
        return r;
}

static void expect_good(Hotcell__Runtime__V1__ToRuntime__BodyCase body)
{
        struct failure failure = { 0 };
        int r = decode(body, 1, &failure);

        ck_assert_msg(r == 0, "body %d: %s", (int)body, failure.message);
}

/* Refused, and the message names @field. */
static void expect_refused(Hotcell__Runtime__V1__ToRuntime__BodyCase body, const char *field)
{
        struct failure failure = { 0 };

        ck_assert_int_eq(decode(body, 1, &failure), CONTROL_E_INVALID);
        ck_assert_int_eq(failure.reason, FAILURE(INVALID));
        ck_assert_msg(strncmp(failure.message, field, strlen(field)) == 0, "%s: %s", field,
                      failure.message);
        init_samples();
}

START_TEST(good_requests_are_accepted)
{
        for (size_t i = 0; i < ARRAY_SIZE(bodies); i++)
                expect_good(bodies[i].body);
        samples.read.process_id = text("exe-b");
        expect_good(BODY(READ_USAGE));
        samples.list.after_sandbox_id = text("sbx-a");
        expect_good(BODY(LIST_SANDBOXES));
        samples.meters.after_sandbox_id = text("sbx-a");
        expect_good(BODY(READ_METERS));
        samples.create.sandbox_id = text(LABEL63);
        expect_good(BODY(CREATE_SANDBOX));
}
END_TEST

START_TEST(what_is_no_message_is_malformed)
{
        static uint8_t bytes[CONTROL_PACKET_MAX + 1];
        struct control_request request;
        struct failure failure;

        ck_assert_int_eq(decode(BODY(HELLO), 0, &failure), CONTROL_E_MALFORMED);
        ck_assert_int_eq(control_decode(&arena, bytes, 0, &request, &failure), CONTROL_E_MALFORMED);
        ck_assert_int_eq(control_decode(&arena, bytes, sizeof(bytes), &request, &failure),
                         CONTROL_E_MALFORMED);
        memset(bytes, 0xff, sizeof(bytes));
        for (size_t n = 1; n < 64; n++)
                ck_assert_int_eq(control_decode(&arena, bytes, n, &request, &failure),
                                 CONTROL_E_MALFORMED);
}
END_TEST

START_TEST(missing_body_is_answered)
{
        expect_refused(BODY(_NOT_SET), "body");
}
END_TEST

START_TEST(bad_ids_are_refused)
{
        static const char *const bad[] = { "", "A", "a_b", "-a", "a-", "a/b", "..", LABEL63 "a" };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                samples.create.sandbox_id = text(bad[i]);
                expect_refused(BODY(CREATE_SANDBOX), "sandbox_id");
                samples.destroy.sandbox_id = text(bad[i]);
                expect_refused(BODY(DESTROY_SANDBOX), "sandbox_id");
                samples.start.sandbox_id = text(bad[i]);
                expect_refused(BODY(START_PROCESS), "sandbox_id");
                samples.start.process_id = text(bad[i]);
                expect_refused(BODY(START_PROCESS), "process_id");
                samples.signal.sandbox_id = text(bad[i]);
                expect_refused(BODY(SIGNAL_PROCESS), "sandbox_id");
                samples.signal.process_id = text(bad[i]);
                expect_refused(BODY(SIGNAL_PROCESS), "process_id");
                samples.acknowledge.sandbox_id = text(bad[i]);
                expect_refused(BODY(ACKNOWLEDGE_END), "sandbox_id");
                samples.acknowledge.process_id = text(bad[i]);
                expect_refused(BODY(ACKNOWLEDGE_END), "process_id");
                samples.keep.sandbox_id = text(bad[i]);
                expect_refused(BODY(KEEP_DESCRIPTORS), "sandbox_id");
                samples.keep.process_id = text(bad[i]);
                expect_refused(BODY(KEEP_DESCRIPTORS), "process_id");
                samples.take.sandbox_id = text(bad[i]);
                expect_refused(BODY(TAKE_PROCESS), "sandbox_id");
                samples.take.process_id = text(bad[i]);
                expect_refused(BODY(TAKE_PROCESS), "process_id");
                samples.read.sandbox_id = text(bad[i]);
                expect_refused(BODY(READ_USAGE), "sandbox_id");
                samples.update.sandbox_id = text(bad[i]);
                expect_refused(BODY(UPDATE_LIMITS), "sandbox_id");
                samples.create.hostname = text(bad[i]);
                expect_refused(BODY(CREATE_SANDBOX), "hostname");
        }
        samples.read.process_id = text("A");
        expect_refused(BODY(READ_USAGE), "process_id");
        samples.list.after_sandbox_id = text("A");
        expect_refused(BODY(LIST_SANDBOXES), "after_sandbox_id");
        samples.meters.after_sandbox_id = text("A");
        expect_refused(BODY(READ_METERS), "after_sandbox_id");
}
END_TEST

START_TEST(meters_of_too_many_or_of_what_is_no_id_are_refused)
{
        char *ids[CONTROL_METERS_MAX + 1];

        for (size_t i = 0; i < ARRAY_SIZE(ids); i++)
                ids[i] = text("sbx-a");
        samples.meters.sandbox_ids = ids;
        samples.meters.n_sandbox_ids = CONTROL_METERS_MAX;
        expect_good(BODY(READ_METERS));
        samples.meters.n_sandbox_ids++;
        expect_refused(BODY(READ_METERS), "sandbox_ids");
        ids[1] = text("A");
        samples.meters.sandbox_ids = ids;
        samples.meters.n_sandbox_ids = 2;
        expect_refused(BODY(READ_METERS), "sandbox_ids");
}
END_TEST

START_TEST(bad_versions_are_refused)
{
        samples.hello.protocol_oldest = 0;
        expect_refused(BODY(HELLO), "protocol_oldest");
        samples.hello.protocol_oldest = 2;
        expect_refused(BODY(HELLO), "protocol_newest");
}
END_TEST

START_TEST(bad_digests_are_refused)
{
        static const char *const bad[] = {
                "",
                "sha256-",
                "sha256-zz",
                "md5-0123",
                DIGEST "0",
                "sha256-0123456789ABCDEF0123456789abcdef0123456789abcdef0123456789abcdef",
                "../../etc/../../../../../../../../../../../../../../../../../../etc/x",
        };

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                samples.create.template_digest = text(bad[i]);
                expect_refused(BODY(CREATE_SANDBOX), "template_digest");
        }
}
END_TEST

START_TEST(limits_out_of_range_are_refused)
{
        samples.create.limits = NULL;
        expect_refused(BODY(CREATE_SANDBOX), "limits");
        samples.limits.memory_bytes = 64 << 20;
        expect_refused(BODY(CREATE_SANDBOX), "limits.memory_bytes");
        samples.limits.memory_bytes = CONTROL_MEMORY_MAX + 1;
        expect_refused(BODY(CREATE_SANDBOX), "limits.memory_bytes");
        samples.limits.memory_bytes = UINT64_MAX;
        expect_refused(BODY(CREATE_SANDBOX), "limits.memory_bytes");
        samples.limits.cpu_millis = CONTROL_CPU_MILLIS_MIN - 1;
        expect_refused(BODY(CREATE_SANDBOX), "limits.cpu_millis");
        samples.limits.cpu_millis = UINT32_MAX;
        expect_refused(BODY(CREATE_SANDBOX), "limits.cpu_millis");
        samples.limits.processes = 0;
        expect_refused(BODY(CREATE_SANDBOX), "limits.processes");
        samples.limits.processes = UINT32_MAX;
        expect_refused(BODY(CREATE_SANDBOX), "limits.processes");
        samples.limits.open_files = CONTROL_OPEN_FILES_MIN - 1;
        expect_refused(BODY(CREATE_SANDBOX), "limits.open_files");
        samples.limits.open_files = CONTROL_OPEN_FILES_MAX + 1;
        expect_refused(BODY(CREATE_SANDBOX), "limits.open_files");
        samples.limits.disk_bytes = 0;
        expect_refused(BODY(CREATE_SANDBOX), "limits.disk_bytes");
        samples.limits.disk_bytes = (192 << 20) + 1;
        expect_refused(BODY(CREATE_SANDBOX), "limits.disk_bytes");
        samples.limits.disk_bytes = UINT64_MAX;
        expect_refused(BODY(CREATE_SANDBOX), "limits.disk_bytes");
        samples.limits.cpu_weight = CONTROL_CPU_WEIGHT_MAX + 1;
        expect_refused(BODY(CREATE_SANDBOX), "limits.cpu_weight");
        samples.limits.disk_inodes = UINT64_MAX;
        expect_refused(BODY(CREATE_SANDBOX), "limits.disk_inodes");
        samples.limits.io_bytes_per_second = UINT64_MAX;
        expect_refused(BODY(CREATE_SANDBOX), "limits.io_bytes_per_second");
        samples.update.limits = NULL;
        expect_refused(BODY(UPDATE_LIMITS), "limits");
        samples.limits.memory_bytes = 64 << 20;
        expect_refused(BODY(UPDATE_LIMITS), "limits.memory_bytes");
}
END_TEST

START_TEST(bad_programs_are_refused)
{
        static char word[CONTROL_WORD_MAX + 2];
        static char path[CONTROL_PATH_MAX + 2];
        static char *words[CONTROL_ARGV_MAX + 1];

        samples.start.n_argv = 0;
        expect_refused(BODY(START_PROCESS), "argv");
        samples.argv[0] = text("sh");
        expect_refused(BODY(START_PROCESS), "argv[0]");
        samples.argv[0] = text("");
        expect_refused(BODY(START_PROCESS), "argv[0]");
        memset(path, '/', sizeof(path) - 1);
        samples.argv[0] = path;
        expect_refused(BODY(START_PROCESS), "argv[0]");
        memset(word, 'x', sizeof(word) - 1);
        samples.argv[1] = word;
        expect_refused(BODY(START_PROCESS), "argv");
        for (size_t i = 0; i < ARRAY_SIZE(words); i++)
                words[i] = text("/");
        samples.start.argv = words;
        samples.start.n_argv = ARRAY_SIZE(words);
        expect_refused(BODY(START_PROCESS), "argv");
        samples.start.working_directory = text("tmp");
        expect_refused(BODY(START_PROCESS), "working_directory");
        samples.start.working_directory = path;
        expect_refused(BODY(START_PROCESS), "working_directory");
        samples.start.uid = CONTROL_ID_MAX + 1;
        expect_refused(BODY(START_PROCESS), "uid");
        samples.start.gid = UINT32_MAX;
        expect_refused(BODY(START_PROCESS), "gid");
}
END_TEST

START_TEST(bad_environments_are_refused)
{
        static char value[CONTROL_ENVIRONMENT_MAX];
        static Hotcell__Runtime__V1__Variable *many[CONTROL_VARIABLES_MAX + 1];

        samples.variable.name = text("");
        expect_refused(BODY(START_PROCESS), "environment");
        samples.variable.name = text("a=b");
        expect_refused(BODY(START_PROCESS), "environment");
        memset(value, 'x', sizeof(value) - 1);
        samples.variable.value = value;
        expect_refused(BODY(START_PROCESS), "environment");
        for (size_t i = 0; i < ARRAY_SIZE(many); i++)
                many[i] = &samples.variable;
        samples.start.environment = many;
        samples.start.n_environment = ARRAY_SIZE(many);
        expect_refused(BODY(START_PROCESS), "environment");
}
END_TEST

START_TEST(bad_signals_are_refused)
{
        samples.signal.signal = 0;
        expect_refused(BODY(SIGNAL_PROCESS), "signal");
        samples.signal.signal = (uint32_t)NSIG;
        expect_refused(BODY(SIGNAL_PROCESS), "signal");
        samples.signal.signal = UINT32_MAX;
        expect_refused(BODY(SIGNAL_PROCESS), "signal");
}
END_TEST

/* A packet of empty words asks for many times its size in memory. */
START_TEST(memory_for_one_packet_is_bounded)
{
        static uint8_t bytes[CONTROL_PACKET_MAX];
        struct control_request request;
        struct failure failure;
        size_t n = 0;

        bytes[n++] = 0x08; /* request = 1 */
        bytes[n++] = 1;
        bytes[n++] = 0x2a; /* start_process, length in three bytes */
        bytes[n++] = 0x80 | ((sizeof(bytes) - 8) & 0x7f);
        bytes[n++] = 0x80 | (((sizeof(bytes) - 8) >> 7) & 0x7f);
        bytes[n++] = (sizeof(bytes) - 8) >> 14;
        for (size_t i = 0; i < sizeof(bytes) - 8; i += 2) {
                bytes[n + i] = 0x1a; /* argv: "" */
                bytes[n + i + 1] = 0;
        }
        n += sizeof(bytes) - 8;
        ck_assert_int_eq(control_decode(&arena, bytes, n, &request, &failure), CONTROL_E_MALFORMED);
        /* The same packet with few words is read: it is the arena that said no. */
        bytes[3] = 0x80 | 40;
        bytes[4] = 0x80;
        bytes[5] = 0;
        ck_assert_int_eq(control_decode(&arena, bytes, 6 + 40, &request, &failure),
                         CONTROL_E_INVALID);
        control_request_deinit(&request);
}
END_TEST

static Suite *control_suite(void)
{
        Suite *suite = suite_create("control");
        TCase *tests = tcase_create("decode");

        tcase_add_checked_fixture(tests, init_samples, NULL);
        tcase_add_test(tests, good_requests_are_accepted);
        tcase_add_test(tests, what_is_no_message_is_malformed);
        tcase_add_test(tests, missing_body_is_answered);
        tcase_add_test(tests, bad_ids_are_refused);
        tcase_add_test(tests, meters_of_too_many_or_of_what_is_no_id_are_refused);
        tcase_add_test(tests, bad_versions_are_refused);
        tcase_add_test(tests, bad_digests_are_refused);
        tcase_add_test(tests, limits_out_of_range_are_refused);
        tcase_add_test(tests, bad_programs_are_refused);
        tcase_add_test(tests, bad_environments_are_refused);
        tcase_add_test(tests, bad_signals_are_refused);
        tcase_add_test(tests, memory_for_one_packet_is_bounded);
        suite_add_tcase(suite, tests);
        return suite;
}

int main(void)
{
        return suite_main(control_suite());
}
