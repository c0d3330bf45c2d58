/*
 * Requests with a request_id that are under way. Of those with the same owner, method and id the
 * first holds the claim; the others wait behind it and then ask the database what came of it: so
 * two that come at once are never both run, and one that was refused leaves the id to the next.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/session/session_private.h"

struct claim_queue {
        struct map_node by_key;
        char key[OWNER_BUFFER + METHOD_BUFFER + REQUEST_ID_BUFFER];
        TAILQ_HEAD(, session_claim) claims; /* the first is looked up, then held */
};

struct session_claim {
        struct session *session;
        struct claim_queue *queue; /* NULL: it came to nothing */
        TAILQ_ENTRY(session_claim) link;
        struct request_record request;
        bool is_answered;
        session_on_claimed on_claimed;
        void *userdata;
};

static void begin(struct session_claim *claim);

static void leave_queue(struct session_claim *claim)
{
        struct claim_queue *queue = claim->queue;

        if (!queue)
                return;
        claim->queue = NULL;
        TAILQ_REMOVE(&queue->claims, claim, link);
        if (!TAILQ_EMPTY(&queue->claims)) {
                begin(TAILQ_FIRST(&queue->claims));
                return;
        }
        map_remove(&claim->session->claims, &queue->by_key);
        free(queue);
}

static int judge(const struct session_claim *claim, int result, const struct request_record *known)
{
        if (result == STORE_E_NOT_FOUND)
                return 0;
        if (result)
                return CLAIM_E_UNAVAILABLE;
        return memcmp(known->request_sha256, claim->request.request_sha256,
                      sizeof(known->request_sha256)) == 0
                       ? CLAIM_E_KNOWN
                       : CLAIM_E_REUSED;
}

static void on_looked_up(void *userdata, int result, const struct request_record *known)
{
        struct session_claim *claim = userdata;
        struct session *session = claim->session;
        int outcome = judge(claim, result, known);

        /* What came of the request does not change any more: the next need not wait for it. */
        if (outcome)
                leave_queue(claim);
        claim->is_answered = true;
        claim->on_claimed(claim->userdata, outcome, known);
        session->n_pending--;
        session_check_stopped(session);
}

static void begin(struct session_claim *claim)
{
        store_get_request(claim->session->store, &claim->request, on_looked_up, claim);
}

static struct claim_queue *find_queue(struct session *session, const struct request_record *request)
{
        char key[sizeof(((struct claim_queue *)NULL)->key)];
        struct claim_queue *queue;
        struct map_node *node;

        /* No part contains a slash. */
        (void)snprintf(key, sizeof(key), "%s/%s/%s", request->owner, request->method,
                       request->request_id);
        node = map_find(&session->claims, key, strlen(key));
        if (node)
                return CONTAINER_OF(node, struct claim_queue, by_key);
        queue = calloc(1, sizeof(*queue));
        if (!queue)
                return NULL;
        memcpy(queue->key, key, sizeof(key));
        TAILQ_INIT(&queue->claims);
        map_add(&session->claims, &queue->by_key, queue->key, strlen(queue->key));
        return queue;
}

int session_claim_new(struct session *session, const struct request_record *request,
                      session_on_claimed on_claimed, void *userdata,
                      struct session_claim **ret_claim)
{
        struct session_claim *claim = calloc(1, sizeof(*claim));

        if (!claim)
                return error_origin(-ENOMEM);
        claim->queue = find_queue(session, request);
        if (!claim->queue) {
                free(claim);
                return error_origin(-ENOMEM);
        }
        claim->session = session;
        claim->request = *request;
        claim->on_claimed = on_claimed;
        claim->userdata = userdata;
        TAILQ_INSERT_TAIL(&claim->queue->claims, claim, link);
        session->n_pending++;
        *ret_claim = claim;
        if (TAILQ_FIRST(&claim->queue->claims) == claim)
                begin(claim);
        return 0;
}

struct session_claim *session_claim_free(struct session_claim *claim)
{
        if (!claim)
                return NULL;
        assert(claim->is_answered);

        leave_queue(claim);
        free(claim);
        return NULL;
}

struct remembering {
        struct session *session;
        void (*on_done)(void *userdata, const struct session_result *result);
        void *userdata;
};

static void on_remembered(void *userdata, int result)
{
        struct remembering remembering = *(struct remembering *)userdata;
        struct session_result answer = result_of_store(result, "the request");

        free(userdata);
        remembering.on_done(remembering.userdata, &answer);
        remembering.session->n_pending--;
        session_check_stopped(remembering.session);
}

void session_remember_request(struct session *session, const struct request_record *request,
                              void (*on_done)(void *userdata, const struct session_result *result),
                              void *userdata)
{
        struct remembering *remembering = calloc(1, sizeof(*remembering));
        struct session_result failure;

        if (!remembering) {
                failure = result_of(-ENOMEM, "There is no memory to remember the request.");
                on_done(userdata, &failure);
                return;
        }
        *remembering = (struct remembering){ session, on_done, userdata };
        session->n_pending++;
        store_remember_request(session->store, request, on_remembered, remembering);
}
