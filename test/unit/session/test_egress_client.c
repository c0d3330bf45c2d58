/* The connection to hotcell-egress: what is asked, what is answered, and what makes no sense. */
#include <check.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "runtime/base/macros.h"
#include "server/session/egress_client.h"
#include "server/session/egress_file.h"
#include "test/lib/suite.h"
#include "test/unit/session/egress_client.h"
#include "test/unit/session/fixture.h"

#define REASON(name) HOTCELL__EGRESS__V1__FAILURE_REASON__FAILURE_REASON_##name

/* --- policies --- */

START_TEST(the_default_policy_goes_without_a_file)
{
        const struct fake_policy *policy;

        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        ck_assert_uint_eq(outcomes[0].enforced.n_program_ids, 2);
        ck_assert_uint_eq(outcomes[0].enforced.program_ids[1], 12);
        policy = fake_egress_policy(egress, "sbx-a");
        ck_assert_int_eq(policy->version, 1);
        ck_assert_int_eq(policy->default_action, POLICY_DEFAULT_DENY);
        ck_assert_uint_eq(policy->n_bytes, 0);
}
END_TEST

START_TEST(rules_go_in_a_sealed_file_in_their_order_and_in_one_form)
{
        const struct egress_rule rules[] = {
                { .action = POLICY_ALLOW,
                  .protocol = POLICY_TCP,
                  .is_domain = true,
                  .destination = "*.BÜCHER.example.",
                  .ports = { { 443, 443 }, { 8000, 8080 } },
                  .n_ports = 2 },
                { .action = POLICY_DENY, .protocol = POLICY_TCP, .destination = "10.0.0.0/8" },
                { .action = POLICY_ALLOW, .protocol = POLICY_TCP, .destination = "2001:DB8::1" },
                { .action = POLICY_DENY,
                  .protocol = POLICY_UDP,
                  .destination = "10.0.0.0/8",
                  .ports = { { 53, 53 } },
                  .n_ports = 1 },
                { .action = POLICY_ALLOW, .protocol = POLICY_ICMP, .destination = "10.0.0.0/8" },
        };
        struct egress *policy = make_egress(POLICY_DEFAULT_ALLOW_PUBLIC, rules, ARRAY_SIZE(rules));
        struct egress_request *request;
        const struct fake_policy *set;

        ck_assert_int_eq(ask(0, policy, &request), 0);
        wait_for_outcomes(1);
        set = fake_egress_policy(egress, "sbx-a");
        ck_assert(set->is_sealed);
        ck_assert_int_eq(set->default_action, POLICY_DEFAULT_ALLOW_PUBLIC);
        ck_assert_uint_eq(set->n_rules, 5);
        ck_assert_str_eq(fake_egress_rule(egress, 0),
                         "allow *.xn--bcher-kva.example 443-443,8000-8080");
        ck_assert_str_eq(fake_egress_rule(egress, 1), "deny 10.0.0.0/8");
        ck_assert_str_eq(fake_egress_rule(egress, 2), "allow 2001:db8::1/128");
        ck_assert_str_eq(fake_egress_rule(egress, 3), "deny udp 10.0.0.0/8 53-53");
        ck_assert_str_eq(fake_egress_rule(egress, 4), "allow icmp 10.0.0.0/8");
        /* What is in force means what was asked for. */
        ck_assert_mem_eq(outcomes[0].enforced.sha256, policy->sha256, 32);
        (void)egress_release(policy);
}
END_TEST

