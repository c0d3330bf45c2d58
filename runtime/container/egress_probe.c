#include "runtime/container/egress_probe.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"

/* Datagrams: a connect() that is not refused leaves nothing on the network. */
static int expect_refusal(const struct sockaddr *address, socklen_t length)
{
        _cleanup_(closep) int fd = socket(address->sa_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        if (fd < 0)
                return -errno;
        if (connect(fd, address, length) == 0)
                return -EISCONN;
        return errno == EPERM ? 0 : -errno;
}

int egress_probe(void)
{
        struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(EGRESS_PROBE_PORT) };
        struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(EGRESS_PROBE_PORT) };
        int r;

        (void)inet_pton(AF_INET, EGRESS_PROBE_V4, &v4.sin_addr);
        (void)inet_pton(AF_INET6, EGRESS_PROBE_V6, &v6.sin6_addr);
        r = expect_refusal((const struct sockaddr *)&v4, sizeof(v4));
        if (r)
                return r;
        r = expect_refusal((const struct sockaddr *)&v6, sizeof(v6));
        return r == -EAFNOSUPPORT ? 0 : r;
}
