#include "test/unit/store/records.h"

#include <check.h>

struct fixture fixture;

void set_up(void)
{
        fixture = fixture_new();
        fixture_open(&fixture);
}

void tear_down(void)
{
        fixture_free(&fixture);
}

struct sandbox_record insert_one(int number)
{
        struct sandbox_record record = make_sandbox(number, 1000 + number);

        ck_assert_int_eq(insert_sandbox(&fixture, &record), 0);
        return record;
}
