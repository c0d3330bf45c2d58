/* The options that say what may leave a sandbox. */
#pragma once

#include <stdbool.h>

#include "cli/options.h"

struct Hotcell__V1__EgressPolicy;

struct egress_options {
        struct option_texts allow;
        struct option_texts deny;
        struct option_texts dns_types;
        int default_action; /* 0: not said */
};

struct option_group egress_options_group(struct egress_options *options);

/*
 * The policy, of which the server knows whether it is good; message_free() frees it. NULL when none
 * of the options was given. EXIT_OURS after saying what is no HOST[:PORTS].
 */
int egress_options_message(const char *command, const struct egress_options *options,
                           struct Hotcell__V1__EgressPolicy **ret_policy);