START_TEST(as_many_rules_as_there_may_be_fit)
{
        enum { N = POLICY_RULES_MAX };
        static char names[N][254];
        struct egress_rule *rules = calloc(N, sizeof(*rules));
        struct egress_request *request;
        struct egress *policy;

        for (size_t i = 0; i < N; i++) {
                char *name = names[i];

                memset(name, 'a', 253);
                name[253] = '\0';
                name[63] = name[127] = name[191] = '.';
                (void)snprintf(name, 7, "n%05zu", i);
                name[6] = 'x';
                rules[i] = (struct egress_rule){ .action = POLICY_ALLOW,
                                                 .protocol = POLICY_TCP,
                                                 .is_domain = true,
                                                 .destination = name,
                                                 .n_ports = POLICY_PORTS_MAX };
                for (size_t k = 0; k < POLICY_PORTS_MAX; k++)
                        rules[i].ports[k] = (struct policy_ports){ (uint16_t)(60000 + 2 * k),
                                                                   (uint16_t)(60000 + 2 * k) };
        }
        policy = make_egress(POLICY_DEFAULT_DENY, rules, N);
        ck_assert_int_eq(ask(0, policy, &request), 0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        ck_assert_mem_eq(outcomes[0].enforced.sha256, policy->sha256, 32);
        ck_assert_uint_le(fake_egress_policy(egress, "sbx-a")->n_bytes, EGRESS_FILE_MAX);
        (void)egress_release(policy);
        free(rules);
}
END_TEST

/* Of the database, when it was tampered with. */
START_TEST(what_is_no_policy_is_not_asked_for)
{
        static const struct {
                const char *text;
                int64_t n_rules;
        } bad[] = { { "allow tcp - cidr 10.0.0.1/8", 1 },
                    { "allow tcp - domain 10.0.0.1", 1 },
                    { "allow icmp 53 cidr 10.0.0.0/8", 1 },
                    { "allow tcp - cidr 10.0.0.0/8", 2 },
                    { "allow icmp - domain a.b", 1 },
                    { "allow udp 53 domain a.b", 1 },
                    { "nonsense", 1 } };
        struct egress_request *request;

        for (size_t i = 0; i < ARRAY_SIZE(bad); i++) {
                struct egress *policy = egress_new(strlen(bad[i].text) + 1);

                (void)strcpy(policy->bytes, bad[i].text);
                policy->n_rules = bad[i].n_rules;
                ck_assert_int_eq(ask(0, policy, &request), -EUCLEAN);
                (void)egress_release(policy);
        }
        run_turns(4);
        ck_assert_uint_eq(fake_egress_n_requests(egress), 0);
}
END_TEST

/* --- answers --- */

START_TEST(answers_in_any_order_find_their_request)
{
        fake_egress_script(egress)->hold = true;
        for (unsigned i = 0; i < 3; i++)
                ask_surely(i);
        run_turns(8);
        ck_assert_uint_eq(fake_egress_n_held(egress), 3);
        fake_egress_script(egress)->hold = false;
        ask_surely(3);
        wait_for_outcomes(1);
        ck_assert_uint_eq(outcomes[0].tag, 3);
        fake_egress_release(egress);
        wait_for_outcomes(4);
        ck_assert_uint_eq(outcomes[1].tag, 0);
        ck_assert_uint_eq(outcomes[3].tag, 2);
}
END_TEST

static const struct {
        int reason;
        enum egress_result result;
} refusals[] = {
        { REASON(INVALID), EGRESS_E_REFUSED },         { REASON(NOT_FOUND), EGRESS_E_REFUSED },
        { REASON(EXHAUSTED), EGRESS_E_REFUSED },       { REASON(NOT_PROVEN), EGRESS_E_NOT_PROVEN },
        { REASON(TOO_COMPLEX), EGRESS_E_TOO_COMPLEX }, { 4711, EGRESS_E_REFUSED },
};

START_TEST(a_refusal_is_told_with_its_sentence)
{
        fake_egress_script(egress)->fail = refusals[_i].reason;
        fake_egress_script(egress)->message = "rule 7\n\x1b[2J \xff";
        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, refusals[_i].result);
        ck_assert_str_eq(outcomes[0].message, "rule 7  [2J ?");
        ck_assert(egress_client_is_connected(client));
}
END_TEST

START_TEST(a_long_sentence_is_cut_between_characters)
{
        static char text[2000];

        for (size_t i = 1; i + 2 < sizeof(text); i += 2)
                memcpy(text + i, "\xC3\xA4", 2);
        text[0] = 'x';
        fake_egress_script(egress)->fail = REASON(INVALID);
        fake_egress_script(egress)->message = text;
        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_uint_eq(strlen(outcomes[0].message), 159);
        ck_assert_mem_eq(outcomes[0].message, text, 159);
}
END_TEST

