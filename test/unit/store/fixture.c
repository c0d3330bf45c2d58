#include "test/unit/store/fixture.h"

#include <check.h>
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "test/lib/scratch.h"

struct fixture fixture_new(void)
{
        return fixture_new_in("/tmp");
}

struct fixture fixture_new_in(const char *parent)
{
        struct fixture fixture = { 0 };

        (void)snprintf(fixture.directory, sizeof(fixture.directory), "%s/hotcell-store.XXXXXX",
                       parent);
        scratch_make(fixture.directory);
        ck_assert_int_ge(sd_event_new(&fixture.loop), 0);
        return fixture;
}

void fixture_open_expecting(struct fixture *fixture, int outcome)
{
        char message[MESSAGE_BUFFER];
        int r;

        r = store_open(fixture->loop, fixture->directory, &fixture->store, message);
        ck_assert_msg(r == outcome, "store_open: %d, not %d: %s", r, outcome, message);
        ck_assert_int_eq(r != 0, message[0] != '\0');
}

void fixture_open(struct fixture *fixture)
{
        fixture_open_expecting(fixture, 0);
}

void fixture_close(struct fixture *fixture)
{
        fixture->store = store_close(fixture->store);
}

void fixture_free(struct fixture *fixture)
{
        fixture_close(fixture);
        (void)sd_event_unref(fixture->loop);
        scratch_remove(fixture->directory);
}

const char *fixture_path(const struct fixture *fixture, const char *name)
{
        static char paths[4][128];
        static size_t next;
        char *path = paths[next++ % ARRAY_SIZE(paths)];

        (void)snprintf(path, sizeof(paths[0]), "%s/%s", fixture->directory, name);
        return path;
}

static void exec_sql(sqlite3 *connection, const char *sql)
{
        char *error = NULL;

        (void)sqlite3_exec(connection, sql, NULL, NULL, &error);
        ck_assert_msg(!error, "%s", error);
}

void run_sql(const char *path, const char *sql)
{
        sqlite3 *connection = NULL;

        ck_assert_int_eq(sqlite3_open(path, &connection), SQLITE_OK);
        exec_sql(connection, sql);
        ck_assert_int_eq(sqlite3_close(connection), SQLITE_OK);
}

int64_t ask_sql(const char *path, const char *sql)
{
        sqlite3 *connection = NULL;
        sqlite3_stmt *statement = NULL;
        int64_t value;

        ck_assert_int_eq(sqlite3_open(path, &connection), SQLITE_OK);
        ck_assert_int_eq(sqlite3_prepare_v2(connection, sql, -1, &statement, NULL), SQLITE_OK);
        ck_assert_int_eq(sqlite3_step(statement), SQLITE_ROW);
        value = sqlite3_column_int64(statement, 0);
        ck_assert_int_eq(sqlite3_finalize(statement), SQLITE_OK);
        ck_assert_int_eq(sqlite3_close(connection), SQLITE_OK);
        return value;
}

char *read_file(const char *path, size_t *ret_size)
{
        struct stat status;
        char *bytes;
        int fd;

        fd = open(path, O_RDONLY | O_CLOEXEC);
        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(fstat(fd, &status), 0);
        bytes = calloc(1, (size_t)status.st_size + 1);
        ck_assert_int_eq(read(fd, bytes, (size_t)status.st_size), status.st_size);
        (void)close(fd);
        *ret_size = (size_t)status.st_size;
        return bytes;
}

struct sandbox_record make_sandbox(int number, int64_t create_time_usec)
{
        struct sandbox_record record = {
                .owner = "uid:1000",
                .state = SANDBOX_CREATING,
                .template_name = "python",
                .template_digest = "sha256-00",
                .create_time_usec = create_time_usec,
                .limits = { .memory_bytes = 1 << 28, .cpu_millis = 1000, .processes = 64 },
        };

        (void)snprintf(record.sandbox_id, sizeof(record.sandbox_id), "sbx-%06d", number);
        return record;
}

struct context_record make_context(int number, const char *sandbox_id)
{
        struct context_record record = {
                .owner = "uid:1000",
                .language = "python",
                .working_directory = "/home/user",
                .is_default = true,
                .generation = 1,
                .create_time_usec = 1,
        };

        (void)snprintf(record.context_id, sizeof(record.context_id), "ctx-%06d", number);
        (void)snprintf(record.sandbox_id, sizeof(record.sandbox_id), "%s", sandbox_id);
        return record;
}

struct execution_record make_execution(int number, const char *sandbox_id, const char *context_id,
                                       int64_t create_time_usec)
{
        struct execution_record record = {
                .owner = "uid:1000",
                .state = EXECUTION_QUEUED,
                .create_time_usec = create_time_usec,
        };

        (void)snprintf(record.execution_id, sizeof(record.execution_id), "exe-%06d", number);
        (void)snprintf(record.sandbox_id, sizeof(record.sandbox_id), "%s", sandbox_id);
        (void)snprintf(record.context_id, sizeof(record.context_id), "%s", context_id);
        return record;
}

struct key_record make_key(int number, const char *name)
{
        struct key_record record = { .create_time_usec = number };

        (void)snprintf(record.key_id, sizeof(record.key_id), "key-%06d", number);
        (void)snprintf(record.name, sizeof(record.name), "%s", name);
        (void)snprintf(record.owner, sizeof(record.owner), "%s", record.key_id);
        (void)memcpy(record.secret_sha256, &number, sizeof(number));
        return record;
}

void on_answer(void *userdata, int result)
{
        struct answer *answer = userdata;

        answer->n_calls++;
        answer->result = result;
}

