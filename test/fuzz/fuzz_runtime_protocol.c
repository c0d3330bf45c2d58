/* The packets of hotcelld to hotcell-runtime. Dependencies: dep_control. */

#include <stddef.h>
#include <stdint.h>

#include "runtime/supervisor/control.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes);

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t n_bytes)
{
        struct control_request request;
        struct failure failure;

        if (control_decode(bytes, n_bytes, &request, &failure) != CONTROL_E_MALFORMED)
                control_request_deinit(&request);
        return 0;
}
