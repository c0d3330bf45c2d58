#include "test/unit/session/fixture.h"

#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/policy/domain.h"
#include "runtime/policy/policy.h"
#include "test/lib/scratch.h"
#include "test/lib/suite.h"

struct fixture f;

enum { PATIENCE_SEC = 20 };

void run_until(bool (*condition)(void *userdata), void *userdata)
{
        time_t end = time(NULL) + PATIENCE_SEC;

        while (!condition(userdata)) {
                ck_assert_int_ge(sd_event_run(f.loop, 100000), 0);
                ck_assert_msg(time(NULL) < end, "waited for too long");
        }
}

static bool is_true(void *userdata)
{
        return *(const bool *)userdata;
}

void run_until_true(const bool *flag)
{
        run_until(is_true, (void *)(uintptr_t)flag);
}

void run_turns(unsigned n)
{
        for (unsigned i = 0; i < n; i++)
                ck_assert_int_ge(sd_event_run(f.loop, 0), 0);
}

bool session_serves(void *userdata)
{
        (void)userdata;
        return session_is_ready(f.session);
}

void start_session(void)
{
        char message[MESSAGE_BUFFER];

        ck_assert_int_eq(store_open(f.loop, f.folder, &f.store, message), 0);
        ck_assert_int_eq(session_new(f.loop, f.store, &f.config, &f.session), 0);
}

void start_with_egress(void)
{
        if (f.session)
                stop_session();
        if (!f.egress)
                f.egress = fake_egress_new();
        fake_runtime_script(f.runtime)->egress = f.egress;
        start_session();
        run_until(session_serves, NULL);
}

static void on_stopped(void *userdata)
{
        *(bool *)userdata = true;
}

void stop_session(void)
{
        bool is_stopped = false;

        session_stop(f.session, on_stopped, &is_stopped);
        run_until_true(&is_stopped);
        f.session = session_free(f.session);
        f.store = store_close(f.store);
}

void crash(void)
{
        static struct fixture crashed[4]; /* reachable, so that it is no leak */
        static size_t n_crashed;

        ck_assert_uint_lt(n_crashed, ARRAY_SIZE(crashed));
        fake_runtime_break(f.runtime);
        f.store = store_close(f.store);
        crashed[n_crashed++] = f;
        f.session = NULL;
        ck_assert_int_ge(sd_event_new(&f.loop), 0);
        ck_assert_int_eq(fake_runtime_new(f.loop, f.socket_path, &f.runtime), 0);
}

static void copy_file(const char *folder, const char *name)
{
        char from[128], to[128];
        static char block[65536];
        int in, out;
        ssize_t n;

        (void)snprintf(from, sizeof(from), "%s/%s", f.folder, name);
        (void)snprintf(to, sizeof(to), "%s/%s", folder, name);
        in = open(from, O_RDONLY | O_CLOEXEC);
        if (in < 0 && errno == ENOENT)
                return;
        out = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        ck_assert_int_ge(in, 0);
        ck_assert_int_ge(out, 0);
        while ((n = read(in, block, sizeof(block))) > 0)
                ck_assert_int_eq(write(out, block, (size_t)n), n);
        (void)close(in);
        (void)close(out);
}

/* What is committed now, in a folder of its own. Its worker may be writing: a reader keeps the log
 * from being begun anew meanwhile, and what is torn at its end does not count. */
static void copy_database(const char *folder)
{
        char path[128];
        sqlite3 *reader;

        (void)snprintf(path, sizeof(path), "%s/hotcell.db", f.folder);
        ck_assert_int_eq(mkdir(folder, 0700), 0);
        ck_assert_int_eq(sqlite3_open_v2(path, &reader, SQLITE_OPEN_READWRITE, NULL), SQLITE_OK);
        ck_assert_int_eq(
                sqlite3_exec(reader, "BEGIN; SELECT count(*) FROM sandboxes", NULL, NULL, NULL),
                SQLITE_OK);
        copy_file(folder, "hotcell.db");
        copy_file(folder, "hotcell.db-wal");
        (void)sqlite3_close(reader);
}

