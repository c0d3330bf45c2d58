#include "server/settings.h"

#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/rpc/address.h"
#include "server/rpc/rpc.h"

#define MS   INT64_C(1000)
#define SEC  (1000 * MS)
#define MIN_ (60 * SEC)
#define HOUR (60 * MIN_)
#define DAY  (24 * HOUR)
#define KIB_ (INT64_C(1) << 10)
#define MIB_ (INT64_C(1) << 20)
#define GIB_ (INT64_C(1) << 30)
#define TIB_ (INT64_C(1) << 40)

#define SETTING(key_name, kind, member, default_text, least, most, explanation)                    \
        {                                                                                          \
                .key = #key_name, .type = SETTING_##kind,                                          \
                .offset = offsetof(struct config, member), .text = (default_text), .min = (least), \
                .max = (most), .doc = (explanation),                                               \
        }
#define TITLED(group, key_name, kind, member, default_text, least, most, explanation)              \
        {                                                                                          \
                .title = (group), .key = #key_name, .type = SETTING_##kind,                        \
                .offset = offsetof(struct config, member), .text = (default_text), .min = (least), \
                .max = (most), .doc = (explanation),                                               \
        }

const struct setting settings[] = {
        TITLED("Where it listens, and what it works with", unix, SOCKET, unix_path,
               "/run/hotcell/hotcell.sock", 0, 0,
               "The unix socket for clients. Who may connect is an operator: its mode is 0660."),
        SETTING(unix_group, NAME, unix_group, "", 0, 0,
                "The socket's group. Empty: that of the process."),
        SETTING(tcp, TCP, tcp, "", 0, 0,
                "A loopback address for clients with an API key, such as 127.0.0.1:7777. Empty: "
                "none. Others are refused: the connection is plaintext."),
        SETTING(runtime_socket, SOCKET, runtime_socket, "/run/hotcell/runtime.sock", 0, 0,
                "The socket of hotcell-runtime."),
        SETTING(state_dir, PATH, state_dir, "/var/lib/hotcell/state", 0, 0,
                "The folder of the database, hotcell.db."),
        SETTING(state_reserve, BYTES, state_reserve_bytes, "8MiB", 0, TIB_,
                "Room in that folder for the ends of what runs, for when the disk is full."),
        SETTING(log_level, LOG_LEVEL, log_level, "info", 0, 0,
                "What is logged: error, warning, info or debug."),
        SETTING(allow_root, BOOL, allow_root, "no", 0, 0,
                "Run also as root. It needs no privilege, so this only makes a mistake of its own "
                "worse."),

        TITLED("Limits of a sandbox: of one that sets none, and the highest that it may ask for",
               memory_default, BYTES, memory_default_bytes, "1GiB", 16 * MIB_, 64 * TIB_,
               "Memory, files included."),
        SETTING(memory_max, BYTES, memory_max_bytes, "8GiB", 16 * MIB_, 64 * TIB_,
                "Its highest value."),
        SETTING(cpu_millis_default, COUNT, cpu_default_millis, "1000", 10, 1000000,
                "CPU time a second, in thousandths of one CPU."),
        SETTING(cpu_millis_max, COUNT, cpu_max_millis, "16000", 10, 1000000, "Its highest value."),
        SETTING(processes_default, COUNT, processes_default, "256", 8, 1000000,
                "Processes and threads."),
        SETTING(processes_max, COUNT, processes_max, "4096", 8, 1000000, "Its highest value."),
        SETTING(disk_default, BYTES, disk_default_bytes, "512MiB", MIB_, 64 * TIB_,
                "Files that it writes. They count as memory, too: at least 64 MiB below "
                "memory_default."),
        SETTING(disk_max, BYTES, disk_max_bytes, "4GiB", MIB_, 64 * TIB_, "Its highest value."),
        SETTING(open_files_default, COUNT, open_files_default, "1024", 32, 1000000,
                "Open files of each process."),
        SETTING(open_files_max, COUNT, open_files_max, "65536", 32, 1000000, "Its highest value."),
        SETTING(cpu_weight_default, COUNT, cpu_weight_default, "100", 1, 10000,
                "Its part of the CPUs when sandboxes want more than there is."),
        SETTING(cpu_weight_max, COUNT, cpu_weight_max, "1000", 1, 10000, "Its highest value."),
        SETTING(disk_inodes_max, COUNT, disk_inodes_max, "1048576", 1024, 1 << 30,
                "Highest number of files, directories and links that it makes. One that sets none "
                "gets one for each 4 KiB of its disk."),
        SETTING(io_default, BYTES, io_default_bytes, "0", 0, TIB_,
                "Bytes a second that it may read from the disk of the templates, and write to it. "
                "0: no bound; anything else needs the io controller of cgroups."),
        SETTING(io_max, BYTES, io_max_bytes, "64GiB", MIB_, TIB_, "Its highest value."),

        TITLED("Limits of an execution", timeout_default, DURATION, timeout_default_usec, "1m", 0,
               365 * DAY, "How long it may run. 0: as long as it likes, if allow_no_timeout."),
        SETTING(timeout_max, DURATION, timeout_max_usec, "1d", MS, 365 * DAY, "Its highest value."),
        SETTING(allow_no_timeout, BOOL, allow_no_timeout, "no", 0, 0,
                "Requests may ask for no timeout at all."),
        SETTING(output_default, BYTES, output_default_bytes, "64MiB", 4 * KIB_, TIB_,
                "Bytes of output, all streams and results together."),
        SETTING(output_max, BYTES, output_max_bytes, "1GiB", 4 * KIB_, TIB_, "Its highest value."),

        TITLED("Sandboxes", sandboxes_max, COUNT, sandboxes_max, "100", 1, 100000,
               "How many may live at once, of all owners."),
        SETTING(sandboxes_per_owner_max, COUNT, sandboxes_per_owner_max, "0", 0, 100000,
                "How many of them one API key may have, besides owner_share. 0: only that."),
        SETTING(creations_max, COUNT, creations_max, "64", 1, 100000,
                "How many may be in the making at once."),
        SETTING(memory_total, BYTES, memory_total_bytes, "0", 0, 64 * TIB_,
                "The sum of the memory limits of those that live. 0: the machine's memory less "
                "memory_reserve, times memory_overcommit."),
        SETTING(memory_reserve, BYTES, memory_reserve_bytes, "1GiB", 0, 64 * TIB_,
                "Memory of the machine that is not promised to sandboxes; at most half of it."),
        SETTING(memory_overcommit, COUNT, memory_overcommit_percent, "400", 1, 100000,
                "How much of the rest is promised, in percent: 100 promises only what there is, "
                "more relies on sandboxes that do not use all they may."),
        SETTING(cpu_millis_total, COUNT, cpu_total_millis, "0", 0, INT64_C(1000000000),
                "The sum of the CPU limits of those that live, in thousandths of a CPU. 0: the "
                "machine's CPUs, times cpu_overcommit."),
        SETTING(cpu_overcommit, COUNT, cpu_overcommit_percent, "20000", 1, 1000000,
                "How much of the machine's CPUs is promised, in percent. Most sandboxes are idle; "
                "those that are not share them by their weights."),
        SETTING(updates_per_second, COUNT, updates_per_second, "50", 1, 100000,
                "How many updates of sandboxes one owner may make, twice as many at once."),
        SETTING(egress_rules_total_max, BYTES, egress_rules_total_bytes, "64MiB", 0, TIB_,
                "Bytes of the egress rules of all that live; those of one are at most 3.75 MiB."),
        SETTING(ttl_default, DURATION, ttl_default_usec, "1h", 0, 3650 * DAY,
                "How long one lives that does not say. 0: for ever, if allow_no_ttl."),
        SETTING(ttl_max, DURATION, ttl_max_usec, "30d", SEC, 3650 * DAY, "Its highest value."),
        SETTING(allow_no_ttl, BOOL, allow_no_ttl, "no", 0, 0,
                "Requests may ask for no end at all."),
        SETTING(idle_timeout_default, DURATION, idle_timeout_default_usec, "0", 0, 3650 * DAY,
                "How long one may be idle that does not say. 0: for ever."),
        SETTING(idle_timeout_max, DURATION, idle_timeout_max_usec, "30d", SEC, 3650 * DAY,
                "The highest idle timeout."),
        SETTING(allow_no_idle_timeout, BOOL, allow_no_idle_timeout, "yes", 0, 0,
                "Requests may ask for no idle timeout at all."),

        TITLED("What all owners share: sandboxes, memory, executions, what waits, streams",
               owner_share, COUNT, owner_percent, "50", 1, 100,
               "How much of it one API key's owner may have while no other has any, in percent. "
               "The more others have, the less it is: with 50, what an owner has may grow up to "
               "what is free. 100: as much as there is. Operators, who use the unix socket without "
               "a key, may have all that is free."),
        SETTING(operator_reserve, COUNT, operator_percent, "10", 0, 90,
                "How much of it is kept for operators, in percent."),

        TITLED("Executions and their output", queue_max, COUNT, queue_max, "32", 0, 10000,
               "How many may wait in one context."),
        SETTING(executions_max, COUNT, executions_max, "512", 1, 1000000,
                "How many contexts may have something to run at once, of all owners."),
        SETTING(executions_queued_max, COUNT, executions_queued_max, "4096", 0, 10000000,
                "How many executions may wait behind those, of all owners."),
        SETTING(queued_code_max, BYTES, queued_bytes_max, "8MiB", 2 * MIB_, TIB_,
                "Bytes of code and environments that wait for a context or its interpreter, of one "
                "sandbox."),
        SETTING(queued_code_total_max, BYTES, queued_bytes_total_max, "64MiB", 2 * MIB_, TIB_,
                "The same of all sandboxes together."),
        SETTING(queue_timeout_default, DURATION, queue_timeout_default_usec, "0", 0, 365 * DAY,
                "How long one may wait that does not say. 0: as long as it takes."),
        SETTING(queue_timeout_max, DURATION, queue_timeout_max_usec, "1d", MS, 365 * DAY,
                "The highest queue timeout."),
        SETTING(ring_size, BYTES, ring_bytes, "1MiB", 64 * KIB_, GIB_,
                "Output of one execution that is kept for clients that are slow or come back."),
        SETTING(rings_retained, BYTES, rings_retained_bytes, "32MiB", 0, TIB_,
                "The same of all ended executions together, in memory and (up to 4 MiB of one) in the "
                "database, from where a restart of the server takes it again. The oldest of those "
                "owners who have most go first."),
        SETTING(rings_retained_for, DURATION, rings_retained_usec, "10m", 0, 365 * DAY,
                "How long that of an ended execution is kept."),
        SETTING(rich_part_max, BYTES, rich_part_max_bytes, "16MiB", 64 * KIB_, GIB_,
                "Highest size of one representation of a result, such as an image."),
        SETTING(interrupt_again_after, DURATION, interrupt_again_usec, "500ms", 10 * MS, HOUR,
                "A program that was interrupted and goes on is interrupted again after this,"),
        SETTING(interrupt_kill_after, DURATION, interrupt_kill_usec, "1s", 10 * MS, HOUR,
                "and killed after this."),
        SETTING(kernel_start_timeout, DURATION, kernel_start_timeout_usec, "30s", 100 * MS, HOUR,
                "How long an interpreter may take to start."),

        TITLED("What is kept in the database of what is over; 0 sets no bound", retention, DURATION,
               retention_usec, "7d", 0, 3650 * DAY,
               "How long ended sandboxes and executions, the events of sandboxes and those of their "
               "egress are kept. "
               "Above the bounds below, the oldest of those owners go who have most."),
        SETTING(retention_sandboxes, COUNT, retention_sandboxes, "100000", 0, INT64_C(1000000000),
                "How many ended sandboxes."),
        SETTING(retention_executions, COUNT, retention_executions, "500000", 0, INT64_C(1000000000),
                "How many ended executions."),
        SETTING(retention_events, COUNT, retention_events, "200000", 0, INT64_C(1000000000),
                "How many events of sandboxes."),
        SETTING(retention_events_size, BYTES, retention_events_bytes, "256MiB", 0, 64 * TIB_,
                "Bytes of events of sandboxes: each has the labels of its sandbox."),
        SETTING(retention_egress_events, COUNT, retention_egress_events, "200000", 0,
                INT64_C(1000000000),
                "How many events of their egress: what was denied, failed or ended. They go with "
                "their sandbox at the latest."),
        SETTING(retention_egress_events_size, BYTES, retention_egress_events_bytes, "128MiB", 0,
                64 * TIB_, "Bytes of them."),
        SETTING(request_ids_kept, DURATION, request_ids_kept_usec, "1d", 0, 3650 * DAY,
                "How long a request with a request_id is remembered: as long, a retry is answered "
                "and not run again."),
        SETTING(request_ids_max, COUNT, request_ids_max, "10000", 0, INT64_C(1000000000),
                "How many of them, of each owner; the oldest go first."),
        SETTING(ledger_period, DURATION, ledger_period_usec, "1m", SEC, DAY,
                "How often a row is written into the ledger for each living sandbox, with what it "
                "used beside its executions."),
        SETTING(ledger_retention, DURATION, ledger_retention_usec, "400d", 0, 3650 * DAY,
                "How long rows of the ledger are kept: what was used, whatever becomes of the "
                "sandboxes and executions that used it."),
        SETTING(ledger_rows_max, COUNT, ledger_rows_max, "20000000", 0, INT64_C(1000000000000),
                "How many of them, of all owners together; some 350 bytes each. Above that the oldest "
                "go of the owners who have most, with a warning."),

        TITLED("The gRPC server", connections_max, COUNT, connections_max, "256", 1, 65536,
               "Connections at once, an eighth of them only for the unix socket. When there is no "
               "place, those over TCP that have not shown a key are closed first."),
        SETTING(connections_per_owner_max, COUNT, connections_per_owner_max, "0", 0, 65536,
                "How many of them one API key may have. 0: a quarter of connections_max. Operators "
                "have no bound of their own."),
        SETTING(identify_timeout, DURATION, identify_timeout_usec, "10s", SEC, HOUR,
                "How long a connection over TCP may go on without a call with an API key."),
        SETTING(streams_max, COUNT, streams_max, "256", 1, 65536,
                "Calls at once on one connection."),
        SETTING(calls_per_owner_max, COUNT, calls_per_owner_max, "256", 1, 65536,
                "Calls at once of one API key. Operators have no bound of their own."),
        SETTING(open_streams_max, COUNT, open_streams_max, "4096", 1, 1000000,
                "Streams of executions and watches at once, of all owners."),
        SETTING(receive_max, BYTES, receive_max_bytes, "4MiB", 64 * KIB_, 64 * MIB_,
                "Highest size of a request."),
        SETTING(request_timeout, DURATION, request_timeout_usec, "20s", SEC, HOUR,
                "How long a request may take to come, once its call has begun."),
        SETTING(unread_per_owner_max, BYTES, unread_per_owner_max_bytes, "32MiB", 1 * MIB_,
                1 * GIB_, "Answers that the clients of one owner have not read yet."),
        SETTING(stop_grace, DURATION, stop_grace_usec, "5s", 0, HOUR,
                "When stopping: how long calls that run may go on."),
};
const size_t n_settings = ARRAY_SIZE(settings);

