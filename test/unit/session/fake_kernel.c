/*
 * Commands: out TEXT · err TEXT · outbytes N · errbytes N · result TYPE TEXT · display ID TEXT ·
 * part SIZE (a bundle whose data follows) · clear · error NAME · sleep (until SIGINT) · doze (the
 * next SIGINT is not heard, the one after it is) · deaf (SIGINT is ignored from here on) · exit N ·
 * kill SIGNAL · sysexit N · badheader · badframe · ready · foreign (frames of another execution) ·
 * close (the events) · touch PATH · background PATH (`late` is written after DONE, then the file
 * made) · variable NAME (its value to stdout) · hold (never ends) · await PATH (until it exists)
 */
#include "test/unit/session/fake_kernel.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/frame.h"

#include "hotcell/sandbox/v1/kernel.pb-c.h"

#define FRAME_TYPE(name) HOTCELL__SANDBOX__V1__FRAME_TYPE__FRAME_TYPE_##name

static struct fake_kernel_fds fds;
static volatile sig_atomic_t interrupted;
static uint32_t execution;
static uint32_t count;
static bool combine;

static void on_interrupt(int signal_number)
{
        (void)signal_number;
        interrupted = 1;
}

/* False: interrupted. */
static bool write_fully(int fd, const void *bytes, size_t n, bool through_interrupts)
{
        const char *at = bytes;

        while (n > 0) {
                ssize_t written = write(fd, at, n);

                if (written < 0 && errno == EINTR) {
                        if (!through_interrupts && interrupted)
                                return false;
                        continue;
                }
                if (written < 0)
                        _exit(90);
                at += written;
                n -= (size_t)written;
        }
        return true;
}

static void read_fully(int fd, void *bytes, size_t n)
{
        char *at = bytes;

        while (n > 0) {
                ssize_t got = read(fd, at, n);

                if (got < 0 && errno == EINTR)
                        continue;
                if (got <= 0)
                        _exit(got == 0 ? 0 : 91);
                at += got;
                n -= (size_t)got;
        }
}

/* One frame that was not heard before; its payload goes to @payload, which has room. */
static void receive_piece(struct frame *ret_frame, uint8_t *payload)
{
        static uint16_t next_serial;
        uint8_t bytes[PIPE_BUF];
        uint32_t n;
        size_t size;

        do {
                read_fully(fds.commands, bytes, FRAME_HEADER_SIZE);
                memcpy(&n, bytes, sizeof(n));
                if (n > sizeof(bytes) - FRAME_HEADER_SIZE)
                        _exit(94); /* such a write could be torn */
                read_fully(fds.commands, bytes + FRAME_HEADER_SIZE, n);
                if (frame_parse(bytes, FRAME_HEADER_SIZE + n, FRAME_PAYLOAD_MAX, ret_frame, &size))
                        _exit(92);
        } while ((uint16_t)(ret_frame->serial - next_serial) >= 0x8000);
        if (ret_frame->serial != next_serial)
                _exit(95); /* one is missing */
        next_serial++;
        memcpy(payload, bytes + FRAME_HEADER_SIZE, n);
}

static uint8_t *receive(struct frame *ret_frame)
{
        uint8_t *payload = malloc(FRAME_PAYLOAD_MAX + PIPE_BUF);
        size_t n = 0;

        do {
                receive_piece(ret_frame, payload + n);
                n += ret_frame->n_payload;
        } while (ret_frame->type == FRAME_TYPE(MORE) && n <= FRAME_PAYLOAD_MAX);
        ret_frame->payload = payload;
        ret_frame->n_payload = n;
        return payload;
}

static void send_frame(uint8_t type, uint8_t flags, uint32_t number,
                       const ProtobufCMessage *message)
{
        size_t n = message ? protobuf_c_message_get_packed_size(message) : 0;
        uint8_t *bytes = malloc(FRAME_HEADER_SIZE + n);
        struct frame frame = { .type = type, .flags = flags, .execution = number, .n_payload = n };

        frame_write_header(bytes, &frame);
        if (message)
                protobuf_c_message_pack(message, bytes + FRAME_HEADER_SIZE);
        write_fully(fds.events, bytes, FRAME_HEADER_SIZE + n, true);
        free(bytes);
        if (flags & FRAME_FLAG_SYNC) {
                struct frame ack;

                free(receive(&ack));
                if (ack.type != FRAME_TYPE(ACK))
                        _exit(93);
        }
}

static void send_ready(void)
{
        Hotcell__Sandbox__V1__Ready ready;

        hotcell__sandbox__v1__ready__init(&ready);
        ready.protocol = 2;
        ready.language = (char *)"fake";
        ready.language_version = (char *)"1.0";
        send_frame(FRAME_TYPE(READY), 0, 0, &ready.base);
}

