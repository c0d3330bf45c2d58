/* What makes two requests the same: a SHA-256 over a message, whatever the order of its maps. */
#pragma once

#include <stdint.h>

#include <protobuf-c/protobuf-c.h>

/* Sorts the message's maps and drops entries that later ones replace, as a reader of the map
 * would. */
int digest_message(ProtobufCMessage *message, uint8_t ret_sha256[static 32]);
