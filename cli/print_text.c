#include "cli/print_text.h"

#include <inttypes.h>
#include <string.h>

#include "hotcell/v1/execution.pb-c.h"

#include "runtime/base/macros.h"

#include "cli/memory.h"
#include "cli/print_egress.h"
#include "cli/print_ended.h"
#include "cli/print_pressure.h"
#include "cli/say.h"

void text_printer_init(struct text_printer *printer, const struct event_printer_config *config)
{
        *printer = (struct text_printer){ .config = *config };
}

/* Both streams reach the same screen. */
static bool is_one_screen(const struct text_printer *printer)
{
        return printer->config.escapes_out && printer->config.escapes_err;
}

/* What the tool itself prints begins at the beginning of a line. */
static void begin_line(struct text_printer *printer, FILE *file)
{
        bool is_out = file == printer->config.out;
        bool is_mid_line = is_out ? printer->is_out_mid_line : printer->is_err_mid_line;

        if (is_one_screen(printer))
                is_mid_line = printer->is_out_mid_line || printer->is_err_mid_line;
        if (is_mid_line)
                (void)fputc('\n', file);
        if (is_one_screen(printer) || is_out)
                printer->is_out_mid_line = false;
        if (is_one_screen(printer) || !is_out)
                printer->is_err_mid_line = false;
}

static void note_mid_line(struct text_printer *printer, FILE *file, const ProtobufCBinaryData *data)
{
        bool is_mid_line;

        if (data->len == 0)
                return;
        is_mid_line = data->data[data->len - 1] != '\n';
        if (is_one_screen(printer)) {
                printer->is_out_mid_line = is_mid_line;
                printer->is_err_mid_line = false;
        } else if (file == printer->config.out) {
                printer->is_out_mid_line = is_mid_line;
        } else {
                printer->is_err_mid_line = is_mid_line;
        }
}

static void print_output(struct text_printer *printer, FILE *file,
                         const Hotcell__V1__OutputChunk *chunk)
{
        (void)fwrite(chunk->data.data, 1, chunk->data.len, file);
        note_mid_line(printer, file, &chunk->data);
}

static void close_part(struct text_printer *printer)
{
        if (!printer->part.is_open)
                return;
        escaper_finish(&printer->part.escaper, printer->config.out);
        begin_line(printer, printer->config.out);
        printer->part.is_open = false;
}

static void print_part_bytes(struct text_printer *printer, const ProtobufCBinaryData *data)
{
        FILE *out = printer->config.out;

        if (printer->config.escapes_out)
                escaper_write(&printer->part.escaper, out, data->data, data->len);
        else
                (void)fwrite(data->data, 1, data->len, out);
        note_mid_line(printer, out, data);
        printer->part.left -= (int64_t)data->len;
        if (printer->part.left <= 0)
                close_part(printer);
}

static void open_part(struct text_printer *printer, int64_t sequence, int32_t index,
                      const Hotcell__V1__MimePart *part)
{
        close_part(printer);
        begin_line(printer, printer->config.out);
        memset(&printer->part, 0, sizeof(printer->part));
        printer->part.is_open = true;
        printer->part.sequence = sequence;
        printer->part.index = index;
        printer->part.left = part->size_bytes;
        print_part_bytes(printer, &part->data);
}

static bool has_type(const Hotcell__V1__MimePart *part, const char *beginning)
{
        return strncmp(part->type, beginning, strlen(beginning)) == 0;
}

static bool has_text(const Hotcell__V1__MimeBundle *bundle)
{
        for (size_t i = 0; i < bundle->n_parts; i++) {
                if (strcmp(bundle->parts[i]->type, "text/plain") == 0)
                        return true;
        }
        return false;
}

/* What text does not stand for, such as a picture, would otherwise be lost without a word. */
static void note_unsaved(struct text_printer *printer, const Hotcell__V1__MimeBundle *bundle)
{
        bool is_shown = has_text(bundle);

        for (size_t i = 0; i < bundle->n_parts && !printer->config.save_directory; i++) {
                const Hotcell__V1__MimePart *part = bundle->parts[i];

                if (is_shown && !has_type(part, "image/"))
                        continue;
                if (!is_one_screen(printer))
                        begin_line(printer, printer->config.err);
                say("%s, %s, not saved: use --save DIR", part->type, show_bytes(part->size_bytes));
        }
}

