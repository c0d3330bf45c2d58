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

/* How exactly the use of a key is noted: a call costs no write unless a minute has begun. */
enum { USE_STEP_USEC = 60 * 1000 * 1000, EXPIRY_ACCURACY_USEC = 10 * 1000 };

DEFINE_CLEANUP(struct auth, auth_free)

struct auth {
        sd_event *loop;
        struct store *store;
        auth_on_key_over on_key_over;
        void *observer_userdata;
        sd_event_source *expiry_timer;
        int64_t told_until_usec; /* keys that expired up to then were told to be over */
        void (*on_loaded)(void *userdata, int result);
        void *loaded_userdata;
        struct key_record keys[STORE_KEYS_MAX]; /* newest first */
        size_t n_keys;
        size_t n_creating; /* their places are taken, too */
};

/* With it scanners of leaked secrets find keys: hck_[a-z2-7]{52}. */
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
        int n_prefix = snprintf(ret_secret, SECRET_BUFFER, "%s", secret_prefix);

        return base32_random(ret_secret + n_prefix, SECRET_RANDOM);
}

enum key_state key_state(const struct key_record *key, int64_t now_usec)
{
        if (key->revoke_time_usec)
                return KEY_REVOKED;
        if (key->expire_time_usec && key->expire_time_usec <= now_usec)
                return KEY_EXPIRED;
        return KEY_ACTIVE;
}

static const int outcome_of_state[] = {
        [KEY_ACTIVE] = 0,
        [KEY_EXPIRED] = AUTH_E_EXPIRED,
        [KEY_REVOKED] = AUTH_E_REVOKED,
};

static void tell_over(struct auth *auth, const struct key_record *key, int outcome)
{
        if (auth->on_key_over)
                auth->on_key_over(auth->observer_userdata, key->key_id, outcome);
}

/* Arms the timer for the next key that expires. It goes by the wall clock, as keys do. */
static void plan_expiry(struct auth *auth, int64_t now)
{
        int64_t next = INT64_MAX;

        /* The clock may have been set back; who expires again is told again. */
        auth->told_until_usec = MIN(auth->told_until_usec, now);
        for (size_t i = 0; i < auth->n_keys; i++) {
                const struct key_record *key = &auth->keys[i];

                if (!key->revoke_time_usec && key->expire_time_usec > auth->told_until_usec)
                        next = MIN(next, key->expire_time_usec);
        }
        (void)sd_event_source_set_time(auth->expiry_timer, (uint64_t)next);
        (void)sd_event_source_set_enabled(auth->expiry_timer,
                                          next < INT64_MAX ? SD_EVENT_ONESHOT : SD_EVENT_OFF);
}

static int on_expiry(sd_event_source *source, uint64_t usec, void *userdata)
{
        struct auth *auth = userdata;
        int64_t now = time_now_usec(), told_until = auth->told_until_usec;

        (void)source;
        (void)usec;
        auth->told_until_usec = now;
        for (size_t i = 0; i < auth->n_keys; i++) {
                const struct key_record *key = &auth->keys[i];

                if (key_state(key, now) != KEY_EXPIRED || key->expire_time_usec <= told_until)
                        continue;
                log_info("an api key expired key_id=%s", key->key_id);
                tell_over(auth, key, AUTH_E_EXPIRED);
        }
        plan_expiry(auth, now);
        return 0;
}

static int add_expiry_timer(struct auth *auth)
{
        int r = sd_event_add_time(auth->loop, &auth->expiry_timer, CLOCK_REALTIME, 0,
                                  EXPIRY_ACCURACY_USEC, on_expiry, auth);

        if (r < 0)
                return error_origin(r);
        r = sd_event_source_set_enabled(auth->expiry_timer, SD_EVENT_OFF);
        return r < 0 ? error_origin(r) : 0;
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
        if (result == 0) {
                auth->told_until_usec = time_now_usec();
                plan_expiry(auth, auth->told_until_usec);
        }
        auth->on_loaded(auth->loaded_userdata, result);
}

int auth_new(sd_event *loop, struct store *store, void (*on_loaded)(void *userdata, int result),
             void *userdata, struct auth **ret_auth)
{
        _cleanup_(auth_freep) struct auth *auth = calloc(1, sizeof(*auth));
        int r;

        if (!auth)
                return error_origin(-ENOMEM);
        auth->loop = sd_event_ref(loop);
        r = add_expiry_timer(auth);
        if (r)
                return error_fold(r);
        auth->store = store;
        auth->on_loaded = on_loaded;
        auth->loaded_userdata = userdata;
        store_list_keys(store, on_keys_loaded, auth);
        *ret_auth = take(auth);
        return 0;
}

