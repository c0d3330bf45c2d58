#include "test/unit/egress_relay/net.h"

#include <arpa/inet.h>
#include <check.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <net/route.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"

enum { N_MORE_MAX = 128 };

static void change_interface(const char *name, unsigned long request, struct ifreq *change)
{
        _cleanup_(closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);

        (void)snprintf(change->ifr_name, sizeof(change->ifr_name), "%s", name);
        ck_assert_int_eq(ioctl(fd, request, change), 0);
}

static void bring_up(const char *name)
{
        struct ifreq change = { .ifr_flags = IFF_UP };

        change_interface(name, SIOCSIFFLAGS, &change);
}

bool net_enter(void)
{
        if (unshare(CLONE_NEWNET | (geteuid() == 0 ? 0 : CLONE_NEWUSER)) < 0) {
                (void)fprintf(stderr, "# skipped: a new network: %s\n", strerrorname_np(errno));
                return false;
        }
        bring_up("lo");
        return true;
}

static struct sockaddr v4_sockaddr(const char *address)
{
        struct sockaddr_in v4 = { .sin_family = AF_INET };
        struct sockaddr any;

        ck_assert_int_eq(inet_pton(AF_INET, address, &v4.sin_addr), 1);
        memcpy(&any, &v4, sizeof(any));
        return any;
}

static void add_route(const char *network, const char *mask, unsigned short flags)
{
        _cleanup_(closep) int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        char device[] = "lo";
        struct rtentry route = {
                .rt_dst = v4_sockaddr(network),
                .rt_genmask = v4_sockaddr(mask),
                .rt_flags = RTF_UP | flags,
                .rt_dev = flags & RTF_REJECT ? NULL : device,
        };

        ck_assert_int_eq(ioctl(fd, SIOCADDRT, &route), 0);
}

void net_add_route(const char *network, const char *mask)
{
        add_route(network, mask, 0);
}

void net_add_unreachable(const char *network, const char *mask)
{
        add_route(network, mask, RTF_REJECT);
}

void net_add_address(const char *address)
{
        struct ifreq change = { .ifr_addr = v4_sockaddr(address) };

        change_interface("lo:1", SIOCSIFADDR, &change);
}

int net_add_v6_exit(const char *network, unsigned n_bits)
{
        _cleanup_(closep) int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC);
        _cleanup_(closep) int socket_fd = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        struct ifreq device = { .ifr_name = "exit", .ifr_flags = IFF_TUN | IFF_NO_PI };
        struct in6_rtmsg route = { .rtmsg_dst_len = (uint16_t)n_bits,
                                   .rtmsg_metric = 1,
                                   .rtmsg_flags = RTF_UP };

        if (fd < 0 || ioctl(fd, TUNSETIFF, &device) < 0) {
                (void)fprintf(stderr, "# skipped: an interface: %s\n", strerrorname_np(errno));
                return -1;
        }
        bring_up("exit");
        ck_assert_int_eq(inet_pton(AF_INET6, network, &route.rtmsg_dst), 1);
        route.rtmsg_ifindex = (int)if_nametoindex("exit");
        ck_assert_int_eq(ioctl(socket_fd, SIOCADDRT, &route), 0);
        return take_fd(&fd);
}

struct endpoint net_endpoint(const char *address, uint16_t port)
{
        struct endpoint endpoint = { .is_v6 = strchr(address, ':') != NULL, .port = port };

        ck_assert_int_eq(inet_pton(endpoint.is_v6 ? AF_INET6 : AF_INET, address, endpoint.bytes),
                         1);
        return endpoint;
}

int net_listen(struct endpoint *endpoint)
{
        struct sockaddr_storage address;
        socklen_t n_address = endpoint_to_sockaddr(endpoint, &address);
        int fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct sockaddr_in bound; /* the port is at the same place in both */

        ck_assert_int_ge(fd, 0);
        ck_assert_int_eq(bind(fd, (const struct sockaddr *)&address, n_address), 0);
        ck_assert_int_eq(listen(fd, 8), 0);
        ck_assert_int_eq(getsockname(fd, (struct sockaddr *)&address, &n_address), 0);
        memcpy(&bound, &address, sizeof(bound));
        endpoint->port = ntohs(bound.sin_port);
        return fd;
}

/* What everybody may have, or more. */
static void set_buffers(int fd, int n_buffer)
{
        bool is_usual = n_buffer <= NET_BUFFER_MAX;
        int send = is_usual ? SO_SNDBUF : SO_SNDBUFFORCE;
        int receive = is_usual ? SO_RCVBUF : SO_RCVBUFFORCE;

        if (n_buffer == 0)
                return;
        ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, send, &n_buffer, sizeof(int)), 0);
        ck_assert_int_eq(setsockopt(fd, SOL_SOCKET, receive, &n_buffer, sizeof(int)), 0);
}

void net_connect(int n_buffer, int ret_fds[static 2])
{
        struct endpoint endpoint = net_endpoint("127.0.0.1", 0);
        _cleanup_(closep) int listen_fd = net_listen(&endpoint);
        int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        struct sockaddr_storage address;
        socklen_t n_address = endpoint_to_sockaddr(&endpoint, &address);

        set_buffers(listen_fd, n_buffer); /* and so those of what it accepts */
        set_buffers(fd, n_buffer);
        ck_assert_int_eq(connect(fd, (const struct sockaddr *)&address, n_address), 0);
        ck_assert_int_eq(fcntl(fd, F_SETFL, O_NONBLOCK), 0);
        ret_fds[0] = fd;
        ret_fds[1] = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
        ck_assert_int_ge(ret_fds[1], 0);
}

size_t net_n_descriptors(void)
{
        DIR *folder = opendir("/proc/self/fd");
        size_t n = 0;

        ck_assert_ptr_nonnull(folder);
        while (readdir(folder))
                n++;
        (void)closedir(folder);
        return n - 3; /* `.`, `..` and the folder's own */
}

/* Free numbers need not follow each other: as many are taken for a moment. */
static int nth_free_descriptor(size_t n)
{
        int fds[N_MORE_MAX + 1];

        ck_assert_uint_le(n, N_MORE_MAX);
        for (size_t i = 0; i <= n; i++) {
                fds[i] = open("/", O_PATH | O_CLOEXEC);
                ck_assert_int_ge(fds[i], 0);
        }
        for (size_t i = 0; i <= n; i++)
                (void)close(fds[i]);
        return fds[n];
}

void net_limit_descriptors(size_t n_more)
{
        struct rlimit limit;

        ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = limit.rlim_max;
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
        limit.rlim_cur = (rlim_t)nth_free_descriptor(n_more);
        ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &limit), 0);
}
