/* Times for people: `3m ago`, `in 2h`. */
#pragma once

#include <stdint.h>

struct Google__Protobuf__Timestamp;

enum { AGE_SIZE = 32 };

/* `3m`. */
const char *age_span(int64_t seconds, char ret_text[static AGE_SIZE]);

/* `-` when there is no time. */
const char *age_since(const struct Google__Protobuf__Timestamp *time,
                      char ret_text[static AGE_SIZE]);

/* `never` when there is no time. */
const char *age_until(const struct Google__Protobuf__Timestamp *time,
                      char ret_text[static AGE_SIZE]);
