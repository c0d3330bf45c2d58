#include "cli/spinner.h"

#include <stdio.h>

#include "cli/say.h"
#include "runtime/base/clock.h"
#include "runtime/base/macros.h"

enum {
        PATIENCE_MSEC = 1000,
        FRAME_MSEC = 120,
};

void spinner_start(struct spinner *spinner, bool is_allowed)
{
        *spinner = (struct spinner){
                .is_wanted = is_allowed && say_is_terminal(),
                .start_msec = (int64_t)clock_monotonic_msec(),
        };
}

int64_t spinner_due_msec(const struct spinner *spinner)
{
        int64_t passed;

        if (!spinner->is_wanted)
                return -1;
        if (spinner->is_drawn)
                return FRAME_MSEC;
        passed = (int64_t)clock_monotonic_msec() - spinner->start_msec;
        return MAX(PATIENCE_MSEC - passed, 0);
}

void spinner_draw(struct spinner *spinner, const char *what)
{
        static const char frames[] = "|/-\\";
        int64_t passed = (int64_t)clock_monotonic_msec() - spinner->start_msec;

        if (!spinner->is_wanted || passed < PATIENCE_MSEC)
                return;
        (void)fprintf(stderr, "\r\033[K%c %s, %lld s", frames[spinner->frame++ % 4], what,
                      (long long)passed / 1000);
        spinner->is_drawn = true;
}

void spinner_erase(struct spinner *spinner)
{
        if (spinner->is_drawn)
                (void)fputs("\r\033[K", stderr);
        spinner->is_drawn = false;
}

void spinner_stop(struct spinner *spinner)
{
        spinner_erase(spinner);
        spinner->is_wanted = false;
}
