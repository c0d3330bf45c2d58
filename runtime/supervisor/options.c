#include "runtime/supervisor/options.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>

#include "bpf/meter.h"
#include "runtime/base/address_port.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "runtime/policy/always.h"
#include "runtime/supervisor/direct.h"
#include "runtime/supervisor/netns.h"

enum {
        SANDBOXES_MAX = 16384,
        ID_RANGE = 65536,
        ID_BASE_MIN = 1 << 20, /* above the ids of people and services */
        NAMESERVER_PORT = 53,
        SLOTS_OF_SANDBOX = 17, /* its init, and as many contexts as hotcelld allows */
        SLOTS_MIN = 1024,
};

#define ID_END          ((uint64_t)UINT32_MAX - 1) /* the last two ids are no ids */
#define PING_GROUPS_END ((uint64_t)1 << 31)        /* the kernel takes no higher groups for those */

static bool set_text(const char **field, const char *value)
{
        *field = value;
        return value[0] != '\0';
}

static bool set_path(const char **field, const char *value)
{
        *field = value;
        return value[0] == '/' && strlen(value) < 4096;
}

static bool set_number(uint32_t *field, const char *value, uint64_t min, uint64_t max)
{
        uint64_t number;

        if (!text_to_uint64(value, max, &number) || number < min)
                return false;
        *field = (uint32_t)number;
        return true;
}

static bool set_run_dir(struct options *options, const char *value)
{
        return set_path(&options->run_dir, value);
}

static bool set_store(struct options *options, const char *value)
{
        return set_path(&options->store, value);
}

static bool set_server_user(struct options *options, const char *value)
{
        return set_text(&options->server_user, value);
}

static bool set_server_group(struct options *options, const char *value)
{
        return set_text(&options->server_group, value);
}

static bool set_supervise(struct options *options, const char *value)
{
        return set_path(&options->supervise, value);
}

static bool set_egress(struct options *options, const char *value)
{
        return set_path(&options->egress, value);
}

static bool set_egress_user(struct options *options, const char *value)
{
        options->egress_user = value;
        return value[0] != '\0';
}

static bool append(const char *list[], size_t max, const char *value)
{
        size_t n = 0;

        while (list[n])
                n++;
        if (n == max)
                return false;
        list[n] = value;
        return true;
}

static bool add_egress_open(struct options *options, const char *value)
{
        struct policy_prefix prefix;
        int r = policy_always_parse_opened(value, &prefix);

        options->problem = r ? policy_problem_text(r) : "is one more than the 64 that there may be";
        return r == 0 && append(options->egress_open, OPTIONS_PREFIXES_MAX, value);
}

/* 0.0.0.0/8, and from 224.0.0.0 on, where multicast, what nobody has and broadcast are. */
static bool is_host_v4(const uint8_t bytes[4])
{
        return bytes[0] != 0 && bytes[0] < 224;
}

/* Whether one host may have it. */
static bool is_host(const struct address_port *server)
{
        static const uint8_t unspecified[16] = { 0 };
        static const uint8_t mapped[12] = { [10] = 0xff, 0xff };

        if (!server->is_v6)
                return is_host_v4(server->bytes);
        if (memcmp(server->bytes, mapped, sizeof(mapped)) == 0)
                return is_host_v4(server->bytes + sizeof(mapped));
        return server->bytes[0] != 0xff &&
               memcmp(server->bytes, unspecified, sizeof(unspecified)) != 0;
}

static bool add_egress_nameserver(struct options *options, const char *value)
{
        struct address_port server;

        if (!address_port_parse(value, NAMESERVER_PORT, &server)) {
                options->problem = "is not an address with or without a port; write it like "
                                   "8.8.8.8, 8.8.8.8:53 or [2001:4860:4860::8888]:53";
                return false;
        }
        if (!is_host(&server)) {
                options->problem = "is no address of one host";
                return false;
        }
        options->problem = "is one more than the three that there may be";
        return append(options->egress_nameservers, OPTIONS_NAMESERVERS_MAX, value);
}

/* What is wrong is told by check(). */
static bool add_direct_pool(struct options *options, const char *value)
{
        if (!options->direct_problem) {
                options->direct_problem = direct_pool_add(&options->direct_pool, value);
                options->direct_text = value;
        }
        return true;
}

static bool set_cgroup_parent(struct options *options, const char *value)
{
        return set_path(&options->cgroup_parent, value) && !strstr(value, "..");
}

