/*
 * Shows the events of an execution: as a program's output would look, or as JSON.
 *
 * As text, what the program wrote goes through byte for byte, as if it ran here. Results, errors
 * and names are made safe for a terminal, since it is the tool that prints them.
 */
#pragma once

#include <stdbool.h>
#include <stdio.h>

#include "runtime/base/cleanup.h"

struct Hotcell__V1__ExecutionEvent;
struct event_printer;

enum output_format {
        OUTPUT_TEXT,
        OUTPUT_JSON,  /* one object at the end */
        OUTPUT_JSONL, /* one line an event, as it comes */
};

struct event_printer_config {
        enum output_format format;
        const char *save_directory; /* or NULL */
        bool shows_usage;
        bool is_one_shot; /* its sandbox is gone with it */
        bool escapes_out; /* @out is a terminal */
        bool escapes_err;
        FILE *out;
        FILE *err;
};

/* The exit code when the directory cannot be used, which was said. */
int event_printer_new(const struct event_printer_config *config,
                      struct event_printer **ret_printer);
struct event_printer *event_printer_free(struct event_printer *printer);

void event_printer_event(struct event_printer *printer,
                         const struct Hotcell__V1__ExecutionEvent *event);

/* No more events come. */
void event_printer_finish(struct event_printer *printer, int exit_code);

/* Nobody reads the output any more. */
bool event_printer_is_broken(const struct event_printer *printer);

DEFINE_CLEANUP(struct event_printer, event_printer_free)
