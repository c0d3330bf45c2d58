#include "test/unit/session/egress_events.h"

#include <check.h>
#include <setjmp.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "server/session/ring.h"

struct journal; /* only pointed at */

/* What a killed server had in memory stays and is nobody's; see test_crashes.c. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
        return 1;
}

char sandbox_id[ID_BUFFER];
int64_t sequence;    /* of the next event */
bool is_store_stuck; /* it does not answer */
int store_result;    /* it fails with that */
unsigned n_inserts;
bool is_meter_read; /* for the last time: the execution closes */
unsigned crash_point, n_points;
jmp_buf at_point;

static void pass_point(void)
{
        if (crash_point > 0 && ++n_points == crash_point)
                longjmp(at_point, 1);
}

void __real_store_insert_egress_events(struct store *store, const struct egress_record *records,
                                       size_t n, store_on_done on_done, void *userdata);
void __wrap_store_insert_egress_events(struct store *store, const struct egress_record *records,
                                       size_t n, store_on_done on_done, void *userdata);
int64_t __real_ring_append(struct ring *ring, const struct ring_entry *entry,
                           const struct ring_piece *pieces, size_t n_pieces);
int64_t __wrap_ring_append(struct ring *ring, const struct ring_entry *entry,
                           const struct ring_piece *pieces, size_t n_pieces);
void __real_journal_commit(struct journal *journal);
void __wrap_journal_commit(struct journal *journal);
void __real_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);
void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);
int __real_session_read_usage(struct session *session, const char *sandbox, const char *process,
                              void *on_answer, void *userdata);
int __wrap_session_read_usage(struct session *session, const char *sandbox, const char *process,
                              void *on_answer, void *userdata);

store_on_done stuck_on_done;
void *stuck_userdata;

void __wrap_store_insert_egress_events(struct store *store, const struct egress_record *records,
                                       size_t n, store_on_done on_done, void *userdata)
{
        n_inserts++;
        pass_point();
        if (is_store_stuck) {
                stuck_on_done = on_done;
                stuck_userdata = userdata;
                return;
        }
        if (store_result) {
                on_done(userdata, store_result);
                return;
        }
        __real_store_insert_egress_events(store, records, n, on_done, userdata);
        pass_point();
}

int64_t __wrap_ring_append(struct ring *ring, const struct ring_entry *entry,
                           const struct ring_piece *pieces, size_t n_pieces)
{
        int64_t appended;

        pass_point();
        appended = __real_ring_append(ring, entry, pieces, n_pieces);
        pass_point();
        return appended;
}

void __wrap_journal_commit(struct journal *journal)
{
        pass_point();
        __real_journal_commit(journal);
        pass_point();
}

void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata)
{
        pass_point();
        __real_store_end_execution(store, record, output, on_done, userdata);
        pass_point();
}

int __wrap_session_read_usage(struct session *session, const char *sandbox, const char *process,
                              void *on_answer, void *userdata)
{
        is_meter_read |= *process;
        return __real_session_read_usage(session, sandbox, process, on_answer, userdata);
}

void set_up(void)
{
        fixture_setup();
        (void)strcpy(sandbox_id, new_sandbox().sandbox.sandbox_id);
        sequence = 1;
}

struct egress_record denial(int port)
{
        return (struct egress_record){
                .sequence = sequence++,
                .type = EGRESS_EVENT_DENIED,
                .protocol = EGRESS_PROTOCOL_TCP,
                .address = "192.0.2.1",
                .port = port,
                .reason = EGRESS_REASON_DEFAULT,
                .command = "curl",
        };
}

int tell(const struct egress_record *record)
{
        const struct egress_source source = {
                .sandbox_id = sandbox_id,
                .leaf_cgroup_id = FAKE_LEAF_FIRST + fake_runtime_n_started(f.runtime) - 1,
        };

        return session_egress_event(f.session, &source, record);
}

void tell_denial(int port)
{
        struct egress_record record = denial(port);

        ck_assert_int_eq(tell(&record), 0);
}

struct answer begin(struct seen *seen)
{
        char code[200];
        struct execute_request request;
        struct answer answer;

        (void)snprintf(code, sizeof(code), "out on\nawait %s/go", f.home);
        request = execute_request(sandbox_id, code);
        memset(seen, 0, sizeof(*seen));
        answer = execute(&request, seen);
        wait_for_text(seen, "stdout:on");
        return answer;
}

void go(void)
{
        char path[128];
        FILE *file;

        (void)snprintf(path, sizeof(path), "%s/go", f.home);
        file = fopen(path, "w");
        ck_assert_ptr_nonnull(file);
        (void)fclose(file);
}

void come_back(void)
{
        char path[128];

        (void)snprintf(path, sizeof(path), "%s/go", f.home);
        (void)remove(path);
}

struct stored stored;

static void on_listed(void *userdata, int result, const struct egress_list *list)
{
        (void)userdata;
        stored.is_done = true;
        stored.result = result;
        stored.n = list ? list->n : 0;
        if (stored.n > 0)
                memcpy(stored.records, list->records, stored.n * sizeof(*stored.records));
}

size_t n_stored(void)
{
        const struct egress_query query = { .owner = "uid:1",
                                            .sandbox_id = sandbox_id,
                                            .limit = 1000 };

        stored.is_done = false;
        store_list_egress_events(f.store, &query, on_listed, NULL);
        run_until_true(&stored.is_done);
        ck_assert_int_eq(stored.result, 0);
        return stored.n;
}

void wait_for_stored(size_t n)
{
        time_t end = time(NULL) + PATIENCE_SEC;

        while (n_stored() < n)
                ck_assert_msg(time(NULL) < end, "%zu are stored", stored.n);
        ck_assert_uint_eq(stored.n, n);
}
