/* A store for each test, and a sandbox in it. */
#pragma once

#include "test/unit/store/fixture.h"

extern struct fixture fixture;

void set_up(void);
void tear_down(void);
struct sandbox_record insert_one(int number);
