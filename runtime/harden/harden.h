/* What a daemon gives up before it hears of anybody: hotcelld and hotcell-egress parse what
 * strangers send. */
#pragma once

/* What one of them calls and the others do not. */
enum harden_need {
        HARDEN_NEEDS_NOTHING,
        HARDEN_NEEDS_BPF_MAPS, /* reading and writing maps that it was given, and nothing else */
};

/*
 * No core dumps, no tracing by others of the same user, no capabilities, no way to gain any, no
 * system calls that this program never makes (no process is ever started, nothing is executed).
 * Before the first thread. Whoever maps libraries later (name service) must have done so before.
 */
int harden_process(enum harden_need need);
