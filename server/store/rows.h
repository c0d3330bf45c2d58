/* Between records and rows: one table of fields for each, in the order of the columns. */
#pragma once

#include <sqlite3.h>

#include "server/store/records.h"

struct database;

/* Parameters ?1 … are bound in the order of the fields; texts must stay until the step. */
int row_bind_sandbox(sqlite3_stmt *statement, const struct sandbox_record *record);
int row_bind_context(sqlite3_stmt *statement, const struct context_record *record);
int row_bind_execution(sqlite3_stmt *statement, const struct execution_record *record);
int row_bind_key(sqlite3_stmt *statement, const struct key_record *record);
int row_bind_request(sqlite3_stmt *statement, const struct request_record *record);
int row_bind_egress_event(sqlite3_stmt *statement, const struct egress_record *record);
int row_bind_usage_record(sqlite3_stmt *statement, const struct usage_record *record);
int row_bind_usage_account(sqlite3_stmt *statement, const struct usage_account *account);

/* Columns 0 …; labels, environment and egress policy of a sandbox are not in its row. -EUCLEAN when
 * a value does not fit its field. */
int row_read_sandbox(sqlite3_stmt *statement, struct sandbox_record *ret_record);
int row_read_context(sqlite3_stmt *statement, struct context_record *ret_record);
int row_read_execution(sqlite3_stmt *statement, struct execution_record *ret_record);
int row_read_key(sqlite3_stmt *statement, struct key_record *ret_record);
int row_read_request(sqlite3_stmt *statement, struct request_record *ret_record);
int row_read_egress_event(sqlite3_stmt *statement, struct egress_record *ret_record);
int row_read_usage_record(sqlite3_stmt *statement, struct usage_record *ret_record);
int row_read_usage_account(sqlite3_stmt *statement, struct usage_account *ret_account);

/* The column after those of a sandbox, of a row of the ledger, and of an account. */
int row_sandbox_n_columns(void);
int row_usage_record_n_columns(void);
int row_usage_account_n_columns(void);

/* By name; @text NULL binds NULL. Errors show at the step. */
void row_bind_text(sqlite3_stmt *statement, const char *parameter, const char *text);
void row_bind_blob(sqlite3_stmt *statement, const char *parameter, const void *bytes, size_t n);
void row_bind_int64(sqlite3_stmt *statement, const char *parameter, int64_t value);

/*
 * One step. 0: done; ROW_E_ROW: there is a row to read. The statement is reset unless there is a
 * row; row_end does so at any time. A negative errno says what failed; a violated constraint is
 * -EEXIST (the id is there already), ROW_E_NOT_UNIQUE or ROW_E_NO_PARENT.
 */
enum {
        ROW_E_ROW = 1,
        ROW_E_NOT_UNIQUE,
        ROW_E_NO_PARENT,
};
int row_step(sqlite3_stmt *statement);
void row_end(sqlite3_stmt *statement);

/* Steps a statement that gives no rows. */
int row_run(sqlite3_stmt *statement);

/* The single number that a statement answers; @ret_value stays when there is no row or NULL. */
int row_number(sqlite3_stmt *statement, int64_t *ret_value);

/* Appends all rows of (name, value). */
int row_read_pairs(sqlite3_stmt *statement, struct pairs *pairs);

/* A record's policy, which is not the default one. It stays the record's until the step. */
void row_bind_egress(sqlite3_stmt *statement, const struct sandbox_record *record);

/* Columns of STATEMENT_EGRESS; the hold is the caller's. */
int row_read_egress(sqlite3_stmt *statement, struct egress **ret_egress);

/* What pairs_pack made. -EUCLEAN when it did not. */
int row_read_packed_pairs(sqlite3_stmt *statement, int column, struct pairs *pairs);
