/* The calls about contexts. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/session/admission.h"
#include "server/session/calls.h"

static void fail_contexts(struct call *call, const struct session_result *result)
{
        call->on_contexts(call->userdata, result, NULL, 0);
}

static struct call *contexts_call(struct session *session, const char *owner, const char *id,
                                  session_on_contexts on_done, void *userdata)
{
        struct call *call = call_new(session, owner, id, fail_contexts);

        if (!call) {
                struct session_result failure = result_of(-ENOMEM, "There is no memory.");

                on_done(userdata, &failure, NULL, 0);
                return NULL;
        }
        call->on_contexts = on_done;
        call->userdata = userdata;
        return call;
}

/* The sandbox, if it takes work; else the call is answered and NULL returned. */
static struct sandbox *admit(struct session *session, const char *owner, const char *sandbox_id,
                             session_on_contexts on_done, void *userdata)
{
        struct sandbox *sandbox = session_find_sandbox(session, owner, sandbox_id);
        struct session_result result;
        struct call *call;

        if (!sandbox) {
                call = contexts_call(session, owner, sandbox_id, on_done, userdata);
                if (call)
                        call_fail_without_sandbox(call);
                return NULL;
        }
        result = admit_work(sandbox);
        if (result.outcome == 0)
                return sandbox;
        on_done(userdata, &result, NULL, 0);
        return NULL;
}

/* A new context may be made for @language (empty: the template's first). */
static struct session_result admit_new_context(struct sandbox *sandbox, const char *language,
                                               const char **ret_language)
{
        const Hotcell__Runtime__V1__Kernel *kind;

        if (!sandbox->template)
                return result_of(SESSION_E_UNKNOWN_TEMPLATE,
                                 "The template %s of sandbox %s is not there any more.",
                                 sandbox->record.template_name, sandbox->record.sandbox_id);
        kind = template_find_kernel(sandbox->template, language);
        if (!kind)
                return result_of(SESSION_E_UNKNOWN_LANGUAGE, "Template %s has no language %s.",
                                 sandbox->template->name, language);
        if (sandbox->n_contexts >= SANDBOX_CONTEXTS_MAX)
                return result_of(SESSION_E_CONTEXT_LIMIT, "Sandbox %s has %zu contexts already.",
                                 sandbox->record.sandbox_id, sandbox->n_contexts);
        *ret_language = kind->language;
        return (struct session_result){ 0 };
}

static struct context *find_default(struct sandbox *sandbox, const char *language)
{
        struct context *context;

        if (!language[0] && sandbox->template && sandbox->template->n_kernels > 0)
                language = sandbox->template->kernels[0]->language;
        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                if (context->record.is_default && !context->is_deleted &&
                    strcmp(context->record.language, language) == 0)
                        return context;
        }
        return NULL;
}

static struct session_result no_such_context(const char *sandbox_id, const char *context_id)
{
        return result_of(SESSION_E_CONTEXT_NOT_FOUND, "There is no context %s in sandbox %s.",
                         context_id, sandbox_id);
}

struct context *find_context(struct sandbox *sandbox, const char *context_id, const char *language)
{
        return context_id[0] ? sandbox_find_context(sandbox, context_id)
                             : find_default(sandbox, language);
}

struct session_result admit_context(struct sandbox *sandbox, const char *context_id,
                                    const char *language, struct context **ret_context)
{
        struct session_result result = { 0 };

        *ret_context = find_context(sandbox, context_id, language);
        if (*ret_context)
                return result;
        if (context_id[0])
                return no_such_context(sandbox->record.sandbox_id, context_id);
        result = admit_new_context(sandbox, language, &language);
        if (result.outcome == 0 && context_new_default(sandbox, language, ret_context))
                result = result_of(-ENOMEM, "There is no memory for a context.");
        return result;
}

/* Whatever came of it: the context is deleted, and a retry may make another. */
static void on_forgotten(void *userdata, int result)
{
        if (result)
                log_warning("a request whose context is gone is still remembered result=%d",
                            result);
        call_free(userdata);
}

static void on_created(void *userdata, const struct session_result *result,
                       const struct context_view *views, size_t n)
{
        struct call *call = userdata;
        session_on_contexts on_done = call->on_contexts;
        void *on_done_userdata = call->userdata;

        /* Before the answer: whoever waits for the claim looks the request up after it. */
        if (result->outcome)
                store_forget_request(call->session->store, &call->request, on_forgotten, call);
        else
                call_free(call);
        on_done(on_done_userdata, result, views, n);
}

/* The context is remembered as the answer with its row, before it can be known whether its
 * interpreter starts. */
static void await_new(struct context *context, const struct request_record *request,
                      session_on_contexts on_done, void *userdata)
{
        struct call *call;

        if (!request) {
                context_when_ready(context, true, on_done, userdata);
                return;
        }
        call = contexts_call(context->session, context->record.owner, context->record.sandbox_id,
                             on_done, userdata);
        if (!call) {
                context_delete(context, NULL, NULL);
                return;
        }
        call->request = *request;
        context_when_ready(context, true, on_created, call);
}

