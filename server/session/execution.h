/*
 * One execution: its machine, its output and its readers. Its context decides when it runs and
 * feeds it what the kernel says.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/queue.h>

#include <systemd/sd-event.h>

#include "server/session/channel.h"
#include "server/session/egress.h"
#include "server/session/kept_request.h"
#include "server/session/kernel_end.h"
#include "server/session/map.h"
#include "server/session/meters.h"
#include "server/session/outcome.h"
#include "server/session/ring.h"
#include "server/session/session.h"

struct context;
struct journal;

/*
 *   ACCEPTING --row committed--> QUEUED --EXECUTE sent--> RUNNING --over--> CLOSING --row--> ENDED
 *       |                          `------- never ran ----------------------^
 *       `--row refused: forgotten
 */
enum execution_phase {
        PHASE_ACCEPTING, /* its row is being inserted; it may already be its context's current one
                          */
        PHASE_QUEUED,    /* waits for its turn, its interpreter or the first reading of the meter */
        PHASE_RUNNING,   /* owns the wall timer and, when it was stopped, the ladder */
        PHASE_CLOSING,   /* left its context; the last reading and its row are under way */
        PHASE_ENDED,     /* immutable; replayable until it is forgotten */
        _EXECUTION_PHASE_N,
};

enum {
        ROW_TRIES = 5, /* to record an end */
        ROW_RETRY_USEC = 1000 * 1000,
        OUTPUT_KEPT_MAX = 4 << 20, /* bytes of output that go into the database with the end */
};

/* Why and how it was asked to end. */
struct execution_stop {
        enum outcome outcome; /* OUTCOME_NONE: it was not */
        enum cause cause;
        bool is_killed; /* SIGKILL was sent */
};

/* Of its leaf, while its sandbox is billed. */
enum execution_reading {
        READING_NONE = 0,
        READING_ASKED,
        READING_TAKEN,
};

struct execution {
        struct map_node by_id;                         /* in session's map, by execution_id */
        TAILQ_ENTRY(execution) queue_link;             /* in its context's queue */
        TAILQ_ENTRY(execution) retained_link;          /* once ended, oldest first */
        TAILQ_ENTRY(execution) retained_of_owner_link; /* likewise, in its holder's */
        struct share_owner *holder;                    /* once ended: whose share its ring is of */
        struct session *session;
        struct context *context; /* NULL from CLOSING on */
        struct execution_record record;
        enum execution_phase phase;
        unsigned n_pending; /* answers that will still come */
        bool is_in_queue;
        unsigned n_prepared; /* interpreters that were ready for it */
        bool is_abandoned;   /* its row was refused: freed with the last answer */

        /* What was asked. */
        struct request_record *request; /* until its row was sent; may be NULL */
        struct kept_request kept;       /* until it was sent */
        size_t n_request; /* bytes of code and environment, as they count in the sandbox's
                             waiting_bytes */
        bool goes_on_without_client;
        bool truncate_output;
        bool ends_sandbox;
        int64_t disconnect_grace_usec;
        int64_t queue_timeout_usec;
        session_on_execution on_accepted;
        void *on_accepted_userdata;

        /* Timers; NULL: not set. */
        sd_event_source *queue_timer;
        sd_event_source *wall_timer;
        sd_event_source *ladder_timer;
        sd_event_source *grace_timer;
        sd_event_source *egress_timer;

        /* Meter. */
        char process_id[ID_BUFFER]; /* whose leaf it runs in */
        bool is_metered;            /* the first reading is there */
        unsigned n_meter_pending;   /* first readings under way; the last one counts */
        bool has_usage;             /* the last reading is there */
        unsigned n_row_tries;
        bool is_row_running;       /* the row says that it runs */
        struct usage usage_before; /* of its leaf, by the first reading */
        bool is_unbilled;          /* that is there, and its row is not */
        LIST_ENTRY(execution) unbilled_link;
        enum execution_reading reading;
        struct usage usage_so_far; /* by the last one that was taken */
        uint64_t n_asked_before;   /* of the network, in its whole sandbox; zero: not known */
        uint64_t start_monotonic_usec;
        struct usage_now now; /* of its leaf */

