/* Whether a process is on its way out. */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

/* It exits, or has and was not reaped yet. @pid is a child that was not reaped. */
bool pid_is_exiting(pid_t pid);

/* The same of the text of its /proc/PID/stat; what is no such text says no. */
bool stat_says_exiting(const char *text);
