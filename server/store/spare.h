/*
 * Room on the disk of the state directory for what must be written also when the disk is full: the
 * ends of what runs. It is a file that takes the room beforehand, gives it back when a write found
 * none, and is made again once there is room for it. Belongs to whom the database belongs to.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct spare {
        int64_t bytes; /* 0: none is wanted */
        int fd;        /* -1: not made yet */
        bool is_there; /* it takes its room */
        bool is_given; /* a write needed the room: until it is made again, the disk counts as full
                        */
};

/* Takes the room; a negative errno: there is not enough. Does nothing when it is there. */
int spare_make(struct spare *spare, int directory_fd);

/* Gives the room back; false: there was none to give. */
bool spare_give(struct spare *spare);

void spare_close(struct spare *spare);
