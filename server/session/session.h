/*
 * The sessions: living sandboxes, their contexts and the executions in them.
 *
 * All of it belongs to the loop thread. Callbacks come once, later or before the call returns.
 * Every call carries the owner; what belongs to others is not found. Inputs were checked by the
 * caller (form, sizes, limits against the maxima); what depends on state is checked here. The
 * caller's structs are copied.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <systemd/sd-event.h>

#include "server/store/records.h"

struct store;
struct session;

enum {
        SESSION_E_SANDBOX_NOT_FOUND = 1,
        SESSION_E_CONTEXT_NOT_FOUND,
        SESSION_E_EXECUTION_NOT_FOUND,
        SESSION_E_SANDBOX_ENDED,
        SESSION_E_EXECUTION_ENDED,
        SESSION_E_NAME_IN_USE,
        SESSION_E_UNKNOWN_TEMPLATE,
        SESSION_E_UNKNOWN_LANGUAGE,
        SESSION_E_SANDBOX_LIMIT,       /* as many sandboxes as the server allows */
        SESSION_E_CONTEXT_LIMIT,       /* 16 in a sandbox */
        SESSION_E_QUEUE_FULL,          /* as much waits as a context, its sandbox or all may have */
        SESSION_E_HOST_EXHAUSTED,      /* the runtime has no room */
        SESSION_E_WALL_MISSING,        /* a required wall does not hold on this host */
        SESSION_E_EGRESS,              /* nothing keeps egress to the policy: no wall, no relay */
        SESSION_E_RULE_TOO_COMPLEX,    /* the tables have no room for what rules say together */
        SESSION_E_RUNTIME_UNAVAILABLE, /* no runtime, or it failed */
        SESSION_E_STORE_UNAVAILABLE,   /* the database cannot be written */
        SESSION_E_STATE_FULL,          /* its disk is full: new work is not taken */
        SESSION_E_SHUTTING_DOWN,
        SESSION_E_KERNEL_FAILED,     /* the interpreter did not start; message says why */
        SESSION_E_WORKING_DIRECTORY, /* no such directory in the sandbox */
        SESSION_E_CONFLICT,          /* it is not as its etag says any more */
        SESSION_E_MEMORY_LIMIT,      /* as much memory is promised as may be */
        SESSION_E_CREATION_LIMIT,    /* as many sandboxes are being made as may be at once */
        SESSION_E_EXECUTION_LIMIT,   /* as many contexts have work as may have at once */
        SESSION_E_QUEUE_LIMIT,       /* as much waits, in all contexts, as may wait */
        SESSION_E_STREAM_LIMIT,      /* as many streams are open as may be */
        SESSION_E_UPDATE_RATE,       /* more updates than the owner may make in that time */
        SESSION_E_EGRESS_LIMIT,      /* as many bytes of egress rules are kept as may be */
        SESSION_E_CPU_LIMIT,         /* as much CPU time is promised as may be */
        SESSION_E_LIMIT,             /* such a limit cannot be put in force: message says why */
};

enum { SESSION_RETRY_NEVER = -1 }; /* the same is refused again, whatever others do */

/* How a call went. @message is one sentence for people about what happened to which object; empty
 * on success. */
struct session_result {
        int outcome;              /* 0 or SESSION_E_; negative errno: an error of our own */
        char quota[OWNER_BUFFER]; /* whose limit it was: an id; empty: the server's */
        const char *limit;        /* its name, as `memory_bytes`; NULL: it has none */
        int64_t retry_usec; /* when to ask again; zero: nobody knows; or SESSION_RETRY_NEVER */
        bool may_pass;      /* what is in the way ends already: session_await_room */
        char message[MESSAGE_BUFFER];
};

