/*
 * The keys are kept in memory as the store has them: at most a thousand. A secret is 260 random
 * bits, so its plain SHA-256 is enough, and every digest is compared in constant time.
 */
#include "server/auth/auth.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "runtime/base/base32.h"
#include "runtime/base/cleanup.h"
#include "runtime/base/clock.h"
#include "runtime/base/error.h"
#include "runtime/base/log.h"
#include "runtime/base/macros.h"
#include "server/rpc/rpc.h"
#include "server/store/store.h"

struct auth {
        struct store *store;
        void (*on_loaded)(void *userdata, int result);
        void *loaded_userdata;
        struct key_record keys[STORE_KEYS_MAX]; /* newest first */
        size_t n_keys;
        size_t n_creating; /* their places are taken, too */
};

static const char secret_prefix[] = "hck_";
enum { SECRET_RANDOM = 52 };

static_assert(SECRET_BUFFER == sizeof(secret_prefix) + SECRET_RANDOM, "prefix, random, NUL");

static bool secret_is_well_formed(const char *secret)
{
        const size_t prefix_length = strlen(secret_prefix);

        return strncmp(secret, secret_prefix, prefix_length) == 0 &&
               base32_is_valid(secret + prefix_length, SECRET_RANDOM);
}

static int secret_digest(const char *secret, uint8_t ret_digest[static 32])
{
        unsigned n = 0;

        if (EVP_Digest(secret, strlen(secret), ret_digest, &n, EVP_sha256(), NULL) != 1 || n != 32)
                return error_origin(-EIO);
        return 0;
}

static int secret_generate(char ret_secret[static SECRET_BUFFER])
{
        size_t n_prefix = strlen(secret_prefix);

        (void)memcpy(ret_secret, secret_prefix, n_prefix);
        return base32_random(ret_secret + n_prefix, SECRET_RANDOM);
}

static void on_keys_loaded(void *userdata, int result, const struct key_record *records, size_t n)
{
        struct auth *auth = userdata;

        if (result == 0 && n > ARRAY_SIZE(auth->keys))
                result = error_origin(-EUCLEAN);
        if (result == 0 && n) {
                (void)memcpy(auth->keys, records, n * sizeof(*records));
                auth->n_keys = n;
        }
        auth->on_loaded(auth->loaded_userdata, result);
}

int auth_new(struct store *store, void (*on_loaded)(void *userdata, int result), void *userdata,
             struct auth **ret_auth)
{
        struct auth *auth = calloc(1, sizeof(*auth));

        if (!auth)
                return error_origin(-ENOMEM);
        auth->store = store;
        auth->on_loaded = on_loaded;
        auth->loaded_userdata = userdata;
        *ret_auth = auth;
        store_list_keys(store, on_keys_loaded, auth);
        return 0;
}

struct auth *auth_free(struct auth *auth)
{
        if (!auth)
                return NULL;
        OPENSSL_cleanse(auth->keys, sizeof(auth->keys));
        free(auth);
        return NULL;
}

/* All are compared, also after one that fits: how long it takes tells nothing. */
static const struct key_record *find_good_key(const struct auth *auth,
                                              const uint8_t digest[static 32])
{
        const struct key_record *found = NULL;

        for (size_t i = 0; i < auth->n_keys; i++) {
                const struct key_record *key = &auth->keys[i];

                if (CRYPTO_memcmp(key->secret_sha256, digest, 32) == 0 && !key->revoke_time_usec)
                        found = key;
        }
        return found;
}

/* The secret in the headers; "" when they hold none that could be one, NULL when they are absent.
 */
static const char *sent_secret(const char *authorization, const char *api_key)
{
        static const char scheme[] = "bearer ";

        if (!authorization)
                return api_key;
        if (strncasecmp(authorization, scheme, strlen(scheme)) != 0)
                return "";
        authorization += strlen(scheme);
        return authorization + strspn(authorization, " ");
}

static int identify_by_secret(const struct auth *auth, const char *secret,
                              struct identity *ret_identity)
{
        const struct key_record *key;
        uint8_t digest[32];
        int r;

        if (!secret_is_well_formed(secret))
                return AUTH_E_INVALID;
        r = secret_digest(secret, digest);
        if (r)
                return error_fold(r);
        key = find_good_key(auth, digest);
        if (!key)
                return AUTH_E_INVALID;

        *ret_identity = (struct identity){ .is_operator = false };
        (void)memcpy(ret_identity->owner, key->key_id, sizeof(key->key_id));
        return 0;
}

int auth_identify(const struct auth *auth, const struct rpc_peer *peer, const char *authorization,
                  const char *api_key, struct identity *ret_identity)
{
        const char *secret = sent_secret(authorization, api_key);

        if (secret)
                return identify_by_secret(auth, secret, ret_identity);
        if (!peer->is_unix)
                return AUTH_E_MISSING;

        *ret_identity = (struct identity){ .is_operator = true };
        (void)snprintf(ret_identity->owner, sizeof(ret_identity->owner), "uid:%u", peer->uid);
        return 0;
}

static struct key_record *find_by_id(struct auth *auth, const char *key_id)
{
        for (size_t i = 0; i < auth->n_keys; i++)
                if (strcmp(auth->keys[i].key_id, key_id) == 0)
                        return &auth->keys[i];
        return NULL;
}

