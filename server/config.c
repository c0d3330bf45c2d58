#include "server/config.h"

#include <errno.h>
#include <getopt.h>
#include <stdarg.h>
#include <string.h>

#include <ini.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/settings.h"

enum {
        OPTION_CONFIG = 256,
        OPTION_CHECK,
        OPTION_PRINT,
        OPTION_HELP,
        OPTION_VERSION,
        OPTION_SETTING, /* and its index */

        SETTINGS_MAX = 96,
        KEY_BUFFER = 64,
};

static const char default_path[] = "/etc/hotcell/hotcelld.conf";

static const struct {
        const char *flag;
        int option;
        int has_argument;
        enum config_action action;
        const char *doc;
} actions[] = {
        { "config", OPTION_CONFIG, required_argument, CONFIG_SERVE, "FILE  read this file" },
        { "check-config", OPTION_CHECK, no_argument, CONFIG_CHECK,
          "say whether the configuration is good, and end" },
        { "print-config", OPTION_PRINT, no_argument, CONFIG_PRINT,
          "print the configuration in force, explained, and end" },
        { "help", OPTION_HELP, no_argument, CONFIG_HELP, "print this, and end" },
        { "version", OPTION_VERSION, no_argument, CONFIG_VERSION, "print the version, and end" },
};

/* One file while it is read. inih tells its handler no line number, so the reader counts. */
struct source {
        const char *path;
        FILE *file;
        unsigned line;
        bool is_seen[SETTINGS_MAX];
        struct config *config;
        char *message;
        int result;
};

__attribute__((format(printf, 2, 3))) static int refuse(struct source *source, const char *format,
                                                        ...)
{
        va_list arguments;
        int n;

        if (source->result)
                return 0; /* the first one counts */
        source->result = CONFIG_E_INVALID;
        n = snprintf(source->message, CONFIG_MESSAGE_BUFFER, "%.300s:%u: ", source->path,
                     source->line);
        va_start(arguments, format);
        (void)vsnprintf(source->message + n, CONFIG_MESSAGE_BUFFER - (size_t)n, format, arguments);
        va_end(arguments);
        return 0;
}

static char *read_line(char *line, int size, void *userdata)
{
        struct source *source = userdata;

        if (source->result || !fgets(line, size, source->file))
                return NULL;
        source->line++;
        /* inih would take the rest for a line of its own. */
        if (!strchr(line, '\n') && !feof(source->file)) {
                refuse(source, "the line is longer than %d bytes", size - 2);
                return NULL;
        }
        return line;
}

/* inih's answer is "go on"; whether it was good is in @source. */
static int on_pair(void *userdata, const char *section, const char *key, const char *value)
{
        struct source *source = userdata;
        const struct setting *setting = setting_find(key);
        char why[CONFIG_MESSAGE_BUFFER];

        if (source->result)
                return 1;
        if (*section)
                return refuse(source, "there are no sections: remove [%.50s]", section), 1;
        if (!setting)
                return refuse(source, "there is no setting `%.60s`: see hotcelld --help", key), 1;
        if (source->is_seen[setting - settings])
                return refuse(source, "%s is set twice", key), 1;
        source->is_seen[setting - settings] = true;
        if (setting_set(setting, value, source->config, why))
                refuse(source, "%s: %.800s", key, why);
        return 1;
}

static int read_file(const char *path, bool must_exist, struct config *config,
                     char message[static CONFIG_MESSAGE_BUFFER])
{
        _cleanup_(fclosep) FILE *file = fopen(path, "re");
        struct source source = { .path = path, .file = file, .config = config, .message = message };
        int bad_line;

        if (!file && errno == ENOENT && !must_exist)
                return 0;
        if (!file) {
                (void)snprintf(message, CONFIG_MESSAGE_BUFFER, "cannot read %.300s: %s", path,
                               strerror(errno));
                return CONFIG_E_INVALID;
        }
        bad_line = ini_parse_stream(read_line, &source, on_pair, &source);
        if (!source.result && ferror(file))
                refuse(&source, "cannot read on: %s", strerror(errno));
        if (!source.result && bad_line > 0) {
                source.line = (unsigned)bad_line;
                refuse(&source, "this is no `key = value`");
        }
        return source.result;
}

/* What the command line says, before it is applied: the file comes first. */
struct flags {
        const char *path;
        const char *values[SETTINGS_MAX];
        enum config_action action;
};

static void fill_options(struct option options[static SETTINGS_MAX + ARRAY_SIZE(actions) + 1],
                         char names[static SETTINGS_MAX][KEY_BUFFER])
{
        size_t n = 0;

        for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
                options[n++] = (struct option){ actions[i].flag, actions[i].has_argument, NULL,
                                                actions[i].option };
        for (size_t i = 0; i < n_settings; i++) {
                (void)snprintf(names[i], KEY_BUFFER, "%s", settings[i].key);
                for (char *at = names[i]; (at = strchr(at, '_'));)
                        *at = '-';
                /* `--allow-root` alone says yes. */
                options[n++] =
                        (struct option){ names[i],
                                         settings[i].type == SETTING_BOOL ? optional_argument
                                                                          : required_argument,
                                         NULL, OPTION_SETTING + (int)i };
        }
        options[n] = (struct option){ 0 };
}

static void take_option(int option, struct flags *flags)
{
        if (option >= OPTION_SETTING) {
                flags->values[option - OPTION_SETTING] = optarg ? optarg : "yes";
                return;
        }
        if (option == OPTION_CONFIG) {
                flags->path = optarg;
                return;
        }
        for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
                if (actions[i].option == option)
                        flags->action = actions[i].action;
}