static void print_bundle(struct text_printer *printer, int64_t sequence,
                         const Hotcell__V1__MimeBundle *bundle)
{
        if (!bundle)
                return;
        for (size_t i = 0; i < bundle->n_parts; i++) {
                if (strcmp(bundle->parts[i]->type, "text/plain") == 0)
                        open_part(printer, sequence, (int32_t)i, bundle->parts[i]);
        }
        /* What is said of saved and unsaved parts begins a line. */
        if (is_one_screen(printer) && !printer->part.is_open)
                begin_line(printer, printer->config.err);
        note_unsaved(printer, bundle);
}

static void print_part_data(struct text_printer *printer, const Hotcell__V1__PartData *data)
{
        if (printer->part.is_open && printer->part.sequence == data->bundle_sequence &&
            printer->part.index == data->part_index)
                print_part_bytes(printer, &data->data);
}

static void print_error_line(const struct text_printer *printer, const char *line)
{
        struct escaper escaper = { 0 };

        if (printer->config.escapes_err) {
                escaper_write(&escaper, printer->config.err, line, strlen(line));
                escaper_finish(&escaper, printer->config.err);
        } else {
                (void)fputs(line, printer->config.err);
        }
        if (!*line || line[strlen(line) - 1] != '\n')
                (void)fputc('\n', printer->config.err);
}

static void print_error(struct text_printer *printer, const Hotcell__V1__ExecutionError *error)
{
        begin_line(printer, printer->config.err);
        for (size_t i = 0; i < error->n_traceback; i++)
                print_error_line(printer, error->traceback[i]);
        if (error->n_traceback == 0) {
                _cleanup_(freep) char *line = format_text("%s: %s", error->name, error->value);

                print_error_line(printer, line);
        }
}

static void print_gap(struct text_printer *printer, const Hotcell__V1__Gap *gap)
{
        close_part(printer);
        begin_line(printer, printer->config.err);
        say("%" PRId64 " events are missing here, with %" PRId64
            " bytes of standard output and %" PRId64 " of standard error",
            gap->events, gap->stdout_bytes, gap->stderr_bytes);
}

static void print_egress(struct text_printer *printer, const Hotcell__V1__EgressEvent *event)
{
        _cleanup_(freep) char *sentence = NULL;

        if (!egress_is_told(event))
                return;
        sentence = egress_sentence(event);
        begin_line(printer, printer->config.err);
        say("%s", sentence);
}

static void print_pressure(struct text_printer *printer, const Hotcell__V1__Pressure *pressure)
{
        unsigned kind = (unsigned)pressure->kind < 32 ? BIT((unsigned)pressure->kind) : 0;
        _cleanup_(freep) char *sentence = NULL;

        if (printer->pressures & kind)
                return;
        printer->pressures |= kind;
        sentence = pressure_sentence(pressure);
        begin_line(printer, printer->config.err);
        say("%s", sentence);
}

void text_printer_event(struct text_printer *printer, const Hotcell__V1__ExecutionEvent *event)
{
        /* What is unknown, or has no place in a stream of text, is left out. */
        switch ((int)event->event_case) {
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_STDOUT:
                print_output(printer, printer->config.out, event->stdout);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_STDERR:
                print_output(printer, printer->config.err, event->stderr);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_RESULT:
                print_bundle(printer, event->sequence, event->result->bundle);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_DISPLAY:
                print_bundle(printer, event->sequence, event->display->bundle);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_PART_DATA:
                print_part_data(printer, event->part_data);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_ERROR:
                print_error(printer, event->error);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_GAP:
                print_gap(printer, event->gap);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_EGRESS:
                print_egress(printer, event->egress);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_PRESSURE:
                print_pressure(printer, event->pressure);
                break;
        case HOTCELL__V1__EXECUTION_EVENT__EVENT_ENDED:
                close_part(printer);
                if (is_one_screen(printer))
                        begin_line(printer, printer->config.err);
                print_ended(event->ended, printer->config.is_one_shot);
                break;
        default:
                break;
        }
        (void)fflush(printer->config.out);
        (void)fflush(printer->config.err);
}

void text_printer_finish(struct text_printer *printer)
{
        close_part(printer);
        (void)fflush(printer->config.out);
}