/* What is bounded for all owners together, and shared among them. */
enum session_share {
        SESSION_SHARE_SANDBOXES,
        SESSION_SHARE_MEMORY,       /* bytes: the limits of those that live */
        SESSION_SHARE_CPU,          /* thousandths of CPUs: likewise */
        SESSION_SHARE_CREATIONS,    /* sandboxes that are being made */
        SESSION_SHARE_EXECUTIONS,   /* one of each context that has any: it runs, or is the next */
        SESSION_SHARE_QUEUED,       /* executions behind those */
        SESSION_SHARE_QUEUED_BYTES, /* code and environments that could not be sent at once */
        SESSION_SHARE_STREAMS,      /* of executions and watches */
        SESSION_SHARE_RINGS,        /* bytes of output of ended executions; never refused */
        SESSION_SHARE_EGRESS,       /* bytes of the egress policies of sandboxes that live */
        SESSION_SHARE_EGRESS_RULES, /* their rules: SESSION_EGRESS_RULES_MAX in all */
        _SESSION_SHARE_N,
};

/*
 * A rule is at most one prefix in the wall's tables, which hold 2^20 of each family, and while a
 * policy is replaced the new one is there beside the old one. So with these no policy meets full
 * tables, whoever has the rules, even when all are replaced at once; the rest is for what is always
 * denied.
 */
enum { SESSION_EGRESS_RULES_MAX = (1 << 19) - 4096 };

struct session_share_rules {
        int64_t total[_SESSION_SHARE_N];
        int64_t owner_max[_SESSION_SHARE_N]; /* of one who is no operator; zero: only by part */
        /* What one owner may have by a quota of its own; zero: no quota. NULL: nobody has any. */
        int64_t (*quota_of)(void *userdata, const char *owner, enum session_share share);
        void *userdata;
        int owner_percent;    /* what one such owner may have while no other has any; to 100 */
        int operator_percent; /* what is kept for operators; below 100 */
};

struct session_config {
        const char *runtime_socket; /* path of hotcell-runtime's socket */
        struct session_share_rules shares;
        int64_t updates_per_second;    /* of sandboxes, by one owner */
        size_t queue_max;              /* executions that wait in one context */
        size_t queued_bytes_max;       /* of their code and environments, of one sandbox */
        size_t ring_bytes;             /* replay buffer of one execution */
        int64_t rings_retained_usec;   /* how long an ended execution can be replayed */
        int64_t interrupt_first_usec;  /* ladder: SIGINT, after this SIGINT again, */
        int64_t interrupt_second_usec; /* and after this SIGKILL */
        int64_t kernel_start_timeout_usec;
        int64_t egress_answer_usec; /* how long hotcell-egress may take to put a policy in force */
        int64_t ledger_period_usec; /* from one row of a living sandbox to the next; zero: none */
        size_t rich_part_max_bytes; /* a larger representation ends the execution as OUTPUT_LIMIT */
};

/* Connects to the runtime (and keeps trying), reconciles the database with what the runtime has. */
int session_new(sd_event *loop, struct store *store, const struct session_config *config,
                struct session **ret_session);

/* After session_stop only. */
struct session *session_free(struct session *session);

/* For a successor: ends all readers, and that they are gone changes nothing for what they read. */
void session_leave(struct session *session);

/*
 * Stops: executions end (outcome LOST or SANDBOX_ENDED as fits, cause SHUTDOWN), readers are told,
 * sandboxes are destroyed with cause SHUTDOWN and recorded. @on_stopped comes when all is recorded.
 */
void session_stop(struct session *session, void (*on_stopped)(void *userdata), void *userdata);

/* The runtime is connected and all required walls hold, a template exists, and the start's
 * reconciliation is over. */
bool session_is_ready(const struct session *session);

/* What a predecessor left has its place. Before that nothing that lives can be found: only what the
 * database alone answers may be asked. */
bool session_is_settled(const struct session *session);

/* Called on every change of session_is_ready. */
void session_on_ready_change(struct session *session, void (*on_change)(void *userdata),
                             void *userdata);

/* What the runtime said of itself. Good until control returns to the loop. */
struct session_wall {
        const char *name;
        bool holds;
        bool required;
        const char *detail;
        const char *fix;
};

struct session_language {
        const char *language;
        const char *version;
};

struct session_template {
        const char *name;
        const char *digest;
        const char *home;
        const struct session_language *languages; /* the default first */
        size_t n_languages;
};

