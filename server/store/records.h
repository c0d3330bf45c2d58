/*
 * What the server knows of sandboxes, contexts, executions and keys: the same structs in memory, in
 * the database and in answers.
 *
 * Times are microseconds since the epoch, zero means "not yet" or "never"; durations are
 * microseconds. Strings that are owned are freed by the record's _deinit; a record of zeros is
 * valid for it.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/dns_label.h"
#include "server/store/egress.h"
#include "server/store/usage.h"

enum {
        OWNER_BUFFER = 80,        /* `uid:1000` or `key-…`, and its NUL */
        LANGUAGE_BUFFER = 32,     /* such as `python`, and its NUL */
        DIGEST_BUFFER = 72,       /* `sha256-` and 64 digits, and its NUL */
        MESSAGE_BUFFER = 256,     /* one sentence for people, and its NUL */
        PATH_BUFFER = 1024,       /* a working directory, and its NUL */
        METHOD_BUFFER = 32,       /* such as `CreateSandbox`, and its NUL */
        REQUEST_ID_BUFFER = 65,   /* a client's own name of a request, and its NUL */
        ADDRESS_BUFFER = 46,      /* an IP address as text, and its NUL */
        HOST_NAME_BUFFER = 256,   /* a name of the DNS, and its NUL */
        COMMAND_BUFFER = 16,      /* what a process calls itself, and its NUL */
        RULE_BUFFER = 256,        /* a rule of an egress policy for people, and its NUL */
        EGRESS_PROGRAMS_MAX = 16, /* BPF programs that hold to a policy */
};

/* The numbers of the enums below are stored: never change one. They are those of the public
 * API, too. */
enum sandbox_state {
        SANDBOX_CREATING = 1,
        SANDBOX_RUNNING,
        SANDBOX_ENDING,
        SANDBOX_ENDED,
        _SANDBOX_STATE_N,
};

enum execution_state {
        EXECUTION_QUEUED = 1,
        EXECUTION_RUNNING,
        EXECUTION_ENDED,
        _EXECUTION_STATE_N,
};

enum outcome {
        OUTCOME_NONE = 0,
        OUTCOME_OK,
        OUTCOME_RAISED,
        OUTCOME_EXITED,
        OUTCOME_SIGNALLED,
        OUTCOME_TIMEOUT,
        OUTCOME_OOM,
        OUTCOME_OUTPUT_LIMIT,
        OUTCOME_INTERRUPTED,
        OUTCOME_KILLED,
        OUTCOME_NOT_STARTED,
        OUTCOME_SANDBOX_ENDED,
        OUTCOME_LOST,
        _OUTCOME_N,
};

enum cause {
        CAUSE_NONE = 0,
        CAUSE_PROGRAM,
        CAUSE_LIMIT,
        CAUSE_CLIENT,
        CAUSE_CLIENT_GONE,
        CAUSE_CLIENT_NOT_READING,
        CAUSE_OPERATOR,
        CAUSE_TTL,
        CAUSE_IDLE,
        CAUSE_POLICY,
        CAUSE_KERNEL_PROTOCOL,
        CAUSE_SHUTDOWN,
        CAUSE_RUNTIME_LOST,
        CAUSE_HOST_LOST,
        _CAUSE_N,
};

enum sandbox_event {
        SANDBOX_EVENT_CREATED = 1,
        SANDBOX_EVENT_RUNNING,
        SANDBOX_EVENT_UPDATED,
        SANDBOX_EVENT_ENDED,
        _SANDBOX_EVENT_N,
};

/* Who decides about egress. */
enum egress_decider {
        EGRESS_DECIDER_WALL = 1, /* the BPF programs */
        EGRESS_DECIDER_RELAY,
        EGRESS_DECIDER_RESOLVER,
        _EGRESS_DECIDER_N,
};

enum egress_event_type {
        EGRESS_EVENT_DENIED = 1,
        EGRESS_EVENT_FAILED,     /* allowed, but it could not be made */
        EGRESS_EVENT_FLOW_ENDED, /* made, and over */
        _EGRESS_EVENT_TYPE_N,
};

enum egress_protocol {
        EGRESS_PROTOCOL_OTHER = 0,
        EGRESS_PROTOCOL_TCP,
        EGRESS_PROTOCOL_UDP,
        EGRESS_PROTOCOL_ICMP,
        _EGRESS_PROTOCOL_N,
};

enum egress_reason {
        EGRESS_REASON_NONE = 0,
        EGRESS_REASON_DEFAULT,
        EGRESS_REASON_RULE,
        EGRESS_REASON_ALWAYS_DENIED,
        EGRESS_REASON_NAME_MISMATCH,
        EGRESS_REASON_RESOLVER,
        EGRESS_REASON_PROTOCOL,
        EGRESS_REASON_LIMIT,
        EGRESS_REASON_UNAVAILABLE,
        EGRESS_REASON_POLICY_CHANGED,
        EGRESS_REASON_RECORD_TYPE,
        EGRESS_REASON_MALFORMED,
        EGRESS_REASON_NAME_ABSENT,
        _EGRESS_REASON_N,
};