START_TEST(a_peer_that_is_there_says_so)
{
        struct egress_request *request;

        ck_assert_int_eq(ping(0, &request), 0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        fake_egress_disconnect(egress);
        run_turns(4);
        ck_assert_int_eq(ping(0, &request), EGRESS_CLIENT_E_DISCONNECTED);
}
END_TEST

START_TEST(a_peer_that_hangs_does_not_say_that_it_is_there)
{
        struct egress_request *request;

        fake_egress_script(egress)->hold = true;
        ck_assert_int_eq(ping(0, &request), 0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_SILENT);
}
END_TEST

START_TEST(whoever_waits_for_too_long_is_told_so)
{
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        ask_surely(1);
        wait_for_outcomes(2);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_SILENT);
        ck_assert_int_eq(outcomes[1].result, EGRESS_E_SILENT);
        ck_assert(egress_client_is_connected(client));

        /* Its answer comes nevertheless, and is nobody's. */
        fake_egress_release(egress);
        ask_surely(2);
        wait_for_outcomes(3);
        ck_assert_uint_eq(outcomes[2].tag, 2);
        ck_assert_int_eq(outcomes[2].result, EGRESS_ENFORCED);
}
END_TEST

static void on_synced(void *userdata, const struct egress_answer *answer)
{
        *(enum egress_result *)userdata = answer->result;
}

static bool is_silent(void *userdata)
{
        return *(const enum egress_result *)userdata == EGRESS_E_SILENT;
}

/* A sync waits for a fraction of a second, behind whatever is waited for longer. */
START_TEST(a_sync_does_not_wait_as_long_as_a_policy)
{
        enum egress_result result = EGRESS_SYNCED;
        struct egress_request *request;

        fake_egress_script(egress)->hold = true;
        fake_egress_script(egress)->hold_syncs = true;
        ask_surely(0);
        ck_assert_int_eq(egress_client_sync(client, "sbx-a", on_synced, &result, &request), 0);
        run_until(is_silent, &result);
        ck_assert_uint_eq(n_outcomes, 0);
        /* One that is busy is not asked again before it has answered. */
        ck_assert_int_eq(egress_client_sync(client, "sbx-a", on_synced, &result, &request),
                         EGRESS_CLIENT_E_BUSY);
        fake_egress_release_syncs(egress);
        run_turns(8);
        ck_assert_int_eq(egress_client_sync(client, "sbx-a", on_synced, &result, &request), 0);
}
END_TEST

/* Each execution that ends asks for one. */
START_TEST(syncs_leave_room_for_policies)
{
        static enum egress_result result;
        struct egress_request *request;
        unsigned n = 0;

        while (egress_client_sync(client, "sbx-a", on_synced, &result, &request) == 0)
                n++;
        ck_assert_uint_eq(n, EGRESS_REQUESTS_MAX / 2);
        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
}
END_TEST

START_TEST(what_nobody_waits_for_is_not_answered)
{
        struct egress_request *request;

        fake_egress_script(egress)->hold = true;
        ck_assert_int_eq(ask(0, NULL, &request), 0);
        ask_surely(1);
        request = egress_request_free(request);
        ck_assert_ptr_null(request);
        run_turns(8);
        ck_assert_uint_eq(fake_egress_n_held(egress), 2);
        fake_egress_release(egress);
        wait_for_outcomes(1);
        ck_assert_uint_eq(outcomes[0].tag, 1);
        ck_assert(egress_client_is_connected(client));
}
END_TEST

/* Nothing is read: what fits the socket is sent, and the rest waits, up to the bound. */
START_TEST(a_peer_that_hangs_is_not_asked_without_bound)
{
        struct egress_request *request, *first = NULL;
        unsigned n = 0;
        int r;

        fake_egress_script(egress)->deaf = true;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        ck_assert_uint_eq(n_lost, 1);
        while ((r = ask(n, NULL, &request)) == 0) {
                if (n++ == 0)
                        first = request;
        }
        ck_assert_int_eq(r, EGRESS_CLIENT_E_BUSY);
        ck_assert_uint_eq(n, EGRESS_REQUESTS_MAX);
        ck_assert_ptr_null(egress_request_free(first)); /* was sent: it still counts */
        ck_assert_int_eq(ask(n, NULL, &request), EGRESS_CLIENT_E_BUSY);

        wait_for_outcomes(n - 1);
        ck_assert_int_eq(outcomes[n - 2].result, EGRESS_E_SILENT);
        /* Those that were never sent are gone, the others are waited for. */
        n_outcomes = 0;
        fake_egress_listen(egress);
        ask_surely(0);
        wait_for_outcomes(1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_ENFORCED);
        ck_assert_uint_lt(fake_egress_n_requests(egress), EGRESS_REQUESTS_MAX);
}
END_TEST

