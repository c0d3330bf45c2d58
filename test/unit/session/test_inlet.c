/* The inlet: whoever opens it again, whenever, finds every byte once and in order. */
#include <check.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "server/session/inlet.h"
#include "test/lib/suite.h"

enum { PIPE_SIZE = 64 << 10, KILL_BYTES = 24 << 20 };

static int pipes[2];

static void set_up(void)
{
        ck_assert_int_eq(pipe2(pipes, O_CLOEXEC | O_NONBLOCK), 0);
}

static void tear_down(void)
{
        (void)close(pipes[0]);
        (void)close(pipes[1]);
}

static uint8_t byte_at(uint64_t position)
{
        return (uint8_t)((uint32_t)position * 2654435761U >> 13);
}

/* Writes @n bytes of the stream from @position on into the pipe. */
static void feed(uint64_t position, size_t n)
{
        static uint8_t block[PIPE_SIZE];

        for (size_t i = 0; i < n; i++)
                block[i] = byte_at(position + i);
        ck_assert_int_eq(write(pipes[1], block, n), n);
}

/* All that is in it is the stream from @position on. */
static size_t check(const struct inlet *inlet, uint64_t position)
{
        size_t n;
        const uint8_t *bytes = inlet_bytes(inlet, &n);
        bool is_equal = true;

        for (size_t i = 0; i < n; i++)
                is_equal &= bytes[i] == byte_at(position + i);
        ck_assert(is_equal);
        return n;
}

static struct inlet *open_again(struct inlet *inlet, uint64_t consumed)
{
        int fd = dup(inlet_fd(inlet));
        struct inlet *again;

        inlet_free(inlet);
        ck_assert_int_eq(inlet_open(fd, consumed, &again), 0);
        return again;
}

static int64_t pages_of(const struct inlet *inlet)
{
        struct stat status;

        ck_assert_int_eq(fstat(inlet_fd(inlet), &status), 0);
        return status.st_blocks * 512 / 4096;
}

START_TEST(an_empty_pipe_and_its_end_are_told)
{
        _cleanup_(inlet_freep) struct inlet *inlet = NULL;
        size_t n = 7;

        ck_assert_int_eq(inlet_new(&inlet), 0);
        ck_assert_int_eq(inlet_fill(inlet, pipes[0], 100, &n), -EAGAIN);
        ck_assert_uint_eq(n, 0);
        (void)close(pipes[1]);
        ck_assert_int_eq(inlet_fill(inlet, pipes[0], 100, &n), 0);
        ck_assert_uint_eq(n, 0);
        pipes[1] = -1;
}
END_TEST

START_TEST(a_full_one_says_so_and_takes_what_there_is_room_for)
{
        _cleanup_(inlet_freep) struct inlet *inlet = NULL;
        uint64_t n_fed = 0, n_taken = 0;
        size_t n;
        int r = 0;

        ck_assert_int_eq(inlet_new(&inlet), 0);
        while (r == 0) {
                if (n_fed == n_taken) {
                        feed(n_fed, 60000);
                        n_fed += 60000;
                }
                r = inlet_fill(inlet, pipes[0], PIPE_SIZE, &n);
                n_taken += n;
        }
        ck_assert_int_eq(r, -ENOBUFS);
        ck_assert_uint_eq(n_taken, INLET_CAPACITY - 1);
        ck_assert_uint_eq(check(inlet, 0), INLET_CAPACITY - 1);
        /* Full is not empty for a successor. */
        inlet = open_again(inlet, 0);
        ck_assert_uint_eq(check(inlet, 0), INLET_CAPACITY - 1);
        inlet_consume(inlet, 1000000);
        ck_assert_int_eq(inlet_fill(inlet, pipes[0], PIPE_SIZE, &n), 0);
        ck_assert_uint_eq(n, 1); /* to the end of the file */
        ck_assert_int_eq(inlet_fill(inlet, pipes[0], PIPE_SIZE, &n), 0);
        ck_assert_uint_gt(n, 1);
        ck_assert_uint_eq(check(inlet, 1000000), INLET_CAPACITY - 1000000 + n);
}
END_TEST

START_TEST(pages_are_given_back)
{
        _cleanup_(inlet_freep) struct inlet *inlet = NULL;
        uint64_t position = 0;
        size_t n;

        ck_assert_int_eq(inlet_new(&inlet), 0);
        for (; position < 30 * 60000; position += n) {
                feed(position, 60000);
                ck_assert_int_eq(inlet_fill(inlet, pipes[0], PIPE_SIZE, &n), 0);
        }
        ck_assert_int_gt(pages_of(inlet), 400);
        inlet_consume(inlet, (size_t)position);
        feed(position, 10);
        ck_assert_int_eq(inlet_fill(inlet, pipes[0], PIPE_SIZE, &n), 0);
        ck_assert_int_le(pages_of(inlet), 1);
        ck_assert_uint_eq(check(inlet, position), 10);
        /* A successor does not know what was touched: it gives all of it back once it can. */
        inlet = open_again(inlet, position);
        ck_assert_uint_eq(check(inlet, position), 10);
}
END_TEST

START_TEST(it_can_be_opened_again_at_any_point)
{
        _cleanup_(inlet_freep) struct inlet *inlet = NULL;
        uint64_t consumed = 0, fed = 0;

        srandom((unsigned)_i + 1);
        ck_assert_int_eq(inlet_new(&inlet), 0);
        while (consumed < 5 * INLET_CAPACITY) {
                size_t n_more = 1 + (size_t)random() % (PIPE_SIZE / 2);
                size_t n, n_held;
                int r;

                feed(fed, n_more);
                for (uint64_t goal = fed + n_more; fed < goal; fed += n) {
                        r = inlet_fill(inlet, pipes[0], 1 + (size_t)random() % PIPE_SIZE, &n);
                        ck_assert_int_eq(r, 0);
                        if (random() % 8 == 0)
                                inlet = open_again(inlet, consumed);
                }
                n_held = check(inlet, consumed);
                ck_assert_uint_eq(n_held, fed - consumed);
                /* Mostly a piece, often all, so that it is empty at places of all kinds. */
                n = random() % 4 == 0 || n_held > INLET_CAPACITY - 2 * PIPE_SIZE
                            ? n_held
                            : (size_t)random() % (n_held + 1);
                inlet_consume(inlet, n);
                consumed += n;
        }
}
END_TEST

