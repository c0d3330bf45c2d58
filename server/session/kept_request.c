#include "server/session/kept_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/base/wire.h"

/* Both arrays are to be freed; what they point to is the request's. */
static int list_variables(const struct pairs *environment, Hotcell__Sandbox__V1__Execute *execute,
                          Hotcell__Sandbox__V1__Variable **ret_variables)
{
        size_t n = environment ? environment->n : 0;
        _cleanup_(freep) Hotcell__Sandbox__V1__Variable *variables =
                calloc(n + 1, sizeof(*variables));
        Hotcell__Sandbox__V1__Variable **pointers = calloc(n + 1, sizeof(void *));

        if (!variables || !pointers) {
                free(pointers);
                return error_origin(-ENOMEM);
        }
        for (size_t i = 0; i < n; i++) {
                hotcell__sandbox__v1__variable__init(&variables[i]);
                variables[i].name = environment->items[i].name;
                variables[i].value = environment->items[i].value;
                pointers[i] = &variables[i];
        }
        execute->environment = pointers;
        execute->n_environment = n;
        *ret_variables = take(variables);
        return 0;
}

static int pack(const Hotcell__Server__V1__KeptRequest *message, struct kept_request *ret_kept)
{
        size_t n = hotcell__server__v1__kept_request__get_packed_size(message);
        uint8_t *bytes = malloc(n + 1);

        if (!bytes)
                return error_origin(-ENOMEM);
        (void)hotcell__server__v1__kept_request__pack(message, bytes);
        *ret_kept = (struct kept_request){ .bytes = bytes, .n = n };
        return 0;
}

int kept_request_make(const struct execute_request *request, struct kept_request *ret_kept)
{
        _cleanup_(freep) Hotcell__Sandbox__V1__Variable *variables = NULL;
        Hotcell__Sandbox__V1__Execute execute;
        Hotcell__Server__V1__KeptRequest message;
        int r;

        hotcell__sandbox__v1__execute__init(&execute);
        hotcell__server__v1__kept_request__init(&message);
        message.execute = &execute;
        message.goes_on_without_client = request->goes_on_without_client;
        message.truncate_output = request->truncate_output;
        message.disconnect_grace_usec = request->disconnect_grace_usec;
        message.queue_timeout_usec = request->queue_timeout_usec;
        execute.combine_output = request->combine_output;
        execute.code = unconst(request->code);
        r = list_variables(request->environment, &execute, &variables);
        if (r)
                return r;
        r = pack(&message, ret_kept);
        free(execute.environment);
        return r;
}

int kept_request_copy(const void *bytes, size_t n, struct kept_request *ret_kept)
{
        uint8_t *copy = malloc(n + 1);

        if (!copy)
                return error_origin(-ENOMEM);
        if (n > 0)
                memcpy(copy, bytes, n);
        *ret_kept = (struct kept_request){ .bytes = copy, .n = n };
        return 0;
}

void kept_request_drop(struct kept_request *kept)
{
        free(kept->bytes);
        *kept = (struct kept_request){ 0 };
}

Hotcell__Server__V1__KeptRequest *kept_request_open(const struct kept_request *kept)
{
        Hotcell__Server__V1__KeptRequest *message = hotcell__server__v1__kept_request__unpack(
                &wire_sure_allocator, kept->n, kept->bytes);

        if (message && !message->execute)
                return kept_message_free(message);
        return message;
}

Hotcell__Server__V1__KeptRequest *kept_message_free(Hotcell__Server__V1__KeptRequest *message)
{
        hotcell__server__v1__kept_request__free_unpacked(message, &wire_sure_allocator);
        return NULL;
}