static const char *const accepted_forms[] = {
        [SETTING_PATH] = "a path",
        [SETTING_SOCKET] = "a path below 108 bytes",
        [SETTING_NAME] = "a text below 512 bytes",
        [SETTING_TCP] = "127.0.0.1:PORT, [::1]:PORT, localhost:PORT or nothing",
        [SETTING_BOOL] = "yes or no",
        [SETTING_COUNT] = "a whole number",
        [SETTING_BYTES] = "bytes such as 4096, 64KiB, 512M or 1GiB",
        [SETTING_DURATION] = "a duration such as 250ms, 1.5s, 2m, 1h or 7d",
        [SETTING_LOG_LEVEL] = "error, warning, info or debug",
};
static_assert(ARRAY_SIZE(accepted_forms) == _SETTING_TYPE_N, "every type says what it accepts");

static void *member(const struct setting *setting, struct config *config)
{
        return (char *)config + setting->offset;
}

static int64_t number_of(const struct setting *setting, const struct config *config)
{
        int64_t number;

        memcpy(&number, (const char *)config + setting->offset, sizeof(number));
        return number;
}

static bool is_number(enum setting_type type)
{
        return type == SETTING_COUNT || type == SETTING_BYTES || type == SETTING_DURATION;
}

static bool parse_number(enum setting_type type, const char *text, int64_t *ret_number)
{
        uint64_t number = 0;
        int64_t nanoseconds = 0;

        if (type == SETTING_DURATION) {
                if (!text_to_duration(text, &nanoseconds))
                        return false;
                *ret_number = nanoseconds / 1000;
                return true;
        }
        if (type == SETTING_BYTES ? !text_to_bytes(text, &number)
                                  : !text_to_uint64(text, INT64_MAX, &number))
                return false;
        *ret_number = (int64_t)MIN(number, (uint64_t)INT64_MAX);
        return true;
}

