/*
 * The state has two slots in the memfd: the one that is not current is written, then one store
 * makes it current, so that a kill in between leaves the older one.
 */
#include "server/session/journal.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/cleanup.h"
#include "runtime/base/error.h"
#include "runtime/base/macros.h"
#include "server/session/inlet.h"
#include "server/session/kernel.h"
#include "server/session/session_private.h"

/* Another layout is another version: rise the number with every change of what is saved. */
static const uint64_t JOURNAL_MAGIC = 0x366c6e6a63636868; /* "hhccjnl6" */

struct journal_file {
        uint64_t magic;
        uint64_t size; /* of a slot: tells a build with other limits */
        _Atomic uint64_t current;
        struct journal_state slots[2];
};

static struct journal *journal_free(struct journal *journal)
{
        if (journal->is_end_seen)
                session_acknowledge_end(journal->session, journal->state.sandbox_id,
                                        journal->state.process_id);
        for (size_t i = 0; i < JOURNAL_RINGS; i++)
                journal->rings[i] = ring_free(journal->rings[i]);
        journal->inlet = inlet_free(journal->inlet);
        if (journal->file)
                (void)munmap(journal->file, sizeof(*journal->file));
        journal->fd = close_fd(journal->fd);
        free(journal);
        return NULL;
}

struct journal *journal_ref(struct journal *journal)
{
        journal->n_users++;
        return journal;
}

struct journal *journal_unref(struct journal *journal)
{
        if (journal && --journal->n_users == 0)
                (void)journal_free(journal);
        return NULL;
}

static struct journal *allocate(struct session *session, int fd)
{
        struct journal *journal = calloc(1, sizeof(*journal));

        if (!journal)
                return NULL;
        journal->n_users = 1;
        journal->session = session;
        journal->fd = fd;
        return journal;
}

static int map(struct journal *journal)
{
        void *file = mmap(NULL, sizeof(*journal->file), PROT_READ | PROT_WRITE, MAP_SHARED,
                          journal->fd, 0);

        if (file == MAP_FAILED)
                return error_origin(-errno);
        journal->file = file;
        return 0;
}

static int make_files(struct journal *journal, size_t ring_bytes)
{
        int r = 0;

        journal->fd = memfd_create("hotcell-journal", MFD_CLOEXEC);
        if (journal->fd < 0 || ftruncate(journal->fd, sizeof(*journal->file)))
                return error_origin(-errno);
        r = map(journal);
        if (!r)
                r = inlet_new(&journal->inlet);
        for (size_t i = 0; !r && i < JOURNAL_RINGS; i++)
                r = ring_new(ring_bytes, &journal->rings[i]);
        return r;
}

int journal_new(struct session *session, const char *sandbox_id, const char *process_id,
                size_t ring_bytes, struct journal **ret_journal)
{
        struct journal *journal = allocate(session, -1);
        struct journal_state *state;
        int r;

        if (!journal)
                return error_origin(-ENOMEM);
        r = make_files(journal, ring_bytes);
        if (r) {
                (void)journal_unref(journal);
                return error_fold(r);
        }
        state = &journal->state;
        (void)snprintf(state->sandbox_id, sizeof(state->sandbox_id), "%s", sandbox_id);
        (void)snprintf(state->process_id, sizeof(state->process_id), "%s", process_id);
        assert(journal->file);
        journal->file->magic = JOURNAL_MAGIC;
        journal->file->size = sizeof(*state);
        journal_commit(journal);
        *ret_journal = journal;
        return 0;
}

static int read_state(struct journal *journal)
{
        struct stat status;
        uint64_t current;
        int r;

        if (fstat(journal->fd, &status) || status.st_size != sizeof(*journal->file))
                return JOURNAL_E_BAD;
        r = map(journal);
        if (r)
                return error_fold(r);
        assert(journal->file);
        current = atomic_load_explicit(&journal->file->current, memory_order_acquire);
        if (journal->file->magic != JOURNAL_MAGIC ||
            journal->file->size != sizeof(struct journal_state) || current > 1)
                return JOURNAL_E_BAD;
        journal->state = journal->file->slots[current];
        return 0;
}

int journal_open(struct session *session, const int fds[static JOURNAL_FDS],
                 struct journal **ret_journal)
{
        struct journal *journal = allocate(session, fds[0]);
        int r = journal ? read_state(journal) : -ENOMEM;
        int opened;

        /* Each takes its descriptor, whatever became of the others. */
        if (!r)
                r = inlet_open(fds[1], journal->state.channel.n_consumed, &journal->inlet);
        else
                (void)close(fds[1]);
        for (size_t i = 0; i < JOURNAL_RINGS; i++) {
                if (!journal) {
                        (void)close(fds[2 + i]);
                        continue;
                }
                opened = ring_open(fds[2 + i], &journal->rings[i]);
                r = r ? r : opened;
        }
        if (r) {
                if (journal)
                        (void)journal_unref(journal);
                else
                        (void)close(fds[0]);
                return r < 0 ? error_fold(r) : JOURNAL_E_BAD;
        }
        journal->is_kept = true;
        *ret_journal = journal;
        return 0;
}

bool journal_fds(const struct journal *journal, int ret_fds[static JOURNAL_FDS])
{
        ret_fds[0] = journal->fd;
        ret_fds[1] = inlet_fd(journal->inlet);
        for (size_t i = 0; i < JOURNAL_RINGS; i++) {
                if (!journal->rings[i])
                        return false;
                ret_fds[2 + i] = ring_fd(journal->rings[i]);
        }
        return true;
}

int journal_find_ring(const struct journal *journal)
{
        for (int i = 0; i < JOURNAL_RINGS; i++)
                if (journal->is_kept && journal->rings[i] && !journal->holders[i])
                        return i;
        return -1;
}

bool journal_on_process_ended(struct session *session, const char *sandbox_id,
                              const char *process_id)
{
        struct map_node *node;

        for (node = map_first(&session->executions); node; node = map_next(node)) {
                struct journal *journal = CONTAINER_OF(node, struct execution, by_id)->journal;

                if (!journal || strcmp(journal->state.sandbox_id, sandbox_id) != 0 ||
                    strcmp(journal->state.process_id, process_id) != 0)
                        continue;
                journal->is_end_seen = true;
                return true;
        }
        return false;
}

void journal_release_ring(struct journal *journal, int ring, struct ring *spare)
{
        journal->holders[ring] = NULL;
        journal->rings[ring] = spare;
        memset(&journal->state.executions[ring], 0, sizeof(journal->state.executions[ring]));
        journal_commit(journal);
        if (journal->context)
                kernel_on_ring_released(journal->context);
}

void journal_save_execution(struct journal *journal, int ring)
{
        execution_save(journal->holders[ring], &journal->state.executions[ring]);
        journal_commit(journal);
}

void journal_commit(struct journal *journal)
{
        struct journal_file *file = journal->file;
        uint64_t next = 1 - atomic_load_explicit(&file->current, memory_order_relaxed);

        file->slots[next] = journal->state;
        atomic_store_explicit(&file->current, next, memory_order_release);
}
