/*
 * What each owner holds of the server: connections, calls, requests on their way in and answers
 * that are not read yet. What one of them uses up, only that one lacks.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/queue.h>

#include "runtime/base/cleanup.h"

struct account;
struct accounts;

/* Of each account; zero: no bound. */
struct account_limits {
        unsigned connections_max; /* not of those that are unbounded */
        unsigned calls_max;       /* the same */
        unsigned readings_max;    /* requests on their way in; further ones wait */
        size_t unread_max_bytes;
};

int accounts_new(const struct account_limits *limits, struct accounts **ret_accounts);
struct accounts *accounts_free(struct accounts *accounts); /* when nobody holds one */
DEFINE_CLEANUP(struct accounts, accounts_free)

/* A hold of the account of that name; NULL: out of memory. */
struct account *account_hold(struct accounts *accounts, const char *name, bool is_bounded);
struct account *account_hold_again(struct account *account);
void account_release(struct account *account);

/* False when there are as many as there may be. What was begun is to be ended. */
bool account_begin_connection(struct account *account);
void account_end_connection(struct account *account);
bool account_begin_call(struct account *account);
void account_end_call(struct account *account);

/* A place in a line. on_turn is called once the account has room, unless it was cancelled. */
struct account_turn {
        TAILQ_ENTRY(account_turn) turns;
        struct account_line *line; /* NULL: in none */
        void (*on_turn)(struct account_turn *turn);
};
void account_cancel(struct account_turn *turn);

/* True: begun. False: @turn waits, and has begun when its turn comes. */
bool account_begin_reading(struct account *account, struct account_turn *turn);
void account_end_reading(struct account *account);

/* Whether more may be written, and @n_bytes at once. */
bool account_has_room(const struct account *account);
bool account_has_room_for(const struct account *account, size_t n_bytes);
void account_wait_for_room(struct account *account, struct account_turn *turn);
void account_add_unread(struct account *account, size_t n_bytes);
void account_remove_unread(struct account *account, size_t n_bytes);
