#include "cli/limit_options.h"

#include "hotcell/v1/sandbox.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/message.h"
#include "runtime/base/macros.h"

#define FIELD(name) offsetof(struct limit_options, name)

struct option_group limit_options_group(struct limit_options *options)
{
        static const struct option_row rows[] = {
                { 'm', "memory", OPTION_BYTES, FIELD(memory), "BYTES",
                  "of everything in it, its files included, such as 512M", NULL, 0 },
                { 0, "cpus", OPTION_CPUS, FIELD(cpus), "CPUS", "such as 1.5", NULL, INT32_MAX },
                { 0, "processes", OPTION_COUNT, FIELD(processes), "N", "processes and threads",
                  NULL, INT32_MAX },
                { 0, "disk", OPTION_BYTES, FIELD(disk), "BYTES",
                  "of its files; at least 64M below --memory", NULL, 0 },
                { 0, "open-files", OPTION_COUNT, FIELD(open_files), "N", "of each process", NULL,
                  INT32_MAX },
                { 0, "cpu-weight", OPTION_COUNT, FIELD(cpu_weight), "N",
                  "its part of the CPUs when there are too few; usual: 100", NULL, INT32_MAX },
                { 0, "inodes", OPTION_COUNT, FIELD(inodes), "N",
                  "files, directories and links that it makes", NULL, INT32_MAX },
                { 0, "io-rate", OPTION_BYTES, FIELD(io_rate), "BYTES",
                  "a second, of reading the disk of the templates; 0: any", NULL, 0 },
        };

        return (struct option_group)OPTION_GROUP("Limits", rows, options);
}

Hotcell__V1__SandboxLimits *limit_options_message(const struct limit_options *options)
{
        Hotcell__V1__SandboxLimits *limits = message_new(&hotcell__v1__sandbox_limits__descriptor);

        if (options->memory.is_set) {
                limits->_memory_bytes_case =
                        HOTCELL__V1__SANDBOX_LIMITS___MEMORY_BYTES_MEMORY_BYTES;
                limits->memory_bytes = options->memory.value;
        }
        if (options->cpus.is_set) {
                limits->_cpu_millis_case = HOTCELL__V1__SANDBOX_LIMITS___CPU_MILLIS_CPU_MILLIS;
                limits->cpu_millis = (int32_t)options->cpus.value;
        }
        if (options->processes.is_set) {
                limits->_processes_case = HOTCELL__V1__SANDBOX_LIMITS___PROCESSES_PROCESSES;
                limits->processes = (int32_t)options->processes.value;
        }
        if (options->disk.is_set) {
                limits->_disk_bytes_case = HOTCELL__V1__SANDBOX_LIMITS___DISK_BYTES_DISK_BYTES;
                limits->disk_bytes = options->disk.value;
        }
        if (options->open_files.is_set) {
                limits->_open_files_case = HOTCELL__V1__SANDBOX_LIMITS___OPEN_FILES_OPEN_FILES;
                limits->open_files = (int32_t)options->open_files.value;
        }
        if (options->cpu_weight.is_set) {
                limits->_cpu_weight_case = HOTCELL__V1__SANDBOX_LIMITS___CPU_WEIGHT_CPU_WEIGHT;
                limits->cpu_weight = (int32_t)options->cpu_weight.value;
        }
        if (options->inodes.is_set) {
                limits->_disk_inodes_case = HOTCELL__V1__SANDBOX_LIMITS___DISK_INODES_DISK_INODES;
                limits->disk_inodes = options->inodes.value;
        }
        if (options->io_rate.is_set) {
                limits->_io_bytes_per_second_case =
                        HOTCELL__V1__SANDBOX_LIMITS___IO_BYTES_PER_SECOND_IO_BYTES_PER_SECOND;
                limits->io_bytes_per_second = options->io_rate.value;
        }
        return limits;
}

void limit_options_mask(const struct limit_options *options, Google__Protobuf__FieldMask *mask)
{
        const struct {
                bool is_set;
                const char *path;
        } paths[] = {
                { options->memory.is_set, "limits.memory_bytes" },
                { options->cpus.is_set, "limits.cpu_millis" },
                { options->processes.is_set, "limits.processes" },
                { options->disk.is_set, "limits.disk_bytes" },
                { options->open_files.is_set, "limits.open_files" },
                { options->cpu_weight.is_set, "limits.cpu_weight" },
                { options->inodes.is_set, "limits.disk_inodes" },
                { options->io_rate.is_set, "limits.io_bytes_per_second" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(paths); i++)
                if (paths[i].is_set)
                        message_add_path(mask, paths[i].path);
}
