/*
 * doctor: every wall, whether it holds, and the fix. The server is asked first; without one, root
 * lets the runtime probe for itself, which needs no daemon.
 */

#include <stdio.h>
#include <string.h>

#include "hotcell/v1/server_service.pb-c.h"

#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/error.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/print_metering.h"
#include "cli/request.h"
#include "cli/runtime_probe.h"
#include "cli/table.h"
#include "cli/target.h"
#include "runtime/base/macros.h"

/* A probe starts a sandbox and tries every wall. */
enum { PROBE_TIMEOUT_MSEC = 60 * 1000 };

static const ProtobufCServiceDescriptor *const service = &hotcell__v1__server_service__descriptor;

static void add_wall(struct table *table, const Hotcell__V1__Wall *wall)
{
        const char *const cells[] = {
                wall->name,
                wall->holds      ? "yes"
                : wall->required ? "NO"
                                 : "no (optional)",
                wall->detail,
        };

        table_add(table, cells);
}

static void print_walls(Hotcell__V1__Wall *const *walls, size_t n_walls)
{
        static const char *const headers[] = { "WALL", "HOLDS", "DETAIL", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);
        _cleanup_(table_freep) struct table *fixes = table_new((const char *[]){ "FIX", "", NULL });
        bool has_fix = false;

        for (size_t i = 0; i < n_walls; i++) {
                add_wall(table, walls[i]);
                if (walls[i]->holds || !*walls[i]->fix)
                        continue;
                table_add(fixes, (const char *[]){ walls[i]->name, walls[i]->fix });
                has_fix = true;
        }
        table_print(table, stdout);
        if (has_fix) {
                (void)printf("\n");
                table_print(fixes, stdout);
        }
}

static bool all_required_hold(Hotcell__V1__Wall *const *walls, size_t n_walls)
{
        for (size_t i = 0; i < n_walls; i++) {
                if (walls[i]->required && !walls[i]->holds)
                        return false;
        }
        return n_walls > 0;
}

/* The server asks hotcell-egress alone: no name server, and nobody further off. */
static void print_what_can_leave(Hotcell__V1__Wall *const *walls, size_t n_walls)
{
        for (size_t i = 0; i < n_walls; i++) {
                if (strcmp(walls[i]->name, "egress_relay") != 0)
                        continue;
                (void)printf("What policies allow can leave sandboxes: %s.\n",
                             walls[i]->holds
                                     ? "hotcell-egress is there and answers; whether this host has "
                                       "routes and a name server that answers was not asked"
                                     : "NO, see egress_relay above");
        }
}

static void print_info(const Hotcell__V1__GetServerInfoResponse *info, bool serves,
                       enum output_format format)
{
        if (format != OUTPUT_TEXT) {
                output_message(format, info);
                return;
        }
        print_walls(info->walls, info->n_walls);
        (void)printf("\nAll required walls hold: %s. The server serves: %s.\n",
                     all_required_hold(info->walls, info->n_walls) ? "yes" : "NO",
                     !serves                  ? "NO, it cannot be reached"
                     : info->ready            ? "yes"
                     : *info->runtime_version ? "NO, it is not ready"
                                              : "NO, it has no runtime");
        if (!serves)
                return;
        print_what_can_leave(info->walls, info->n_walls);
        print_metering(info->metering);
}

/* Asks; a probe anew only operators may have, others are told what was seen at start. */
static int ask_server(struct client *client, Hotcell__V1__GetServerInfoResponse **ret_info,
                      bool *ret_is_unreachable)
{
        Hotcell__V1__GetServerInfoRequest ask = HOTCELL__V1__GET_SERVER_INFO_REQUEST__INIT;
        _cleanup_(client_call_freep) struct client_call *call = NULL;
        const struct rpc_error *error;
        int r;

        ask.probe_walls = true;
        call = client_call_new(client, service, "GetServerInfo", &ask.base, PROBE_TIMEOUT_MSEC);
        r = client_call_read(call, -1, ret_info);
        if (r == 0)
                return 0;
        if (r == CLIENT_E_SIGNAL)
                return EXIT_SIGNAL_BASE + client_take_signal(client);
        error = client_call_error(call);
        if (error->code == RPC_PERMISSION_DENIED) {
                ask.probe_walls = false;
                return request(client, service, "GetServerInfo", &ask, "asking", ret_info);
        }
        *ret_is_unreachable = error->code == RPC_UNAVAILABLE && !error->status;
        if (*ret_is_unreachable)
                target_explain(client_target(client), stderr);
        else
                request_say_error(client, error);
        return EXIT_OURS;
}

static int doctor(enum output_format format)
{
        _cleanup_(message_freep) Hotcell__V1__GetServerInfoResponse *info = NULL;
        _cleanup_(client_freep) struct client *client = NULL;
        bool is_unreachable = false;
        int r = connect_open(&client);

        if (r)
                return r;
        r = ask_server(client, &info, &is_unreachable);
        if (r && !is_unreachable)
                return r;
        if (r && runtime_probe(&info))
                return EXIT_OURS;
        print_info(info, !r, format);
        return !r && info->ready && all_required_hold(info->walls, info->n_walls) ? 0 : EXIT_OURS;
}

int cmd_doctor(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "doctor",
                .operands = "[OPTIONS]",
                .summary = "Shows every wall between sandboxes and this host, whether it holds, "
                           "and the fix.",
                .text = "Exits with 0 only when all required walls hold and the server serves;\n"
                        "hotcell-egress is not required: without it nothing leaves.\n"
                        "When no server can be reached, root sees what the runtime itself finds,\n"
                        "with the template store that HOTCELL_STORE names.",
                .examples = "  sudo hotcell doctor\n",
        };
        struct output_options output = { 0 };
        const struct option_group groups[] = { output_options_group(&output) };
        struct operands operands;
        int r = options_parse(&usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        return doctor((enum output_format)output.format);
}
