/*
 * The server is killed at every turn of its loop, and again at every few turns of its successor's;
 * also within a turn: before and after each step that a successor sees (points; these functions are
 * wrapped by the linker, see meson.build).
 * Whenever that was, each piece of code runs once, and its client, which comes back and asks for
 * what it has not seen, sees every event once and in order.
 */
#include <check.h>
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#include "runtime/base/macros.h"
#include "server/session/ring.h"
#include "server/store/store.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

/* What a killed server had in memory went with it; here it stays and is nobody's. (A hook of the
 * leak sanitizer, which nobody else calls.) */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
        return 1;
}

struct channel;
struct inlet;
struct journal;

enum {
        CALLS_MAX = 4,
        PATIENCE_SEC = 40,
        STRIDE = 8, /* of the loop tests, between the turns that one of them tries */
};

/* A client with one piece of code. */
struct client {
        const char *seen_text; /* what it is to see, without numbers of places and generations */
        enum outcome outcome;
        int64_t stdout_bytes;
        char path[128]; /* the code adds a byte to it */
        char text[512];
        struct request_record request;
        struct session_claim *claim;
        bool is_asking;
        char execution_id[ID_BUFFER];
        struct seen seen;
};

static struct client clients[CALLS_MAX];
static size_t n_clients;
static char sandbox_id[ID_BUFFER];

static unsigned n_begun;

/* A turn at which the server is killed; counted from its start. Zero: it is not. */
static unsigned crash_turns[3];
static size_t n_crashes;
static unsigned n_turns;
static bool is_served;

/* The point at which the server is killed, counted from the first one; zero: at none. */
static unsigned crash_point;
static unsigned n_points;
static jmp_buf at_turn;

/* Nothing that comes after it is done any more: what runs is left where it is. */
static void pass_point(void)
{
        if (crash_point > 0 && ++n_points == crash_point)
                longjmp(at_turn, 1);
}

void __real_channel_flush(struct channel *channel);
void __wrap_channel_flush(struct channel *channel);
int __real_inlet_fill(struct inlet *inlet, int fd, size_t limit, size_t *ret_n);
int __wrap_inlet_fill(struct inlet *inlet, int fd, size_t limit, size_t *ret_n);
void __real_journal_commit(struct journal *journal);
void __wrap_journal_commit(struct journal *journal);
int64_t __real_ring_append(struct ring *ring, const struct ring_entry *entry,
                           const struct ring_piece *pieces, size_t n_pieces);
int64_t __wrap_ring_append(struct ring *ring, const struct ring_entry *entry,
                           const struct ring_piece *pieces, size_t n_pieces);
int __real_ring_fill(struct ring *ring, const struct ring_entry *entry, int fd, size_t limit,
                     size_t *ret_n);
int __wrap_ring_fill(struct ring *ring, const struct ring_entry *entry, int fd, size_t limit,
                     size_t *ret_n);
void __real_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);
void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata);

void __wrap_channel_flush(struct channel *channel)
{
        pass_point();
        __real_channel_flush(channel);
        pass_point();
}

int __wrap_inlet_fill(struct inlet *inlet, int fd, size_t limit, size_t *ret_n)
{
        int r = __real_inlet_fill(inlet, fd, limit, ret_n);

        pass_point();
        return r;
}

void __wrap_journal_commit(struct journal *journal)
{
        pass_point();
        __real_journal_commit(journal);
        pass_point();
}

int64_t __wrap_ring_append(struct ring *ring, const struct ring_entry *entry,
                           const struct ring_piece *pieces, size_t n_pieces)
{
        int64_t sequence = __real_ring_append(ring, entry, pieces, n_pieces);

        pass_point();
        return sequence;
}

int __wrap_ring_fill(struct ring *ring, const struct ring_entry *entry, int fd, size_t limit,
                     size_t *ret_n)
{
        int r = __real_ring_fill(ring, entry, fd, limit, ret_n);

        pass_point();
        return r;
}

void __wrap_store_end_execution(struct store *store, const struct execution_record *record,
                                const struct store_blob *output, store_on_done on_done,
                                void *userdata)
{
        pass_point();
        __real_store_end_execution(store, record, output, on_done, userdata);
        pass_point();
}

static void on_taken(void *userdata, const struct session_result *result,
                     const struct execution_record *record)
{
        struct client *client = userdata;

        ck_assert_msg(result->outcome == 0, "%s", result->message);
        (void)snprintf(client->execution_id, sizeof(client->execution_id), "%s",
                       record->execution_id);
        attach(client->execution_id, 0, &client->seen);
        client->claim = session_claim_free(client->claim);
}

static void on_claimed(void *userdata, int result, const struct request_record *known)
{
        struct client *client = userdata;
        struct execute_request request;

        if (result == CLAIM_E_KNOWN) {
                (void)snprintf(client->execution_id, sizeof(client->execution_id), "%s",
                               known->object_id);
                attach(client->execution_id, 0, &client->seen);
                client->claim = session_claim_free(client->claim);
                return;
        }
        ck_assert_int_eq(result, 0);
        request = execute_request(sandbox_id, client->text);
        request.request = &client->request;
        request.disconnect_grace_usec = 60 * 1000 * 1000;
        session_execute(f.session, &request, on_taken, client);
}

