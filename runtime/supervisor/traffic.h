/*
 * What the connections of a process and of a sandbox carried: counted by hotcell-egress in the
 * shared table (runtime/channel/traffic_table.h), and of packets in direct mode by the programs at
 * the device.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "runtime/channel/traffic_table.h"

struct process;
struct sandbox;
struct sandbox_host;
struct usage_message;

struct traffic_amount {
        uint64_t sent_bytes;
        uint64_t received_bytes;
};

/* Of one cgroup. */
struct traffic {
        struct traffic_meter meter;
        bool is_open;    /* it has a place */
        bool is_missing; /* it had none: zero means nothing */
        struct traffic_amount direct;
};

/* Places for so many sandboxes and what runs in them. */
size_t traffic_places(uint32_t n_sandboxes);

/* Before anything runs in the cgroup. Without a place it goes on, and says so. */
void traffic_open(const struct sandbox_host *host, uint64_t cgroup_id, struct traffic *ret_traffic);

/* Nothing of it runs any more: the last reading, which can be read from then on. What comes later
 * by connections of a process is its sandbox's; of a sandbox it is lost, and logged. */
void traffic_close_process(struct process *process);
void traffic_close_sandbox(struct sandbox *sandbox);

/* False: it could not be counted, or not all of it. */
bool traffic_read_process(struct process *process, struct traffic_amount *ret_amount);
bool traffic_read_sandbox(struct sandbox *sandbox, struct traffic_amount *ret_amount);

/* Fills these fields, and what is missing of them. */
void traffic_fill_process(struct process *process, struct usage_message *message);
void traffic_fill_sandbox(struct sandbox *sandbox, struct usage_message *message);
