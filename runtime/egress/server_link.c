#include "runtime/egress/server_link.h"

#include <string.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/channel/channel.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/policy_turns.h"
#include "runtime/egress/server_sync.h"

enum { PACKET_MAX = 128 << 10 };

#define FAILURE(name)   HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name
#define TO_SERVER(name) HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name

static void send_message(struct egress *egress, const Hotcell__Egress__V1__ToServer *message)
{
        uint8_t bytes[1024];
        size_t n_bytes = hotcell__egress__v1__to_server__get_packed_size(message);

        assert(n_bytes <= sizeof(bytes));
        (void)hotcell__egress__v1__to_server__pack(message, bytes);
        channel_send(egress->server, bytes, n_bytes, NULL, 0);
}

void server_link_answer_failure(struct egress *egress, uint64_t request,
                                Hotcell__Egress__V1__FailureReason reason, const char *text)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Failure failure;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__failure__init(&failure);
        failure.reason = reason;
        failure.message = unconst(text);
        message.request = request;
        message.body_case = TO_SERVER(FAILURE);
        message.failure = &failure;
        send_message(egress, &message);
}

void server_link_answer_enforced(struct egress *egress, uint64_t request,
                                 const struct network_policy *policy, size_t n_cut)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Enforced enforced;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__enforced__init(&enforced);
        enforced.policy_digest.data = (uint8_t *)(uintptr_t)policy->digest;
        enforced.policy_digest.len = sizeof(policy->digest);
        enforced.program_ids = egress->program_ids;
        enforced.n_program_ids = egress->n_programs;
        enforced.n_cut = (uint32_t)n_cut;
        message.request = request;
        message.body_case = TO_SERVER(ENFORCED);
        message.enforced = &enforced;
        send_message(egress, &message);
}

static void answer_pong(struct egress *egress, uint64_t request)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Pong pong;

        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__pong__init(&pong);
        message.request = request;
        message.body_case = TO_SERVER(PONG);
        message.pong = &pong;
        send_message(egress, &message);
}

static void set_policy(struct egress *egress, uint64_t request,
                       const Hotcell__Egress__V1__SetPolicy *set, int fd)
{
        struct network *network = network_tables_find(&egress->networks, set->sandbox_id);

        if (!network) {
                (void)close_fd(fd);
                server_link_answer_failure(egress, request, FAILURE(NOT_FOUND),
                                           "there is no such network, or no memory was left for "
                                           "it");
                return;
        }
        egress_consume(egress);
        if (!network_is_proven(network)) {
                (void)close_fd(fd);
                server_link_answer_failure(egress, request, FAILURE(NOT_PROVEN),
                                           "no refusal of the wall was seen from within the "
                                           "sandbox");
                return;
        }
        server_sync_tell_count(network);
        policy_turns_begin(egress->turns, network, request, set, fd);
}

void server_link_handle(struct egress *egress, const uint8_t *bytes, size_t n_bytes, int *fds,
                        size_t n_fds)
{
        Hotcell__Egress__V1__FromServer *message;

        wire_arena_reset(&egress->arena);
        message =
                hotcell__egress__v1__from_server__unpack(&egress->arena.allocator, n_bytes, bytes);
        if (!message) {
                log_warning("hotcelld sent a packet that is no message: bytes=%zu", n_bytes);
                return;
        }
        if (message->body_case == HOTCELL__EGRESS__V1__FROM_SERVER__BODY_SET_POLICY) {
                set_policy(egress, message->request, message->set_policy,
                           n_fds > 0 ? take_fd(&fds[0]) : -1);
        } else if (message->body_case ==
                   HOTCELL__EGRESS__V1__FROM_SERVER__BODY_ACKNOWLEDGE_EVENTS) {
                events_acknowledge(&egress->events, message->acknowledge_events->number);
                tellers_go_on(&egress->tellers);
                server_sync_go_on(egress);
        } else if (message->body_case == HOTCELL__EGRESS__V1__FROM_SERVER__BODY_PING) {
                answer_pong(egress, message->request);
        } else if (message->body_case == HOTCELL__EGRESS__V1__FROM_SERVER__BODY_SYNC) {
                server_sync_begin(egress, message->request, message->sync->sandbox_id);
        } else {
                server_link_answer_failure(egress, message->request, FAILURE(INVALID),
                                           "hotcell-egress does not know this request");
        }
}

void server_link_send_events(struct egress *egress)
{
        static uint8_t bytes[PACKET_MAX];
        size_t n_bytes;

        while (channel_connection(egress->server) &&
               (n_bytes = events_pack(&egress->events, bytes, sizeof(bytes))) > 0)
                channel_send(egress->server, bytes, n_bytes, NULL, 0);
}
