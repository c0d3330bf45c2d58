/* Requests from strangers: bytes to a protobuf-c message, or the reason why not. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

struct rpc_call;

enum {
        DECODE_E_MALFORMED = 1, /* no such message */
        DECODE_E_TOO_COMPLEX,   /* nested too deep, or far more parts than a request needs */
        DECODE_E_TEXT,          /* a text field is not UTF-8 or contains NUL; the path says which */
};

enum {
        DECODE_PATH_SIZE = 128,
};

/* A field as `spec.labels["team"].value` or `states[2]`; longer ones are cut at the front. */
struct decode_path {
        char text[DECODE_PATH_SIZE];
};

/*
 * Decodes a message of @type; free it with protobuf_c_message_free_unpacked(message, NULL). It
 * takes at most @n_bytes and 2 MiB of memory: the bytes themselves, and the structures around them;
 * and 720 bytes more for each egress rule, up to 10,000 of them.
 * *@ret_path is only set on DECODE_E_TEXT.
 */
int decode_message(const ProtobufCMessageDescriptor *type, const void *bytes, size_t n_bytes,
                   ProtobufCMessage **ret_message, struct decode_path *ret_path);

/* The same for a handler: NULL when it could not, and then the call has failed with the reason. */
void *decode_request(struct rpc_call *call, const ProtobufCMessageDescriptor *type,
                     const void *bytes, size_t n_bytes);

/* Whether messages of @type are the entries of a map<string, …>, and the key of one. */
bool decode_is_map_entry(const ProtobufCMessageDescriptor *type);
const char *decode_map_key(const ProtobufCMessage *entry);

/*
 * Of a map<string, …>: keeps the last entry of each key, as the wire format has it, and frees the
 * others. @entries is the array of a decoded message, *@n_entries its length.
 */
int decode_map_unique(void *entries, size_t *n_entries);
