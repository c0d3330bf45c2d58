/*
 * v1 and v1alpha are one on the wire, so one codec serves both. A stream of questions, each with
 * one answer; a question that has none is answered with an error_response, and the stream goes on.
 * No file of ours defines extensions (a test sees to it), so asking for one finds nothing.
 */
#include "server/api/reflection.h"

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/decode.h"
#include "server/api/symbols.h"

typedef Grpc__Reflection__V1__ServerReflectionRequest question;
typedef Grpc__Reflection__V1__ServerReflectionResponse answer;

struct reflection {
        struct symbols symbols;
        /* Answers to list_services, pointing into `symbols`. */
        Grpc__Reflection__V1__ServiceResponse *services;
        Grpc__Reflection__V1__ServiceResponse **service_pointers;
        size_t n_services;
        /* For one answer at a time. */
        ProtobufCBinaryData *files;
        bool *is_added;
};

/* --- life --- */

static int collect_services(struct reflection *reflection)
{
        const struct symbols *symbols = &reflection->symbols;
        size_t n = 0;

        for (size_t i = 0; i < symbols->n_files; i++)
                n += symbols->files[i].proto->n_service;
        reflection->services = calloc(n + 1, sizeof(*reflection->services));
        reflection->service_pointers = calloc(n + 1, sizeof(void *));
        if (!reflection->services || !reflection->service_pointers)
                return error_origin(-ENOMEM);

        for (size_t i = 0; i < symbols->n_files; i++) {
                const Google__Protobuf__FileDescriptorProto *file = symbols->files[i].proto;

                for (size_t j = 0; j < file->n_service; j++) {
                        Grpc__Reflection__V1__ServiceResponse *service =
                                &reflection->services[reflection->n_services];

                        grpc__reflection__v1__service_response__init(service);
                        if (asprintf(&service->name, "%s.%s", file->package,
                                     file->service[j]->name) < 0) {
                                service->name = NULL;
                                return error_origin(-ENOMEM);
                        }
                        reflection->service_pointers[reflection->n_services++] = service;
                }
        }
        return 0;
}

int reflection_new(const void *descriptors, size_t n_descriptors,
                   struct reflection **ret_reflection)
{
        _cleanup_(reflection_freep) struct reflection *reflection = NULL;
        int r;

        reflection = calloc(1, sizeof(*reflection));
        if (!reflection)
                return error_origin(-ENOMEM);
        r = symbols_init(&reflection->symbols, (struct wire_bytes){ descriptors, n_descriptors });
        if (r)
                return error_fold(r);
        reflection->files = calloc(reflection->symbols.n_files + 1, sizeof(*reflection->files));
        reflection->is_added = calloc(reflection->symbols.n_files + 1, sizeof(bool));
        if (!reflection->files || !reflection->is_added)
                return error_origin(-ENOMEM);
        r = collect_services(reflection);
        if (r)
                return error_fold(r);

        *ret_reflection = take(reflection);
        return 0;
}

struct reflection *reflection_free(struct reflection *reflection)
{
        if (!reflection)
                return NULL;
        for (size_t i = 0; i < reflection->n_services; i++)
                free(reflection->services[i].name);
        free(reflection->services);
        free(reflection->service_pointers);
        free(reflection->files);
        free(reflection->is_added);
        symbols_deinit(&reflection->symbols);
        free(reflection);
        return NULL;
}

/* --- answers --- */

/* The parts that an answer points at while it is packed. */
struct parts {
        Grpc__Reflection__V1__FileDescriptorResponse files;
        Grpc__Reflection__V1__ExtensionNumberResponse extensions;
        Grpc__Reflection__V1__ListServiceResponse services;
        Grpc__Reflection__V1__ErrorResponse error;
};

static void parts_init(struct parts *parts)
{
        grpc__reflection__v1__file_descriptor_response__init(&parts->files);
        grpc__reflection__v1__extension_number_response__init(&parts->extensions);
        grpc__reflection__v1__list_service_response__init(&parts->services);
        grpc__reflection__v1__error_response__init(&parts->error);
}

static void answer_error(answer *to, struct parts *parts, enum rpc_code code, const char *message)
{
        parts->error.error_code = (int32_t)code;
        parts->error.error_message = unconst(message); /* only packed */
        to->error_response = &parts->error;
        to->message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
}

/* The file and what it imports, each once. As deep as imports go. */
static void add_files(struct reflection *reflection, struct parts *parts, size_t file)
{
        const struct symbol_file *added = &reflection->symbols.files[file];
        size_t imported;

        if (reflection->is_added[file])
                return;
        reflection->is_added[file] = true;
        reflection->files[parts->files.n_file_descriptor_proto++] = (ProtobufCBinaryData){
                .data = (uint8_t *)(uintptr_t)added->bytes.start, /* only packed */
                .len = added->bytes.n,
        };
        for (size_t i = 0; i < added->proto->n_dependency; i++)
                if (symbols_find_file(&reflection->symbols, added->proto->dependency[i],
                                      &imported) == 0)
                        add_files(reflection, parts, imported);
}

