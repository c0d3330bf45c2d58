/* What the operator set: a file of `key = value` lines, and flags over it. One table says what
 * there is: server/settings.c. */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#include "runtime/base/log.h"
#include "server/store/records.h"

enum {
        CONFIG_TEXT_BUFFER = 512,
        CONFIG_MESSAGE_BUFFER = 1024,
};

/* Zero is "none" where a setting allows it. */
struct config {
        char unix_path[CONFIG_TEXT_BUFFER];
        char unix_group[CONFIG_TEXT_BUFFER];
        char tcp[CONFIG_TEXT_BUFFER];
        char runtime_socket[CONFIG_TEXT_BUFFER];
        char state_dir[CONFIG_TEXT_BUFFER];
        enum log_level log_level;
        bool allow_root;

        int64_t memory_default_bytes, memory_max_bytes;
        int64_t cpu_default_millis, cpu_max_millis;
        int64_t processes_default, processes_max;
        int64_t disk_default_bytes, disk_max_bytes;
        int64_t open_files_default, open_files_max;
        int64_t cpu_weight_default, cpu_weight_max;
        int64_t disk_inodes_max;
        int64_t io_default_bytes, io_max_bytes;
        int64_t timeout_default_usec, timeout_max_usec;
        int64_t output_default_bytes, output_max_bytes;
        bool allow_no_timeout;

        int64_t sandboxes_max;
        int64_t sandboxes_per_owner_max;
        int64_t creations_max;
        int64_t memory_total_bytes, memory_reserve_bytes, memory_overcommit_percent;
        int64_t cpu_total_millis, cpu_overcommit_percent;
        int64_t updates_per_second;
        int64_t egress_rules_total_bytes;
        int64_t owner_percent, operator_percent;
        int64_t ttl_default_usec, ttl_max_usec;
        bool allow_no_ttl;
        int64_t idle_timeout_default_usec, idle_timeout_max_usec;
        bool allow_no_idle_timeout;

        int64_t queue_max;
        int64_t executions_max, executions_queued_max;
        int64_t queued_bytes_max, queued_bytes_total_max;
        int64_t queue_timeout_default_usec, queue_timeout_max_usec;
        int64_t ring_bytes;
        int64_t state_reserve_bytes;
        int64_t rings_retained_bytes;
        int64_t rings_retained_usec;
        int64_t rich_part_max_bytes;
        int64_t interrupt_again_usec, interrupt_kill_usec;
        int64_t kernel_start_timeout_usec;

        int64_t retention_usec;
        int64_t retention_sandboxes, retention_executions, retention_events;
        int64_t request_ids_kept_usec, request_ids_max;
        int64_t retention_events_bytes;
        int64_t retention_egress_events, retention_egress_events_bytes;
        int64_t ledger_retention_usec, ledger_rows_max;

        int64_t connections_max, connections_per_owner_max;
        int64_t identify_timeout_usec;
        int64_t streams_max, calls_per_owner_max;
        int64_t open_streams_max;
        int64_t receive_max_bytes;
        int64_t request_timeout_usec;
        int64_t unread_per_owner_max_bytes;
        int64_t stop_grace_usec;
};

enum config_action {
        CONFIG_SERVE,
        CONFIG_CHECK,
        CONFIG_PRINT,
        CONFIG_HELP,
        CONFIG_VERSION,
};

enum {
        CONFIG_E_INVALID = 1, /* the message names the place, what was there and what is accepted */
};

/*
 * Defaults, then the file (`--config FILE`, else /etc/hotcell/hotcelld.conf if there is one), then
 * the other flags.
 */
int config_read(int argc, char **argv, struct config *ret_config, enum config_action *ret_action,
                char ret_message[static CONFIG_MESSAGE_BUFFER]);

/* As a file that says the same: explained, and with what is at its default commented out. */
void config_print(const struct config *config, FILE *file);

void config_print_help(FILE *file);
