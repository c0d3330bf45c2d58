/*
 * Who calls. A peer of the unix socket is its uid, and an operator: the socket's mode and group say
 * who that can be. Whoever shows an API key, there or on TCP, is that key, and no operator. On TCP
 * there is no other way in.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include <systemd/sd-event.h>

#include "server/auth/scope.h"
#include "server/store/records.h"

struct auth;
struct rpc_peer;
struct store;

enum {
        AUTH_E_MISSING = 1, /* a key is needed, and none was sent */
        AUTH_E_INVALID,     /* what was sent is no key of ours; never anonymous then */
        AUTH_E_EXPIRED,
        AUTH_E_REVOKED,
        AUTH_E_NAME_IN_USE, /* a good key has the name */
        AUTH_E_NOT_FOUND,
        AUTH_E_KEY_LIMIT, /* as many good keys as can be */
};

/* The numbers are those of the public API. */
enum key_state {
        KEY_ACTIVE = 1,
        KEY_EXPIRED,
        KEY_REVOKED, /* also when it would have expired since */
};

enum {
        SECRET_BUFFER = 57, /* `hck_`, 52 base32 characters (260 bits) and NUL */
};

struct identity {
        char owner[OWNER_BUFFER]; /* `uid:1000`, or a key's id: whose things these are */
        char key_id[ID_BUFFER];   /* empty: no key was shown */
        unsigned scopes;          /* BIT(enum scope) */
        bool is_operator;
};

bool identity_has_scope(const struct identity *identity, enum scope scope);

/* @on_loaded comes once, later, with the result of reading the keys; nobody is let in with a key
 * before. @store outlives the callbacks: close it before auth_free. */
int auth_new(sd_event *loop, struct store *store, void (*on_loaded)(void *userdata, int result),
             void *userdata, struct auth **ret_auth);
struct auth *auth_free(struct auth *auth);

/* Told when a key stops to let anybody in while the server runs: what was begun with it is to end.
 * @outcome: AUTH_E_EXPIRED or AUTH_E_REVOKED. One observer; NULL: none any more. */
typedef void (*auth_on_key_over)(void *userdata, const char *key_id, int outcome);
void auth_observe(struct auth *auth, auth_on_key_over on_key_over, void *userdata);

/*
 * @authorization and @api_key are the values of these headers, NULL when absent; `authorization:
 * Bearer …` counts if there are both. 0, AUTH_E_MISSING, AUTH_E_INVALID, AUTH_E_EXPIRED or
 * AUTH_E_REVOKED. The use of a key is noted, to the minute.
 */
int auth_identify(struct auth *auth, const struct rpc_peer *peer, const char *authorization,
                  const char *api_key, struct identity *ret_identity);

/* What is given is good during the callback. @record is NULL unless @result is 0; @secret is only
 * told here, by auth_create_key, and else NULL. */
typedef void (*auth_on_key)(void *userdata, int result, const struct key_record *record,
                            const char *secret);

struct key_request {
        const char *name;         /* was checked: 1 to 63 bytes of UTF-8 */
        unsigned scopes;          /* BIT(enum scope), of SCOPES_OF_KEYS */
        int64_t expire_time_usec; /* zero: never */
        const char *owner_key_id; /* the key, good or not, whose owner it shares; "": its own */
        struct key_quotas quotas; /* of an owner of its own; else those that its owner has */
};

/* AUTH_E_NAME_IN_USE, AUTH_E_KEY_LIMIT; AUTH_E_NOT_FOUND: there is no such key to share with. */
void auth_create_key(struct auth *auth, const struct key_request *request, auth_on_key on_done,
                     void *userdata);

/* From the callback on, the key lets nobody in, and the observer was told. Revoking again succeeds.
 * AUTH_E_NOT_FOUND. */
void auth_revoke_key(struct auth *auth, const char *key_id, auth_on_key on_done, void *userdata);

/* Sets those in @set (BIT(enum key_quota)) for all keys that share its owner. AUTH_E_NOT_FOUND. */
void auth_update_key(struct auth *auth, const char *key_id, unsigned set,
                     const struct key_quotas *quotas, auth_on_key on_done, void *userdata);

/* NULL: no key has that owner. */
const struct key_quotas *auth_quotas_of(const struct auth *auth, const char *owner);

enum key_state key_state(const struct key_record *key, int64_t now_usec);

/* Newest first, also those that are revoked or expired. Good until control returns to the loop. */
const struct key_record *auth_list(const struct auth *auth, size_t *ret_n);
