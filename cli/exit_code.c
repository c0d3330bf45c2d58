#include "cli/exit_code.h"

#include <stdint.h>

#include "hotcell/v1/execution.pb-c.h"

/* _exit() keeps eight bits: what would look like success must not. */
static int code_of_exit(const Hotcell__V1__Ended *ended)
{
        int32_t code;

        if (ended->_exit_code_case != HOTCELL__V1__ENDED___EXIT_CODE_EXIT_CODE)
                return EXIT_OURS;
        code = ended->exit_code;
        if (code >= 0 && code <= 255)
                return code;
        return (code & 0xff) ? code & 0xff : EXIT_OURS;
}

static int code_of_signal(const Hotcell__V1__Ended *ended)
{
        if (ended->signal <= 0 || ended->signal > 127)
                return EXIT_OURS;
        return EXIT_SIGNAL_BASE + ended->signal;
}

int exit_code_of(const Hotcell__V1__Ended *ended)
{
        switch ((int)ended->outcome) {
        case HOTCELL__V1__OUTCOME__OUTCOME_OK:
                return 0;
        case HOTCELL__V1__OUTCOME__OUTCOME_RAISED:
                return EXIT_RAISED;
        case HOTCELL__V1__OUTCOME__OUTCOME_EXITED:
                return code_of_exit(ended);
        case HOTCELL__V1__OUTCOME__OUTCOME_SIGNALLED:
                return code_of_signal(ended);
        case HOTCELL__V1__OUTCOME__OUTCOME_TIMEOUT:
                return EXIT_TIMED_OUT;
        case HOTCELL__V1__OUTCOME__OUTCOME_OOM:
        case HOTCELL__V1__OUTCOME__OUTCOME_OUTPUT_LIMIT:
        case HOTCELL__V1__OUTCOME__OUTCOME_KILLED:
                return EXIT_KILLED;
        case HOTCELL__V1__OUTCOME__OUTCOME_INTERRUPTED:
                return EXIT_INTERRUPTED;
        default: /* NOT_STARTED, SANDBOX_ENDED, LOST, and those of later servers */
                return EXIT_OURS;
        }
}
