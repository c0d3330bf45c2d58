#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cli/options.h"
#include "cli/suggest.h"
#include "runtime/base/macros.h"
#include "test/lib/suite.h"

struct values {
        bool flag;
        const char *text;
        struct option_texts texts;
        struct option_pairs pairs;
        struct option_number count, bytes, duration, cpus;
        int choice;
};

static const char *const choices[] = { "", "kill", "truncate", NULL };
static const struct option_row rows[] = {
        { 'f', "flag", OPTION_FLAG, offsetof(struct values, flag), NULL, "", NULL, 0 },
        { 't', "text", OPTION_TEXT, offsetof(struct values, text), "TEXT", "", NULL, 0 },
        { 0, "texts", OPTION_TEXTS, offsetof(struct values, texts), "TEXT", "", NULL, 0 },
        { 'e', "env", OPTION_PAIRS, offsetof(struct values, pairs), "K=V", "", NULL, 0 },
        { 0, "count", OPTION_COUNT, offsetof(struct values, count), "N", "", NULL, 100 },
        { 0, "bytes", OPTION_BYTES, offsetof(struct values, bytes), "BYTES", "", NULL, 0 },
        { 0, "duration", OPTION_DURATION, offsetof(struct values, duration), "D", "", NULL, 0 },
        { 0, "cpus", OPTION_CPUS, offsetof(struct values, cpus), "CPUS", "", NULL, INT32_MAX },
        { 0, "choice", OPTION_CHOICE, offsetof(struct values, choice), "a|b", "", choices, 0 },
};
static const struct usage usage = {
        .command = "test",
        .operands = "[OPTIONS] FIRST [SECOND]",
        .summary = "Tests.",
        .operands_max = 2,
};

/* Parses the words up to NULL. */
static int parse(struct values *values, struct operands *operands, const char *const *words)
{
        static char copies[16][128];
        static char *argv[17];
        const struct option_group group = OPTION_GROUP("Test", rows, values);
        int argc = 1;

        argv[0] = copies[0];
        for (; words[argc - 1]; argc++) {
                (void)snprintf(copies[argc], sizeof(copies[argc]), "%s", words[argc - 1]);
                argv[argc] = copies[argc];
        }
        argv[argc] = NULL;
        memset(values, 0, sizeof(*values));
        return options_parse(&usage, &group, 1, argc, argv, operands);
}

#define PARSE(values, operands, ...)                                                               \
        parse((values), (operands), (const char *const[]){ __VA_ARGS__, NULL })

static void release(struct values *values)
{
        const struct option_group group = OPTION_GROUP("Test", rows, values);

        options_release(&group, 1);
}

START_TEST(values_are_read_in_all_spellings)
{
        struct operands operands;
        struct values values;

        ck_assert_int_eq(PARSE(&values, &operands, "-ft", "a", "--bytes=512M", "--duration", "1.5s",
                               "--cpus", "1.5", "--count", "100", "--choice", "TRUNCATE"),
                         0);
        ck_assert(values.flag);
        ck_assert_str_eq(values.text, "a");
        ck_assert_int_eq(values.bytes.value, 512 << 20);
        ck_assert_int_eq(values.duration.value, 1500000000);
        ck_assert_int_eq(values.cpus.value, 1500);
        ck_assert_int_eq(values.count.value, 100);
        ck_assert_int_eq(values.choice, 2);
        ck_assert_uint_eq(operands.n, 0);
}
END_TEST

START_TEST(absent_is_not_zero)
{
        struct operands operands;
        struct values values;

        ck_assert_int_eq(PARSE(&values, &operands, "--duration", "0"), 0);
        ck_assert(values.duration.is_set);
        ck_assert_int_eq(values.duration.value, 0);
        ck_assert(!values.bytes.is_set);
}
END_TEST

START_TEST(options_may_stand_after_operands)
{
        struct operands operands;
        struct values values;

        ck_assert_int_eq(PARSE(&values, &operands, "one", "-f", "two"), 0);
        ck_assert(values.flag);
        ck_assert_uint_eq(operands.n, 2);
        ck_assert_str_eq(operands.items[0], "one");
        ck_assert_str_eq(operands.items[1], "two");
}
END_TEST

START_TEST(two_hyphens_end_the_options)
{
        struct operands operands;
        struct values values;

        ck_assert_int_eq(PARSE(&values, &operands, "--", "-f", "--text"), 0);
        ck_assert(!values.flag);
        ck_assert_uint_eq(operands.n, 2);
        ck_assert_str_eq(operands.items[0], "-f");
}
END_TEST

