#include "runtime/egress/teller.h"

#include <errno.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"
#include "runtime/base/token_bucket.h"

enum { ACCURACY_USEC = 10000 };

/* Of one kind; `event` has all but their number. */
struct sum {
        LIST_ENTRY(sum) link;
        struct event event;
        uint64_t count;
};

struct teller {
        struct tellers *tellers;
        struct events_share share; /* of the queue */
        struct token_bucket bucket;
        LIST_HEAD(, sum) sums;
        size_t n_sums;
        LIST_ENTRY(teller) link;
        bool is_busy;    /* listed */
        bool is_waiting; /* for room in the queue */
        bool has_ended;
};

/* --- summing up ---------------------------------------------------------------------------------
 */

static bool is_alike(const struct event *a, const struct event *b)
{
        return a->source == b->source && a->decision == b->decision && a->reason == b->reason &&
               a->policy_version == b->policy_version;
}

static struct sum *find_sum(const struct teller *teller, const struct event *event, bool is_exact)
{
        struct sum *sum;

        LIST_FOREACH(sum, &teller->sums, link)
        {
                if (is_alike(&sum->event, event) &&
                    (!is_exact || (sum->event.rule == event->rule &&
                                   sum->event.error_number == event->error_number)))
                        return sum;
        }
        return NULL;
}

static struct sum *add_sum(struct teller *teller, const struct event *event)
{
        struct sum *sum = reserve_alloc(sizeof(*sum));

        if (!sum)
                return NULL;
        sum->event = *event;
        sum->event.sent_bytes = sum->event.received_bytes = 0;
        LIST_INSERT_HEAD(&teller->sums, sum, link);
        teller->n_sums++;
        return sum;
}

/* NULL: there is no memory for one. */
static struct sum *sum_for(struct teller *teller, const struct event *event)
{
        struct sum *sum = find_sum(teller, event, true);

        if (!sum && teller->n_sums >= TELLER_KINDS_MAX)
                sum = find_sum(teller, event, false);
        if (!sum)
                sum = add_sum(teller, event);
        return sum ? sum : find_sum(teller, event, false);
}

static void keep_common_process(struct event *kept, const struct event *event)
{
        if (kept->leaf_cgroup_id != event->leaf_cgroup_id)
                kept->leaf_cgroup_id = 0;
        if (kept->pid == event->pid && strcmp(kept->command, event->command) == 0)
                return;
        kept->pid = 0;
        kept->command[0] = '\0';
}

static void keep_common_destination(struct event *kept, const struct event *event)
{
        if (kept->has_address != event->has_address ||
            memcmp(&kept->address, &event->address, sizeof(kept->address)) != 0)
                kept->has_address = false;
        if (!kept->has_address)
                kept->address = (struct policy_address){ 0 };
        if (kept->port != event->port)
                kept->port = 0;
        if (kept->protocol != event->protocol)
                kept->protocol = 0;
        if (strcmp(kept->name, event->name) != 0)
                kept->name[0] = '\0';
}

static void add_to_sum(struct sum *sum, const struct event *event)
{
        struct event *kept = &sum->event;

        keep_common_process(kept, event);
        keep_common_destination(kept, event);
        if (kept->error_number != event->error_number)
                kept->error_number = 0;
        if (kept->rule != event->rule)
                kept->rule = EVENT_RULES_SEVERAL;
        kept->time_usec = event->time_usec;
        kept->asked_usec = event->asked_usec;
        kept->duration_usec = MAX(kept->duration_usec, event->duration_usec);
        kept->sent_bytes += event->sent_bytes;
        kept->received_bytes += event->received_bytes;
        sum->count += event->count;
}

/* --- whose turn it is ---------------------------------------------------------------------------
 */

static void list(struct teller *teller)
{
        if (teller->is_busy)
                return;
        LIST_INSERT_HEAD(&teller->tellers->busy, teller, link);
        teller->is_busy = true;
}

static void unlist(struct teller *teller)
{
        if (teller->is_busy)
                LIST_REMOVE(teller, link);
        teller->is_busy = false;
}

static void arm(struct tellers *tellers)
{
        if (sd_event_source_get_enabled(tellers->timer, NULL) > 0)
                return;
        (void)sd_event_source_set_time_relative(tellers->timer, TELLER_SUM_USEC);
        (void)sd_event_source_set_enabled(tellers->timer, SD_EVENT_ONESHOT);
}

