/* There are as many accounts as owners that are connected: few enough to look through. */
#include "server/rpc/accounts.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"

TAILQ_HEAD(account_line, account_turn);

struct account {
        LIST_ENTRY(account) link;
        const struct account_limits *limits;
        bool is_bounded;
        unsigned n_holds;
        unsigned n_connections;
        unsigned n_calls;
        unsigned n_readings;
        size_t n_unread;
        struct account_line readers;
        struct account_line writers;
        char name[];
};

LIST_HEAD(account_list, account);

struct accounts {
        struct account_limits limits;
        struct account_list all;
};

int accounts_new(const struct account_limits *limits, struct accounts **ret_accounts)
{
        struct accounts *accounts = calloc(1, sizeof(*accounts));

        if (!accounts)
                return error_origin(-ENOMEM);
        accounts->limits = *limits;
        LIST_INIT(&accounts->all);
        *ret_accounts = accounts;
        return 0;
}

struct accounts *accounts_free(struct accounts *accounts)
{
        if (!accounts)
                return NULL;
        assert(LIST_EMPTY(&accounts->all));
        free(accounts);
        return NULL;
}

struct account *account_hold(struct accounts *accounts, const char *name, bool is_bounded)
{
        size_t n_name = strlen(name) + 1;
        struct account *account;

        LIST_FOREACH(account, &accounts->all, link)
        if (strcmp(account->name, name) == 0)
                break;
        if (!account) {
                account = calloc(1, sizeof(*account) + n_name);
                if (!account)
                        return NULL;
                memcpy(account->name, name, n_name);
                account->limits = &accounts->limits;
                account->is_bounded = is_bounded;
                TAILQ_INIT(&account->readers);
                TAILQ_INIT(&account->writers);
                LIST_INSERT_HEAD(&accounts->all, account, link);
        }
        account->n_holds++;
        return account;
}

struct account *account_hold_again(struct account *account)
{
        account->n_holds++;
        return account;
}

void account_release(struct account *account)
{
        assert(account->n_holds > 0);
        if (--account->n_holds > 0)
                return;
        assert(!account->n_connections && !account->n_calls && !account->n_readings);
        assert(!account->n_unread && TAILQ_EMPTY(&account->readers) &&
               TAILQ_EMPTY(&account->writers));
        LIST_REMOVE(account, link);
        free(account);
}

static bool is_at(unsigned n, unsigned max)
{
        return max && n >= max;
}

bool account_begin_connection(struct account *account)
{
        if (account->is_bounded && is_at(account->n_connections, account->limits->connections_max))
                return false;
        account->n_connections++;
        account->n_holds++;
        return true;
}

void account_end_connection(struct account *account)
{
        account->n_connections--;
        account_release(account);
}

bool account_begin_call(struct account *account)
{
        if (account->is_bounded && is_at(account->n_calls, account->limits->calls_max))
                return false;
        account->n_calls++;
        account->n_holds++;
        return true;
}

void account_end_call(struct account *account)
{
        account->n_calls--;
        account_release(account);
}

/* --- lines --- */

static void wait_in(struct account_line *line, struct account_turn *turn)
{
        assert(!turn->line);
        TAILQ_INSERT_TAIL(line, turn, turns);
        turn->line = line;
}

void account_cancel(struct account_turn *turn)
{
        if (!turn->line)
                return;
        TAILQ_REMOVE(turn->line, turn, turns);
        turn->line = NULL;
}

static struct account_turn *take_first(struct account_line *line)
{
        struct account_turn *turn = TAILQ_FIRST(line);

        if (turn)
                account_cancel(turn);
        return turn;
}

bool account_begin_reading(struct account *account, struct account_turn *turn)
{
        if (is_at(account->n_readings, account->limits->readings_max)) {
                wait_in(&account->readers, turn);
                return false;
        }
        account->n_readings++;
        return true;
}

void account_end_reading(struct account *account)
{
        struct account_turn *next = take_first(&account->readers);

        if (next)
                next->on_turn(next); /* takes over */
        else
                account->n_readings--;
}

bool account_has_room(const struct account *account)
{
        return !account->limits->unread_max_bytes ||
               account->n_unread < account->limits->unread_max_bytes;
}

/* One alone always has room: whatever its size, it is the only one. */
bool account_has_room_for(const struct account *account, size_t n_bytes)
{
        size_t max = account->limits->unread_max_bytes;

        return !max || !account->n_unread ||
               (account->n_unread <= max && n_bytes <= max - account->n_unread);
}

void account_wait_for_room(struct account *account, struct account_turn *turn)
{
        if (!turn->line)
                wait_in(&account->writers, turn);
}

void account_add_unread(struct account *account, size_t n_bytes)
{
        account->n_unread += n_bytes;
}

void account_remove_unread(struct account *account, size_t n_bytes)
{
        struct account_turn *next;

        assert(account->n_unread >= n_bytes);
        account->n_unread -= n_bytes;
        while (account_has_room(account) && (next = take_first(&account->writers)))
                next->on_turn(next);
}
