/* Egress policies: which are taken, what becomes of them, and how their rules are packed. */
#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "server/session/egress.h"
#include "server/session/egress_rules.h"
#include "test/lib/suite.h"
#include "test/unit/session/fixture.h"

static const struct egress_rule deny = { .action = POLICY_DENY,
                                         .protocol = POLICY_TCP,
                                         .destination = "10.0.0.0/8" };
static const struct egress_rule allow = { .action = POLICY_ALLOW,
                                          .protocol = POLICY_TCP,
                                          .is_domain = true,
                                          .destination = "*.example.org",
                                          .ports = { { 443, 443 }, { 8000, 8080 } },
                                          .n_ports = 2 };

/* The test's hold; let go by release_all. */
static struct egress *made[8];
static size_t n_made;

static struct egress *egress_of(const struct egress_rule *rule)
{
        struct egress *egress = make_egress(POLICY_DEFAULT_DENY, rule, 1);

        ck_assert_uint_lt(n_made, ARRAY_SIZE(made));
        made[n_made++] = egress;
        return egress;
}

static void release_all(void)
{
        while (n_made > 0)
                (void)egress_release(made[--n_made]);
}

static struct answer create_with(struct egress *egress)
{
        struct sandbox_request request = sandbox_request();

        request.egress = egress;
        return create_sandbox(&request);
}

static struct answer set_egress(const char *sandbox_id, struct egress *egress)
{
        struct sandbox_update update = { .set_egress = true, .egress = egress };

        return update_sandbox(sandbox_id, &update);
}

static int64_t egress_used(void)
{
        struct session_info info;

        session_info(f.session, "uid:1", &info);
        return info.quotas[SESSION_SHARE_EGRESS].owner_used;
}

/* --- what is taken --- */

START_TEST(what_allows_anything_is_refused_without_a_relay)
{
        struct egress *egress = egress_of(&allow);
        struct answer answer = create_with(egress);
        struct sandbox_request spec = sandbox_request();
        struct execute_request request = execute_request("", "out x");

        ck_assert_int_eq(answer.result.outcome, SESSION_E_EGRESS);
        spec.egress = egress;
        request.one_shot = &spec;
        ck_assert_int_eq(execute(&request, NULL).result.outcome, SESSION_E_EGRESS);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);

        answer = new_sandbox();
        ck_assert_int_eq(set_egress(answer.sandbox.sandbox_id, egress).result.outcome,
                         SESSION_E_EGRESS);
        answer = get_sandbox(answer.sandbox.sandbox_id);
        ck_assert_ptr_null(answer.sandbox.egress);
        ck_assert_int_eq(answer.sandbox.egress_version, 1);
        ck_assert_int_eq(egress_used(), 0);
        release_all();
}
END_TEST

START_TEST(what_only_denies_is_taken_without_a_relay)
{
        struct egress *egress = egress_of(&deny);
        struct answer answer = create_with(egress);

        ck_assert_int_eq(answer.result.outcome, 0);
        answer = get_sandbox(answer.sandbox.sandbox_id);
        ck_assert_ptr_eq(answer.sandbox.egress, egress);
        ck_assert_int_eq(egress_used(), (int64_t)egress_memory(egress));
        ck_assert_int_eq(delete_sandbox(answer.sandbox.sandbox_id).result.outcome, 0);
        ck_assert_int_eq(egress_used(), 0);
        stop_session();
        ck_assert_uint_eq(egress->n_holds, 1);
        release_all();
}
END_TEST

START_TEST(with_a_relay_all_are_taken)
{
        struct sandbox_request spec = sandbox_request();
        struct execute_request request = execute_request("", "out x");
        struct seen seen = { 0 };

        start_with_egress();
        ck_assert_int_eq(create_with(egress_of(&allow)).result.outcome, 0);
        spec.egress = made[0];
        request.one_shot = &spec;
        ck_assert_int_eq(execute(&request, &seen).result.outcome, 0);
        wait_for_end(&seen);
        detach(&seen);
        fake_egress_disconnect(f.egress);
        run_turns(4);
        ck_assert_int_eq(create_with(made[0]).result.outcome, SESSION_E_EGRESS);
        release_all();
}
END_TEST

/* --- updates --- */

