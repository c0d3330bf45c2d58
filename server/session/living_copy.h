/* A copy of what the database says lives: what is read is only good during its callback. */
#pragma once

#include "server/store/store.h"

/* -ENOMEM: nothing is left of it. @ret_living is to be freed with living_deinit. */
int living_copy(const struct living *living, struct living *ret_living);
void living_deinit(struct living *living);
