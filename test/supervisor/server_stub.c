/*
 * What the runtime supervises in tests, in hotcelld's place: server_stub FILE WHAT. Appends a line
 * about itself to FILE, then does WHAT: `stay` (until SIGTERM), `crash`, or an exit code.
 */

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static int count_fds(void)
{
        DIR *dir = opendir("/proc/self/fd");
        int n = -1; /* the directory's own */

        if (!dir)
                return -1;
        for (struct dirent *entry = readdir(dir); entry; entry = readdir(dir))
                n += entry->d_name[0] != '.';
        (void)closedir(dir);
        return n;
}

/* `CapBnd:\t000…` becomes `CapBnd=000…` */
static void report_status(FILE *report)
{
        static const char *const names[] = { "CapEff", "CapPrm", "CapBnd", "NoNewPrivs", "Groups" };
        FILE *status = fopen("/proc/self/status", "re");
        char line[256];

        while (status && fgets(line, sizeof(line), status))
                for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
                        if (strncmp(line, names[i], strlen(names[i])) == 0)
                                (void)fprintf(report, "%s=%.*s ", names[i],
                                              (int)strcspn(line + strlen(names[i]) + 2, " \n"),
                                              line + strlen(names[i]) + 2);
        if (status)
                (void)fclose(status);
}

int main(int argc, char *argv[])
{
        FILE *report;
        sigset_t blocked;

        if (argc != 3)
                return 2;
        (void)sigprocmask(SIG_SETMASK, NULL, &blocked);
        report = fopen(argv[1], "ae");
        if (!report)
                return 3;
        report_status(report);
        (void)fprintf(report, "uid=%u gid=%u fds=%d blocked=%d secret=%s\n", getuid(), getgid(),
                      count_fds() - 1, sigismember(&blocked, SIGTERM),
                      getenv("SECRET") ? "seen" : "none");
        (void)fclose(report);
        if (strcmp(argv[2], "stay") == 0)
                for (;;)
                        (void)pause();
        if (strcmp(argv[2], "crash") == 0)
                (void)raise(SIGKILL);
        return atoi(argv[2]);
}
