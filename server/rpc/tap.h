/*
 * Puts a guard between a socket and gRPC, which reads sockets by recvmsg: this program's recvmsg
 * is ours (tap.c), and shows what came to the guard of that descriptor first. No byte is copied and
 * no thread is woken for it.
 */
#pragma once

struct http2_guard;

enum { TAP_FDS_MAX = 32768 }; /* higher descriptors cannot be guarded */

/* Before gRPC gets @fd; NULL: after gRPC has closed it. */
void tap_set(int fd, struct http2_guard *guard);
