/*
 * libmnl writes and reads the messages: nested attributes and dumps are more than the structs of
 * netns_sockets.c can say, and libnl's object caches are more than is needed here.
 */
#include "runtime/supervisor/links.h"

#include <errno.h>
#include <libmnl/libmnl.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum {
        MESSAGE_MAX = 1024,
        ANSWER_MAX = 32768, /* as the kernel's own when it lists */
        V4_BITS = 32,
        V6_BITS = 128,
};

/* A message under construction. */
union message {
        struct nlmsghdr header;
        char bytes[MESSAGE_MAX];
};

static unsigned sequence;

int links_open(struct mnl_socket **ret_socket)
{
        _cleanup_(links_closep) struct mnl_socket *socket =
                mnl_socket_open2(NETLINK_ROUTE, SOCK_CLOEXEC);

        if (!socket || mnl_socket_bind(socket, 0, MNL_SOCKET_AUTOPID) < 0)
                return error_origin(-errno);
        *ret_socket = take(socket);
        return 0;
}

struct mnl_socket *links_close(struct mnl_socket *socket)
{
        if (socket)
                (void)mnl_socket_close(socket);
        return NULL;
}

/* A message of a kind, with room for its fixed part at *@ret_body. */
static void begin(union message *message, uint16_t type, uint16_t flags, size_t n_body,
                  void *ret_body)
{
        struct nlmsghdr *header = mnl_nlmsg_put_header(message->bytes);

        header->nlmsg_type = type;
        header->nlmsg_flags = (uint16_t)(NLM_F_REQUEST | flags);
        header->nlmsg_seq = ++sequence;
        *(void **)ret_body = mnl_nlmsg_put_extra_header(header, n_body);
}

/* Sends it and reads all of its answer. */
static int ask(struct mnl_socket *socket, const union message *message, mnl_cb_t on_part,
               void *userdata)
{
        _cleanup_(freep) char *answer = malloc(ANSWER_MAX);
        int r = MNL_CB_OK;

        if (!answer)
                return error_origin(-ENOMEM);
        if (mnl_socket_sendto(socket, message, message->header.nlmsg_len) < 0)
                return -errno;
        while (r > MNL_CB_STOP) {
                ssize_t n = mnl_socket_recvfrom(socket, answer, ANSWER_MAX);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0)
                        return error_origin(-errno);
                r = mnl_cb_run(answer, (size_t)n, message->header.nlmsg_seq,
                               mnl_socket_get_portid(socket), on_part, userdata);
        }
        return r < 0 ? -errno : 0;
}

static int change(struct mnl_socket *socket, union message *message)
{
        message->header.nlmsg_flags |= NLM_F_ACK;
        return ask(socket, message, NULL, NULL);
}

static void put_address(union message *message, uint16_t type, const struct links_address *address)
{
        mnl_attr_put(&message->header, type,
                     address->is_v6 ? sizeof(struct in6_addr) : sizeof(struct in_addr),
                     address->bytes);
}

static uint8_t family_of(const struct links_address *address)
{
        return address->is_v6 ? AF_INET6 : AF_INET;
}

static uint8_t width_of(const struct links_address *address)
{
        return address->is_v6 ? V6_BITS : V4_BITS;
}

int links_create_pair(struct mnl_socket *socket, const struct links_pair *pair)
{
        union message message = { 0 };
        struct nlmsghdr *header = &message.header;
        struct nlattr *info, *data, *peer;
        struct ifinfomsg *link;

        begin(&message, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(*link), &link);
        mnl_attr_put_strz(header, IFLA_IFNAME, pair->name);
        mnl_attr_put(header, IFLA_ADDRESS, LINKS_HARDWARE_BYTES, pair->hardware);
        info = mnl_attr_nest_start(header, IFLA_LINKINFO);
        mnl_attr_put_str(header, IFLA_INFO_KIND, "veth");
        data = mnl_attr_nest_start(header, IFLA_INFO_DATA);
        peer = mnl_attr_nest_start(header, VETH_INFO_PEER);
        (void)mnl_nlmsg_put_extra_header(header, sizeof(struct ifinfomsg));
        mnl_attr_put_strz(header, IFLA_IFNAME, pair->peer_name);
        mnl_attr_put(header, IFLA_ADDRESS, LINKS_HARDWARE_BYTES, pair->peer_hardware);
        mnl_attr_put_u32(header, IFLA_NET_NS_FD, (uint32_t)pair->peer_netns_fd);
        mnl_attr_nest_end(header, peer);
        mnl_attr_nest_end(header, data);
        mnl_attr_nest_end(header, info);
        return change(socket, &message);
}

int links_set_alias(struct mnl_socket *socket, uint32_t number, const char *alias)
{
        union message message = { 0 };
        struct ifinfomsg *link;

        begin(&message, RTM_NEWLINK, 0, sizeof(*link), &link);
        link->ifi_index = (int)number;
        mnl_attr_put_strz(&message.header, IFLA_IFALIAS, alias);
        return change(socket, &message);
}

int links_bring_up(struct mnl_socket *socket, uint32_t number)
{
        union message message = { 0 };
        struct ifinfomsg *link;

        begin(&message, RTM_NEWLINK, 0, sizeof(*link), &link);
        link->ifi_index = (int)number;
        link->ifi_flags = link->ifi_change = IFF_UP;
        return change(socket, &message);
}