void crash_server(void)
{
        static struct fixture crashed[512]; /* reachable, so that it is no leak */
        static size_t n_crashed;
        char folder[sizeof(f.folder)];

        ck_assert_uint_lt(n_crashed, ARRAY_SIZE(crashed));
        (void)snprintf(folder, sizeof(folder), "%s/after-%zu", f.home, n_crashed);
        copy_database(folder);
        crashed[n_crashed++] = f;
        (void)strcpy(f.folder, folder);
        f.session = NULL;
        f.store = NULL;
        ck_assert_int_ge(sd_event_new(&f.loop), 0);
        fake_runtime_move(f.runtime, f.loop);
}

/* What a crashed session had open stays open. */
static void allow_many_files(void)
{
        struct rlimit limit;

        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = limit.rlim_max;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}

void fixture_setup(void)
{
        log_init("test", getenv("HOTCELL_TEST_DEBUG") ? LOG_LEVEL_DEBUG : LOG_LEVEL_ERROR);
        memset(&f, 0, sizeof(f));
        (void)strcpy(f.home, "/tmp/hotcell-session-XXXXXX");
        scratch_make(f.home);
        (void)strcpy(f.folder, f.home);
        (void)snprintf(f.socket_path, sizeof(f.socket_path), "%s/runtime.sock", f.home);
        allow_many_files();
        ck_assert_int_ge(sd_event_new(&f.loop), 0);
        ck_assert_int_eq(fake_runtime_new(f.loop, f.socket_path, &f.runtime), 0);
        f.config = (struct session_config){
                .runtime_socket = f.socket_path,
                .shares = {
                        .total = {
                                [SESSION_SHARE_SANDBOXES] = 8,
                                [SESSION_SHARE_MEMORY] = INT64_C(16) << 30,
                                [SESSION_SHARE_CPU] = 64 * 1000,
                                [SESSION_SHARE_CREATIONS] = 8,
                                [SESSION_SHARE_EXECUTIONS] = 100,
                                [SESSION_SHARE_QUEUED] = 100,
                                [SESSION_SHARE_QUEUED_BYTES] = 4 << 20,
                                [SESSION_SHARE_STREAMS] = 8,
                                [SESSION_SHARE_RINGS] = 16 << 20,
                                [SESSION_SHARE_EGRESS] = 1 << 20,
                                [SESSION_SHARE_EGRESS_RULES] = SESSION_EGRESS_RULES_MAX,
                        },
                        .owner_percent = 50,
                },
                .updates_per_second = 1000,
                .queue_max = 2,
                .queued_bytes_max = 3 << 20,
                .ring_bytes = 1 << 20,
                .rings_retained_usec = 60 * 1000 * 1000,
                .interrupt_first_usec = 100 * 1000,
                .interrupt_second_usec = 100 * 1000,
                .kernel_start_timeout_usec = 10 * 1000 * 1000,
                .egress_answer_usec = 10 * 1000 * 1000,
                .rich_part_max_bytes = 8 << 20,
        };
        start_session();
        run_until(session_serves, NULL);
}

void fixture_teardown(void)
{
        if (f.session)
                stop_session();
        f.runtime = fake_runtime_free(f.runtime);
        f.egress = fake_egress_free(f.egress);
        f.loop = sd_event_unref(f.loop);
        scratch_remove(f.home);
}

struct sandbox_request sandbox_request(void)
{
        return (struct sandbox_request){
                .owner = "uid:1",
                .name = "",
                .template_name = "",
                .limits = {
                        .memory_bytes = 256 << 20,
                        .cpu_millis = 1000,
                        .processes = 64,
                        .disk_bytes = 64 << 20,
                        .open_files = 256,
                        .cpu_weight = 100,
                        .disk_inodes = 16384,
                        .execution = { .timeout_usec = 30 * 1000 * 1000,
                                       .output_bytes = 1 << 30 },
                },
        };
}

