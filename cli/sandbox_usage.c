#include "cli/sandbox_usage.h"

#include <poll.h>

#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/client.h"
#include "cli/message.h"
#include "cli/print_ended.h"
#include "runtime/base/text.h"

enum {
        TIMEOUT_MSEC = 5000,
        LOOK_MSEC = 20, /* an end takes some milliseconds */
        LOOKS_MAX = 100,
};

/* NULL: it cannot be had, such as with a key that may not read sandboxes. */
static Hotcell__V1__GetSandboxResponse *get(struct client *client, char *sandbox_id)
{
        Hotcell__V1__GetSandboxRequest request = HOTCELL__V1__GET_SANDBOX_REQUEST__INIT;
        _cleanup_(client_call_freep) struct client_call *call = NULL;
        Hotcell__V1__GetSandboxResponse *answer = NULL;

        request.sandbox_id = sandbox_id;
        call = client_call_new(client, &hotcell__v1__sandbox_service__descriptor, "GetSandbox",
                               &request.base, TIMEOUT_MSEC);
        return client_call_read(call, -1, &answer) == 0 ? answer : NULL;
}

static bool has_ended(const Hotcell__V1__Sandbox *sandbox)
{
        return sandbox->state == HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_ENDED;
}

/* Its end is near: what it used in all is about to be known. */
static bool is_ending(const Hotcell__V1__Sandbox *sandbox)
{
        return sandbox->state == HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_ENDING;
}

static const char *words_for(const Hotcell__V1__Sandbox *sandbox, bool is_one_shot)
{
        if (is_one_shot)
                return "sandbox, its start and the interpreter's included";
        return has_ended(sandbox) ? "sandbox, all that ran in it"
                                  : "sandbox so far, all that ran in it";
}

void sandbox_usage_say(struct client *client, const char *sandbox_id, bool is_one_shot)
{
        for (unsigned n = 0; n < LOOKS_MAX; n++) {
                _cleanup_(message_freep) Hotcell__V1__GetSandboxResponse *answer =
                        get(client, unconst(sandbox_id));

                if (!answer || !answer->sandbox)
                        return;
                if ((is_one_shot || is_ending(answer->sandbox)) && !has_ended(answer->sandbox)) {
                        (void)poll(NULL, 0, LOOK_MSEC);
                        continue;
                }
                if (answer->sandbox->usage && answer->sandbox->usage->total)
                        print_usage(words_for(answer->sandbox, is_one_shot),
                                    answer->sandbox->usage->total);
                return;
        }
}
