/* key create, ls, update, revoke. */

#include <inttypes.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include "hotcell/v1/key_service.pb-c.h"

#include "cli/age.h"
#include "cli/client.h"
#include "cli/command.h"
#include "cli/connect.h"
#include "cli/enum_name.h"
#include "cli/escape.h"
#include "cli/exit_code.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/output_options.h"
#include "cli/print_holds.h"
#include "cli/request.h"
#include "cli/resolve.h"
#include "cli/say.h"
#include "cli/table.h"
#include "runtime/base/macros.h"

static const ProtobufCServiceDescriptor *const service = &hotcell__v1__key_service__descriptor;

/* Of all commands; each shows only its own. */
struct key_options {
        int format;
        struct option_texts scopes;
        struct option_number expires;
        const char *owner;
        bool delete_sandboxes;
        struct option_number max_sandboxes, max_memory, max_cpus, max_executions;
};

/* NULL: none was given. With @mask, the paths of those that were. */
static Hotcell__V1__KeyQuotas *quotas_message(const struct key_options *options,
                                              Google__Protobuf__FieldMask *mask)
{
        Hotcell__V1__KeyQuotas *quotas = message_new(&hotcell__v1__key_quotas__descriptor);
        const struct {
                const struct option_number *option;
                int64_t *quota;
                const char *path;
        } rows[] = {
                { &options->max_sandboxes, &quotas->sandboxes, "quotas.sandboxes" },
                { &options->max_memory, &quotas->memory_bytes, "quotas.memory_bytes" },
                { &options->max_cpus, &quotas->cpu_millis, "quotas.cpu_millis" },
                { &options->max_executions, &quotas->executions, "quotas.executions" },
        };
        bool is_any = false;

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                if (!rows[i].option->is_set)
                        continue;
                is_any = true;
                *rows[i].quota = rows[i].option->value;
                if (mask)
                        message_add_path(mask, rows[i].path);
        }
        if (is_any)
                return quotas;
        message_free(quotas);
        return NULL;
}

/* What a key should be; an exit code when its owner cannot be found. */
static int describe(struct client *client, const struct key_options *options,
                    Hotcell__V1__CreateKeyRequest *ask)
{
        ask->scopes = allocate(options->scopes.n + 1, sizeof(*ask->scopes));
        for (size_t i = 0; i < options->scopes.n; i++)
                ask->scopes[ask->n_scopes++] = duplicate(options->scopes.items[i]);
        if (options->expires.is_set) {
                ask->lifetime_case = HOTCELL__V1__CREATE_KEY_REQUEST__LIFETIME_TTL;
                ask->ttl = message_duration(options->expires.value);
        }
        ask->quotas = quotas_message(options, NULL);
        return options->owner ? resolve_key(client, options->owner, &ask->owner_key_id) : 0;
}

