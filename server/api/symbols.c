#include "server/api/symbols.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

/* --- indexing --- */

static int add(struct symbols *symbols, size_t file, bool is_message, const char *scope,
               const char *name, char **ret_name)
{
        struct symbol *symbol;
        char *full;

        if (symbols->n == symbols->n_room) {
                size_t n_room = MAX(symbols->n_room * 2, 64U);
                struct symbol *moved = reallocarray(symbols->all, n_room, sizeof(*moved));

                if (!moved)
                        return error_origin(-ENOMEM);
                symbols->all = moved;
                symbols->n_room = n_room;
        }
        if (asprintf(&full, "%s%s%s", scope, scope[0] ? "." : "", name) < 0)
                return error_origin(-ENOMEM);

        symbol = &symbols->all[symbols->n++];
        *symbol = (struct symbol){ .name = full, .file = file, .is_message = is_message };
        if (ret_name)
                *ret_name = full;
        return 0;
}

/* Values live in the scope of their enum, not inside it. */
static int add_enum(struct symbols *symbols, size_t file, const char *scope,
                    const Google__Protobuf__EnumDescriptorProto *type)
{
        int r = add(symbols, file, false, scope, type->name, NULL);

        for (size_t i = 0; r == 0 && i < type->n_value; i++)
                r = add(symbols, file, false, scope, type->value[i]->name, NULL);
        return r;
}

/* As deep as our own files nest messages. */
static int add_message(struct symbols *symbols, size_t file, const char *scope,
                       const Google__Protobuf__DescriptorProto *type)
{
        char *name = NULL;
        int r = add(symbols, file, true, scope, type->name, &name);

        for (size_t i = 0; r == 0 && i < type->n_field; i++)
                r = add(symbols, file, false, name, type->field[i]->name, NULL);
        for (size_t i = 0; r == 0 && i < type->n_oneof_decl; i++)
                r = add(symbols, file, false, name, type->oneof_decl[i]->name, NULL);
        for (size_t i = 0; r == 0 && i < type->n_enum_type; i++)
                r = add_enum(symbols, file, name, type->enum_type[i]);
        for (size_t i = 0; r == 0 && i < type->n_nested_type; i++)
                r = add_message(symbols, file, name, type->nested_type[i]);
        return r;
}

static int add_service(struct symbols *symbols, size_t file, const char *scope,
                       const Google__Protobuf__ServiceDescriptorProto *service)
{
        char *name = NULL;
        int r = add(symbols, file, false, scope, service->name, &name);

        for (size_t i = 0; r == 0 && i < service->n_method; i++)
                r = add(symbols, file, false, name, service->method[i]->name, NULL);
        return r;
}

static int add_file(struct symbols *symbols, size_t file)
{
        const Google__Protobuf__FileDescriptorProto *proto = symbols->files[file].proto;
        const char *scope = proto->package ? proto->package : "";
        int r = 0;

        for (size_t i = 0; r == 0 && i < proto->n_message_type; i++)
                r = add_message(symbols, file, scope, proto->message_type[i]);
        for (size_t i = 0; r == 0 && i < proto->n_enum_type; i++)
                r = add_enum(symbols, file, scope, proto->enum_type[i]);
        for (size_t i = 0; r == 0 && i < proto->n_service; i++)
                r = add_service(symbols, file, scope, proto->service[i]);
        return r;
}

/* --- reading --- */

static int read_file(struct symbols *symbols, struct wire_bytes bytes)
{
        Google__Protobuf__FileDescriptorProto *proto;
        struct symbol_file *moved;

        moved = reallocarray(symbols->files, symbols->n_files + 1, sizeof(*moved));
        if (!moved)
                return error_origin(-ENOMEM);
        symbols->files = moved;

        proto = google__protobuf__file_descriptor_proto__unpack(NULL, bytes.n, bytes.start);
        if (!proto)
                return error_origin(-EBADMSG);
        symbols->files[symbols->n_files++] = (struct symbol_file){ proto, bytes };
        return proto->name ? add_file(symbols, symbols->n_files - 1) : error_origin(-EBADMSG);
}

static int compare_symbols(const void *a, const void *b)
{
        const struct symbol *left = a;
        const struct symbol *right = b;

        return strcmp(left->name, right->name);
}

/* A FileDescriptorSet is nothing but `repeated FileDescriptorProto file = 1`. */
static int read_set(struct symbols *symbols, struct wire_bytes set)
{
        struct wire_field field;
        int r;

        while ((r = wire_next(&set, &field)) == 0) {
                if (field.number != 1 || field.type != WIRE_BYTES)
                        continue;
                r = read_file(symbols, field.value);
                if (r)
                        return error_fold(r);
        }
        if (r != WIRE_E_END)
                return error_origin(-EBADMSG);
        if (symbols->n > 0)
                qsort(symbols->all, symbols->n, sizeof(*symbols->all), compare_symbols);
        return 0;
}

int symbols_init(struct symbols *symbols, struct wire_bytes set)
{
        int r;

        *symbols = (struct symbols){ 0 };
        r = read_set(symbols, set);
        if (r)
                symbols_deinit(symbols);
        return r;
}

void symbols_deinit(struct symbols *symbols)
{
        for (size_t i = 0; i < symbols->n_files; i++)
                google__protobuf__file_descriptor_proto__free_unpacked(symbols->files[i].proto,
                                                                       NULL);
        for (size_t i = 0; i < symbols->n; i++)
                free(symbols->all[i].name);
        free(symbols->files);
        free(symbols->all);
        *symbols = (struct symbols){ 0 };
}

/* --- finding --- */

int symbols_find_file(const struct symbols *symbols, const char *name, size_t *ret_file)
{
        for (size_t i = 0; i < symbols->n_files; i++) {
                if (strcmp(symbols->files[i].proto->name, name) != 0)
                        continue;
                *ret_file = i;
                return 0;
        }
        return SYMBOLS_E_NONE;
}

static int compare_name(const void *key, const void *element)
{
        const struct symbol *symbol = element;

        return strcmp(key, symbol->name);
}

int symbols_find(const struct symbols *symbols, const char *name, const struct symbol **ret_symbol)
{
        const struct symbol *found = NULL;

        if (symbols->n > 0)
                found = bsearch(name, symbols->all, symbols->n, sizeof(*symbols->all),
                                compare_name);
        if (!found)
                return SYMBOLS_E_NONE;
        *ret_symbol = found;
        return 0;
}
