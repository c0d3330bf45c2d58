/*
 * One TCP connection of a sandbox: from its arrival at the relay's listener to its end. What it
 * wanted is read from the token that it came with; then the policy is asked, whatever the wall
 * said; then it is dialled and relayed.
 */
#pragma once

#include <stddef.h>

struct network;

/* Takes the socket. All that follows is told as events. */
void connection_accept(struct network *network, int fd);

/* Cuts those that the policy does not allow any more; returns how many. */
size_t connections_judge_again(struct network *network);

/* Ends all, at once. */
void connections_end(struct network *network);
