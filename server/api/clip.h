/* Text for answers, cut to size between characters. */
#pragma once

#include <stddef.h>

/*
 * Copies @text to @buffer, at most @size - 1 bytes and a NUL; `…` marks a cut, and what is not
 * UTF-8 becomes `?`. Returns the length.
 */
size_t clip_copy(char *buffer, size_t size, const char *text);

/* Bytes that @text takes as a grpc-message header: all but printable ASCII is percent-encoded. */
size_t clip_header_size(const char *text);
