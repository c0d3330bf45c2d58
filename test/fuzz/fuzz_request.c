/*
 * Request decoding: the first byte picks the message, the rest is its bytes. What decodes must also
 * survive a walk over its maps and packing, and what is packed must decode again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "grpc/health/v1/health.pb-c.h"
#include "grpc/reflection/v1/reflection.pb-c.h"
#include "hotcell/v1/egress_service.pb-c.h"
#include "hotcell/v1/execution_service.pb-c.h"
#include "hotcell/v1/key_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"
#include "hotcell/v1/server_service.pb-c.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/decode.h"

static const ProtobufCMessageDescriptor *const types[] = {
        &hotcell__v1__execute_request__descriptor,
        &hotcell__v1__create_sandbox_request__descriptor,
        &hotcell__v1__list_sandboxes_request__descriptor,
        &hotcell__v1__update_sandbox_request__descriptor,
        &hotcell__v1__get_sandbox_request__descriptor,
        &hotcell__v1__delete_sandbox_request__descriptor,
        &hotcell__v1__watch_sandboxes_request__descriptor,
        &hotcell__v1__create_context_request__descriptor,
        &hotcell__v1__list_contexts_request__descriptor,
        &hotcell__v1__restart_context_request__descriptor,
        &hotcell__v1__delete_context_request__descriptor,
        &hotcell__v1__attach_execution_request__descriptor,
        &hotcell__v1__interrupt_execution_request__descriptor,
        &hotcell__v1__get_execution_request__descriptor,
        &hotcell__v1__list_executions_request__descriptor,
        &hotcell__v1__get_server_info_request__descriptor,
        &hotcell__v1__create_key_request__descriptor,
        &hotcell__v1__list_keys_request__descriptor,
        &hotcell__v1__revoke_key_request__descriptor,
        &grpc__health__v1__health_check_request__descriptor,
        &grpc__reflection__v1__server_reflection_request__descriptor,
        /* No request, but recursive: for the bound on the depth. */
        &google__protobuf__descriptor_proto__descriptor,
        &hotcell__v1__list_egress_events_request__descriptor,
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void require(bool holds)
{
        if (!holds)
                abort();
}

static void check_maps(ProtobufCMessage *message)
{
        Hotcell__V1__ExecuteRequest *execute = (Hotcell__V1__ExecuteRequest *)message;
        Hotcell__V1__ListSandboxesRequest *list = (Hotcell__V1__ListSandboxesRequest *)message;
        int r = 0;

        if (message->descriptor == &hotcell__v1__execute_request__descriptor)
                r = decode_map_unique(execute->environment, &execute->n_environment);
        if (message->descriptor == &hotcell__v1__list_sandboxes_request__descriptor)
                r = decode_map_unique(list->labels, &list->n_labels);
        require(r == 0);
}

static void check_round_trip(const ProtobufCMessage *message)
{
        size_t n_packed = protobuf_c_message_get_packed_size(message);
        _cleanup_(freep) uint8_t *packed = malloc(n_packed + 1);
        ProtobufCMessage *again = NULL;
        struct decode_path path;
        int r;

        require(packed && protobuf_c_message_pack(message, packed) == n_packed);
        /* Merged messages may need more structure than the bytes that they came from. */
        r = decode_message(message->descriptor, packed, n_packed, &again, &path);
        require(r == 0 || r == DECODE_E_TOO_COMPLEX);
        if (r == 0)
                protobuf_c_message_free_unpacked(again, NULL);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        ProtobufCMessage *message;
        struct decode_path path;
        int r;

        if (size == 0)
                return 0;
        r = decode_message(types[data[0] % ARRAY_SIZE(types)], data + 1, size - 1, &message, &path);
        if (r == DECODE_E_TEXT)
                require(text_is_utf8(path.text, strnlen(path.text, sizeof(path.text))));
        if (r)
                return 0;
        require(protobuf_c_message_check(message));
        check_maps(message);
        check_round_trip(message);
        protobuf_c_message_free_unpacked(message, NULL);
        return 0;
}
