#include "server/api/api_private.h"
#include "server/api/check.h"
#include "server/api/convert.h"
#include "server/api/request_id.h"

static void on_done(void *userdata, const struct session_result *result,
                    const struct execution_record *record)
{
        struct api_call *call = userdata;
        const Hotcell__V1__InterruptExecutionRequest *request = (const void *)call->request;
        Hotcell__V1__InterruptExecutionResponse response =
                HOTCELL__V1__INTERRUPT_EXECUTION_RESPONSE__INIT;

        if (!api_call_fail_result(call, result, request->execution_id)) {
                response.execution = convert_execution(
                        &call->arena, record,
                        session_first_sequence(call->api->session, record->execution_id));
                request_id_reply(call, &response.base, request->execution_id);
        }
        api_call_release(call);
}

void api_interrupt_execution(struct api_call *call, const void *message)
{
        const Hotcell__V1__InterruptExecutionRequest *request = message;

        (void)check_id(call, "execution_id", request->execution_id);
        if (request->level > HOTCELL__V1__INTERRUPT_LEVEL__INTERRUPT_LEVEL_KILL)
                api_call_blame(call, REASON_INVALID_FIELD, "level", "is unknown");
        if (api_call_has_blame(call)) {
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        session_interrupt_execution(call->api->session, call->identity.owner, request->execution_id,
                                    request->level ==
                                            HOTCELL__V1__INTERRUPT_LEVEL__INTERRUPT_LEVEL_KILL,
                                    CAUSE_CLIENT, on_done, call);
}

void api_interrupt_execution_again(struct api_call *call, const void *message)
{
        const Hotcell__V1__InterruptExecutionRequest *request = message;

        api_call_hold(call);
        session_get_execution(call->api->session, call->identity.owner, request->execution_id,
                              on_done, call);
}
