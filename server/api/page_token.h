/*
 * Page tokens: where a list goes on, and a digest of the filter that it belongs to. Opaque to
 * clients; whatever they make of one can only move the cursor within what they may see.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "server/store/store.h"

enum { PAGE_TOKEN_BUFFER = 192 };

/* @filter: bytes that tell one filter from another (not the page's size or token). */
void page_token_write(const struct store_cursor *cursor, const void *filter, size_t n_filter,
                      char ret_token[static PAGE_TOKEN_BUFFER]);

/* An empty token is the start. False: not ours, or of another filter. */
bool page_token_read(const char *token, const void *filter, size_t n_filter,
                     struct store_cursor *ret_cursor);

/* Watch tokens: a sequence of sandbox events. */
void watch_token_write(int64_t sequence, char ret_token[static PAGE_TOKEN_BUFFER]);
bool watch_token_read(const char *token, int64_t *ret_sequence);
