/* Rich errors, health and reflection. */
#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/clip.h"
#include "server/api/health.h"
#include "server/api/reasons.h"
#include "server/api/reflection.h"
#include "server/api/status.h"
#include "server/api/symbols.h"
#include "test/lib/scratch.h"
#include "test/lib/suite.h"
#include "test/unit/rpc/client.h"
#include "test/unit/rpc/harness.h"

static struct harness harness;
static struct client client;
static char folder[64];

static void setup(void)
{
        char path[96];
        char target[128];

        strcpy(folder, "/tmp/hotcell-api-XXXXXX");
        scratch_make(folder);
        (void)snprintf(path, sizeof(path), "%s/socket", folder);
        (void)snprintf(target, sizeof(target), "unix:%s", path);
        grpc_init();
        harness_init(&harness);
        harness_start(&harness, path, false);
        client_init(&client, target);
}

static void teardown(void)
{
        char path[96];

        client_deinit(&client);
        harness_stop(&harness);
        grpc_shutdown();
        (void)snprintf(path, sizeof(path), "%s/socket.lock", folder);
        (void)unlink(path);
        ck_assert_int_eq(rmdir(folder), 0);
        scratch_remove(folder);
}

/* --- status --- */

static const Google__Protobuf__Any *detail(const Google__Rpc__Status *status, const char *type)
{
        for (size_t i = 0; i < status->n_details; i++)
                if (strcmp(strrchr(status->details[i]->type_url, '/') + 1, type) == 0)
                        return status->details[i];
        return NULL;
}

START_TEST(status_carries_every_detail)
{
        struct client_result result = client_unary(&client, "/test.Test/Fail", "", 0, 5000);
        Google__Rpc__Status *status =
                google__rpc__status__unpack(NULL, result.n_details, result.details);
        Google__Rpc__ErrorInfo *info;
        Google__Rpc__BadRequest *bad;
        Google__Rpc__RetryInfo *retry;
        const Google__Protobuf__Any *any;

        ck_assert_ptr_nonnull(status);
        ck_assert_int_eq(status->code, RPC_RESOURCE_EXHAUSTED);
        ck_assert_str_eq(status->message, result.message);

        any = detail(status, "google.rpc.ErrorInfo");
        info = google__rpc__error_info__unpack(NULL, any->value.len, any->value.data);
        ck_assert_str_eq(info->reason, "SANDBOX_LIMIT");
        ck_assert_str_eq(info->domain, "hotcell.dev");
        ck_assert_str_eq(info->metadata[0]->key, "max");
        google__rpc__error_info__free_unpacked(info, NULL);

        any = detail(status, "google.rpc.BadRequest");
        bad = google__rpc__bad_request__unpack(NULL, any->value.len, any->value.data);
        ck_assert_uint_eq(bad->n_field_violations, 2);
        ck_assert_str_eq(bad->field_violations[1]->field, "spec.labels[\"ä\"]");
        google__rpc__bad_request__free_unpacked(bad, NULL);

        any = detail(status, "google.rpc.RetryInfo");
        retry = google__rpc__retry_info__unpack(NULL, any->value.len, any->value.data);
        ck_assert_int_eq(retry->retry_delay->seconds, 1);
        ck_assert_int_eq(retry->retry_delay->nanos, 500000000);
        google__rpc__retry_info__free_unpacked(retry, NULL);

        ck_assert_ptr_nonnull(detail(status, "google.rpc.ResourceInfo"));
        ck_assert_ptr_nonnull(detail(status, "google.rpc.QuotaFailure"));
        google__rpc__status__free_unpacked(status, NULL);
}
END_TEST

START_TEST(status_is_cut_to_size)
{
        struct status status;
        char text[4000];
        void *bytes;
        size_t n_bytes;
        Google__Rpc__Status *packed;

        for (size_t i = 0; i < sizeof(text) - 4; i += 3)
                memcpy(text + i, "€", 4);
        status_init(&status, REASON_INVALID_FIELD, "%s", text);
        for (int i = 0; i < 20; i++) {
                status_add_metadata(&status, text, text);
                status_add_field(&status, text, "%s", text);
        }
        status_set_resource(&status, text, text);
        status_set_quota(&status, text, "%s", text);
        status_set_retry(&status, UINT64_MAX);
        ck_assert_int_eq(status_pack(&status, &bytes, &n_bytes), 0);
        ck_assert_uint_le(clip_header_size(status.message) + n_bytes * 4 / 3, STATUS_WIRE_MAX);
        ck_assert(text_is_utf8(status.message, strlen(status.message)));

        packed = google__rpc__status__unpack(NULL, n_bytes, bytes);
        ck_assert_ptr_nonnull(packed);
        ck_assert_ptr_nonnull(detail(packed, "google.rpc.ErrorInfo"));
        ck_assert_ptr_nonnull(detail(packed, "google.rpc.BadRequest"));
        ck_assert_ptr_nonnull(detail(packed, "google.rpc.RetryInfo"));
        google__rpc__status__free_unpacked(packed, NULL);
        free(bytes);
}
END_TEST

