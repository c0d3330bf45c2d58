/* The options of `run`, `sandbox create` and `sandbox update` that say what a sandbox may use. */
#pragma once

#include "cli/options.h"

struct Google__Protobuf__FieldMask;
struct Hotcell__V1__SandboxLimits;

struct limit_options {
        struct option_number memory;
        struct option_number cpus;
        struct option_number processes;
        struct option_number disk;
        struct option_number open_files;
        struct option_number cpu_weight;
        struct option_number inodes;
        struct option_number io_rate;
};

struct option_group limit_options_group(struct limit_options *options);

/* A new message; message_free() frees it. */
struct Hotcell__V1__SandboxLimits *limit_options_message(const struct limit_options *options);

/* Adds the paths of those that are given, below `limits`. */
void limit_options_mask(const struct limit_options *options,
                        struct Google__Protobuf__FieldMask *mask);
