/*
 * Parameters of rows are numbered as their columns are listed, so that one function binds a record
 * for its INSERT and its UPDATE. Named parameters are those of queries.
 */
#include "server/store/statements.h"

#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/store/sqlite_error.h"
#include "server/store/usage.h"

#define SANDBOX_COLUMNS                                                                            \
        "sandbox_id, owner, name, state, template_name, template_digest, create_time_usec, "       \
        "expire_time_usec, idle_timeout_usec, end_time_usec, end_cause, end_message, "             \
        "limit_memory_bytes, limit_cpu_millis, limit_processes, limit_disk_bytes, "                \
        "limit_open_files, limit_timeout_usec, limit_output_bytes, used_cpu_usec, "                \
        "used_memory_bytes, used_memory_peak_bytes, used_disk_bytes, used_processes, cgroup_id, "  \
        "boot_id, is_one_shot, egress_version, egress_counted, egress_logged, egress_dropped, "    \
        "limit_cpu_weight, limit_disk_inodes, limit_io_bytes_per_second"

#define USAGE_COLUMN(field, kind) #field ", "
#define USAGE_COLUMNS             USAGE_FIELDS(USAGE_COLUMN) "missing"

/* A sandbox that is read, with what it used: of one that ended the sums of its account. Also of an
 * event that tells of its end. */
#define SANDBOX_READ_COLUMNS SANDBOX_COLUMNS ", " USAGE_COLUMNS

#define WITH_USAGE                                                                                 \
        " LEFT JOIN (SELECT sandbox_id AS account_id, " USAGE_COLUMNS " FROM usage_sandboxes)"     \
        " ON account_id = sandbox_id AND state = 4 "

#define CONTEXT_COLUMNS                                                                            \
        "context_id, sandbox_id, owner, language, working_directory, is_default, generation, "     \
        "create_time_usec, delete_time_usec"

#define SET_EXECUTION_USED                                                                         \
        "used_cpu_usec = ?19, used_wall_usec = ?20, used_memory_peak_bytes = ?21, "                \
        "used_cpu_user_usec = ?27, used_cpu_system_usec = ?28, used_memory_byte_seconds = ?29, "   \
        "used_oom_kills = ?30, used_throttled_periods = ?31, used_throttled_usec = ?32, "          \
        "used_scheduled_usec = ?33, used_wait_usec = ?34, used_context_switches = ?35, "           \
        "used_earlier_usec = ?36, used_rss_peak_bytes = ?37, used_sent_bytes = ?38, "              \
        "used_received_bytes = ?39, used_missing = ?40 "

#define EXECUTION_COLUMNS                                                                          \
        "execution_id, sandbox_id, context_id, owner, state, context_generation, "                 \
        "create_time_usec, start_time_usec, end_time_usec, limit_timeout_usec, "                   \
        "limit_output_bytes, outcome, cause, has_exit_code, exit_code, signal, state_lost, "       \
        "message, used_cpu_usec, used_wall_usec, used_memory_peak_bytes, stdout_bytes, "           \
        "stderr_bytes, rich_bytes, truncated_bytes, last_sequence, "                               \
        "used_cpu_user_usec, used_cpu_system_usec, used_memory_byte_seconds, "                     \
        "used_oom_kills, used_throttled_periods, used_throttled_usec, "                            \
        "used_scheduled_usec, used_wait_usec, used_context_switches, used_earlier_usec, "          \
        "used_rss_peak_bytes, used_sent_bytes, used_received_bytes, used_missing"

#define KEY_COLUMNS                                                                                \
        "key_id, name, secret_sha256, create_time_usec, revoke_time_usec, owner, scopes, "         \
        "expire_time_usec, last_used_time_usec, quota_sandboxes, quota_memory_bytes, "             \
        "quota_cpu_millis, quota_executions"

/* The owner's, if it has another key, else the new one's own. */
#define KEY_QUOTA(column, own)                                                                     \
        "coalesce((SELECT " column " FROM api_keys WHERE owner = ?6 LIMIT 1), " own ")"

#define KEY_NEW_QUOTA(column, bit)                                                                 \
        "quota_" column " = iif(:set >> " bit " & 1, :" column ", quota_" column ")"

#define KEY_IS_GOOD(time)                                                                          \
        "revoke_time_usec = 0 AND (expire_time_usec = 0 OR expire_time_usec > " time ")"

#define REQUEST_COLUMNS "owner, method, request_id, request_sha256, object_id, created"

#define EGRESS_COLUMNS                                                                             \
        "sandbox_id, sequence, execution_id, event_time_usec, type, protocol, address, port, "     \
        "name, reason, rule_index, policy_version, pid, command, count, error_number, "            \
        "sent_bytes, received_bytes, duration_usec, source, serial, rule"

#define USAGE_RECORD_COLUMNS                                                                       \
        "sandbox_id, sequence, type, execution_id, context_id, owner, start_time_usec, "           \
        "end_time_usec, outcome, cause, is_incomplete, " USAGE_COLUMNS

