/*
 * In hotcell-egress's place: stops itself, and once it goes on reads what the runtime says until it
 * has the socket of a hotcelld. There it says how many networks it was told of before.
 */

#include <errno.h>
#include <hotcell/egress/v1/egress.pb-c.h>
#include <poll.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"

enum { RUNTIME_FD = 3, PACKET_MAX = 4096, FDS_MAX = 16 };

#define BODY(name) HOTCELL__EGRESS__V1__FROM_RUNTIME__BODY_##name

int main(void)
{
        static uint8_t bytes[PACKET_MAX];
        uint32_t n_networks = 0;

        (void)raise(SIGSTOP);
        for (;;) {
                size_t n_bytes = sizeof(bytes), n_fds = FDS_MAX;
                Hotcell__Egress__V1__FromRuntime *message;
                int fds[FDS_MAX];
                int r = io_receive_packet(RUNTIME_FD, bytes, &n_bytes, fds, &n_fds);

                if (r == -EAGAIN && poll(&(struct pollfd){ RUNTIME_FD, POLLIN, 0 }, 1, -1) >= 0)
                        continue;
                if (r)
                        return EXIT_FAILURE;
                message = hotcell__egress__v1__from_runtime__unpack(NULL, n_bytes, bytes);
                if (!message)
                        return EXIT_FAILURE;
                n_networks += message->body_case == BODY(ADD_NETWORK) && n_fds == 3;
                if (message->body_case == BODY(SERVE_SERVER)) {
                        (void)send(fds[0], &n_networks, sizeof(n_networks), 0);
                        (void)pause();
                }
                hotcell__egress__v1__from_runtime__free_unpacked(message, NULL);
                for (size_t i = 0; i < n_fds; i++)
                        (void)close(fds[i]);
        }
}
