#include "cli/field_flag.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/memory.h"
#include "runtime/base/macros.h"

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
        { "egress.default_action", "--egress-default", "--egress-default" },
        { "environment", "--env", "--env" },
        { "idle_timeout", "--idle-timeout", "--idle-timeout" },
        { "labels", "--label", "--label" },
        { "language", NULL, "--language" },
        { "limits.cpu_millis", "--cpus", NULL },
        { "limits.disk_bytes", "--disk", NULL },
        { "limits.execution.output_bytes", "--output-limit", NULL },
        { "limits.execution.timeout", "--timeout", NULL },
        { "limits.memory_bytes", "--memory", NULL },
        { "limits.open_files", "--open-files", NULL },
        { "limits.output_bytes", NULL, "--output-limit" },
        { "limits.processes", "--processes", NULL },
        { "limits.timeout", NULL, "--timeout" },
        { "name", "--name", "NAME" },
        { "on_output_limit", NULL, "--on-output-limit" },
        { "sandbox_id", NULL, "SANDBOX" },
        { "scopes", NULL, "--scope" },
        { "states", NULL, "--state" },
        { "template", "--template", "--template" },
        { "ttl", "--ttl", "--ttl" },
        { "watch_token", NULL, "--after" },
        { "working_directory", NULL, "--directory" },
};

/* A rule is one of several: what is wrong with its host quotes that, but ports are only numbers. */
static bool is_egress_host(const char *path)
{
        const char *end = strchr(path, ']');

        return strncmp(path, "egress.rules[", strlen("egress.rules[")) == 0 && end &&
               (strcmp(end, "].cidr") == 0 || strcmp(end, "].domain") == 0);
}

const char *field_flag(const char *path)
{
        static const char *const specs[] = { "spec.", "sandbox." };
        bool is_in_spec = false;

        for (size_t i = 0; i < ARRAY_SIZE(specs) && !is_in_spec; i++) {
                is_in_spec = strncmp(path, specs[i], strlen(specs[i])) == 0;
                if (is_in_spec)
                        path += strlen(specs[i]);
        }
        if (is_egress_host(path))
                return "--allow or --deny";
        for (size_t i = 0; i < ARRAY_SIZE(flags); i++) {
                if (strcmp(path, flags[i].field) == 0)
                        return is_in_spec ? flags[i].in_spec : flags[i].elsewhere;
        }
        return NULL;
}

/* The flag of a sandbox's limit whose field is called as @word is. */
static const char *limit_flag(const char *word, size_t n_word)
{
        char path[64];

        /* Words without an underscore are English, too. */
        if (!memchr(word, '_', n_word) || n_word > 40)
                return NULL;
        (void)snprintf(path, sizeof(path), "spec.limits.%.*s", (int)n_word, word);
        return field_flag(path);
}

char *field_flags_in(const char *text)
{
        static const char letters[] = "abcdefghijklmnopqrstuvwxyz_";
        char *result = duplicate("");

        while (*text) {
                size_t n_word = strspn(text, letters);
                size_t n = n_word ? n_word : strcspn(text, letters);
                const char *flag = limit_flag(text, n_word);
                char *longer = flag ? format_text("%s%s", result, flag)
                                    : format_text("%s%.*s", result, (int)n, text);

                free(result);
                result = longer;
                text += n;
        }
        return result;
}
