/*
 * Names of the DNS, between bytes of a message that a stranger sent and text.
 *
 * Text is lower case, without a dot at the end, and of letters, digits, hyphens, underscores and
 * the dots between labels only: a rule, a log and another program read it alike. The root is "".
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
        DNS_NAME_WIRE_MAX = 255, /* bytes in a message, RFC 1035 */
        DNS_NAME_BUFFER = 254,   /* for text and its NUL */
};

enum {
        DNS_NAME_E_MALFORMED = 1, /* the message is broken there */
        DNS_NAME_E_ODD,           /* well-formed, but no name that a host may have; was skipped */
};

/* Reads a message from its start; knows where it is. */
struct dns_reader {
        const uint8_t *bytes;
        size_t n_bytes;
        size_t at; /* never beyond n_bytes */
};

/* False when so much is not there; nothing was read then. */
bool dns_read_u16(struct dns_reader *reader, uint16_t *ret_value);
bool dns_read_u32(struct dns_reader *reader, uint32_t *ret_value);
bool dns_skip(struct dns_reader *reader, size_t n_bytes);

/*
 * Reads the name at the reader's place. Compressed ones only if @may_compress; each pointer must
 * lead further to the front, so that none can go round. *@ret_text is set on success only.
 */
int dns_name_read(struct dns_reader *reader, bool may_compress,
                  char ret_text[static DNS_NAME_BUFFER]);

/* Writes text of the form above without compression; returns the number of bytes. */
size_t dns_name_write(const char *text, uint8_t ret_bytes[static DNS_NAME_WIRE_MAX]);
