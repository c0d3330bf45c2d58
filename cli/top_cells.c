#include "cli/top_cells.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/age.h"
#include "cli/enum_name.h"
#include "cli/message.h"
#include "hotcell/v1/execution.pb-c.h"
#include "runtime/base/macros.h"

/* Short, so that columns stay narrow: `1.5M`. */
static void show_amount(double value, char ret_text[static TOP_CELL_SIZE])
{
        static const char units[] = "BKMGT";
        size_t unit = 0;

        while (value >= 999.5 && unit + 2 < sizeof(units)) {
                value /= 1024;
                unit++;
        }
        (void)snprintf(ret_text, TOP_CELL_SIZE, unit && value < 9.95 ? "%.1f%c" : "%.0f%c", value,
                       units[unit]);
}

static void show_nothing(char ret_text[static TOP_CELL_SIZE])
{
        (void)snprintf(ret_text, TOP_CELL_SIZE, "-");
}

static void show_percent(double part, bool is_known, char ret_text[static TOP_CELL_SIZE])
{
        if (is_known)
                (void)snprintf(ret_text, TOP_CELL_SIZE, "%.0f%%", part * 100);
        else
                show_nothing(ret_text);
}

static void show_traffic(double value, const struct top_rates *rates,
                         char ret_text[static TOP_CELL_SIZE])
{
        if (rates->are_known && rates->has_traffic)
                show_amount(value, ret_text);
        else
                show_nothing(ret_text);
}

static void make_lower(char *text)
{
        for (; *text; text++)
                *text = (char)tolower((unsigned char)*text);
}

/* What it is doing when that is not to run, else for how long it is there. */
static void show_age(const struct top_sandbox *sandbox, const Hotcell__V1__Usage *usage,
                     char ret_text[static TOP_CELL_SIZE])
{
        int state = (int)sandbox->now->state;
        char age[AGE_SIZE];

        if (state != HOTCELL__V1__SANDBOX_STATE__SANDBOX_STATE_RUNNING) {
                (void)snprintf(ret_text, TOP_CELL_SIZE, "%s",
                               enum_name(&hotcell__v1__sandbox_state__descriptor, state));
                make_lower(ret_text);
        } else if (usage && usage->wall_time) {
                (void)snprintf(ret_text, TOP_CELL_SIZE, "%s",
                               age_span(usage->wall_time->seconds, age));
        } else {
                show_nothing(ret_text);
        }
}

static const char *pressure_words(int kind)
{
        switch (kind) {
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_MEMORY_LIMIT:
                return "memory nearly full";
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_MEMORY_STALL:
                return "waits for memory";
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_CPU_STALL:
                return "waits for a CPU";
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_IO_STALL:
                return "waits for a disk";
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_CPU_THROTTLED:
                return "CPU limit used up";
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_PROCESSES:
                return "processes nearly full";
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_DISK:
                return "disk nearly full";
        case HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_INODES:
                return "inodes nearly full";
        default:
                return "something is short";
        }
}

static void show_pressures(const Hotcell__V1__SandboxUsageNow *now,
                           char ret_text[static TOP_CELL_SIZE])
{
        size_t n = 0;

        *ret_text = '\0';
        for (size_t i = 0; i < now->n_pressures && n + 1 < TOP_CELL_SIZE; i++)
                n += (size_t)snprintf(ret_text + n, TOP_CELL_SIZE - n, "%s%s", i ? ", " : "",
                                      pressure_words((int)now->pressures[i]->kind));
}

static void sandbox_cell(enum top_column column, const struct top_sandbox *sandbox,
                         char ret_text[static TOP_CELL_SIZE])
{
        const Hotcell__V1__SandboxUsage *usage = sandbox->now->usage;

        if (column == TOP_ID)
                (void)snprintf(ret_text, TOP_CELL_SIZE, "%s", sandbox->now->sandbox_id);
        else if (column == TOP_NAME)
                (void)snprintf(ret_text, TOP_CELL_SIZE, "%s", sandbox->now->name);
        else if (column == TOP_AGE)
                show_age(sandbox, usage ? usage->total : NULL, ret_text);
        else if (column == TOP_PRESSURE)
                show_pressures(sandbox->now, ret_text);
        else if (!usage)
                show_nothing(ret_text);
        else if (column == TOP_MEMORY)
                show_amount((double)usage->memory_bytes, ret_text);
        else if (column == TOP_PROCESSES)
                (void)snprintf(ret_text, TOP_CELL_SIZE, "%" PRId32, usage->processes);
        else if (column == TOP_DISK)
                show_amount((double)usage->disk_bytes, ret_text);
}

static void execution_cell(enum top_column column, const struct top_execution *execution,
                           char ret_text[static TOP_CELL_SIZE])
{
        const Hotcell__V1__ExecutionUsageNow *now = execution->now;
        char age[AGE_SIZE];

        *ret_text = '\0';
        if (column == TOP_ID)
                (void)snprintf(ret_text, TOP_CELL_SIZE, "  %s", now->execution_id);
        else if (column == TOP_AGE && now->usage && now->usage->wall_time)
                (void)snprintf(ret_text, TOP_CELL_SIZE, "%s",
                               age_span(now->usage->wall_time->seconds, age));
        else if (column == TOP_MEMORY)
                show_amount((double)now->memory_bytes, ret_text);
}

void top_cell(enum top_column column, const struct top_sandbox *sandbox,
              const struct top_execution *execution, char ret_text[static TOP_CELL_SIZE])
{
        const struct top_rates *rates = execution ? &execution->rates : &sandbox->rates;

        if (column == TOP_CPU)
                show_percent(rates->cpus, rates->are_known, ret_text);
        else if (column == TOP_WAIT)
                show_percent(rates->waiting, rates->are_known && rates->has_waiting, ret_text);
        else if (column == TOP_SENT)
                show_traffic(rates->sent_bytes, rates, ret_text);
        else if (column == TOP_RECEIVED)
                show_traffic(rates->received_bytes, rates, ret_text);
        else if (execution)
                execution_cell(column, execution, ret_text);
        else
                sandbox_cell(column, sandbox, ret_text);
}

double top_part(enum top_column column, const struct top_sandbox *sandbox)
{
        const Hotcell__V1__SandboxLimits *limits = sandbox->now->limits;
        const Hotcell__V1__SandboxUsage *usage = sandbox->now->usage;

        if (!limits || !usage)
                return -1;
        if (column == TOP_CPU && limits->cpu_millis > 0 && sandbox->rates.are_known)
                return sandbox->rates.cpus * 1000 / limits->cpu_millis;
        if (column == TOP_MEMORY && limits->memory_bytes > 0)
                return (double)usage->memory_bytes / (double)limits->memory_bytes;
        return -1;
}
