/*
 * Policies are sent in the order in which they were asked for; what does not fit the socket waits.
 * Whoever waits for too long is told so; the request stays until its answer comes or the
 * connection is lost, so that a hotcell-egress that hangs cannot be asked without bound.
 */
#include "server/session/egress_requests.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/policy/record_types.h"
#include "server/session/egress_file.h"

#define TO_SERVER(name)   HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name
#define FROM_SERVER(name) HOTCELL__EGRESS__V1__FROM_SERVER__BODY_##name
#define FAILURE(name)     HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name

enum kind {
        KIND_POLICY,
        KIND_SYNC,
        KIND_PING,
};

struct egress_request {
        TAILQ_ENTRY(egress_request) waiting_link;
        TAILQ_ENTRY(egress_request) unsent_link;
        struct map_node by_number;
        struct egress_requests *requests;
        uint64_t number;
        uint64_t deadline_usec;
        egress_on_answer on_answer; /* NULL: nobody waits */
        void *userdata;
        bool is_sent;
        enum kind kind; /* nothing below counts for PING, only the sandbox for SYNC */
        char sandbox_id[ID_BUFFER];
        int64_t version;
        int32_t default_action;
        uint32_t record_types;
        int fd; /* the rules, until it is sent */
        uint32_t n_bytes;
};

/* --- waiting --- */

static void free_request(struct egress_request *request)
{
        struct egress_requests *requests = request->requests;

        map_remove(&requests->all, &request->by_number);
        requests->n_unheard -= request->kind == KIND_SYNC && !request->on_answer;
        if (request->on_answer)
                TAILQ_REMOVE(&requests->waiting, request, waiting_link);
        if (!request->is_sent)
                TAILQ_REMOVE(&requests->unsent, request, unsent_link);
        (void)close_fd(request->fd);
        free(request);
}

/* Nobody waits any more. */
static void abandon(struct egress_request *request)
{
        if (!request->on_answer)
                return;
        TAILQ_REMOVE(&request->requests->waiting, request, waiting_link);
        request->on_answer = NULL;
        request->requests->n_unheard += request->kind == KIND_SYNC;
        if (!request->is_sent)
                free_request(request);
}

/* @is_over: nothing more will come of it. */
static void answer(struct egress_request *request, const struct egress_answer *what, bool is_over)
{
        egress_on_answer on_answer = request->on_answer;
        void *userdata = request->userdata;

        if (is_over)
                free_request(request);
        else
                abandon(request);
        if (on_answer)
                on_answer(userdata, what);
}

