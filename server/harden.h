/* What hotcelld gives up before it hears of anybody: it parses what strangers send. */
#pragma once

/*
 * No core dumps, no tracing by others of the same user, no capabilities, no way to gain any, no
 * system calls that this program never makes (no process is ever started, nothing is executed).
 * Before the first thread. Whoever maps libraries later (name service) must have done so before.
 */
int harden_process(void);
