#include "server/api/request_id.h"

#include <stdio.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/api/api_private.h"
#include "server/api/call.h"
#include "server/api/digest.h"
#include "server/session/session.h"

/* The request's own field of that name. */
static char **find_field(ProtobufCMessage *request)
{
        const ProtobufCFieldDescriptor *field =
                protobuf_c_message_descriptor_get_field_by_name(request->descriptor, "request_id");

        assert(field && field->type == PROTOBUF_C_TYPE_STRING);
        return (char **)((char *)request + field->offset);
}

static bool is_good_id(const char *id)
{
        static const char allowed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                                      "0123456789-_.:";

        return strlen(id) < REQUEST_ID_BUFFER && id[strspn(id, allowed)] == '\0';
}

/* The digest is over all but the id itself. */
static int fill_request(struct api_call *call, char **field)
{
        struct request_record *asked = &call->asked;
        const char *method = strrchr(call->method->path, '/') + 1;
        char *id = *field;
        int r;

        assert(strlen(method) < sizeof(asked->method));
        (void)snprintf(asked->owner, sizeof(asked->owner), "%s", call->identity.owner);
        (void)snprintf(asked->method, sizeof(asked->method), "%s", method);
        (void)snprintf(asked->request_id, sizeof(asked->request_id), "%s", id);
        *field = (char *)(uintptr_t)protobuf_c_empty_string;
        r = digest_message(call->request, asked->request_sha256);
        *field = id;
        return r;
}

static void on_claimed(void *userdata, int result, const struct request_record *known)
{
        struct api_call *call = userdata;

        /* One whose client is gone has not begun: it does not begin any more. */
        if (!api_call_is_open(call))
                log_debug("a request was not run, its client is gone method=%s",
                          call->asked.method);
        else if (result == 0)
                call->method->handle(call, call->request);
        else if (result == CLAIM_E_KNOWN) {
                call->is_retry = true;
                call->asked = *known;
                call->method->retry(call, call->request);
        } else if (result == CLAIM_E_REUSED)
                api_call_fail(call, REASON_REQUEST_ID_REUSED,
                              "request_id %s was used for another %s; take a new one",
                              call->asked.request_id, call->asked.method);
        else
                api_call_fail(call, REASON_STORE_UNAVAILABLE,
                              "the server's database cannot be read now");
        api_call_release(call);
}

void request_id_run(struct api_call *call)
{
        char **field = find_field(call->request);

        if (!**field) {
                call->method->handle(call, call->request);
                return;
        }
        if (!is_good_id(*field)) {
                api_call_blame(call, REASON_INVALID_FIELD, "request_id",
                               "is longer than %d bytes or has other characters than letters, "
                               "digits and -_.: of ASCII; a UUID is good",
                               REQUEST_ID_BUFFER - 1);
                api_call_fail_blamed(call);
                return;
        }
        api_call_hold(call);
        if (fill_request(call, field) == 0 &&
            session_claim_new(call->api->session, &call->asked, on_claimed, call, &call->claim) ==
                    0)
                return;
        api_call_fail(call, REASON_HOST_EXHAUSTED, "the server is out of memory");
        api_call_release(call);
}

const struct request_record *request_id_of(struct api_call *call, const char *object_id)
{
        if (!call->claim)
                return NULL;
        if (object_id)
                (void)snprintf(call->asked.object_id, sizeof(call->asked.object_id), "%s",
                               object_id);
        return &call->asked;
}

static void on_remembered(void *userdata, const struct session_result *result)
{
        struct api_call *call = userdata;

        if (!api_call_fail_result(call, result, NULL))
                api_call_send(call);
        api_call_release(call);
}

void request_id_reply(struct api_call *call, const ProtobufCMessage *response,
                      const char *object_id)
{
        if (!call->claim || call->is_retry) {
                api_call_reply(call, response);
                return;
        }
        if (api_call_is_open(call) && !api_call_pack(call, response))
                return;
        api_call_hold(call);
        session_remember_request(call->api->session, request_id_of(call, object_id), on_remembered,
                                 call);
}

void request_id_settle(struct api_call *call)
{
        call->claim = session_claim_free(call->claim);
}
