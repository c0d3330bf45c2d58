#include "cli/resolve.h"

#include <string.h>

#include "hotcell/v1/execution_service.pb-c.h"
#include "hotcell/v1/key_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/candidates.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/request.h"
#include "cli/say.h"
#include "runtime/base/macros.h"

enum {
        PAGE_SIZE = 1000,
        PAGES_MAX = 100, /* against a server that never ends its list */
        SHOWN_MAX = 10,
};

static void say_ambiguous(const char *noun, const struct candidates *candidates)
{
        say("'%s' fits more than one %s:", candidates->text, noun);
        for (size_t i = 0; i < MIN(candidates->n, (size_t)SHOWN_MAX); i++)
                say("  %s %s%s", candidates->items[i].id, candidates->items[i].name,
                    candidates->items[i].is_ended ? " (ended)" : "");
        if (candidates->n > SHOWN_MAX)
                say("  and %zu more", candidates->n - SHOWN_MAX);
}

/* Ends a search: picks, says why not, forgets the candidates. */
static int decide(const char *noun, struct candidates *candidates, char **ret_id)
{
        const char *id = NULL;
        int r = candidates_pick(candidates, &id);

        if (r == CANDIDATES_E_NONE)
                say("no %s has the id or name '%s'", noun, candidates->text);
        if (r == CANDIDATES_E_AMBIGUOUS)
                say_ambiguous(noun, candidates);
        if (!r)
                *ret_id = duplicate(id);
        candidates_deinit(candidates);
        return r ? EXIT_OURS : 0;
}

static void ask_for_ended_too(Hotcell__V1__ListSandboxesRequest *list)
{
        const ProtobufCEnumDescriptor *states = &hotcell__v1__sandbox_state__descriptor;

        list->states = allocate(states->n_values, sizeof(*list->states));
        for (unsigned i = 0; i < states->n_values; i++) {
                if (states->values[i].value != 0)
                        list->states[list->n_states++] =
                                (Hotcell__V1__SandboxState)states->values[i].value;
        }
}

static int offer_sandboxes(struct client *client, bool also_ended, struct candidates *candidates)
{
        _cleanup_(message_freep) Hotcell__V1__ListSandboxesRequest *list =
                message_new(&hotcell__v1__list_sandboxes_request__descriptor);

        list->page_size = PAGE_SIZE;
        if (also_ended)
                ask_for_ended_too(list);
        for (int page = 0; page < PAGES_MAX; page++) {
                _cleanup_(message_freep) Hotcell__V1__ListSandboxesResponse *answer = NULL;
                int r = request(client, &hotcell__v1__sandbox_service__descriptor, "ListSandboxes",
                                list, "looking for the sandbox", &answer);

                if (r)
                        return r;
                for (size_t i = 0; i < answer->n_sandboxes; i++) {
                        const Hotcell__V1__Sandbox *sandbox = answer->sandboxes[i];

                        candidates_offer(candidates, sandbox->sandbox_id, sandbox->name,
                                         sandbox->state ==
                                                 HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_ENDED);
                }
                if (!*answer->next_page_token)
                        return 0;
                message_set_text(&list->page_token, answer->next_page_token);
        }
        return 0;
}

int resolve_sandbox(struct client *client, const char *text, bool also_ended, char **ret_id)
{
        struct candidates candidates = { .kind = "sbx", .text = text };
        int r;

        if (candidates_is_whole_id(candidates.kind, text)) {
                *ret_id = duplicate(text);
                return 0;
        }
        r = offer_sandboxes(client, also_ended, &candidates);
        if (r) {
                candidates_deinit(&candidates);
                return r;
        }
        return decide(also_ended ? "sandbox" : "living sandbox", &candidates, ret_id);
}

