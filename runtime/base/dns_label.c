#include "runtime/base/dns_label.h"

#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/base/error.h"

bool dns_label_is_valid(const char *text)
{
        size_t length = strlen(text);

        if (length == 0 || length > DNS_LABEL_MAX || text[0] == '-' || text[length - 1] == '-')
                return false;
        return strspn(text, "abcdefghijklmnopqrstuvwxyz0123456789-") == length;
}

int id_generate(const char *prefix, char ret_id[static ID_BUFFER])
{
        /* RFC 4648 base32, in lower case. */
        static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";
        uint8_t random[26];
        int used;

        if (getrandom(random, sizeof(random), 0) != (ssize_t)sizeof(random))
                return error_origin(-errno);
        used = snprintf(ret_id, ID_BUFFER, "%s-", prefix);
        if (used < 0 || (size_t)used + sizeof(random) >= ID_BUFFER)
                return error_origin(-ENAMETOOLONG);
        for (size_t i = 0; i < sizeof(random); i++)
                ret_id[(size_t)used + i] = alphabet[random[i] & 31];
        ret_id[(size_t)used + sizeof(random)] = '\0';
        return 0;
}