/* What lives has its labels in one table, what has ended in the other, and for a while in both. */
#define HAS_WANTED_LABELS                                                                          \
        "NOT EXISTS (SELECT 1 FROM wanted_labels AS wanted "                                       \
        "WHERE NOT EXISTS (SELECT 1 FROM sandbox_labels AS label "                                 \
        "WHERE label.sandbox_id = item.sandbox_id "                                                \
        "AND label.name = wanted.name AND label.value = wanted.value) "                            \
        "AND NOT EXISTS (SELECT 1 FROM usage_labels AS label "                                     \
        "WHERE label.sandbox_id = item.sandbox_id "                                                \
        "AND label.name = wanted.name AND label.value = wanted.value))"

/* Rows of the scope that come next, and of each whether it is asked for. */
#define USAGE_PAGE(scope, order)                                                                   \
        "SELECT " USAGE_RECORD_COLUMNS ", record_id, end_time_usec >= :start "                     \
        "AND end_time_usec < :end AND " HAS_WANTED_LABELS " FROM usage_records AS item "           \
        "WHERE " scope " AND record_id > :after ORDER BY " order " LIMIT :limit"

#define USAGE_GAP_COLUMNS                                                                          \
        "n_without_memory, n_without_memory_peak, n_without_scheduled, n_without_rss_peak, "       \
        "n_without_traffic, n_without_throttled, n_without_wait, n_incomplete"

#define USAGE_ACCOUNT_COLUMNS                                                                      \
        "sandbox_id, owner, n_records, billed_time_usec, end_time_usec, end_cause, "               \
        "end_message, " USAGE_COLUMNS ", " USAGE_GAP_COLUMNS

/* Accounts of the scope that come next, and of each whether it is asked for, and whether all rows
 * that it adds up are still there: the oldest goes first. */
#define USAGE_ACCOUNTS(scope)                                                                      \
        "SELECT " USAGE_ACCOUNT_COLUMNS ", " HAS_WANTED_LABELS                                     \
        ", n_records = 0 OR EXISTS (SELECT 1 FROM usage_records AS record "                        \
        "WHERE record.sandbox_id = item.sandbox_id AND record.sequence = 1) "                      \
        "FROM usage_sandboxes AS item WHERE " scope " ORDER BY sandbox_id LIMIT :limit"

#define USAGE_OF_SANDBOX "sandbox_id = :sandbox_id AND (:owner IS NULL OR owner = :owner)"
#define USAGE_OF_EXECUTION                                                                         \
        "execution_id = :execution_id AND (:sandbox_id IS NULL OR sandbox_id = :sandbox_id) "      \
        "AND (:owner IS NULL OR owner = :owner)"

/* Those without a name by address; of a name it may be any of several. */
#define USAGE_DESTINATIONS(scope)                                                                  \
        "SELECT name, iif(min(address) = max(address), min(address), ''), port, sum(count), "      \
        "sum(sent_bytes), sum(received_bytes) FROM egress_events WHERE " scope                     \
        " AND type = 3 AND (:owner IS NULL OR owner = :owner) "                                    \
        "GROUP BY name, iif(name = '', address, ''), port "                                        \
        "ORDER BY sum(sent_bytes) + sum(received_bytes) DESC, name, min(address), port "           \
        "LIMIT :limit"

/* Oldest first: a log. */
#define EGRESS_PAGE(scope)                                                                         \
        "SELECT " EGRESS_COLUMNS " FROM egress_events WHERE " scope                                \
        " AND sequence > :after AND (:types >> type) & 1 ORDER BY sequence LIMIT :limit"

/* Strictly after the cursor, newest first. All labels that are wanted must be there. Where two
 * indexes fit, SQLite knows nothing of how many rows are over: hence the name. */
#define SANDBOX_PAGE(index, scope)                                                                 \
        "SELECT " SANDBOX_READ_COLUMNS " FROM sandboxes INDEXED BY " index WITH_USAGE              \
        "WHERE " scope " AND (create_time_usec, sandbox_id) < (:time, :id)"                        \
        " AND (:states >> state) & 1"                                                              \
        " AND (:name IS NULL OR name = :name)"                                                     \
        " AND NOT EXISTS (SELECT 1 FROM wanted_labels AS wanted WHERE NOT EXISTS ("                \
        "SELECT 1 FROM sandbox_labels AS label WHERE label.sandbox_id = sandboxes.sandbox_id "     \
        "AND label.name = wanted.name AND label.value = wanted.value))"                            \
        " ORDER BY create_time_usec DESC, sandbox_id DESC LIMIT :limit"

#define EXECUTION_PAGE(scope)                                                                      \
        "SELECT " EXECUTION_COLUMNS " FROM executions WHERE " scope                                \
        " AND (create_time_usec, execution_id) < (:time, :id)"                                     \
        " AND (:states >> state) & 1"                                                              \
        " AND (:owner IS NULL OR owner = :owner)"                                                  \
        " AND (:sandbox_id IS NULL OR sandbox_id = :sandbox_id)"                                   \
        " ORDER BY create_time_usec DESC, execution_id DESC LIMIT :limit"

#define EVENT_PAGE(scope)                                                                          \
        "SELECT " SANDBOX_READ_COLUMNS ", sequence, event_time_usec, event, labels "               \
        "FROM sandbox_events" WITH_USAGE "WHERE " scope                                            \
        " AND sequence > :after AND (:owner IS NULL OR owner = :owner)"                            \
        " ORDER BY sequence LIMIT :limit"

