/* Lets hotcell-runtime say which walls hold, without any daemon. */
#pragma once

struct Hotcell__V1__GetServerInfoResponse;

/* Root only. Not 0: it could not be done, which was said. message_free() frees the answer. */
int runtime_probe(struct Hotcell__V1__GetServerInfoResponse **ret_info);

/* Reads what the runtime printed: `{"walls": [{"name": …, "holds": …}, …]}`. NULL: it is no such.
 */
struct Hotcell__V1__GetServerInfoResponse *runtime_probe_parse(const char *json);
