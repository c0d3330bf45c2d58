#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/event_stream.h"

void api_attach_execution(struct api_call *call, const void *message)
{
        const Hotcell__V1__AttachExecutionRequest *request = message;

        (void)check_id(call, "execution_id", request->execution_id);
        if (request->after_sequence < 0)
                api_call_blame(call, REASON_INVALID_FIELD, "after_sequence",
                               "must not be negative");
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        if (!api_call_take_stream(call))
                return;
        event_stream_start(call, request->execution_id, request->after_sequence);
}
