/*
 * The server's text is shown to people only after escape_line(), and never without bound: it may
 * repeat what a stranger wrote.
 */
#include "cli/error.h"

#include <stdbool.h>
#include <string.h>

#include "google/rpc/error_details.pb-c.h"
#include "google/rpc/status.pb-c.h"

#include "cli/escape.h"
#include "cli/field_flag.h"
#include "cli/memory.h"
#include "runtime/base/macros.h"

enum {
        DETAILS_BYTES_MAX = 16 * 1024,
        DETAILS_MAX = 16,
        VIOLATIONS_MAX = 32,
        TEXT_MAX = 1000,
};

static const struct {
        int code;
        const char *name;
} code_names[] = {
        { RPC_CANCELLED, "cancelled" },
        { RPC_UNKNOWN, "unknown error" },
        { 3, "invalid argument" },
        { RPC_DEADLINE_EXCEEDED, "no answer in time" },
        { RPC_NOT_FOUND, "not found" },
        { 6, "already exists" },
        { RPC_PERMISSION_DENIED, "permission denied" },
        { RPC_RESOURCE_EXHAUSTED, "a limit is reached" },
        { RPC_FAILED_PRECONDITION, "not possible in this state" },
        { 10, "aborted" },
        { 11, "out of range" },
        { RPC_UNIMPLEMENTED, "this server cannot do that" },
        { RPC_INTERNAL, "internal error of the server" },
        { RPC_UNAVAILABLE, "the server is not available" },
        { RPC_UNAUTHENTICATED, "not authenticated" },
};

/* The next step: by reason, then by code. */
static const struct {
        int code;
        const char *reason; /* NULL: any */
        const char *hint;
} hints[] = {
        { 0, "API_KEY_INVALID",
          "`hotcell key ls` on the server's machine shows which keys are good" },
        { 0, "CONTEXT_LIMIT", "`hotcell context rm` deletes those that are no longer needed" },
        { 0, "CONTEXT_NOT_FOUND", "`hotcell context ls SANDBOX` shows its contexts" },
        { 0, "EXECUTION_NOT_FOUND", "`hotcell ps -a` shows yours" },
        { 0, "KEY_EXPIRED",
          "`hotcell key create NAME --owner KEY` on the server's machine makes one that goes on as its owner" },
        { 0, "KEY_NOT_FOUND", "`hotcell key ls` shows them" },
        { 0, "KEY_REVOKED", "`hotcell key ls` on the server's machine shows which keys are good" },
        { 0, "LIMIT_OUT_OF_RANGE", "`hotcell version` shows the highest limits and the defaults" },
        { 0, "NAME_IN_USE",
          "`hotcell sandbox ls` and `hotcell key ls` show who has it; for a sandbox --get-or-create takes that one" },
        { 0, "OPERATOR_ONLY", "as root, over the server's unix socket, it works" },
        { 0, "QUEUE_FULL",
          "`hotcell ps` shows what waits; `hotcell context create` makes another" },
        { 0, "RUNTIME_UNAVAILABLE", "`hotcell doctor` shows what is missing" },
        { 0, "SANDBOX_ENDED",
          "`hotcell sandbox inspect` says why; `hotcell sandbox create` makes a new one" },
        { 0, "SANDBOX_LIMIT", "`hotcell sandbox rm` ends those that are no longer needed" },
        { 0, "SCOPE_MISSING",
          "`hotcell key ls` on the server's machine shows the scopes of keys; a key keeps those that it was made with" },
        { 0, "SANDBOX_NOT_FOUND", "`hotcell sandbox ls -a` shows yours" },
        { 0, "UNKNOWN_LANGUAGE", "`hotcell version` lists the languages of each template" },
        { 0, "UNKNOWN_TEMPLATE", "`hotcell version` lists the templates" },
        { 0, "EGRESS_UNAVAILABLE", "`hotcell doctor` shows what is wrong with the egress wall" },
        { 0, "WALL_MISSING", "`hotcell doctor` shows which wall is missing and how to mend it" },
        { 0, "WATCH_TOKEN_EXPIRED",
          "`hotcell sandbox ls` shows what is there; watch without --after" },
        { RPC_DEADLINE_EXCEEDED, NULL,
          "the server is there but did not answer in time, and may still do it: `hotcell doctor` shows what it lacks" },
        { RPC_UNAUTHENTICATED, NULL,
          "set HOTCELL_API_KEY or --api-key-file; `hotcell key create NAME` on the server's machine makes a key" },
        { RPC_UNIMPLEMENTED, NULL, "client and server differ; see `hotcell version`" },
};

void rpc_error_init(struct rpc_error *error, int code, const char *message, const void *details,
                    size_t n_details)
{
        *error = (struct rpc_error){ .code = code, .message = duplicate(message) };
        if (n_details > 0 && n_details <= DETAILS_BYTES_MAX)
                error->status = google__rpc__status__unpack(NULL, n_details, details);
}