/* Of hotcell-egress, as far as known. */
enum session_egress_state {
        SESSION_EGRESS_NONE,   /* the runtime has none */
        SESSION_EGRESS_ENDED,  /* it had one, which is not there now */
        SESSION_EGRESS_SILENT, /* it does not answer */
        SESSION_EGRESS_THERE,
};

/* How the runtime measures; see hotcell.v1.Metering. */
struct session_metering {
        bool is_known; /* an older runtime does not say */
        bool has_programs;
        char detail[160];
        uint32_t missing; /* BIT(enum usage_part) */
        int64_t slots;
        int64_t slots_used;
        int64_t slots_refused;
        int64_t scheduled_usec;
        int64_t cpu_usec;
};

struct session_info {
        const char *runtime_version; /* empty: no runtime */
        const struct session_wall *walls;
        size_t n_walls;
        const struct session_template *templates;
        size_t n_templates;
        size_t sandboxes_active;
        size_t sandboxes_max;
        enum session_egress_state egress;
        const struct session_metering *metering;
        struct session_quota {
                int64_t limit, used;             /* of all */
                int64_t owner_limit, owner_used; /* of the one who asks, as things are */
        } quotas[_SESSION_SHARE_N];
};

void session_info(struct session *session, const char *owner, struct session_info *ret_info);

/* Whether the runtime that was connected last carries UDP and ICMP by rules; false before. */
bool session_has_direct_mode(const struct session *session);

/*
 * For a refusal that may pass: tells, from the loop, when it is worth to ask again, and in any case
 * after @patience_usec. -ENOMEM.
 */
int session_await_room(struct session *session, const struct session_result *refusal,
                       uint64_t patience_usec, void (*on_room)(void *userdata), void *userdata);

/* How much of it the owner has. */
int64_t session_share_used(const struct session *session, const char *owner,
                           enum session_share share);

/* A stable name, as `memory_bytes`. */
const char *session_share_name(enum session_share share);

/* Before session_info: has the runtime say anew how it measures what is more than a second old.
 * It stays as it was said last where it does not answer. */
void session_refresh_metering(struct session *session, void (*on_done)(void *userdata),
                              void *userdata);

/* Also asks hotcell-egress whether it is there. */
void session_probe_walls(struct session *session,
                         void (*on_done)(void *userdata, const struct session_result *result),
                         void *userdata);

/*
 * Requests that carry a request_id. Before it is run such a request claims owner, method and id; it
 * holds the claim until it was answered. Calls that change something take the request and have it
 * remembered in the transaction of the change.
 */
struct session_claim;

enum {
        CLAIM_E_KNOWN = 1,   /* it was taken before: to be answered with what came of it */
        CLAIM_E_REUSED,      /* the id was taken before, with other fields */
        CLAIM_E_UNAVAILABLE, /* the database cannot be read */
};

/* @result 0: it is to be run. @known is that of CLAIM_E_KNOWN. */
typedef void (*session_on_claimed)(void *userdata, int result, const struct request_record *known);

/* Waits for whoever has the claim now. *@ret_claim is set before @on_claimed comes. */
int session_claim_new(struct session *session, const struct request_record *request,
                      session_on_claimed on_claimed, void *userdata,
                      struct session_claim **ret_claim);

/* Lets the next one go on. Not before on_claimed came. */
struct session_claim *session_claim_free(struct session_claim *claim);

/* Remembers one that asked for no change which could remember it. */
void session_remember_request(struct session *session, const struct request_record *request,
                              void (*on_done)(void *userdata, const struct session_result *result),
                              void *userdata);
/* A stream to a client, which counts as long as it is open. */
struct session_stream;
struct session_result session_stream_new(struct session *session, const char *owner,
                                         struct session_stream **ret_stream);
struct session_stream *session_stream_free(struct session_stream *stream);

/* Sandboxes. Records given to callbacks are good during the callback. */
struct sandbox_request {
        const struct request_record *request; /* to be remembered once it runs; may be NULL */
        const char *owner;
        const char *name;          /* empty: none */
        const char *template_name; /* empty: the first */
        int64_t expire_time_usec;  /* zero: never */
        int64_t idle_timeout_usec; /* zero: never */
        struct sandbox_limits limits;
        const struct pairs *environment;
        const struct pairs *labels;
        struct egress *egress; /* a hold is taken; NULL: nothing may leave */
        bool get_or_create;
};

