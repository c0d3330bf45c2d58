/* The journal, requests and ids as a successor finds them. */
#include <check.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "server/session/inlet.h"
#include "server/session/journal.h"
#include "server/session/kept_request.h"
#include "server/session/takeover.h"
#include "test/lib/suite.h"

enum {
        MAGIC_AT = 0, /* the layout of the file's begin, which a change of the magic goes with */
        SIZE_AT = 8,
        CURRENT_AT = 16,
        SLOTS_AT = 24,
};

static struct journal *make(void)
{
        struct journal *journal;

        ck_assert_int_eq(journal_new(NULL, "sbx-a", "ctx-a-g1", RING_CAPACITY_MIN, &journal), 0);
        return journal;
}

/* What the runtime keeps. */
static void keep(const struct journal *journal, int ret_fds[static JOURNAL_FDS])
{
        ck_assert(journal_fds(journal, ret_fds));
        for (size_t i = 0; i < JOURNAL_FDS; i++)
                ret_fds[i] = fcntl(ret_fds[i], F_DUPFD_CLOEXEC, 3);
}

static void expect_refusal(int fds[static JOURNAL_FDS])
{
        struct journal *journal = NULL;

        ck_assert_int_eq(journal_open(NULL, fds, &journal), JOURNAL_E_BAD);
        ck_assert_ptr_null(journal);
        for (size_t i = 0; i < JOURNAL_FDS; i++)
                ck_assert_int_eq(fcntl(fds[i], F_GETFD), -1);
}

START_TEST(what_was_committed_comes_back)
{
        struct journal *journal = make();
        struct journal *again;
        int fds[JOURNAL_FDS];

        keep(journal, fds);
        journal->state.is_ready = true;
        journal->state.channel.n_sent = 5;
        journal->state.executions[1].number = 9;
        journal_commit(journal);
        journal->state.channel.n_sent = 6; /* not committed */
        ck_assert_int_eq(ring_append(journal->rings[1], &(struct ring_entry){ .kind = 3 },
                                     &(struct ring_piece){ "said", 4 }, 1),
                         1);
        journal = journal_unref(journal);
        ck_assert_int_eq(journal_open(NULL, fds, &again), 0);
        ck_assert_str_eq(again->state.sandbox_id, "sbx-a");
        ck_assert_str_eq(again->state.process_id, "ctx-a-g1");
        ck_assert(again->state.is_ready);
        ck_assert_uint_eq(again->state.channel.n_sent, 5);
        ck_assert_uint_eq(again->state.executions[1].number, 9);
        ck_assert_int_eq(ring_next_sequence(again->rings[0]), 1);
        ck_assert_int_eq(ring_next_sequence(again->rings[1]), 2);
        ck_assert(again->is_kept);
        (void)journal_unref(again);
}
END_TEST

START_TEST(a_torn_write_is_not_seen)
{
        struct journal *journal = make();
        struct journal *again;
        uint64_t current;
        int fds[JOURNAL_FDS];

        for (unsigned i = 0; i < 4; i++) {
                static uint8_t rubbish[sizeof(struct journal_state)];

                journal->state.channel.n_sent = i;
                journal_commit(journal);
                keep(journal, fds);
                /* As of a kill in the midst of the next commit. */
                ck_assert_int_eq(pread(fds[0], &current, sizeof(current), CURRENT_AT),
                                 sizeof(current));
                memset(rubbish, 0xff, sizeof(rubbish));
                ck_assert_int_eq(pwrite(fds[0], rubbish, sizeof(rubbish),
                                        (off_t)(SLOTS_AT + (1 - current) * sizeof(rubbish))),
                                 sizeof(rubbish));
                ck_assert_int_eq(journal_open(NULL, fds, &again), 0);
                ck_assert_uint_eq(again->state.channel.n_sent, i);
                (void)journal_unref(again);
        }
        (void)journal_unref(journal);
}
END_TEST

START_TEST(a_commit_leaves_the_one_before_it_whole)
{
        static struct journal_state before; /* as a kill in the midst of the commit would find it */
        struct journal *journal = make();
        uint64_t current;
        int fds[JOURNAL_FDS];

        keep(journal, fds);
        for (unsigned i = 1; i < 5; i++) {
                journal->state.channel.n_sent = i;
                journal_commit(journal);
                ck_assert_int_eq(pread(fds[0], &current, sizeof(current), CURRENT_AT),
                                 sizeof(current));
                ck_assert_int_eq(pread(fds[0], &before, sizeof(before),
                                       (off_t)(SLOTS_AT + (1 - current) * sizeof(before))),
                                 sizeof(before));
                ck_assert_uint_eq(before.channel.n_sent, i - 1);
        }
        for (size_t i = 0; i < JOURNAL_FDS; i++)
                (void)close(fds[i]);
        (void)journal_unref(journal);
}
END_TEST

START_TEST(another_layout_is_refused)
{
        static const off_t places[] = { MAGIC_AT, SIZE_AT, CURRENT_AT };
        const uint64_t wrong = 2;

        for (size_t i = 0; i < ARRAY_SIZE(places); i++) {
                struct journal *journal = make();
                int fds[JOURNAL_FDS];

                keep(journal, fds);
                ck_assert_int_eq(pwrite(fds[0], &wrong, sizeof(wrong), places[i]), sizeof(wrong));
                expect_refusal(fds);
                (void)journal_unref(journal);
        }
}
END_TEST

