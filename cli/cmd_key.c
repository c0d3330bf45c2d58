/* key create, ls, revoke. */

#include <stdio.h>

#include "hotcell/v1/key_service.pb-c.h"

#include "cli/age.h"
#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/escape.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/say.h"
#include "cli/table.h"
#include "runtime/base/macros.h"

static const ProtobufCServiceDescriptor *const service = &hotcell__v1__key_service__descriptor;

static int create(struct client *client, const char *name, enum output_format format)
{
        _cleanup_(message_freep) Hotcell__V1__CreateKeyRequest *ask =
                message_new(&hotcell__v1__create_key_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__CreateKeyResponse *answer = NULL;
        _cleanup_(freep) char *secret = NULL;
        int r;

        message_set_text(&ask->name, name);
        r = request(client, service, "CreateKey", ask, "asking", &answer);
        if (r)
                return r;
        if (format != OUTPUT_TEXT) {
                output_message(format, answer);
                return 0;
        }
        secret = escape_line(answer->secret);
        (void)printf("%s\n", secret);
        say("this is the only time that the key is shown; use it as HOTCELL_API_KEY");
        return 0;
}

static void print_table(const Hotcell__V1__ListKeysResponse *answer)
{
        static const char *const headers[] = { "KEY", "NAME", "CREATED", "REVOKED", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);

        for (size_t i = 0; i < answer->n_keys; i++) {
                const Hotcell__V1__Key *key = answer->keys[i];
                char created[AGE_SIZE], revoked[AGE_SIZE];
                const char *const cells[] = {
                        key->key_id,
                        key->name,
                        age_since(key->create_time, created),
                        age_since(key->revoke_time, revoked),
                };

                table_add(table, cells);
        }
        table_print(table, stdout);
}

static int list(struct client *client, const char *operand, enum output_format format)
{
        _cleanup_(message_freep) Hotcell__V1__ListKeysRequest *ask =
                message_new(&hotcell__v1__list_keys_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__ListKeysResponse *answer = NULL;
        int r = request(client, service, "ListKeys", ask, "asking", &answer);

        (void)operand;
        if (r)
                return r;
        if (format == OUTPUT_TEXT)
                print_table(answer);
        else
                output_list(format, answer->keys, answer->n_keys);
        return 0;
}

static int revoke_key(struct client *client, const char *text, enum output_format format)
{
        _cleanup_(message_freep) Hotcell__V1__RevokeKeyRequest *ask =
                message_new(&hotcell__v1__revoke_key_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__RevokeKeyResponse *answer = NULL;
        int r = resolve_key(client, text, &ask->key_id);

        if (r == 0)
                r = request(client, service, "RevokeKey", ask, "asking", &answer);
        if (r)
                return r;
        if (format == OUTPUT_TEXT)
                (void)printf("%s\n", ask->key_id);
        else if (answer->key)
                output_message(format, answer->key);
        return 0;
}

typedef int key_verb(struct client *client, const char *operand, enum output_format format);

static int run(const struct usage *usage, key_verb *verb, int argc, char **argv)
{
        struct output_options output = { 0 };
        const struct option_group groups[] = { output_options_group(&output) };
        _cleanup_(client_freep) struct client *client = NULL;
        struct operands operands;
        int r = options_parse(usage, groups, ARRAY_SIZE(groups), argc, argv, &operands);

        if (r)
                return r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        r = connect_open(&client);
        if (r)
                return r;
        return verb(client, operands.n ? operands.items[0] : NULL,
                    (enum output_format)output.format);
}

static int key_create(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "key create",
                .operands = "[OPTIONS] NAME",
                .summary = "Makes an API key for the TCP address and prints its secret, once.",
                .examples =
                        "  hotcell key create ci > ci.key && chmod 600 ci.key\n"
                        "  hotcell --target 127.0.0.1:7070 --api-key-file ci.key run -c '1+1'\n",
                .operands_min = 1,
                .operands_max = 1,
        };

        return run(&usage, create, argc, argv);
}

static int key_ls(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "key ls",
                .operands = "[OPTIONS]",
                .summary = "Lists API keys, revoked ones too.",
                .examples = "  hotcell key ls\n",
        };

        return run(&usage, list, argc, argv);
}

static int key_revoke(int argc, char **argv)
{
        static const struct usage usage = {
                .command = "key revoke",
                .operands = "[OPTIONS] KEY",
                .summary = "Revokes an API key, named by id or name, at once.",
                .examples = "  hotcell key revoke ci\n",
                .operands_min = 1,
                .operands_max = 1,
        };

        return run(&usage, revoke_key, argc, argv);
}

int cmd_key(int argc, char **argv)
{
        static const struct command commands[] = {
                { "create", key_create, "make a key" },
                { "ls", key_ls, "list keys" },
                { "revoke", key_revoke, "make a key useless" },
                { NULL, NULL, NULL },
        };

        return command_dispatch("key", commands, argc, argv);
}
