/* What the process exits with; scripts depend on it. */
#pragma once

struct Hotcell__V1__Ended;

enum {
        EXIT_RAISED = 1,      /* the code raised an error */
        EXIT_TIMED_OUT = 124, /* as timeout(1) */
        EXIT_OURS = 125,      /* not the program's: bad usage, a refused request, a lost outcome */
        EXIT_INTERRUPTED = 130, /* as a shell's after SIGINT */
        EXIT_KILLED = 137,      /* OOM or killed, as a shell's after SIGKILL */
        EXIT_SIGNAL_BASE = 128, /* plus the signal */
};

/* The exit code that says how a run ended. What this client does not know is a failure of ours. */
int exit_code_of(const struct Hotcell__V1__Ended *ended);