static void send_error(const char *name)
{
        Hotcell__Sandbox__V1__Error error;
        char *lines[] = { (char *)"Traceback", (char *)"  line 1" };

        hotcell__sandbox__v1__error__init(&error);
        error.name = (char *)(uintptr_t)name;
        error.value = (char *)"it went wrong";
        error.traceback = lines;
        error.n_traceback = 2;
        send_frame(FRAME_TYPE(ERROR), FRAME_FLAG_SYNC, execution, &error.base);
}

static void send_bundle(uint8_t type, const char *id, const char *mime, const void *data, size_t n,
                        size_t size)
{
        Hotcell__Sandbox__V1__Bundle bundle;
        Hotcell__Sandbox__V1__Part part;
        Hotcell__Sandbox__V1__Part *parts[] = { &part };

        hotcell__sandbox__v1__bundle__init(&bundle);
        hotcell__sandbox__v1__part__init(&part);
        part.type = (char *)(uintptr_t)mime;
        part.size = size;
        part.data.data = (uint8_t *)(uintptr_t)data;
        part.data.len = n;
        bundle.parts = parts;
        bundle.n_parts = 1;
        bundle.display_id = (char *)(uintptr_t)id;
        send_frame(type, FRAME_FLAG_SYNC, execution, &bundle.base);
}

static void send_part(size_t size)
{
        enum { PIECE = 100000 };
        uint8_t *data = calloc(1, size + 1);
        size_t offset = 10;

        send_bundle(FRAME_TYPE(DISPLAY), "", "image/png", data, offset, size);
        while (offset < size) {
                Hotcell__Sandbox__V1__PartData part;

                hotcell__sandbox__v1__part_data__init(&part);
                part.offset = offset;
                part.data.data = data + offset;
                part.data.len = size - offset < PIECE ? size - offset : PIECE;
                send_frame(FRAME_TYPE(PART_DATA), 0, execution, &part.base);
                offset += part.data.len;
        }
        free(data);
}

static void send_done(bool ok, int exit_code)
{
        Hotcell__Sandbox__V1__Done done;

        hotcell__sandbox__v1__done__init(&done);
        done.ok = ok;
        if (exit_code >= 0) {
                done._exit_code_case = HOTCELL__SANDBOX__V1__DONE___EXIT_CODE_EXIT_CODE;
                done.exit_code = exit_code;
        }
        send_frame(FRAME_TYPE(DONE), FRAME_FLAG_SYNC, execution, &done.base);
}

static bool write_bytes(int fd, size_t n)
{
        static char block[65536];

        memset(block, 'x', sizeof(block));
        while (n > 0) {
                size_t part = n < sizeof(block) ? n : sizeof(block);

                if (!write_fully(fd, block, part, false))
                        return false;
                n -= part;
        }
        return true;
}

static void send_foreign(void)
{
        Hotcell__Sandbox__V1__ClearOutput clear;
        uint8_t unknown[FRAME_HEADER_SIZE];
        struct frame frame = { .type = 200, .execution = execution };

        hotcell__sandbox__v1__clear_output__init(&clear);
        send_frame(FRAME_TYPE(CLEAR_OUTPUT), FRAME_FLAG_SYNC, execution + 7, &clear.base);
        frame_write_header(unknown, &frame);
        write_fully(fds.events, unknown, sizeof(unknown), true);
}

static void sleep_until_interrupted(void)
{
        sigset_t none;

        sigemptyset(&none);
        while (!interrupted)
                sigsuspend(&none);
}

static void touch(const char *path)
{
        int fd = open(path, O_WRONLY | O_CREAT | O_APPEND, 0600);

        if (fd < 0 || write(fd, "x", 1) != 1)
                _exit(94);
        close(fd);
}

static void await(const char *path)
{
        const struct timespec moment = { .tv_nsec = 1000000 };

        while (!interrupted && access(path, F_OK))
                (void)nanosleep(&moment, NULL);
}