void rpc_error_deinit(struct rpc_error *error)
{
        free(error->message);
        google__rpc__status__free_unpacked(error->status, NULL);
        *error = (struct rpc_error){ 0 };
}

/* Unpacks a detail if it is of @descriptor's type, else NULL. */
static void *detail_unpack(const Google__Protobuf__Any *any,
                           const ProtobufCMessageDescriptor *descriptor)
{
        const char *slash = strrchr(any->type_url, '/');

        if (strcmp(slash ? slash + 1 : any->type_url, descriptor->name) != 0)
                return NULL;
        return protobuf_c_message_unpack(descriptor, NULL, any->value.len, any->value.data);
}

static void message_freep(void *message)
{
        protobuf_c_message_free_unpacked(*(ProtobufCMessage **)message, NULL);
}

static size_t n_details(const struct rpc_error *error)
{
        return error->status ? MIN(error->status->n_details, (size_t)DETAILS_MAX) : 0;
}

char *rpc_error_reason(const struct rpc_error *error)
{
        for (size_t i = 0; i < n_details(error); i++) {
                _cleanup_(message_freep) Google__Rpc__ErrorInfo *info = detail_unpack(
                        error->status->details[i], &google__rpc__error_info__descriptor);

                if (info && *info->reason)
                        return duplicate(info->reason);
        }
        return NULL;
}

/* `  label: text`, or nothing when @text is empty. */
static void print_line(FILE *out, const char *label, const char *text)
{
        _cleanup_(freep) char *cut = format_text("%.*s", TEXT_MAX, text);
        _cleanup_(freep) char *label_line = escape_line(label);
        _cleanup_(freep) char *line = escape_line(cut);

        if (*line)
                (void)fprintf(out, "  %s: %s\n", label_line, line);
}

/* The server's sentence is most often the first field's. */
static bool is_headline(const struct rpc_error *error,
                        const Google__Rpc__BadRequest__FieldViolation *violation)
{
        _cleanup_(freep) char *sentence =
                format_text("%s %s", violation->field, violation->description);

        return strcmp(error->message, sentence) == 0;
}

static void print_bad_request(FILE *out, const struct rpc_error *error,
                              const Google__Protobuf__Any *any)
{
        _cleanup_(message_freep) Google__Rpc__BadRequest *bad =
                detail_unpack(any, &google__rpc__bad_request__descriptor);

        for (size_t i = 0; bad && i < MIN(bad->n_field_violations, (size_t)VIOLATIONS_MAX); i++) {
                const char *field = bad->field_violations[i]->field;
                const char *flag = field_flag(field);
                _cleanup_(freep) char *label =
                        flag ? format_text("%s (%s)", flag, field) : duplicate(field);
                _cleanup_(freep) char *cut =
                        format_text("%.*s", TEXT_MAX, bad->field_violations[i]->description);
                _cleanup_(freep) char *description = field_flags_in(cut);

                if (!is_headline(error, bad->field_violations[i]))
                        print_line(out, label, description);
        }
}

static bool has_bad_field(const struct rpc_error *error, const char *field)
{
        for (size_t i = 0; i < n_details(error); i++) {
                _cleanup_(message_freep) Google__Rpc__BadRequest *bad = detail_unpack(
                        error->status->details[i], &google__rpc__bad_request__descriptor);

                for (size_t j = 0; bad && j < MIN(bad->n_field_violations, (size_t)VIOLATIONS_MAX);
                     j++) {
                        if (strcmp(bad->field_violations[j]->field, field) == 0)
                                return true;
                }
        }
        return false;
}

/* Without the message, which stands above it already. */
static char *describe_violation(const char *description, const char *message)
{
        const char *repeated = *message ? strstr(description, message) : NULL;
        size_t n = repeated ? (size_t)(repeated - description) : strlen(description);

        while (repeated && n > 0 && strchr(": ", description[n - 1]))
                n--;
        return format_text("%.*s", (int)n, description);
}

static void print_quota(FILE *out, const struct rpc_error *error, const Google__Protobuf__Any *any)
{
        _cleanup_(message_freep) Google__Rpc__QuotaFailure *quota =
                detail_unpack(any, &google__rpc__quota_failure__descriptor);

        for (size_t i = 0; quota && i < MIN(quota->n_violations, (size_t)VIOLATIONS_MAX); i++) {
                _cleanup_(freep) char *text =
                        describe_violation(quota->violations[i]->description, error->message);

                print_line(out,
                           *quota->violations[i]->subject ? quota->violations[i]->subject : "quota",
                           *text ? text : "as above");
        }
}

static void print_precondition(FILE *out, const Google__Protobuf__Any *any)
{
        _cleanup_(message_freep) Google__Rpc__PreconditionFailure *failure =
                detail_unpack(any, &google__rpc__precondition_failure__descriptor);

        for (size_t i = 0; failure && i < MIN(failure->n_violations, (size_t)VIOLATIONS_MAX); i++)
                print_line(out,
                           *failure->violations[i]->subject ? failure->violations[i]->subject
                                                            : "precondition",
                           failure->violations[i]->description);
}

