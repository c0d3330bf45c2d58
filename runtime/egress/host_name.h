/*
 * Hosts as strangers write them in the heads of TLS and HTTP, brought to the form that rules have:
 * lower case, no dot at the end, no port. Pure, no allocation.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { HOST_BUFFER = 254 }; /* for the longest name, 253 bytes, and its NUL */

enum host_kind {
        HOST_NAME = 1,
        HOST_V4, /* dotted, four numbers */
        HOST_V6, /* as inet_ntop(3) writes it, without brackets */
};

struct host {
        enum host_kind kind;
        char text[HOST_BUFFER];
};

/*
 * Letters, digits, hyphens, underscores, in labels of 1 to 63 bytes; false for everything else,
 * addresses in any way of writing included. @ret_name may be @bytes; on false its content is
 * undefined.
 */
bool host_name_read(const char *bytes, size_t n_bytes, char ret_name[static HOST_BUFFER]);

/*
 * A host with or without port: `name`, `name:80`, `192.0.2.1:80`, `[2001:db8::1]:80` (RFC 3986
 * 3.2.2 and 3.2.3, without percent-encoding and user). *@ret_port is 0 when there is none. On false
 * nothing is set.
 */
bool host_read(const char *bytes, size_t n_bytes, struct host *ret_host, uint16_t *ret_port);
