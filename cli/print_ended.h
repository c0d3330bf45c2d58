/* How a run ended and what it used, in words, on standard error. */
#pragma once

#include <stdbool.h>

struct Hotcell__V1__Ended;
struct Hotcell__V1__Usage;

/* Nothing for what the program itself showed or chose: its end, its error, its exit code.
 * That variables are lost matters only where somebody could have used them: not in a one-shot. */
void print_ended(const struct Hotcell__V1__Ended *ended, bool is_one_shot);

void print_usage(const char *of, const struct Hotcell__V1__Usage *usage);

/* That field of it is not named as missing. */
bool is_measured(const struct Hotcell__V1__Usage *usage, const char *field);

/* `at least ` before a figure of which only a part was measured, else nothing. */
const char *show_least(const struct Hotcell__V1__Usage *usage, const char *field);

/* `512.0 MiB`; the text is good until the next call but seven. */
const char *show_bytes(long long n_bytes);
