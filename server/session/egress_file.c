/*
 * Messages that follow each other are one message for protobuf: so each rule is packed as a Policy
 * with one rule, and there is never more than one of them in memory.
 */
#include "server/session/egress_file.h"

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hotcell/egress/v1/egress.pb-c.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "runtime/policy/domain.h"
#include "server/session/egress_rules.h"

enum {
        RULE_MAX = 512, /* bytes of the longest rule, and some more */
        PORTS_MAX = 10, /* of a range of ports */
        BLOCK_BYTES = 16 << 10,
};

/* A file as it is written. */
struct file {
        int fd;
        size_t n_written;
        size_t n; /* in the block */
        uint8_t block[BLOCK_BYTES];
};

/* One rule, and all that its message points at. */
struct rule {
        Hotcell__Egress__V1__Rule message;
        Hotcell__Egress__V1__Ports ports[POLICY_PORTS_MAX];
        Hotcell__Egress__V1__Ports *pointers[POLICY_PORTS_MAX];
        char host[MAX(POLICY_DOMAIN_BUFFER, POLICY_CIDR_BUFFER)];
};
static_assert(sizeof(((struct rule *)0)->host) + (size_t)POLICY_PORTS_MAX * PORTS_MAX + 16 <
                      RULE_MAX,
              "the longest rule fits");

static int flush(struct file *file)
{
        int r = io_write_all(file->fd, file->block, file->n);

        if (r)
                return error_fold(r);
        file->n_written += file->n;
        file->n = 0;
        return file->n_written > EGRESS_FILE_MAX ? error_origin(-EFBIG) : 0;
}

static int set_domain(const char *text, struct rule *rule)
{
        char domain[POLICY_DOMAIN_BUFFER];
        bool is_wildcard;
        int r = policy_parse_domain(text, &is_wildcard, domain);

        if (r)
                return error_origin(r < 0 ? r : -EUCLEAN);
        policy_format_domain(is_wildcard, domain, rule->host);
        rule->message.destination_case = HOTCELL__EGRESS__V1__RULE__DESTINATION_DOMAIN;
        rule->message.domain = rule->host;
        return 0;
}

static int set_cidr(const char *text, struct rule *rule)
{
        struct policy_prefix prefix;

        if (policy_parse_cidr(text, &prefix))
                return error_origin(-EUCLEAN);
        policy_format_cidr(&prefix, rule->host);
        rule->message.destination_case = HOTCELL__EGRESS__V1__RULE__DESTINATION_CIDR;
        rule->message.cidr = rule->host;
        return 0;
}

static void set_ports(const struct egress_rule *packed, struct rule *rule)
{
        for (size_t i = 0; i < packed->n_ports; i++) {
                hotcell__egress__v1__ports__init(&rule->ports[i]);
                rule->ports[i].first = packed->ports[i].low;
                rule->ports[i].last = packed->ports[i].high;
                rule->pointers[i] = &rule->ports[i];
        }
        rule->message.ports = rule->pointers;
        rule->message.n_ports = packed->n_ports;
}

/* As hotcell-egress is told. */
static uint32_t protocol_number(enum policy_protocol protocol)
{
        switch (protocol) {
        case POLICY_UDP:
                return IPPROTO_UDP;
        case POLICY_ICMP:
                return IPPROTO_ICMP;
        case POLICY_TCP:
        default:
                return 0;
        }
}

static int write_rule(struct file *file, const struct egress_rule *packed)
{
        Hotcell__Egress__V1__Policy policy;
        struct rule rule;
        Hotcell__Egress__V1__Rule *rules[] = { &rule.message };
        const struct policy_rule kind = { .action = packed->action,
                                          .protocol = packed->protocol,
                                          .is_domain = packed->is_domain,
                                          .n_ports = packed->n_ports };
        int r;

        /* Of a database that was tampered with. */
        if (policy_rule_check(&kind))
                return error_origin(-EUCLEAN);
        hotcell__egress__v1__policy__init(&policy);
        hotcell__egress__v1__rule__init(&rule.message);
        rule.message.is_allow = packed->action == POLICY_ALLOW;
        rule.message.protocol = protocol_number(packed->protocol);
        r = packed->is_domain ? set_domain(packed->destination, &rule)
                              : set_cidr(packed->destination, &rule);
        if (r)
                return error_fold(r);
        set_ports(packed, &rule);
        policy.rules = rules;
        policy.n_rules = 1;
        if (file->n + RULE_MAX > sizeof(file->block)) {
                r = flush(file);
                if (r)
                        return error_fold(r);
        }
        file->n += hotcell__egress__v1__policy__pack(&policy, file->block + file->n);
        return 0;
}

static int write_rules(struct file *file, const struct egress *egress)
{
        struct egress_rule rule;
        int64_t n_rules = 0;
        size_t offset = 0;
        int r;

        while ((r = egress_rule_next(egress, &offset, &rule)) == 0) {
                r = write_rule(file, &rule);
                if (r)
                        return error_fold(r);
                n_rules++;
        }
        if (r < 0)
                return error_fold(r);
        return n_rules == egress->n_rules ? flush(file) : error_origin(-EUCLEAN);
}

int egress_file_make(const struct egress *egress, int *ret_fd, uint32_t *ret_n_bytes)
{
        static struct file file; /* one thread */
        _cleanup_(closep) int fd = -1;
        int r;

        *ret_fd = -1;
        *ret_n_bytes = 0;
        if (!egress || egress->n_rules == 0)
                return 0;
        fd = memfd_create("hotcell-egress-policy", MFD_CLOEXEC | MFD_ALLOW_SEALING);
        if (fd < 0)
                return error_origin(-errno);
        file.fd = fd;
        file.n = file.n_written = 0;
        r = write_rules(&file, egress);
        if (r)
                return error_fold(r);
        if (fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_GROW | F_SEAL_SHRINK | F_SEAL_SEAL) < 0)
                return error_origin(-errno);
        *ret_fd = take_fd(&fd);
        *ret_n_bytes = (uint32_t)file.n_written;
        return 0;
}
