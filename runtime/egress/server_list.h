/* Addresses of name servers, as text of a configuration. Private to upstream.c. */
#pragma once

#include <ares.h>
#include <stdbool.h>
#include <stddef.h>

enum { SERVER_LIST_MAX = 8 };

struct server_list {
        struct ares_addr_port_node nodes[SERVER_LIST_MAX]; /* linked; the first is the list */
        size_t n_nodes;
};

/*
 * `192.0.2.1`, `192.0.2.1:53`, `2001:db8::1`, `[2001:db8::1]:53`, with commas between. False: it is
 * nothing of that, or more than SERVER_LIST_MAX. c-ares would take `1.2.3.4:99999` for another
 * port. Not to be moved.
 */
bool server_list_parse(const char *text, struct server_list *ret_list);
