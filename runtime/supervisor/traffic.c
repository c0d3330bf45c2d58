#include "runtime/supervisor/traffic.h"

#include "bpf/egress.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/meters/metering.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/sandbox.h"
#include "runtime/supervisor/tables.h"

enum { PLACES_OF_A_SANDBOX = 18, PLACES_MIN = 1024 };

size_t traffic_places(uint32_t n_sandboxes)
{
        return MAX((size_t)n_sandboxes * PLACES_OF_A_SANDBOX, (size_t)PLACES_MIN);
}

static void add(struct traffic_amount *sum, uint64_t sent_bytes, uint64_t received_bytes)
{
        sum->sent_bytes = MIN(sum->sent_bytes + sent_bytes, TRAFFIC_BYTES_MAX);
        sum->received_bytes = MIN(sum->received_bytes + received_bytes, TRAFFIC_BYTES_MAX);
}

void traffic_open(const struct sandbox_host *host, uint64_t cgroup_id, struct traffic *ret_traffic)
{
        int r;

        *ret_traffic = (struct traffic){ 0 };
        r = traffic_table_give(host->traffic, cgroup_id, &ret_traffic->meter);
        ret_traffic->is_open = r == 0;
        ret_traffic->is_missing = r == TRAFFIC_E_FULL;
        if (ret_traffic->is_missing)
                log_warning("no place to count the traffic of another group: cgroup=%llu",
                            (unsigned long long)cgroup_id);
}

/* The last reading before it was closed stays. */
static void look(const struct sandbox_host *host, struct traffic *traffic)
{
        if (traffic->is_open)
                traffic_table_read(host->traffic, &traffic->meter);
}

static void close_place(const struct sandbox_host *host, struct traffic *traffic)
{
        if (traffic->is_open)
                traffic_table_take_back(host->traffic, &traffic->meter);
        traffic->is_open = false;
}

/* --- of a process ------------------------------------------------------------------------------
 */

void traffic_close_process(struct process *process)
{
        const struct traffic_count *count = &process->traffic.meter.count;

        close_place(process->sandbox->host, &process->traffic);
        add(&process->sandbox->traffic_of_the_gone, count->sent_bytes, count->received_bytes);
}

bool traffic_read_process(struct process *process, struct traffic_amount *ret_amount)
{
        const struct traffic_count *count = &process->traffic.meter.count;

        look(process->sandbox->host, &process->traffic);
        *ret_amount = (struct traffic_amount){ .sent_bytes = count->sent_bytes,
                                               .received_bytes = count->received_bytes };
        return !process->traffic.is_missing;
}

/* --- of a sandbox ------------------------------------------------------------------------------
 */

/* What its device carried: in the table of the wall as long as the sandbox is admitted. */
static void look_at_device(struct sandbox *sandbox)
{
        struct traffic_amount *direct = &sandbox->traffic.direct;
        struct egress_counts counts;

        if (egress_wall_read_counts(sandbox->host->egress, sandbox->group.id, &counts))
                return;
        direct->sent_bytes = counts.sent_bytes;
        direct->received_bytes = counts.received_bytes;
}

static void tell_lost(const struct sandbox_host *host)
{
        struct traffic_count lost;

        traffic_table_take_lost(host->traffic, &lost);
        if (lost.sent_bytes || lost.received_bytes)
                log_info("connections went on after the last reading of their sandboxes: "
                         "sent_bytes=%llu received_bytes=%llu",
                         (unsigned long long)lost.sent_bytes,
                         (unsigned long long)lost.received_bytes);
}

void traffic_close_sandbox(struct sandbox *sandbox)
{
        look_at_device(sandbox);
        close_place(sandbox->host, &sandbox->traffic);
        tell_lost(sandbox->host);
}

bool traffic_read_sandbox(struct sandbox *sandbox, struct traffic_amount *ret_amount)
{
        const struct traffic *own = &sandbox->traffic;
        struct traffic_amount sum = sandbox->traffic_of_the_gone;
        struct traffic_amount amount;
        struct process *process;
        struct process *following;

        HASH_ITER(hh, sandbox->processes, process, following)
        {
                if (process_is_alive(process)) {
                        (void)traffic_read_process(process, &amount);
                        add(&sum, amount.sent_bytes, amount.received_bytes);
                }
        }
        look(sandbox->host, &sandbox->traffic);
        if (own->is_open)
                look_at_device(sandbox);
        add(&sum, own->meter.count.sent_bytes, own->meter.count.received_bytes);
        add(&sum, own->direct.sent_bytes, own->direct.received_bytes);
        *ret_amount = sum;
        return !own->is_missing;
}

/* --- for messages ------------------------------------------------------------------------------
 */

static void fill(const struct traffic_amount *amount, bool is_whole, struct usage_message *message)
{
        message->usage.sent_bytes = amount->sent_bytes;
        message->usage.received_bytes = amount->received_bytes;
        if (!is_whole)
                message->missing[message->usage.n_missing++] =
                        HOTCELL__RUNTIME__V1__METER_PART__METER_PART_TRAFFIC;
}

void traffic_fill_process(struct process *process, struct usage_message *message)
{
        struct traffic_amount amount;
        bool is_whole = traffic_read_process(process, &amount);

        fill(&amount, is_whole, message);
}

void traffic_fill_sandbox(struct sandbox *sandbox, struct usage_message *message)
{
        struct traffic_amount amount;
        bool is_whole = traffic_read_sandbox(sandbox, &amount);

        fill(&amount, is_whole, message);
}
