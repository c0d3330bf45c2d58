#include "cli/connect.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "cli/client.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/options.h"
#include "cli/say.h"
#include "cli/target.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"

enum { KEY_SIZE = 512 };

/* Read once, before any command runs. */
static struct {
        const char *target;
        const char *api_key_file;
} values;

const struct option_group *connect_options(void)
{
        static const struct option_row rows[] = {
                { .name = "target",
                  .type = OPTION_TEXT,
                  .offset = offsetof(__typeof__(values), target),
                  .value_name = "ADDRESS",
                  .help = "unix:/path or 127.0.0.1:PORT; else $HOTCELL_TARGET, else "
                          "unix:/run/hotcell/hotcell.sock" },
                { .name = "api-key-file",
                  .type = OPTION_TEXT,
                  .offset = offsetof(__typeof__(values), api_key_file),
                  .value_name = "FILE",
                  .help = "take the API key from FILE; else $HOTCELL_API_KEY" },
        };
        static const struct option_group group = OPTION_GROUP("Connection", rows, &values);

        return &group;
}

static const char *wanted_target(const char **ret_source)
{
        const char *target = values.target;

        *ret_source = "--target";
        if (!target) {
                target = getenv("HOTCELL_TARGET");
                *ret_source = "HOTCELL_TARGET";
        }
        return target && *target ? target : TARGET_DEFAULT;
}

/* Keys are one word of ASCII; anything else would break the header that carries it. */
static int check_key(const char *key, const char *source)
{
        for (const char *at = key; *at; at++) {
                if (*at <= ' ' || *at > '~') {
                        say("%s holds no API key: it has blanks or characters that no key has",
                            source);
                        return EXIT_OURS;
                }
        }
        if (*key)
                return 0;
        say("%s is empty", source);
        return EXIT_OURS;
}

static int read_key_file(char buffer[static KEY_SIZE])
{
        int r = io_read_file(AT_FDCWD, values.api_key_file, buffer, KEY_SIZE, NULL);

        if (r < 0) {
                say("cannot read the API key file %s: %s", values.api_key_file,
                    r == -EFBIG ? "it is too long for a key" : strerror(-r));
                return EXIT_OURS;
        }
        buffer[strcspn(buffer, "\r\n")] = '\0';
        return check_key(buffer, values.api_key_file);
}

/* *@ret_key points to @buffer, to the environment, or is NULL. */
static int wanted_key(char buffer[static KEY_SIZE], const char **ret_key)
{
        const char *key = getenv("HOTCELL_API_KEY");
        int r;

        if (values.api_key_file) {
                r = read_key_file(buffer);
                key = buffer;
        } else {
                r = key && *key ? check_key(key, "HOTCELL_API_KEY") : 0;
        }
        if (r)
                return r;
        *ret_key = key && *key ? key : NULL;
        return 0;
}

int connect_open(struct client **ret_client)
{
        _cleanup_(freep) char *target = NULL;
        char buffer[KEY_SIZE];
        const char *source, *key = NULL;
        const char *wanted = wanted_target(&source);
        int r = target_parse(wanted, &target);

        if (r == TARGET_E_BAD)
                say("%s is unix:/path/of/socket or 127.0.0.1:PORT, not '%s'", source, wanted);
        if (r == TARGET_E_NOT_LOOPBACK)
                say("%s %s: code and keys would cross the network unprotected; only loopback addresses "
                    "and unix sockets are used (`ssh -L` makes a remote one local)",
                    source, wanted);
        if (r)
                return EXIT_OURS;

        r = wanted_key(buffer, &key);
        if (r)
                return r;
        return client_new(target, key, ret_client) ? EXIT_OURS : 0;
}