static int create(struct client *client, const char *name, const struct key_options *options)
{
        enum output_format format = (enum output_format)options->format;
        _cleanup_(message_freep) Hotcell__V1__CreateKeyRequest *ask =
                message_new(&hotcell__v1__create_key_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__CreateKeyResponse *answer = NULL;
        _cleanup_(freep) char *secret = NULL;
        int r;

        message_set_text(&ask->name, name);
        r = describe(client, options, ask);
        if (r == 0)
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

static char *join_scopes(const Hotcell__V1__Key *key)
{
        char *joined = duplicate(key->n_scopes > 0 ? key->scopes[0] : "-");

        for (size_t i = 1; i < key->n_scopes; i++) {
                char *longer = format_text("%s,%s", joined, key->scopes[i]);

                free(joined);
                joined = longer;
        }
        return joined;
}

/* Told to the minute: not before it was made. */
static const Google__Protobuf__Timestamp *last_use(const Hotcell__V1__Key *key)
{
        if (key->last_used_time && key->create_time &&
            key->last_used_time->seconds < key->create_time->seconds)
                return key->create_time;
        return key->last_used_time;
}

static void print_table(const Hotcell__V1__ListKeysResponse *answer)
{
        static const char *const headers[] = { "KEY",       "NAME",  "STATE",  "CREATED", "EXPIRES",
                                               "LAST USED", "HOLDS", "SCOPES", NULL };
        _cleanup_(table_freep) struct table *table = table_new(headers);

        for (size_t i = 0; i < answer->n_keys; i++) {
                const Hotcell__V1__Key *key = answer->keys[i];
                _cleanup_(freep) char *scopes = join_scopes(key);
                _cleanup_(freep) char *holds = show_holds(key);
                char created[AGE_SIZE], expires[AGE_SIZE], used[AGE_SIZE];
                const char *const cells[] = {
                        key->key_id,
                        key->name,
                        enum_name(&hotcell__v1__key_state__descriptor, (int)key->state),
                        age_since(key->create_time, created),
                        age_until(key->expire_time, expires),
                        age_since(last_use(key), used),
                        holds,
                        scopes,
                };

                table_add(table, cells);
        }
        table_print(table, stdout);
}

static int list(struct client *client, const char *operand, const struct key_options *options)
{
        enum output_format format = (enum output_format)options->format;
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

static int update_key(struct client *client, const char *text, const struct key_options *options)
{
        enum output_format format = (enum output_format)options->format;
        _cleanup_(message_freep) Hotcell__V1__UpdateKeyRequest *ask =
                message_new(&hotcell__v1__update_key_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__UpdateKeyResponse *answer = NULL;
        int r;

        ask->update_mask = message_new(&google__protobuf__field_mask__descriptor);
        ask->quotas = quotas_message(options, ask->update_mask);
        if (!ask->quotas) {
                say_of("key update",
                       "give --max-sandboxes, --max-memory, --max-cpus or --max-executions");
                return EXIT_OURS;
        }
        r = resolve_key(client, text, &ask->key_id);
        if (r == 0)
                r = request(client, service, "UpdateKey", ask, "asking", &answer);
        if (r)
                return r;
        if (format == OUTPUT_TEXT)
                (void)printf("%s\n", ask->key_id);
        else if (answer->key)
                output_message(format, answer->key);
        return 0;
}

/* Operators see only their own sandboxes, so nobody else tells them. */
static void say_left(const Hotcell__V1__Key *key)
{
        _cleanup_(freep) char *id = NULL;

        if (!key || !key->used || key->used->sandboxes == 0)
                return;
        id = escape_line(key->key_id);
        say("sandboxes of its owner that live on until their end: %" PRId64
            "; `hotcell key revoke --delete-sandboxes %s` ends them, and `hotcell key create NAME "
            "--owner %s` makes a key that sees them",
            key->used->sandboxes, id, id);
}

static int revoke_key(struct client *client, const char *text, const struct key_options *options)
{
        enum output_format format = (enum output_format)options->format;
        _cleanup_(message_freep) Hotcell__V1__RevokeKeyRequest *ask =
                message_new(&hotcell__v1__revoke_key_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__RevokeKeyResponse *answer = NULL;
        int r = resolve_key(client, text, &ask->key_id);

        ask->delete_sandboxes = options->delete_sandboxes;
        if (r == 0)
                r = request(client, service, "RevokeKey", ask, "asking", &answer);
        if (r)
                return r;
        if (format == OUTPUT_TEXT)
                (void)printf("%s\n", ask->key_id);
        else if (answer->key)
                output_message(format, answer->key);
        if (options->delete_sandboxes && format == OUTPUT_TEXT)
                say("sandboxes of its owner that end: %d", answer->sandboxes_deleted);
        else if (format == OUTPUT_TEXT)
                say_left(answer->key);
        return 0;
}

typedef int key_verb(struct client *client, const char *operand, const struct key_options *options);

static int ask_server(key_verb *verb, const struct operands *operands,
                      const struct key_options *options)
{
        _cleanup_(client_freep) struct client *client = NULL;
        int r = connect_open(&client);

        return r ? r : verb(client, operands->n ? operands->items[0] : NULL, options);
}

#define FIELD(name) offsetof(struct key_options, name)

static const struct option_row quota_rows[] = {
        { 0, "max-sandboxes", OPTION_COUNT, FIELD(max_sandboxes), "N", "that live", NULL,
          INT32_MAX },
        { 0, "max-memory", OPTION_BYTES, FIELD(max_memory), "BYTES",
          "of the memory limits of all of them together, such as 16G", NULL, 0 },
        { 0, "max-cpus", OPTION_CPUS, FIELD(max_cpus), "CPUS",
          "of the CPU limits of all of them together", NULL, INT32_MAX },
        { 0, "max-executions", OPTION_COUNT, FIELD(max_executions), "N",
          "contexts that have something to run", NULL, INT32_MAX },
};

/* @rows are of struct key_options. */
static int run(const struct usage *usage, const struct option_row *rows, size_t n_rows,
               key_verb *verb, int argc, char **argv)
{
        struct key_options options = { 0 };
        const struct option_group groups[] = {
                { .title = "Options", .rows = rows, .n_rows = n_rows, .into = &options },
                OPTION_GROUP(
                        "What its owner may have at once, with all keys that share it; 0: as the "
                        "server allows",
                        quota_rows, &options),
        };
        size_t n_groups = verb == create || verb == update_key ? 2 : 1;
        struct operands operands;
        int r = options_parse(usage, groups, n_groups, argc, argv, &operands);

        if (r == 0)
                r = ask_server(verb, &operands, &options);
        else
                r = r == OPTIONS_E_HELP ? 0 : EXIT_OURS;
        options_release(groups, n_groups);
        return r;
}

static int key_create(int argc, char **argv)
{
        static const struct option_row rows[] = {
                { 0, "scope", OPTION_TEXTS, FIELD(scopes), "SCOPE",
                  "what it may do: sandboxes:read, sandboxes:write, executions:read, "
                  "executions:write, server:read, usage:read; may be repeated; absent: all of these",
                  NULL, 0 },
                { 0, "expires", OPTION_DURATION, FIELD(expires), "DURATION",
                  "it stops to work after so long, such as 30d; 0 or absent: never", NULL, 0 },
                { 0, "owner", OPTION_TEXT, FIELD(owner), "KEY",
                  "share what belongs to this key, also when it is revoked or expired", NULL, 0 },
                OUTPUT_ROW(FIELD(format)),
        };
        static const struct usage usage = {
                .command = "key create",
                .operands = "[OPTIONS] NAME",
                .summary = "Makes an API key for the TCP address and prints its secret, once.",
                .text = "What is made with a key belongs to the key, or to the key that --owner "
                        "names: so a key can be replaced. No key can make, list or revoke keys.",
                .examples = "  (umask 077; hotcell key create ci > ci.key)\n"
                            "  hotcell key create team --max-sandboxes 20 --max-memory 16G\n"
                            "  hotcell --target 127.0.0.1:7070 --api-key-file ci.key run -c '1+1'\n"
                            "  hotcell key create watcher --owner ci --expires 30d --scope "
                            "sandboxes:read --scope executions:read\n",
                .operands_min = 1,
                .operands_max = 1,
        };

        return run(&usage, rows, ARRAY_SIZE(rows), create, argc, argv);
}

static int key_ls(int argc, char **argv)
{
        static const struct option_row rows[] = { OUTPUT_ROW(FIELD(format)) };
        static const struct usage usage = {
                .command = "key ls",
                .operands = "[OPTIONS]",
                .summary = "Lists API keys, also those that are revoked or expired.",
                .text = "HOLDS is what the owner of a key has now, with all keys that share it, and "
                        "may have by its quotas\n(`hotcell key update`). Who has a key sees what is its with "
                        "`hotcell version`.",
                .examples = "  hotcell key ls\n",
        };

        return run(&usage, rows, ARRAY_SIZE(rows), list, argc, argv);
}

static int key_update(int argc, char **argv)
{
        static const struct option_row rows[] = { OUTPUT_ROW(FIELD(format)) };
        static const struct usage usage = {
                .command = "key update",
                .operands = "[OPTIONS] KEY",
                .summary =
                        "Changes what the owner of an API key may have, with all its keys together.",
                .text = "Of what is there nothing ends; above a quota new things are refused.",
                .examples = "  hotcell key update --max-sandboxes 50 --max-executions 10 team\n"
                            "  hotcell key update --max-memory 0 team\n",
                .operands_min = 1,
                .operands_max = 1,
        };

        return run(&usage, rows, ARRAY_SIZE(rows), update_key, argc, argv);
}

static int key_revoke(int argc, char **argv)
{
        static const struct option_row rows[] = {
                { 0, "delete-sandboxes", OPTION_FLAG, FIELD(delete_sandboxes), NULL,
                  "end all sandboxes of its owner, too: for a key that leaked", NULL, 0 },
                OUTPUT_ROW(FIELD(format)),
        };
        static const struct usage usage = {
                .command = "key revoke",
                .operands = "[OPTIONS] KEY",
                .summary = "Revokes an API key, named by id or name, at once.",
                .text = "Its open calls and streams end; sandboxes of its owner live on until "
                        "their time is over,\nunless --delete-sandboxes is given, now or later. "
                        "Operators do not see them, but a key does that\n`hotcell key create NAME "
                        "--owner KEY` makes.",
                .examples = "  hotcell key revoke ci\n"
                            "  hotcell key revoke --delete-sandboxes ci\n",
                .operands_min = 1,
                .operands_max = 1,
        };

        return run(&usage, rows, ARRAY_SIZE(rows), revoke_key, argc, argv);
}

int cmd_key(int argc, char **argv)
{
        static const struct command commands[] = {
                { "create", key_create, "make a key" },
                { "ls", key_ls, "list keys" },
                { "update", key_update, "change what its owner may have" },
                { "revoke", key_revoke, "make a key useless" },
                { NULL, NULL, NULL },
        };

        return command_dispatch("key", commands, argc, argv);
}