static size_t count_good(const struct auth *auth)
{
        size_t n = 0;

        for (size_t i = 0; i < auth->n_keys; i++)
                n += !auth->keys[i].revoke_time_usec;
        return n;
}

/* As the store does for a new key: the oldest revoked one makes room. */
static void forget_one_revoked(struct auth *auth)
{
        for (size_t i = auth->n_keys; i-- > 0;) {
                if (!auth->keys[i].revoke_time_usec)
                        continue;
                (void)memmove(&auth->keys[i], &auth->keys[i + 1],
                              (auth->n_keys - i - 1) * sizeof(auth->keys[0]));
                auth->n_keys--;
                return;
        }
}

static void add_newest(struct auth *auth, const struct key_record *key)
{
        if (auth->n_keys == ARRAY_SIZE(auth->keys))
                forget_one_revoked(auth);
        assert(auth->n_keys < ARRAY_SIZE(auth->keys));
        (void)memmove(&auth->keys[1], &auth->keys[0], auth->n_keys * sizeof(auth->keys[0]));
        auth->keys[0] = *key;
        auth->n_keys++;
}

/* A key on its way into or out of the store. */
struct change {
        struct auth *auth;
        auth_on_key on_done;
        void *userdata;
        struct key_record key;
        char secret[SECRET_BUFFER];
};

static void change_freep(struct change **change)
{
        if (*change)
                OPENSSL_cleanse(*change, sizeof(**change));
        free(*change);
}

static void on_key_inserted(void *userdata, int result)
{
        _cleanup_(change_freep) struct change *change = userdata;

        change->auth->n_creating--;
        if (result == STORE_E_NAME_IN_USE)
                result = AUTH_E_NAME_IN_USE;
        if (result) {
                change->on_done(change->userdata, result, NULL, NULL);
                return;
        }
        add_newest(change->auth, &change->key);
        log_info("an api key was created key_id=%s", change->key.key_id);
        change->on_done(change->userdata, 0, &change->key, change->secret);
}

static int make_key(const char *name, struct key_record *ret_key,
                    char ret_secret[static SECRET_BUFFER])
{
        size_t n_name = strlen(name);
        int r;

        *ret_key = (struct key_record){ .create_time_usec = time_now_usec() };
        if (n_name >= sizeof(ret_key->name))
                return error_origin(-ENAMETOOLONG);
        (void)memcpy(ret_key->name, name, n_name + 1);
        r = id_generate("key", ret_key->key_id);
        if (r == 0)
                r = secret_generate(ret_secret);
        if (r == 0)
                r = secret_digest(ret_secret, ret_key->secret_sha256);
        return r ? error_fold(r) : 0;
}

static int begin_create(struct auth *auth, const char *name, auth_on_key on_done, void *userdata)
{
        _cleanup_(change_freep) struct change *change = NULL;
        int r;

        if (count_good(auth) + auth->n_creating >= ARRAY_SIZE(auth->keys))
                return AUTH_E_KEY_LIMIT;
        change = calloc(1, sizeof(*change));
        if (!change)
                return error_origin(-ENOMEM);
        r = make_key(name, &change->key, change->secret);
        if (r)
                return error_fold(r);

        change->auth = auth;
        change->on_done = on_done;
        change->userdata = userdata;
        auth->n_creating++;
        store_insert_key(auth->store, &change->key, on_key_inserted, change);
        (void)take(change);
        return 0;
}

void auth_create_key(struct auth *auth, const char *name, auth_on_key on_done, void *userdata)
{
        int r = begin_create(auth, name, on_done, userdata);

        if (r)
                on_done(userdata, r, NULL, NULL);
}

static void on_key_revoked(void *userdata, int result)
{
        _cleanup_(change_freep) struct change *change = userdata;
        struct key_record *key = find_by_id(change->auth, change->key.key_id);

        if (result == STORE_E_NOT_FOUND || (result == 0 && !key))
                result = AUTH_E_NOT_FOUND;
        if (result) {
                change->on_done(change->userdata, result, NULL, NULL);
                return;
        }
        if (!key->revoke_time_usec) {
                key->revoke_time_usec = change->key.revoke_time_usec;
                log_info("an api key was revoked key_id=%s", key->key_id);
        }
        change->on_done(change->userdata, 0, key, NULL);
}

void auth_revoke_key(struct auth *auth, const char *key_id, auth_on_key on_done, void *userdata)
{
        const struct key_record *key = find_by_id(auth, key_id);
        struct change *change;

        if (!key) {
                on_done(userdata, AUTH_E_NOT_FOUND, NULL, NULL);
                return;
        }
        change = calloc(1, sizeof(*change));
        if (!change) {
                on_done(userdata, error_origin(-ENOMEM), NULL, NULL);
                return;
        }
        *change = (struct change){
                .auth = auth, .on_done = on_done, .userdata = userdata, .key = *key
        };
        change->key.revoke_time_usec = time_now_usec();
        store_revoke_key(auth->store, key->key_id, change->key.revoke_time_usec, on_key_revoked,
                         change);
}

const struct key_record *auth_list(const struct auth *auth, size_t *ret_n)
{
        *ret_n = auth->n_keys;
        return auth->keys;
}
