/*
 * Who calls. A peer of the unix socket is its uid, and an operator: the socket's mode and group say
 * who that can be. Whoever shows an API key, there or on TCP, is that key, and no operator. On TCP
 * there is no other way in.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "server/store/records.h"

struct auth;
struct rpc_peer;
struct store;

enum {
        AUTH_E_MISSING = 1, /* a key is needed, and none was sent */
        AUTH_E_INVALID, /* what was sent is no key, or none that is good; never anonymous then */
        AUTH_E_NAME_IN_USE, /* a good key has the name */
        AUTH_E_NOT_FOUND,
        AUTH_E_KEY_LIMIT, /* as many good keys as can be */
};

enum {
        SECRET_BUFFER = 57, /* `hck_`, 52 base32 characters (260 bits) and NUL */
};

struct identity {
        char owner[OWNER_BUFFER]; /* `uid:1000` or the key's id */
        bool is_operator;
};

/* @on_loaded comes once, later, with the result of reading the keys; nobody is let in with a key
 * before. @store outlives the callbacks: close it before auth_free. */
int auth_new(struct store *store, void (*on_loaded)(void *userdata, int result), void *userdata,
             struct auth **ret_auth);
struct auth *auth_free(struct auth *auth);

/*
 * @authorization and @api_key are the values of these headers, NULL when absent; `authorization:
 * Bearer …` counts if there are both. 0, AUTH_E_MISSING or AUTH_E_INVALID.
 */
int auth_identify(const struct auth *auth, const struct rpc_peer *peer, const char *authorization,
                  const char *api_key, struct identity *ret_identity);

/* What is given is good during the callback. @record is NULL unless @result is 0; @secret is only
 * told here, by auth_create_key, and else NULL. */
typedef void (*auth_on_key)(void *userdata, int result, const struct key_record *record,
                            const char *secret);

/* @name was checked: 1 to 63 bytes of UTF-8. AUTH_E_NAME_IN_USE, AUTH_E_KEY_LIMIT. */
void auth_create_key(struct auth *auth, const char *name, auth_on_key on_done, void *userdata);

/* From the callback on, the key lets nobody in. Revoking again succeeds. AUTH_E_NOT_FOUND. */
void auth_revoke_key(struct auth *auth, const char *key_id, auth_on_key on_done, void *userdata);

/* Newest first, revoked ones too. Good until control returns to the loop. */
const struct key_record *auth_list(const struct auth *auth, size_t *ret_n);
