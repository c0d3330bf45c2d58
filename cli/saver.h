/*
 * Saves the rich parts of results and displays as files. The sandbox chooses the bytes and nothing
 * else: names are `<n>-result.png`, extensions come from our own table, no file is ever replaced
 * and no link followed.
 */
#pragma once

#include <stdint.h>

#include "runtime/base/cleanup.h"

struct Hotcell__V1__MimeBundle;
struct Hotcell__V1__PartData;
struct saver;

/* Makes the directory unless it is there. Negative errno when it cannot be used. */
int saver_new(const char *directory, struct saver **ret_saver);
struct saver *saver_free(struct saver *saver);

/* @kind is `result` or `display`. Parts that are cut go on with saver_data(). */
void saver_bundle(struct saver *saver, const char *kind, int64_t sequence,
                  const struct Hotcell__V1__MimeBundle *bundle);

void saver_data(struct saver *saver, const struct Hotcell__V1__PartData *data);

/* Says which files stayed incomplete. */
void saver_finish(struct saver *saver);

/* The extension of a file of that MIME type; `bin` when we do not know it. */
const char *saver_extension(const char *type);

DEFINE_CLEANUP(struct saver, saver_free)