int links_add_address(struct mnl_socket *socket, uint32_t number,
                      const struct links_address *address)
{
        union message message = { 0 };
        struct ifaddrmsg *fixed;

        begin(&message, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*fixed), &fixed);
        fixed->ifa_family = family_of(address);
        fixed->ifa_prefixlen = width_of(address);
        fixed->ifa_flags = address->is_v6 ? IFA_F_NODAD : 0;
        fixed->ifa_index = number;
        put_address(&message, IFA_LOCAL, address);
        put_address(&message, IFA_ADDRESS, address);
        return change(socket, &message);
}

int links_add_neighbour(struct mnl_socket *socket, uint32_t number,
                        const struct links_address *address, const uint8_t *hardware)
{
        union message message = { 0 };
        struct ndmsg *fixed;

        begin(&message, RTM_NEWNEIGH, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*fixed), &fixed);
        fixed->ndm_family = family_of(address);
        fixed->ndm_ifindex = (int)number;
        fixed->ndm_state = NUD_PERMANENT;
        put_address(&message, NDA_DST, address);
        mnl_attr_put(&message.header, NDA_LLADDR, LINKS_HARDWARE_BYTES, hardware);
        return change(socket, &message);
}

static void begin_route(union message *message, uint32_t number,
                        const struct links_address *address, struct rtmsg **ret_fixed)
{
        struct rtmsg *fixed;

        begin(message, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*fixed), &fixed);
        fixed->rtm_family = family_of(address);
        fixed->rtm_table = RT_TABLE_MAIN;
        fixed->rtm_protocol = RTPROT_STATIC;
        fixed->rtm_scope = RT_SCOPE_UNIVERSE;
        fixed->rtm_type = RTN_UNICAST;
        mnl_attr_put_u32(&message->header, RTA_OIF, number);
        *ret_fixed = fixed;
}

int links_set_route(struct mnl_socket *socket, uint32_t number, const struct links_address *address)
{
        union message message = { 0 };
        struct rtmsg *fixed;

        begin_route(&message, number, address, &fixed);
        fixed->rtm_dst_len = width_of(address);
        fixed->rtm_scope = address->is_v6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK;
        put_address(&message, RTA_DST, address);
        return change(socket, &message);
}

int links_set_default_route(struct mnl_socket *socket, uint32_t number,
                            const struct links_address *neighbour)
{
        union message message = { 0 };
        struct rtmsg *fixed;

        begin_route(&message, number, neighbour, &fixed);
        /* In no prefix of the device. */
        fixed->rtm_flags = RTNH_F_ONLINK;
        put_address(&message, RTA_GATEWAY, neighbour);
        return change(socket, &message);
}

/* --- removing ----------------------------------------------------------------------------------
 */

enum { FOUND_MAX = 4096 };

struct search {
        const char *prefix;
        const char *alias;
        size_t n;
        uint32_t numbers[FOUND_MAX];
};

struct found {
        const char *name;
        const char *alias;
};

static int on_attribute(const struct nlattr *attribute, void *userdata)
{
        struct found *found = userdata;
        uint16_t type = mnl_attr_get_type(attribute);

        if ((type != IFLA_IFNAME && type != IFLA_IFALIAS) ||
            mnl_attr_validate(attribute, MNL_TYPE_NUL_STRING) < 0)
                return MNL_CB_OK;
        *(type == IFLA_IFNAME ? &found->name : &found->alias) = mnl_attr_get_str(attribute);
        return MNL_CB_OK;
}

static int on_link(const struct nlmsghdr *header, void *userdata)
{
        const struct ifinfomsg *link = mnl_nlmsg_get_payload(header);
        struct found found = { "", "" };
        struct search *search = userdata;

        if (mnl_attr_parse(header, sizeof(*link), on_attribute, &found) < 0)
                return MNL_CB_ERROR;
        if (strncmp(found.name, search->prefix, strlen(search->prefix)) == 0 &&
            strcmp(found.alias, search->alias) == 0 && search->n < FOUND_MAX)
                search->numbers[search->n++] = (uint32_t)link->ifi_index;
        return MNL_CB_OK;
}

static int list(struct mnl_socket *socket, struct search *search)
{
        union message message = { 0 };
        struct ifinfomsg *link;

        begin(&message, RTM_GETLINK, NLM_F_DUMP, sizeof(*link), &link);
        return ask(socket, &message, on_link, search);
}

static int remove_link(struct mnl_socket *socket, uint32_t number)
{
        union message message = { 0 };
        struct ifinfomsg *link;
        int r;

        begin(&message, RTM_DELLINK, 0, sizeof(*link), &link);
        link->ifi_index = (int)number;
        r = change(socket, &message);
        /* Its network may end just now, and takes it along. */
        return r == -ENODEV ? 0 : r;
}

int links_remove_all(struct mnl_socket *socket, const char *prefix, const char *alias,
                     unsigned *ret_n)
{
        _cleanup_(freep) struct search *search = calloc(1, sizeof(*search));
        int r;

        *ret_n = 0;
        if (!search)
                return error_origin(-ENOMEM);
        search->prefix = prefix;
        search->alias = alias;
        do {
                search->n = 0;
                r = list(socket, search);
                for (size_t i = 0; i < search->n && !r; i++) {
                        r = remove_link(socket, search->numbers[i]);
                        *ret_n += r == 0;
                }
        } while (!r && search->n == FOUND_MAX);
        return r;
}
