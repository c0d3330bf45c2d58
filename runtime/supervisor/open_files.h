/* Limits on open files of programs that live; whoever is started later begins with its own. */
#pragma once

#include <stdint.h>

#include "runtime/supervisor/reaper.h"

struct sandbox;

/* Begins to set the soft limits of all that have @from, or more than @to. With 0, @child->pid is to
 * be watched: open_files_result() says what its status means. */
int open_files_begin(const struct sandbox *sandbox, uint32_t from, uint32_t to,
                     struct child *child);

/* 0, -EAGAIN: programs change theirs faster than it can be set, or another error. */
int open_files_result(int status);