        /* How it goes. */
        uint32_t number; /* of its frames */
        int64_t position;
        struct execution_stop stop;
        enum run_end end; /* once it is over */
        unsigned ladder_step;
        bool has_started;      /* the kernel has taken the code: SIGINT will reach it */
        bool is_interrupt_due; /* as soon as it has */

        /* Output. */
        struct ring *ring;       /* the journal's while it has one */
        struct journal *journal; /* of the kernel that it ran in, from RUNNING to ENDED */
        int journal_ring;        /* which of the journal's */
        bool is_detached;        /* no client and none is waited for: the oldest output may go */
        bool is_discarding;      /* it was asked to end: what finds no room is thrown away */
        bool is_cut;             /* output was thrown away: all that follows is, too */
        int64_t bundle_sequence; /* of the last bundle, zero when it is not in the ring */
        struct execution_egress egress;
        int64_t n_pressures; /* that were told */
        LIST_HEAD(, execution_reader) readers;
        size_t n_readers;
        bool is_wake_pending;
        LIST_ENTRY(execution) wake_link;
};

TAILQ_HEAD(execution_queue, execution);

/*
 * What of an execution that runs or closes outlives the server, apart from its ring; the rest is in
 * its row or is found out anew. Copied as it is: it has no pointers.
 */
struct execution_saved {
        struct execution_record record;
        enum execution_phase phase;
        bool goes_on_without_client;
        bool truncate_output;
        int64_t disconnect_grace_usec;
        bool has_usage;
        struct usage usage_before;
        bool is_unbilled; /* that is there */
        uint64_t n_asked_before;
        uint64_t start_monotonic_usec;
        uint32_t number;
        struct execution_stop stop;
        enum run_end end;
        unsigned ladder_step;
        bool has_started;
        bool is_interrupt_due;
        bool is_discarding;
        bool is_cut;
        int64_t bundle_sequence;
        struct execution_egress egress;
};

void execution_save(const struct execution *execution, struct execution_saved *ret_saved);

/* One that a predecessor had saved; its ring is @journal's of that number. It belongs to @context,
 * whose current one it becomes while it runs; nothing of it moves before execution_go_on. */
int execution_restore(struct context *context, const struct execution_saved *saved,
                      struct journal *journal, int ring, struct execution **ret_execution);

/* One that a predecessor had accepted and not begun, from its row and what was kept with it. */
int execution_requeue(struct context *context, const struct execution_record *record,
                      const void *kept, size_t n_kept, struct execution **ret_execution);

/* Its clients, timers and signals again; a closing one is recorded. */
void execution_go_on(struct execution *execution);

/* Makes one from a checked request, with its id and its ring. */
int execution_new(struct context *context, const struct execute_request *request,
                  struct execution **ret_execution);
struct execution *execution_free(struct execution *execution);

/* Bytes of code and environment: about what is kept of a request while it waits. */
size_t execute_request_size(const struct execute_request *request);

/* Inserts its row; then it is queued and on_accepted is called. */
void execution_accept(struct execution *execution);

/* Gives one up that was not accepted: answers on_accepted, and frees it sooner or later. */
void execution_refuse(struct execution *execution, const struct session_result *result);

/* Its turn: reads the meter; the context is told by context_on_metered. */
void execution_prepare(struct execution *execution, const char *process_id);

/* True: its row is committed and the meter was read. */
bool execution_is_prepared(const struct execution *execution);

/* The interpreter it was prepared for is gone. */
void execution_unprepare(struct execution *execution);

/* Sends the code to the kernel of @journal, which has a free ring. */
int execution_run(struct execution *execution, struct channel *channel, struct journal *journal);

/* Asks it to end; the first reason stays. One that does not run yet ends as NOT_STARTED. */
void execution_stop(struct execution *execution, enum outcome outcome, enum cause cause,
                    bool is_kill);

