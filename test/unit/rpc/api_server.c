/* The test server as a program, for clients in other languages: api_server PATH; ends on SIGTERM.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#include "server/api/health.h"
#include "test/unit/rpc/harness.h"

static void serve(struct harness *harness)
{
        health_set(harness->health, true);
}

int main(int argc, char **argv)
{
        static struct harness harness;
        sigset_t signals;
        int signal;

        if (argc != 2)
                return 2;
        (void)sigemptyset(&signals);
        (void)sigaddset(&signals, SIGTERM);
        (void)sigaddset(&signals, SIGINT);
        (void)sigprocmask(SIG_BLOCK, &signals, NULL);

        harness_init(&harness);
        harness_start(&harness, argv[1], true);
        harness_run(&harness, serve);
        (void)printf("127.0.0.1:%u\n", harness.port);
        (void)fflush(stdout);
        (void)sigwait(&signals, &signal);
        harness_begin_stop(&harness, 2000000);
        harness_stop(&harness);
        return EXIT_SUCCESS;
}