static int offer_executions(struct client *client, struct candidates *candidates)
{
        _cleanup_(message_freep) Hotcell__V1__ListExecutionsRequest *list =
                message_new(&hotcell__v1__list_executions_request__descriptor);

        list->page_size = PAGE_SIZE;
        for (int page = 0; page < PAGES_MAX; page++) {
                _cleanup_(message_freep) Hotcell__V1__ListExecutionsResponse *answer = NULL;
                int r = request(client, &hotcell__v1__execution_service__descriptor,
                                "ListExecutions", list, "looking for the execution", &answer);

                if (r)
                        return r;
                for (size_t i = 0; i < answer->n_executions; i++)
                        candidates_offer(candidates, answer->executions[i]->execution_id, "",
                                         false);
                if (!*answer->next_page_token)
                        return 0;
                message_set_text(&list->page_token, answer->next_page_token);
        }
        return 0;
}

int resolve_execution(struct client *client, const char *text, char **ret_id)
{
        struct candidates candidates = { .kind = "exe", .text = text };
        int r;

        if (candidates_is_whole_id(candidates.kind, text)) {
                *ret_id = duplicate(text);
                return 0;
        }
        r = offer_executions(client, &candidates);
        if (r) {
                candidates_deinit(&candidates);
                return r;
        }
        return decide("execution", &candidates, ret_id);
}

int resolve_context(struct client *client, const char *sandbox_id, const char *text, char **ret_id)
{
        _cleanup_(message_freep) Hotcell__V1__ListContextsRequest *list =
                message_new(&hotcell__v1__list_contexts_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__ListContextsResponse *answer = NULL;
        struct candidates candidates = { .kind = "ctx", .text = text };
        int r;

        if (candidates_is_whole_id(candidates.kind, text)) {
                *ret_id = duplicate(text);
                return 0;
        }
        message_set_text(&list->sandbox_id, sandbox_id);
        r = request(client, &hotcell__v1__execution_service__descriptor, "ListContexts", list,
                    "looking for the context", &answer);
        if (r)
                return r;
        for (size_t i = 0; i < answer->n_contexts; i++)
                candidates_offer(&candidates, answer->contexts[i]->context_id, "", false);
        return decide("context", &candidates, ret_id);
}

static int list_keys(struct client *client, Hotcell__V1__ListKeysResponse **ret_keys)
{
        _cleanup_(message_freep) Hotcell__V1__ListKeysRequest *list =
                message_new(&hotcell__v1__list_keys_request__descriptor);

        return request(client, &hotcell__v1__key_service__descriptor, "ListKeys", list,
                       "looking for the key", ret_keys);
}

static int find_key(const Hotcell__V1__ListKeysResponse *keys, const char *text, char **ret_id)
{
        struct candidates candidates = { .kind = "key", .text = text };

        for (size_t i = 0; i < keys->n_keys; i++)
                candidates_offer(&candidates, keys->keys[i]->key_id, keys->keys[i]->name,
                                 keys->keys[i]->state != HOTCELL__V1__KEY_STATE__KEY_STATE_ACTIVE);
        return decide("key", &candidates, ret_id);
}

int resolve_key(struct client *client, const char *text, char **ret_id)
{
        _cleanup_(message_freep) Hotcell__V1__ListKeysResponse *keys = NULL;
        int r;

        if (candidates_is_whole_id("key", text)) {
                *ret_id = duplicate(text);
                return 0;
        }
        r = list_keys(client, &keys);
        return r ? r : find_key(keys, text, ret_id);
}

int resolve_owner(struct client *client, const char *text, char **ret_owner)
{
        _cleanup_(message_freep) Hotcell__V1__ListKeysResponse *keys = NULL;
        _cleanup_(freep) char *id = NULL;
        int r;

        if (strncmp(text, "uid:", strlen("uid:")) == 0 || candidates_is_whole_id("key", text)) {
                *ret_owner = duplicate(text);
                return 0;
        }
        r = list_keys(client, &keys);
        if (r == 0)
                r = find_key(keys, text, &id);
        for (size_t i = 0; r == 0 && i < keys->n_keys; i++) {
                if (strcmp(keys->keys[i]->key_id, id) == 0)
                        *ret_owner = duplicate(keys->keys[i]->owner);
        }
        return r;
}