/* Asks for its execution, or for what it has not seen of it. */
static void ask(struct client *client)
{
        if (client->seen.is_over)
                return;
        if (client->execution_id[0]) {
                attach(client->execution_id, client->seen.last_sequence, &client->seen);
                return;
        }
        ck_assert_int_eq(
                session_claim_new(f.session, &client->request, on_claimed, client, &client->claim),
                0);
}

static void add_client(const char *name, const char *code, const char *seen_text,
                       enum outcome outcome, int64_t stdout_bytes)
{
        struct client *client = &clients[n_clients++];
        char path[sizeof(client->path)];

        client->seen_text = seen_text;
        client->outcome = outcome;
        client->stdout_bytes = stdout_bytes;
        (void)snprintf(path, sizeof(path), "%s/%s-%u", f.home, name, n_begun);
        (void)strcpy(client->path, path);
        (void)snprintf(client->text, sizeof(client->text), "touch %s\n%s", path, code);
        client->request = (struct request_record){ .owner = "uid:1" };
        (void)snprintf(client->request.method, sizeof(client->request.method), "Execute");
        (void)snprintf(client->request.request_id, sizeof(client->request.request_id), "%s-%u",
                       name, n_begun);
}

static void serve_again(void)
{
        crash_server();
        for (size_t i = 0; i < n_clients; i++) {
                clients[i].claim = NULL;
                clients[i].seen.reader = NULL;
        }
        start_session();
        n_turns = 0;
        is_served = false;
}

/* One turn of the loop; the clients come as soon as they are served. */
static void turn(void)
{
        if (n_crashes < ARRAY_SIZE(crash_turns) && crash_turns[n_crashes] > 0 &&
            n_turns == crash_turns[n_crashes]) {
                n_crashes++;
                serve_again();
        }
        if (setjmp(at_turn)) {
                n_crashes++;
                crash_point = 0;
                serve_again();
        }
        ck_assert_int_ge(sd_event_run(f.loop, 100000), 0);
        n_turns++;
        if (is_served || !session_is_ready(f.session))
                return;
        is_served = true;
        for (size_t i = 0; i < n_clients; i++)
                ask(&clients[i]);
}

static bool are_all_over(void)
{
        for (size_t i = 0; i < n_clients; i++)
                if (!clients[i].seen.is_over)
                        return false;
        return true;
}

/* `queued:1 started:2.3 …` becomes `queued started …`: those depend on the moment of the crash. */
static void leave_numbers_out(const char *text, char *ret_text)
{
        static const char *const words[] = { "queued", "started" };

        while (*text) {
                for (size_t i = 0; i < ARRAY_SIZE(words); i++) {
                        size_t n = strlen(words[i]);

                        if (strncmp(text, words[i], n) != 0 || text[n] != ':')
                                continue;
                        memcpy(ret_text, words[i], n);
                        ret_text += n;
                        text += n + 1;
                        text += strspn(text, "0123456789.");
                }
                if (*text)
                        *ret_text++ = *text++;
        }
        *ret_text = '\0';
}

static void check_client(struct client *client)
{
        static char text[sizeof(client->seen.text)];
        const struct execution_record *ended = &client->seen.ended;
        struct stat status;

        leave_numbers_out(client->seen.text, text);
        ck_assert_str_eq(text, client->seen_text);
        ck_assert(!client->seen.is_closed);
        ck_assert_int_eq(client->seen.gap_events, 0);
        ck_assert_int_eq(ended->outcome, client->outcome);
        ck_assert_int_eq(ended->usage.stdout_bytes, client->stdout_bytes);
        ck_assert_int_eq(client->seen.stdout_bytes, client->stdout_bytes);
        ck_assert_int_eq(ended->truncated_bytes, 0);
        ck_assert_int_eq(ended->last_sequence, client->seen.last_sequence);
        ck_assert_int_eq(stat(client->path, &status), 0);
        ck_assert_int_eq(status.st_size, 1); /* it ran once */
}

static bool is_quiet(void *userdata)
{
        (void)userdata;
        return fake_runtime_n_processes(f.runtime) == 1;
}

/* Lets the clients come, with crashes where they are set, and checks what came of them. False: the
 * first crash did not come before the end. */
static bool live_through(void)
{
        time_t end = time(NULL) + PATIENCE_SEC;
        bool had_crash;

        n_crashes = 0;
        n_points = 0;
        n_turns = 0;
        is_served = false;
        while (!are_all_over()) {
                turn();
                ck_assert_msg(time(NULL) < end,
                              "not over after crashes at %u, %u: \"%s\" \"%s\" \"%s\" \"%s\"",
                              crash_turns[0], crash_turns[1], clients[0].seen.text,
                              clients[1].seen.text, clients[2].seen.text, clients[3].seen.text);
        }
        had_crash = n_crashes > 0;
        for (size_t i = 0; i < n_clients; i++) {
                detach(&clients[i].seen);
                check_client(&clients[i]);
        }
        return had_crash;
}

