/*
 * A cgroup is at one of the TRAFFIC_PROBES places that begin where the hash of its id points to:
 * all of them are looked at, so that one that was taken back leaves no gap that hides another.
 *
 * Counts only rise, whoever has the place; the runtime remembers what they were when it gave it.
 * So each word has one writer. Between looking at a place's id and counting there the place may
 * have become another's: this takes that hotcell-egress stood still in between while the runtime
 * took the place back, and gave it again although others were free for longer. If it did not give
 * it again, these bytes are nobody's.
 */
#include "runtime/channel/traffic_table.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

#define NO_PLACE SIZE_MAX

/* The two of them share it: no holes. */
struct place {
        _Atomic uint64_t cgroup_id;  /* the runtime's; zero: it is free */
        _Atomic uint64_t sent_bytes; /* hotcell-egress's, as what follows */
        _Atomic uint64_t received_bytes;
        _Atomic uint64_t n_connections;
};
static_assert(sizeof(struct place) == 32, "shared between processes");

/* What only the runtime knows of a place. */
struct owner {
        uint64_t cgroup_id;
        uint64_t freed; /* rises */
};

struct traffic_table {
        int fd;               /* of the runtime */
        struct place *places; /* shared; the last one counts what is lost */
        size_t n_places;      /* a power of two; without the last one */
        struct owner *owners; /* of the runtime */
        uint64_t n_freed;
        struct traffic_meter lost;
};

static size_t bytes_of(size_t n_places)
{
        return (n_places + 1) * sizeof(struct place);
}

/* Ids rise by one: multiplied with the golden ratio they are far from each other. */
static size_t place_of(const struct traffic_table *table, uint64_t cgroup_id, size_t probe)
{
        uint64_t hash = cgroup_id * 0x9e3779b97f4a7c15U;

        return ((size_t)(hash >> 32) + probe) & (table->n_places - 1);
}

static size_t n_probes(const struct traffic_table *table)
{
        return MIN(table->n_places, (size_t)TRAFFIC_PROBES);
}

static uint64_t load(_Atomic uint64_t *word)
{
        return atomic_load_explicit(word, memory_order_relaxed);
}

static int map(struct traffic_table *table, int fd)
{
        void *bytes = mmap(NULL, bytes_of(table->n_places), PROT_READ | PROT_WRITE,
                           MAP_SHARED | MAP_POPULATE, fd, 0);

        if (bytes == MAP_FAILED)
                return -errno;
        table->places = bytes;
        return 0;
}

/* --- the runtime's side ------------------------------------------------------------------------
 */

