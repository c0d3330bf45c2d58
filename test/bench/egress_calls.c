/* Policies of any number of rules, and the update of a sandbox to one. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "google/protobuf/field_mask.pb-c.h"
#include "hotcell/v1/egress.pb-c.h"
#include "hotcell/v1/sandbox_service.pb-c.h"

#include "cli/client.h"
#include "cli/memory.h"
#include "cli/message.h"
#include "test/bench/client.h"

enum { TIMEOUT_MSEC = 120 * 1000 };

/* Every rule that nobody uses is about another 256 public addresses, or another name. */
static char *filler(uint64_t i, bool is_domain)
{
        if (is_domain)
                return format_text("name%" PRIu64 ".filler.test", i);
        return format_text("%" PRIu64 ".%" PRIu64 ".%" PRIu64 ".0/24", 11 + (i >> 16),
                           (i >> 8) & 0xff, i & 0xff);
}

static Hotcell__V1__EgressRule *allow(char *destination, bool is_domain)
{
        Hotcell__V1__EgressRule *rule = message_new(&hotcell__v1__egress_rule__descriptor);

        rule->action = HOTCELL__V1__EGRESS_ACTION__EGRESS_ACTION_ALLOW;
        if (is_domain) {
                rule->destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_DOMAIN;
                rule->domain = destination;
        } else {
                rule->destination_case = HOTCELL__V1__EGRESS_RULE__DESTINATION_CIDR;
                rule->cidr = destination;
        }
        return rule;
}

Hotcell__V1__EgressPolicy *next_policy(char **arguments)
{
        Hotcell__V1__EgressPolicy *policy;
        uint64_t n_rules = next_number(arguments);
        const char *first = next_word(arguments);
        bool is_domain = strchr(first, '/') == NULL;

        if (n_rules == 0)
                return NULL;
        policy = message_new(&hotcell__v1__egress_policy__descriptor);
        policy->rules = reallocate(NULL, n_rules, sizeof(*policy->rules));
        policy->rules[policy->n_rules++] = allow(duplicate(first), is_domain);
        while (policy->n_rules < n_rules) {
                char *destination = filler(policy->n_rules, is_domain);

                policy->rules[policy->n_rules++] = allow(destination, is_domain);
        }
        return policy;
}

static void say_updated(const Hotcell__V1__UpdateSandboxResponse *answer, int64_t nanoseconds)
{
        const Hotcell__V1__EgressStatus *status = answer->sandbox->egress_status;

        if (!status || !status->enforced)
                (void)printf("error the policy was answered before it was in force\n");
        else
                (void)printf("ok %" PRId64 " %" PRId64 "\n", nanoseconds, status->policy_version);
}

void call_update(struct client *client, char *arguments)
{
        _cleanup_(message_freep) Hotcell__V1__UpdateSandboxRequest *request =
                message_new(&hotcell__v1__update_sandbox_request__descriptor);
        _cleanup_(message_freep) Hotcell__V1__UpdateSandboxResponse *answer = NULL;
        struct client_call *call;
        int64_t start, end;
        int r;

        message_set_text(&request->sandbox_id, next_word(&arguments));
        request->update_mask = message_new(&google__protobuf__field_mask__descriptor);
        request->update_mask->paths = reallocate(NULL, 1, sizeof(char *));
        request->update_mask->paths[request->update_mask->n_paths++] = duplicate("egress");
        request->egress = next_policy(&arguments);
        start = now_nsec();
        call = client_call_new(client, &hotcell__v1__sandbox_service__descriptor, "UpdateSandbox",
                               &request->base, TIMEOUT_MSEC);
        r = client_call_read(call, -1, &answer);
        end = now_nsec();

        if (r)
                say_failure(call, r);
        else
                say_updated(answer, end - start);
        drain(call);
        (void)client_call_free(call);
}
