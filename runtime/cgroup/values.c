#include "runtime/cgroup/values.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"

int cgroup_parse_number(const char *text, uint64_t *ret_value)
{
        unsigned long long value;
        char *end;

        if (strcmp(text, "max\n") == 0 || strcmp(text, "max") == 0) {
                *ret_value = UINT64_MAX;
                return 0;
        }
        if (text[0] < '0' || text[0] > '9')
                return error_origin(-EBADMSG);
        errno = 0;
        value = strtoull(text, &end, 10);
        if (errno || (*end != '\n' && *end != '\0'))
                return error_origin(-EBADMSG);
        *ret_value = value;
        return 0;
}

int cgroup_parse_key(const char *text, const char *key, uint64_t *ret_value)
{
        size_t n_key = strlen(key);

        for (const char *line = text; line && *line; line = strchr(line, '\n')) {
                char value[32];
                size_t n;

                line += *line == '\n';
                if (strncmp(line, key, n_key) != 0 || line[n_key] != ' ')
                        continue;
                n = strcspn(line + n_key + 1, "\n");
                if (n >= sizeof(value))
                        return error_origin(-EBADMSG);
                memcpy(value, line + n_key + 1, n);
                value[n] = '\0';
                return cgroup_parse_number(value, ret_value);
        }
        return error_origin(-ENODATA);
}