struct auth *auth_free(struct auth *auth)
{
        if (!auth)
                return NULL;
        (void)sd_event_source_disable_unref(auth->expiry_timer);
        (void)sd_event_unref(auth->loop);
        OPENSSL_cleanse(auth->keys, sizeof(auth->keys));
        free(auth);
        return NULL;
}

void auth_observe(struct auth *auth, auth_on_key_over on_key_over, void *userdata)
{
        auth->on_key_over = on_key_over;
        auth->observer_userdata = userdata;
}

/* All are compared, also after one that fits: how long it takes tells nothing. */
static struct key_record *find_by_digest(struct auth *auth, const uint8_t digest[static 32])
{
        struct key_record *found = NULL;

        for (size_t i = 0; i < auth->n_keys; i++) {
                struct key_record *key = &auth->keys[i];

                if (CRYPTO_memcmp(key->secret_sha256, digest, 32) == 0)
                        found = key;
        }
        return found;
}

static void on_touched(void *userdata, int result)
{
        /* Nothing depends on it, and the store has logged what it could not write. */
        (void)userdata;
        (void)result;
}

static void note_use(struct auth *auth, struct key_record *key, int64_t now)
{
        int64_t step = now - now % USE_STEP_USEC;

        if (key->last_used_time_usec == step)
                return;
        key->last_used_time_usec = step;
        store_touch_key(auth->store, key->key_id, step, on_touched, NULL);
}

