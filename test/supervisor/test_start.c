/*
 * How hotcell-runtime starts: the server that it supervises, walls that do not hold, options that
 * are wrong.
 */

#include <check.h>
#include <fcntl.h>
#include <json-c/json.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "runtime/base/io.h"
#include "runtime/base/macros.h"
#include "test/lib/scratch.h"
#include "test/lib/suite.h"
#include "test/supervisor/peer.h"

#define REASON(name) HOTCELL__RUNTIME__V1__FAILURE_REASON__FAILURE_REASON_##name
#define EVENT(name)  HOTCELL__RUNTIME__V1__FROM_RUNTIME__BODY_##name

static struct daemon runtime;
static char report_path[128];
static char report[16 << 10];

static void pause_msec(long msec)
{
        (void)nanosleep(
                &(struct timespec){ .tv_sec = msec / 1000, .tv_nsec = msec % 1000 * 1000000 },
                NULL);
}

/* In the run directory: the server may make files there. */
static void supervise(const char *program, const char *what)
{
        char *arguments[] = { (char *)(uintptr_t) "--supervise", (char *)(uintptr_t)program,
                              (char *)(uintptr_t) "--",          report_path,
                              (char *)(uintptr_t)what,           NULL };

        daemon_prepare(&runtime);
        (void)snprintf(report_path, sizeof(report_path), "%s/report", runtime.run_dir);
        (void)setenv("SECRET", "1", 1);
        daemon_launch(&runtime, arguments);
}

/* Waits until the server has reported @n times. */
static void await_reports(unsigned n)
{
        for (unsigned waited = 0; waited < 10000; waited += 10) {
                unsigned n_lines = 0;

                report[0] = '\0';
                (void)io_read_file(AT_FDCWD, report_path, report, sizeof(report), NULL);
                for (const char *at = report; *at; at++)
                        n_lines += *at == '\n';
                if (n_lines >= n)
                        return;
                pause_msec(10);
        }
        ck_abort_msg("the server did not report");
}

static void stop(void)
{
        (void)unlink(report_path);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
        ck_assert_int_eq(access(runtime.run_dir, F_OK), -1);
}

static void expect_exit(int exit_code)
{
        int status = daemon_wait(&runtime);

        ck_assert(WIFEXITED(status));
        ck_assert_int_eq(WEXITSTATUS(status), exit_code);
        (void)unlink(report_path);
}

START_TEST(server_is_nobody_in_particular)
{
        supervise(SERVER_STUB_PATH, "stay");
        await_reports(1);
        ck_assert_ptr_nonnull(strstr(report, "CapEff=0000000000000000"));
        ck_assert_ptr_nonnull(strstr(report, "CapPrm=0000000000000000"));
        ck_assert_ptr_nonnull(strstr(report, "CapBnd=0000000000000000"));
        ck_assert_ptr_nonnull(strstr(report, "NoNewPrivs=1"));
        ck_assert_ptr_nonnull(strstr(report, "Groups=65534 "));
        ck_assert_ptr_nonnull(strstr(report, "uid=65534 gid=65534 fds=3 blocked=0 secret=none"));
        stop();
}
END_TEST

START_TEST(server_may_be_where_only_root_can_look)
{
        char folder[] = "/tmp/hotcell-private-XXXXXX";
        char command[256];
        char program[64];

        scratch_make(folder);
        (void)snprintf(program, sizeof(program), "%s/server", folder);
        (void)snprintf(command, sizeof(command), "cp %s %s && chmod 0700 %s", SERVER_STUB_PATH,
                       program, program);
        ck_assert_int_eq(system(command), 0);
        supervise(program, "stay");
        await_reports(1);
        /* The file may go: what runs is a copy. */
        ck_assert_int_eq(unlink(program), 0);
        ck_assert_int_eq(rmdir(folder), 0);
        scratch_remove(folder);
        stop();
}
END_TEST

START_TEST(server_that_crashes_is_started_again)
{
        supervise(SERVER_STUB_PATH, "crash");
        await_reports(3);
        /* Ever more rarely. */
        for (unsigned waited = 0; !daemon_log_has(&runtime, "in_msec=400"); waited += 10) {
                ck_assert_uint_lt(waited, 60000);
                pause_msec(10);
        }
        stop();
}
END_TEST

START_TEST(server_that_refuses_its_configuration_ends_the_runtime)
{
        supervise(SERVER_STUB_PATH, "78");
        expect_exit(78);
        ck_assert(daemon_log_has(&runtime, "refuses its configuration"));
        daemon_remove(&runtime);
}
END_TEST