/* Its memory is there from the start: later there might be none, which is SIGBUS. */
static int make_memory(size_t n_bytes, int *ret_fd)
{
        _cleanup_(closep) int fd = memfd_create("hotcell-traffic", MFD_CLOEXEC | MFD_ALLOW_SEALING);

        if (fd < 0 || fallocate(fd, 0, 0, (off_t)n_bytes) < 0 ||
            fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
                return error_origin(-errno);
        *ret_fd = take_fd(&fd);
        return 0;
}

static size_t round_up(size_t n)
{
        size_t power = 1;

        while (power < n && power < TRAFFIC_PLACES_MAX)
                power *= 2;
        return power;
}

int traffic_table_new(size_t n_places, struct traffic_table **ret_table)
{
        _cleanup_(traffic_table_freep) struct traffic_table *table = calloc(1, sizeof(*table));
        int r;

        if (!table)
                return error_origin(-ENOMEM);
        table->fd = -1;
        table->n_places = round_up(n_places);
        table->lost.place = table->n_places;
        table->owners = calloc(table->n_places, sizeof(*table->owners));
        if (!table->owners)
                return error_origin(-ENOMEM);
        r = make_memory(bytes_of(table->n_places), &table->fd);
        if (!r)
                r = map(table, table->fd);
        if (r)
                return error_fold(r);
        *ret_table = take(table);
        return 0;
}

int traffic_table_fd(const struct traffic_table *table)
{
        return table->fd;
}

/* The one that is free for longest. */
static size_t find_free(const struct traffic_table *table, uint64_t cgroup_id)
{
        size_t found = NO_PLACE;

        for (size_t i = 0; i < n_probes(table); i++) {
                size_t place = place_of(table, cgroup_id, i);

                if (!table->owners[place].cgroup_id &&
                    (found == NO_PLACE || table->owners[place].freed < table->owners[found].freed))
                        found = place;
        }
        return found;
}

static struct traffic_count look(struct place *place)
{
        return (struct traffic_count){
                .sent_bytes = load(&place->sent_bytes),
                .received_bytes = load(&place->received_bytes),
                .n_connections = load(&place->n_connections),
        };
}

int traffic_table_give(struct traffic_table *table, uint64_t cgroup_id,
                       struct traffic_meter *ret_meter)
{
        size_t place = find_free(table, cgroup_id);

        assert(cgroup_id);

        if (place == NO_PLACE)
                return TRAFFIC_E_FULL;
        *ret_meter = (struct traffic_meter){ .place = place, .seen = look(&table->places[place]) };
        table->owners[place].cgroup_id = cgroup_id;
        atomic_store_explicit(&table->places[place].cgroup_id, cgroup_id, memory_order_relaxed);
        return 0;
}

static void advance(uint64_t now, uint64_t *seen, uint64_t *count)
{
        if (now <= *seen)
                return;
        *count = MIN(*count + MIN(now - *seen, TRAFFIC_BYTES_MAX), TRAFFIC_BYTES_MAX);
        *seen = now;
}

void traffic_table_read(const struct traffic_table *table, struct traffic_meter *meter)
{
        struct traffic_count now = look(&table->places[meter->place]);

        advance(now.sent_bytes, &meter->seen.sent_bytes, &meter->count.sent_bytes);
        advance(now.received_bytes, &meter->seen.received_bytes, &meter->count.received_bytes);
        advance(now.n_connections, &meter->seen.n_connections, &meter->count.n_connections);
}

/* First nobody is there any more, then it is read: what is counted meanwhile is not lost. */
void traffic_table_take_back(struct traffic_table *table, struct traffic_meter *meter)
{
        struct owner *owner = &table->owners[meter->place];

        assert(owner->cgroup_id);

        atomic_store(&table->places[meter->place].cgroup_id, 0);
        traffic_table_read(table, meter);
        *owner = (struct owner){ .freed = ++table->n_freed };
}

void traffic_table_take_lost(struct traffic_table *table, struct traffic_count *ret_lost)
{
        traffic_table_read(table, &table->lost);
        *ret_lost = table->lost.count;
        table->lost.count = (struct traffic_count){ 0 };
}

/* --- hotcell-egress's side ---------------------------------------------------------------------
 */

static bool is_table(int fd, size_t *ret_n_places)
{
        struct stat file;
        int seals = fcntl(fd, F_GET_SEALS);
        size_t n;

        if (seals < 0 || !(seals & F_SEAL_SHRINK) || fstat(fd, &file) < 0)
                return false;
        n = (size_t)file.st_size / sizeof(struct place);
        if (n < 2 || n - 1 > TRAFFIC_PLACES_MAX || (n - 1) & (n - 2) ||
            (size_t)file.st_size != bytes_of(n - 1))
                return false;
        *ret_n_places = n - 1;
        return true;
}

int traffic_table_map(int fd, struct traffic_table **ret_table)
{
        _cleanup_(closep) int owned = fd;
        _cleanup_(traffic_table_freep) struct traffic_table *table = calloc(1, sizeof(*table));
        int r;

        if (!table)
                return error_origin(-ENOMEM);
        table->fd = -1;
        if (!is_table(owned, &table->n_places))
                return error_origin(-EPROTO);
        r = map(table, owned);
        if (r)
                return error_origin(r);
        *ret_table = take(table);
        return 0;
}

static size_t find(const struct traffic_table *table, uint64_t cgroup_id)
{
        for (size_t i = 0; i < n_probes(table); i++) {
                size_t place = place_of(table, cgroup_id, i);

                if (load(&table->places[place].cgroup_id) == cgroup_id)
                        return place;
        }
        return table->n_places;
}

static struct place *place_for(struct traffic_table *table, const struct traffic_account *account)
{
        struct place *leaf = &table->places[account->leaf_place];
        struct place *sandbox = &table->places[account->sandbox_place];

        if (load(&leaf->cgroup_id) == account->leaf_id)
                return leaf;
        if (load(&sandbox->cgroup_id) == account->sandbox_id)
                return sandbox;
        return &table->places[table->n_places];
}

static void add(_Atomic uint64_t *word, uint64_t n)
{
        (void)atomic_fetch_add_explicit(word, n, memory_order_relaxed);
}

void traffic_account_open(struct traffic_table *table, uint64_t leaf_id, uint64_t sandbox_id,
                          struct traffic_account *ret_account)
{
        *ret_account = (struct traffic_account){
                .leaf_id = leaf_id ? leaf_id : sandbox_id, /* zero is what is free */
                .sandbox_id = sandbox_id,
                .leaf_place = find(table, leaf_id ? leaf_id : sandbox_id),
                .sandbox_place = find(table, sandbox_id),
        };
        add(&place_for(table, ret_account)->n_connections, 1);
}

void traffic_account_add(struct traffic_table *table, const struct traffic_account *account,
                         uint64_t sent_bytes, uint64_t received_bytes)
{
        struct place *place = place_for(table, account);

        add(&place->sent_bytes, sent_bytes);
        add(&place->received_bytes, received_bytes);
}

/* --- of both ------------------------------------------------------------------------------------
 */

struct traffic_table *traffic_table_free(struct traffic_table *table)
{
        if (!table)
                return NULL;
        if (table->places)
                (void)munmap(table->places, bytes_of(table->n_places));
        (void)close_fd(table->fd);
        free(table->owners);
        free(table);
        return NULL;
}
