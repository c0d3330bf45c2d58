/* The files of a FileDescriptorSet, and which of them defines what. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "google/protobuf/descriptor.pb-c.h"
#include "runtime/base/cleanup.h"
#include "server/api/wire.h"

enum {
        SYMBOLS_E_NONE = 1, /* no such file or symbol */
};

struct symbol_file {
        Google__Protobuf__FileDescriptorProto *proto;
        struct wire_bytes bytes; /* as it came */
};

struct symbol {
        char *name; /* in full, without a leading dot */
        size_t file;
        bool is_message;
};

struct symbols {
        struct symbol_file *files;
        size_t n_files;
        struct symbol *all; /* by name */
        size_t n;
        size_t n_room;
};

/* -EBADMSG when @set is no FileDescriptorSet; @set must live as long. */
int symbols_init(struct symbols *symbols, struct wire_bytes set);
void symbols_deinit(struct symbols *symbols);

int symbols_find_file(const struct symbols *symbols, const char *name, size_t *ret_file);
int symbols_find(const struct symbols *symbols, const char *name, const struct symbol **ret_symbol);
