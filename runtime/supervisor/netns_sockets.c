#include "runtime/supervisor/netns_sockets.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "bpf/egress_abi.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "runtime/supervisor/netns.h"

enum {
        BACKLOG = 512, /* no more than net.core.somaxconn of the network, see netns.c */
        DNS_ADDRESS = 0x7f000035,
        DNS_PORT = 53,
        PREFIX6_BITS = 96,
};

/* --- the route ----------------------------------------------------------------------------------
 */

struct route_request {
        struct nlmsghdr header;
        struct rtmsg route;
        struct rtattr destination_head;
        struct in6_addr destination;
        struct rtattr device_head;
        uint32_t device;
};

struct route_answer {
        struct nlmsghdr header;
        struct nlmsgerr error;
};

/* `ip -6 route add local fd68:6365:6c6c::/96 dev lo table local` */
static void fill_request(struct route_request *request)
{
        *request = (struct route_request){
                .header = { .nlmsg_len = sizeof(*request),
                            .nlmsg_type = RTM_NEWROUTE,
                            .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE },
                .route = { .rtm_family = AF_INET6,
                           .rtm_dst_len = PREFIX6_BITS,
                           .rtm_table = RT_TABLE_LOCAL,
                           .rtm_protocol = RTPROT_STATIC,
                           .rtm_scope = RT_SCOPE_HOST,
                           .rtm_type = RTN_LOCAL },
                .destination_head = { RTA_LENGTH(sizeof(struct in6_addr)), RTA_DST },
                .device_head = { RTA_LENGTH(sizeof(uint32_t)), RTA_OIF },
                .device = if_nametoindex("lo"),
        };
        request->destination.s6_addr32[0] = htonl(EGRESS_RELAY6_0);
        request->destination.s6_addr32[1] = htonl(EGRESS_RELAY6_1);
}

static int make_prefix_local(void)
{
        _cleanup_(closep) int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        struct route_request request;
        struct route_answer answer = { 0 };

        if (fd < 0)
                return error_origin(-errno);
        fill_request(&request);
        if (send(fd, &request, sizeof(request), 0) < 0 || recv(fd, &answer, sizeof(answer), 0) < 0)
                return error_origin(-errno);
        if (answer.header.nlmsg_type != NLMSG_ERROR)
                return error_origin(-EPROTO);
        return answer.error.error ? error_origin(answer.error.error) : 0;
}

/* --- the sockets --------------------------------------------------------------------------------
 */

static int bind_relay4(int *ret_fd)
{
        const struct sockaddr_in any = { .sin_family = AF_INET };

        *ret_fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (*ret_fd < 0 || bind(*ret_fd, (const struct sockaddr *)&any, sizeof(any)) < 0)
                return error_origin(-errno);
        return 0;
}

/* Of both families. -EAFNOSUPPORT: there is no IPv6. */
static int bind_relay6(int *ret_fd)
{
        const struct sockaddr_in6 any = { .sin6_family = AF_INET6 };
        const int no = 0;

        *ret_fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (*ret_fd < 0 && errno == EAFNOSUPPORT)
                return -EAFNOSUPPORT;
        if (*ret_fd < 0 || setsockopt(*ret_fd, IPPROTO_IPV6, IPV6_V6ONLY, &no, sizeof(no)) < 0 ||
            bind(*ret_fd, (const struct sockaddr *)&any, sizeof(any)) < 0)
                return error_origin(-errno);
        return make_prefix_local();
}

static int make_relay(struct netns *netns)
{
        int *fd = &netns->sockets[NETNS_RELAY];
        struct sockaddr_in6 address = { 0 };
        socklen_t length = sizeof(address);
        int r = bind_relay6(fd);

        if (r == -EAFNOSUPPORT)
                r = bind_relay4(fd);
        if (r)
                return r;
        if (listen(*fd, BACKLOG) < 0 || getsockname(*fd, (struct sockaddr *)&address, &length) < 0)
                return error_origin(-errno);
        /* At the same place in both families. */
        netns->relay_port = ntohs(address.sin6_port);
        return 0;
}

static int make_resolver(struct netns *netns)
{
        const struct sockaddr_in address = { .sin_family = AF_INET,
                                             .sin_port = htons(DNS_PORT),
                                             .sin_addr.s_addr = htonl(DNS_ADDRESS) };
        static const struct {
                enum netns_socket socket;
                int type;
        } sockets[] = { { NETNS_DNS_DATAGRAM, SOCK_DGRAM }, { NETNS_DNS_STREAM, SOCK_STREAM } };

        for (size_t i = 0; i < ARRAY_SIZE(sockets); i++) {
                int fd = socket(AF_INET, sockets[i].type | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

                netns->sockets[sockets[i].socket] = fd;
                if (fd < 0 || bind(fd, (const struct sockaddr *)&address, sizeof(address)) < 0)
                        return error_origin(-errno);
        }
        if (listen(netns->sockets[NETNS_DNS_STREAM], BACKLOG) < 0)
                return error_origin(-errno);
        return 0;
}

int netns_make_sockets(struct netns *netns)
{
        int r = make_relay(netns);

        return r ? r : make_resolver(netns);
}
