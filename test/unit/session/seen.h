/* What readers of executions saw. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "server/session/session.h"

/* What a reader saw, as text: `queued started stdout:abc result:text/plain=2 ended`. */
struct seen {
        char text[16384];
        size_t n_text;
        int64_t stdout_bytes;
        int64_t stderr_bytes;
        int64_t part_bytes;
        int64_t gap_events;
        int64_t gap_stdout_bytes;
        int64_t last_sequence;
        int64_t n_events;
        int64_t n_egress;            /* denials and failures, all that they stand for */
        struct egress_record egress; /* the last of them */
        bool is_over;                /* `ended` was read, or it was closed */
        bool is_closed;
        struct execution_record ended;
        struct execution_reader *reader;
        bool is_paused; /* does not read */
};

void attach(const char *execution_id, int64_t after_sequence, struct seen *seen);
void detach(struct seen *seen);
void wait_for_end(struct seen *seen);
void wait_for_text(struct seen *seen, const char *text);
void read_all(struct seen *seen);
void see(struct seen *seen, const struct execution_event *event); /* one that was read */
