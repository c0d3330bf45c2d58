#include "cli/print_metering.h"

#include <inttypes.h>
#include <stdio.h>

#include "cli/escape.h"
#include "cli/memory.h"
#include "runtime/base/cleanup.h"

void print_metering(const Hotcell__V1__Metering *metering)
{
        _cleanup_(freep) char *detail = NULL;

        if (!metering)
                return; /* an older server, or no runtime */
        detail = escape_line(metering->detail);
        (void)printf("metering: %s%s%s%s",
                     metering->programs ? "eBPF and cgroup files" : "cgroup files alone",
                     *detail ? " (" : "", detail, *detail ? ")" : "");
        for (size_t i = 0; i < metering->n_missing; i++) {
                _cleanup_(freep) char *field = escape_line(metering->missing[i]);

                (void)printf("%s%s", i ? ", " : "; not measured: ", field);
        }
        if (metering->slots_refused > 0)
                (void)printf("; %" PRId64 " processes had none of %" PRId64 " slots",
                             metering->slots_refused, metering->slots);
        (void)printf("\n");
}