START_TEST(another_policy_is_another_version_and_the_same_is_not)
{
        char etag[ETAG_BUFFER], before[ETAG_BUFFER];
        struct sandbox_update other = { .set_idle_timeout = true, .idle_timeout_usec = 7000000 };
        struct answer answer;
        const char *id;

        start_with_egress();
        answer = create_with(egress_of(&deny));
        id = answer.sandbox.sandbox_id;

        ck_assert_int_eq(answer.sandbox.egress_version, 1);
        sandbox_etag(&answer.sandbox, before);

        ck_assert_int_eq(set_egress(id, egress_of(&deny)).sandbox.egress_version, 1);
        answer = get_sandbox(id);
        sandbox_etag(&answer.sandbox, etag);
        ck_assert_str_eq(etag, before);

        answer = set_egress(id, egress_of(&allow));
        ck_assert_int_eq(answer.sandbox.egress_version, 2);
        ck_assert_ptr_eq(answer.sandbox.egress, made[2]);
        ck_assert_int_eq(egress_used(), (int64_t)egress_memory(made[2]));
        sandbox_etag(&answer.sandbox, etag);
        ck_assert_str_ne(etag, before);

        /* What an update does not name stays. */
        answer = update_sandbox(id, &other);
        ck_assert_int_eq(answer.sandbox.egress_version, 2);
        ck_assert_ptr_eq(answer.sandbox.egress, made[2]);

        answer = set_egress(id, NULL);
        ck_assert_int_eq(answer.sandbox.egress_version, 3);
        ck_assert_ptr_null(answer.sandbox.egress);
        ck_assert_int_eq(egress_used(), 0);
        release_all();
}
END_TEST

START_TEST(a_policy_of_another_version_is_a_conflict)
{
        char etag[ETAG_BUFFER];
        struct answer answer = create_with(NULL);
        const char *id = answer.sandbox.sandbox_id;
        struct sandbox_update update = { .etag = etag,
                                         .set_egress = true,
                                         .egress = egress_of(&deny) };

        sandbox_etag(&answer.sandbox, etag);
        ck_assert_int_eq(update_sandbox(id, &update).result.outcome, 0);
        update.egress = NULL;
        ck_assert_int_eq(update_sandbox(id, &update).result.outcome, SESSION_E_CONFLICT);
        ck_assert_ptr_eq(get_sandbox(id).sandbox.egress, made[0]);
        release_all();
}
END_TEST

START_TEST(policies_are_replaced_one_at_a_time)
{
        struct answer sandbox = create_with(NULL), first = { 0 }, second = { 0 }, third = { 0 };
        const char *id = sandbox.sandbox.sandbox_id;
        struct sandbox_update update = { .set_egress = true, .egress = egress_of(&deny) };
        struct sandbox_update other = { .set_idle_timeout = true, .idle_timeout_usec = 7000000 };

        session_update_sandbox(f.session, "uid:1", id, &update, on_sandbox_answer, &first);
        ck_assert(!first.is_done);
        update.egress = NULL;
        session_update_sandbox(f.session, "uid:1", id, &update, on_sandbox_answer, &second);
        session_update_sandbox(f.session, "uid:1", id, &other, on_sandbox_answer, &third);
        run_until_true(&second.is_done);
        ck_assert_int_eq(second.result.outcome, SESSION_E_CONFLICT);
        run_until_true(&first.is_done);
        run_until_true(&third.is_done);
        ck_assert_int_eq(first.result.outcome, 0);
        ck_assert_int_eq(third.result.outcome, 0);
        ck_assert_int_eq(third.sandbox.egress_version, 2);
        ck_assert_int_eq(set_egress(id, NULL).sandbox.egress_version, 3);
        release_all();
}
END_TEST

/* --- bounds and restarts --- */

START_TEST(bytes_of_rules_are_bounded_for_all_together)
{
        struct answer first, second;
        int64_t size = (int64_t)egress_memory(egress_of(&deny));

        stop_session();
        f.config.shares.total[SESSION_SHARE_EGRESS] = size;
        start_session();
        run_until(session_serves, NULL);
        first = create_with(made[0]);
        ck_assert_int_eq(first.result.outcome, 0);
        second = create_with(made[0]);
        ck_assert_int_eq(second.result.outcome, SESSION_E_EGRESS_LIMIT);
        second = create_with(NULL);
        ck_assert_int_eq(second.result.outcome, 0);
        ck_assert_int_eq(set_egress(second.sandbox.sandbox_id, made[0]).result.outcome,
                         SESSION_E_EGRESS_LIMIT);
        /* What it replaces makes room for it. */
        ck_assert_int_eq(set_egress(first.sandbox.sandbox_id, egress_of(&deny)).result.outcome, 0);
        ck_assert_int_eq(set_egress(first.sandbox.sandbox_id, NULL).result.outcome, 0);
        ck_assert_int_eq(set_egress(second.sandbox.sandbox_id, made[0]).result.outcome, 0);
        ck_assert_int_eq(egress_used(), size);
        release_all();
}
END_TEST