struct execute_request execute_request(const char *sandbox_id, const char *code)
{
        return (struct execute_request){
                .owner = "uid:1",
                .sandbox_id = sandbox_id,
                .context_id = "",
                .language = "",
                .code = code,
                .n_code = strlen(code),
                .disconnect_grace_usec = 10 * 1000 * 1000,
        };
}

void on_sandbox_answer(void *userdata, const struct session_result *result,
                       const struct sandbox_record *record, bool created)
{
        struct answer *answer = userdata;

        answer->is_done = true;
        answer->result = *result;
        answer->created = created;
        if (record)
                answer->sandbox = *record;
}

void on_execution_answer(void *userdata, const struct session_result *result,
                         const struct execution_record *record)
{
        struct answer *answer = userdata;

        answer->is_done = true;
        answer->result = *result;
        if (record)
                answer->execution = *record;
}

void on_contexts_answer(void *userdata, const struct session_result *result,
                        const struct context_view *views, size_t n)
{
        struct answer *answer = userdata;

        answer->is_done = true;
        answer->result = *result;
        answer->n = n;
        if (n > 0) {
                answer->context = *views[0].record;
                answer->context_state = views[0].state;
        }
}

struct reading {
        bool is_done;
        struct books books;
};

static void add_row(struct books *books, const struct usage_record *row)
{
        books->last = *row;
        books->n_executions += row->type == USAGE_RECORD_EXECUTION;
        books->n_sandboxes += row->type == USAGE_RECORD_SANDBOX;
        books->n_ends += row->type == USAGE_RECORD_SANDBOX_END;
        books->n_incomplete += row->is_incomplete;
        books->cpu_usec += row->usage.cpu_usec;
        if (row->type == USAGE_RECORD_EXECUTION)
                return;
        books->cpu_usec_sandbox += row->usage.cpu_usec;
        books->wall_usec_sandbox += row->usage.wall_usec;
}

static void on_rows(void *userdata, int result, const struct usage_list *list)
{
        struct reading *reading = userdata;

        reading->is_done = true;
        ck_assert_int_eq(result, 0);
        ck_assert(!list->more);
        for (size_t i = 0; i < list->n; i++) {
                ck_assert_int_eq(list->records[i].sequence, (int64_t)i + 1);
                add_row(&reading->books, &list->records[i]);
        }
}

struct books read_books(const char *sandbox_id)
{
        const struct usage_query query = { .sandbox_id = sandbox_id, .limit = 1000 };
        struct reading reading = { 0 };

        store_list_usage(f.store, &query, on_rows, &reading);
        run_until_true(&reading.is_done);
        return reading.books;
}

static void add_rule(const struct egress_rule *packed, struct policy *policy)
{
        struct policy_rule rule = { .action = packed->action,
                                    .protocol = packed->protocol,
                                    .is_domain = packed->is_domain,
                                    .n_ports = packed->n_ports };

        if (packed->is_domain)
                ck_assert_int_eq(
                        policy_parse_domain(packed->destination, &rule.is_wildcard, rule.domain),
                        0);
        else
                ck_assert_int_eq(policy_parse_cidr(packed->destination, &rule.prefix), 0);
        memcpy(rule.ports, packed->ports, sizeof(rule.ports));
        ck_assert_int_eq(policy_add(policy, &rule), 0);
}

struct egress *make_egress(int32_t default_action, const struct egress_rule *rules, size_t n_rules)
{
        struct policy policy = { .default_action = (enum policy_default)default_action };
        struct egress *egress;
        size_t n = 0;
        char *end;

