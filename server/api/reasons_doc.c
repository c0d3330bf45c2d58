/* Writes docs/REASONS.md. */
#include <stdio.h>

#include "server/api/reasons.h"

int main(void)
{
        (void)puts(
                "# Why requests fail\n\n"
                "Every error carries `google.rpc.ErrorInfo` with domain `hotcell.dev` and one of these\n"
                "reasons, in `grpc-status-details-bin`. Reasons are stable; messages are for people and may\n"
                "change. A program that fails inside its sandbox is not an error of the request.\n\n"
                "This page is written by `reasons-doc` from `server/api/reasons.h`.\n\n"
                "| reason | code | meaning |\n| --- | --- | --- |");
        for (unsigned i = 0; i < _REASON_N; i++) {
                const struct reason_info *info = reason_info((enum reason)i);

                (void)printf("| `%s` | %s | %s |\n", info->name, info->code_name, info->sentence);
        }
        return 0;
}
