/* Egress events in words: for the lines of an execution and for the table of `egress log`. */
#pragma once

#include <stdbool.h>

struct Hotcell__V1__EgressEvent;

/* Whether it is said in the lines of an execution. */
bool egress_is_told(const struct Hotcell__V1__EgressEvent *event);

/* `egress denied: tcp 192.0.2.1:443 (no rule allows it)`. The caller frees. */
char *egress_sentence(const struct Hotcell__V1__EgressEvent *event);

/* Parts of it. The caller frees. */
char *egress_destination(const struct Hotcell__V1__EgressEvent *event);
char *egress_reason(const struct Hotcell__V1__EgressEvent *event);