START_TEST(server_that_is_not_there_ends_the_runtime)
{
        supervise("/no/such/program", "stay");
        expect_exit(78);
        ck_assert(daemon_log_has(&runtime, "cannot use the program to supervise"));
        daemon_remove(&runtime);
}
END_TEST

START_TEST(unknown_user_ends_the_runtime)
{
        char *arguments[] = { (char *)(uintptr_t) "--server-user",
                              (char *)(uintptr_t) "no-such-user", NULL };

        daemon_prepare(&runtime);
        daemon_launch(&runtime, arguments);
        expect_exit(78);
        ck_assert(daemon_log_has(&runtime, "no such user"));
        daemon_remove(&runtime);
}
END_TEST

START_TEST(wrong_options_are_told)
{
        static const char *const rows[][2] = {
                { "--run-dir=relative", "bad value of --run-dir" },
                { "--sandboxes-max=0", "bad value of --sandboxes-max" },
                { "--sandboxes-max=x", "bad value of --sandboxes-max" },
                { "--id-base=1000", "bad value of --id-base" },
                { "--id-base=4294901760", "--id-base leaves no room" },
                { "--log-level=loud", "bad value of --log-level" },
                { "--probe=xml", "bad value of --probe" },
                { "--direct-pool=10.0.0.0/8", "--direct-pool needs --egress" },
                { "--direct-pool=10.0.0.1/8", "--direct-pool has bits set behind its prefix" },
                { "--egress-nameserver=ns.example.org",
                  "bad value of --egress-nameserver: 'ns.example.org' is not an address" },
                { "--egress-nameserver=foo", "bad value of --egress-nameserver: 'foo'" },
                { "--egress-nameserver=", "bad value of --egress-nameserver: ''" },
                { "--egress-nameserver=1.2.3.4:99999",
                  "bad value of --egress-nameserver: '1.2.3.4:99999'" },
                { "--egress-nameserver=[2001:db8::1", "bad value of --egress-nameserver" },
                { "--egress-nameserver=0.0.0.0", "'0.0.0.0' is no address of one host" },
                { "--egress-nameserver=224.0.0.251:5353", "is no address of one host" },
                { "--egress-nameserver=255.255.255.255", "is no address of one host" },
                { "--egress-nameserver=::", "'::' is no address of one host" },
                { "--egress-nameserver=[ff02::fb]:5353", "is no address of one host" },
                { "--egress-nameserver=::ffff:0.0.0.0", "is no address of one host" },
                { "--egress-nameserver=::ffff:239.0.0.1", "is no address of one host" },
                { "--egress-open=10.0.0.1/8",
                  "bad value of --egress-open: '10.0.0.1/8' has bits set" },
                { "--egress-open=10.0.0.0/7",
                  "bad value of --egress-open: '10.0.0.0/7' opens nothing" },
                { "--egress-open=8.8.8.0/24", "opens nothing" },
                { "--egress-open=foo", "bad value of --egress-open: 'foo' is not an address" },
                { "--no-such", "unknown option" },
                { "argument", "unexpected argument" },
        };

        for (size_t i = 0; i < ARRAY_SIZE(rows); i++) {
                char *arguments[] = { (char *)(uintptr_t)rows[i][0], NULL };

                daemon_prepare(&runtime);
                daemon_launch(&runtime, arguments);
                expect_exit(64);
                ck_assert_msg(daemon_log_has(&runtime, rows[i][1]), "%s", rows[i][0]);
                daemon_remove(&runtime);
        }
}
END_TEST

static const Hotcell__Runtime__V1__Wall *find_wall(const struct answer *welcome, const char *name)
{
        const Hotcell__Runtime__V1__Welcome *body = welcome->message->welcome;

        for (size_t i = 0; i < body->n_walls; i++)
                if (strcmp(body->walls[i]->name, name) == 0)
                        return body->walls[i];
        ck_abort_msg("no wall %s", name);
}

/* The daemon runs, says which wall is missing, and refuses to make sandboxes. */
static void expect_missing_wall(const char *name, struct answer *ret_welcome)
{
        const Hotcell__Runtime__V1__Wall *wall;
        struct peer peer;

        peer_connect(&peer, &runtime);
        *ret_welcome = peer_say_hello(&peer);
        ck_assert_int_eq(ret_welcome->message->body_case, EVENT(WELCOME));
        wall = find_wall(ret_welcome, name);
        ck_assert(!wall->holds);
        ck_assert(wall->required);
        ck_assert_str_ne(wall->detail, "");
        ck_assert_str_ne(wall->fix, "");
        peer_expect_failure(&peer, create_request("sbx-a"), REASON(WALL_MISSING));
        peer_disconnect(&peer);
}

