/*
 * What gRPC calls an error is mostly a peer's fault, so it is a warning here and the rest is for
 * debugging. Strangers cause such lines, so there is a limit on how many they get.
 */
#include "server/rpc/core_log.h"

#include "runtime/base/log.h"

#if HAVE_GPR_SET_LOG_FUNCTION

#include <grpc/support/log.h>
#include <pthread.h>
#include <stdbool.h>
#include <time.h>

enum {
        LINES_A_SECOND = 5,
};

static pthread_mutex_t budget_lock = PTHREAD_MUTEX_INITIALIZER;
static time_t budget_second;
static unsigned budget_used;

static bool budget_take(void)
{
        struct timespec now;
        bool is_left;

        (void)clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
        (void)pthread_mutex_lock(&budget_lock);
        if (now.tv_sec != budget_second) {
                budget_second = now.tv_sec;
                budget_used = 0;
        }
        is_left = budget_used < LINES_A_SECOND;
        budget_used += is_left;
        (void)pthread_mutex_unlock(&budget_lock);
        return is_left;
}

/* Any thread. */
static void on_line(gpr_log_func_args *args)
{
        enum log_level level =
                args->severity == GPR_LOG_SEVERITY_ERROR ? LOG_LEVEL_WARNING : LOG_LEVEL_DEBUG;

        if (log_is_enabled(level) && budget_take())
                log_write(level, "grpc says message=\"%s\"", args->message);
}

void core_log_route(void)
{
        gpr_set_log_function(on_line);
        gpr_set_log_verbosity(log_is_enabled(LOG_LEVEL_DEBUG) ? GPR_LOG_SEVERITY_INFO
                                                              : GPR_LOG_SEVERITY_ERROR);
}

#else

void core_log_route(void)
{
}

#endif
