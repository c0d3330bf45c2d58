/* The calls that the benchmark's client can measure. */
#pragma once

#include <stdint.h>

struct client;
struct Hotcell__V1__EgressPolicy;

/* Runs one call with the words after its name; prints `ok …` or `error …`. */
typedef void call_function(struct client *client, char *arguments);

call_function call_unary, call_stream;
call_function call_create, call_delete, call_update, call_usage, call_run;

/* Monotonic. */
int64_t now_nsec(void);

/* Cuts the first word off *@text and returns it; "" when none is left. */
char *next_word(char **text);

/* A decimal number, or 0 after `error …` was said. */
uint64_t next_number(char **text);

/*
 * A policy on the heap from the next words, `RULES FIRST`: one rule allows the prefix or the name
 * FIRST, the others as many more prefixes or names. NULL when there are no rules or no words.
 */
struct Hotcell__V1__EgressPolicy *next_policy(char **text);

/* `error …` with what the server said. */
struct client_call;
void say_failure(struct client_call *call, int read_result);

/* Reads and drops what is left, so that the end is not taken for a cancellation. */
void drain(struct client_call *call);
