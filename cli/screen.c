/*
 * Plain control sequences that every terminal of the last decades obeys: what is drawn are whole
 * lines from the top. ncurses would take signals over and wait for keys itself, which the client
 * does for us together with messages.
 *
 * Keys come from a descriptor of our own, for O_ASYNC and O_NONBLOCK belong to what was opened, and
 * standard input is shared with the shell. SIGIO wakes the client.
 */
#include "cli/screen.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>

#include "cli/memory.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

/* The alternate screen; no cursor; lines that are too long are cut. */
#define ENTER "\033[?1049h\033[?25l\033[?7l"
#define LEAVE "\033[0m\033[?7h\033[?25h\033[?1049l"

enum { LINES_DEFAULT = 24, COLUMNS_DEFAULT = 80 };

struct screen {
        int keys;
        struct termios before;
        char sequence[8]; /* of a key, as far as it came */
        size_t n_sequence;
};

static struct screen *shown; /* for exit() */

static const struct {
        const char *sequence;
        enum screen_key key;
} sequences[] = {
        { "\033[A", SCREEN_KEY_UP },       { "\033OA", SCREEN_KEY_UP },
        { "\033[B", SCREEN_KEY_DOWN },     { "\033OB", SCREEN_KEY_DOWN },
        { "\033[5~", SCREEN_KEY_PAGE_UP }, { "\033[6~", SCREEN_KEY_PAGE_DOWN },
        { "\033[H", SCREEN_KEY_HOME },     { "\033OH", SCREEN_KEY_HOME },
        { "\033[1~", SCREEN_KEY_HOME },    { "\033[F", SCREEN_KEY_END },
        { "\033OF", SCREEN_KEY_END },      { "\033[4~", SCREEN_KEY_END },
};

bool screen_has_color(void)
{
        const char *no_color = getenv("NO_COLOR");

        return !(no_color && *no_color);
}

/* What cannot be written now is of no use later. */
static void write_all(const char *text, size_t n)
{
        while (n > 0) {
                ssize_t written = write(STDOUT_FILENO, text, n);

                if (written < 0 && errno != EINTR)
                        return;
                if (written > 0) {
                        text += written;
                        n -= (size_t)written;
                }
        }
}

static void leave(void)
{
        if (!shown)
                return;
        write_all(LEAVE, strlen(LEAVE));
        (void)tcsetattr(shown->keys, TCSAFLUSH, &shown->before);
        shown = NULL;
}

static bool is_able(void)
{
        const char *term = getenv("TERM");

        return isatty(STDOUT_FILENO) && term && *term && strcmp(term, "dumb") != 0;
}

/* Ctrl-C stays a signal; to be stopped in the middle of a screen is of no use to anybody. */
static int set_modes(struct screen *screen)
{
        struct termios modes;

        if (tcgetattr(screen->keys, &screen->before) != 0)
                return error_origin(-errno);
        modes = screen->before;
        modes.c_lflag &= ~(tcflag_t)(ICANON | ECHO);
        modes.c_iflag &= ~(tcflag_t)IXON;
        modes.c_cc[VMIN] = 1;
        modes.c_cc[VTIME] = 0;
        modes.c_cc[VSUSP] = _POSIX_VDISABLE;
        modes.c_cc[VQUIT] = _POSIX_VDISABLE;
        return tcsetattr(screen->keys, TCSADRAIN, &modes) == 0 ? 0 : error_origin(-errno);
}

int screen_new(struct screen **ret_screen)
{
        static bool is_registered;
        _cleanup_(screen_freep) struct screen *screen = NULL;
        int r;

        if (!is_able())
                return SCREEN_E_NONE;
        screen = allocate(1, sizeof(*screen));
        screen->keys = open("/dev/tty", O_RDONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
        if (screen->keys < 0)
                return SCREEN_E_NONE;
        if (fcntl(screen->keys, F_SETOWN, getpid()) != 0 ||
            fcntl(screen->keys, F_SETFL, O_NONBLOCK | O_ASYNC) != 0)
                return error_origin(-errno);
        r = set_modes(screen);
        if (r)
                return error_fold(r);
        shown = screen;
        if (!is_registered && atexit(leave) == 0)
                is_registered = true;
        write_all(ENTER, strlen(ENTER));
        *ret_screen = take(screen);
        return 0;
}

struct screen *screen_free(struct screen *screen)
{
        if (!screen)
                return NULL;
        if (shown == screen)
                leave();
        (void)close_fd(screen->keys);
        free(screen);
        return NULL;
}

void screen_size(const struct screen *screen, size_t *ret_columns, size_t *ret_lines)
{
        struct winsize size = { 0 };

        (void)screen;
        (void)ioctl(STDOUT_FILENO, TIOCGWINSZ, &size);
        *ret_columns = size.ws_col ? size.ws_col : COLUMNS_DEFAULT;
        *ret_lines = size.ws_row ? size.ws_row : LINES_DEFAULT;
}

/* The key that came whole; *@ret_may_go_on: what came is the begin of one. */
static enum screen_key find_sequence(const struct screen *screen, bool *ret_may_go_on)
{
        *ret_may_go_on = false;
        for (size_t i = 0; i < ARRAY_SIZE(sequences); i++) {
                const char *sequence = sequences[i].sequence;

                if (strncmp(sequence, screen->sequence, screen->n_sequence) != 0)
                        continue;
                if (sequence[screen->n_sequence] == '\0')
                        return sequences[i].key;
                *ret_may_go_on = true;
        }
        return SCREEN_KEY_NONE;
}

/* A sequence that is none of ours ends with its last byte (ECMA-48: @ to ~), and means nothing. */
static int take_byte(struct screen *screen, char byte)
{
        size_t n = screen->n_sequence;
        bool may_go_on;
        int key;

        if (byte != '\033' && (n == 0 || (n == 1 && byte != '[' && byte != 'O'))) {
                screen->n_sequence = 0;
                return byte > 0 ? byte : SCREEN_KEY_NONE;
        }
        if (byte == '\033')
                screen->n_sequence = 0;
        if (screen->n_sequence < sizeof(screen->sequence))
                screen->sequence[screen->n_sequence++] = byte;
        key = find_sequence(screen, &may_go_on);
        if (key || (!may_go_on && screen->n_sequence > 2 && byte >= '@' && byte <= '~'))
                screen->n_sequence = 0;
        return key;
}

int screen_take_key(struct screen *screen)
{
        for (;;) {
                char byte;
                ssize_t n = read(screen->keys, &byte, 1);
                int key;

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0 && errno == EAGAIN)
                        return SCREEN_KEY_NONE;
                if (n <= 0)
                        return SCREEN_KEY_GONE;
                key = take_byte(screen, byte);
                if (key)
                        return key;
        }
}

/* From the top, and nothing below; no line too many, for that would scroll. What is erased is
 * erased before its line is written: behind a full one the cursor stands on its last character. */
void screen_show(struct screen *screen, const char *text)
{
        _cleanup_(freep) char *drawn = NULL;
        size_t columns, lines, n_drawn = 0, line = 0;
        FILE *out = must(open_memstream(&drawn, &n_drawn));

        screen_size(screen, &columns, &lines);
        (void)fputs("\033[H", out);
        for (; *text && line < lines; line++) {
                size_t n = strcspn(text, "\n");

                (void)fprintf(out, "%s\033[K%.*s", line ? "\r\n" : "", (int)n, text);
                text += n + (text[n] == '\n');
        }
        if (line < lines)
                (void)fputs("\r\n\033[J", out);
        (void)fclose(out);
        write_all(must(drawn), n_drawn);
}