START_TEST(each_descriptor_must_be_what_it_was)
{
        for (size_t i = 0; i < JOURNAL_FDS; i++) {
                struct journal *journal = make();
                int fds[JOURNAL_FDS];

                keep(journal, fds);
                (void)close(fds[i]);
                fds[i] = memfd_create("test", MFD_CLOEXEC);
                expect_refusal(fds);
                (void)journal_unref(journal);
        }
}
END_TEST

START_TEST(a_journal_without_a_ring_cannot_be_kept)
{
        struct journal *journal = make();
        int fds[JOURNAL_FDS];

        ck_assert_int_eq(journal_find_ring(journal), -1); /* it is not kept yet */
        journal->is_kept = true;
        ck_assert_int_eq(journal_find_ring(journal), 0);
        journal->rings[0] = ring_free(journal->rings[0]);
        ck_assert_int_eq(journal_find_ring(journal), 1);
        ck_assert(!journal_fds(journal, fds));
        (void)journal_unref(journal);
}
END_TEST

START_TEST(a_request_comes_back_as_it_was)
{
        struct pair items[] = { { .name = (char *)"NAME", .value = (char *)"a=b" } };
        const struct pairs environment = { .items = items, .n = 1 };
        const struct execute_request request = {
                .code = "1 + 1",
                .n_code = 5,
                .environment = &environment,
                .combine_output = true,
                .truncate_output = true,
                .disconnect_grace_usec = 7,
                .queue_timeout_usec = 8,
        };
        struct kept_request kept, copy;
        Hotcell__Server__V1__KeptRequest *message;

        ck_assert_int_eq(kept_request_make(&request, &kept), 0);
        ck_assert_int_eq(kept_request_copy(kept.bytes, kept.n, &copy), 0);
        kept_request_drop(&kept);
        ck_assert_ptr_null(kept.bytes);
        message = kept_request_open(&copy);
        ck_assert_ptr_nonnull(message);
        ck_assert_str_eq(message->execute->code, "1 + 1");
        ck_assert_uint_eq(message->execute->n_environment, 1);
        ck_assert_str_eq(message->execute->environment[0]->name, "NAME");
        ck_assert_str_eq(message->execute->environment[0]->value, "a=b");
        ck_assert(message->execute->combine_output);
        ck_assert(message->truncate_output);
        ck_assert(!message->goes_on_without_client);
        ck_assert_int_eq(message->disconnect_grace_usec, 7);
        ck_assert_int_eq(message->queue_timeout_usec, 8);
        (void)kept_message_free(message);
        kept_request_drop(&copy);
}
END_TEST

START_TEST(what_is_no_request_is_refused)
{
        struct kept_request kept;

        ck_assert_int_eq(kept_request_copy("\xff\xff\xff", 3, &kept), 0);
        ck_assert_ptr_null(kept_request_open(&kept));
        kept_request_drop(&kept);
        ck_assert_int_eq(kept_request_copy(NULL, 0, &kept), 0); /* a message without the code */
        ck_assert_ptr_null(kept_request_open(&kept));
        kept_request_drop(&kept);
}
END_TEST

START_TEST(a_process_tells_its_context_and_generation)
{
        static const char *const wrong[] = {
                "",
                "ctx-a",
                "ctx-a-g",
                "-g1",
                "ctx-a-g1x",
                "ctx-a-gx",
                "ctx-a-g99999999999999999999",
                "ctx-a-g ",
                "ctx-a-g1-g",
                "ctx-aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa-g1",
        };
        char context_id[ID_BUFFER];
        int64_t generation;

        ck_assert(takeover_parse_process("ctx-a-g12", context_id, &generation));
        ck_assert_str_eq(context_id, "ctx-a");
        ck_assert_int_eq(generation, 12);
        ck_assert(takeover_parse_process("ctx-g7-g-ga-g3", context_id, &generation));
        ck_assert_str_eq(context_id, "ctx-g7-g-ga");
        ck_assert_int_eq(generation, 3);
        for (size_t i = 0; i < ARRAY_SIZE(wrong); i++)
                ck_assert_msg(!takeover_parse_process(wrong[i], context_id, &generation), "%s",
                              wrong[i]);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("journal");
        TCase *tcase = tcase_create("journal");

        tcase_add_test(tcase, what_was_committed_comes_back);
        tcase_add_test(tcase, a_torn_write_is_not_seen);
        tcase_add_test(tcase, a_commit_leaves_the_one_before_it_whole);
        tcase_add_test(tcase, another_layout_is_refused);
        tcase_add_test(tcase, each_descriptor_must_be_what_it_was);
        tcase_add_test(tcase, a_journal_without_a_ring_cannot_be_kept);
        tcase_add_test(tcase, a_request_comes_back_as_it_was);
        tcase_add_test(tcase, what_is_no_request_is_refused);
        tcase_add_test(tcase, a_process_tells_its_context_and_generation);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