static void answer_file(struct reflection *reflection, answer *to, struct parts *parts, size_t file)
{
        for (size_t i = 0; i < reflection->symbols.n_files; i++)
                reflection->is_added[i] = false;
        add_files(reflection, parts, file);
        parts->files.file_descriptor_proto = reflection->files;
        to->file_descriptor_response = &parts->files;
        to->message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
}

static void answer_filename(struct reflection *reflection, answer *to, struct parts *parts,
                            const char *name)
{
        size_t file;

        if (symbols_find_file(&reflection->symbols, name, &file) == 0)
                answer_file(reflection, to, parts, file);
        else
                answer_error(to, parts, RPC_NOT_FOUND, "There is no such file.");
}

static void answer_symbol(struct reflection *reflection, answer *to, struct parts *parts,
                          const char *name)
{
        const struct symbol *symbol;

        if (symbols_find(&reflection->symbols, name, &symbol) == 0)
                answer_file(reflection, to, parts, symbol->file);
        else
                answer_error(to, parts, RPC_NOT_FOUND, "There is no such symbol.");
}

static void answer_extension_numbers(struct reflection *reflection, answer *to, struct parts *parts,
                                     const char *type)
{
        const struct symbol *symbol;

        if (symbols_find(&reflection->symbols, type, &symbol) || !symbol->is_message) {
                answer_error(to, parts, RPC_NOT_FOUND, "There is no such message.");
                return;
        }
        parts->extensions.base_type_name = symbol->name;
        to->all_extension_numbers_response = &parts->extensions;
        to->message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ALL_EXTENSION_NUMBERS_RESPONSE;
}

static void answer_services(struct reflection *reflection, answer *to, struct parts *parts)
{
        parts->services.service = reflection->service_pointers;
        parts->services.n_service = reflection->n_services;
        to->list_services_response = &parts->services;
        to->message_response_case =
                GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
}

static void answer_question(struct reflection *reflection, answer *to, struct parts *parts,
                            const question *asked)
{
        switch (asked->message_request_case) {
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
                answer_filename(reflection, to, parts, asked->file_by_filename);
                return;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
                answer_symbol(reflection, to, parts, asked->file_containing_symbol);
                return;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_EXTENSION:
                answer_error(to, parts, RPC_NOT_FOUND, "There is no such extension.");
                return;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_ALL_EXTENSION_NUMBERS_OF_TYPE:
                answer_extension_numbers(reflection, to, parts,
                                         asked->all_extension_numbers_of_type);
                return;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
                answer_services(reflection, to, parts);
                return;
        case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
        case _GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__CASE_IS_INT_SIZE:
        default:
                answer_error(to, parts, RPC_INVALID_ARGUMENT, "The request asks for nothing.");
                return;
        }
}

static void send_answer(struct rpc_call *call, const answer *to)
{
        _cleanup_(freep) uint8_t *bytes = NULL;

        bytes = malloc(grpc__reflection__v1__server_reflection_response__get_packed_size(to) + 1);
        if (!bytes) {
                rpc_call_fail(call, RPC_RESOURCE_EXHAUSTED, "The server is out of memory.", NULL,
                              0);
                return;
        }
        rpc_call_write(call, bytes,
                       grpc__reflection__v1__server_reflection_response__pack(to, bytes));
}

static void on_question(struct rpc_call *call, const void *bytes, size_t n_bytes, void *userdata)
{
        struct reflection *reflection = userdata;
        question *asked;
        answer to;
        struct parts parts;

        if (!bytes) {
                rpc_call_finish(call);
                return;
        }
        asked = decode_request(call, &grpc__reflection__v1__server_reflection_request__descriptor,
                               bytes, n_bytes);
        if (!asked)
                return;

        /* Nobody is left to hear it; the end of the questions comes next. */
        if (rpc_call_is_writable(call)) {
                grpc__reflection__v1__server_reflection_response__init(&to);
                parts_init(&parts);
                to.valid_host = asked->host;
                to.original_request = asked;
                answer_question(reflection, &to, &parts, asked);
                send_answer(call, &to);
        }
        grpc__reflection__v1__server_reflection_request__free_unpacked(asked, NULL);
}

static const struct rpc_method methods[] = {
        { .path = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
          .handle = on_question,
          .streams_requests = true },
        { .path = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
          .handle = on_question,
          .streams_requests = true },
};

struct rpc_service reflection_service(struct reflection *reflection)
{
        return (struct rpc_service){
                .methods = methods,
                .n_methods = ARRAY_SIZE(methods),
                .userdata = reflection,
        };
}