typedef void (*session_on_sandbox)(void *userdata, const struct session_result *result,
                                   const struct sandbox_record *record, bool created);

void session_create_sandbox(struct session *session, const struct sandbox_request *request,
                            session_on_sandbox on_done, void *userdata);

/* Living and ended ones; a running one with its present usage. */
void session_get_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                         session_on_sandbox on_done, void *userdata);

/* Tells apart the values of what an update can change: labels, expire time, idle timeout, egress
 * policy, limits. */
enum { ETAG_BUFFER = 17 };
void sandbox_etag(const struct sandbox_record *record, char ret_etag[static ETAG_BUFFER]);

/* What of struct sandbox_limits an update sets. */
enum sandbox_limit {
        SANDBOX_LIMIT_MEMORY,
        SANDBOX_LIMIT_CPU,
        SANDBOX_LIMIT_PROCESSES,
        SANDBOX_LIMIT_OPEN_FILES,
        SANDBOX_LIMIT_DISK,
        SANDBOX_LIMIT_INODES,
        SANDBOX_LIMIT_WEIGHT,
        SANDBOX_LIMIT_IO,
        SANDBOX_LIMIT_TIMEOUT,
        SANDBOX_LIMIT_OUTPUT,
        _SANDBOX_LIMIT_N,
};

/* Files count as memory: so much of that must stay beside them. */
enum { SESSION_DISK_HEADROOM_BYTES = 64 << 20 };

struct sandbox_update {
        const char *etag; /* only if it is still this; NULL or empty: in any case */
        const struct request_record *request; /* to be remembered with it; may be NULL */
        bool set_labels;
        const struct pairs *labels;
        bool set_expire_time;
        int64_t expire_time_usec;
        bool set_idle_timeout;
        int64_t idle_timeout_usec;
        bool set_egress;
        struct egress *egress; /* as in a request */
        unsigned set_limits;   /* BIT(enum sandbox_limit) */
        struct sandbox_limits limits;
};

void session_update_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                            const struct sandbox_update *update, session_on_sandbox on_done,
                            void *userdata);

/* Succeeds also on one that ends or has ended, whatever the @etag, which is as of an update. */
void session_delete_sandbox(struct session *session, const char *owner, const char *sandbox_id,
                            const char *etag, enum cause cause, session_on_sandbox on_done,
                            void *userdata);

/* For the operator: begins the end of all living sandboxes of @owner, and says of how many. */
size_t session_delete_sandboxes_of(struct session *session, const char *owner);

/* @on_event is called after the commit of every sandbox event of @owner; the event itself is in the
 * store. */
struct session_watch;
int session_watch_new(struct session *session, const char *owner, void (*on_event)(void *userdata),
                      void *userdata, struct session_watch **ret_watch);
struct session_watch *session_watch_free(struct session_watch *watch);

/* Contexts. */
enum context_state {
        CONTEXT_STARTING = 1,
        CONTEXT_IDLE,
        CONTEXT_BUSY,
        CONTEXT_STOPPED, /* no interpreter; the next execution starts one */
        _CONTEXT_STATE_N,
};

struct context_view {
        const struct context_record *record;
        enum context_state state;
};

typedef void (*session_on_contexts)(void *userdata, const struct session_result *result,
                                    const struct context_view *views, size_t n);

struct context_request {
        const struct request_record *request; /* to be remembered with it; may be NULL */
        const char *owner;
        const char *sandbox_id;
        const char *language;          /* empty: the template's first */
        const char *working_directory; /* empty: the home */
};

/* Answered with one view, when the interpreter is ready. */
void session_create_context(struct session *session, const struct context_request *request,
                            session_on_contexts on_done, void *userdata);

/* The same of one that exists; starts its interpreter if it has none. */
void session_await_context(struct session *session, const char *owner, const char *sandbox_id,
                           const char *context_id, session_on_contexts on_done, void *userdata);