START_TEST(all_walls_hold_here)
{
        struct answer welcome;
        struct peer peer;

        daemon_start(&runtime, NULL);
        peer_connect(&peer, &runtime);
        welcome = peer_say_hello(&peer);
        for (size_t i = 0; i < welcome.message->welcome->n_walls; i++) {
                const Hotcell__Runtime__V1__Wall *wall = welcome.message->welcome->walls[i];

                ck_assert_msg(wall->holds || !wall->required, "%s: %s", wall->name, wall->detail);
        }
        answer_deinit(&welcome);
        peer_disconnect(&peer);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
}
END_TEST

/* A container that is not privileged: the mounts and namespaces are refused for real. */
START_TEST(without_sys_admin_no_sandbox_is_made)
{
        struct answer welcome;

        runtime.without_capability = CAP_SYS_ADMIN;
        daemon_start(&runtime, NULL);
        expect_missing_wall("mount_namespace", &welcome);
        ck_assert(!find_wall(&welcome, "idmapped_mounts")->holds);
        ck_assert(!find_wall(&welcome, "sandbox_start")->holds);
        /* The kernel gives these to anybody. */
        ck_assert(find_wall(&welcome, "pidfd")->holds);
        ck_assert(find_wall(&welcome, "seccomp")->holds);
        answer_deinit(&welcome);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
}
END_TEST

START_TEST(without_setpcap_no_sandbox_is_made)
{
        struct answer welcome;

        runtime.without_capability = CAP_SETPCAP;
        daemon_start(&runtime, NULL);
        expect_missing_wall("capability_drop", &welcome);
        answer_deinit(&welcome);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
}
END_TEST

/* Its wall and its log name the folder. */
static void expect_no_templates(const char *store, const char *sentence)
{
        struct answer welcome;

        runtime.store = store;
        daemon_start(&runtime, NULL);
        expect_missing_wall("template", &welcome);
        ck_assert_str_eq(find_wall(&welcome, "template")->detail, sentence);
        ck_assert_uint_eq(welcome.message->welcome->n_templates, 0);
        answer_deinit(&welcome);
        ck_assert(daemon_log_has(&runtime, "there are no templates"));
        ck_assert(daemon_log_has(&runtime, sentence));
        ck_assert_int_eq(daemon_stop(&runtime), 0);
}

START_TEST(without_a_template_no_sandbox_is_made)
{
        expect_no_templates("/var/empty-of-templates",
                            "there is no folder /var/empty-of-templates/by-name");
}
END_TEST

/* Nothing is wrong with the file system of what is not there. */
START_TEST(without_a_store_the_fix_is_to_build_a_template)
{
        static const char *const names[] = { "idmapped_mounts", "overlay", "template" };
        struct answer welcome;

        runtime.store = "/var/empty-of-templates";
        daemon_start(&runtime, NULL);
        expect_missing_wall("template", &welcome);
        for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
                const Hotcell__Runtime__V1__Wall *wall = find_wall(&welcome, names[i]);

                ck_assert(!wall->holds);
                ck_assert_ptr_nonnull(strstr(wall->detail, "/var/empty-of-templates"));
                ck_assert_str_eq(wall->fix, "build a template: hotcell-template build python");
        }
        answer_deinit(&welcome);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
}
END_TEST

/* A store of links to the usual one's template, whose digest it returns. */
static void make_store(char store[static 64], char digest[static 80])
{
        char command[512];

        (void)strcpy(store, "/tmp/hotcell-store-XXXXXX");
        scratch_make(store);
        (void)strcpy(digest, create_request("sbx-a")->create_sandbox->template_digest);
        (void)snprintf(command, sizeof(command),
                       "mkdir %s/by-name && ln -s %s/%s %s/by-name/python && ln -s %s/%s %s/%s",
                       store, daemon_store(), digest, store, daemon_store(), digest, store, digest);
        ck_assert_int_eq(system(command), 0);
}

static void empty_store(const char *store, const char *digest)
{
        char path[160];

        (void)snprintf(path, sizeof(path), "%s/by-name/python", store);
        ck_assert_int_eq(unlink(path), 0);
        (void)snprintf(path, sizeof(path), "%s/%s", store, digest);
        ck_assert_int_eq(unlink(path), 0);
}

START_TEST(an_empty_store_is_told_with_its_folder)
{
        char store[64];
        char digest[80];
        char sentence[128];

        make_store(store, digest);
        empty_store(store, digest);
        (void)snprintf(sentence, sizeof(sentence), "no template in %s/by-name can be used", store);
        expect_no_templates(store, sentence);
        scratch_remove(store);
}
END_TEST

