/*
 * Records as messages of the public API. Messages live in the arena, but their strings may point
 * into the records: pack before those change. A NULL is an absent field, or a failed arena (checked
 * once, when packing).
 */
#pragma once

#include <stdint.h>

#include "hotcell/v1/egress.pb-c.h"
#include "hotcell/v1/execution_service.pb-c.h"
#include "hotcell/v1/key_service.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"
#include "hotcell/v1/usage_service.pb-c.h"
#include "server/api/arena.h"
#include "server/session/session.h"
#include "server/store/records.h"

/* Zero is absent. */
/* Always present, as the others. */
Google__Protobuf__Duration *convert_duration(struct arena *arena, int64_t duration_usec);
Google__Protobuf__Timestamp *convert_time(struct arena *arena, int64_t time_usec);

Hotcell__V1__SandboxLimits *convert_sandbox_limits(struct arena *arena,
                                                   const struct sandbox_limits *limits);

/* For lists: without the rules of its egress policy, which records there lack. */
Hotcell__V1__Sandbox *convert_sandbox(struct arena *arena, const struct sandbox_record *record);

/* With its egress policy, while it lives. */
Hotcell__V1__Sandbox *convert_whole_sandbox(struct arena *arena,
                                            const struct sandbox_record *record);

/* NULL is the default policy. */
Hotcell__V1__EgressPolicy *convert_egress(struct arena *arena, const struct egress *egress);

/* @is_whole: the record has its policy; else the version only. */
Hotcell__V1__EgressStatus *
convert_egress_status(struct arena *arena, const struct sandbox_record *record, bool is_whole);
/* NULL: they are not known. */
Hotcell__V1__EgressRefusals *convert_refusals(struct arena *arena,
                                              const struct egress_refusals *refusals);

/* The names of the fields of Usage that are in BIT(enum usage_part)s. */
char **convert_missing(struct arena *arena, unsigned missing, size_t *ret_n);

/* Of each field that misses in @sums, which may be NULL: in how many records. */
Hotcell__V1__UsageGap **convert_gaps(struct arena *arena, const struct usage_gaps *gaps,
                                     const Hotcell__V1__Usage *sums, size_t *ret_n);

/* What is missing in it is named. */
Hotcell__V1__Usage *convert_usage(struct arena *arena, const struct usage *usage);

/* NULL, too, where nothing was measured. */
Hotcell__V1__SandboxUsage *convert_sandbox_usage(struct arena *arena,
                                                 const struct sandbox_usage *usage);
Hotcell__V1__Pressure *convert_pressure(struct arena *arena,
                                        const struct sandbox_pressure *pressure);
Hotcell__V1__Context *convert_context(struct arena *arena, const struct context_view *view);
Hotcell__V1__Ended *convert_ended(struct arena *arena, const struct execution_record *record);

/* @first_sequence: the oldest that can be replayed, or zero. */
Hotcell__V1__Execution *convert_execution(struct arena *arena,
                                          const struct execution_record *record,
                                          int64_t first_sequence);

/* @left_out: how many others before it are not told. */
Hotcell__V1__EgressEvent *
convert_egress_event(struct arena *arena, const struct egress_record *record, int64_t left_out);
Hotcell__V1__Key *convert_key(struct arena *arena, const struct session *session,
                              const struct key_record *record);
