/* Events as text: output as it is, results like at an interactive prompt, errors as tracebacks. */
#pragma once

#include <stdint.h>

#include "cli/escape.h"
#include "cli/print_events.h"

struct text_printer {
        struct event_printer_config config;
        /* The last thing on the line was no newline, so a result begins a new one. */
        bool is_out_mid_line;
        bool is_err_mid_line;
        unsigned pressures; /* BIT()s of the kinds that were said: once of each is enough */
        /* A text/plain part whose rest is still to come. */
        struct {
                bool is_open;
                int64_t sequence;
                int32_t index;
                int64_t left;
                struct escaper escaper;
        } part;
};

void text_printer_init(struct text_printer *printer, const struct event_printer_config *config);
void text_printer_event(struct text_printer *printer,
                        const struct Hotcell__V1__ExecutionEvent *event);
void text_printer_finish(struct text_printer *printer);
