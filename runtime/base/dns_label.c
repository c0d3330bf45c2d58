#include "runtime/base/dns_label.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/base32.h"
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
        int used = snprintf(ret_id, ID_BUFFER, "%s-", prefix);

        if (used < 0 || (size_t)used + ID_RANDOM >= ID_BUFFER)
                return error_origin(-ENAMETOOLONG);
        return base32_random(ret_id + used, ID_RANDOM);
}
