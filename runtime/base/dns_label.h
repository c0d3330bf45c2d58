/* Ids: DNS labels such as `sbx-3k7q…`, unguessable, safe in paths, URLs and logs. */
#pragma once

#include <stdbool.h>

enum {
        DNS_LABEL_MAX = 63,            /* bytes, RFC 1123 */
        ID_BUFFER = DNS_LABEL_MAX + 1, /* for an id and its NUL */
        ID_RANDOM = 26,                /* random characters of an id, 130 bits */
};

/* Lower-case letters, digits and inner hyphens, 1 to 63 bytes. */
bool dns_label_is_valid(const char *text);

/* Writes @prefix, a hyphen and ID_RANDOM characters of base32 to @ret_id. */
int id_generate(const char *prefix, char ret_id[static ID_BUFFER]);
