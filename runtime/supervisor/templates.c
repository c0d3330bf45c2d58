#include "runtime/supervisor/templates.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/dns_label.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

enum { ID_MAX = 65532 }; /* the greatest that a program may have */

static struct template *template_free(struct template *template)
{
        if (!template)
                return NULL;
        for (size_t i = 0; i < template->message.n_kernels; i++)
                free(template->kernels[i].argv);
        free(template->message.kernels);
        free(template->message.environment);
        free(template->kernels);
        free(template->variables);
        json_object_put(template->manifest);
        free(template);
        return NULL;
}

DEFINE_CLEANUP(struct template, template_free)

/* NULL unless @object has a string @key of sane length and without NUL. */
static char *get_text(struct json_object *object, const char *key)
{
        struct json_object *value;
        const char *text;

        if (!json_object_object_get_ex(object, key, &value) ||
            !json_object_is_type(value, json_type_string))
                return NULL;
        text = json_object_get_string(value);
        if (strlen(text) != (size_t)json_object_get_string_len(value) ||
            strlen(text) > TEMPLATE_TEXT_MAX)
                return NULL;
        return unconst(text);
}

static bool get_id(struct json_object *object, const char *key, uint32_t *ret_id)
{
        struct json_object *value;
        int64_t number;

        if (!json_object_object_get_ex(object, key, &value) ||
            !json_object_is_type(value, json_type_int))
                return false;
        number = json_object_get_int64(value);
        if (number < 0 || number > ID_MAX)
                return false;
        *ret_id = (uint32_t)number;
        return true;
}

static bool is_digest(const char *text)
{
        return strncmp(text, "sha256-", 7) == 0 && strlen(text) == 71 &&
               strspn(text + 7, "0123456789abcdef") == 64;
}

static bool read_identity(struct template *template)
{
        Hotcell__Runtime__V1__Template *message = &template->message;

        message->name = get_text(template->manifest, "name");
        message->digest = get_text(template->manifest, "digest");
        message->home = get_text(template->manifest, "home");
        return message->name && dns_label_is_valid(message->name) && message->digest &&
               is_digest(message->digest) && message->home && message->home[0] == '/' &&
               get_id(template->manifest, "uid", &message->uid) &&
               get_id(template->manifest, "gid", &message->gid);
}

static bool read_environment(struct template *template)
{
        struct json_object *environment;
        size_t n = 0;

        if (!json_object_object_get_ex(template->manifest, "environment", &environment) ||
            !json_object_is_type(environment, json_type_object) ||
            json_object_object_length(environment) > TEMPLATE_VARIABLES_MAX)
                return false;

        template->variables = calloc(TEMPLATE_VARIABLES_MAX, sizeof(*template->variables));
        template->message.environment =
                calloc(TEMPLATE_VARIABLES_MAX, sizeof(Hotcell__Runtime__V1__Variable *));
        if (!template->variables || !template->message.environment)
                return false;
        json_object_object_foreach(environment, name, value)
        {
                (void)value;
                hotcell__runtime__v1__variable__init(&template->variables[n]);
                template->variables[n].name = name;
                template->variables[n].value = get_text(environment, name);
                if (!name[0] || strchr(name, '=') || !template->variables[n].value)
                        return false;
                template->message.environment[n] = &template->variables[n];
                template->message.n_environment = ++n;
        }
        return true;
}

static bool read_argv(Hotcell__Runtime__V1__Kernel *kernel, struct json_object *list)
{
        size_t n_argv =
                json_object_is_type(list, json_type_array) ? json_object_array_length(list) : 0;

        if (n_argv == 0 || n_argv > TEMPLATE_ARGV_MAX)
                return false;
        kernel->argv = calloc(n_argv, sizeof(*kernel->argv));
        if (!kernel->argv)
                return false;
        for (size_t i = 0; i < n_argv; i++) {
                struct json_object *word = json_object_array_get_idx(list, i);

                if (!json_object_is_type(word, json_type_string))
                        return false;
                kernel->argv[i] = unconst(json_object_get_string(word));
                if (strlen(kernel->argv[i]) > TEMPLATE_TEXT_MAX)
                        return false;
                kernel->n_argv = i + 1;
        }
        return kernel->argv[0][0] == '/';
}

static bool read_kernel(Hotcell__Runtime__V1__Kernel *kernel, struct json_object *object)
{
        struct json_object *argv;

        if (!json_object_is_type(object, json_type_object))
                return false;
        kernel->language = get_text(object, "language");
        kernel->language_version = get_text(object, "language_version");
        return kernel->language && kernel->language_version &&
               json_object_object_get_ex(object, "argv", &argv) && read_argv(kernel, argv);
}

