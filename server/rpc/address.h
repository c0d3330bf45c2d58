/* Addresses of TCP listeners. Only loopback ones have a form here. */
#pragma once

#include <netinet/in.h>
#include <sys/socket.h>

/* 0, RPC_E_NOT_LOOPBACK or RPC_E_BAD_ADDRESS. Nothing is resolved: a resolver may say anything. */
int address_parse_loopback(const char *text, struct sockaddr_storage *ret_address,
                           socklen_t *ret_size);