START_TEST(what_did_not_fit_the_socket_is_sent_later_and_in_order)
{
        fake_egress_script(egress)->deaf = true;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++)
                ask_surely(i);
        fake_egress_listen(egress);
        wait_for_outcomes(EGRESS_REQUESTS_MAX);
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++) {
                ck_assert_int_eq(outcomes[i].result, EGRESS_ENFORCED);
                ck_assert_uint_eq(outcomes[i].tag, i);
        }
        ck_assert_int_eq(fake_egress_policy(egress, "sbx-a")->version, EGRESS_REQUESTS_MAX);
}
END_TEST

/* --- losses --- */

START_TEST(a_loss_is_told_to_all_who_wait)
{
        struct egress_request *request;

        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        ask_surely(1);
        run_turns(8);
        fake_egress_disconnect(egress);
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, 2);
        ck_assert_int_eq(outcomes[1].result, EGRESS_E_LOST);
        ck_assert_uint_eq(n_lost, 1);
        ck_assert_int_eq(ask(2, NULL, &request), EGRESS_CLIENT_E_DISCONNECTED);

        fake_egress_script(egress)->hold = false;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        ck_assert_uint_eq(n_lost, 1);
        ask_surely(3);
        wait_for_outcomes(3);
        ck_assert_int_eq(outcomes[2].result, EGRESS_ENFORCED);
}
END_TEST

START_TEST(another_connection_takes_the_place_of_the_first)
{
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        run_turns(4);
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        ck_assert_uint_eq(n_outcomes, 1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
        ck_assert_uint_eq(n_lost, 1);
        ck_assert(egress_client_is_connected(client));
}
END_TEST

/* Of a socket that is good for nothing. */
START_TEST(a_wrong_descriptor_is_a_loss)
{
        int ends[2];

        ck_assert_int_eq(pipe(ends), 0);
        (void)close(ends[1]);
        egress_client_connect(client, ends[0]);
        n_lost = 0;
        wait_for_loss();
}
END_TEST

/* --- what makes no sense --- */

static void say(uint64_t request, Hotcell__Egress__V1__ToServer__BodyCase body_case, void *body)
{
        Hotcell__Egress__V1__ToServer message;

        hotcell__egress__v1__to_server__init(&message);
        message.request = request;
        message.body_case = body_case;
        message.events = body;
        fake_egress_say(egress, &message);
}

START_TEST(bytes_that_are_no_message_end_the_connection)
{
        static const char garbage[] = "\xff\xff\xff\xff nonsense";

        ask_surely(0);
        fake_egress_send(egress, garbage, sizeof(garbage));
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, 1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
}
END_TEST

START_TEST(a_packet_that_is_too_large_ends_the_connection)
{
        static uint8_t bytes[(128 << 10) + 1];

        fake_egress_send(egress, bytes, sizeof(bytes));
        wait_for_loss();
}
END_TEST

START_TEST(an_answer_to_nothing_ends_the_connection)
{
        Hotcell__Egress__V1__Failure failure;

        hotcell__egress__v1__failure__init(&failure);
        say(4711, HOTCELL__EGRESS__V1__TO_SERVER__BODY_FAILURE, &failure);
        wait_for_loss();
}
END_TEST

START_TEST(an_answer_to_what_was_not_sent_ends_the_connection)
{
        Hotcell__Egress__V1__Failure failure;

        fake_egress_script(egress)->deaf = true;
        egress_client_connect(client, fake_egress_connect(egress, f.loop));
        n_lost = 0;
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++)
                ask_surely(i);
        hotcell__egress__v1__failure__init(&failure);
        say(EGRESS_REQUESTS_MAX, HOTCELL__EGRESS__V1__TO_SERVER__BODY_FAILURE, &failure);
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, EGRESS_REQUESTS_MAX);
        for (unsigned i = 0; i < EGRESS_REQUESTS_MAX; i++)
                ck_assert_int_eq(outcomes[i].result, EGRESS_E_LOST);
}
END_TEST