static bool parse_bool(const char *text, bool *ret_value)
{
        bool is_yes = strcmp(text, "yes") == 0 || strcmp(text, "true") == 0;

        if (!is_yes && strcmp(text, "no") != 0 && strcmp(text, "false") != 0)
                return false;
        *ret_value = is_yes;
        return true;
}

static void format_number(enum setting_type type, int64_t number,
                          char ret_text[static SETTING_VALUE_BUFFER])
{
        static const struct {
                enum setting_type type;
                int64_t factor;
                const char *unit;
        } units[] = {
                { SETTING_BYTES, TIB_, "TiB" },  { SETTING_BYTES, GIB_, "GiB" },
                { SETTING_BYTES, MIB_, "MiB" },  { SETTING_BYTES, KIB_, "KiB" },
                { SETTING_DURATION, DAY, "d" },  { SETTING_DURATION, HOUR, "h" },
                { SETTING_DURATION, MIN_, "m" }, { SETTING_DURATION, SEC, "s" },
                { SETTING_DURATION, MS, "ms" },
        };

        for (size_t i = 0; number && i < ARRAY_SIZE(units); i++) {
                if (units[i].type != type || number % units[i].factor)
                        continue;
                (void)snprintf(ret_text, SETTING_VALUE_BUFFER, "%lld%s",
                               (long long)(number / units[i].factor), units[i].unit);
                return;
        }
        if (type == SETTING_DURATION && number)
                (void)snprintf(ret_text, SETTING_VALUE_BUFFER, "%lld.%03lldms",
                               (long long)(number / MS), (long long)(number % MS));
        else
                (void)snprintf(ret_text, SETTING_VALUE_BUFFER, "%lld", (long long)number);
}

