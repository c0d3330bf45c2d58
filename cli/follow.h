/*
 * Follows one execution from its first event to `ended`, through signals and lost connections.
 *
 *   SIGINT            interrupts the code, the second time kills it, the third time just leaves
 *   SIGTERM, SIGHUP   end the code (kill a one-shot, interrupt in a sandbox that stays) and leave
 *   no connection     attaches again after the last event seen, or executes again with the same
 *                     request_id, for up to 30 s
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct Hotcell__V1__ExecuteRequest;
struct client;
struct event_printer;

struct follow_config {
        struct client *client;
        struct event_printer *printer;
        bool is_one_shot;      /* nobody else has a use for its sandbox */
        bool is_only_watching; /* signals leave, and touch nothing */
        bool is_detached;      /* leave once it is queued */
        bool prints_id;        /* then, on standard output */
        bool shows_progress;
        bool shows_sandbox_usage;
        int64_t until_sequence; /* leave after this event; 0: at the end */
};

/* Both return the exit code: the program's, or EXIT_OURS after saying why. @request gets a
 * request_id. */
int follow_execute(const struct follow_config *config, struct Hotcell__V1__ExecuteRequest *request);
int follow_attach(const struct follow_config *config, const char *execution_id,
                  int64_t after_sequence);
