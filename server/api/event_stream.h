/* The stream of an execution's events on a call: Execute and AttachExecution have the same
 * messages. */
#pragma once

#include <stdint.h>

struct api_call;

/*
 * Attaches a reader to the execution and streams from after @after_sequence until `ended`; the call
 * is over then. When it cannot be attached the call is answered with why.
 */
void event_stream_start(struct api_call *call, const char *execution_id, int64_t after_sequence);