static int parse_flags(int argc, char **argv, struct flags *ret_flags,
                       char message[static CONFIG_MESSAGE_BUFFER])
{
        struct option options[SETTINGS_MAX + ARRAY_SIZE(actions) + 1];
        char names[SETTINGS_MAX][KEY_BUFFER];
        int option;

        assert(n_settings <= SETTINGS_MAX);
        fill_options(options, names);
        *ret_flags = (struct flags){ 0 };
        optind = 0; /* starts anew, also for the second call of a test */
        while ((option = getopt_long(argc, argv, "+:h", options, NULL)) >= 0) {
                if (option == '?' || option == ':') {
                        (void)snprintf(message, CONFIG_MESSAGE_BUFFER, "%.200s: %s; see --help",
                                       argv[optind - 1],
                                       option == '?' ? "there is no such flag"
                                                     : "it needs a value");
                        return CONFIG_E_INVALID;
                }
                take_option(option == 'h' ? OPTION_HELP : option, ret_flags);
        }
        if (optind < argc) {
                (void)snprintf(message, CONFIG_MESSAGE_BUFFER,
                               "%.200s: only flags are taken; see --help", argv[optind]);
                return CONFIG_E_INVALID;
        }
        return 0;
}

static int apply_flags(const struct flags *flags, struct config *config,
                       char message[static CONFIG_MESSAGE_BUFFER])
{
        char why[CONFIG_MESSAGE_BUFFER];

        for (size_t i = 0; i < n_settings; i++) {
                if (!flags->values[i] ||
                    setting_set(&settings[i], flags->values[i], config, why) == 0)
                        continue;
                (void)snprintf(message, CONFIG_MESSAGE_BUFFER, "flag for %s: %.800s",
                               settings[i].key, why);
                return CONFIG_E_INVALID;
        }
        return 0;
}

int config_read(int argc, char **argv, struct config *ret_config, enum config_action *ret_action,
                char ret_message[static CONFIG_MESSAGE_BUFFER])
{
        struct config config;
        struct flags flags;
        int r;

        ret_message[0] = '\0';
        settings_set_defaults(&config);
        r = parse_flags(argc, argv, &flags, ret_message);
        if (r)
                return r;
        if (flags.action != CONFIG_HELP && flags.action != CONFIG_VERSION) {
                r = read_file(flags.path ? flags.path : default_path, flags.path != NULL, &config,
                              ret_message);
                if (r == 0)
                        r = apply_flags(&flags, &config, ret_message);
                if (r == 0 && settings_check(&config, ret_message))
                        r = CONFIG_E_INVALID;
                if (r)
                        return r;
        }
        *ret_config = config;
        *ret_action = flags.action;
        return 0;
}

/* Breaks @text at blanks, below 100 columns. */
static void print_wrapped(FILE *file, const char *prefix, const char *text)
{
        const size_t width = 98 - strlen(prefix);

        while (*text) {
                size_t n = strlen(text);

                if (n > width) {
                        n = width;
                        while (n > 0 && text[n] != ' ')
                                n--;
                }
                (void)fprintf(file, "%s%.*s\n", prefix, (int)n, text);
                text += n;
                text += strspn(text, " ");
        }
}

void config_print(const struct config *config, FILE *file)
{
        struct config defaults;

        settings_set_defaults(&defaults);
        (void)fputs("# hotcelld's configuration. A line that is commented out shows the default. "
                    "Every key is also\n"
                    "# a flag: --state-dir for state_dir. Restart hotcelld after a change; "
                    "`hotcelld --check-config`\n"
                    "# tells whether it is good.\n",
                    file);
        for (size_t i = 0; i < n_settings; i++) {
                char value[SETTING_VALUE_BUFFER], usual[SETTING_VALUE_BUFFER];

                if (settings[i].title)
                        (void)fprintf(file, "\n\n# -- %s --\n", settings[i].title);
                setting_format(&settings[i], config, value);
                setting_format(&settings[i], &defaults, usual);
                (void)fputc('\n', file);
                print_wrapped(file, "# ", settings[i].doc);
                (void)fprintf(file, "%s%s =%s%s\n", strcmp(value, usual) == 0 ? "#" : "",
                              settings[i].key, *value ? " " : "", value);
        }
}

void config_print_help(FILE *file)
{
        (void)fputs("usage: hotcelld [--FLAG VALUE]...\n"
                    "Serves the hotcell API: runs code in sandboxes of hotcell-runtime.\n"
                    "SIGTERM ends it and all sandboxes. SIGHUP ends it alone, with exit code 75: "
                    "the next one\n"
                    "to be started goes on where it was.\n\n",
                    file);
        for (size_t i = 0; i < ARRAY_SIZE(actions); i++)
                (void)fprintf(file, "  --%s %s\n", actions[i].flag, actions[i].doc);
        for (size_t i = 0; i < n_settings; i++) {
                char flag[KEY_BUFFER];

                if (settings[i].title)
                        (void)fprintf(file, "\n%s:\n", settings[i].title);
                (void)snprintf(flag, sizeof(flag), "%s", settings[i].key);
                for (char *at = flag; (at = strchr(at, '_'));)
                        *at = '-';
                (void)fprintf(file, "  --%s (%s)\n", flag,
                              *settings[i].text ? settings[i].text : "nothing");
                print_wrapped(file, "      ", settings[i].doc);
        }
}
