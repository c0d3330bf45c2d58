#include "cli/spec_options.h"

#include "hotcell/v1/sandbox.pb-c.h"

#include "cli/message.h"
#include "runtime/base/macros.h"

#define FIELD(name) offsetof(struct spec_options, name)

struct option_group spec_options_group(struct spec_options *options)
{
        static const struct option_row rows[] = {
                { 0, "name", OPTION_TEXT, FIELD(name), "NAME",
                  "lower-case letters, digits and hyphens; unique among one's living sandboxes",
                  NULL, 0 },
                { 0, "template", OPTION_TEXT, FIELD(template), "NAME",
                  "what it starts from; `hotcell version` lists them", NULL, 0 },
                { 0, "ttl", OPTION_DURATION, FIELD(ttl), "DURATION",
                  "end it after so long, such as 1h; " DURATION_HELP, NULL, 0 },
                { 0, "idle-timeout", OPTION_DURATION, FIELD(idle_timeout), "DURATION",
                  "end it when so long nothing ran and nobody was attached; " DURATION_HELP, NULL,
                  0 },
                { 'l', "label", OPTION_PAIRS, FIELD(labels), "KEY=VALUE", "may be repeated", NULL,
                  0 },
        };

        return (struct option_group)OPTION_GROUP("Sandbox", rows, options);
}

Hotcell__V1__SandboxSpec *spec_options_message(const struct spec_options *options)
{
        Hotcell__V1__SandboxSpec *spec = message_new(&hotcell__v1__sandbox_spec__descriptor);

        if (options->name)
                message_set_text(&spec->name, options->name);
        if (options->template)
                message_set_text(&spec->template_, options->template);
        if (options->ttl.is_set) {
                spec->lifetime_case = HOTCELL__V1__SANDBOX_SPEC__LIFETIME_TTL;
                spec->ttl = message_duration(options->ttl.value);
        }
        if (options->idle_timeout.is_set)
                spec->idle_timeout = message_duration(options->idle_timeout.value);
        spec->limits = limit_options_message(&options->limits);
        message_set_map(spec, "labels", &options->labels);
        return spec;
}
