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

/* @filter: the request, with page_size zero and page_token empty. NULL: no memory. */
char *page_token_new(struct arena *arena, const ProtobufCMessage *filter,
                     const struct store_cursor *cursor);

/* An empty token is the start. False: not ours, or of another filter. */
bool page_token_check(struct arena *arena, const ProtobufCMessage *filter, const char *token,
                      struct store_cursor *ret_cursor);

/* Watch tokens: a sequence of sandbox events. */
void watch_token_write(int64_t sequence, char ret_token[static PAGE_TOKEN_BUFFER]);
bool watch_token_read(const char *token, int64_t *ret_sequence);