static int refuse_form(const struct setting *setting, const char *text,
                       char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        (void)snprintf(ret_why, CONFIG_MESSAGE_BUFFER, "`%.100s` is not accepted: give %s", text,
                       accepted_forms[setting->type]);
        return SETTING_E_INVALID;
}

static int set_number(const struct setting *setting, const char *text, struct config *config,
                      char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        char least[SETTING_VALUE_BUFFER], most[SETTING_VALUE_BUFFER];
        int64_t number = 0;

        if (!parse_number(setting->type, text, &number))
                return refuse_form(setting, text, ret_why);
        if (number < setting->min || number > setting->max) {
                format_number(setting->type, setting->min, least);
                format_number(setting->type, setting->max, most);
                (void)snprintf(ret_why, CONFIG_MESSAGE_BUFFER,
                               "`%.100s` is out of bounds: give %s from %.60s to %.60s", text,
                               accepted_forms[setting->type], least, most);
                return SETTING_E_INVALID;
        }
        memcpy(member(setting, config), &number, sizeof(number));
        return 0;
}

static int set_text(const struct setting *setting, const char *text, struct config *config,
                    char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        size_t max = setting->type == SETTING_SOCKET
                             ? sizeof(((struct sockaddr_un *)NULL)->sun_path) - 1
                             : CONFIG_TEXT_BUFFER - 1;
        bool may_be_empty = setting->type == SETTING_NAME || setting->type == SETTING_TCP;

        if (strlen(text) > max || (!*text && !may_be_empty))
                return refuse_form(setting, text, ret_why);
        (void)memcpy(member(setting, config), text, strlen(text) + 1);
        return 0;
}