/* Ends one that never ran. */
void execution_cancel(struct execution *execution, enum cause cause, const char *message);

/* Ends one whose row is still being inserted, as soon as that is done. */
void execution_doom(struct execution *execution, enum cause cause, const char *message);

/* Its sandbox ends: no signals, the runtime kills everything. */
void execution_sandbox_ends(struct execution *execution, enum cause cause);

/* The last reading of its leaf. */
void execution_take_meters(struct execution *execution, const Hotcell__Runtime__V1__Usage *meters);

/* Its kernel's process is gone and all output was taken. */
void execution_kernel_over(struct execution *execution, const struct kernel_end *end);

/* Output, as the channel's observer. */
int execution_take(struct execution *execution, enum channel_stream stream, int fd, size_t limit,
                   size_t *ret_n);
bool execution_has_room(struct execution *execution, size_t n_payload);
void execution_on_frame(struct execution *execution, const struct kernel_frame *frame,
                        bool is_too_large);

/* Parts of the above that have files of their own. */
/* @n_payload bytes and what the end needs fit, after evicting what may go. */
bool execution_make_room(struct execution *execution, size_t n_payload);
/* @tag: what it was made of, as in struct ring_entry; what is recorded already is left out. */
void execution_append(struct execution *execution, enum execution_event_kind kind, uint64_t tag,
                      const struct ring_piece *pieces, size_t n_pieces);
void execution_append_queued(struct execution *execution);
void execution_record_end(struct execution *execution);
void execution_climb_again(struct execution *execution);
int execution_make_ring(struct execution *execution);
void execution_count_request(struct execution *execution, size_t n);
int execution_arm_wall(struct execution *execution);
void execution_arm_queue(struct execution *execution);
void execution_start_discarding(struct execution *execution);
void execution_resume(struct execution *execution);
void execution_on_output_frame(struct execution *execution, const struct kernel_frame *frame,
                               bool is_too_large);
/* A client came or left. */
void execution_on_readers_changed(struct execution *execution);
/* A predecessor's: its clients did not leave but were cut off. */
void execution_await_readers(struct execution *execution);
void execution_wake_readers(struct execution *execution);
void execution_drop_request(struct execution *execution);
void execution_drop_timers(struct execution *execution);
void execution_on_done(struct execution *execution, const Hotcell__Sandbox__V1__Done *done);
bool execution_is_over(const struct execution *execution);
void execution_enter(struct execution *execution, enum execution_phase next);
bool execution_is_blocked(const struct execution *execution);

/* Where STARTED, QUEUED and PART_DATA records keep what is not in a frame. */
struct queued_payload {
        int64_t position;
};
struct started_payload {
        int64_t generation;
        int64_t count;
};
struct part_data_payload {
        int64_t bundle_sequence; /* the frame's payload follows */
};

/* A reader (reader.c). */
struct execution_reader {
        LIST_ENTRY(execution_reader) link; /* in the execution */
        LIST_ENTRY(execution_reader) wake_link;
        struct session *session;
        struct execution *execution; /* NULL: it was forgotten */
        struct sandbox *sandbox;     /* whose idle time it holds up; NULL once that ended */
        LIST_ENTRY(execution_reader) sandbox_link;
        int64_t next_sequence; /* the next to be read; a gap when it is older than the ring */
        uint64_t position;     /* in the ring, good when next_sequence is in it */
        bool has_position;
        bool has_ended; /* `ended` was read */
        bool is_waiting;
        bool is_wake_pending;
        void (*on_readable)(void *userdata);
        void *userdata;
        ProtobufCMessage *message; /* of the event read last */
        struct event_part parts[KERNEL_PARTS_MAX];
        struct egress_record egress; /* likewise */
};

void execution_reader_wake(struct execution_reader *reader);

/* Its execution is forgotten. */
void execution_reader_orphan(struct execution_reader *reader);
