/*
 * A program is refused only after the wall's event is in the ring, so once the ring was empty and
 * what the sandbox's teller summed up was told, all of what a program saw is in the queue of
 * events, and once that was sent as far as it went, all is told. Both may be kept waiting: the ring
 * by a record that another CPU is writing, the queue by a hotcelld that records slowly. Whose sums
 * are told waits for nobody else's.
 */
#include "runtime/egress/server_sync.h"

#include <poll.h>
#include <stdbool.h>
#include <string.h>

#include "runtime/base/again.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/channel/channel.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/server_link.h"
#include "runtime/egress/teller.h"

enum {
        COUNT_USEC = 1000 * 1000,
        COUNTS_BATCH_MAX = 256,
        PACKET_BYTES = COUNTS_BATCH_MAX * 40 + 64,
};

#define TO_SERVER(name) HOTCELL__EGRESS__V1__TO_SERVER__BODY_##name

static void send_message(struct egress *egress, const Hotcell__Egress__V1__ToServer *message)
{
        static uint8_t bytes[PACKET_BYTES];
        size_t n_bytes = hotcell__egress__v1__to_server__get_packed_size(message);

        assert(n_bytes <= sizeof(bytes));
        (void)hotcell__egress__v1__to_server__pack(message, bytes);
        channel_send(egress->server, bytes, n_bytes, NULL, 0);
}

/* --- counts -------------------------------------------------------------------------------------
 */

struct counts_batch {
        struct egress *egress;
        Hotcell__Egress__V1__Count items[COUNTS_BATCH_MAX];
        Hotcell__Egress__V1__Count *pointers[COUNTS_BATCH_MAX];
        size_t n;
};

static void send_counts(struct counts_batch *batch)
{
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Counts counts;

        if (batch->n == 0)
                return;
        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__counts__init(&counts);
        for (size_t i = 0; i < batch->n; i++)
                batch->pointers[i] = &batch->items[i];
        counts.counts = batch->pointers;
        counts.n_counts = batch->n;
        message.body_case = TO_SERVER(COUNTS);
        message.counts = &counts;
        send_message(batch->egress, &message);
        batch->n = 0;
}

/* Takes the counts of a network into the batch if they are new. */
static bool add_count(struct counts_batch *batch, struct network *network, uint64_t n_logged,
                      uint64_t n_dropped)
{
        const uint64_t n_probes = network_n_probes(network);
        struct told_counts *told = &network->told;
        Hotcell__Egress__V1__Count *count;

        if (told->is_told && told->n_logged == n_logged && told->n_dropped == n_dropped)
                return false;
        *told = (struct told_counts){ n_logged, n_dropped, true };
        if (batch->n == COUNTS_BATCH_MAX)
                send_counts(batch);
        count = &batch->items[batch->n++];
        hotcell__egress__v1__count__init(count);
        count->cgroup_id = network->cgroup_id;
        count->n_logged = n_logged - MIN(n_logged, n_probes);
        count->n_dropped = n_dropped;
        return true;
}

static bool read_count(struct counts_batch *batch, struct network *network)
{
        struct egress_counts counts;

        if (tables_read_counts(&network->egress->tables, network->cgroup_id, &counts))
                return false;
        return add_count(batch, network, counts.n_logged, counts.n_dropped);
}

void server_sync_tell_count(struct network *network)
{
        static struct counts_batch batch;

        batch.egress = network->egress;
        (void)read_count(&batch, network);
        send_counts(&batch);
}

void server_sync_tell_last(struct network *network, uint64_t n_logged, uint64_t n_dropped)
{
        static struct counts_batch batch;

        if (network->told.is_told && n_logged < network->told.n_logged)
                return; /* they could not be read any more */
        batch.egress = network->egress;
        (void)add_count(&batch, network, n_logged, n_dropped);
        send_counts(&batch);
}

/* True: some had changed. */
static bool tell_counts(struct egress *egress)
{
        static struct counts_batch batch;
        struct network *network, *following;
        bool has_changed = false;

        batch.egress = egress;
        HASH_ITER(by_id, egress->networks.by_id, network, following)
        {
                has_changed |= read_count(&batch, network);
        }
        send_counts(&batch);
        return has_changed;
}

static int on_counting(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        if (tell_counts(userdata))
                server_sync_count_soon(userdata);
        return 0;
}

void server_sync_count_soon(struct egress *egress)
{
        sd_event_source *counting = egress->sync.counting;

        if (sd_event_source_get_enabled(counting, NULL) > 0)
                return;
        (void)sd_event_source_set_time_relative(counting, COUNT_USEC);
        (void)sd_event_source_set_enabled(counting, SD_EVENT_ONESHOT);
}