START_TEST(what_is_no_inlet_is_refused)
{
        static const off_t sizes[] = { 0, 4096, INLET_CAPACITY - 1, INLET_CAPACITY + 1 };
        struct inlet *inlet = NULL;
        int fd;

        for (size_t i = 0; i < ARRAY_SIZE(sizes); i++) {
                fd = memfd_create("test", MFD_CLOEXEC);
                ck_assert_int_eq(ftruncate(fd, sizes[i]), 0);
                ck_assert_int_eq(inlet_open(fd, 0, &inlet), INLET_E_BAD);
                ck_assert_int_eq(fcntl(fd, F_GETFD), -1); /* taken all the same */
        }
        fd = memfd_create("test", MFD_CLOEXEC);
        ck_assert_int_eq(ftruncate(fd, INLET_CAPACITY), 0);
        ck_assert_int_eq(lseek(fd, INLET_CAPACITY + 1, SEEK_SET), INLET_CAPACITY + 1);
        ck_assert_int_eq(inlet_open(fd, 0, &inlet), INLET_E_BAD);
        ck_assert_int_eq(inlet_open(dup(pipes[0]), 0, &inlet), INLET_E_BAD);
        ck_assert_ptr_null(inlet);
}
END_TEST

/* Writes all of the stream. */
static _Noreturn void write_stream(void)
{
        static uint8_t block[8191];

        for (size_t n_written = 0; n_written < KILL_BYTES;) {
                size_t n = MIN(sizeof(block), KILL_BYTES - n_written);

                for (size_t i = 0; i < n; i++)
                        block[i] = byte_at(n_written + i);
                for (size_t sent = 0; sent < n;) {
                        ssize_t now = write(pipes[1], block + sent, n - sent);

                        if (now < 0)
                                _exit(1);
                        sent += (size_t)now;
                }
                n_written += n;
        }
        _exit(0);
}

/* Takes, checks and consumes; what is consumed is said before it may be overwritten. */
static _Noreturn void consume_until_killed(struct inlet *inlet, _Atomic uint64_t *consumed)
{
        struct pollfd readable = { .fd = pipes[0], .events = POLLIN };

        for (;;) {
                size_t n, n_held;
                const uint8_t *bytes;
                int r;

                (void)poll(&readable, 1, -1);
                r = inlet_fill(inlet, pipes[0], PIPE_SIZE, &n);
                if (r && r != -EAGAIN && r != -ENOBUFS)
                        _exit(1);
                bytes = inlet_bytes(inlet, &n_held);
                if (n_held > 1000 || (r == 0 && n == 0)) {
                        for (size_t i = 0; i < n_held; i++)
                                if (bytes[i] != byte_at(*consumed + i))
                                        _exit(2);
                        *consumed += n_held;
                        inlet_consume(inlet, n_held);
                }
                if (r == 0 && n == 0)
                        _exit(0);
        }
}

START_TEST(a_kill_at_any_moment_loses_no_byte)
{
        void *shared = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
        _Atomic uint64_t *consumed = shared;
        struct inlet *inlet = NULL;
        unsigned n_kills = 0;
        int status;
        pid_t writer;

        srandom((unsigned)_i + 1);
        ck_assert_int_eq(fcntl(pipes[1], F_SETFL, 0), 0);
        ck_assert_int_eq(inlet_new(&inlet), 0);
        writer = fork();
        if (writer == 0)
                write_stream();
        (void)close(pipes[1]);
        pipes[1] = -1;
        do {
                struct timespec pause = { .tv_nsec = random() % 3000000 };
                pid_t reader = fork();

                if (reader == 0)
                        consume_until_killed(inlet, consumed);
                /* The moment is what is random here, nothing is waited for. */
                (void)nanosleep(&pause, NULL);
                (void)kill(reader, SIGKILL);
                ck_assert_int_eq(waitpid(reader, &status, 0), reader);
                ck_assert(WIFSIGNALED(status) || WEXITSTATUS(status) == 0);
                n_kills += WIFSIGNALED(status);
                inlet = open_again(inlet, *consumed);
                (void)check(inlet, *consumed);
        } while (WIFSIGNALED(status));
        ck_assert_uint_eq(*consumed, KILL_BYTES);
        ck_assert_uint_gt(n_kills, 3);
        ck_assert_int_eq(waitpid(writer, &status, 0), writer);
        (void)inlet_free(inlet);
        (void)munmap(shared, 4096);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("inlet");
        TCase *tcase = tcase_create("inlet");

        tcase_set_timeout(tcase, 60);
        tcase_add_checked_fixture(tcase, set_up, tear_down);
        tcase_add_test(tcase, an_empty_pipe_and_its_end_are_told);
        tcase_add_test(tcase, a_full_one_says_so_and_takes_what_there_is_room_for);
        tcase_add_test(tcase, pages_are_given_back);
        tcase_add_loop_test(tcase, it_can_be_opened_again_at_any_point, 0, 4);
        tcase_add_test(tcase, what_is_no_inlet_is_refused);
        tcase_add_loop_test(tcase, a_kill_at_any_moment_loses_no_byte, 0, 2);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