/* A name and a value: labels, environment variables. */
struct pair {
        char *name;
        char *value;
};

struct pairs {
        struct pair *items;
        size_t n;
};

/* Limits of one execution. */
struct execution_limits {
        int64_t timeout_usec; /* zero: none */
        int64_t output_bytes;
};

struct sandbox_limits {
        int64_t memory_bytes;
        int32_t cpu_millis;
        int32_t processes;
        int64_t disk_bytes;
        int32_t open_files;
        struct execution_limits execution;
        int32_t cpu_weight;
        int64_t disk_inodes;
        int64_t io_bytes_per_second; /* zero: no bound */
};

/* What a sandbox uses, from its cgroup. */
struct sandbox_usage {
        int64_t memory_bytes;
        int64_t disk_bytes;
        int32_t processes;
        struct usage total; /* since it was made */
};

/* How its egress policy is held to, as hotcell-egress said last. Not stored: it is to be proven. */
struct egress_enforcement {
        int64_t version; /* of the policy that is in force; zero: none is known to be */
        uint32_t program_ids[EGRESS_PROGRAMS_MAX];
        size_t n_program_ids;
};

/* What the wall refused in it at once, as hotcell-egress said last. */
struct egress_refusals {
        bool is_known;
        int64_t logged;  /* for each of these there was an event */
        int64_t dropped; /* for these there was none: they were too many */
};

/* The newest of its egress events: of all, and of each of those who decide. */
struct egress_tail {
        int64_t sequence; /* zero: none is known */
        struct {
                int64_t serial;
                int64_t time_usec;
        } told[_EGRESS_DECIDER_N];
};

struct sandbox_record {
        char sandbox_id[ID_BUFFER];
        char owner[OWNER_BUFFER];
        char name[ID_BUFFER]; /* may be empty */
        enum sandbox_state state;
        char template_name[ID_BUFFER];
        char template_digest[DIGEST_BUFFER];
        int64_t create_time_usec;
        int64_t expire_time_usec;  /* zero: never */
        int64_t idle_timeout_usec; /* zero: never */
        int64_t end_time_usec;
        enum cause end_cause;
        char end_message[MESSAGE_BUFFER];
        struct sandbox_limits limits;
        struct sandbox_usage usage; /* at its end */
        struct pairs labels;
        struct pairs environment; /* forgotten at its end */
        int64_t egress_version;   /* of its policy: one more with each that replaces another one */
        struct egress *egress;    /* a hold; NULL: nothing may leave */
        struct egress_enforcement enforcement;
        struct egress_refusals egress_refusals; /* stored with its end */
        struct egress_tail egress_tail;         /* only of what store_load_living tells */
        uint64_t cgroup_id;                     /* only good within boot_id */
        char boot_id[40];
        bool is_one_shot; /* ends with its execution */
};

struct context_record {
        char context_id[ID_BUFFER];
        char sandbox_id[ID_BUFFER];
        char owner[OWNER_BUFFER];
        char language[LANGUAGE_BUFFER];
        char working_directory[PATH_BUFFER];
        bool is_default;
        int64_t generation;
        int64_t create_time_usec;
        int64_t delete_time_usec; /* zero: it exists */
};

struct execution_record {
        char execution_id[ID_BUFFER];
        char sandbox_id[ID_BUFFER];
        char context_id[ID_BUFFER];
        char owner[OWNER_BUFFER];
        enum execution_state state;
        int64_t context_generation;
        int64_t create_time_usec;
        int64_t start_time_usec;
        int64_t end_time_usec;
        struct execution_limits limits;
        /* Good once state is EXECUTION_ENDED: */
        enum outcome outcome;
        enum cause cause;
        bool has_exit_code;
        int32_t exit_code;
        int32_t signal;
        bool state_lost;
        char message[MESSAGE_BUFFER];
        /* In its row, too: the ledger may be kept for less time than that. While it runs, what it
         * had used when its sandbox was billed last. */
        struct usage usage;
        int64_t truncated_bytes;
        int64_t last_sequence;
};

enum key_quota {
        KEY_QUOTA_SANDBOXES,
        KEY_QUOTA_MEMORY, /* bytes */
        KEY_QUOTA_CPU,    /* thousandths of CPUs */
        KEY_QUOTA_EXECUTIONS,
        _KEY_QUOTA_N,
};

/* Of an owner of keys: all its keys have the same. Zero: no quota. */
struct key_quotas {
        int64_t most[_KEY_QUOTA_N];
};