void session_list_contexts(struct session *session, const char *owner, const char *sandbox_id,
                           session_on_contexts on_done, void *userdata);

/* @request (may be NULL) is remembered once the state is being thrown away. */
void session_restart_context(struct session *session, const struct request_record *request,
                             const char *owner, const char *sandbox_id, const char *context_id,
                             session_on_contexts on_done, void *userdata);
void session_delete_context(struct session *session, const char *owner, const char *sandbox_id,
                            const char *context_id, session_on_contexts on_done, void *userdata);

/* Executions. */
struct execute_request {
        const struct request_record *request; /* to be remembered with its row; may be NULL */
        const char *owner;
        const char *sandbox_id;                 /* or */
        const struct sandbox_request *one_shot; /* a sandbox made for it and deleted at its end */
        const char *context_id;                 /* empty: the default context of @language */
        const char *language;                   /* empty: the template's first */
        const char *code;
        size_t n_code;
        const struct pairs *environment;
        /* What the request sets; the sandbox's limits count where a has_ is false. */
        bool has_timeout;
        bool has_output_bytes;
        struct execution_limits limits;
        bool goes_on_without_client;
        int64_t disconnect_grace_usec;
        bool truncate_output; /* at the output limit, instead of a kill */
        bool combine_output;
        int64_t queue_timeout_usec; /* zero: none */
};

typedef void (*session_on_execution)(void *userdata, const struct session_result *result,
                                     const struct execution_record *record);

/*
 * Answered when the execution was accepted (its row is committed). The caller then attaches a
 * reader from sequence 0 before it returns to the loop; if it does not, the execution has no
 * client.
 */
void session_execute(struct session *session, const struct execute_request *request,
                     session_on_execution on_done, void *userdata);

/* @is_kill: SIGKILL at once, else the SIGINT ladder. @cause: CLIENT or OPERATOR. */
void session_interrupt_execution(struct session *session, const char *owner,
                                 const char *execution_id, bool is_kill, enum cause cause,
                                 session_on_execution on_done, void *userdata);
void session_get_execution(struct session *session, const char *owner, const char *execution_id,
                           session_on_execution on_done, void *userdata);

/* Oldest sequence that can be replayed; zero when none can. */
int64_t session_first_sequence(struct session *session, const char *execution_id);

/*
 * Egress: what processes of a sandbox asked the network for, as it was decided. Whoever sees that
 * tells it here.
 */
struct egress_source {
        const char *sandbox_id;  /* NULL or empty: it is known by its cgroup */
        uint64_t cgroup_id;      /* of the sandbox */
        uint64_t leaf_cgroup_id; /* of the process; zero: not known */
        uint64_t number; /* by which it is acknowledged once it is stored; zero: it is not */
        int64_t asked_time_usec;        /* when the process asked; zero: at the event's time */
        const char *owner;              /* of a sandbox that has ended; NULL: not known */
        const struct egress_runs *runs; /* likewise */
};

/*
 * Takes one event. It is stored soon, in the background, under the execution that ran in the leaf
 * when it was asked for; where the leaf is not known, under the only one that ran in the sandbox
 * then, if there is one. A denial, a failure, or a connection that a new policy cut is shown in
 * that execution's stream, unless it has ended. Of
 * @record the ids are not looked at, a time of zero is now, a count of zero is one. Its sequence
 * rises within the sandbox: one that is not above all before it is not shown, one that is stored is
 * not stored again; so what may have been lost on its way can be told again.
 *
 * 0; -EINVAL: it is no event; SESSION_E_SANDBOX_NOT_FOUND: no sandbox has that cgroup;
 * SESSION_E_RUNTIME_UNAVAILABLE: before it is known what lives, to be told again;
 * SESSION_E_SHUTTING_DOWN; SESSION_E_QUEUE_FULL, -ENOMEM: too much waits to be stored, so this is
 * not, though it was shown.
 */
int session_egress_event(struct session *session, const struct egress_source *source,
                         const struct egress_record *record);

/* What the wall refused in a sandbox that lives, as known now. False: it does not live here. */
bool session_find_refusals(struct session *session, const char *sandbox_id,
                           struct egress_refusals *ret_refusals);

