#include "test/unit/session/seen.h"

#include <check.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "runtime/base/macros.h"
#include "test/unit/session/fixture.h"

__attribute__((format(printf, 2, 3))) static void say(struct seen *seen, const char *format, ...)
{
        va_list arguments;
        int n;

        if (seen->n_text > sizeof(seen->text) - 512)
                return;
        if (seen->n_text > 0)
                seen->text[seen->n_text++] = ' ';
        va_start(arguments, format);
        n = vsnprintf(seen->text + seen->n_text, 400, format, arguments);
        va_end(arguments);
        seen->n_text += (size_t)MIN(n, 399);
}

static void say_chunk(struct seen *seen, const char *name, const struct execution_event *event,
                      int64_t *total)
{
        if (seen->gap_events == 0)
                ck_assert_int_eq(event->chunk.offset, *total);
        *total += (int64_t)event->chunk.data.n;
        if (event->chunk.data.n < 100)
                say(seen, "%s:%.*s", name, (int)event->chunk.data.n, event->chunk.data.data);
}

static void say_bundle(struct seen *seen, const char *name, const struct execution_event *event)
{
        for (size_t i = 0; i < event->bundle.n_parts; i++) {
                const struct event_part *part = &event->bundle.parts[i];

                seen->part_bytes += (int64_t)part->data.n;
                say(seen, "%s:%s%s=%.*s", name, event->bundle.display_id, part->type,
                    (int)MIN(part->data.n, 50), part->data.data);
        }
}

static void say_egress(struct seen *seen, const struct egress_record *record, int64_t left_out)
{
        char more[32] = "";

        seen->n_egress += record->count + left_out;
        seen->egress = *record;
        if (left_out > 0)
                (void)snprintf(more, sizeof(more), "+%lld", (long long)left_out);
        say(seen, "egress:%s:%d*%lld%s", record->address, (int)record->port,
            (long long)record->count, more);
}

void see(struct seen *seen, const struct execution_event *event)
{
        if (event->kind != EXECUTION_EVENT_GAP)
                ck_assert_int_eq(event->sequence, seen->last_sequence + 1);
        ck_assert_int_gt(event->event_time_usec, 0);
        seen->last_sequence = event->sequence;
        seen->n_events++;
        switch (event->kind) {
        case EXECUTION_EVENT_QUEUED:
                say(seen, "queued:%d", event->queued.position);
                break;
        case EXECUTION_EVENT_STARTED:
                say(seen, "started:%d.%d", (int)event->started.context_generation,
                    (int)event->started.execution_count);
                break;
        case EXECUTION_EVENT_STDOUT:
                say_chunk(seen, "stdout", event, &seen->stdout_bytes);
                break;
        case EXECUTION_EVENT_STDERR:
                say_chunk(seen, "stderr", event, &seen->stderr_bytes);
                break;
        case EXECUTION_EVENT_RESULT:
                say_bundle(seen, "result", event);
                break;
        case EXECUTION_EVENT_DISPLAY:
                say_bundle(seen, "display", event);
                break;
        case EXECUTION_EVENT_CLEAR_OUTPUT:
                say(seen, "clear:%d", event->clear_output.wait);
                break;
        case EXECUTION_EVENT_ERROR:
                say(seen, "error:%s:%zu", event->error.name, event->error.n_traceback);
                break;
        case EXECUTION_EVENT_PART_DATA:
                ck_assert_int_eq(event->part_data.offset, seen->part_bytes);
                seen->part_bytes += (int64_t)event->part_data.data.n;
                break;
        case EXECUTION_EVENT_GAP:
                seen->gap_events += event->gap.events;
                seen->gap_stdout_bytes += event->gap.stdout_bytes;
                say(seen, "gap");
                break;
        case EXECUTION_EVENT_EGRESS:
                say_egress(seen, event->egress.record, event->egress.left_out);
                break;
        case EXECUTION_EVENT_PRESSURE:
                say(seen, "pressure:%d:%lld/%lld", (int)event->pressure.kind,
                    (long long)event->pressure.used, (long long)event->pressure.limit);
                break;
        case EXECUTION_EVENT_ENDED:
                seen->ended = *event->ended;
                say(seen, "ended");
                break;
        case _EXECUTION_EVENT_KIND_N:
                ck_abort();
        }
}

void read_all(struct seen *seen)
{
        struct execution_event event;
        int r;

        while (!seen->is_over && seen->reader) {
                r = execution_reader_next(seen->reader, &event);
                if (r == READER_E_WAIT)
                        return;
                if (r == READER_E_END || r == READER_E_CLOSED) {
                        seen->is_over = true;
                        seen->is_closed = r == READER_E_CLOSED;
                        return;
                }
                ck_assert_int_eq(r, 0);
                see(seen, &event);
        }
}

static void on_readable(void *userdata)
{
        struct seen *seen = userdata;

        if (!seen->is_paused)
                read_all(seen);
}

void attach(const char *execution_id, int64_t after_sequence, struct seen *seen)
{
        struct session_result result;

        seen->last_sequence = after_sequence;
        ck_assert_int_eq(execution_reader_new(f.session, NULL, execution_id, after_sequence,
                                              on_readable, seen, &seen->reader, &result),
                         0);
}

void detach(struct seen *seen)
{
        seen->reader = execution_reader_free(seen->reader);
}

void wait_for_end(struct seen *seen)
{
        run_until_true(&seen->is_over);
        detach(seen);
}

struct wanted {
        struct seen *seen;
        const char *text;
};

static bool has_text(void *userdata)
{
        struct wanted *wanted = userdata;

        return strstr(wanted->seen->text, wanted->text);
}

void wait_for_text(struct seen *seen, const char *text)
{
        struct wanted wanted = { seen, text };

        run_until(has_text, &wanted);
}