void session_create_context(struct session *session, const struct context_request *request,
                            session_on_contexts on_done, void *userdata)
{
        struct sandbox *sandbox =
                admit(session, request->owner, request->sandbox_id, on_done, userdata);
        struct session_result result;
        const char *language = NULL;
        struct context *context;

        if (!sandbox)
                return;
        result = admit_new_context(sandbox, request->language, &language);
        if (result.outcome == 0 && context_new(sandbox, request, language, &context))
                result = result_of(-ENOMEM, "There is no memory for a context.");
        if (result.outcome) {
                on_done(userdata, &result, NULL, 0);
                return;
        }
        await_new(context, request->request, on_done, userdata);
}

void session_list_contexts(struct session *session, const char *owner, const char *sandbox_id,
                           session_on_contexts on_done, void *userdata)
{
        struct sandbox *sandbox = admit(session, owner, sandbox_id, on_done, userdata);
        struct context_view views[SANDBOX_CONTEXTS_MAX];
        const struct session_result success = { 0 };
        const struct context *context;
        size_t n = 0;

        if (!sandbox)
                return;
        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                if (!context->is_deleted && n < ARRAY_SIZE(views))
                        views[n++] = (struct context_view){
                                .record = &context->record,
                                .state = context_state(context),
                        };
        }
        on_done(userdata, &success, views, n);
}

/* The context, if it is there and takes work; else the call is answered and NULL returned. */
static struct context *admit_existing(struct session *session, const char *owner,
                                      const char *sandbox_id, const char *context_id,
                                      session_on_contexts on_done, void *userdata)
{
        struct sandbox *sandbox = admit(session, owner, sandbox_id, on_done, userdata);
        struct session_result result;
        struct context *context;

        if (!sandbox)
                return NULL;
        context = sandbox_find_context(sandbox, context_id);
        if (!context) {
                result = no_such_context(sandbox_id, context_id);
                on_done(userdata, &result, NULL, 0);
        }
        return context;
}

void session_await_context(struct session *session, const char *owner, const char *sandbox_id,
                           const char *context_id, session_on_contexts on_done, void *userdata)
{
        struct context *context =
                admit_existing(session, owner, sandbox_id, context_id, on_done, userdata);

        if (context)
                context_when_ready(context, false, on_done, userdata);
}

static void on_restart_remembered(void *userdata, int result)
{
        struct call *call = userdata;
        struct session_result failure = result_of_store(result, "the request");

        if (result) {
                call_fail(call, &failure);
                return;
        }
        session_await_context(call->session, call->owner, call->sandbox_id, call->id,
                              call->on_contexts, call->userdata);
        call_free(call);
}

/* Remembered as soon as the state is lost: whatever runs in the next generation is not to be lost
 * by a retry. */
static void remember_restart(struct context *context, const struct request_record *request,
                             session_on_contexts on_done, void *userdata)
{
        const struct context_record *record = &context->record;
        struct call *call = contexts_call(context->session, record->owner, record->context_id,
                                          on_done, userdata);

        if (!call)
                return;
        (void)memcpy(call->sandbox_id, record->sandbox_id, sizeof(call->sandbox_id));
        store_remember_request(context->session->store, request, on_restart_remembered, call);
}

void session_restart_context(struct session *session, const struct request_record *request,
                             const char *owner, const char *sandbox_id, const char *context_id,
                             session_on_contexts on_done, void *userdata)
{
        struct context *context =
                admit_existing(session, owner, sandbox_id, context_id, on_done, userdata);

        if (!context)
                return;
        context_restart(context);
        if (request)
                remember_restart(context, request, on_done, userdata);
        else
                context_when_ready(context, false, on_done, userdata);
}

static void on_deleted_found(void *userdata, int found)
{
        struct call *call = userdata;
        struct session_result result = { 0 };

        if (found == STORE_E_NOT_FOUND)
                result = no_such_context(call->sandbox_id, call->id);
        else if (found)
                result = result_of(SESSION_E_STORE_UNAVAILABLE, "The database cannot be read.");
        call->on_contexts(call->userdata, &result, NULL, 0);
        call_free(call);
}

/* One that is not there may have been deleted before: that succeeds again. */
static void delete_again(struct sandbox *sandbox, const char *context_id,
                         session_on_contexts on_done, void *userdata)
{
        struct session *session = sandbox->session;
        struct call *call =
                contexts_call(session, sandbox->record.owner, context_id, on_done, userdata);

        if (!call)
                return;
        (void)memcpy(call->sandbox_id, sandbox->record.sandbox_id, sizeof(call->sandbox_id));
        store_find_context(session->store, call->owner, call->sandbox_id, call->id,
                           on_deleted_found, call);
}

void session_delete_context(struct session *session, const char *owner, const char *sandbox_id,
                            const char *context_id, session_on_contexts on_done, void *userdata)
{
        struct sandbox *sandbox = admit(session, owner, sandbox_id, on_done, userdata);
        struct context *context;

        if (!sandbox)
                return;
        context = sandbox_find_context(sandbox, context_id);
        if (context)
                context_delete(context, on_done, userdata);
        else
                delete_again(sandbox, context_id, on_done, userdata);
}
