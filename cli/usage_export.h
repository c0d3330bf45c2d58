/*
 * Records of the ledger for other programs: as CSV (RFC 4180) with a header, or as JSON lines with
 * the same names. Durations are whole microseconds (`_usec`), times RFC 3339. There is nothing in
 * them that users chose: ids, owners, names of enums and numbers only.
 */
#pragma once

#include <stdio.h>

#include "hotcell/v1/usage_service.pb-c.h"

enum usage_format { USAGE_FORMAT_CSV = 0, USAGE_FORMAT_JSONL };

/* The names of what could not be measured. The caller frees. */
char *usage_missing_text(const Hotcell__V1__Usage *usage);

/* Nothing for JSON. */
void usage_export_head(FILE *out, enum usage_format format);
void usage_export_record(FILE *out, enum usage_format format,
                         const Hotcell__V1__UsageRecord *record);