#define OWNER_HAS_NOTHING                                                                          \
        "n_events = 0 AND n_ended_executions = 0 AND n_ended_sandboxes = 0 AND n_outputs = 0 "     \
        "AND n_egress_events = 0 AND n_usage_records = 0"

static const char *const statement_sql[] = {
        [STATEMENT_BEGIN_READS] = "BEGIN",
        [STATEMENT_BEGIN_WRITES] = "BEGIN IMMEDIATE",
        [STATEMENT_COMMIT] = "COMMIT",
        [STATEMENT_ROLLBACK] = "ROLLBACK",
        [STATEMENT_JOB_BEGIN] = "SAVEPOINT job",
        [STATEMENT_JOB_KEEP] = "RELEASE job",
        [STATEMENT_JOB_UNDO] = "ROLLBACK TO job",
        [STATEMENT_PROBE] = "UPDATE probe SET probe_time_usec = :time",

        [STATEMENT_INSERT_SANDBOX] =
                "INSERT INTO sandboxes (" SANDBOX_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, "
                "?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, "
                "?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, "
                "?32, ?33, ?34)",
        [STATEMENT_UPDATE_SANDBOX] =
                "UPDATE sandboxes SET name = ?3, state = ?4, template_name = ?5, "
                "template_digest = ?6, expire_time_usec = ?8, idle_timeout_usec = ?9, "
                "end_time_usec = ?10, end_cause = ?11, end_message = ?12, "
                "limit_memory_bytes = ?13, limit_cpu_millis = ?14, limit_processes = ?15, "
                "limit_disk_bytes = ?16, limit_open_files = ?17, limit_timeout_usec = ?18, "
                "limit_output_bytes = ?19, used_cpu_usec = ?20, used_memory_bytes = ?21, "
                "used_memory_peak_bytes = ?22, used_disk_bytes = ?23, used_processes = ?24, "
                "cgroup_id = ?25, boot_id = ?26, is_one_shot = ?27, egress_version = ?28, "
                "egress_counted = ?29, egress_logged = ?30, egress_dropped = ?31, "
                "limit_cpu_weight = ?32, limit_disk_inodes = ?33, "
                "limit_io_bytes_per_second = ?34 "
                "WHERE sandbox_id = ?1 AND owner = ?2",
        [STATEMENT_SANDBOX] = "SELECT " SANDBOX_READ_COLUMNS " FROM sandboxes" WITH_USAGE
                              "WHERE sandbox_id = :id AND (:owner IS NULL OR owner = :owner)",
        [STATEMENT_SANDBOXES] = SANDBOX_PAGE("sandboxes_by_time", ":owner IS NULL"),
        [STATEMENT_SANDBOXES_OF_OWNER] = SANDBOX_PAGE("sandboxes_of_owner", "owner = :owner"),
        [STATEMENT_SANDBOXES_LIVING] =
                SANDBOX_PAGE("sandboxes_living", "state <> 4 AND :owner IS NULL"),
        [STATEMENT_SANDBOXES_LIVING_OF_OWNER] =
                SANDBOX_PAGE("sandboxes_living_of_owner", "state <> 4 AND owner = :owner"),
        [STATEMENT_ALL_SANDBOXES_LIVING] =
                "SELECT " SANDBOX_READ_COLUMNS " FROM sandboxes" WITH_USAGE "WHERE state <> 4"
                " ORDER BY create_time_usec, sandbox_id",
        [STATEMENT_DELETE_LABELS] = "DELETE FROM sandbox_labels WHERE sandbox_id = :id",
        [STATEMENT_INSERT_LABEL] = "INSERT INTO sandbox_labels (sandbox_id, name, value, owner) "
                                   "VALUES (:id, :name, :value, :owner)",
        [STATEMENT_LABELS] = "SELECT name, value FROM sandbox_labels WHERE sandbox_id = :id "
                             "ORDER BY name",
        [STATEMENT_DELETE_ENVIRONMENT] = "DELETE FROM sandbox_environment WHERE sandbox_id = :id",
        [STATEMENT_INSERT_VARIABLE] =
                "INSERT INTO sandbox_environment (sandbox_id, position, name, value, owner) "
                "VALUES (:id, :position, :name, :value, :owner)",
        [STATEMENT_ENVIRONMENT] = "SELECT name, value FROM sandbox_environment "
                                  "WHERE sandbox_id = :id ORDER BY position",
        /* Not written again with every change of the sandbox: it may be megabytes. */
        [STATEMENT_SET_EGRESS] =
                "INSERT INTO sandbox_egress (sandbox_id, owner, version, default_action, allows, "
                "policy_sha256, n_rules, rules, record_types) VALUES (:id, :owner, :version, "
                ":default_action, :allows, :sha256, :n_rules, :rules, :record_types) "
                "ON CONFLICT (sandbox_id) DO UPDATE SET "
                "version = excluded.version, default_action = excluded.default_action, "
                "allows = excluded.allows, policy_sha256 = excluded.policy_sha256, "
                "n_rules = excluded.n_rules, rules = excluded.rules, "
                "record_types = excluded.record_types "
                "WHERE version <> excluded.version",
        [STATEMENT_DELETE_EGRESS] = "DELETE FROM sandbox_egress WHERE sandbox_id = :id",
        [STATEMENT_FORGET_EGRESS] = "UPDATE sandbox_egress SET rules = NULL WHERE sandbox_id = :id",
        [STATEMENT_EGRESS] = "SELECT default_action, allows, policy_sha256, n_rules, rules, "
                             "record_types FROM sandbox_egress WHERE sandbox_id = :id",
        [STATEMENT_WANT_LABEL] = "INSERT INTO wanted_labels (name, value) VALUES (:name, :value)",
        [STATEMENT_WANT_NO_LABELS] = "DELETE FROM wanted_labels",

        /* The snapshot is what the row says at this point of the transaction. */
        [STATEMENT_INSERT_EVENT] =
                "INSERT INTO sandbox_events (event_time_usec, event, size_bytes, "
                "labels, " SANDBOX_COLUMNS
                ") SELECT :time, :event, :size, :labels, " SANDBOX_COLUMNS
                " FROM sandboxes WHERE sandbox_id = :id",
        /* Not max(sequence) alone: it must stay when all events have been deleted. */
        [STATEMENT_NEWEST_SEQUENCE] = "SELECT coalesce(max(seq), 0) FROM sqlite_sequence "
                                      "WHERE name = 'sandbox_events'",
        /* The owner's, or of one that has no row; of all owners the highest. */
        [STATEMENT_DELETED_SEQUENCE] =
                "SELECT CASE WHEN :owner IS NULL "
                "THEN (SELECT max(deleted_sequence) FROM owner_totals) "
                "ELSE coalesce((SELECT deleted_sequence FROM owner_totals WHERE owner = :owner), "
                "(SELECT deleted_sequence FROM owner_totals WHERE owner = '')) END",
        [STATEMENT_EVENTS] = EVENT_PAGE("true"),
        [STATEMENT_EVENTS_OF_OWNER] = EVENT_PAGE("owner = :owner"),
        [STATEMENT_EVENTS_OF_SANDBOX] = EVENT_PAGE("sandbox_id = :sandbox_id"),

        [STATEMENT_INSERT_CONTEXT] = "INSERT INTO contexts (" CONTEXT_COLUMNS ") "
                                     "VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)",
        [STATEMENT_UPDATE_CONTEXT] =
                "UPDATE contexts SET language = ?4, working_directory = ?5, is_default = ?6, "
                "generation = ?7, delete_time_usec = ?9 "
                "WHERE context_id = ?1 AND sandbox_id = ?2 AND owner = ?3",
        [STATEMENT_CONTEXT] = "SELECT " CONTEXT_COLUMNS " FROM contexts WHERE context_id = :id "
                              "AND sandbox_id = :sandbox_id AND owner = :owner",
        [STATEMENT_ALL_CONTEXTS_LIVING] =
                "SELECT " CONTEXT_COLUMNS " FROM contexts WHERE delete_time_usec = 0 AND "
                "sandbox_id IN (SELECT sandbox_id FROM sandboxes WHERE state <> 4) "
                "ORDER BY create_time_usec, context_id",
        [STATEMENT_INSERT_EXECUTION] =
                "INSERT INTO executions (" EXECUTION_COLUMNS ") VALUES (?1, ?2, ?3, ?4, ?5, ?6, "
                "?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, "
                "?23, ?24, ?25, ?26, "
                "?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35, ?36, ?37, ?38, ?39, ?40)",
        [STATEMENT_UPDATE_EXECUTION] =
                "UPDATE executions SET context_id = ?3, state = ?5, context_generation = ?6, "
                "start_time_usec = ?8, end_time_usec = ?9, limit_timeout_usec = ?10, "
                "limit_output_bytes = ?11, outcome = ?12, cause = ?13, has_exit_code = ?14, "
                "exit_code = ?15, signal = ?16, state_lost = ?17, message = ?18, "
                "stdout_bytes = ?22, stderr_bytes = ?23, rich_bytes = ?24, "
                "truncated_bytes = ?25, last_sequence = ?26, " SET_EXECUTION_USED
                "WHERE execution_id = ?1 AND sandbox_id = ?2 AND owner = ?4",
        [STATEMENT_NOTE_EXECUTION_USAGE] = "UPDATE executions SET " SET_EXECUTION_USED
                                           "WHERE execution_id = ?1 AND state <> 3",
        [STATEMENT_EXECUTION] = "SELECT " EXECUTION_COLUMNS " FROM executions "
                                "WHERE execution_id = :id AND (:owner IS NULL OR owner = :owner)",
        [STATEMENT_EXECUTIONS] = EXECUTION_PAGE("true"),
        [STATEMENT_EXECUTIONS_OF_OWNER] = EXECUTION_PAGE("owner = :owner"),
        [STATEMENT_EXECUTIONS_OF_SANDBOX] = EXECUTION_PAGE("sandbox_id = :sandbox_id"),
        [STATEMENT_EXECUTIONS_OF_CONTEXT] = EXECUTION_PAGE("context_id = :context_id"),
        [STATEMENT_ALL_EXECUTIONS_LIVING] =
                "SELECT " EXECUTION_COLUMNS
                " FROM executions INDEXED BY executions_living WHERE state <> 3"
                " ORDER BY create_time_usec, execution_id",
        [STATEMENT_INSERT_KEPT] = "INSERT INTO execution_requests (execution_id, owner, request) "
                                  "VALUES (:id, :owner, :blob)",
        [STATEMENT_DELETE_KEPT] = "DELETE FROM execution_requests WHERE execution_id = :id",
        [STATEMENT_KEPT] = "SELECT request FROM execution_requests WHERE execution_id = :id",
        /* A second try of an end says the same. */
        [STATEMENT_INSERT_OUTPUT] = "INSERT OR REPLACE INTO execution_outputs "
                                    "(execution_id, owner, end_time_usec, size_bytes, output) "
                                    "VALUES (:id, :owner, :time, :size, :blob)",
        [STATEMENT_OUTPUTS] = "SELECT " EXECUTION_COLUMNS ", output FROM executions "
                              "JOIN execution_outputs USING (execution_id, owner, end_time_usec) "
                              "WHERE end_time_usec >= :time AND state = 3 "
                              "ORDER BY execution_outputs.end_time_usec DESC",

        [STATEMENT_INSERT_REQUEST] =
                "INSERT INTO requests (" REQUEST_COLUMNS ", number, create_time_usec) "
                "VALUES (?1, ?2, ?3, ?4, ?5, ?6, 1 + coalesce((SELECT max(number) "
                "FROM requests WHERE owner = ?1), 0), :time)",
        [STATEMENT_BOUND_REQUESTS] =
                "DELETE FROM requests WHERE owner = :owner AND number <= "
                "(SELECT max(number) FROM requests WHERE owner = :owner) - :max",
        [STATEMENT_FORGET_REQUEST] = "DELETE FROM requests WHERE owner = :owner "
                                     "AND method = :method AND request_id = :request_id",
        [STATEMENT_REQUEST] = "SELECT " REQUEST_COLUMNS " FROM requests "
                              "WHERE owner = :owner AND method = :method "
                              "AND request_id = :request_id",

        /* The owner is its sandbox's; one that is told again, or whose sandbox is not there any
         * more, is no row. */
        [STATEMENT_INSERT_EGRESS_EVENT] =
                "INSERT INTO egress_events (" EGRESS_COLUMNS ", size_bytes, owner) "
                "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, "
                "?17, ?18, ?19, ?20, ?21, ?22, :size, owner FROM sandboxes WHERE sandbox_id = ?1 "
                "ON CONFLICT DO NOTHING",
        /* What stands beside max() is of the same row. */
        [STATEMENT_EGRESS_TAIL] =
                "SELECT source, max(sequence), serial, event_time_usec FROM egress_events "
                "WHERE sandbox_id = :id AND source > 0 GROUP BY source",
        [STATEMENT_HAS_SANDBOX] = "SELECT 1 FROM sandboxes WHERE sandbox_id = :id "
                                  "AND (:owner IS NULL OR owner = :owner)",
        [STATEMENT_HAS_EXECUTION] = "SELECT 1 FROM executions WHERE execution_id = :id "
                                    "AND sandbox_id = :sandbox_id",
        [STATEMENT_EGRESS_EVENTS] = EGRESS_PAGE("sandbox_id = :sandbox_id"),
        [STATEMENT_EGRESS_EVENTS_OF_EXECUTION] =
                EGRESS_PAGE("execution_id = :execution_id AND +sandbox_id = :sandbox_id"),

        [STATEMENT_OPEN_USAGE_ACCOUNT] =
                "INSERT INTO usage_sandboxes (sandbox_id, owner, billed_time_usec) "
                "SELECT sandbox_id, owner, create_time_usec FROM sandboxes "
                "WHERE sandbox_id = :id ON CONFLICT DO NOTHING",
        [STATEMENT_USAGE_ACCOUNT] =
                "SELECT " USAGE_ACCOUNT_COLUMNS " FROM usage_sandboxes WHERE sandbox_id = :id",
        [STATEMENT_USAGE_ACCOUNTS] = USAGE_ACCOUNTS("sandbox_id > :after"),
        [STATEMENT_USAGE_ACCOUNTS_OF_OWNER] =
                USAGE_ACCOUNTS("owner = :owner AND sandbox_id > :after"),
        [STATEMENT_USAGE_ACCOUNTS_OF_SANDBOX] =
                USAGE_ACCOUNTS("sandbox_id = :sandbox_id AND sandbox_id > :after "
                               "AND (:owner IS NULL OR owner = :owner)"),
        [STATEMENT_UPDATE_USAGE_ACCOUNT] =
                "UPDATE usage_sandboxes SET (n_records, billed_time_usec, end_time_usec, "
                "end_cause, end_message, " USAGE_COLUMNS ", " USAGE_GAP_COLUMNS
                ") = (?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, "
                "?11, ?12, ?13, ?14, ?15, ?16, ?17, ?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, "
                "?27, ?28, ?29, ?30, ?31, ?32, ?33, ?34, ?35) WHERE sandbox_id = ?1 AND owner = ?2",
        /* The time always goes on, whatever the clock does. */
        [STATEMENT_INSERT_USAGE_RECORD] =
                "INSERT INTO usage_records (" USAGE_RECORD_COLUMNS ", record_time_usec) VALUES ("
                "?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15, ?16, ?17, "
                "?18, ?19, ?20, ?21, ?22, ?23, ?24, ?25, ?26, ?27, ?28, ?29, ?30, ?31, "
                "max(:time, ?8, coalesce((SELECT record_time_usec + 1 FROM usage_records "
                "WHERE record_id = (SELECT max(record_id) FROM usage_records)), 0)))",
        [STATEMENT_INSERT_USAGE_LABELS] =
                "INSERT INTO usage_labels (sandbox_id, name, value) "
                "SELECT sandbox_id, name, value FROM sandbox_labels WHERE sandbox_id = :id",
        [STATEMENT_IS_SANDBOX_ENDED] = "SELECT state = 4 FROM sandboxes WHERE sandbox_id = :id",
        [STATEMENT_IS_EXECUTION_ENDED] =
                "SELECT state = 3 FROM executions WHERE execution_id = :id",
        [STATEMENT_USAGE_RECORDS] = USAGE_PAGE("true", "record_id"),
        [STATEMENT_USAGE_RECORDS_OF_OWNER] = USAGE_PAGE("owner = :owner", "record_id"),
        /* In a sandbox both orders are the same. */
        [STATEMENT_USAGE_RECORDS_OF_SANDBOX] =
                USAGE_PAGE("sandbox_id = :sandbox_id AND (:owner IS NULL OR owner = :owner) "
                           "AND sequence > coalesce((SELECT sequence FROM usage_records AS last "
                           "WHERE last.record_id = :after AND last.sandbox_id = :sandbox_id), 0)",
                           "sequence"),
        [STATEMENT_USAGE_RECORDS_OF_EXECUTION] =
                USAGE_PAGE("execution_id = :execution_id AND (:owner IS NULL OR owner = :owner) "
                           "AND (:sandbox_id IS NULL OR sandbox_id = :sandbox_id)",
                           "record_id"),
        [STATEMENT_USAGE_RECORD_TIME] = "SELECT record_time_usec FROM usage_records "
                                        "WHERE record_id >= :id ORDER BY record_id LIMIT 1",
        [STATEMENT_USAGE_NEWEST_ID] = "SELECT max(record_id) FROM usage_records",
        [STATEMENT_USAGE_DELETED_ID] = "SELECT deleted_id FROM usage_retention",
        [STATEMENT_ALLOW_USAGE_DELETE] =
                "UPDATE usage_retention SET deleted_id = :id WHERE deleted_id < :id",
        [STATEMENT_DELETE_USAGE_RECORDS] =
                "DELETE FROM usage_records "
                "WHERE record_id <= (SELECT deleted_id FROM usage_retention)",
        [STATEMENT_ALLOW_USAGE_DELETE_OF_OWNER] =
                "UPDATE owner_totals SET deleted_usage_id = (SELECT max(record_id) FROM "
                "(SELECT record_id FROM usage_records WHERE owner = :owner "
                "ORDER BY record_id LIMIT :limit)) WHERE owner = :owner",
        [STATEMENT_DELETE_OLDEST_USAGE_RECORDS] =
                "DELETE FROM usage_records WHERE record_id IN (SELECT record_id "
                "FROM usage_records WHERE owner = :owner ORDER BY record_id LIMIT :limit)",
        [STATEMENT_IS_USAGE_OWNER_KNOWN] =
                "SELECT EXISTS (SELECT 1 FROM api_keys WHERE owner = :owner) "
                "OR EXISTS (SELECT 1 FROM sandboxes WHERE owner = :owner) "
                "OR EXISTS (SELECT 1 FROM usage_sandboxes WHERE owner = :owner) "
                "OR EXISTS (SELECT 1 FROM usage_records WHERE owner = :owner)",
        [STATEMENT_IS_USAGE_SANDBOX_KNOWN] =
                "SELECT EXISTS (SELECT 1 FROM usage_sandboxes WHERE " USAGE_OF_SANDBOX ") "
                "OR EXISTS (SELECT 1 FROM sandboxes WHERE " USAGE_OF_SANDBOX ")",
        [STATEMENT_IS_USAGE_EXECUTION_KNOWN] =
                "SELECT EXISTS (SELECT 1 FROM usage_records WHERE " USAGE_OF_EXECUTION ") "
                "OR EXISTS (SELECT 1 FROM executions WHERE " USAGE_OF_EXECUTION ")",
        /* What a sandbox used since its last row, or an execution that runs since it started. */
        [STATEMENT_USAGE_COMPLETE_UNTIL] =
                "SELECT min(time_usec) FROM ("
                "SELECT coalesce(billed_time_usec, create_time_usec) AS time_usec "
                "FROM sandboxes AS item LEFT JOIN (SELECT sandbox_id AS account_id, "
                "billed_time_usec FROM usage_sandboxes) ON account_id = sandbox_id "
                "WHERE state <> 4 AND :execution_id IS NULL "
                "AND (:owner IS NULL OR owner = :owner) "
                "AND (:sandbox_id IS NULL OR sandbox_id = :sandbox_id) AND " HAS_WANTED_LABELS
                " UNION ALL SELECT iif(start_time_usec > 0, start_time_usec, create_time_usec) "
                "FROM executions AS item WHERE state <> 3 "
                "AND (state = 2 OR :execution_id IS NOT NULL) "
                "AND (:execution_id IS NULL OR execution_id = :execution_id) "
                "AND (:owner IS NULL OR owner = :owner) "
                "AND (:sandbox_id IS NULL OR sandbox_id = :sandbox_id) AND " HAS_WANTED_LABELS ")",
        [STATEMENT_USAGE_DESTINATIONS_OF_SANDBOX] = USAGE_DESTINATIONS("sandbox_id = :sandbox_id"),
        [STATEMENT_USAGE_DESTINATIONS_OF_EXECUTION] =
                USAGE_DESTINATIONS("execution_id = :execution_id "
                                   "AND (:sandbox_id IS NULL OR +sandbox_id = :sandbox_id)"),

        /* No row when a key that is good as the new one is made has its name. */
        [STATEMENT_INSERT_KEY] =
                "INSERT INTO api_keys (" KEY_COLUMNS ") "
                "SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, " KEY_QUOTA("quota_sandboxes", "?10") ", " KEY_QUOTA(
                        "quota_memory_bytes",
                        "?11") ", " KEY_QUOTA("quota_cpu_millis",
                                              "?12") ", " KEY_QUOTA("quota_executions",
                                                                    "?13") " WHERE NOT EXISTS "
                                                                           "(SELECT 1 FROM api_keys WHERE name = ?2 AND " KEY_IS_GOOD(
                                                                                   "?4") ")",
        [STATEMENT_FORGET_ENDED_KEYS] = "DELETE FROM api_keys WHERE NOT (" KEY_IS_GOOD(
                ":now") ") AND key_id IN ("
                        "SELECT key_id FROM api_keys ORDER BY " KEY_IS_GOOD(
                                ":now") " DESC, "
                                        "create_time_usec DESC, key_id DESC LIMIT -1 OFFSET :keep)",
        [STATEMENT_KEYS] = "SELECT " KEY_COLUMNS " FROM api_keys "
                           "ORDER BY create_time_usec DESC, key_id DESC",
        [STATEMENT_REVOKE_KEY] =
                "UPDATE api_keys SET revoke_time_usec = "
                "iif(revoke_time_usec = 0, :time, revoke_time_usec) WHERE key_id = :id",
        [STATEMENT_SET_QUOTAS] = "UPDATE api_keys SET " KEY_NEW_QUOTA("sandboxes", "0") ", " KEY_NEW_QUOTA(
                "memory_bytes",
                "1") ", " KEY_NEW_QUOTA("cpu_millis",
                                        "2") ", " KEY_NEW_QUOTA("executions",
                                                                "3") " WHERE owner = (SELECT owner FROM api_keys WHERE key_id = :id)",
        [STATEMENT_TOUCH_KEY] = "UPDATE api_keys SET last_used_time_usec = :time "
                                "WHERE key_id = :id",

        [STATEMENT_EXPIRE_EXECUTIONS] =
                "DELETE FROM executions WHERE execution_id IN (SELECT execution_id "
                "FROM executions WHERE state = 3 AND end_time_usec < :before "
                "ORDER BY end_time_usec LIMIT :limit)",
        [STATEMENT_EXPIRE_CONTEXTS] =
                "DELETE FROM contexts WHERE context_id IN (SELECT context_id FROM contexts "
                "WHERE delete_time_usec > 0 AND delete_time_usec < :before AND NOT EXISTS "
                "(SELECT 1 FROM executions WHERE executions.context_id = contexts.context_id) "
                "ORDER BY delete_time_usec LIMIT :limit)",
        /* Executions first, in their own small steps: a cascade over thousands would hold up
         * everyone else's writes. */
        [STATEMENT_EXPIRE_SANDBOXES] =
                "DELETE FROM sandboxes WHERE sandbox_id IN (SELECT sandbox_id FROM sandboxes "
                "WHERE state = 4 AND end_time_usec < :before AND NOT EXISTS "
                "(SELECT 1 FROM executions WHERE executions.sandbox_id = sandboxes.sandbox_id) "
                "AND NOT EXISTS (SELECT 1 FROM egress_events "
                "WHERE egress_events.sandbox_id = sandboxes.sandbox_id) "
                "ORDER BY end_time_usec LIMIT :limit)",
        [STATEMENT_EXPIRE_EVENTS] =
                "DELETE FROM sandbox_events WHERE sequence IN (SELECT sequence "
                "FROM sandbox_events WHERE sequence < :before ORDER BY sequence LIMIT :limit)",
        [STATEMENT_EXPIRE_EGRESS_EVENTS] =
                "DELETE FROM egress_events WHERE egress_event_id IN (SELECT egress_event_id "
                "FROM egress_events WHERE event_time_usec < :before "
                "ORDER BY event_time_usec LIMIT :limit)",
        /* Whatever their time: they go before their sandbox does. */
        [STATEMENT_EXPIRE_EGRESS_OF_SANDBOXES] =
                "DELETE FROM egress_events WHERE egress_event_id IN (SELECT egress_event_id "
                "FROM egress_events WHERE sandbox_id IN (SELECT sandbox_id FROM sandboxes "
                "WHERE state = 4 AND end_time_usec < :before "
                "ORDER BY end_time_usec LIMIT :limit) LIMIT :limit)",
        [STATEMENT_EXPIRE_REQUESTS] =
                "DELETE FROM requests WHERE (owner, method, request_id) IN (SELECT owner, method, "
                "request_id FROM requests WHERE create_time_usec < :before "
                "ORDER BY create_time_usec LIMIT :limit)",
        [STATEMENT_EXPIRE_OUTPUTS] =
                "DELETE FROM execution_outputs WHERE execution_id IN (SELECT execution_id "
                "FROM execution_outputs WHERE end_time_usec < :before "
                "ORDER BY end_time_usec LIMIT :limit)",
        /* By the clock, and yet a prefix of the sequence, also if the clock was set back. */
        [STATEMENT_EVENT_SEQUENCE_AT_TIME] =
                "SELECT sequence FROM sandbox_events WHERE event_time_usec >= :time "
                "ORDER BY sequence LIMIT 1",
        [STATEMENT_OWNER_TOTALS] = "SELECT owner, n_events, event_bytes, n_ended_executions, "
                                   "n_ended_sandboxes, n_outputs, output_bytes, n_egress_events, "
                                   "egress_event_bytes, n_usage_records FROM owner_totals",
        [STATEMENT_DELETE_OLDEST_OUTPUTS] =
                "DELETE FROM execution_outputs WHERE execution_id IN (SELECT execution_id "
                "FROM execution_outputs WHERE owner = :owner ORDER BY end_time_usec LIMIT :limit)",
        [STATEMENT_DELETE_OLDEST_EVENTS] =
                "DELETE FROM sandbox_events WHERE sequence IN (SELECT sequence "
                "FROM sandbox_events WHERE owner = :owner ORDER BY sequence LIMIT :limit)",
        [STATEMENT_DELETE_OLDEST_EGRESS_EVENTS] =
                "DELETE FROM egress_events WHERE egress_event_id IN (SELECT egress_event_id "
                "FROM egress_events WHERE owner = :owner ORDER BY event_time_usec LIMIT :limit)",
        [STATEMENT_DELETE_OLDEST_EXECUTIONS] =
                "DELETE FROM executions WHERE execution_id IN (SELECT execution_id "
                "FROM executions INDEXED BY executions_of_owner WHERE owner = :owner AND state = 3 "
                "ORDER BY create_time_usec LIMIT :limit)",
        [STATEMENT_EMPTY_OLDEST_SANDBOXES] =
                "DELETE FROM executions WHERE execution_id IN (SELECT execution_id "
                "FROM executions WHERE sandbox_id IN (SELECT sandbox_id "
                "FROM sandboxes INDEXED BY sandboxes_of_owner WHERE owner = :owner AND state = 4 "
                "ORDER BY create_time_usec LIMIT :limit) LIMIT :limit)",
        [STATEMENT_EMPTY_EGRESS_OF_OLDEST_SANDBOXES] =
                "DELETE FROM egress_events WHERE egress_event_id IN (SELECT egress_event_id "
                "FROM egress_events WHERE sandbox_id IN (SELECT sandbox_id "
                "FROM sandboxes INDEXED BY sandboxes_of_owner WHERE owner = :owner AND state = 4 "
                "ORDER BY create_time_usec LIMIT :limit) LIMIT :limit)",
        [STATEMENT_DELETE_OLDEST_SANDBOXES] =
                "DELETE FROM sandboxes WHERE sandbox_id IN (SELECT sandbox_id "
                "FROM sandboxes INDEXED BY sandboxes_of_owner WHERE owner = :owner AND state = 4 "
                "ORDER BY create_time_usec LIMIT :limit) AND NOT EXISTS "
                "(SELECT 1 FROM executions WHERE executions.sandbox_id = sandboxes.sandbox_id) "
                "AND NOT EXISTS (SELECT 1 FROM egress_events "
                "WHERE egress_events.sandbox_id = sandboxes.sandbox_id)",
        [STATEMENT_REMEMBER_DELETED_EVENTS] =
                "UPDATE owner_totals SET deleted_sequence = (SELECT max(deleted_sequence) "
                "FROM owner_totals WHERE " OWNER_HAS_NOTHING ") WHERE owner = ''",
        [STATEMENT_FORGET_OWNERS] =
                "DELETE FROM owner_totals WHERE " OWNER_HAS_NOTHING " AND owner <> ''",
};
static_assert(ARRAY_SIZE(statement_sql) == _STATEMENT_N, "every statement has its SQL");

int statements_prepare(sqlite3 *connection, sqlite3_stmt *ret_statements[static _STATEMENT_N])
{
        for (size_t i = 0; i < _STATEMENT_N; i++) {
                int r = sqlite3_prepare_v3(connection, statement_sql[i], -1,
                                           SQLITE_PREPARE_PERSISTENT, &ret_statements[i], NULL);

                if (r != SQLITE_OK) {
                        log_error("a statement does not fit the database error=\"%s\" sql=\"%s\"",
                                  sqlite3_errmsg(connection), statement_sql[i]);
                        return error_origin(sqlite_error(connection, r));
                }
        }
        return 0;
}

void statements_finalize(sqlite3_stmt *statements[static _STATEMENT_N])
{
        for (size_t i = 0; i < _STATEMENT_N; i++) {
                (void)sqlite3_finalize(statements[i]);
                statements[i] = NULL;
        }
}
