#include "cli/code_options.h"

#include <errno.h>
#include <string.h>

#include "hotcell/v1/execution_service.pb-c.h"

#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/say.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

enum { CODE_MAX = 1024 * 1024 };

#define FIELD(name) offsetof(struct code_options, name)

struct option_group code_options_group(struct code_options *options)
{
        static const char *const limits[] = { "", "kill", "truncate", NULL };
        static const struct option_row rows[] = {
                { 'c', "code", OPTION_TEXT, FIELD(code), "CODE", "run CODE", NULL, 0 },
                { 'e', "env", OPTION_PAIRS, FIELD(environment), "KEY=VALUE",
                  "a variable for this run; KEY alone passes on one's own", NULL, 0 },
                { 0, "language", OPTION_TEXT, FIELD(language), "NAME",
                  "such as python; else the template's first", NULL, 0 },
                { 0, "timeout", OPTION_DURATION, FIELD(timeout), "DURATION",
                  "end the code after so long, such as 30s; " DURATION_HELP, NULL, 0 },
                { 0, "output-limit", OPTION_BYTES, FIELD(output_limit), "BYTES",
                  "how much it may write, such as 10M", NULL, 0 },
                { 0, "on-output-limit", OPTION_CHOICE, FIELD(on_output_limit), "kill|truncate",
                  "end the code there, or go on and throw the rest away", limits, 0 },
                { 0, "combine-output", OPTION_FLAG, FIELD(combine_output), NULL,
                  "standard error joins standard output, in exact order", NULL, 0 },
                { 'd', "detach", OPTION_FLAG, FIELD(is_detached), NULL,
                  "print the execution's id and leave; it goes on", NULL, 0 },
        };

        return (struct option_group)OPTION_GROUP("Code", rows, options);
}

static int read_all(FILE *file, const char *name, char **ret_code, size_t *ret_length)
{
        _cleanup_(freep) char *code = allocate(CODE_MAX + 2, 1);
        size_t n = fread(code, 1, CODE_MAX + 1, file);

        if (ferror(file)) {
                say("cannot read %s: %s", name, strerror(errno));
                return EXIT_OURS;
        }
        *ret_code = take(code);
        *ret_length = n;
        return 0;
}

static int read_source(const char *source, char **ret_code, size_t *ret_length)
{
        _cleanup_(fclosep) FILE *file = NULL;

        if (strcmp(source, "-") == 0)
                return read_all(stdin, "standard input", ret_code, ret_length);
        file = fopen(source, "re");
        if (!file) {
                say("cannot read %s: %s%s", source, strerror(errno),
                    errno == ENOENT ? "; code itself goes after -c" : "");
                return EXIT_OURS;
        }
        return read_all(file, source, ret_code, ret_length);
}

static int set_code(const char *name, const char *code, size_t length,
                    Hotcell__V1__ExecuteRequest *request)
{
        if (length > CODE_MAX)
                say("%s: code may have at most 1 MiB", name);
        else if (!text_is_utf8(code, length) || memchr(code, '\0', length))
                say("%s: code must be UTF-8 text", name);
        else {
                message_set_text(&request->code, code);
                return 0;
        }
        return EXIT_OURS;
}

static int apply_code(const char *command, const struct code_options *options, const char *source,
                      Hotcell__V1__ExecuteRequest *request)
{
        _cleanup_(freep) char *code = NULL;
        size_t length;
        int r;

        if (!options->code == !source) {
                if (source)
                        say_of(command, "there is code after -c and in '%s'; give one of them",
                               source);
                else
                        say_of(command, "nothing to run: give -c CODE, a FILE, or - for standard "
                                        "input");
                return EXIT_OURS;
        }
        if (options->code)
                return set_code("-c", options->code, strlen(options->code), request);
        r = read_source(source, &code, &length);
        return r ? r : set_code(source, code, length, request);
}

static void apply_limits(const struct code_options *options, Hotcell__V1__ExecuteRequest *request)
{
        if (!options->timeout.is_set && !options->output_limit.is_set)
                return;
        request->limits = message_new(&hotcell__v1__limits__descriptor);
        if (options->timeout.is_set)
                request->limits->timeout = message_duration(options->timeout.value);
        if (options->output_limit.is_set) {
                request->limits->_output_bytes_case =
                        HOTCELL__V1__LIMITS___OUTPUT_BYTES_OUTPUT_BYTES;
                request->limits->output_bytes = options->output_limit.value;
        }
}

int code_options_apply(const char *command, const struct code_options *options, const char *source,
                       Hotcell__V1__ExecuteRequest *request)
{
        int r = apply_code(command, options, source, request);

        if (r)
                return r;
        apply_limits(options, request);
        message_set_map(request, "environment", &options->environment);
        if (options->language)
                message_set_text(&request->language, options->language);
        request->combine_output = options->combine_output;
        request->on_output_limit = (Hotcell__V1__OnOutputLimit)options->on_output_limit;
        if (options->is_detached)
                request->on_disconnect = HOTCELL__V1__ON_DISCONNECT__ON_DISCONNECT_CONTINUE;
        return 0;
}
