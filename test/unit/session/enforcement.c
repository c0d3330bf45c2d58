#include "test/unit/session/enforcement.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "server/session/session_private.h"

/* What a killed server had in memory stays and is nobody's; see test_crashes.c. */
int __lsan_is_turned_off(void);
int __lsan_is_turned_off(void)
{
        return 1;
}

bool is_store_held;  /* the next change waits until store_go_on() */
unsigned n_failures; /* so many changes fail */
struct held_answer held_answer;
char sandbox_id[ID_BUFFER];

void __real_store_update_sandbox(struct store *store, const struct sandbox_record *record,
                                 enum sandbox_event event, store_on_done on_done, void *userdata);
void __wrap_store_update_sandbox(struct store *store, const struct sandbox_record *record,
                                 enum sandbox_event event, store_on_done on_done, void *userdata);
void __real_store_update_sandbox_for(struct store *store, const struct request_record *request,
                                     const struct sandbox_record *record, enum sandbox_event event,
                                     store_on_done on_done, void *userdata);
void __wrap_store_update_sandbox_for(struct store *store, const struct request_record *request,
                                     const struct sandbox_record *record, enum sandbox_event event,
                                     store_on_done on_done, void *userdata);

struct pauses pauses;

int __real_session_arm(struct session *session, sd_event_source **timer, uint64_t usec,
                       sd_event_time_handler_t handler, void *userdata);
int __wrap_session_arm(struct session *session, sd_event_source **timer, uint64_t usec,
                       sd_event_time_handler_t handler, void *userdata);

int __wrap_session_arm(struct session *session, sd_event_source **timer, uint64_t usec,
                       sd_event_time_handler_t handler, void *userdata)
{
        struct sandbox *sandbox = session_find_sandbox(session, NULL, sandbox_id);

        if (sandbox && timer == &sandbox->enforcement.retry) {
                ck_assert_uint_lt(pauses.n, PAUSES_MAX);
                pauses.sec[pauses.n++] = usec / 1000000;
                usec = pauses.are_short ? 1000 : usec;
        }
        return __real_session_arm(session, timer, usec, handler, userdata);
}

struct failure {
        sd_event_source *source;
        store_on_done on_done;
        void *userdata;
};

static int on_failure(sd_event_source *source, void *userdata)
{
        struct failure failure = *(struct failure *)userdata;

        (void)source;
        free(userdata);
        (void)sd_event_source_disable_unref(failure.source);
        failure.on_done(failure.userdata, -EIO);
        return 0;
}

static bool fails(store_on_done on_done, void *userdata)
{
        struct failure *failure;

        if (n_failures == 0)
                return false;
        n_failures--;
        failure = calloc(1, sizeof(*failure));
        failure->on_done = on_done;
        failure->userdata = userdata;
        ck_assert_int_ge(sd_event_add_defer(f.loop, &failure->source, on_failure, failure), 0);
        return true;
}

void __wrap_store_update_sandbox(struct store *store, const struct sandbox_record *record,
                                 enum sandbox_event event, store_on_done on_done, void *userdata)
{
        if (!fails(on_done, userdata))
                __real_store_update_sandbox(store, record, event, on_done, userdata);
}

static void on_held(void *userdata, int result)
{
        (void)userdata;
        held_answer.is_held = true;
        held_answer.result = result;
}

void __wrap_store_update_sandbox_for(struct store *store, const struct request_record *request,
                                     const struct sandbox_record *record, enum sandbox_event event,
                                     store_on_done on_done, void *userdata)
{
        if (fails(on_done, userdata))
                return;
        if (is_store_held) {
                is_store_held = false;
                held_answer.is_held = false;
                held_answer.on_done = on_done;
                held_answer.userdata = userdata;
                on_done = on_held;
        }
        __real_store_update_sandbox_for(store, request, record, event, on_done, userdata);
}

void store_go_on(void)
{
        held_answer.on_done(held_answer.userdata, held_answer.result);
}

static const struct egress_rule allow = { .action = POLICY_ALLOW,
                                          .protocol = POLICY_TCP,
                                          .destination = "192.0.2.0/24" };
static const struct egress_rule deny = { .action = POLICY_DENY,
                                         .protocol = POLICY_TCP,
                                         .destination = "192.0.2.0/24" };

struct egress *loose, *tight;