/* Of two owners with keys the first may have half, whoever else has none. */
START_TEST(rules_are_shared_among_owners)
{
        struct sandbox_request request = sandbox_request();
        struct answer first, second;
        struct session_info info;

        stop_session();
        f.config.shares.total[SESSION_SHARE_EGRESS_RULES] = 2;
        start_session();
        run_until(session_serves, NULL);
        request.owner = "key-a";
        request.egress = egress_of(&deny);
        first = create_sandbox(&request);
        ck_assert_int_eq(first.result.outcome, 0);
        second = create_sandbox(&request);
        ck_assert_int_eq(second.result.outcome, SESSION_E_EGRESS_LIMIT);
        ck_assert_str_eq(second.result.quota, "key-a");
        ck_assert_ptr_nonnull(
                strstr(second.result.message, "egress rules is 1: 1 used, 1 more asked for"));
        request.owner = "key-b";
        ck_assert_int_eq(create_sandbox(&request).result.outcome, 0);
        session_info(f.session, "key-a", &info);
        ck_assert_int_eq(info.quotas[SESSION_SHARE_EGRESS_RULES].owner_used, 1);
        ck_assert_int_eq(info.quotas[SESSION_SHARE_EGRESS_RULES].used, 2);
        release_all();
}
END_TEST

START_TEST(a_policy_outlives_the_server)
{
        char etag[ETAG_BUFFER], after[ETAG_BUFFER];
        struct answer answer;
        const char *id;

        start_with_egress();
        answer = create_with(NULL);
        id = answer.sandbox.sandbox_id;
        answer = set_egress(id, egress_of(&allow));
        sandbox_etag(&answer.sandbox, etag);
        crash_server();
        start_session();
        run_until(session_serves, NULL);

        answer = get_sandbox(id);
        ck_assert_int_eq(answer.sandbox.state, SANDBOX_RUNNING);
        ck_assert(egress_is_same(answer.sandbox.egress, made[0]));
        ck_assert(answer.sandbox.egress->allows);
        ck_assert_mem_eq(answer.sandbox.egress->sha256, made[0]->sha256, 32);
        ck_assert_int_eq(egress_used(), (int64_t)egress_memory(made[0]));
        sandbox_etag(&answer.sandbox, after);
        ck_assert_str_eq(after, etag);
        ck_assert_int_eq(set_egress(id, NULL).sandbox.egress_version, 3);
}
END_TEST

/* --- packing --- */

static const char *packed(const struct egress_rule *rule)
{
        return egress_of(rule)->bytes;
}

START_TEST(a_rule_is_packed_as_text_and_comes_back)
{
        struct egress_rule most = { .action = POLICY_DENY,
                                    .protocol = POLICY_UDP,
                                    .destination = "::/0",
                                    .n_ports = POLICY_PORTS_MAX };
        struct egress_rule rule;
        size_t offset = 0;

        for (size_t i = 0; i < POLICY_PORTS_MAX; i++)
                most.ports[i] = (struct policy_ports){ 65534, 65535 };
        ck_assert_str_eq(packed(&deny), "deny tcp - cidr 10.0.0.0/8");
        ck_assert_str_eq(packed(&allow), "allow tcp 443,8000-8080 domain *.example.org");
        ck_assert_uint_eq(strlen(packed(&most)) + 1, egress_rule_size(&most));

        ck_assert_int_eq(egress_rule_next(made[1], &offset, &rule), 0);
        ck_assert_int_eq(rule.action, POLICY_ALLOW);
        ck_assert_int_eq(rule.protocol, POLICY_TCP);
        ck_assert(rule.is_domain);
        ck_assert_str_eq(rule.destination, "*.example.org");
        ck_assert_uint_eq(rule.n_ports, 2);
        ck_assert_mem_eq(rule.ports, allow.ports, 2 * sizeof(rule.ports[0]));
        ck_assert_int_eq(egress_rule_next(made[1], &offset, &rule), EGRESS_E_END);
        offset = 0;
        ck_assert_int_eq(egress_rule_next(made[2], &offset, &rule), 0);
        ck_assert_int_eq(rule.protocol, POLICY_UDP);
        ck_assert_mem_eq(rule.ports, most.ports, sizeof(most.ports));
        release_all();
}
END_TEST

