/*
 * Page tokens: where a list goes on, and a digest of the filter that it belongs to. Opaque to
 * clients; whatever they make of one can only move the cursor within what they may see.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <protobuf-c/protobuf-c.h>

#include "server/store/store.h"

struct arena;

enum { PAGE_TOKEN_BUFFER = 192 };

/* @request: of a call with page_size and page_token; its maps are sorted. NULL: no memory. */
char *page_token_new(struct arena *arena, ProtobufCMessage *request,
                     const struct store_cursor *cursor);

/* That of the request. An empty token is the start. False: not ours, or of another filter. */
bool page_token_check(ProtobufCMessage *request, struct store_cursor *ret_cursor);

/* Watch tokens: a sequence of sandbox events. */
void watch_token_write(int64_t sequence, char ret_token[static PAGE_TOKEN_BUFFER]);
bool watch_token_read(const char *token, int64_t *ret_sequence);
