#include "test/unit/cli/fixture.h"

#include <stdlib.h>

char *written(FILE *file)
{
        size_t size = (size_t)ftell(file);
        char *text = calloc(size + 1, 1);

        rewind(file);
        if (fread(text, 1, size, file) != size)
                abort();
        fclose(file);
        return text;
}
