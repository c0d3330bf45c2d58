/* Times for people: `3m ago`, `in 2h`. */
#pragma once

struct Google__Protobuf__Timestamp;

enum { AGE_SIZE = 32 };

/* `-` when there is no time. */
const char *age_since(const struct Google__Protobuf__Timestamp *time,
                      char ret_text[static AGE_SIZE]);

/* `never` when there is no time. */
const char *age_until(const struct Google__Protobuf__Timestamp *time,
                      char ret_text[static AGE_SIZE]);
