/* grpc.reflection.v1 and v1alpha: what the server's services look like, for clients without files.
 */
#pragma once

#include <stddef.h>

#include "runtime/base/cleanup.h"
#include "server/rpc/rpc.h"

struct reflection;

/* The FileDescriptorSet of all services with everything they import, built into the program. */
extern const unsigned char api_descriptors[];
extern const size_t api_descriptors_size;

/* @descriptors must live as long; -EBADMSG when it is no FileDescriptorSet. */
int reflection_new(const void *descriptors, size_t n_descriptors,
                   struct reflection **ret_reflection);
struct reflection *reflection_free(struct reflection *reflection);
DEFINE_CLEANUP(struct reflection, reflection_free)

struct rpc_service reflection_service(struct reflection *reflection);
