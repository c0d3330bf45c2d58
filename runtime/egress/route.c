/*
 * One message of rtnetlink(7) asks for the route of a TCP connection to the endpoint, rules by user
 * and port included. The kernel makes the answer inside of sendto(2), without the lock of all
 * network configuration, so it is there when that returns.
 *
 * The macros of <linux/rtnetlink.h> are enough for a message of fixed size and the fixed head of
 * its answer; libmnl would be one more package for these.
 */
#include "runtime/egress/route.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/socket.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum {
        V4_BYTES = 4,
        V6_BYTES = 16,
        V4_BITS = 32,
        V6_BITS = 128,
        ANSWER_MAX = 4096, /* a route with its metrics is some hundred bytes */
        ANSWERS_MAX = 8,   /* of older questions, before the one that is waited for */
};

struct question {
        struct nlmsghdr header;
        struct rtmsg route;
        uint8_t attributes[RTA_SPACE(V6_BYTES) + RTA_SPACE(1) + RTA_SPACE(2)];
};

union answer {
        struct nlmsghdr header;
        uint8_t bytes[ANSWER_MAX];
};

struct endpoint endpoint_normalise(const struct endpoint *endpoint)
{
        struct in6_addr address;
        struct endpoint v4 = { .port = endpoint->port };

        memcpy(&address, endpoint->bytes, sizeof(address));
        if (!endpoint->is_v6 || !IN6_IS_ADDR_V4MAPPED(&address))
                return *endpoint;
        memcpy(v4.bytes, endpoint->bytes + V6_BYTES - V4_BYTES, V4_BYTES);
        return v4;
}

socklen_t endpoint_to_sockaddr(const struct endpoint *endpoint,
                               struct sockaddr_storage *ret_address)
{
        struct sockaddr_in v4 = { .sin_family = AF_INET, .sin_port = htons(endpoint->port) };
        struct sockaddr_in6 v6 = { .sin6_family = AF_INET6, .sin6_port = htons(endpoint->port) };

        *ret_address = (struct sockaddr_storage){ 0 };
        if (endpoint->is_v6) {
                memcpy(&v6.sin6_addr, endpoint->bytes, V6_BYTES);
                memcpy(ret_address, &v6, sizeof(v6));
                return sizeof(v6);
        }
        memcpy(&v4.sin_addr, endpoint->bytes, V4_BYTES);
        memcpy(ret_address, &v4, sizeof(v4));
        return sizeof(v4);
}

int routes_init(struct routes *routes)
{
        _cleanup_(closep) int fd =
                socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, NETLINK_ROUTE);
        const struct sockaddr_nl kernel = { .nl_family = AF_NETLINK };

        if (fd < 0)
                return error_origin(-errno);
        /* Connected to the kernel, so that no process can answer in its place. */
        if (connect(fd, (const struct sockaddr *)&kernel, sizeof(kernel)) < 0)
                return error_origin(-errno);
        *routes = (struct routes){ .fd = take_fd(&fd) };
        return 0;
}

void routes_deinit(struct routes *routes)
{
        routes->fd = close_fd(routes->fd);
}

static void add_attribute(struct question *question, unsigned short type, const void *data,
                          unsigned short n_data)
{
        struct rtattr header = { .rta_type = type, .rta_len = (unsigned short)RTA_LENGTH(n_data) };
        size_t at = question->header.nlmsg_len - offsetof(struct question, attributes);

        assert(at + RTA_SPACE(n_data) <= sizeof(question->attributes));
        memcpy(question->attributes + at, &header, sizeof(header));
        memcpy(question->attributes + at + RTA_LENGTH(0), data, n_data);
        question->header.nlmsg_len += (uint32_t)RTA_SPACE(n_data);
}

static void make_question(const struct endpoint *endpoint, uint32_t number,
                          struct question *ret_question)
{
        const uint8_t protocol = IPPROTO_TCP;
        const uint16_t port = htons(endpoint->port);

        *ret_question = (struct question){
                .header = { .nlmsg_len = offsetof(struct question, attributes),
                            .nlmsg_type = RTM_GETROUTE,
                            .nlmsg_flags = NLM_F_REQUEST,
                            .nlmsg_seq = number },
                .route = { .rtm_family = endpoint->is_v6 ? AF_INET6 : AF_INET,
                           .rtm_dst_len = endpoint->is_v6 ? V6_BITS : V4_BITS },
        };
        add_attribute(ret_question, RTA_DST, endpoint->bytes,
                      endpoint->is_v6 ? V6_BYTES : V4_BYTES);
        add_attribute(ret_question, RTA_IP_PROTO, &protocol, sizeof(protocol));
        add_attribute(ret_question, RTA_DPORT, &port, sizeof(port));
}

/* Any type that is not known to lead away from the host is refused. */
static int judge_type(uint8_t type)
{
        switch (type) {
        case RTN_UNICAST:
                return 0;
        case RTN_LOCAL:
        case RTN_ANYCAST:
                return ROUTE_E_LOCAL;
        case RTN_BROADCAST:
                return ROUTE_E_BROADCAST;
        case RTN_MULTICAST:
                return ROUTE_E_MULTICAST;
        default:
                return -ENETUNREACH;
        }
}

static int judge_answer(const union answer *answer, size_t n_bytes)
{
        struct nlmsgerr error;
        struct rtmsg route;

        if (answer->header.nlmsg_type == NLMSG_ERROR && n_bytes >= NLMSG_LENGTH(sizeof(error))) {
                memcpy(&error, answer->bytes + NLMSG_HDRLEN, sizeof(error));
                return error.error < 0 ? error.error : error_origin(-EPROTO);
        }
        if (answer->header.nlmsg_type != RTM_NEWROUTE || n_bytes < NLMSG_LENGTH(sizeof(route)))
                return error_origin(-EPROTO);
        memcpy(&route, answer->bytes + NLMSG_HDRLEN, sizeof(route));
        return judge_type(route.rtm_type);
}

/* An answer to a question that failed in between may still lie there: its number is another. */
static int receive_answer(const struct routes *routes)
{
        for (unsigned i = 0; i < ANSWERS_MAX; i++) {
                union answer answer;
                ssize_t n;

                do
                        n = recv(routes->fd, &answer, sizeof(answer), MSG_DONTWAIT);
                while (n < 0 && errno == EINTR);
                if (n < 0)
                        return error_origin(-errno);
                if ((size_t)n >= sizeof(answer.header) &&
                    answer.header.nlmsg_seq == routes->n_asked)
                        return judge_answer(&answer, (size_t)n);
        }
        return error_origin(-EPROTO);
}

/* To these connect(2) takes the host itself, whatever a route says. */
static bool is_unspecified(const struct endpoint *endpoint)
{
        static const uint8_t zeros[V6_BYTES] = { 0 };

        return memcmp(endpoint->bytes, zeros, endpoint->is_v6 ? V6_BYTES : V4_BYTES) == 0;
}

int route_check(struct routes *routes, const struct endpoint *endpoint)
{
        const struct endpoint normal = endpoint_normalise(endpoint);
        struct question question;
        ssize_t n;

        if (is_unspecified(&normal))
                return ROUTE_E_LOCAL;
        make_question(&normal, ++routes->n_asked, &question);
        do
                n = send(routes->fd, &question, question.header.nlmsg_len, MSG_NOSIGNAL);
        while (n < 0 && errno == EINTR);
        if (n < 0)
                return error_origin(-errno);
        return receive_answer(routes);
}