void server_sync_restart(struct egress *egress)
{
        struct network *network, *following;

        egress->sync.n_waiting = 0;
        HASH_ITER(by_id, egress->networks.by_id, network, following)
        {
                network->told.is_told = false;
        }
        (void)tell_counts(egress);
}

/* --- what is waited for -------------------------------------------------------------------------
 */

static void answer(struct egress *egress, uint64_t request, uint64_t cgroup_id)
{
        struct network *network = network_tables_find_group(&egress->networks, cgroup_id);
        Hotcell__Egress__V1__ToServer message;
        Hotcell__Egress__V1__Synced synced;

        if (network)
                server_sync_tell_count(network);
        hotcell__egress__v1__to_server__init(&message);
        hotcell__egress__v1__synced__init(&synced);
        message.request = request;
        message.body_case = TO_SERVER(SYNCED);
        message.synced = &synced;
        send_message(egress, &message);
}

/* Also one that another CPU is writing, behind which there may be more, is there. */
static bool is_ring_empty(const struct egress *egress)
{
        struct pollfd ring = { .fd = egress->tables.fds[EGRESS_MAP_EVENTS], .events = POLLIN };

        return poll(&ring, 1, 0) == 0;
}

static bool is_any_unmarked(const struct server_sync *sync)
{
        for (size_t i = 0; i < sync->n_waiting; i++)
                if (sync->waiting[i].event == 0)
                        return true;
        return false;
}

/* All but those of whom something was too much to be told one by one, for whose sum there is no
 * room until some of what is queued is recorded. */
static void mark(struct egress *egress)
{
        struct server_sync *sync = &egress->sync;

        for (size_t i = 0; i < sync->n_waiting; i++) {
                struct network *network;

                if (sync->waiting[i].event > 0)
                        continue;
                network = network_tables_find_group(&egress->networks, sync->waiting[i].cgroup_id);
                if (!network || teller_flush(network->teller))
                        sync->waiting[i].event = egress->events.n_pushed;
        }
}

/* Finds which event is the last that each waits for, where that can be known now. */
static void take_ring(struct egress *egress)
{
        if (!is_any_unmarked(&egress->sync))
                return;
        egress_consume(egress);
        if (is_ring_empty(egress))
                mark(egress);
        else
                again(egress->sync.again);
}

void server_sync_go_on(struct egress *egress)
{
        struct server_sync *sync = &egress->sync;
        size_t n_left = 0;

        take_ring(egress);
        server_link_send_events(egress);
        for (size_t i = 0; i < sync->n_waiting; i++) {
                if (sync->waiting[i].event > 0 && sync->waiting[i].event <= egress->events.n_sent)
                        answer(egress, sync->waiting[i].request, sync->waiting[i].cgroup_id);
                else
                        sync->waiting[n_left++] = sync->waiting[i];
        }
        sync->n_waiting = n_left;
}

void server_sync_begin(struct egress *egress, uint64_t request, const char *sandbox_id)
{
        struct network *network = network_tables_find(&egress->networks, sandbox_id);
        struct server_sync *sync = &egress->sync;

        if (sync->n_waiting == SYNCS_MAX) {
                server_link_answer_failure(
                        egress, request,
                        HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_EXHAUSTED,
                        "too many wait for the events before theirs");
                return;
        }
        if (network)
                network_hear(network);
        sync->waiting[sync->n_waiting].request = request;
        sync->waiting[sync->n_waiting].cgroup_id = network ? network->cgroup_id : 0;
        sync->waiting[sync->n_waiting++].event = 0;
        server_sync_go_on(egress);
}

/* --- its life -----------------------------------------------------------------------------------
 */

static int on_again(sd_event_source *source, uint64_t usec, void *userdata)
{
        (void)source;
        (void)usec;
        server_sync_go_on(userdata);
        return 0;
}

int server_sync_init(struct egress *egress)
{
        struct server_sync *sync = &egress->sync;
        int r = again_new(egress->event, &sync->again, on_again, egress);

        if (r >= 0)
                r = sd_event_add_time_relative(egress->event, &sync->counting, CLOCK_MONOTONIC,
                                               COUNT_USEC, 0, on_counting, egress);
        if (r >= 0)
                r = sd_event_source_set_enabled(sync->counting, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}

void server_sync_deinit(struct egress *egress)
{
        egress->sync.again = sd_event_source_disable_unref(egress->sync.again);
        egress->sync.counting = sd_event_source_disable_unref(egress->sync.counting);
}
