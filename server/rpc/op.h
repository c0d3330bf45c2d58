/*
 * One batch handed to gRPC; its address is the tag. Embedded in its owner, one for each kind of
 * batch, so that "one of each kind at a time" is visible in the struct.
 */
#pragma once

#include <stdbool.h>

#include "runtime/base/inbox.h"

struct rpc_server;

struct rpc_op {
        struct inbox_task task;
        struct rpc_server *server;
        void (*on_done)(struct rpc_op *op); /* on the loop; may free the op */
        bool ok;
};
