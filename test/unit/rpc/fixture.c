#include "test/unit/rpc/fixture.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "test/lib/scratch.h"

struct harness harness;
struct client client;
char socket_path[96];
char target[128];

static char folder[64];

void setup_folder(void)
{
        strcpy(folder, "/tmp/hotcell-rpc-XXXXXX");
        scratch_make(folder);
        (void)snprintf(socket_path, sizeof(socket_path), "%s/socket", folder);
        (void)snprintf(target, sizeof(target), "unix:%s", socket_path);
        grpc_init();
}

void teardown_folder(void)
{
        char lock_path[128];

        grpc_shutdown();
        (void)snprintf(lock_path, sizeof(lock_path), "%s.lock", socket_path);
        (void)unlink(socket_path);
        (void)unlink(lock_path);
        ck_assert_int_eq(rmdir(folder), 0);
        scratch_remove(folder);
}

void setup(void)
{
        setup_folder();
        harness_init(&harness);
        harness_start(&harness, socket_path, true);
        client_init(&client, target);
}

void teardown(void)
{
        client_deinit(&client);
        harness_stop(&harness);
        teardown_folder();
}

struct client_result unary(const char *path, const char *text)
{
        return client_unary(&client, path, text, strlen(text), 5000);
}

int raw_connect(void)
{
        struct sockaddr_un address = { .sun_family = AF_UNIX };
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -1;
        strcpy(address.sun_path, socket_path);
        if (connect(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                fd = close_fd(fd);
        return fd;
}

uint64_t now_msec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}