struct key_record {
        char key_id[ID_BUFFER];
        char name[ID_BUFFER];
        uint8_t secret_sha256[32];
        int64_t create_time_usec;
        int64_t revoke_time_usec;    /* zero: it was not */
        char owner[OWNER_BUFFER];    /* of what is made with it: its own id, or an older key's */
        int64_t scopes;              /* bits of enum scope */
        int64_t expire_time_usec;    /* zero: never */
        int64_t last_used_time_usec; /* zero: never */
        struct key_quotas quotas;
};

/* A request with a request_id, and what came of it. */
struct request_record {
        char owner[OWNER_BUFFER];
        char method[METHOD_BUFFER];
        char request_id[REQUEST_ID_BUFFER];
        uint8_t request_sha256[32]; /* of its other fields */
        char object_id[ID_BUFFER];  /* what the answer is about */
        bool created;               /* the request made it */
};

enum usage_record_type {
        USAGE_RECORD_EXECUTION = 1, /* at its end */
        USAGE_RECORD_SANDBOX,       /* what no execution took since the one before */
        USAGE_RECORD_SANDBOX_END,   /* likewise, the last of a sandbox */
        _USAGE_RECORD_TYPE_N,
};

/* A row of the ledger. Owns nothing. */
struct usage_record {
        char sandbox_id[ID_BUFFER];
        int64_t sequence; /* counts from 1 in its sandbox, without holes */
        enum usage_record_type type;
        char execution_id[ID_BUFFER]; /* may be empty, as may be */
        char context_id[ID_BUFFER];
        char owner[OWNER_BUFFER];
        int64_t start_time_usec;
        int64_t end_time_usec;
        struct usage usage;
        enum outcome outcome;
        enum cause cause;
        bool is_incomplete; /* its last meters could not be read */
};

/* What all rows of a sandbox add up to, and how it ended. Owns nothing. */
struct usage_account {
        char sandbox_id[ID_BUFFER];
        char owner[OWNER_BUFFER];
        int64_t n_records;
        int64_t billed_time_usec; /* until then its life is in rows */
        int64_t end_time_usec;    /* zero: it lives */
        enum cause end_cause;
        char end_message[MESSAGE_BUFFER];
        struct usage usage;
        struct usage_gaps
                gaps; /* of its rows; of throttling only of those that are not executions */
};

/* What was sent to one destination. Owns nothing. */
struct usage_destination {
        char name[HOST_NAME_BUFFER];  /* may be empty */
        char address[ADDRESS_BUFFER]; /* empty: several */
        int32_t port;
        int64_t connections;
        int64_t sent_bytes;
        int64_t received_bytes;
};

/* One decision about what a sandbox asked the network for. Owns nothing. */
struct egress_record {
        int64_t sequence;           /* rises in the sandbox, never used for another */
        enum egress_decider source; /* zero: not known, and only its sequence tells it apart */
        int64_t serial; /* counts those of its source, maybe with others: the same when told again
                         */
        int64_t event_time_usec;
        char sandbox_id[ID_BUFFER];
        char execution_id[ID_BUFFER]; /* may be empty */
        enum egress_event_type type;
        enum egress_protocol protocol;
        char address[ADDRESS_BUFFER]; /* may be empty */
        int32_t port;
        char name[HOST_NAME_BUFFER]; /* may be empty */
        enum egress_reason reason;
        int32_t rule_index;     /* from zero, with EGRESS_REASON_RULE; -1: several */
        char rule[RULE_BUFFER]; /* its text, cut to fit; empty: none, or it is not known */
        int64_t policy_version;
        int64_t pid; /* on the host; zero: not known */
        char command[COMMAND_BUFFER];
        int64_t count; /* of equal ones that it stands for */
        int32_t error_number;
        int64_t sent_bytes;
        int64_t received_bytes;
        int64_t duration_usec;
};

/* Deep copies; -ENOMEM. @ret is overwritten, not freed. */
int pairs_copy(const struct pairs *pairs, struct pairs *ret_pairs);
int sandbox_record_copy(const struct sandbox_record *record, struct sandbox_record *ret_record);

/* A copy to be freed; NULL of NULL. */
int request_record_copy(const struct request_record *record, struct request_record **ret_record);

/* Appends copies of both strings. */
int pairs_add(struct pairs *pairs, const char *name, const char *value);

/* Names and values, each ended by its NUL, in one block. -ENOMEM; @ret_bytes is the caller's. */
int pairs_pack(const struct pairs *pairs, char **ret_bytes, size_t *ret_n_bytes);
size_t pairs_packed_bytes(const struct pairs *pairs);

/* Appends what was packed; -EUCLEAN when it was not, with some of it appended. */
int pairs_unpack(const char *bytes, size_t n_bytes, struct pairs *pairs);

void pairs_deinit(struct pairs *pairs);
void sandbox_record_deinit(struct sandbox_record *record);
