/* The meters of sandboxes and of what runs in them have all that is told of each. */

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "bpf/egress.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/container/tmpfs.h"
#include "runtime/supervisor/messages.h"
#include "runtime/supervisor/process.h"
#include "runtime/supervisor/supervisor.h"
#include "runtime/supervisor/tables.h"
#include "test/lib/suite.h"

static struct supervisor supervisor;
static struct sandbox_host host;
static struct sandbox sandbox;
static struct process running, starting;
static bool is_answered;

void __wrap_messages_answer(struct supervisor *of, struct ticket ticket,
                            Hotcell__Runtime__V1__FromRuntime *message, const int *fds,
                            size_t n_fds);
int __wrap_metering_read_leaf(struct leaf_meter *meter, struct metered *ret_metered);
int __wrap_metering_read_sandbox(struct sandbox_meter *meter, struct metered *ret_metered);
void __wrap_metering_fill_state(const struct metering *metering,
                                struct meter_state_message *ret_message);
int __wrap_tmpfs_read_use(int fd, struct tmpfs_amount *ret_used);
int __wrap_egress_wall_read_counts(const struct egress_wall *wall, uint64_t cgroup_id,
                                   struct egress_counts *ret_counts);

int __wrap_metering_read_leaf(struct leaf_meter *meter, struct metered *ret_metered)
{
        ck_assert_ptr_eq(meter, &running.meter);
        *ret_metered = (struct metered){ .files.cpu_usec = 7 };
        return 0;
}

int __wrap_metering_read_sandbox(struct sandbox_meter *meter, struct metered *ret_metered)
{
        ck_assert_ptr_eq(meter, &sandbox.meter);
        *ret_metered = (struct metered){ .files = { .cpu_usec = 70, .processes = 3 } };
        return 0;
}

void __wrap_metering_fill_state(const struct metering *metering,
                                struct meter_state_message *ret_message)
{
        (void)metering;
        hotcell__runtime__v1__meter_state__init(&ret_message->state);
}

int __wrap_tmpfs_read_use(int fd, struct tmpfs_amount *ret_used)
{
        ck_assert_int_eq(fd, sandbox.scratch_fd);
        *ret_used = (struct tmpfs_amount){ .bytes = 55 };
        return 0;
}

int __wrap_egress_wall_read_counts(const struct egress_wall *wall, uint64_t cgroup_id,
                                   struct egress_counts *ret_counts)
{
        (void)wall;
        (void)cgroup_id;
        (void)ret_counts;
        return -ENOENT;
}

void __wrap_messages_answer(struct supervisor *of, struct ticket ticket,
                            Hotcell__Runtime__V1__FromRuntime *message, const int *fds,
                            size_t n_fds)
{
        const Hotcell__Runtime__V1__MeterList *list = message->meter_list;
        const Hotcell__Runtime__V1__Usage *usage;

        ck_assert_ptr_eq(of, &supervisor);
        (void)ticket;
        (void)fds;
        ck_assert_uint_eq(n_fds, 0);
        ck_assert_uint_eq(list->n_sandboxes, 1);
        ck_assert_ptr_nonnull(list->state);
        usage = list->sandboxes[0]->usage;
        ck_assert_str_eq(list->sandboxes[0]->sandbox_id, "sbx-a");
        ck_assert_uint_eq(usage->cpu_usec, 70);
        ck_assert_uint_eq(usage->processes, 3);
        ck_assert_uint_eq(usage->disk_bytes, 55);
        ck_assert_uint_eq(usage->sent_bytes, 111);
        ck_assert_uint_eq(usage->received_bytes, 222);
        ck_assert_uint_eq(list->sandboxes[0]->n_processes, 1);
        usage = list->sandboxes[0]->processes[0]->usage;
        ck_assert_str_eq(list->sandboxes[0]->processes[0]->process_id, "p");
        ck_assert_uint_eq(usage->cpu_usec, 7);
        ck_assert_uint_eq(usage->sent_bytes, 11);
        ck_assert_uint_eq(usage->received_bytes, 22);
        is_answered = true;
}

static struct traffic carried(uint64_t sent, uint64_t received)
{
        return (struct traffic){
                .meter.count = { .sent_bytes = sent, .received_bytes = received },
        };
}

static void add_process(struct process *process, const char *id, enum process_state state)
{
        *process = (struct process){ .sandbox = &sandbox, .state = state };
        (void)snprintf(process->id, sizeof(process->id), "%s", id);
        process_table_add(&sandbox.processes, process);
}

START_TEST(what_connections_carried_is_in_the_list)
{
        char *ids[] = { unconst("sbx-a"), unconst("sbx-none") };
        Hotcell__Runtime__V1__ReadMeters read;

        sandbox = (struct sandbox){ .id = "sbx-a", .host = &host, .state = SANDBOX_RUNNING };
        sandbox.traffic = carried(100, 200);
        add_process(&running, "p", PROCESS_RUNNING);
        running.traffic = carried(11, 22);
        add_process(&starting, "q", PROCESS_STARTING);
        sandbox_table_add(&supervisor.sandboxes, &sandbox);
        hotcell__runtime__v1__read_meters__init(&read);
        if (_i) {
                read.sandbox_ids = ids;
                read.n_sandbox_ids = ARRAY_SIZE(ids);
        }
        messages_answer_meters(&supervisor, (struct ticket){ 0 }, &read);
        ck_assert(is_answered);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("meter_list");
        TCase *tests = tcase_create("meter_list");

        tcase_add_loop_test(tests, what_connections_carried_is_in_the_list, 0, 2);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
