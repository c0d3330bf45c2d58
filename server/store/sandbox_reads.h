/* How rows of sandboxes are read, for the files that do. */
#pragma once

#include "server/store/database.h"

enum {
        LIST_LIMIT_MAX = 1000, /* records in one answer */
};

/* Labels, and if wanted environment and egress policy, of a record whose row was read. */
int read_labels(struct database *database, struct sandbox_record *record);
int read_environment(struct database *database, struct sandbox_record *record);
int read_egress(struct database *database, struct sandbox_record *record);

/* All three. */
int read_whole(struct database *database, struct sandbox_record *record);

/* From now on pages are of sandboxes that have all of these. */
int want_labels(struct database *database, const struct pairs *labels);

/* What was told of its egress events last. */
int read_egress_tail(struct database *database, struct sandbox_record *record);

/* At least what it takes in a message, with its time and number in a list of events. */
size_t sandbox_message_bytes(const struct sandbox_record *record);

/* A growing array of records. */
struct sandboxes {
        struct sandbox_record *items;
        size_t n;
};
void sandboxes_deinit(struct sandboxes *sandboxes);

/* Appends the rows of @statement, which is bound, up to @max; the rest of each record is read
 * afterwards. */
int sandboxes_read(sqlite3_stmt *statement, size_t max, struct sandboxes *sandboxes);

/* Room for one more of @size in an array of @n. */
int array_grow(void *items_pointer, size_t n, size_t size);

/* The number of the newest event that there ever was. */
int read_newest_sequence(struct database *database, int64_t *ret_sequence);
