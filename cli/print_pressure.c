#include "cli/print_pressure.h"

#include <string.h>

#include "hotcell/v1/execution.pb-c.h"

#include "cli/memory.h"

/* The server's sentence as the rest of a line. */
char *pressure_sentence(const Hotcell__V1__Pressure *pressure)
{
        char *text = duplicate(*pressure->message ? pressure->message
                                                  : "Something is short in the sandbox.");
        size_t n = strlen(text);

        if (text[0] >= 'A' && text[0] <= 'Z')
                text[0] = (char)(text[0] - 'A' + 'a');
        if (text[n - 1] == '.')
                text[n - 1] = '\0';
        return text;
}
