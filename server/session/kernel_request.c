/* What the runtime is asked for a kernel: its program, its environment, where it begins. */
#include "server/session/kernel_request.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "server/session/context.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

/* Adds or replaces, so that what the sandbox sets wins over the template. */
static size_t set_variable(Hotcell__Runtime__V1__Variable *variables, size_t n, char *name,
                           char *value)
{
        size_t i = 0;

        while (i < n && strcmp(variables[i].name, name) != 0)
                i++;
        if (i == n)
                hotcell__runtime__v1__variable__init(&variables[n++]);
        variables[i].name = name;
        variables[i].value = value;
        return n;
}

static int request_start(struct context *context, Hotcell__Runtime__V1__StartProcess *start,
                         runtime_on_answer on_answer)
{
        const Hotcell__Runtime__V1__Template *template = context->sandbox->template;
        const struct pairs *own = &context->sandbox->record.environment;
        Hotcell__Runtime__V1__ToRuntime request;
        _cleanup_(freep) Hotcell__Runtime__V1__Variable *variables = NULL;
        _cleanup_(freep) Hotcell__Runtime__V1__Variable **pointers = NULL;
        size_t n = 0;

        hotcell__runtime__v1__to_runtime__init(&request);
        variables = calloc(template->n_environment + own->n + 1, sizeof(*variables));
        pointers = calloc(template->n_environment + own->n + 1, sizeof(void *));
        if (!variables || !pointers)
                return error_origin(-ENOMEM);
        for (size_t i = 0; i < template->n_environment; i++)
                n = set_variable(variables, n, template->environment[i]->name,
                                 template->environment[i]->value);
        for (size_t i = 0; i < own->n; i++)
                n = set_variable(variables, n, own->items[i].name, own->items[i].value);
        for (size_t i = 0; i < n; i++)
                pointers[i] = &variables[i];
        start->environment = pointers;
        start->n_environment = n;
        request.body_case = HOTCELL__RUNTIME__V1__TO_RUNTIME__BODY_START_PROCESS;
        request.start_process = start;
        return session_request(context->session, &request, on_answer, context);
}

int kernel_request_start(struct context *context, runtime_on_answer on_answer)
{
        const Hotcell__Runtime__V1__Template *template = context->sandbox->template;
        const Hotcell__Runtime__V1__Kernel *kind;
        Hotcell__Runtime__V1__StartProcess start;

        hotcell__runtime__v1__start_process__init(&start);
        kind = template ? template_find_kernel(template, context->record.language) : NULL;
        if (!kind)
                return SESSION_E_UNKNOWN_LANGUAGE;
        start.sandbox_id = context->record.sandbox_id;
        start.process_id = context->kernel.process_id;
        start.argv = kind->argv;
        start.n_argv = kind->n_argv;
        start.working_directory = context->record.working_directory;
        start.uid = template->uid;
        start.gid = template->gid;
        start.kernel_channel = true;
        return request_start(context, &start, on_answer);
}

struct session_result kernel_explain_refusal(const struct context *context,
                                             const Hotcell__Runtime__V1__FromRuntime *answer)
{
        struct session_result result = result_of_runtime(answer, context->record.context_id);
        const Hotcell__Runtime__V1__Failure *failure;

        if (!answer || answer->body_case != HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_FAILURE)
                return result;
        failure = answer->failure;
        if (failure->reason ==
            HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_WORKING_DIRECTORY)
                return result_of(SESSION_E_WORKING_DIRECTORY,
                                 "Context %s cannot begin in %.100s of sandbox %s: %s.",
                                 context->record.context_id, context->record.working_directory,
                                 context->record.sandbox_id,
                                 failure->error_number > 0 ? strerror(failure->error_number)
                                                           : "no such directory");
        if (failure->reason == HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_EXEC)
                return result_of(SESSION_E_KERNEL_FAILED,
                                 "The interpreter of context %s could not be executed: %.100s",
                                 context->record.context_id, failure->message);
        return result;
}