/* Events. */
/* The numbers are kept in rings and in the database: never change one. */
enum execution_event_kind {
        EXECUTION_EVENT_QUEUED = 1,
        EXECUTION_EVENT_STARTED,
        EXECUTION_EVENT_STDOUT,
        EXECUTION_EVENT_STDERR,
        EXECUTION_EVENT_RESULT,
        EXECUTION_EVENT_DISPLAY,
        EXECUTION_EVENT_CLEAR_OUTPUT,
        EXECUTION_EVENT_ERROR,
        EXECUTION_EVENT_PART_DATA,
        EXECUTION_EVENT_GAP,
        EXECUTION_EVENT_ENDED,
        EXECUTION_EVENT_EGRESS,
        EXECUTION_EVENT_PRESSURE,
        _EXECUTION_EVENT_KIND_N,
};

/* What is short. The numbers are kept, too. */
enum pressure_kind {
        PRESSURE_MEMORY_LIMIT = 1, /* memory is nearly its limit */
        PRESSURE_MEMORY_STALL, /* programs waited for memory; as all that wait, in thousandths */
        PRESSURE_CPU_STALL,
        PRESSURE_IO_STALL,
        PRESSURE_CPU_THROTTLED, /* the CPU limit was used up */
        PRESSURE_PROCESSES,
        PRESSURE_DISK,
        PRESSURE_INODES,
        _PRESSURE_KIND_N,
};

struct sandbox_pressure {
        enum pressure_kind kind;
        int64_t used;
        int64_t limit;     /* zero: none */
        int64_t time_usec; /* when it was told */
};

/* A piece of bytes in the ring. */
struct bytes {
        const uint8_t *data;
        size_t n;
};

struct event_part {
        const char *type;
        struct bytes data;
        uint64_t size_bytes;
};

/* One event. All pointers are good until the next call on the reader, or until control returns to
 * the loop. */
struct execution_event {
        int64_t sequence;
        int64_t event_time_usec;
        enum execution_event_kind kind;
        union {
                struct {
                        const char *execution_id, *sandbox_id, *context_id;
                        int32_t position;
                } queued;
                struct {
                        int64_t context_generation;
                        int64_t execution_count;
                } started;
                struct {
                        struct bytes data;
                        int64_t offset;
                } chunk; /* STDOUT, STDERR */
                struct {
                        const struct event_part *parts;
                        size_t n_parts;
                        const char *display_id;
                        bool update;
                } bundle; /* RESULT, DISPLAY */
                struct {
                        bool wait;
                } clear_output;
                struct {
                        const char *name;
                        const char *value;
                        char **traceback;
                        size_t n_traceback;
                } error;
                struct {
                        int64_t bundle_sequence;
                        int32_t part_index;
                        int64_t offset;
                        struct bytes data;
                } part_data;
                struct {
                        int64_t events, stdout_bytes, stderr_bytes;
                } gap;
                const struct execution_record *ended;
                struct {
                        const struct egress_record *record;
                        int64_t left_out; /* others before it that are not told */
                } egress;
                struct sandbox_pressure pressure; /* its time is the event's */
        };
};

/* A client of an execution. While one is attached and does not read, the program blocks when the
 * ring is full. */
struct execution_reader;

enum {
        READER_E_WAIT = 1, /* nothing now; on_readable will come */
        READER_E_END,      /* `ended` was read */
        READER_E_CLOSED,   /* the server stops, or the execution was forgotten: no `ended` will come
                            */
};

/* @on_readable: something may be read now (also the end). It is not called from within these
 * functions. */
int execution_reader_new(struct session *session, const char *owner, const char *execution_id,
                         int64_t after_sequence, void (*on_readable)(void *userdata),
                         void *userdata, struct execution_reader **ret_reader,
                         struct session_result *ret_result);

/* Takes the next event: 0 or READER_E_. */
int execution_reader_next(struct execution_reader *reader, struct execution_event *ret_event);

/* Detaches. */
struct execution_reader *execution_reader_free(struct execution_reader *reader);
