/* That something is short in a sandbox, in the lines of an execution. */
#pragma once

struct Hotcell__V1__Pressure;

/* `memory is nearly full: 486 of 512 MiB`. The caller frees. */
char *pressure_sentence(const struct Hotcell__V1__Pressure *pressure);