static bool read_kernels(struct template *template)
{
        struct json_object *kernels;
        size_t n_kernels;

        if (!json_object_object_get_ex(template->manifest, "kernels", &kernels) ||
            !json_object_is_type(kernels, json_type_array))
                return false;
        n_kernels = json_object_array_length(kernels);
        if (n_kernels > TEMPLATE_KERNELS_MAX)
                return false;
        template->kernels = calloc(TEMPLATE_KERNELS_MAX, sizeof(*template->kernels));
        template->message.kernels =
                calloc(TEMPLATE_KERNELS_MAX, sizeof(Hotcell__Runtime__V1__Kernel *));
        if (!template->kernels || !template->message.kernels)
                return false;
        for (size_t i = 0; i < n_kernels; i++) {
                hotcell__runtime__v1__kernel__init(&template->kernels[i]);
                template->message.kernels[i] = &template->kernels[i];
                template->message.n_kernels = i + 1;
                if (!read_kernel(&template->kernels[i], json_object_array_get_idx(kernels, i)))
                        return false;
        }
        return true;
}

static int load_manifest(int directory_fd, struct json_object **ret_manifest)
{
        _cleanup_(freep) char *text = malloc(TEMPLATE_MANIFEST_MAX);
        int r;

        if (!text)
                return error_origin(-ENOMEM);
        r = io_read_file(directory_fd, "manifest.json", text, TEMPLATE_MANIFEST_MAX, NULL);
        if (r)
                return r;
        *ret_manifest = json_tokener_parse(text);
        return *ret_manifest ? 0 : -EBADMSG;
}

/* Only root may have written it: its programs decide what runs in a sandbox. */
static bool is_owned_by_root(int directory_fd)
{
        struct stat status;

        return fstat(directory_fd, &status) == 0 && status.st_uid == 0 &&
               !(status.st_mode & (S_IWGRP | S_IWOTH));
}

static int template_load(const struct template_store *store, int names_fd, const char *name,
                         struct template **ret_template)
{
        _cleanup_(template_freep) struct template *template = calloc(1, sizeof(*template));
        _cleanup_(closep) int fd = openat(names_fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        int r;

        if (!template)
                return error_origin(-ENOMEM);
        if (fd < 0)
                return -errno; /* NOLINT(clang-analyzer-unix.Malloc): _cleanup_ frees it */
        if (!is_owned_by_root(fd))
                return -EPERM;
        r = load_manifest(fd, &template->manifest);
        if (r)
                return r;
        hotcell__runtime__v1__template__init(&template->message);
        if (!read_identity(template) || !read_environment(template) || !read_kernels(template))
                return -EBADMSG;

        /* By digest, not by name: the name may mean another root tomorrow. */
        r = snprintf(template->root, sizeof(template->root), "%s/%s/root", store->path,
                     template->message.digest);
        if (r < 0 || (size_t)r >= sizeof(template->root))
                return -ENAMETOOLONG;
        if (access(template->root, F_OK) < 0)
                return -errno;
        *ret_template = take(template);
        return 0;
}

static void load_name(struct template_store *store, int names_fd, const char *name)
{
        int r;

        if (store->n_templates == TEMPLATES_MAX) {
                log_warning("too many templates: left_out=%s", name);
                return;
        }
        r = template_load(store, names_fd, name, &store->templates[store->n_templates]);
        if (r)
                log_warning("cannot use a template: name=%s error=%s", name, strerrorname_np(-r));
        else
                store->n_templates++;
}

static int load_names(struct template_store *store)
{
        char path[PATH_MAX];
        DIR *names;

        if ((size_t)snprintf(path, sizeof(path), "%s/by-name", store->path) >= sizeof(path))
                return error_origin(-ENAMETOOLONG);
        names = opendir(path);
        if (!names)
                return errno == ENOENT ? TEMPLATES_E_NO_STORE : error_origin(-errno);
        for (struct dirent *entry = readdir(names); entry; entry = readdir(names))
                if (entry->d_name[0] != '.')
                        load_name(store, dirfd(names), entry->d_name);
        (void)closedir(names);
        return store->n_templates ? 0 : TEMPLATES_E_EMPTY;
}

int template_store_load(struct template_store *store)
{
        size_t size = sizeof(store->missing);
        int r;

        template_store_deinit(store);
        r = load_names(store);
        if (r == TEMPLATES_E_NO_STORE)
                (void)snprintf(store->missing, size, "there is no folder %s/by-name", store->path);
        else if (r == TEMPLATES_E_EMPTY)
                (void)snprintf(store->missing, size, "no template in %s/by-name can be used",
                               store->path);
        else if (r)
                (void)snprintf(store->missing, size, "cannot read the folder %s/by-name: %s",
                               store->path, strerrordesc_np(-r));
        return r;
}

void template_store_deinit(struct template_store *store)
{
        store->missing[0] = '\0';
        while (store->n_templates > 0) {
                store->n_templates--;
                store->templates[store->n_templates] =
                        template_free(store->templates[store->n_templates]);
        }
}

const struct template *template_store_find(const struct template_store *store, const char *digest)
{
        for (size_t i = 0; i < store->n_templates; i++)
                if (strcmp(store->templates[i]->message.digest, digest) == 0)
                        return store->templates[i];
        return NULL;
}
