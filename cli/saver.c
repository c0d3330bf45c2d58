#include "cli/saver.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "hotcell/v1/execution.pb-c.h"

#include "cli/memory.h"
#include "cli/say.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"

enum {
        FILES_MAX = 10000, /* of one execution, and the highest number that is tried */
        OPEN_MAX = 64,     /* parts that wait for more bytes */
};

/* A part whose rest is still to come. */
struct open_part {
        int64_t sequence;
        int32_t index;
        int64_t size;
        int64_t written;
        int fd;
        char *name;
};

struct saver {
        char *directory;
        int directory_fd;
        unsigned number; /* of the last bundle that got a file */
        unsigned n_files;
        bool has_said_full;
        struct open_part open[OPEN_MAX]; /* in no order */
        size_t n_open;
};

static const struct {
        const char *type;
        const char *extension;
} extensions[] = {
        { "application/json", "json" },
        { "application/pdf", "pdf" },
        { "application/javascript", "js" },
        { "image/gif", "gif" },
        { "image/jpeg", "jpg" },
        { "image/png", "png" },
        { "image/svg+xml", "svg" },
        { "image/webp", "webp" },
        { "text/csv", "csv" },
        { "text/html", "html" },
        { "text/latex", "tex" },
        { "text/markdown", "md" },
        { "text/plain", "txt" },
};

const char *saver_extension(const char *type)
{
        size_t n = strcspn(type, "; ");

        for (size_t i = 0; i < ARRAY_SIZE(extensions); i++) {
                if (strlen(extensions[i].type) == n &&
                    strncasecmp(extensions[i].type, type, n) == 0)
                        return extensions[i].extension;
        }
        if (n > 5 && strncasecmp(type + n - 5, "+json", 5) == 0)
                return "json";
        return "bin";
}

int saver_new(const char *directory, struct saver **ret_saver)
{
        struct saver *saver;
        int fd;

        if (mkdir(directory, 0777) < 0 && errno != EEXIST)
                return -errno;
        fd = open(directory, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
        if (fd < 0)
                return -errno;

        saver = allocate(1, sizeof(*saver));
        saver->directory = duplicate(directory);
        saver->directory_fd = fd;
        *ret_saver = saver;
        return 0;
}

/* Closes @part; the last one takes its place. */
static void part_close(struct saver *saver, struct open_part *part)
{
        (void)close_fd(part->fd);
        free(part->name);
        *part = saver->open[--saver->n_open];
}

struct saver *saver_free(struct saver *saver)
{
        if (!saver)
                return NULL;
        while (saver->n_open)
                part_close(saver, &saver->open[0]);
        (void)close_fd(saver->directory_fd);
        free(saver->directory);
        free(saver);
        return NULL;
}

/* Makes the file with the lowest number from *@number on that is free. */
static int create_file(struct saver *saver, const char *kind, const char *type, unsigned *number,
                       char **ret_name)
{
        for (; *number <= FILES_MAX; (*number)++) {
                _cleanup_(freep) char *name =
                        format_text("%u-%s.%s", *number, kind, saver_extension(type));
                int fd = openat(saver->directory_fd, name,
                                O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0666);

                if (fd >= 0) {
                        *ret_name = take(name);
                        return fd;
                }
                if (errno != EEXIST)
                        return -errno;
        }
        return -EMFILE;
}

static void write_part(struct saver *saver, struct open_part *part, const ProtobufCBinaryData *data)
{
        int r = io_write_all(part->fd, data->data, data->len);

        part->written += (int64_t)data->len;
        if (r < 0) {
                say("%s/%s: %s", saver->directory, part->name, strerror(-r));
                part_close(saver, part);
        } else if (part->written >= part->size) {
                say("saved %s/%s (%lld bytes)", saver->directory, part->name,
                    (long long)part->written);
                part_close(saver, part);
        }
}

static bool is_full(struct saver *saver)
{
        if (saver->n_files < FILES_MAX && saver->n_open < OPEN_MAX)
                return false;
        if (!saver->has_said_full)
                say("too many results: further ones are not saved");
        saver->has_said_full = true;
        return true;
}

static void save_part(struct saver *saver, const struct open_part *place, const char *kind,
                      const Hotcell__V1__MimePart *source, unsigned *number)
{
        struct open_part *part;
        char *name = NULL;
        int fd;

        if (is_full(saver))
                return;
        fd = create_file(saver, kind, source->type, number, &name);
        if (fd < 0) {
                say("cannot save a %s in %s: %s", kind, saver->directory, strerror(-fd));
                return;
        }
        saver->n_files++;
        part = &saver->open[saver->n_open++];
        *part = (struct open_part){ .sequence = place->sequence, .index = place->index, .fd = fd };
        part->size = source->size_bytes;
        part->name = name;
        write_part(saver, part, &source->data);
}

void saver_bundle(struct saver *saver, const char *kind, int64_t sequence,
                  const Hotcell__V1__MimeBundle *bundle)
{
        unsigned number = saver->number + 1;

        for (size_t i = 0; bundle && i < bundle->n_parts; i++) {
                const struct open_part place = { .sequence = sequence, .index = (int32_t)i };

                if (strcmp(bundle->parts[i]->type, "text/plain") == 0)
                        continue;
                save_part(saver, &place, kind, bundle->parts[i], &number);
                saver->number = number;
        }
}

static struct open_part *find_part(struct saver *saver, const Hotcell__V1__PartData *data)
{
        for (size_t i = 0; i < saver->n_open; i++) {
                struct open_part *part = &saver->open[i];

                if (part->sequence == data->bundle_sequence && part->index == data->part_index)
                        return part;
        }
        return NULL;
}

void saver_data(struct saver *saver, const Hotcell__V1__PartData *data)
{
        struct open_part *part = find_part(saver, data);

        if (!part)
                return; /* plain text, or a part that could not be saved */
        if (data->offset == part->written) {
                write_part(saver, part, &data->data);
                return;
        }
        say("%s/%s is incomplete: bytes are missing after %lld", saver->directory, part->name,
            (long long)part->written);
        part_close(saver, part);
}

void saver_finish(struct saver *saver)
{
        for (; saver->n_open; part_close(saver, &saver->open[0]))
                say("%s/%s is incomplete: %lld of %lld bytes", saver->directory,
                    saver->open[0].name, (long long)saver->open[0].written,
                    (long long)saver->open[0].size);
}