        for (size_t i = 0; i < n_rules; i++)
                n += egress_rule_size(&rules[i]);
        egress = egress_new(n);
        ck_assert_ptr_nonnull(egress);
        egress->default_action = default_action;
        egress->allows = default_action == POLICY_DEFAULT_ALLOW_PUBLIC;
        egress->n_rules = (int64_t)n_rules;
        end = egress->bytes;
        for (size_t i = 0; i < n_rules; i++) {
                end = egress_rule_pack(&rules[i], end);
                egress->allows |= rules[i].action == POLICY_ALLOW;
                add_rule(&rules[i], &policy);
        }
        ck_assert_ptr_eq(end, egress->bytes + egress->n_bytes);
        ck_assert_int_eq(policy_digest(&policy, egress->sha256), 0);
        policy_deinit(&policy);
        return egress;
}

struct answer create_sandbox(const struct sandbox_request *request)
{
        struct answer answer = { 0 };

        session_create_sandbox(f.session, request, on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer new_sandbox(void)
{
        struct sandbox_request request = sandbox_request();
        struct answer answer = create_sandbox(&request);

        ck_assert_int_eq(answer.result.outcome, 0);
        return answer;
}

struct answer get_sandbox(const char *sandbox_id)
{
        struct answer answer = { 0 };

        session_get_sandbox(f.session, "uid:1", sandbox_id, on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer update_sandbox(const char *sandbox_id, const struct sandbox_update *update)
{
        struct answer answer = { 0 };

        session_update_sandbox(f.session, "uid:1", sandbox_id, update, on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer delete_sandbox(const char *sandbox_id)
{
        return delete_sandbox_if(sandbox_id, NULL);
}

struct answer delete_sandbox_if(const char *sandbox_id, const char *etag)
{
        struct answer answer = { 0 };

        session_delete_sandbox(f.session, "uid:1", sandbox_id, etag, CAUSE_CLIENT,
                               on_sandbox_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer get_execution(const char *execution_id)
{
        struct answer answer = { 0 };

        session_get_execution(f.session, "uid:1", execution_id, on_execution_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer create_context(const char *sandbox_id, const char *language, const char *directory)
{
        const struct context_request request = {
                .owner = "uid:1",
                .sandbox_id = sandbox_id,
                .language = language,
                .working_directory = directory,
        };
        struct answer answer = { 0 };

        session_create_context(f.session, &request, on_contexts_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer restart_context(const char *sandbox_id, const char *context_id)
{
        struct answer answer = { 0 };

        session_restart_context(f.session, NULL, "uid:1", sandbox_id, context_id,
                                on_contexts_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer delete_context(const char *sandbox_id, const char *context_id)
{
        struct answer answer = { 0 };

        session_delete_context(f.session, "uid:1", sandbox_id, context_id, on_contexts_answer,
                               &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct answer list_contexts(const char *sandbox_id)
{
        struct answer answer = { 0 };

        session_list_contexts(f.session, "uid:1", sandbox_id, on_contexts_answer, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

struct execution_call {
        struct answer answer;
        struct seen *seen;
};

static void on_accepted(void *userdata, const struct session_result *result,
                        const struct execution_record *record)
{
        struct execution_call *call = userdata;

        on_execution_answer(&call->answer, result, record);
        if (record && call->seen)
                attach(record->execution_id, 0, call->seen);
}

struct answer execute(const struct execute_request *request, struct seen *seen)
{
        struct execution_call call = { .seen = seen };

        session_execute(f.session, request, on_accepted, &call);
        run_until_true(&call.answer.is_done);
        return call.answer;
}

struct seen run_code(const char *sandbox_id, const char *code)
{
        struct execute_request request = execute_request(sandbox_id, code);
        static struct seen seen;
        struct answer answer;

        memset(&seen, 0, sizeof(seen));
        answer = execute(&request, &seen);
        ck_assert_msg(answer.result.outcome == 0, "%s", answer.result.message);
        wait_for_end(&seen);
        return seen;
}

int run_suite(const char *name, const void *tests, size_t n_tests)
{
        const TTest *const *all = tests;
        Suite *suite = suite_create(name);
        TCase *tcase = tcase_create(name);

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, fixture_setup, fixture_teardown);
        for (size_t i = 0; i < n_tests; i++)
                tcase_add_test(tcase, all[i]);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