static bool set_id_base(struct options *options, const char *value)
{
        return set_number(&options->id_base, value, ID_BASE_MIN, UINT32_MAX) &&
               options->id_base % ID_RANGE == 0;
}

static bool set_sandboxes_max(struct options *options, const char *value)
{
        return set_number(&options->sandboxes_max, value, 1, SANDBOXES_MAX);
}

static bool set_netns_pool(struct options *options, const char *value)
{
        return set_number(&options->netns_pool, value, 0, NETNS_POOL_MAX);
}

static bool set_meter_slots(struct options *options, const char *value)
{
        return set_number(&options->meter_slots, value, 1, METER_SLOTS_MAX);
}

static bool set_no_meter_programs(struct options *options, const char *value)
{
        (void)value;
        options->has_meter_programs = false;
        return true;
}

static bool set_log_level(struct options *options, const char *value)
{
        return log_level_from_name(value, &options->log_level);
}

static bool set_init(struct options *options, const char *value)
{
        return set_path(&options->init, value);
}

static bool set_probe(struct options *options, const char *value)
{
        if (value && strcmp(value, "json") != 0 && strcmp(value, "text") != 0)
                return false;
        options->mode =
                value && strcmp(value, "json") == 0 ? OPTIONS_PROBE_JSON : OPTIONS_PROBE_TEXT;
        return true;
}

/* Each option: how it is set, what its value must be, and what it is for. */
static const struct {
        const char *name;
        int argument;
        bool (*set)(struct options *options, const char *value);
        const char *value;
        const char *help;
} table[] = {
        { "run-dir", required_argument, set_run_dir, "DIR",
          "absolute path for the lock and the socket [/run/hotcell]" },
        { "store", required_argument, set_store, "DIR",
          "absolute path of the templates [/var/lib/hotcell/templates]" },
        { "server-user", required_argument, set_server_user, "NAME",
          "user of hotcelld, who may connect [hotcell]" },
        { "server-group", required_argument, set_server_group, "NAME",
          "group of the socket and of hotcelld [the user's]" },
        { "supervise", required_argument, set_supervise, "FILE",
          "absolute path of hotcelld: start it as the server user, and again when it fails" },
        { "egress", required_argument, set_egress, "FILE",
          "absolute path of hotcell-egress: start it; without, nothing leaves sandboxes" },
        { "egress-user", required_argument, set_egress_user, "NAME",
          "user of hotcell-egress [hotcell-egress]" },
        { "egress-open", required_argument, add_egress_open, "CIDR",
          "let rules allow this part of what is always denied, such as 10.1.0.0/16; may be "
          "repeated" },
        { "egress-nameserver", required_argument, add_egress_nameserver, "ADDRESS",
          "address[:port] of a resolver to ask, up to three [those of /etc/resolv.conf]" },
        { "direct-pool", required_argument, add_direct_pool, "CIDR",
          "direct mode: give each sandbox a device with an address of this prefix, over which UDP "
          "and ICMP leave that rules allow; one of IPv4, one of IPv6, or both" },
        { "cgroup-parent", required_argument, set_cgroup_parent, "PATH",
          "group, as in /proc/self/cgroup, to make sandboxes in [the runtime's own]" },
        { "id-base", required_argument, set_id_base, "ID",
          "first user and group id of sandboxes, a multiple of 65536 [1073741824]" },
        { "sandboxes-max", required_argument, set_sandboxes_max, "N",
          "sandboxes at once, 1 to 16384 [256]" },
        { "netns-pool", required_argument, set_netns_pool, "N",
          "network namespaces made in advance, 0 to 256 [8]" },
        { "meter-slots", required_argument, set_meter_slots, "N",
          "processes that BPF measures at once [17 for each sandbox, at least 1024]" },
        { "no-meter-programs", no_argument, set_no_meter_programs, NULL,
          "measure by the files of groups alone, as on a kernel that refuses the programs" },
        { "log-level", required_argument, set_log_level, "LEVEL",
          "error, warning, info or debug [info]" },
        { "init", required_argument, set_init, "FILE", "absolute path of hotcell-init" },
        { "probe", optional_argument, set_probe, "text|json",
          "say which walls hold on this host, and exit" },
        { "version", no_argument, NULL, NULL, "say the version, and exit" },
        { "help", no_argument, NULL, NULL, "say this, and exit" },
};

