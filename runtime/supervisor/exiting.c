#include "runtime/supervisor/exiting.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"

enum {
        FLAG_EXITING = 0x4, /* PF_EXITING of the kernel: proc_pid_stat(5) shows all its flags */
        WORDS_BEFORE_FLAGS =
                7, /* behind the name: state, parent, group, session, terminal, its group */
        STAT_BUFFER = 512,
};

bool stat_says_exiting(const char *text)
{
        const char *word = strrchr(text, ')'); /* its name may hold anything */
        char *end;
        unsigned long flags;

        for (unsigned i = 0; word && i < WORDS_BEFORE_FLAGS; i++) {
                word = strchr(word, ' ');
                if (word)
                        word++;
        }
        if (!word)
                return false;
        flags = strtoul(word, &end, 10);
        return end != word && *end == ' ' && (flags & FLAG_EXITING);
}

bool pid_is_exiting(pid_t pid)
{
        _cleanup_(closep) int fd = -1;
        char path[32];
        char text[STAT_BUFFER];
        ssize_t n;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
        fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return false;
        n = read(fd, text, sizeof(text) - 1);
        if (n < 0)
                return false;
        text[n] = '\0';
        return stat_says_exiting(text);
}