START_TEST(a_message_without_a_body_ends_the_connection)
{
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        run_turns(4);
        say(1, HOTCELL__EGRESS__V1__TO_SERVER__BODY__NOT_SET, NULL);
        wait_for_loss();
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
}
END_TEST

START_TEST(events_as_an_answer_end_the_connection)
{
        Hotcell__Egress__V1__Events list;

        hotcell__egress__v1__events__init(&list);
        fake_egress_script(egress)->hold = true;
        ask_surely(0);
        run_turns(4);
        say(1, HOTCELL__EGRESS__V1__TO_SERVER__BODY_EVENTS, &list);
        wait_for_loss();
}
END_TEST

START_TEST(an_answer_of_the_wrong_size_ends_the_connection)
{
        if (_i < 2)
                fake_egress_script(egress)->n_digest = _i ? 33 - 2 : 20;
        else
                fake_egress_script(egress)->n_program_ids = EGRESS_PROGRAMS_MAX + 1;
        ask_surely(0);
        wait_for_loss();
        ck_assert_uint_eq(n_outcomes, 1);
        ck_assert_int_eq(outcomes[0].result, EGRESS_E_LOST);
}
END_TEST

int main(void)
{
        Suite *suite = suite_create("egress_client");
        TCase *tests = tcase_create("egress_client"), *impatient = tcase_create("impatient");

        tcase_set_timeout(tests, 60);
        tcase_set_timeout(impatient, 60);
        tcase_add_checked_fixture(tests, set_up, tear_down);
        tcase_add_checked_fixture(impatient, set_up_impatient, tear_down);
        tcase_add_test(tests, the_default_policy_goes_without_a_file);
        tcase_add_test(tests, rules_go_in_a_sealed_file_in_their_order_and_in_one_form);
        tcase_add_test(tests, as_many_rules_as_there_may_be_fit);
        tcase_add_test(tests, what_is_no_policy_is_not_asked_for);
        tcase_add_test(tests, answers_in_any_order_find_their_request);
        tcase_add_loop_test(tests, a_refusal_is_told_with_its_sentence, 0, ARRAY_SIZE(refusals));
        tcase_add_test(tests, a_long_sentence_is_cut_between_characters);
        tcase_add_test(tests, a_peer_that_is_there_says_so);
        tcase_add_test(impatient, a_peer_that_hangs_does_not_say_that_it_is_there);
        tcase_add_test(impatient, whoever_waits_for_too_long_is_told_so);
        tcase_add_test(tests, a_sync_does_not_wait_as_long_as_a_policy);
        tcase_add_test(tests, syncs_leave_room_for_policies);
        tcase_add_test(tests, what_nobody_waits_for_is_not_answered);
        tcase_add_test(impatient, a_peer_that_hangs_is_not_asked_without_bound);
        tcase_add_test(tests, what_did_not_fit_the_socket_is_sent_later_and_in_order);
        tcase_add_test(tests, a_loss_is_told_to_all_who_wait);
        tcase_add_test(tests, another_connection_takes_the_place_of_the_first);
        tcase_add_test(tests, a_wrong_descriptor_is_a_loss);
        tcase_add_test(tests, bytes_that_are_no_message_end_the_connection);
        tcase_add_test(tests, a_packet_that_is_too_large_ends_the_connection);
        tcase_add_test(tests, an_answer_to_nothing_ends_the_connection);
        tcase_add_test(tests, an_answer_to_what_was_not_sent_ends_the_connection);
        tcase_add_test(tests, a_message_without_a_body_ends_the_connection);
        tcase_add_test(tests, events_as_an_answer_end_the_connection);
        tcase_add_loop_test(tests, an_answer_of_the_wrong_size_ends_the_connection, 0, 3);
        suite_add_tcase(suite, tests);
        suite_add_tcase(suite, impatient);
        return suite_main(suite);
}
