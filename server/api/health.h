/* grpc.health.v1: whether the server, and each of its services, does its work. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "runtime/base/cleanup.h"
#include "server/rpc/rpc.h"

struct health;

/* Not serving at first. @services, besides the server itself (""), must live as long. */
int health_new(const char *const *services, size_t n_services, struct health **ret_health);

/* After health_close and the end of the server's calls. */
struct health *health_free(struct health *health);
DEFINE_CLEANUP(struct health, health_free)

struct rpc_service health_service(struct health *health);

/* Tells everybody who watches. */
void health_set(struct health *health, bool is_serving);

/* Not serving any more: those who watch are told and sent away, and nobody can watch. */
void health_close(struct health *health);
