/* What the operator may write, and what they are told when they may not. */
#include <check.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "server/config.h"
#include "server/settings.h"
#include "test/lib/scratch.h"
#include "test/lib/suite.h"

static struct config config;
static enum config_action action;
static char message[CONFIG_MESSAGE_BUFFER];
static char folder[64];
static char path[80]; /* of a file in the folder */

static void set_up(void)
{
        (void)strcpy(folder, "/tmp/hotcell-config-XXXXXX");
        scratch_make(folder);
        (void)snprintf(path, sizeof(path), "%s/conf", folder);
}

static void tear_down(void)
{
        scratch_remove(folder);
}

/* Runs as `hotcelld FLAG…` with up to four flags. */
static int read_flags(const char *const flags[4])
{
        char program[] = "hotcelld", *argv[6] = { program };
        int argc = 1;

        for (size_t i = 0; i < 4 && flags[i]; i++)
                argv[argc++] = (char *)(uintptr_t)flags[i]; /* only its order changes */
        return config_read(argc, argv, &config, &action, message);
}

/* `--config` with a file of this text. */
static int read_text(const char *text, const char *flag)
{
        FILE *file = fopen(path, "we");

        ck_assert_ptr_nonnull(file);
        (void)fputs(text, file);
        (void)fclose(file);
        return read_flags((const char *const[4]){ "--config", path, flag });
}

START_TEST(defaults_are_good)
{
        ck_assert_int_eq(read_flags((const char *const[4]){ "--config", "/dev/null" }), 0);
        ck_assert_int_eq(action, CONFIG_SERVE);
        ck_assert_str_eq(config.unix_path, "/run/hotcell/hotcell.sock");
        ck_assert_int_eq(config.memory_default_bytes, INT64_C(1) << 30);
        ck_assert_int_eq(config.timeout_default_usec, 60 * 1000000);
        ck_assert_int_eq(config.retention_usec, INT64_C(7) * 86400 * 1000000);
        ck_assert_int_eq(config.log_level, LOG_LEVEL_INFO);
        ck_assert(!config.allow_root);
}
END_TEST

START_TEST(flags_win_over_the_file)
{
        ck_assert_int_eq(read_text("# a comment\n"
                                   "memory_default = 512M   ; and another\n"
                                   "\n"
                                   "log_level=debug\n"
                                   "allow_no_timeout = yes\n",
                                   "--memory-default=768MiB"),
                         0);
        ck_assert_int_eq(config.memory_default_bytes, 768 << 20);
        ck_assert_int_eq(config.log_level, LOG_LEVEL_DEBUG);
        ck_assert(config.allow_no_timeout);
}
END_TEST

START_TEST(a_bool_flag_alone_says_yes)
{
        ck_assert_int_eq(read_text("", "--allow-root"), 0);
        ck_assert(config.allow_root);
        ck_assert_int_eq(read_text("allow_root = yes\n", "--allow-root=no"), 0);
        ck_assert(!config.allow_root);
}
END_TEST

static const struct {
        const char *text;
        const char *place;
        const char *said;
} bad_files[] = {
        { "memory_limit = 1G\n", ":1: ", "there is no setting `memory_limit`" },
        { "\n\nmemory_max = much\n", ":3: memory_max: ", "give bytes such as" },
        { "memory_max = -1\n", ":1: memory_max: ", "is not accepted" },
        { "memory_max = 1\n", ":1: memory_max: ", "from 16MiB to 64TiB" },
        { "memory_max = 99999999999999999999\n", ":1: memory_max: ", "is not accepted" },
        { "ttl_default = soon\n", ":1: ttl_default: ", "give a duration" },
        { "timeout_max = 400d\n", ":1: timeout_max: ", "to 365d" },
        { "log_level = loud\n", ":1: log_level: ", "error, warning, info or debug" },
        { "allow_root = maybe\n", ":1: allow_root: ", "yes or no" },
        { "queue_max = 1.5\n", ":1: queue_max: ", "a whole number" },
        { "state_dir =\n", ":1: state_dir: ", "a path" },
        { "tcp = 0.0.0.0:80\n", ":1: tcp: ", "not a loopback address" },
        { "tcp = [::]:80\n", ":1: tcp: ", "not a loopback address" },
        { "tcp = 192.0.2.1:80\n", ":1: tcp: ", "plaintext" },
        { "tcp = example.org:80\n", ":1: tcp: ", "not a loopback address" },
        { "tcp = 127.0.0.1\n", ":1: tcp: ", "127.0.0.1:PORT" },
        { "tcp = 127.0.0.1:99999\n", ":1: tcp: ", "127.0.0.1:PORT" },
        { "[limits]\nmemory_max = 1G\n", ":2: ", "remove [limits]" },
        { "memory_max = 1G\nqueue_max = 3\nmemory_max = 2G\n", ":3: ", "memory_max is set twice" },
        { "just words\n", ":1: ", "no `key = value`" },
        { "memory_default = 16G\n", "", "memory_default is above memory_max" },
        { "ttl_default = 31d\n", "", "ttl_default is above ttl_max" },
        { "timeout_default = 0\n", "", "allow_no_timeout is no" },
        { "ttl_default = 0\n", "", "allow_no_ttl is no" },
        { "disk_default = 1000M\n", "", "64 MiB below memory_default" },
};