/* All is in the ledger, once. */
static void check_books(void)
{
        struct books books = read_books(sandbox_id);

        ck_assert_uint_eq(books.n_executions, n_clients + 1);
        ck_assert_uint_eq(books.n_ends, 1);
        ck_assert_uint_eq(books.n_incomplete, 0);
        ck_assert_int_eq(books.cpu_usec, (int64_t)fake_runtime_last_cpu_usec(f.runtime));
        ck_assert_int_eq(get_sandbox(sandbox_id).sandbox.usage.total.cpu_usec, books.cpu_usec);
}

/* The sandbox is whole: one interpreter at most, and code runs in it. */
static void check_sandbox(void)
{
        struct seen seen;

        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 1);
        seen = run_code(sandbox_id, "out well");
        ck_assert_int_eq(seen.ended.outcome, OUTCOME_OK);
        ck_assert_ptr_nonnull(strstr(seen.text, "stdout:well"));
        run_until(is_quiet, NULL);
        ck_assert_int_eq(delete_sandbox(sandbox_id).result.outcome, 0);
        ck_assert_uint_eq(fake_runtime_n_processes(f.runtime), 0);
        check_books();
}

static void set_up(void)
{
        fixture_setup();
        stop_session();
        f.config.queue_max = CALLS_MAX;
        f.config.ledger_period_usec = 5 * 1000;
        fake_runtime_script(f.runtime)->tells_last = true;
        start_session();
        run_until(session_serves, NULL);
}

static void begin(void)
{
        n_begun++;
        (void)strcpy(sandbox_id, new_sandbox().sandbox.sandbox_id);
        memset(clients, 0, sizeof(clients));
        n_clients = 0;
}

/* Output of both kinds, results, an error, rich data, an interpreter that ends, and a new one. */
static void add_all_kinds(void)
{
        add_client("a",
                   "out one\nbarrier\nerr two\nresult text/plain 42\nout three\ndisplay id four\n"
                   "clear\nout five",
                   "queued started stdout:one stderr:two result:text/plain=42 stdout:three "
                   "display:idtext/plain=four clear:1 stdout:five ended",
                   OUTCOME_OK, 12);
        add_client("b", "out before\nerror NameError",
                   "queued started stdout:before error:NameError:2 ended", OUTCOME_RAISED, 6);
        add_client("c", "out last\nexit 3", "queued started stdout:last ended", OUTCOME_EXITED, 4);
        add_client("d", "out new", "queued started stdout:new ended", OUTCOME_OK, 3);
}

/* Runs the scenario with a crash at each of the turns @first, @first + STRIDE … of the first server
 * and, unless it is zero, @then turns later another one. */
static void crash_at_turns(void (*add_clients)(void), unsigned first, unsigned then)
{
        bool had_crash = true;

        for (unsigned i = first; had_crash; i += STRIDE) {
                crash_turns[0] = i;
                crash_turns[1] = then;
                begin();
                add_clients();
                had_crash = live_through();
                crash_turns[0] = crash_turns[1] = 0;
                check_sandbox();
        }
}

START_TEST(all_goes_well_without_a_crash)
{
        begin();
        add_all_kinds();
        ck_assert(!live_through());
        check_sandbox();
}
END_TEST

START_TEST(a_crash_at_any_turn_loses_and_doubles_nothing)
{
        crash_at_turns(add_all_kinds, (unsigned)_i + 1, 0);
}
END_TEST

START_TEST(a_crash_at_any_point_loses_and_doubles_nothing)
{
        bool had_crash = true;

        for (unsigned i = (unsigned)_i + 1; had_crash; i += STRIDE) {
                begin();
                add_all_kinds();
                crash_point = i;
                had_crash = live_through();
                crash_point = 0;
                check_sandbox();
        }
}
END_TEST

START_TEST(a_second_crash_at_any_turn_changes_nothing)
{
        crash_at_turns(add_all_kinds, 1 + (unsigned)_i % STRIDE, 1 + (unsigned)_i * 3);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("crashes");
        TCase *tcase = tcase_create("crashes");

        tcase_set_timeout(tcase, 250);
        tcase_add_checked_fixture(tcase, set_up, fixture_teardown);
        tcase_add_test(tcase, all_goes_well_without_a_crash);
        tcase_add_loop_test(tcase, a_crash_at_any_turn_loses_and_doubles_nothing, 0, STRIDE);
        tcase_add_loop_test(tcase, a_crash_at_any_point_loses_and_doubles_nothing, 0, STRIDE);
        tcase_add_loop_test(tcase, a_second_crash_at_any_turn_changes_nothing, 0, STRIDE);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
