#include "test/unit/egress/want.h"

#include <check.h>
#include <stdbool.h>

#include "runtime/base/macros.h"
#include "runtime/base/reserve.h"

static bool is_wanting;
static size_t n_left;
static void *taken[1024];
static size_t n_taken;

void *__real_calloc(size_t n, size_t size);
void *__wrap_calloc(size_t n, size_t size);

void *__wrap_calloc(size_t n, size_t size)
{
        if (is_wanting && n_left == 0)
                return NULL;
        n_left -= is_wanting;
        return __real_calloc(n, size);
}

void begin_want(size_t n_good)
{
        n_left = n_good;
        is_wanting = true;
}

void end_want(void)
{
        is_wanting = false;
}

void use_reserve_up(void)
{
        void *bytes;

        begin_want(0);
        while ((bytes = reserve_alloc(1))) {
                ck_assert_uint_lt(n_taken, ARRAY_SIZE(taken));
                taken[n_taken++] = bytes;
        }
        end_want();
        ck_assert_uint_gt(n_taken, 0);
}

void give_reserve_back(void)
{
        while (n_taken > 0)
                reserve_free(taken[--n_taken]);
}
