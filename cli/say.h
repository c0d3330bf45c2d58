/* What the tool itself says: on standard error, each line as `hotcell: …`, safe for a terminal. */
#pragma once

#include <stdbool.h>

__attribute__((format(printf, 1, 2))) void say(const char *format, ...);

/* `hotcell: @what: …`, as for a command's usage; @what may be empty. */
__attribute__((format(printf, 2, 3))) void say_of(const char *what, const char *format, ...);

/* Standard error is a terminal. */
bool say_is_terminal(void);
