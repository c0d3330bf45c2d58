/* Page tokens: which requests one goes on with, for the calls whose filter is a map. */
#include <check.h>
#include <string.h>

#include "hotcell/v1/sandbox_service.pb-c.h"
#include "runtime/base/macros.h"
#include "runtime/base/text.h"
#include "server/api/arena.h"
#include "server/api/page_token.h"
#include "test/lib/suite.h"

static struct arena arena;
static Hotcell__V1__ListSandboxesRequest *request;

/* As it comes: keys and values are digits, in the order of @labels. */
static void receive(const char *labels)
{
        uint8_t bytes[64];
        size_t n = 0;

        for (; *labels; labels += 2) {
                const uint8_t entry[] = {
                        0x12, 6, 0x0a, 1, (uint8_t)labels[0], 0x12, 1, (uint8_t)labels[1]
                };

                memcpy(bytes + n, entry, sizeof(entry));
                n += sizeof(entry);
        }
        if (request)
                hotcell__v1__list_sandboxes_request__free_unpacked(request, NULL);
        request = hotcell__v1__list_sandboxes_request__unpack(NULL, n, bytes);
        ck_assert_ptr_nonnull(request);
}

static bool goes_on(const char *token, struct store_cursor *ret_cursor)
{
        char *own = request->page_token;
        bool does;

        request->page_token = unconst(token);
        does = page_token_check(&request->base, ret_cursor);
        ck_assert_ptr_eq(request->page_token, token);
        request->page_token = own;
        return does;
}

static void set_up(void)
{
        arena = (struct arena){ 0 };
        request = NULL;
}

static void tear_down(void)
{
        hotcell__v1__list_sandboxes_request__free_unpacked(request, NULL);
        arena_deinit(&arena);
}

START_TEST(labels_have_no_order)
{
        static const struct {
                const char *labels;
                bool is_same;
        } cases[] = {
                { "a1b2c3", true },    { "c3b2a1", true },
                { "b2a1c3", true },    { "a0a1c3b2", true } /* the last counts */,
                { "a1a0c3b2", false }, { "a1b2c4", false },
                { "a1b2", false },     { "", false },
        };
        const struct store_cursor here = { .create_time_usec = 42, .id = "sbx-a" };
        struct store_cursor cursor;
        const char *token;

        receive("a1b2c3");
        request->page_size = 7;
        token = page_token_new(&arena, &request->base, &here);
        ck_assert_ptr_nonnull(token);
        ck_assert_int_eq(request->page_size, 7);
        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                receive(cases[i].labels);
                ck_assert_int_eq(goes_on(token, &cursor), cases[i].is_same);
                if (cases[i].is_same)
                        ck_assert_int_eq(cursor.create_time_usec, 42);
        }
}
END_TEST

START_TEST(no_token_is_the_start)
{
        struct store_cursor cursor;

        receive("a1");
        ck_assert(goes_on("", &cursor));
        ck_assert_int_eq(cursor.create_time_usec, 0);
        ck_assert(!goes_on("p1.", &cursor));
        ck_assert(!goes_on("p1.0123456789abcdef.42.sbx-a", &cursor));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("page_token");
        TCase *tcase = tcase_create("tokens");

        tcase_add_checked_fixture(tcase, set_up, tear_down);
        tcase_add_test(tcase, labels_have_no_order);
        tcase_add_test(tcase, no_token_is_the_start);
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
