/* Common slips in `HOST[:PORTS]`, told before anything is sent, with how it is written. */
#pragma once

/* What is wrong with @text and what to write instead, as the rest of a sentence; NULL: nothing that
 * is known here. To be freed. */
char *egress_slip(const char *text);
