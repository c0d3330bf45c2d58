/* Policies as hotcelld sends them. */
#pragma once

#include <hotcell/egress/v1/egress.pb-c.h>
#include <stddef.h>

#include "runtime/policy/policy.h"

enum {
        POLICY_READER_BYTES_MAX = 4 << 20, /* of the message in a memfd */
        POLICY_READER_E_INVALID = 1,       /* it is no policy: a mistake of hotcelld's */
};

/* What is said outside of the memfd. */
struct policy_head {
        int64_t version;
        enum policy_default default_action;
        uint32_t record_types; /* a set */
        uint32_t n_bytes;      /* of the memfd */
};

/* 0, or POLICY_READER_E_INVALID: there is no such type, or it comes twice. */
int policy_reader_head(const Hotcell__Egress__V1__SetPolicy *set, struct policy_head *ret_head);

/*
 * @policy_fd: a memfd with a Policy of @head's size; not looked at when that is zero. 0, -ENOMEM,
 * another errno of the descriptor, or POLICY_READER_E_INVALID with the index of the rule.
 */
int policy_reader_read(const struct policy_head *head, int policy_fd, struct policy *ret_policy,
                       size_t *ret_rule);
