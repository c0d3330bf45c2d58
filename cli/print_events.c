#include "cli/print_events.h"

#include <string.h>

#include "hotcell/v1/execution.pb-c.h"

#include "cli/exit_code.h"
#include "cli/json.h"
#include "cli/memory.h"
#include "cli/print_ended.h"
#include "cli/print_text.h"
#include "cli/saver.h"
#include "cli/say.h"

struct event_printer {
        struct event_printer_config config;
        struct text_printer text;
        struct saver *saver;
        struct json_object *events; /* OUTPUT_JSON: all so far */
        struct json_object *ended;
        char *execution_id, *sandbox_id, *context_id;
};

int event_printer_new(const struct event_printer_config *config, struct event_printer **ret_printer)
{
        _cleanup_(event_printer_freep) struct event_printer *printer =
                allocate(1, sizeof(*printer));
        int r;

        printer->config = *config;
        text_printer_init(&printer->text, config);
        if (config->format == OUTPUT_JSON)
                printer->events = must(json_object_new_array());
        if (config->save_directory) {
                r = saver_new(config->save_directory, &printer->saver);
                if (r < 0) {
                        say("cannot save to %s: %s", config->save_directory, strerror(-r));
                        return EXIT_OURS;
                }
        }
        *ret_printer = take(printer);
        return 0;
}

struct event_printer *event_printer_free(struct event_printer *printer)
{
        if (!printer)
                return NULL;
        (void)saver_free(printer->saver);
        (void)json_object_put(printer->events);
        (void)json_object_put(printer->ended);
        free(printer->execution_id);
        free(printer->sandbox_id);
        free(printer->context_id);
        free(printer);
        return NULL;
}

static void save(struct event_printer *printer, const Hotcell__V1__ExecutionEvent *event)
{
        if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_RESULT)
                saver_bundle(printer->saver, "result", event->sequence, event->result->bundle);
        else if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_DISPLAY)
                saver_bundle(printer->saver, "display", event->sequence, event->display->bundle);
        else if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_PART_DATA)
                saver_data(printer->saver, event->part_data);
}

static void remember_ids(struct event_printer *printer, const Hotcell__V1__Queued *queued)
{
        if (printer->execution_id)
                return;
        printer->execution_id = duplicate(queued->execution_id);
        printer->sandbox_id = duplicate(queued->sandbox_id);
        printer->context_id = duplicate(queued->context_id);
}

static void print_json(struct event_printer *printer, const Hotcell__V1__ExecutionEvent *event)
{
        struct json_object *object = json_from_message(&event->base);

        if (printer->config.format == OUTPUT_JSONL) {
                json_print_line(printer->config.out, object);
                (void)json_object_put(object);
                return;
        }
        if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_QUEUED)
                remember_ids(printer, event->queued);
        if (event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED && !printer->ended)
                printer->ended = json_from_message(&event->ended->base);
        (void)json_object_array_add(printer->events, object);
}

void event_printer_event(struct event_printer *printer, const Hotcell__V1__ExecutionEvent *event)
{
        if (printer->config.format == OUTPUT_TEXT)
                text_printer_event(&printer->text, event);
        else
                print_json(printer, event);
        if (printer->saver)
                save(printer, event);
        if (printer->config.shows_usage &&
            event->event_case == HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED && event->ended->usage)
                print_usage("execution", event->ended->usage);
}

static void print_whole_json(struct event_printer *printer, int exit_code)
{
        _cleanup_(json_putp) struct json_object *whole = must(json_object_new_object());

        if (printer->execution_id) {
                (void)json_object_object_add(whole, "execution_id",
                                             json_from_text(printer->execution_id));
                (void)json_object_object_add(whole, "sandbox_id",
                                             json_from_text(printer->sandbox_id));
                (void)json_object_object_add(whole, "context_id",
                                             json_from_text(printer->context_id));
        }
        (void)json_object_object_add(whole, "exit_code", json_object_new_int(exit_code));
        (void)json_object_object_add(whole, "events", json_object_get(printer->events));
        (void)json_object_object_add(whole, "ended", json_object_get(printer->ended));
        json_print(printer->config.out, whole);
}

void event_printer_finish(struct event_printer *printer, int exit_code)
{
        if (printer->config.format == OUTPUT_TEXT)
                text_printer_finish(&printer->text);
        if (printer->config.format == OUTPUT_JSON)
                print_whole_json(printer, exit_code);
        if (printer->saver)
                saver_finish(printer->saver);
}

bool event_printer_is_broken(const struct event_printer *printer)
{
        return ferror(printer->config.out) != 0;
}
