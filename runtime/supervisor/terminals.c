#include "runtime/supervisor/terminals.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

struct terminals terminals_share(uint32_t max, uint32_t reserved, uint32_t n_sandboxes)
{
        uint32_t n_host = max > reserved ? max - reserved : 0;
        uint32_t each;

        assert(n_sandboxes > 0);
        each = n_host / n_sandboxes;
        return (struct terminals){
                .n_host = n_host,
                .n_sandbox = MIN(MAX(each, (uint32_t)TERMINALS_MIN), (uint32_t)TERMINALS_MOST),
                .is_enough = each >= TERMINALS_MIN,
        };
}

static int read_setting(const char *path, uint32_t *ret_value)
{
        char text[32];
        uint64_t value;
        int r = io_read_file(AT_FDCWD, path, text, sizeof(text), NULL);

        if (r)
                return error_origin(r);
        text[strcspn(text, "\n")] = '\0';
        if (!text_to_uint64(text, UINT32_MAX, &value))
                return error_origin(-EINVAL);
        *ret_value = (uint32_t)value;
        return 0;
}

int terminals_read(uint32_t n_sandboxes, struct terminals *ret_terminals)
{
        uint32_t max = 0;
        uint32_t reserved = 0;
        int r = read_setting("/proc/sys/kernel/pty/max", &max);

        if (!r)
                r = read_setting("/proc/sys/kernel/pty/reserve", &reserved);
        if (r)
                return error_fold(r);
        *ret_terminals = terminals_share(max, reserved, n_sandboxes);
        return 0;
}
