#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sysexits.h>
#include <unistd.h>

#include "runtime/base/log.h"
#include "runtime/supervisor/doctor.h"
#include "runtime/supervisor/host_privilege.h"
#include "runtime/supervisor/options.h"
#include "runtime/supervisor/supervisor.h"

/* Before anything is opened: what the parent left behind must not reach a child. */
static int prepare_process(void)
{
        (void)umask(077);
        if (close_range(STDERR_FILENO + 1, ~0U, 0) < 0)
                return -errno;
        if (prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0)
                return -errno;
        return host_privilege_limit();
}

/* A probe must not disturb an instance that runs, so it has a directory of its own. */
static int run_probe(const struct options *given)
{
        char run_dir[] = "/run/hotcell-probe-XXXXXX";
        struct options options = *given;
        struct supervisor supervisor;
        int exit_code = EX_OSERR;
        int r;

        if (!mkdtemp(run_dir)) {
                log_error("cannot make a directory: path=%s error=%s", run_dir,
                          strerrorname_np(errno));
                return EX_OSERR;
        }
        options.run_dir = run_dir;
        options.netns_pool = 0;
        r = supervisor_init(&supervisor, &options);
        if (!r) {
                if (options.mode == OPTIONS_PROBE_JSON)
                        (void)doctor_print_json(stdout, &supervisor.walls);
                else
                        doctor_print_text(stdout, &supervisor.walls);
                exit_code = walls_missing(&supervisor.walls) ? EXIT_FAILURE : EXIT_SUCCESS;
        } else {
                log_error("cannot probe: error=%s", strerrorname_np(abs(r)));
        }
        supervisor_deinit(&supervisor);
        (void)rmdir(run_dir);
        return exit_code;
}

static int run_daemon(const struct options *options)
{
        struct supervisor supervisor;
        int exit_code;
        int r = supervisor_init(&supervisor, options);

        if (!r)
                r = supervisor_run(&supervisor);
        if (r == SUPERVISOR_E_IN_USE)
                log_error("another hotcell-runtime uses the run directory: run_dir=%s",
                          options->run_dir);
        else if (r < 0)
                log_error("giving up: error=%s (%s)", strerrorname_np(-r), strerrordesc_np(-r));
        exit_code = r == 0 ? supervisor.exit_code : r > 0 ? EX_CONFIG : EX_OSERR;
        supervisor_deinit(&supervisor);
        if (r == 0)
                log_info("stopped: exit_code=%d", exit_code);
        return exit_code;
}

int main(int argc, char *argv[])
{
        struct options options;
        int r = options_parse(argc, argv, &options);

        if (r)
                return r == OPTIONS_E_DONE ? EXIT_SUCCESS : EX_USAGE;
        log_init("hotcell-runtime", options.log_level);
        if (geteuid() != 0) {
                log_error("must be started as root");
                return EX_NOPERM;
        }
        r = prepare_process();
        if (r) {
                log_error("cannot prepare the process: error=%s", strerrorname_np(-r));
                return EX_OSERR;
        }
        return options.mode == OPTIONS_RUN ? run_daemon(&options) : run_probe(&options);
}