static int set_tcp(const struct setting *setting, const char *text, struct config *config,
                   char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        struct sockaddr_storage address;
        socklen_t size;
        int r;

        r = *text ? address_parse_loopback(text, &address, &size) : 0;
        if (r == RPC_E_NOT_LOOPBACK) {
                (void)snprintf(ret_why, CONFIG_MESSAGE_BUFFER,
                               "`%.100s` is not a loopback address: connections are plaintext, so "
                               "others could read along; give %s",
                               text, accepted_forms[SETTING_TCP]);
                return SETTING_E_INVALID;
        }
        if (r)
                return refuse_form(setting, text, ret_why);
        return set_text(setting, text, config, ret_why);
}

const struct setting *setting_find(const char *key)
{
        for (size_t i = 0; i < n_settings; i++)
                if (strcmp(settings[i].key, key) == 0)
                        return &settings[i];
        return NULL;
}

int setting_set(const struct setting *setting, const char *text, struct config *config,
                char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        if (is_number(setting->type))
                return set_number(setting, text, config, ret_why);
        if (setting->type == SETTING_TCP)
                return set_tcp(setting, text, config, ret_why);
        if (setting->type == SETTING_BOOL)
                return parse_bool(text, member(setting, config))
                               ? 0
                               : refuse_form(setting, text, ret_why);
        if (setting->type == SETTING_LOG_LEVEL)
                return log_level_from_name(text, member(setting, config))
                               ? 0
                               : refuse_form(setting, text, ret_why);
        return set_text(setting, text, config, ret_why);
}

