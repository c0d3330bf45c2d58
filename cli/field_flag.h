/* What a field of a request is called on the command line. */
#pragma once

#include <stddef.h>

/* How the rules of the policy that is sent were written, in its order: `--allow 'b.org:0'`. Takes
 * them. */
void field_flag_set_rules(char **texts, size_t n);

/*
 * The option or operand that sets the field at @path, as `--memory` for `spec.limits.memory_bytes`,
 * for a part of a rule with its value; NULL when no command sets it.
 */
const char *field_flag(const char *path);

/* What of a rule is meant: between its flag and a sentence about it; empty for other fields. */
const char *field_subject(const char *path);

/* @text, short, with the flags in place of fields of a sandbox's limits. On the heap. */
char *field_flags_in(const char *text);
