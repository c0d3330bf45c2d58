/* What a field of a request is called on the command line. */
#pragma once

/* The option or operand that sets the field at @path, as `--memory` for
 * `spec.limits.memory_bytes`; NULL when no command sets it. */
const char *field_flag(const char *path);

/* @text, short, with the flags in place of fields of a sandbox's limits. On the heap. */
char *field_flags_in(const char *text);