void set_up(void)
{
        is_store_held = false;
        n_failures = 0;
        pauses = (struct pauses){ 0 };
        fixture_setup();
        loose = make_egress(POLICY_DEFAULT_DENY, &allow, 1);
        tight = make_egress(POLICY_DEFAULT_DENY, &deny, 1);
}

void tear_down(void)
{
        fixture_teardown();
        loose = egress_release(loose);
        tight = egress_release(tight);
}

struct fake_egress_script *script(void)
{
        return fake_egress_script(f.egress);
}

void begin_creation(struct egress *egress, struct answer *answer)
{
        struct sandbox_request request = sandbox_request();

        *answer = (struct answer){ 0 };
        request.egress = egress;
        session_create_sandbox(f.session, &request, on_sandbox_answer, answer);
}

struct answer create_with(struct egress *egress)
{
        struct answer answer;

        begin_creation(egress, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

void make_sandbox(struct egress *egress)
{
        struct answer answer = create_with(egress);

        ck_assert_msg(answer.result.outcome == 0, "%s", answer.result.message);
        (void)strcpy(sandbox_id, answer.sandbox.sandbox_id);
        ck_assert_int_eq(answer.sandbox.enforcement.version, 1);
}

void begin_update(struct egress *egress, struct answer *answer)
{
        struct sandbox_update update = { .set_egress = true, .egress = egress };

        *answer = (struct answer){ 0 };
        session_update_sandbox(f.session, "uid:1", sandbox_id, &update, on_sandbox_answer, answer);
}

struct answer change_policy(struct egress *egress)
{
        struct answer answer;

        begin_update(egress, &answer);
        run_until_true(&answer.is_done);
        return answer;
}

bool is_held(void *userdata)
{
        return fake_egress_n_held(f.egress) >= *(const size_t *)userdata;
}

void wait_for_held(size_t n)
{
        run_until(is_held, &n);
}

bool is_in_force(void *userdata)
{
        const struct sandbox_record record = get_sandbox(userdata).sandbox;

        return record.enforcement.version == record.egress_version;
}

void wait_for_force(void)
{
        run_until(is_in_force, sandbox_id);
}

void begin_held_update(struct egress *egress, struct answer *answer)
{
        script()->hold = true;
        begin_update(egress, answer);
        wait_for_held(1);
}

void expect_policy(const struct egress *egress, int64_t version)
{
        const struct fake_policy *policy = fake_egress_policy(f.egress, sandbox_id);
        struct answer answer = get_sandbox(sandbox_id);

        ck_assert_int_eq(answer.sandbox.state, SANDBOX_RUNNING);
        ck_assert(egress_is_same(answer.sandbox.egress, egress));
        ck_assert_int_eq(answer.sandbox.egress_version, version);
        ck_assert_int_eq(answer.sandbox.enforcement.version, version);
        ck_assert_uint_eq(answer.sandbox.enforcement.n_program_ids, 2);
        ck_assert_ptr_nonnull(policy);
        ck_assert_int_eq(policy->version, version);
        ck_assert_uint_eq(policy->n_rules, egress ? 1 : 0);
        if (egress)
                ck_assert_mem_eq(policy->sha256, egress->sha256, 32);
}

static bool has_nothing(void *userdata)
{
        struct session_info info;

        (void)userdata;
        session_info(f.session, "uid:1", &info);
        return info.quotas[SESSION_SHARE_SANDBOXES].used == 0;
}

void expect_nothing_left(void)
{
        struct session_info info;

        run_until(has_nothing, NULL);
        session_info(f.session, "uid:1", &info);
        ck_assert_uint_eq(fake_runtime_n_sandboxes(f.runtime), 0);
        ck_assert_uint_eq(info.sandboxes_active, 0);
        for (size_t i = 0; i < _SESSION_SHARE_N; i++)
                ck_assert_int_eq(info.quotas[i].used, 0);
}

void restart_with_patience(int64_t usec)
{
        f.config.egress_answer_usec = usec;
        start_with_egress();
}

const struct refusal refusals[REFUSALS] = {
        { REASON(INVALID), SESSION_E_EGRESS },
        { REASON(NOT_FOUND), SESSION_E_EGRESS },
        { REASON(TOO_COMPLEX), SESSION_E_RULE_TOO_COMPLEX },
        { REASON(EXHAUSTED), SESSION_E_EGRESS },
        { REASON(NOT_PROVEN), SESSION_E_EGRESS },
};
