/* Runs a fuzz target over the kept inputs of a folder, each a test. */
#include <dirent.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "runtime/base/cleanup.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int is_visible(const struct dirent *entry)
{
        return entry->d_name[0] != '.';
}

static int replay(const char *folder, const char *name)
{
        _cleanup_(fclosep) FILE *file = NULL;
        _cleanup_(freep) uint8_t *bytes = NULL;
        char path[4096];
        struct stat status;

        (void)snprintf(path, sizeof(path), "%s/%s", folder, name);
        file = fopen(path, "rbe");
        if (!file || fstat(fileno(file), &status) < 0)
                return -1;
        /* Exactly as large as the input, so that a sanitizer sees each byte too many. */
        bytes = malloc((size_t)status.st_size);
        if (!bytes || fread(bytes, 1, (size_t)status.st_size, file) != (size_t)status.st_size)
                return -1;
        return LLVMFuzzerTestOneInput(bytes, (size_t)status.st_size);
}

int main(int argc, char **argv)
{
        struct dirent **entries;
        int n_entries = argc == 2 ? scandir(argv[1], &entries, is_visible, alphasort) : -1;
        int n_failed = 0;

        if (n_entries <= 0) {
                printf("1..1\nnot ok 1 no inputs in %s\n", argc == 2 ? argv[1] : "?");
                return EXIT_FAILURE;
        }
        printf("1..%d\n", n_entries);
        for (int i = 0; i < n_entries; i++) {
                int r = replay(argv[1], entries[i]->d_name);

                printf("%s %d %s\n", r == 0 ? "ok" : "not ok", i + 1, entries[i]->d_name);
                n_failed += r != 0;
                free(entries[i]);
        }
        free((void *)entries);
        return n_failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
