#include "cli/field_flag.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/memory.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

/* A sandbox is described in `spec` of CreateSandbox and in `sandbox` of Execute; the same name
 * outside of it may be another thing. */
static const struct {
        const char *field;
        const char *in_spec;
        const char *elsewhere;
} flags[] = {
        { "after_sequence", NULL, "--after" },
        { "code", NULL, "CODE" },
        { "context_id", NULL, "--code-context" },
        { "destinations", NULL, "--destinations" },
        { "egress.default_action", "--egress-default", "--egress-default" },
        { "egress.rules", "--allow and --deny", "--allow and --deny" },
        { "end_time", NULL, "--until" },
        { "environment", "--env", "--env" },
        { "execution_id", NULL, "--execution" },
        { "idle_timeout", "--idle-timeout", "--idle-timeout" },
        { "labels", "--label", "--label" },
        { "language", NULL, "--language" },
        { "limits.cpu_millis", "--cpus", "--cpus" },
        { "limits.cpu_weight", "--cpu-weight", "--cpu-weight" },
        { "limits.disk_bytes", "--disk", "--disk" },
        { "limits.disk_inodes", "--inodes", "--inodes" },
        { "limits.execution.output_bytes", "--output-limit", "--output-limit" },
        { "limits.execution.timeout", "--timeout", "--timeout" },
        { "limits.io_bytes_per_second", "--io-rate", "--io-rate" },
        { "limits.memory_bytes", "--memory", "--memory" },
        { "limits.open_files", "--open-files", "--open-files" },
        { "limits.output_bytes", NULL, "--output-limit" },
        { "limits.processes", "--processes", "--processes" },
        { "limits.timeout", NULL, "--timeout" },
        { "name", "--name", "NAME" },
        { "on_output_limit", NULL, "--on-output-limit" },
        { "owner", NULL, "--owner" },
        { "period", NULL, "--period" },
        { "quotas.cpu_millis", NULL, "--max-cpus" },
        { "quotas.executions", NULL, "--max-executions" },
        { "quotas.memory_bytes", NULL, "--max-memory" },
        { "quotas.sandboxes", NULL, "--max-sandboxes" },
        { "sandbox_id", NULL, "SANDBOX" },
        { "scopes", NULL, "--scope" },
        { "start_time", NULL, "--since" },
        { "states", NULL, "--state" },
        { "template", "--template", "--template" },
        { "ttl", "--ttl", "--ttl" },
        { "watch_token", NULL, "--after" },
        { "working_directory", NULL, "--directory" },
};

/* The rules that were sent, as they were written: there is one command line. */
static struct {
        char **texts;
        size_t n;
} rules;

void field_flag_set_rules(char **texts, size_t n)
{
        for (size_t i = 0; i < rules.n; i++)
                free(rules.texts[i]);
        free(rules.texts);
        rules.texts = texts;
        rules.n = n;
}

static const char *skip_spec(const char *path)
{
        static const char *const specs[] = { "spec.", "sandbox." };

        for (size_t i = 0; i < ARRAY_SIZE(specs); i++) {
                if (strncmp(path, specs[i], strlen(specs[i])) == 0)
                        return path + strlen(specs[i]);
        }
        return path;
}

/* How the rule that @path is in was written, and what of it: behind the bracket; NULL: no rule. */
static const char *find_rule(const char *path, const char **ret_part)
{
        static const char start[] = "egress.rules[";
        const char *end = strchr(path, ']');
        char number[16];
        uint64_t i;

        if (strncmp(path, start, strlen(start)) != 0 || !end)
                return NULL;
        path += strlen(start);
        *ret_part = end + 1;
        (void)snprintf(number, sizeof(number), "%.*s", (int)MIN(end - path, (ptrdiff_t)12), path);
        return text_to_uint64(number, UINT32_MAX, &i) && i < rules.n ? rules.texts[i] : NULL;
}

const char *field_subject(const char *path)
{
        const char *part;

        if (!find_rule(skip_spec(path), &part))
                return "";
        if (strcmp(part, ".cidr") == 0 || strcmp(part, ".domain") == 0)
                return ":"; /* it is quoted */
        return strncmp(part, ".ports[", strlen(".ports[")) == 0 ? ": a port" : ": it";
}

const char *field_flag(const char *path)
{
        const char *whole = path;
        const char *part, *rule;
        bool is_in_spec;

        path = skip_spec(path);
        is_in_spec = path != whole;
        rule = find_rule(path, &part);
        if (rule)
                return rule;
        for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
                if (strcmp(path, flags[i].field) == 0)
                        return is_in_spec ? flags[i].in_spec : flags[i].elsewhere;
        }
        return NULL;
}

/* The flag of the sandbox's limit, or else of the field, that is called as @word is. */
static const char *word_flag(const char *word, size_t n_word)
{
        const char *flag;
        char path[64];

        /* Words without an underscore are English, too. */
        if (!memchr(word, '_', n_word) || n_word > 40)
                return NULL;
        (void)snprintf(path, sizeof(path), "spec.limits.%.*s", (int)n_word, word);
        flag = field_flag(path);
        return flag ? flag : field_flag(path + strlen("spec.limits."));
}

static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";

/* Of `limits.` before a limit that has a flag; else zero. */
static size_t prefix_of_limit(const char *text)
{
        static const char prefix[] = "limits.";
        const size_t n = sizeof(prefix) - 1;

        if (strncmp(text, prefix, n) != 0 || !word_flag(text + n, strspn(text + n, letters)))
                return 0;
        return n;
}

char *field_flags_in(const char *text)
{
        char *result = duplicate("");

        while (*text) {
                const char *word = text + prefix_of_limit(text);
                size_t n_word = strspn(word, letters);
                size_t n = n_word ? n_word : strcspn(word, letters);
                const char *flag = word_flag(word, n_word);
                char *longer = flag ? format_text("%s%s", result, flag)
                                    : format_text("%s%.*s", result, (int)n, word);

                free(result);
                result = longer;
                text = word + n;
        }
        return result;
}