void settings_set_defaults(struct config *config)
{
        char why[CONFIG_MESSAGE_BUFFER];

        *config = (struct config){ 0 };
        for (size_t i = 0; i < n_settings; i++) {
                int r = setting_set(&settings[i], settings[i].text, config, why);

                assert(r == 0);
                (void)r;
        }
}

void setting_format(const struct setting *setting, const struct config *config,
                    char ret_text[static SETTING_VALUE_BUFFER])
{
        static const char *const levels[] = {
                [LOG_LEVEL_ERROR] = "error",
                [LOG_LEVEL_WARNING] = "warning",
                [LOG_LEVEL_INFO] = "info",
                [LOG_LEVEL_DEBUG] = "debug",
        };
        const char *value = (const char *)config + setting->offset;

        static_assert(ARRAY_SIZE(levels) == _LOG_LEVEL_N, "every level has a name");
        if (is_number(setting->type))
                format_number(setting->type, number_of(setting, config), ret_text);
        else if (setting->type == SETTING_BOOL)
                (void)snprintf(ret_text, SETTING_VALUE_BUFFER, "%s",
                               *(const bool *)value ? "yes" : "no");
        else if (setting->type == SETTING_LOG_LEVEL)
                (void)snprintf(ret_text, SETTING_VALUE_BUFFER, "%s", levels[config->log_level]);
        else
                (void)snprintf(ret_text, SETTING_VALUE_BUFFER, "%s", value);
}

/* A default must not be above what a request may ask for. */
static int check_maxima(const struct config *config, char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        for (size_t i = 1; i < n_settings; i++) {
                const struct setting *most = &settings[i], *usual = &settings[i - 1];
                size_t n_stem = strlen(most->key) - MIN(strlen(most->key), strlen("max"));

                if (strcmp(most->key + n_stem, "max") != 0 ||
                    strncmp(most->key, usual->key, n_stem) != 0 ||
                    strcmp(usual->key + n_stem, "default") != 0)
                        continue;
                if (number_of(usual, config) <= number_of(most, config))
                        continue;
                (void)snprintf(ret_why, CONFIG_MESSAGE_BUFFER, "%s is above %s", usual->key,
                               most->key);
                return SETTING_E_INVALID;
        }
        return 0;
}

static int check_none(bool is_none, bool is_allowed, const char *names,
                      char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        if (!is_none || is_allowed)
                return 0;
        (void)snprintf(ret_why, CONFIG_MESSAGE_BUFFER, "%s", names);
        return SETTING_E_INVALID;
}

int settings_check(const struct config *config, char ret_why[static CONFIG_MESSAGE_BUFFER])
{
        int r;

        r = check_maxima(config, ret_why);
        if (r == 0)
                r = check_none(!config->timeout_default_usec, config->allow_no_timeout,
                               "timeout_default is 0 and allow_no_timeout is no", ret_why);
        if (r == 0)
                r = check_none(!config->ttl_default_usec, config->allow_no_ttl,
                               "ttl_default is 0 and allow_no_ttl is no", ret_why);
        if (r == 0)
                r = check_none(!config->idle_timeout_default_usec, config->allow_no_idle_timeout,
                               "idle_timeout_default is 0 and allow_no_idle_timeout is no",
                               ret_why);
        if (r)
                return r;
        if (config->disk_default_bytes > config->memory_default_bytes - 64 * MIB_) {
                (void)snprintf(ret_why, CONFIG_MESSAGE_BUFFER,
                               "disk_default is not 64 MiB below memory_default: files count as "
                               "memory");
                return SETTING_E_INVALID;
        }
        return 0;
}
