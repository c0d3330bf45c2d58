/* The packets of hotcelld to hotcell-runtime. Dependencies: dep_control. */

#include <stddef.h>
#include <stdint.h>

#include "runtime/supervisor/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
        struct control_request request;
        struct wire_arena arena;
        struct failure failure;

        if (wire_arena_init(&arena, CONTROL_ARENA_MAX))
                return 0;
        if (control_decode(&arena, bytes, n_bytes, &request, &failure) != CONTROL_E_MALFORMED)
                control_request_deinit(&request);
        wire_arena_deinit(&arena);
        return 0;
}