static void sum_up(struct teller *teller, const struct event *event)
{
        struct sum *sum = sum_for(teller, event);

        if (!sum) {
                events_lose(teller->tellers->events, event->count);
                return;
        }
        add_to_sum(sum, event);
        list(teller);
        arm(teller->tellers);
}

/* --- telling ------------------------------------------------------------------------------------
 */

static bool push(struct teller *teller, const struct event *event)
{
        if (!events_push(teller->tellers->events, &teller->share, event))
                return false;
        (void)sd_event_source_set_enabled(teller->tellers->sending, SD_EVENT_ONESHOT);
        return true;
}

void teller_push(struct teller *teller, const struct event *event)
{
        static const struct token_rate rate = { .interval_usec = TELLER_INTERVAL_USEC,
                                                .burst = TELLER_BURST };
        bool is_too_much = event->source == EGRESS_SOURCE(RELAY) &&
                           token_bucket_take(&teller->bucket, &rate, clock_monotonic_usec()) > 0;

        if (is_too_much || !push(teller, event))
                sum_up(teller, event);
}

/* A count has 32 bits. */
static bool tell_sum(struct teller *teller, struct sum *sum)
{
        while (sum->count > 0) {
                sum->event.count = (uint32_t)MIN(sum->count, (uint64_t)UINT32_MAX);
                if (!push(teller, &sum->event))
                        return false;
                sum->count -= sum->event.count;
                sum->event.sent_bytes = sum->event.received_bytes = 0;
        }
        return true;
}

bool teller_flush(struct teller *teller)
{
        struct sum *sum;

        teller->is_waiting = false;
        while ((sum = LIST_FIRST(&teller->sums))) {
                teller->is_waiting = !tell_sum(teller, sum);
                if (teller->is_waiting)
                        return false;
                LIST_REMOVE(sum, link);
                teller->n_sums--;
                reserve_free(sum);
        }
        return true;
}

static void teller_free(struct teller *teller)
{
        struct sum *sum;

        unlist(teller);
        while ((sum = LIST_FIRST(&teller->sums))) {
                LIST_REMOVE(sum, link);
                reserve_free(sum);
        }
        free(teller);
}

/* After its sums were told or not: whether there is anything left for it to do. */
static void settle(struct teller *teller)
{
        if (!LIST_EMPTY(&teller->sums))
                return;
        if (!teller->has_ended)
                unlist(teller);
        else if (teller->share.n_queued == 0)
                teller_free(teller);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct tellers *tellers = userdata;
        struct teller *teller = LIST_FIRST(&tellers->busy);
        bool is_any_left = false;

        (void)source;
        (void)usec;
        while (teller) {
                struct teller *following = LIST_NEXT(teller, link);

                is_any_left |= !teller_flush(teller);
                settle(teller);
                teller = following;
        }
        if (is_any_left)
                arm(tellers);
        return 0;
}

void tellers_go_on(struct tellers *tellers)
{
        struct teller *teller = LIST_FIRST(&tellers->busy);

        while (teller) {
                struct teller *following = LIST_NEXT(teller, link);

                if (teller->is_waiting)
                        (void)teller_flush(teller);
                settle(teller);
                teller = following;
        }
}

/* --- its life -----------------------------------------------------------------------------------
 */

int tellers_init(struct tellers *tellers, sd_event *loop, struct events *events,
                 sd_event_source *sending)
{
        int r;

        *tellers = (struct tellers){ .events = events, .sending = sending };
        LIST_INIT(&tellers->busy);
        r = sd_event_add_time_relative(loop, &tellers->timer, CLOCK_MONOTONIC, 0, ACCURACY_USEC,
                                       on_timer, tellers);
        if (r >= 0)
                r = sd_event_source_set_enabled(tellers->timer, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
}

void tellers_deinit(struct tellers *tellers)
{
        struct teller *teller;

        while ((teller = LIST_FIRST(&tellers->busy))) {
                assert(teller->has_ended);
                teller_free(teller);
        }
        tellers->timer = sd_event_source_disable_unref(tellers->timer);
}

int teller_new(struct tellers *tellers, struct teller **ret_teller)
{
        struct teller *teller = calloc(1, sizeof(*teller));

        if (!teller)
                return error_origin(-ENOMEM);
        teller->tellers = tellers;
        LIST_INIT(&teller->sums);
        *ret_teller = teller;
        return 0;
}

struct teller *teller_end(struct teller *teller)
{
        if (!teller)
                return NULL;
        teller->has_ended = true;
        list(teller);
        if (!teller_flush(teller))
                arm(teller->tellers);
        settle(teller);
        return NULL;
}
