/* A server in a folder of its own with a client. Each test has a process of its own. */
#pragma once

#include <check.h>
#include <stdint.h>

#include "test/unit/rpc/client.h"
#include "test/unit/rpc/harness.h"

extern struct harness harness;
extern struct client client;
extern char socket_path[96];
extern char target[128];

/* Only the folder. */
void setup_folder(void);
void teardown_folder(void);

/* All of it. */
void setup(void);
void teardown(void);

/* A call of @client that has five seconds. */
struct client_result unary(const char *path, const char *text);

/* To the unix socket, without gRPC; -1 when nobody listens. */
int raw_connect(void);

uint64_t now_msec(void);

#define assert_echo_works(a_client)                                                                \
        do {                                                                                       \
                struct client_result echoed =                                                      \
                        client_unary((a_client), "/test.Test/Echo", "hello", 5, 5000);             \
                                                                                                   \
                ck_assert_int_eq(echoed.code, GRPC_STATUS_OK);                                     \
                ck_assert_str_eq((const char *)echoed.bytes, "hello");                             \
                client_result_deinit(&echoed);                                                     \
        } while (0)