void wait_for(struct fixture *fixture, const int *n_calls, int n)
{
        while (*n_calls < n)
                ck_assert_int_gt(sd_event_run(fixture->loop, 10 * 1000000), 0);
}

#define ANSWER_OF(call)                                                                            \
        struct answer answer = { 0 };                                                              \
        call;                                                                                      \
        wait_for(fixture, &answer.n_calls, 1);                                                     \
        return answer.result

int insert_sandbox(struct fixture *fixture, const struct sandbox_record *record)
{
        ANSWER_OF(store_insert_sandbox(fixture->store, record, on_answer, &answer));
}

int update_sandbox(struct fixture *fixture, const struct sandbox_record *record,
                   enum sandbox_event event)
{
        ANSWER_OF(store_update_sandbox(fixture->store, record, event, on_answer, &answer));
}

int insert_context(struct fixture *fixture, const struct context_record *record)
{
        ANSWER_OF(store_insert_context(fixture->store, record, on_answer, &answer));
}

int update_context(struct fixture *fixture, const struct context_record *record)
{
        ANSWER_OF(store_update_context(fixture->store, record, on_answer, &answer));
}

int insert_execution(struct fixture *fixture, const struct execution_record *record)
{
        ANSWER_OF(store_insert_execution(fixture->store, record, on_answer, &answer));
}

int update_execution(struct fixture *fixture, const struct execution_record *record)
{
        ANSWER_OF(store_update_execution(fixture->store, record, on_answer, &answer));
}

struct sandbox_answer {
        struct answer answer;
        struct sandbox_record *ret_record;
};

static void on_sandbox(void *userdata, int result, const struct sandbox_record *record)
{
        struct sandbox_answer *answer = userdata;

        ck_assert_int_eq(result == 0, record != NULL);
        if (record)
                ck_assert_int_eq(sandbox_record_copy(record, answer->ret_record), 0);
        on_answer(&answer->answer, result);
}

int get_sandbox(struct fixture *fixture, const char *owner, const char *sandbox_id,
                struct sandbox_record *ret_record)
{
        struct sandbox_answer answer = { .ret_record = ret_record };

        store_get_sandbox(fixture->store, owner, sandbox_id, on_sandbox, &answer);
        wait_for(fixture, &answer.answer.n_calls, 1);
        return answer.answer.result;
}

struct execution_answer {
        struct answer answer;
        struct execution_record *ret_record;
};

static void on_execution(void *userdata, int result, const struct execution_record *record)
{
        struct execution_answer *answer = userdata;

        if (record)
                *answer->ret_record = *record;
        on_answer(&answer->answer, result);
}

int get_execution(struct fixture *fixture, const char *owner, const char *execution_id,
                  struct execution_record *ret_record)
{
        struct execution_answer answer = { .ret_record = ret_record };

        store_get_execution(fixture->store, owner, execution_id, on_execution, &answer);
        wait_for(fixture, &answer.answer.n_calls, 1);
        return answer.answer.result;
}

static struct page page_buffer;

static void on_sandboxes(void *userdata, int result, const struct sandbox_list *list)
{
        struct page *page = userdata;

        page->n_calls++;
        page->result = result;
        if (result)
                return;
        page->n = list->n;
        page->more = list->more;
        page->sequence = list->watch_sequence;
        for (size_t i = 0; i < list->n; i++) {
                (void)strcpy(page->ids[i], list->records[i].sandbox_id);
                page->times_usec[i] = list->records[i].create_time_usec;
        }
}

const struct page *list_sandboxes(struct fixture *fixture, const struct sandbox_query *query)
{
        page_buffer = (struct page){ 0 };
        store_list_sandboxes(fixture->store, query, on_sandboxes, &page_buffer);
        wait_for(fixture, &page_buffer.n_calls, 1);
        return &page_buffer;
}

static void on_executions(void *userdata, int result, const struct execution_list *list)
{
        struct page *page = userdata;

        page->n_calls++;
        page->result = result;
        if (result)
                return;
        page->n = list->n;
        page->more = list->more;
        for (size_t i = 0; i < list->n; i++) {
                (void)strcpy(page->ids[i], list->records[i].execution_id);
                page->times_usec[i] = list->records[i].create_time_usec;
        }
}

const struct page *list_executions(struct fixture *fixture, const struct execution_query *query)
{
        page_buffer = (struct page){ 0 };
        store_list_executions(fixture->store, query, on_executions, &page_buffer);
        wait_for(fixture, &page_buffer.n_calls, 1);
        return &page_buffer;
}

static void on_events(void *userdata, int result, const struct sandbox_event_list *list)
{
        struct page *page = userdata;

        page->n_calls++;
        page->result = result;
        if (result)
                return;
        page->n = list->n;
        page->more = list->more;
        page->sequence = list->last_sequence;
        for (size_t i = 0; i < list->n; i++) {
                ck_assert_uint_eq(list->records[i].sandbox.environment.n, 0);
                (void)strcpy(page->ids[i], list->records[i].sandbox.sandbox_id);
                page->times_usec[i] = list->records[i].sequence;
                page->events[i] = list->records[i].event;
        }
}

const struct page *list_events(struct fixture *fixture, const struct sandbox_event_query *query)
{
        page_buffer = (struct page){ 0 };
        store_list_sandbox_events(fixture->store, query, on_events, &page_buffer);
        wait_for(fixture, &page_buffer.n_calls, 1);
        return &page_buffer;
}

struct store_cursor cursor_after(const struct page *page)
{
        struct store_cursor cursor = { .create_time_usec = page->times_usec[page->n - 1] };

        (void)strcpy(cursor.id, page->ids[page->n - 1]);
        return cursor;
}