/* 0: go on; 1: raised; 2: asked to exit with *@ret_code. */
static int run_line(char *line, const Hotcell__Sandbox__V1__Execute *code, int *ret_code)
{
        char *argument = strchr(line, ' ');
        char *rest;
        int err = combine ? fds.out : fds.err;

        if (argument)
                *argument++ = '\0';
        else
                argument = line + strlen(line);
        rest = strchr(argument, ' ');

        if (!strcmp(line, "out"))
                write_fully(fds.out, argument, strlen(argument), true);
        else if (!strcmp(line, "err"))
                write_fully(err, argument, strlen(argument), true);
        else if (!strcmp(line, "barrier"))
                send_frame(FRAME_TYPE(BARRIER), FRAME_FLAG_SYNC, execution, NULL);
        else if (!strcmp(line, "outbytes") && !write_bytes(fds.out, strtoul(argument, NULL, 10)))
                return 1;
        else if (!strcmp(line, "errbytes") && !write_bytes(err, strtoul(argument, NULL, 10)))
                return 1;
        else if (!strcmp(line, "result") || !strcmp(line, "display")) {
                bool is_result = !strcmp(line, "result");

                if (!rest)
                        _exit(95);
                *rest++ = '\0';
                send_bundle(is_result ? FRAME_TYPE(RESULT) : FRAME_TYPE(DISPLAY),
                            is_result ? "" : argument, is_result ? argument : "text/plain", rest,
                            strlen(rest), strlen(rest));
        } else if (!strcmp(line, "part"))
                send_part(strtoul(argument, NULL, 10));
        else if (!strcmp(line, "clear")) {
                Hotcell__Sandbox__V1__ClearOutput clear;

                hotcell__sandbox__v1__clear_output__init(&clear);
                clear.wait = true;
                send_frame(FRAME_TYPE(CLEAR_OUTPUT), FRAME_FLAG_SYNC, execution, &clear.base);
        } else if (!strcmp(line, "error")) {
                send_error(argument);
                *ret_code = -1;
                return 3;
        } else if (!strcmp(line, "sleep")) {
                sleep_until_interrupted();
                return 1;
        } else if (!strcmp(line, "doze")) {
                sleep_until_interrupted();
                interrupted = 0;
                sleep_until_interrupted();
                return 1;
        } else if (!strcmp(line, "deaf"))
                signal(SIGINT, SIG_IGN);
        else if (!strcmp(line, "await"))
                await(argument);
        else if (!strcmp(line, "hold")) {
                for (;;)
                        pause();
        } else if (!strcmp(line, "exit"))
                _exit(atoi(argument));
        else if (!strcmp(line, "kill")) {
                signal(atoi(argument), SIG_DFL); /* also a sanitizer's own handler */
                raise(atoi(argument));
                pause();
        } else if (!strcmp(line, "sysexit")) {
                *ret_code = atoi(argument);
                return 2;
        } else if (!strcmp(line, "badheader"))
                write_fully(fds.events, "\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", 12,
                            true);
        else if (!strcmp(line, "badframe"))
                send_bundle(FRAME_TYPE(DISPLAY), "", "not a mime type", "", 0, 0);
        else if (!strcmp(line, "ready"))
                send_ready();
        else if (!strcmp(line, "foreign"))
                send_foreign();
        else if (!strcmp(line, "close")) {
                close(fds.events);
                for (;;)
                        pause();
        } else if (!strcmp(line, "touch"))
                touch(argument);
        else if (!strcmp(line, "variable")) {
                for (size_t i = 0; i < code->n_environment; i++)
                        if (!strcmp(code->environment[i]->name, argument))
                                write_fully(fds.out, code->environment[i]->value,
                                            strlen(code->environment[i]->value), true);
        }
        return interrupted ? 1 : 0;
}

static void run_code(const Hotcell__Sandbox__V1__Execute *code)
{
        Hotcell__Sandbox__V1__Started started;
        char *background = NULL;
        char *save = NULL;
        int exit_code = -1;
        int r = 0;

        hotcell__sandbox__v1__started__init(&started);
        interrupted = 0;
        combine = code->combine_output;
        started.execution_count = ++count;
        send_frame(FRAME_TYPE(STARTED), 0, execution, &started.base);
        for (char *line = strtok_r(code->code, "\n", &save); line && r == 0;
             line = strtok_r(NULL, "\n", &save)) {
                if (!strncmp(line, "background ", 11))
                        background = strdup(line + 11);
                else
                        r = run_line(line, code, &exit_code);
        }
        if (r == 1)
                send_error("KeyboardInterrupt");
        send_done(r == 0, exit_code);
        if (background)
                write_fully(fds.out, "late", 4, true), touch(background);
}

_Noreturn void fake_kernel_run(const struct fake_kernel_fds *given, const char *mode)
{
        struct sigaction action = { .sa_handler = on_interrupt };
        struct frame frame;

        fds = *given;
        sigaction(SIGINT, &action, NULL);
        signal(SIGPIPE, SIG_DFL);
        if (!strcmp(mode, "dies")) {
                write_fully(fds.err, "No module named fake", 20, true);
                _exit(7);
        }
        free(receive(&frame));
        if (frame.type != FRAME_TYPE(HELLO))
                _exit(96);
        if (!strcmp(mode, "silent"))
                for (;;)
                        pause();
        send_ready();
        for (;;) {
                uint8_t *bytes = receive(&frame);

                if (frame.type == FRAME_TYPE(EXECUTE)) {
                        Hotcell__Sandbox__V1__Execute *code = hotcell__sandbox__v1__execute__unpack(
                                NULL, frame.n_payload, frame.payload);

                        execution = frame.execution;
                        run_code(code);
                        hotcell__sandbox__v1__execute__free_unpacked(code, NULL);
                }
                free(bytes);
        }
}
