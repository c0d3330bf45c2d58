/*
 * A process that cleans up after another one, however that ends. A test's teardown cannot: Check
 * ends a test at its first failed assertion, without the teardown, and kills one that takes too
 * long.
 */
#pragma once

#include <sys/types.h>

struct janitor {
        pid_t pid; /* 0: none */
        int orders_fd;
};

typedef void janitor_work(const void *data);

/*
 * Once this process is gone, @work is done with what @data is now. To be called before what is to
 * be cleaned away is made. It keeps nothing of this process open. Aborts when it cannot be had.
 */
void janitor_hire(struct janitor *janitor, janitor_work *work, const void *data);

/* The work is done already, or there is none. */
void janitor_dismiss(struct janitor *janitor);