START_TEST(a_bad_file_is_refused_with_place_and_reason)
{
        ck_assert_int_eq(read_text(bad_files[_i].text, NULL), CONFIG_E_INVALID);
        if (*bad_files[_i].place)
                ck_assert_msg(strstr(message, path) == message, "%s", message);
        ck_assert_msg(strstr(message, bad_files[_i].place) != NULL, "%s", message);
        ck_assert_msg(strstr(message, bad_files[_i].said) != NULL, "%s", message);
}
END_TEST

START_TEST(a_line_that_is_too_long_is_refused)
{
        char text[1024];

        (void)memset(text, 'x', sizeof(text));
        (void)memcpy(text, "state_dir = /", 13);
        text[sizeof(text) - 1] = '\0';
        ck_assert_int_eq(read_text(text, NULL), CONFIG_E_INVALID);
        ck_assert_ptr_nonnull(strstr(message, ":1: the line is longer than"));
}
END_TEST

START_TEST(bad_flags_are_refused_by_name)
{
        static const struct {
                const char *flags[4];
                const char *said;
        } cases[] = {
                { { "--nonsense" }, "--nonsense: there is no such flag" },
                { { "--memory-max" }, "--memory-max: it needs a value" },
                { { "--memory-max", "x" }, "flag for memory_max: `x` is not accepted" },
                { { "--tcp", "0.0.0.0:1" }, "not a loopback address" },
                { { "serve" }, "serve: only flags are taken" },
                { { "--config", "/nonexistent/file" }, "cannot read /nonexistent/file: No such" },
                { { "--config", "/tmp" }, "Is a directory" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
                ck_assert_int_eq(read_flags(cases[i].flags), CONFIG_E_INVALID);
                ck_assert_msg(strstr(message, cases[i].said) != NULL, "%s", message);
        }
}
END_TEST

START_TEST(actions_are_known)
{
        ck_assert_int_eq(read_flags((const char *const[4]){ "--help" }), 0);
        ck_assert_int_eq(action, CONFIG_HELP);
        ck_assert_int_eq(read_flags((const char *const[4]){ "-h" }), 0);
        ck_assert_int_eq(action, CONFIG_HELP);
        ck_assert_int_eq(read_flags((const char *const[4]){ "--version" }), 0);
        ck_assert_int_eq(action, CONFIG_VERSION);
        ck_assert_int_eq(read_text("", "--check-config"), 0);
        ck_assert_int_eq(action, CONFIG_CHECK);
}
END_TEST

/* Writes what is printed to @text. */
static void print_config(const struct config *what, char text[static 16384])
{
        FILE *file = fmemopen(text, 16384, "w");

        config_print(what, file);
        (void)fclose(file);
}

START_TEST(the_shipped_file_is_what_is_printed)
{
        static char printed[16384], shipped[16384];
        FILE *file = fopen(getenv("HOTCELL_SHIPPED_CONFIG"), "r");

        ck_assert_ptr_nonnull(file);
        ck_assert_uint_gt(fread(shipped, 1, sizeof(shipped) - 1, file), 0);
        (void)fclose(file);
        ck_assert_int_eq(read_flags((const char *const[4]){ "--config", "/dev/null" }), 0);
        print_config(&config, printed);
        ck_assert_msg(strcmp(printed, shipped) == 0,
                      "write `hotcelld --config /dev/null --print-config` to deploy/hotcelld.conf");
}
END_TEST

START_TEST(what_is_printed_reads_back_the_same)
{
        static char printed[16384], again[16384];

        ck_assert_int_eq(
                read_text("memory_max = 3G\nttl_default = 90s\ntcp = localhost:7777\n"
                          "interrupt_kill_after = 1.5s\nretention = 0\nlog_level = error\n",
                          NULL),
                0);
        print_config(&config, printed);
        ck_assert_int_eq(read_text(printed, NULL), 0);
        print_config(&config, again);
        ck_assert_str_eq(printed, again);
        ck_assert_ptr_nonnull(strstr(printed, "\nmemory_max = 3GiB\n"));
        ck_assert_ptr_nonnull(strstr(printed, "\nttl_default = 90s\n"));
}
END_TEST

START_TEST(every_setting_is_documented_within_its_bounds)
{
        for (size_t i = 0; i < n_settings; i++) {
                char value[SETTING_VALUE_BUFFER];

                settings_set_defaults(&config);
                setting_format(&settings[i], &config, value);
                ck_assert_str_eq(value, settings[i].text);
                ck_assert_uint_gt(strlen(settings[i].doc), 10);
        }
}
END_TEST

int main(void)
{
        const TTest *const tests[] = {
                defaults_are_good,
                flags_win_over_the_file,
                a_bool_flag_alone_says_yes,
                a_line_that_is_too_long_is_refused,
                bad_flags_are_refused_by_name,
                actions_are_known,
                the_shipped_file_is_what_is_printed,
                what_is_printed_reads_back_the_same,
                every_setting_is_documented_within_its_bounds,
        };
        TCase *tcase = tcase_create("config");
        Suite *suite = suite_create("config");

        tcase_add_checked_fixture(tcase, set_up, tear_down);
        for (size_t i = 0; i < ARRAY_SIZE(tests); i++)
                tcase_add_test(tcase, tests[i]);
        tcase_add_loop_test(tcase, a_bad_file_is_refused_with_place_and_reason, 0,
                            ARRAY_SIZE(bad_files));
        suite_add_tcase(suite, tcase);
        return suite_main(suite);
}