static void expect_no_template(struct peer *peer, const char *sentence)
{
        static char unknown[] =
                "sha256-0000000000000000000000000000000000000000000000000000000000000000";
        Hotcell__Runtime__V1__ToRuntime *request = create_request("sbx-a");
        struct answer answer;

        request->create_sandbox->template_digest = unknown;
        answer = peer_ask(peer, request);
        ck_assert_int_eq(answer.message->body_case, EVENT(FAILURE));
        ck_assert_int_eq(answer.message->failure->reason, REASON(TEMPLATE_NOT_FOUND));
        ck_assert_ptr_nonnull(strstr(answer.message->failure->message, sentence));
        answer_deinit(&answer);
}

START_TEST(a_store_that_goes_away_is_told_with_its_folder)
{
        char store[64];
        char digest[80];
        char sentence[128];
        struct peer peer;

        make_store(store, digest);
        runtime.store = store;
        daemon_start(&runtime, NULL);
        peer_connect(&peer, &runtime);
        peer_hello(&peer);
        (void)snprintf(sentence, sizeof(sentence), " in %s", store);
        expect_no_template(&peer, sentence);
        ck_assert(!daemon_log_has(&runtime, "there are no templates"));

        empty_store(store, digest);
        scratch_remove(store);
        (void)snprintf(sentence, sizeof(sentence), "there is no folder %s/by-name", store);
        expect_no_template(&peer, sentence);
        ck_assert(daemon_log_has(&runtime, "there are no templates"));
        ck_assert(daemon_log_has(&runtime, sentence));
        peer_disconnect(&peer);
        ck_assert_int_eq(daemon_stop(&runtime), 0);
}
END_TEST

/* Runs the doctor and parses what it prints. */
static struct json_object *run_doctor(int *ret_exit_code)
{
        static char log[64 << 10];
        char *arguments[] = { (char *)(uintptr_t) "--probe=json", (char *)(uintptr_t) "--log-level",
                              (char *)(uintptr_t) "error", NULL };
        struct json_object *result;
        int status;

        daemon_prepare(&runtime);
        daemon_launch(&runtime, arguments);
        status = daemon_wait(&runtime);
        ck_assert(WIFEXITED(status));
        *ret_exit_code = WEXITSTATUS(status);
        ck_assert_int_eq(io_read_file(AT_FDCWD, runtime.log_path, log, sizeof(log), NULL), 0);
        result = json_tokener_parse(strchr(log, '{'));
        ck_assert_ptr_nonnull(result);
        daemon_remove(&runtime);
        return result;
}

START_TEST(doctor_says_what_holds)
{
        struct json_object *result;
        struct json_object *value;
        int exit_code;

        result = run_doctor(&exit_code);
        ck_assert_int_eq(exit_code, 0);
        ck_assert(json_object_object_get_ex(result, "ok", &value));
        ck_assert(json_object_get_boolean(value));
        ck_assert(json_object_object_get_ex(result, "walls", &value));
        ck_assert_uint_ge(json_object_array_length(value), 15);
        json_object_put(result);

        runtime.store = "/var/empty-of-templates";
        result = run_doctor(&exit_code);
        ck_assert_int_eq(exit_code, 1);
        ck_assert(json_object_object_get_ex(result, "ok", &value));
        ck_assert(!json_object_get_boolean(value));
        json_object_put(result);
}
END_TEST

static Suite *start_suite(void)
{
        Suite *suite = suite_create("runtime-start");
        TCase *tests = tcase_create("start");

        tcase_set_timeout(tests, 60);
        tcase_add_test(tests, server_is_nobody_in_particular);
        tcase_add_test(tests, server_may_be_where_only_root_can_look);
        tcase_add_test(tests, server_that_crashes_is_started_again);
        tcase_add_test(tests, server_that_refuses_its_configuration_ends_the_runtime);
        tcase_add_test(tests, server_that_is_not_there_ends_the_runtime);
        tcase_add_test(tests, unknown_user_ends_the_runtime);
        tcase_add_test(tests, wrong_options_are_told);
        tcase_add_test(tests, all_walls_hold_here);
        tcase_add_test(tests, without_sys_admin_no_sandbox_is_made);
        tcase_add_test(tests, without_setpcap_no_sandbox_is_made);
        tcase_add_test(tests, without_a_template_no_sandbox_is_made);
        tcase_add_test(tests, without_a_store_the_fix_is_to_build_a_template);
        tcase_add_test(tests, an_empty_store_is_told_with_its_folder);
        tcase_add_test(tests, a_store_that_goes_away_is_told_with_its_folder);
        tcase_add_test(tests, doctor_says_what_holds);
        suite_add_tcase(suite, tests);
        return suite;
}

int main(void)
{
        const char *missing = daemon_missing();

        if (missing) {
                printf("1..0 # SKIP %s\n", missing);
                return EXIT_SUCCESS;
        }
        return suite_main(start_suite());
}