static const char *const strange[] = {
        "",
        "deny",
        "deny tcp - cidr",
        "deny tcp - cidr ",
        "deny tcp - host 10.0.0.0/8",
        "deny sctp - cidr 10.0.0.0/8",
        " tcp - cidr 10.0.0.0/8",
        "drop tcp - cidr 10.0.0.0/8",
        "deny tcp  cidr 10.0.0.0/8",
        "deny tcp 1- cidr 10.0.0.0/8",
        "deny tcp 65536 cidr 10.0.0.0/8",
        "deny tcp 1,2,3,4,5,6,7,8,9 cidr 10.0.0.0/8",
};

START_TEST(what_is_no_rule_is_not_read_as_one)
{
        size_t n = strlen(strange[_i]) + 1, offset = 0;
        struct egress *egress = egress_new(n);
        struct egress_rule rule;

        (void)memcpy(egress->bytes, strange[_i], n);
        ck_assert_int_eq(egress_rule_next(egress, &offset, &rule), -EUCLEAN);
        (void)egress_release(egress);

        /* Without its NUL. */
        n = strlen("deny tcp - cidr ::");
        egress = egress_new(n);
        (void)memcpy(egress->bytes, "deny tcp - cidr ::", n);
        ck_assert_int_eq(egress_rule_next(egress, &offset, &rule), -EUCLEAN);
        (void)egress_release(egress);
}
END_TEST

static const struct {
        struct egress_rule rule;
        const char *text;
} shown[] = {
        { { .action = POLICY_DENY, .protocol = POLICY_TCP, .destination = "10.0.0.0/8" },
          "deny 10.0.0.0/8" },
        { { .action = POLICY_ALLOW,
            .protocol = POLICY_TCP,
            .is_domain = true,
            .destination = "*.example.org",
            .ports = { { 443, 443 }, { 8000, 8080 } },
            .n_ports = 2 },
          "allow *.example.org:443,8000-8080" },
        { { .action = POLICY_DENY, .protocol = POLICY_ICMP, .destination = "2001:db8::/32" },
          "deny icmp:2001:db8::/32" },
        { { .action = POLICY_DENY,
            .protocol = POLICY_UDP,
            .destination = "2001:db8::/32",
            .ports = { { 53, 53 } },
            .n_ports = 1 },
          "deny udp:[2001:db8::/32]:53" },
};

START_TEST(a_rule_is_shown_as_the_command_line_takes_it)
{
        char text[RULE_BUFFER];

        egress_rule_show(&shown[_i].rule, text);
        ck_assert_str_eq(text, shown[_i].text);
}
END_TEST

START_TEST(a_rule_that_is_too_long_is_cut_between_characters)
{
        struct egress_rule rule = { .action = POLICY_DENY, .protocol = POLICY_TCP };
        char name[2 * RULE_BUFFER] = "", text[RULE_BUFFER];

        rule.destination = name;
        for (size_t n_head = 0; n_head < 2; n_head++) {
                char *end = name;

                for (size_t i = 0; i < n_head; i++)
                        *end++ = 'a';
                for (size_t i = 0; i < RULE_BUFFER / 2; i++)
                        end = stpcpy(end, "\xc3\xbc");
                egress_rule_show(&rule, text);
                /* 5 before it, and an even number of bytes of it. */
                ck_assert_uint_eq(strlen(text), n_head ? 254 : 255);
                ck_assert_mem_eq(text + 5, name, strlen(text) - 5);
        }
        name[250] = '\0'; /* as long as may be: nothing is cut */
        name[249] = 'z';
        name[248] = 'z';
        egress_rule_show(&rule, text);
        ck_assert_uint_eq(strlen(text), 255);
        ck_assert_str_eq(text + 5, name);
}
END_TEST

