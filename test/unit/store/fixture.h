/* A store in a folder of its own, and what its callbacks said, one call at a time. */
#pragma once

#include "server/store/store.h"

struct fixture {
        sd_event *loop;
        struct store *store;
        char directory[64];
};

/* Makes an empty folder. */
struct fixture fixture_new(void);
struct fixture fixture_new_in(const char *parent);
void fixture_open(struct fixture *fixture);
void fixture_close(struct fixture *fixture);

/* Closes, and deletes the folder. */
void fixture_free(struct fixture *fixture);

/* Opens and expects @outcome; the message must not be empty unless it is 0. */
void fixture_open_expecting(struct fixture *fixture, int outcome);

const char *fixture_path(const struct fixture *fixture, const char *name);

/* Runs SQL on a database that no store has open. */
void run_sql(const char *path, const char *sql);

/* The one number that @sql answers. */
int64_t ask_sql(const char *path, const char *sql);

/* The whole file, with its length. */
char *read_file(const char *path, size_t *ret_size);

/* Records like those of a server; the ids end with @number. */
struct sandbox_record make_sandbox(int number, int64_t create_time_usec);
struct context_record make_context(int number, const char *sandbox_id);
struct execution_record make_execution(int number, const char *sandbox_id, const char *context_id,
                                       int64_t create_time_usec);
struct key_record make_key(int number, const char *name);

/* What the next callback said. */
struct answer {
        int n_calls;
        int result;
};
void on_answer(void *userdata, int result);
void wait_for(struct fixture *fixture, const int *n_calls, int n);

int insert_sandbox(struct fixture *fixture, const struct sandbox_record *record);
int update_sandbox(struct fixture *fixture, const struct sandbox_record *record,
                   enum sandbox_event event);
int insert_context(struct fixture *fixture, const struct context_record *record);
int update_context(struct fixture *fixture, const struct context_record *record);
int insert_execution(struct fixture *fixture, const struct execution_record *record);
int update_execution(struct fixture *fixture, const struct execution_record *record);

/* Copies; freed by the caller with sandbox_record_deinit. */
int get_sandbox(struct fixture *fixture, const char *owner, const char *sandbox_id,
                struct sandbox_record *ret_record);
int get_execution(struct fixture *fixture, const char *owner, const char *execution_id,
                  struct execution_record *ret_record);

/* Only the ids of a page. */
struct page {
        int n_calls;
        int result;
        size_t n;
        bool more;
        int64_t sequence; /* watch_sequence or last_sequence */
        char ids[1000][ID_BUFFER];
        int64_t times_usec[1000];
        enum sandbox_event events[1000];
};
const struct page *list_sandboxes(struct fixture *fixture, const struct sandbox_query *query);
const struct page *list_executions(struct fixture *fixture, const struct execution_query *query);
const struct page *list_events(struct fixture *fixture, const struct sandbox_event_query *query);

/* The cursor after the last of the page. */
struct store_cursor cursor_after(const struct page *page);
