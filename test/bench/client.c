/*
 * Measures calls, one at a time, as told on standard input: a command a line, an answer a line.
 * Times are nanoseconds from before the request is packed to after the answer is unpacked, so they
 * hold nothing of who gives the commands. Usage: bench_client ADDRESS
 *
 *   unary BYTES             ok TIME                       bare server: one message there and back
 *   stream MESSAGES         ok TIME BYTES                 bare server: many messages of 64 KiB
 *   create [RULES FIRST]    ok TIME SANDBOX               CreateSandbox, answered RUNNING
 *   update SANDBOX RULES FIRST
 *                           ok TIME VERSION               UpdateSandbox to that egress policy
 *   delete SANDBOX          ok TIME
 *   usage SANDBOX           ok BYTES PEAK_BYTES PROCESSES
 *   run SANDBOX|- LIMIT CODE
 *                           ok RESULT_TIME ENDED_TIME OUTCOME STDOUT_BYTES STDOUT_TIME RESULT
 *
 * RULES is how many there are, FIRST the prefix or name that the first allows; the others allow as
 * many more of its kind. `run -` is a one-shot. LIMIT is that of the output in bytes, 0 for the
 * server's. STDOUT_TIME goes from the first to the last output that came. Failures answer `error
 * TEXT`.
 */
#include "test/bench/client.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <grpc/grpc.h>

#include "cli/client.h"
#include "cli/error.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "cli/target.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"

static const struct {
        const char *name;
        call_function *call;
} commands[] = {
        { "unary", call_unary },   { "stream", call_stream }, { "create", call_create },
        { "delete", call_delete }, { "update", call_update }, { "usage", call_usage },
        { "run", call_run },
};

int64_t now_nsec(void)
{
        struct timespec now;

        (void)clock_gettime(CLOCK_MONOTONIC, &now);
        return (int64_t)now.tv_sec * 1000000000 + now.tv_nsec;
}

char *next_word(char **text)
{
        char *word = *text + strspn(*text, " ");
        size_t length = strcspn(word, " ");

        *text = word + length + (word[length] == ' ');
        word[length] = '\0';
        return word;
}

uint64_t next_number(char **text)
{
        uint64_t number = 0;

        (void)text_to_uint64(next_word(text), INT64_MAX, &number);
        return number;
}

void say_failure(struct client_call *call, int read_result)
{
        const struct rpc_error *error;

        if (read_result != CLIENT_E_END) {
                (void)printf("error no answer\n");
                return;
        }
        error = client_call_error(call);
        (void)printf("error code %d: %.300s\n", error->code, error->message ? error->message : "");
}

void drain(struct client_call *call)
{
        ProtobufCMessage *message;

        while (client_call_read(call, -1, &message) == 0)
                message_free(message);
}

static void dispatch(struct client *client, char *line)
{
        const char *name = next_word(&line);

        for (size_t i = 0; i < ARRAY_SIZE(commands); i++) {
                if (strcmp(commands[i].name, name) == 0) {
                        commands[i].call(client, line);
                        return;
                }
        }
        (void)printf("error unknown command\n");
}

int main(int argc, char **argv)
{
        _cleanup_(client_freep) struct client *client = NULL;
        _cleanup_(freep) char *target = NULL;
        _cleanup_(freep) char *line = NULL;
        size_t line_size = 0;

        if (argc != 2 || target_parse(argv[1], &target) != 0) {
                (void)fprintf(stderr, "usage: %s unix:/PATH | 127.0.0.1:PORT\n", argv[0]);
                return 2;
        }
        if (client_new(target, getenv("HOTCELL_API_KEY"), &client))
                return 1;
        (void)setvbuf(stdout, NULL, _IOLBF, 0);
        (void)printf("ok gRPC %s\n", grpc_version_string());
        while (getline(&line, &line_size, stdin) > 0) {
                line[strcspn(line, "\n")] = '\0';
                dispatch(client, line);
        }
        return 0;
}
