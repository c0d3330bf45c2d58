/*
 * The templates of the store: one for each name in STORE/by-name, as its manifest describes it. The
 * files are root's own, but what they say is bounded and checked all the same.
 */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <limits.h>
#include <stddef.h>

enum {
        TEMPLATES_MAX = 64,
        TEMPLATE_MANIFEST_MAX = 1 << 20, /* bytes */
        TEMPLATE_KERNELS_MAX = 16,
        TEMPLATE_ARGV_MAX = 64,
        TEMPLATE_VARIABLES_MAX = 128,
        TEMPLATE_TEXT_MAX = 4096, /* bytes of a string that a manifest holds */
};

enum {
        TEMPLATES_E_NO_STORE = 1, /* there is no such folder */
        TEMPLATES_E_EMPTY,        /* no template in it can be used */
};

struct json_object;

struct template
{
        struct json_object *manifest; /* owns the texts that the message points to */
        Hotcell__Runtime__V1__Template message;
        Hotcell__Runtime__V1__Variable *variables;
        Hotcell__Runtime__V1__Kernel *kernels;
        char root[PATH_MAX]; /* of its files, on the host */
};

struct template_store {
        const char *path; /* borrowed */
        struct template *templates[TEMPLATES_MAX];
        size_t n_templates;
        char missing[192]; /* why there are none, for people; empty: there are */
};

/*
 * Reads the store anew. A template that cannot be used is left out, with a warning. Whatever it
 * returns: @store->missing says in words whether there are any now.
 */
int template_store_load(struct template_store *store);

void template_store_deinit(struct template_store *store);

/* NULL when there is none of this digest. */
const struct template *template_store_find(const struct template_store *store, const char *digest);