static void print_resource(FILE *out, const Google__Protobuf__Any *any)
{
        _cleanup_(message_freep) Google__Rpc__ResourceInfo *resource =
                detail_unpack(any, &google__rpc__resource_info__descriptor);
        _cleanup_(freep) char *label = NULL;

        if (!resource || !*resource->resource_name)
                return;
        label = duplicate(*resource->resource_type ? resource->resource_type : "resource");
        print_line(out, label, resource->resource_name);
}

static void print_retry(FILE *out, const Google__Protobuf__Any *any)
{
        _cleanup_(message_freep) Google__Rpc__RetryInfo *retry =
                detail_unpack(any, &google__rpc__retry_info__descriptor);
        double seconds;

        if (!retry || !retry->retry_delay)
                return;
        seconds = (double)retry->retry_delay->seconds + retry->retry_delay->nanos / 1e9;
        (void)fprintf(out, "  try again in: %.3g s\n", seconds);
}

/* `hotcell version` tells the highest limits of sandboxes and executions, and of their times. */
static bool is_of_version(const struct rpc_error *error)
{
        static const char *const words[] = { "limits.", "ttl", "idle_timeout" };

        for (size_t i = 0; i < n_details(error); i++) {
                _cleanup_(message_freep) Google__Rpc__BadRequest *bad = detail_unpack(
                        error->status->details[i], &google__rpc__bad_request__descriptor);

                for (size_t j = 0; bad && j < bad->n_field_violations; j++)
                        for (size_t k = 0; k < ARRAY_SIZE(words); k++)
                                if (strstr(bad->field_violations[j]->field, words[k]))
                                        return true;
        }
        return false;
}

static void print_hint(FILE *out, const struct rpc_error *error, const char *reason)
{
        if (reason && strcmp(reason, "LIMIT_OUT_OF_RANGE") == 0 && !is_of_version(error))
                return;
        for (size_t i = 0; i < ARRAY_SIZE(hints); i++) {
                if (hints[i].reason ? !reason || strcmp(hints[i].reason, reason) != 0
                                    : hints[i].code != error->code)
                        continue;
                (void)fprintf(out, "  hint: %s\n", hints[i].hint);
                return;
        }
}

static const char *code_name(int code)
{
        for (size_t i = 0; i < ARRAY_SIZE(code_names); i++) {
                if (code_names[i].code == code)
                        return code_names[i].name;
        }
        return "unknown error";
}

/* Its message names a limit as the API calls it. */
static bool is_about_limits(const struct rpc_error *error)
{
        static const char *const reasons[] = { "CPU_LIMIT", "LIMIT_NOT_POSSIBLE", "MEMORY_LIMIT" };
        _cleanup_(freep) char *reason = rpc_error_reason(error);

        for (size_t i = 0; reason && i < ARRAY_SIZE(reasons); i++)
                if (strcmp(reason, reasons[i]) == 0)
                        return true;
        return false;
}

/* The server's sentence often begins with the field at fault: then with the flag in its place. */
static char *message_text(const struct rpc_error *error)
{
        size_t n_field = strcspn(error->message, " ");
        _cleanup_(freep) char *field =
                format_text("%.*s", (int)MIN(n_field, (size_t)TEXT_MAX), error->message);
        const char *flag = error->message[n_field] == ' ' && has_bad_field(error, field)
                                   ? field_flag(field)
                                   : NULL;
        _cleanup_(freep) char *rest = NULL;
        _cleanup_(freep) char *cut = NULL;

        if (!flag) {
                cut = format_text("%.*s", 4 * TEXT_MAX, error->message);
                return is_about_limits(error) ? field_flags_in(cut) : take(cut);
        }
        cut = format_text("%.*s", 4 * TEXT_MAX, error->message + n_field);
        rest = field_flags_in(cut);
        return format_text("%s%s%s", flag, field_subject(field), rest);
}

void rpc_error_print(const struct rpc_error *error, FILE *out)
{
        _cleanup_(freep) char *reason = rpc_error_reason(error);
        _cleanup_(freep) char *cut = message_text(error);
        _cleanup_(freep) char *message = escape_line(*cut ? cut : code_name(error->code));

        (void)fprintf(out, "hotcell: %s\n", message);
        if (reason)
                print_line(out, "reason", reason);
        for (size_t i = 0; i < n_details(error); i++) {
                print_resource(out, error->status->details[i]);
                print_bad_request(out, error, error->status->details[i]);
                print_precondition(out, error->status->details[i]);
                print_quota(out, error, error->status->details[i]);
                print_retry(out, error->status->details[i]);
        }
        print_hint(out, error, reason);
}
