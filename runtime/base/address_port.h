/* An address and a port as a text of a configuration. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct address_port {
        bool is_v6;
        uint8_t bytes[16]; /* in network order; IPv4 in the first four */
        uint16_t port;
};

/*
 * `8.8.8.8`, `8.8.8.8:53`, `2001:4860:4860::8888` or `[2001:4860:4860::8888]:53`; without a port it
 * is @port. False: it is nothing of that, or its port is not 1 to 65535.
 */
bool address_port_parse(const char *text, uint16_t port, struct address_port *ret_address);
