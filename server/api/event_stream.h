/* The stream of an execution's events on a call: Execute and AttachExecution have the same
 * messages. */
#pragma once

#include <stdint.h>

struct api_call;
struct execution_record;

/*
 * Attaches a reader to the execution and streams from after @after_sequence until `ended`; the call
 * is over then. When it cannot be attached the call is answered with why.
 */
void event_stream_start(struct api_call *call, const char *execution_id, int64_t after_sequence);

/* Streams what is known of an ended execution whose events are not retained any more: `queued`, a
 * `gap` for all that was between, `ended`. */
void event_stream_tell_end(struct api_call *call, const struct execution_record *record);