START_TEST(a_hyphen_is_an_operand)
{
        struct operands operands;
        struct values values;

        ck_assert_int_eq(PARSE(&values, &operands, "-"), 0);
        ck_assert_uint_eq(operands.n, 1);
}
END_TEST

START_TEST(lists_and_pairs_collect)
{
        struct operands operands;
        struct values values;

        (void)setenv("OPTION_TEST", "from here", 1);
        ck_assert_int_eq(PARSE(&values, &operands, "--texts", "a", "--texts", "b", "-e", "K=1=2",
                               "-e", "OPTION_TEST", "-e", "K=", "-e", "L=x"),
                         0);
        ck_assert_uint_eq(values.texts.n, 2);
        ck_assert_str_eq(values.texts.items[1], "b");
        ck_assert_uint_eq(values.pairs.n, 3);
        ck_assert_str_eq(values.pairs.items[0].key, "K");
        ck_assert_str_eq(values.pairs.items[0].value, ""); /* the last one wins */
        ck_assert_str_eq(values.pairs.items[1].value, "from here");
        release(&values);
}
END_TEST

static const char *const wrong_words[][3] = {
        { "--nonsense" },
        { "-Z" },
        { "--text" }, /* its value is missing */
        { "--flag=1" },
        { "--t", "x" }, /* --text or --texts? */
        { "--count", "101" },
        { "--count", "-1" },
        { "--count", "1x" },
        { "--count", "" },
        { "--bytes", "9999999999T" },
        { "--bytes", "1.5M" },
        { "--bytes", "18446744073709551615" }, /* does not fit int64 */
        { "--duration", "1y" },
        { "--duration", "-1s" },
        { "--duration", "1e3" },
        { "--duration", "99999999999d" },
        { "--cpus", "1.2345" },
        { "--cpus", "1." },
        { "--cpus", ".5" },
        { "--cpus", "1.5.5" },
        { "--cpus", "99999999999" },
        { "--choice", "neither" },
        { "--choice", "" },
        { "--env", "=x" },
        { "--env", "NO_SUCH_VARIABLE_HERE" },
        { "--env", "" },
        { "--text", "\xff" },
};

START_TEST(wrong_words_are_refused)
{
        struct operands operands;
        struct values values;

        ck_assert_int_eq(parse(&values, &operands, wrong_words[_i]), OPTIONS_E_USAGE);
        release(&values);
}
END_TEST

START_TEST(too_many_operands_are_refused)
{
        struct operands operands;
        struct values values;

        ck_assert_int_eq(PARSE(&values, &operands, "a", "b", "c"), OPTIONS_E_USAGE);
}
END_TEST

START_TEST(near_words_are_found)
{
        static const char *const names[] = { "timeout", "ttl", "memory", "env", "ls", "run" };
        static const struct {
                const char *word;
                const char *expected;
        } cases[] = {
                { "timout", "timeout" }, { "memroy", "memory" }, { "rnu", "run" }, { "lss", "ls" },
                { "tll", "ttl" },        { "completely", NULL }, { "x", NULL },    { "", NULL },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                const char *found = suggest(cases[i].word, names, ARRAY_SIZE(names));

                ck_assert_pstr_eq(found, cases[i].expected);
        }
}
END_TEST

START_TEST(endless_words_are_no_trouble)
{
        static const char *const names[] = { "timeout" };
        char word[4096];

        memset(word, 't', sizeof(word));
        word[sizeof(word) - 1] = '\0';
        ck_assert_ptr_null(suggest(word, names, 1));
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("cli options");
        TCase *tests = tcase_create("options");

        tcase_add_test(tests, values_are_read_in_all_spellings);
        tcase_add_test(tests, absent_is_not_zero);
        tcase_add_test(tests, options_may_stand_after_operands);
        tcase_add_test(tests, two_hyphens_end_the_options);
        tcase_add_test(tests, a_hyphen_is_an_operand);
        tcase_add_test(tests, lists_and_pairs_collect);
        tcase_add_loop_test(tests, wrong_words_are_refused, 0, ARRAY_SIZE(wrong_words));
        tcase_add_test(tests, too_many_operands_are_refused);
        tcase_add_test(tests, near_words_are_found);
        tcase_add_test(tests, endless_words_are_no_trouble);
        suite_add_tcase(suite, tests);
        return suite_main(suite);
}
