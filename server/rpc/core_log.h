/* gRPC's own log lines. */
#pragma once

/* Sends them to our log, as far as this gRPC lets us (until 1.66). */
void core_log_route(void);