bool identity_has_scope(const struct identity *identity, enum scope scope)
{
        return identity->is_operator || (identity->scopes & BIT(scope));
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

static int identify_by_secret(struct auth *auth, const char *secret, struct identity *ret_identity)
{
        int64_t now = time_now_usec();
        struct key_record *key;
        uint8_t digest[32];
        int r;

        if (!secret_is_well_formed(secret))
                return AUTH_E_INVALID;
        r = secret_digest(secret, digest);
        if (r)
                return error_fold(r);
        key = find_by_digest(auth, digest);
        if (!key)
                return AUTH_E_INVALID;
        r = outcome_of_state[key_state(key, now)];
        if (r)
                return r;

        note_use(auth, key, now);
        /* The clock was set back: it will expire again. */
        if (key->expire_time_usec && key->expire_time_usec <= auth->told_until_usec)
                plan_expiry(auth, now);
        *ret_identity = (struct identity){ .scopes = (unsigned)key->scopes & SCOPES_OF_KEYS };
        (void)memcpy(ret_identity->owner, key->owner, sizeof(key->owner));
        (void)memcpy(ret_identity->key_id, key->key_id, sizeof(key->key_id));
        return 0;
}

int auth_identify(struct auth *auth, const struct rpc_peer *peer, const char *authorization,
                  const char *api_key, struct identity *ret_identity)
{
        const char *secret = sent_secret(authorization, api_key);

        if (secret)
                return identify_by_secret(auth, secret, ret_identity);
        if (!peer->is_unix)
                return AUTH_E_MISSING;

        *ret_identity = (struct identity){ .is_operator = true, .scopes = SCOPES_OF_KEYS };
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
        int64_t now = time_now_usec();
        size_t n = 0;

        for (size_t i = 0; i < auth->n_keys; i++)
                n += key_state(&auth->keys[i], now) == KEY_ACTIVE;
        return n;
}

/* As the store does for a new key: the oldest that is over makes room. */
static void forget_one(struct auth *auth, int64_t now)
{
        for (size_t i = auth->n_keys; i-- > 0;) {
                if (key_state(&auth->keys[i], now) == KEY_ACTIVE)
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
                forget_one(auth, key->create_time_usec);
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
        unsigned set_quotas;
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
        const struct key_quotas *shared;

        change->auth->n_creating--;
        if (result == STORE_E_NAME_IN_USE)
                result = AUTH_E_NAME_IN_USE;
        else if (result == STORE_E_FULL)
                result = -ENOSPC;
        if (result) {
                change->on_done(change->userdata, result, NULL, NULL);
                return;
        }
        /* They may have changed since it was asked for. */
        shared = auth_quotas_of(change->auth, change->key.owner);
        if (shared)
                change->key.quotas = *shared;
        add_newest(change->auth, &change->key);
        plan_expiry(change->auth, time_now_usec());
        log_info("an api key was created key_id=%s", change->key.key_id);
        change->on_done(change->userdata, 0, &change->key, change->secret);
}

static int make_key(const struct key_request *request, const struct key_record *shared,
                    struct key_record *ret_key, char ret_secret[static SECRET_BUFFER])
{
        size_t n_name = strlen(request->name);
        int r;

        assert((request->scopes & ~(unsigned)SCOPES_OF_KEYS) == 0);
        *ret_key = (struct key_record){ .create_time_usec = time_now_usec(),
                                        .scopes = request->scopes,
                                        .expire_time_usec = request->expire_time_usec,
                                        .quotas = shared ? shared->quotas : request->quotas };
        if (n_name >= sizeof(ret_key->name))
                return error_origin(-ENAMETOOLONG);
        (void)memcpy(ret_key->name, request->name, n_name + 1);
        r = id_generate("key", ret_key->key_id);
        (void)snprintf(ret_key->owner, sizeof(ret_key->owner), "%s",
                       shared ? shared->owner : ret_key->key_id);
        if (r == 0)
                r = secret_generate(ret_secret);
        if (r == 0)
                r = secret_digest(ret_secret, ret_key->secret_sha256);
        return r ? error_fold(r) : 0;
}

static int begin_create(struct auth *auth, const struct key_request *request, auth_on_key on_done,
                        void *userdata)
{
        _cleanup_(change_freep) struct change *change = NULL;
        const struct key_record *shared = NULL;
        int r;

        if (*request->owner_key_id) {
                shared = find_by_id(auth, request->owner_key_id);
                if (!shared)
                        return AUTH_E_NOT_FOUND;
        }

        if (count_good(auth) + auth->n_creating >= ARRAY_SIZE(auth->keys))
                return AUTH_E_KEY_LIMIT;
        change = calloc(1, sizeof(*change));
        if (!change)
                return error_origin(-ENOMEM);
        r = make_key(request, shared, &change->key, change->secret);
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

void auth_create_key(struct auth *auth, const struct key_request *request, auth_on_key on_done,
                     void *userdata)
{
        int r = begin_create(auth, request, on_done, userdata);

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
                tell_over(change->auth, key, AUTH_E_REVOKED);
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

static void merge_quotas(struct key_quotas *quotas, unsigned set, const struct key_quotas *wanted)
{
        for (unsigned i = 0; i < _KEY_QUOTA_N; i++)
                if (set & BIT(i))
                        quotas->most[i] = wanted->most[i];
}

/* As the store did it, and in the same order. */
static void on_quotas_set(void *userdata, int result)
{
        _cleanup_(change_freep) struct change *change = userdata;
        struct auth *auth = change->auth;
        struct key_record *key = find_by_id(auth, change->key.key_id);

        if (result == STORE_E_NOT_FOUND || (result == 0 && !key))
                result = AUTH_E_NOT_FOUND;
        if (result) {
                change->on_done(change->userdata, result, NULL, NULL);
                return;
        }
        for (size_t i = 0; i < auth->n_keys; i++)
                if (strcmp(auth->keys[i].owner, key->owner) == 0)
                        merge_quotas(&auth->keys[i].quotas, change->set_quotas,
                                     &change->key.quotas);
        log_info("the quotas of an owner were changed key_id=%s owner=%s", key->key_id, key->owner);
        change->on_done(change->userdata, 0, key, NULL);
}

void auth_update_key(struct auth *auth, const char *key_id, unsigned set,
                     const struct key_quotas *quotas, auth_on_key on_done, void *userdata)
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
                .auth = auth,
                .on_done = on_done,
                .userdata = userdata,
                .key = *key,
                .set_quotas = set,
        };
        change->key.quotas = *quotas;
        store_set_quotas(auth->store, key->key_id, set, quotas, on_quotas_set, change);
}

const struct key_quotas *auth_quotas_of(const struct auth *auth, const char *owner)
{
        for (size_t i = 0; i < auth->n_keys; i++)
                if (strcmp(auth->keys[i].owner, owner) == 0)
                        return &auth->keys[i].quotas;
        return NULL;
}