START_TEST(a_rule_is_found_by_its_index)
{
        enum { N = 1000 };
        static struct egress_rule rules[N];
        static char names[N][32];
        struct egress *egress;
        struct egress_rule rule;

        for (size_t i = 0; i < N; i++) {
                (void)snprintf(names[i], sizeof(names[i]), "%0*zu.example", (int)(i % 9), i);
                rules[i] = allow;
                rules[i].destination = names[i];
        }
        egress = make_egress(POLICY_DEFAULT_DENY, rules, N);
        for (int64_t i = N - 1; i >= 0; i--) {
                ck_assert_int_eq(egress_rule_at(egress, i, &rule), 0);
                ck_assert_str_eq(rule.destination, names[i]);
        }
        ck_assert_int_eq(egress_rule_at(egress, N, &rule), EGRESS_E_END);
        ck_assert_int_eq(egress_rule_at(egress, -1, &rule), EGRESS_E_END);
        (void)egress_release(egress);
}
END_TEST

START_TEST(no_rule_is_found_in_what_has_fewer_than_it_says)
{
        static const char bytes[] = "deny tcp - cidr 10.0.0.0/8";
        struct egress *egress = egress_new(sizeof(bytes));
        struct egress_rule rule;

        (void)memcpy(egress->bytes, bytes, sizeof(bytes));
        egress->n_rules = 2;
        ck_assert_int_eq(egress_rule_at(egress, 0, &rule), -EUCLEAN);
        egress->n_rules = 1;
        ck_assert_int_eq(egress_rule_at(egress, 0, &rule), 0);
        (void)egress_release(egress);
        egress = egress_new(0); /* of a sandbox that ended */
        egress->n_rules = 1;
        ck_assert_int_eq(egress_rule_at(egress, 0, &rule), EGRESS_E_END);
        (void)egress_release(egress);
}
END_TEST

/* As executions have it that ended before rules were told. */
START_TEST(what_is_kept_may_have_no_rule)
{
        enum { HEAD = 7 * 8 + 6 * 4, TEXTS = 3 };
        uint8_t payload[HEAD + TEXTS + 5] = { 0 };
        struct egress_record record;
        int64_t left_out, number;

        ck_assert(egress_payload_read(payload, HEAD + TEXTS, &record, &left_out, &number));
        ck_assert_str_eq(record.rule, "");
        ck_assert(!egress_payload_read(payload, HEAD + TEXTS - 1, &record, &left_out, &number));
        memcpy(payload + HEAD + TEXTS, "deny", 5);
        ck_assert(egress_payload_read(payload, sizeof(payload), &record, &left_out, &number));
        ck_assert_str_eq(record.rule, "deny");
        ck_assert(!egress_payload_read(payload, sizeof(payload) - 1, &record, &left_out, &number));
}
END_TEST

int main(void)
{
        Suite *all = suite_create("egress");
        TCase *sessions = tcase_create("sessions");
        TCase *rules = tcase_create("rules");

        tcase_add_checked_fixture(sessions, fixture_setup, fixture_teardown);
        tcase_set_timeout(sessions, 60);
        tcase_add_test(sessions, what_allows_anything_is_refused_without_a_relay);
        tcase_add_test(sessions, what_only_denies_is_taken_without_a_relay);
        tcase_add_test(sessions, with_a_relay_all_are_taken);
        tcase_add_test(sessions, another_policy_is_another_version_and_the_same_is_not);
        tcase_add_test(sessions, a_policy_of_another_version_is_a_conflict);
        tcase_add_test(sessions, policies_are_replaced_one_at_a_time);
        tcase_add_test(sessions, bytes_of_rules_are_bounded_for_all_together);
        tcase_add_test(sessions, rules_are_shared_among_owners);
        tcase_add_test(sessions, a_policy_outlives_the_server);
        suite_add_tcase(all, sessions);
        tcase_add_test(rules, a_rule_is_packed_as_text_and_comes_back);
        tcase_add_loop_test(rules, what_is_no_rule_is_not_read_as_one, 0, ARRAY_SIZE(strange));
        tcase_add_loop_test(rules, a_rule_is_shown_as_the_command_line_takes_it, 0,
                            ARRAY_SIZE(shown));
        tcase_add_test(rules, a_rule_that_is_too_long_is_cut_between_characters);
        tcase_add_test(rules, a_rule_is_found_by_its_index);
        tcase_add_test(rules, what_is_kept_may_have_no_rule);
        tcase_add_test(rules, no_rule_is_found_in_what_has_fewer_than_it_says);
        suite_add_tcase(all, rules);
        return suite_main(all);
}