static void print_help(void)
{
        printf("Usage: hotcell-runtime [OPTION]... [-- HOTCELLD-ARGUMENT...]\n"
               "Starts and contains sandboxes for hotcelld.\n\n");
        for (size_t i = 0; i < ARRAY_SIZE(table); i++) {
                char left[48];

                (void)snprintf(left, sizeof(left), "--%s%s%s", table[i].name,
                               table[i].value ? "=" : "", table[i].value ? table[i].value : "");
                printf("  %-24s %s\n", left, table[i].help);
        }
        printf("\nSIGHUP starts hotcelld anew from its file; nothing in the sandboxes is ended.\n"
               "SIGTERM ends hotcelld and all sandboxes.\n");
}

static int usage_error(const char *text, const char *value)
{
        (void)fprintf(stderr, "hotcell-runtime: %s%s%s\nTry: hotcell-runtime --help\n", text,
                      value ? ": " : "", value ? value : "");
        return OPTIONS_E_USAGE;
}

static int apply(struct options *options, size_t row, const char *value)
{
        char text[96];
        char said[512];

        if (!table[row].set) {
                if (strcmp(table[row].name, "version") == 0)
                        printf("hotcell-runtime %s\n", HOTCELL_VERSION);
                else
                        print_help();
                return OPTIONS_E_DONE;
        }
        options->problem = NULL;
        if (table[row].set(options, value))
                return 0;
        (void)snprintf(text, sizeof(text), "bad value of --%s", table[row].name);
        if (!options->problem)
                return usage_error(text, value);
        (void)snprintf(said, sizeof(said), "'%.200s' %s", value, options->problem);
        return usage_error(text, said);
}

/* Whoever asks for direct mode gets it, or no runtime. */
static int check_direct(const struct options *options)
{
        uint32_t n_wanted = direct_wanted(options->sandboxes_max, options->netns_pool);
        char text[160];

        if (options->direct_problem) {
                (void)snprintf(text, sizeof(text), "--direct-pool %s",
                               direct_pool_problem_text(options->direct_problem));
                return usage_error(text, options->direct_text);
        }
        if (!direct_pool_is_set(&options->direct_pool))
                return 0;
        if (!options->egress)
                return usage_error("--direct-pool needs --egress", NULL);
        if (options->id_base + (uint64_t)options->sandboxes_max * ID_RANGE > PING_GROUPS_END)
                return usage_error("--direct-pool needs group ids of sandboxes below 2147483648: "
                                   "lower --id-base",
                                   NULL);
        if (direct_pool_size(&options->direct_pool) >= n_wanted)
                return 0;
        (void)snprintf(text, sizeof(text),
                       "--direct-pool has %u addresses, and %u are needed: --sandboxes-max, "
                       "--netns-pool and %d for those that end",
                       direct_pool_size(&options->direct_pool), n_wanted, (int)DIRECT_SPARE);
        return usage_error(text, NULL);
}

static int check(const struct options *options)
{
        if (options->id_base + (uint64_t)options->sandboxes_max * ID_RANGE > ID_END)
                return usage_error("--id-base leaves no room for --sandboxes-max ranges", NULL);
        if (options->server_arguments[0] && !options->supervise)
                return usage_error("unexpected argument", options->server_arguments[0]);
        return check_direct(options);
}

int options_parse(int argc, char *argv[], struct options *ret_options)
{
        struct option names[ARRAY_SIZE(table) + 1] = { 0 };
        struct options options = {
                .run_dir = "/run/hotcell",
                .store = "/var/lib/hotcell/templates",
                .server_user = "hotcell",
                .egress_user = "hotcell-egress",
                .id_base = 1U << 30,
                .sandboxes_max = 256,
                .netns_pool = 8,
                .has_meter_programs = true,
                .log_level = LOG_LEVEL_INFO,
                .init = HOTCELL_INIT_PATH,
        };
        int row;
        int r;

        for (size_t i = 0; i < ARRAY_SIZE(table); i++)
                names[i] = (struct option){ .name = table[i].name,
                                            .has_arg = table[i].argument,
                                            .val = (int)i };
        opterr = 0;
        optind = 1;
        while ((row = getopt_long(argc, argv, "+", names, NULL)) != -1) {
                if (row == '?')
                        return usage_error("unknown option or missing value", argv[optind - 1]);
                r = apply(&options, (size_t)row, optarg);
                if (r)
                        return r;
        }
        options.server_arguments = &argv[optind];
        if (options.meter_slots == 0)
                options.meter_slots = MAX(SLOTS_OF_SANDBOX * options.sandboxes_max, SLOTS_MIN);
        r = check(&options);
        if (!r)
                *ret_options = options;
        return r;
}