START_TEST(reasons_are_well_named)
{
        for (unsigned i = 0; i < _REASON_N; i++) {
                const struct reason_info *info = reason_info((enum reason)i);

                ck_assert_uint_lt(strlen(info->name), 64);
                ck_assert_uint_eq(strspn(info->name, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"),
                                  strlen(info->name));
                ck_assert_int_ne(info->code, RPC_OK);
                ck_assert_int_eq(info->sentence[strlen(info->sentence) - 1], '.');
        }
}
END_TEST

START_TEST(reasons_document_is_up_to_date)
{
        _cleanup_(fclosep) FILE *document = fopen(getenv("HOTCELL_REASONS_MD"), "re");
        FILE *table = popen(getenv("HOTCELL_REASONS_DOC"), "re");
        int expected;

        ck_assert_ptr_nonnull(document);
        ck_assert_ptr_nonnull(table);
        do {
                expected = fgetc(table);
                ck_assert_int_eq(fgetc(document), expected);
        } while (expected != EOF);
        ck_assert_int_eq(pclose(table), 0);
}
END_TEST

/* --- health --- */

static size_t health_request(const char *service, uint8_t bytes[static 64])
{
        Grpc__Health__V1__HealthCheckRequest request;
        char name[64];

        grpc__health__v1__health_check_request__init(&request);
        (void)snprintf(name, sizeof(name), "%s", service);
        request.service = name;
        return grpc__health__v1__health_check_request__pack(&request, bytes);
}

static int serving_status(const struct client_result *result)
{
        Grpc__Health__V1__HealthCheckResponse *response =
                grpc__health__v1__health_check_response__unpack(NULL, result->n_bytes,
                                                                result->bytes);
        int status = (int)response->status;

        grpc__health__v1__health_check_response__free_unpacked(response, NULL);
        return status;
}

enum {
        SERVING = 1,
        NOT_SERVING = 2,
        SERVICE_UNKNOWN = 3,
};

static int check(const char *service, grpc_status_code *ret_code)
{
        uint8_t bytes[64];
        struct client_result result = client_unary(&client, "/grpc.health.v1.Health/Check", bytes,
                                                   health_request(service, bytes), 5000);
        int status = result.code == GRPC_STATUS_OK ? serving_status(&result) : -1;

        *ret_code = result.code;
        client_result_deinit(&result);
        return status;
}

static void set_serving(struct harness *on)
{
        health_set(on->health, true);
}

static void set_not_serving(struct harness *on)
{
        health_set(on->health, false);
}

START_TEST(health_checks_each_service)
{
        grpc_status_code code;

        ck_assert_int_eq(check("", &code), NOT_SERVING);
        harness_run(&harness, set_serving);
        ck_assert_int_eq(check("", &code), SERVING);
        ck_assert_int_eq(check("test.Test", &code), SERVING);
        ck_assert_int_eq(check("test.Nothing", &code), -1);
        ck_assert_int_eq(code, GRPC_STATUS_NOT_FOUND);
}
END_TEST

static void watch(struct client_call *call, const char *service)
{
        uint8_t bytes[64];

        client_open(&client, call, "/grpc.health.v1.Health/Watch", 10000);
        client_send(call, bytes, health_request(service, bytes));
        client_half_close(call);
        ck_assert(client_read(call));
}

START_TEST(health_watchers_hear_of_changes_and_of_the_end)
{
        struct client_call call;
        struct client_call unknown;
        struct client_call leaving;

        watch(&call, "test.Test");
        ck_assert_int_eq(serving_status(&call.result), NOT_SERVING);
        watch(&unknown, "test.Nothing");
        ck_assert_int_eq(serving_status(&unknown.result), SERVICE_UNKNOWN);
        watch(&leaving, "");
        client_abandon(&leaving);

        harness_run(&harness, set_serving);
        ck_assert(client_read(&call));
        ck_assert_int_eq(serving_status(&call.result), SERVING);
        harness_run(&harness, set_serving); /* no change, no message */
        harness_run(&harness, set_not_serving);
        ck_assert(client_read(&call));
        ck_assert_int_eq(serving_status(&call.result), NOT_SERVING);
        harness_run(&harness, set_serving);
        ck_assert(client_read(&call));
        ck_assert_int_eq(serving_status(&call.result), SERVING);

        harness_begin_stop(&harness, 5000000);
        ck_assert(client_read(&call));
        ck_assert_int_eq(serving_status(&call.result), NOT_SERVING);
        ck_assert(!client_read(&call));
        client_finish(&call);
        ck_assert_int_eq(call.result.code, GRPC_STATUS_UNAVAILABLE);
        ck_assert(!client_read(&unknown));
        client_finish(&unknown);
        ck_assert_int_eq(unknown.result.code, GRPC_STATUS_UNAVAILABLE);
        client_result_deinit(&call.result);
        client_result_deinit(&unknown.result);
}
END_TEST

START_TEST(bad_text_is_answered_with_its_field)
{
        struct client_result result =
                client_unary(&client, "/grpc.health.v1.Health/Check", "\x0a\x02\xff\xff", 4, 5000);
        Google__Rpc__Status *status =
                google__rpc__status__unpack(NULL, result.n_details, result.details);

        ck_assert_int_eq(result.code, GRPC_STATUS_INVALID_ARGUMENT);
        ck_assert_str_eq(result.message, "service is not valid text.");
        ck_assert_ptr_nonnull(detail(status, "google.rpc.BadRequest"));
        google__rpc__status__free_unpacked(status, NULL);

        result = client_unary(&client, "/grpc.health.v1.Health/Check", "\x0a\x05", 2, 5000);
        ck_assert_int_eq(result.code, GRPC_STATUS_INVALID_ARGUMENT);
}
END_TEST

/* --- reflection --- */

typedef Grpc__Reflection__V1__ServerReflectionRequest question;
typedef Grpc__Reflection__V1__ServerReflectionResponse answer;

static void ask(struct client_call *call, question *asked)
{
        uint8_t bytes[512];

        client_send(call, bytes,
                    grpc__reflection__v1__server_reflection_request__pack(asked, bytes));
}

static answer *hear(struct client_call *call)
{
        answer *heard;

        ck_assert(client_read(call));
        heard = grpc__reflection__v1__server_reflection_response__unpack(NULL, call->result.n_bytes,
                                                                         call->result.bytes);
        ck_assert_ptr_nonnull(heard);
        return heard;
}

#define QUESTION(field, text)                                                                      \
        {                                                                                          \
                .base = PROTOBUF_C_MESSAGE_INIT(                                                   \
                        &grpc__reflection__v1__server_reflection_request__descriptor),             \
                .host = "localhost",                                                               \
                .message_request_case =                                                            \
                        GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_##field,  \
                {                                                                                  \
                        .list_services = text                                                      \
                }                                                                                  \
        }

static size_t n_files_of(struct client_call *call, question asked)
{
        answer *heard;
        size_t n = 0;

        ask(call, &asked);
        heard = hear(call);
        if (heard->message_response_case ==
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE)
                n = heard->file_descriptor_response->n_file_descriptor_proto;
        else
                ck_assert_int_eq(heard->error_response->error_code, RPC_NOT_FOUND);
        grpc__reflection__v1__server_reflection_response__free_unpacked(heard, NULL);
        return n;
}

static const struct {
        const char *symbol;
        bool is_there;
} asked_symbols[] = {
        { "hotcell.v1.SandboxService", true },
        { "hotcell.v1.SandboxService.CreateSandbox", true },
        { "hotcell.v1.ExecuteRequest", true },
        { "hotcell.v1.ExecuteRequest.code", true },
        { "hotcell.v1.SandboxSpec.LabelsEntry", true },
        { "hotcell.v1.Outcome", true },
        { "hotcell.v1.OUTCOME_OOM", true },
        { "google.rpc.ErrorInfo", true },
        { "grpc.health.v1.Health", true },
        { "hotcell.v1", false },
        { "hotcell.v1.Nothing", false },
        { ".hotcell.v1.SandboxService", false },
        { "", false },
};

START_TEST(reflection_finds_symbols_and_files)
{
        struct client_call call;
        question file = QUESTION(FILE_BY_FILENAME, "hotcell/v1/sandbox_service.proto");
        question no_file = QUESTION(FILE_BY_FILENAME, "hotcell/v1/nothing.proto");

        client_open(&client, &call, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                    10000);
        for (size_t i = 0; i < ARRAY_SIZE(asked_symbols); i++) {
                char symbol[64];
                question asked = QUESTION(FILE_CONTAINING_SYMBOL, symbol);

                strcpy(symbol, asked_symbols[i].symbol);
                ck_assert_msg((n_files_of(&call, asked) > 0) == asked_symbols[i].is_there, "%s",
                              symbol);
        }
        /* It imports duration, field_mask, timestamp, egress, sandbox and through that execution.
         */
        ck_assert_uint_eq(n_files_of(&call, file), 7);
        ck_assert_uint_eq(n_files_of(&call, no_file), 0);
        client_half_close(&call);
        ck_assert(!client_read(&call));
        client_finish(&call);
        ck_assert_int_eq(call.result.code, GRPC_STATUS_OK);
        client_result_deinit(&call.result);
}
END_TEST

START_TEST(reflection_lists_services_in_both_versions)
{
        static const char *const paths[] = {
                "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        };
        question asked = QUESTION(LIST_SERVICES, "*");

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++) {
                struct client_call call;
                answer *heard;
                bool is_found = false;

                client_open(&client, &call, paths[i], 5000);
                ask(&call, &asked);
                heard = hear(&call);
                ck_assert_str_eq(heard->valid_host, "localhost");
                ck_assert_str_eq(heard->original_request->list_services, "*");
                for (size_t j = 0; j < heard->list_services_response->n_service; j++)
                        if (!strcmp(heard->list_services_response->service[j]->name,
                                    "hotcell.v1.ExecutionService"))
                                is_found = true;
                ck_assert(is_found);
                grpc__reflection__v1__server_reflection_response__free_unpacked(heard, NULL);
                client_abandon(&call);
        }
}
END_TEST

START_TEST(reflection_has_no_extensions)
{
        struct client_call call;
        question numbers = QUESTION(ALL_EXTENSION_NUMBERS_OF_TYPE, "hotcell.v1.Sandbox");
        question nothing = QUESTION(ALL_EXTENSION_NUMBERS_OF_TYPE, "hotcell.v1.Nothing");
        question empty = QUESTION(_NOT_SET, NULL);
        Grpc__Reflection__V1__ExtensionRequest extension;
        question one = QUESTION(FILE_CONTAINING_EXTENSION, NULL);
        answer *heard;

        client_open(&client, &call, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
                    10000);
        ask(&call, &numbers);
        heard = hear(&call);
        ck_assert_str_eq(heard->all_extension_numbers_response->base_type_name,
                         "hotcell.v1.Sandbox");
        ck_assert_uint_eq(heard->all_extension_numbers_response->n_extension_number, 0);
        grpc__reflection__v1__server_reflection_response__free_unpacked(heard, NULL);
        ck_assert_uint_eq(n_files_of(&call, nothing), 0);
        grpc__reflection__v1__extension_request__init(&extension);
        one.file_containing_extension = &extension;
        ck_assert_uint_eq(n_files_of(&call, one), 0);

        ask(&call, &empty);
        heard = hear(&call);
        ck_assert_int_eq(heard->error_response->error_code, RPC_INVALID_ARGUMENT);
        grpc__reflection__v1__server_reflection_response__free_unpacked(heard, NULL);
        client_abandon(&call);
}
END_TEST

START_TEST(no_file_of_ours_defines_extensions)
{
        struct symbols symbols;

        ck_assert_int_eq(symbols_init(&symbols,
                                      (struct wire_bytes){ api_descriptors, api_descriptors_size }),
                         0);
        ck_assert_uint_gt(symbols.n_files, 10);
        for (size_t i = 0; i < symbols.n_files; i++)
                ck_assert_uint_eq(symbols.files[i].proto->n_extension, 0);
        symbols_deinit(&symbols);
        ck_assert_int_lt(
                symbols_init(&symbols, (struct wire_bytes){ (const uint8_t *)"\x0a\x05x", 3 }), 0);
}
END_TEST

int main(void)
{
        Suite *all = suite_create("services");
        TCase *served = tcase_create("served");
        TCase *pure = tcase_create("pure");

        log_init("test_services", LOG_LEVEL_ERROR);
        tcase_add_checked_fixture(served, setup, teardown);
        tcase_set_timeout(served, 60);
        tcase_add_test(served, status_carries_every_detail);
        tcase_add_test(served, health_checks_each_service);
        tcase_add_test(served, health_watchers_hear_of_changes_and_of_the_end);
        tcase_add_test(served, bad_text_is_answered_with_its_field);
        tcase_add_test(served, reflection_finds_symbols_and_files);
        tcase_add_test(served, reflection_lists_services_in_both_versions);
        tcase_add_test(served, reflection_has_no_extensions);
        suite_add_tcase(all, served);
        tcase_add_test(pure, status_is_cut_to_size);
        tcase_add_test(pure, reasons_are_well_named);
        tcase_add_test(pure, reasons_document_is_up_to_date);
        tcase_add_test(pure, no_file_of_ours_defines_extensions);
        suite_add_tcase(all, pure);
        return suite_main(all);
}