static void arm_timer(struct egress_requests *requests)
{
        const struct egress_request *first = TAILQ_FIRST(&requests->waiting);

        (void)sd_event_source_set_enabled(requests->timer, first ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
        if (first)
                (void)sd_event_source_set_time(requests->timer, first->deadline_usec);
}

static int on_silent(sd_event_source *source, uint64_t usec, void *userdata)
{
        static const struct egress_answer silent = { .result = EGRESS_E_SILENT };
        struct egress_requests *requests = userdata;
        uint64_t now_usec = clock_monotonic_usec();
        struct egress_request *request;

        (void)source;
        (void)usec;
        while ((request = TAILQ_FIRST(&requests->waiting)) && request->deadline_usec <= now_usec) {
                log_warning_of(&requests->log, "hotcell-egress does not answer sandbox=%s",
                               request->sandbox_id);
                answer(request, &silent, false);
        }
        arm_timer(requests);
        return 0;
}

struct egress_request *egress_request_free(struct egress_request *request)
{
        struct egress_requests *requests;

        if (!request)
                return NULL;
        requests = request->requests;
        abandon(request);
        arm_timer(requests);
        return NULL;
}

/* --- asking --- */

/* Syncs are waited for shorter, and so go before policies. */
static void insert_waiting(struct egress_requests *requests, struct egress_request *request)
{
        struct egress_request *before = TAILQ_LAST(&requests->waiting, egress_request_list);

        while (before && before->deadline_usec > request->deadline_usec)
                before = TAILQ_PREV(before, egress_request_list, waiting_link);
        if (before)
                TAILQ_INSERT_AFTER(&requests->waiting, before, request, waiting_link);
        else
                TAILQ_INSERT_HEAD(&requests->waiting, request, waiting_link);
}

static void enqueue(struct egress_requests *requests, struct egress_request *request,
                    uint64_t answer_usec)
{
        request->requests = requests;
        request->number = ++requests->last_number;
        request->deadline_usec = clock_monotonic_usec() + answer_usec;
        map_add(&requests->all, &request->by_number, &request->number, sizeof(request->number));
        insert_waiting(requests, request);
        TAILQ_INSERT_TAIL(&requests->unsent, request, unsent_link);
        arm_timer(requests);
}

static bool has_room(const struct egress_requests *requests)
{
        return map_count(&requests->all) < EGRESS_REQUESTS_MAX;
}

/* Of nobody yet: enqueue() makes it theirs. NULL: no memory. */
static struct egress_request *new_request(enum kind kind, egress_on_answer on_answer,
                                          void *userdata)
{
        struct egress_request *request = calloc(1, sizeof(*request));

        if (!request)
                return NULL;
        request->kind = kind;
        request->fd = -1;
        request->on_answer = on_answer;
        request->userdata = userdata;
        return request;
}

static void fill_request(struct egress_request *request, const struct egress_order *order)
{
        (void)snprintf(request->sandbox_id, sizeof(request->sandbox_id), "%s", order->sandbox_id);
        request->version = order->version;
        request->default_action =
                order->egress ? order->egress->default_action
                              : HOTCELL__EGRESS__V1__DEFAULT_ACTION__DEFAULT_ACTION_DENY;
        request->record_types = order->egress ? order->egress->record_types : 0;
}

int egress_requests_add_policy(struct egress_requests *requests, const struct egress_order *order,
                               uint64_t answer_usec, egress_on_answer on_answer, void *userdata,
                               struct egress_request **ret_request)
{
        struct egress_request *request;
        int r;

        if (!has_room(requests))
                return EGRESS_CLIENT_E_BUSY;
        request = new_request(KIND_POLICY, on_answer, userdata);
        if (!request)
                return error_origin(-ENOMEM);
        r = egress_file_make(order->egress, &request->fd, &request->n_bytes);
        if (r) {
                free(request);
                return error_fold(r);
        }
        fill_request(request, order);
        enqueue(requests, request, answer_usec);
        *ret_request = request;
        return 0;
}

int egress_requests_add_ping(struct egress_requests *requests, uint64_t answer_usec,
                             egress_on_answer on_answer, void *userdata,
                             struct egress_request **ret_request)
{
        struct egress_request *request;

        if (!has_room(requests))
                return EGRESS_CLIENT_E_BUSY;
        request = new_request(KIND_PING, on_answer, userdata);
        if (!request)
                return error_origin(-ENOMEM);
        enqueue(requests, request, answer_usec);
        *ret_request = request;
        return 0;
}

int egress_requests_add_sync(struct egress_requests *requests, const char *sandbox_id,
                             egress_on_answer on_answer, void *userdata,
                             struct egress_request **ret_request)
{
        struct egress_request *request;

        if (requests->n_unheard > 0 || map_count(&requests->all) >= EGRESS_REQUESTS_MAX / 2)
                return EGRESS_CLIENT_E_BUSY;
        request = new_request(KIND_SYNC, on_answer, userdata);
        if (!request)
                return error_origin(-ENOMEM);
        (void)snprintf(request->sandbox_id, sizeof(request->sandbox_id), "%s", sandbox_id);
        enqueue(requests, request, EGRESS_SYNC_USEC);
        *ret_request = request;
        return 0;
}

/* --- sending --- */

int egress_message_send(int fd, const Hotcell__Egress__V1__FromServer *message, const int *fds,
                        size_t n_fds)
{
        uint8_t bytes[256];

        assert(hotcell__egress__v1__from_server__get_packed_size(message) <= sizeof(bytes));
        return io_send_packet(fd, bytes, hotcell__egress__v1__from_server__pack(message, bytes),
                              fds, n_fds);
}

/* What comes before the body. */
static Hotcell__Egress__V1__FromServer head_of(const struct egress_request *request,
                                               Hotcell__Egress__V1__FromServer__BodyCase body_case)
{
        Hotcell__Egress__V1__FromServer message;

        hotcell__egress__v1__from_server__init(&message);
        message.request = request->number;
        message.body_case = body_case;
        return message;
}

static int send_sync(int fd, const struct egress_request *request)
{
        Hotcell__Egress__V1__FromServer message = head_of(request, FROM_SERVER(SYNC));
        Hotcell__Egress__V1__Sync sync;

        hotcell__egress__v1__sync__init(&sync);
        sync.sandbox_id = unconst(request->sandbox_id);
        message.sync = &sync;
        return egress_message_send(fd, &message, NULL, 0);
}

static int send_ping(int fd, const struct egress_request *request)
{
        Hotcell__Egress__V1__FromServer message = head_of(request, FROM_SERVER(PING));
        Hotcell__Egress__V1__Ping ping;

        hotcell__egress__v1__ping__init(&ping);
        message.ping = &ping;
        return egress_message_send(fd, &message, NULL, 0);
}

static int send_policy(int fd, const struct egress_request *request)
{
        Hotcell__Egress__V1__FromServer message = head_of(request, FROM_SERVER(SET_POLICY));
        Hotcell__Egress__V1__SetPolicy set_policy;
        uint32_t record_types[_POLICY_RECORD_N];

        hotcell__egress__v1__set_policy__init(&set_policy);
        set_policy.sandbox_id = unconst(request->sandbox_id);
        set_policy.policy_version = request->version;
        set_policy.default_action = (Hotcell__Egress__V1__DefaultAction)request->default_action;
        set_policy.record_types = record_types;
        set_policy.n_record_types = policy_records_list(request->record_types, record_types);
        set_policy.policy_bytes = request->n_bytes;
        message.set_policy = &set_policy;
        return egress_message_send(fd, &message, &request->fd, request->fd >= 0);
}

static int send_request(int fd, const struct egress_request *request)
{
        switch (request->kind) {
        case KIND_SYNC:
                return send_sync(fd, request);
        case KIND_PING:
                return send_ping(fd, request);
        case KIND_POLICY:
        default:
                return send_policy(fd, request);
        }
}

int egress_requests_send(struct egress_requests *requests, int fd)
{
        struct egress_request *request;
        int r = 0;

        while (r == 0 && (request = TAILQ_FIRST(&requests->unsent))) {
                r = send_request(fd, request);
                if (r)
                        break;
                TAILQ_REMOVE(&requests->unsent, request, unsent_link);
                request->is_sent = true;
                request->fd = close_fd(request->fd);
        }
        return r;
}

/* --- answers --- */

static enum egress_result result_of(const Hotcell__Egress__V1__Failure *failure)
{
        if (failure->reason == FAILURE(TOO_COMPLEX))
                return EGRESS_E_TOO_COMPLEX;
        return failure->reason == FAILURE(NOT_PROVEN) ? EGRESS_E_NOT_PROVEN : EGRESS_E_REFUSED;
}

bool egress_requests_hear(struct egress_requests *requests,
                          const Hotcell__Egress__V1__ToServer *packet)
{
        struct map_node *node = map_find(&requests->all, &packet->request, sizeof(packet->request));
        struct egress_request *request = MAP_ITEM(node, struct egress_request, by_number);
        struct egress_answer what = { .result = EGRESS_ENFORCED };
        char text[EGRESS_REASON_BUFFER];

        if (!request || !request->is_sent)
                return false;
        if (request->kind == KIND_SYNC) {
                what.result =
                        packet->body_case == TO_SERVER(SYNCED) ? EGRESS_SYNCED : EGRESS_E_REFUSED;
                if (what.result && packet->body_case != TO_SERVER(FAILURE))
                        return false;
        } else if (packet->body_case == TO_SERVER(FAILURE)) {
                egress_check_text(packet->failure->message, text);
                what.result = result_of(packet->failure);
                what.message = text;
                log_warning_of(&requests->log,
                               "hotcell-egress refused a policy sandbox=%s version=%lld reason=%d "
                               "message=\"%s\"",
                               request->sandbox_id, (long long)request->version,
                               (int)packet->failure->reason, text);
        } else if (request->kind == KIND_PING) {
                if (packet->body_case != TO_SERVER(PONG))
                        return false;
        } else if (packet->body_case != TO_SERVER(ENFORCED) ||
                   !egress_check_enforced(packet->enforced, &what.enforced)) {
                return false;
        }
        answer(request, &what, true);
        arm_timer(requests);
        return true;
}

/* --- life --- */

static void free_all(struct egress_requests *requests)
{
        struct map_node *node;

        while ((node = map_first(&requests->all)))
                free_request(CONTAINER_OF(node, struct egress_request, by_number));
}

/* What they ask for meanwhile is refused: the connection is closed. */
void egress_requests_lose(struct egress_requests *requests)
{
        static const struct egress_answer lost = { .result = EGRESS_E_LOST };
        struct egress_request *request;

        while ((request = TAILQ_FIRST(&requests->waiting)))
                answer(request, &lost, true);
        free_all(requests);
        arm_timer(requests);
}

int egress_requests_init(struct egress_requests *requests, sd_event *loop)
{
        int r;

        *requests = (struct egress_requests){ 0 };
        TAILQ_INIT(&requests->waiting);
        TAILQ_INIT(&requests->unsent);
        r = sd_event_add_time(loop, &requests->timer, CLOCK_MONOTONIC, 0, 1000, on_silent,
                              requests);
        if (r < 0)
                return error_origin(r);
        (void)sd_event_source_set_enabled(requests->timer, SD_EVENT_OFF);
        return 0;
}

void egress_requests_deinit(struct egress_requests *requests)
{
        free_all(requests);
        requests->timer = sd_event_source_disable_unref(requests->timer);
}
