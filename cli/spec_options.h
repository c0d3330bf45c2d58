/* The options of `run` and `sandbox create` that say what the sandbox is. */
#pragma once

#include "cli/limit_options.h"
#include "cli/options.h"

struct Hotcell__V1__SandboxSpec;

struct spec_options {
        const char *name;
        const char *template;
        struct limit_options limits; /* with a group of their own */
        struct option_number ttl;
        struct option_number idle_timeout;
        struct option_pairs labels;
};

struct option_group spec_options_group(struct spec_options *options);

/* A new message; message_free() frees it. */
struct Hotcell__V1__SandboxSpec *spec_options_message(const struct spec_options *options);
