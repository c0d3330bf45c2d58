/*
 * What tests of policies share: a hotcell-egress without its process, on a loop that the test
 * turns. It serves the network of the first box, whose init was refused as often as proves the
 * wall.
 */
#pragma once

#include <hotcell/egress/v1/egress.pb-c.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/egress.h"
#include "runtime/egress/egress.h"
#include "runtime/egress/network.h"
#include "runtime/egress/resolver.h"
#include "test/bpf/fixture.h"

enum {
        TO_SERVER_ENFORCED = HOTCELL__EGRESS__V1__TO_SERVER__BODY_ENFORCED,
        TO_SERVER_FAILURE = HOTCELL__EGRESS__V1__TO_SERVER__BODY_FAILURE,
};

extern struct fixture f;
extern struct egress egress;
extern struct network *network;
extern int server_fd;                         /* hotcelld's end */
extern uint64_t longest_usec;                 /* turn of the loop */
extern Hotcell__Egress__V1__ToServer *answer; /* that was heard last */

/* @configure may change how names are asked for, of nobody if it does not; NULL: it does not. */
void egress_loop_init(void (*configure)(struct resolver_config *config));
void egress_loop_deinit(void);

/* Another hotcelld. */
void connect_server(void);

void make_network(void);

/* That of the second box, too. */
void make_neighbour(void);

/* As runtime_link does. */
void remove_network(void);

/* What the sandbox's init was refused, and what of it was told. */
void count_refusals(uint64_t n_denied, uint64_t n_logged);

/* Rules that allow: prefixes of each family, and a name; and one that denies. */
struct wanted {
        size_t n_rules4;
        size_t n_rules6;
        const char *domain;
        const char *denied; /* a name, too */
        uint32_t dns_type;  /* that may be asked for besides; zero: none */
        bool is_public;     /* the default is ALLOW_PUBLIC */
        bool is_neighbours; /* not for the first box */
};

void ask_for(uint64_t request, const struct wanted *wanted);
void ask(uint64_t request, size_t n_rules4);

/* Whether it is there. */
void ping(uint64_t request);

/* Whether there was an answer. */
bool hear(void);
void expect_any_answer(void);
void expect_answer(uint64_t request, int body_case);
void put_in_force(uint64_t request, size_t n_rules4);

/* One turn of the loop. */
void turn(void);
void run_until(bool (*condition)(const void *userdata), const void *userdata);

/* How many entries a table has. */
size_t count_entries(enum egress_map map);

uint32_t policy_in_force(void);
