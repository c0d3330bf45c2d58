/*
 * A screen is a head, the names of columns, rows, and a foot. Columns that do not fit are left out,
 * the least telling first.
 */
#include "cli/top_draw.h"

#include <inttypes.h>
#include <string.h>

#include "cli/json.h"
#include "cli/memory.h"
#include "cli/print_ended.h"
#include "cli/table.h"
#include "cli/top_cells.h"
#include "hotcell/v1/sandbox.pb-c.h"
#include "runtime/base/macros.h"

enum {
        BAR = 10,      /* characters between its brackets */
        ID_SHORT = 14, /* enough to name it to another command */
        PRESSURE_MIN = 18,
        HEAD_LINES = 2, /* and the names of columns */
        FOOT_MIN = 6,   /* of lines; below that there is no foot */
};

static const struct {
        const char *title;
        size_t width;
        bool is_left;
        bool has_bar;
} columns[] = {
        [TOP_ID] = { "SANDBOX", 32, true, false },
        [TOP_NAME] = { "NAME", 16, true, false },
        [TOP_AGE] = { "AGE", 8, false, false },
        [TOP_CPU] = { "CPU", 5, false, true },
        [TOP_MEMORY] = { "MEMORY", 6, false, true },
        [TOP_PROCESSES] = { "PROCS", 5, false, false },
        [TOP_DISK] = { "DISK", 5, false, false },
        [TOP_SENT] = { "OUT/s", 6, false, false },
        [TOP_RECEIVED] = { "IN/s", 6, false, false },
        [TOP_WAIT] = { "WAIT", 5, false, false },
        [TOP_PRESSURE] = { "PRESSURE", PRESSURE_MIN, true, false },
};
static_assert(ARRAY_SIZE(columns) == _TOP_COLUMN_N, "every column has a row");

/* Left out in this order; between them bars go, and ids become short. */
static const enum top_column leaving[] = { TOP_DISK, TOP_PROCESSES, TOP_RECEIVED,
                                           TOP_SENT, TOP_AGE,       TOP_PRESSURE,
                                           TOP_WAIT, TOP_NAME,      TOP_MEMORY };

struct layout {
        unsigned shown; /* BIT(enum top_column) */
        size_t id_width;
        bool has_bars;
};

static size_t column_width(const struct layout *layout, enum top_column column)
{
        if (column == TOP_ID)
                return layout->id_width;
        return columns[column].width + (columns[column].has_bar && layout->has_bars ? BAR + 3 : 0);
}

static size_t layout_width(const struct layout *layout)
{
        size_t width = 0;

        for (size_t i = 0; i < _TOP_COLUMN_N; i++) {
                if (layout->shown & BIT(i))
                        width += column_width(layout, (enum top_column)i) + 1;
        }
        return width ? width - 1 : 0;
}

static struct layout layout_of(size_t width)
{
        struct layout layout = {
                .shown = BIT(_TOP_COLUMN_N) - 1,
                .id_width = columns[TOP_ID].width,
                .has_bars = true,
        };

        if (layout_width(&layout) > width)
                layout.id_width = ID_SHORT;
        for (size_t i = 0; i < ARRAY_SIZE(leaving) && layout_width(&layout) > width; i++) {
                if (leaving[i] == TOP_PRESSURE)
                        layout.has_bars = false;
                if (layout_width(&layout) > width)
                        layout.shown &= ~BIT(leaving[i]);
        }
        return layout;
}

/* A line that never gets too long, and never says more than printable ASCII. */
struct line {
        FILE *out;
        size_t left;
        bool has_color;
};

static void put(struct line *line, const char *text, size_t width, bool is_left)
{
        size_t n = MIN(strlen(text), width);
        size_t before = is_left ? 0 : width - n;

        for (size_t i = 0; i < width && line->left > 0; i++, line->left--) {
                int byte = i < before || i - before >= n ? ' ' : text[i - before];

                (void)fputc(byte >= ' ' && byte <= '~' ? byte : '?', line->out);
        }
}

static void put_text(struct line *line, const char *text)
{
        put(line, text, strlen(text), true);
}

static void put_color(const struct line *line, const char *color)
{
        if (line->has_color)
                (void)fprintf(line->out, "\033[%sm", color);
}

static const char *bar_color(double part)
{
        if (part >= 0.9)
                return "31"; /* red */
        return part >= 0.7 ? "33" : "32";
}

static void put_bar(struct line *line, double part)
{
        char bar[BAR + 1] = "";
        size_t n = part > 0 ? (size_t)(MIN(part, 1.0) * BAR + 0.5) : 0;

        if (part < 0) {
                put(line, "", BAR + 3, true);
                return;
        }
        memset(bar, '|', n);
        put_text(line, "[");
        put_color(line, bar_color(part));
        put(line, bar, BAR, true);
        put_color(line, "0");
        put_text(line, "] ");
}

static void put_row(struct line *line, const struct layout *layout,
                    const struct top_sandbox *sandbox, const struct top_execution *execution)
{
        for (size_t i = 0; i < _TOP_COLUMN_N; i++) {
                enum top_column column = (enum top_column)i;
                char text[TOP_CELL_SIZE];

                if (!(layout->shown & BIT(i)))
                        continue;
                if (i > 0)
                        put_text(line, " ");
                if (columns[i].has_bar && layout->has_bars)
                        put_bar(line, execution ? -1 : top_part(column, sandbox));
                top_cell(column, sandbox, execution, text);
                if (column == TOP_PRESSURE) {
                        put_color(line, "33");
                        put_text(line, text);
                        put_color(line, "0");
                } else {
                        put(line, text,
                            columns[i].has_bar ? columns[i].width : column_width(layout, column),
                            columns[i].is_left);
                }
        }
}

static void end_line(struct line *line, const struct top_look *look)
{
        (void)fputc('\n', line->out);
        line->left = look->columns;
}

static void draw_titles(struct line *line, const struct layout *layout, const struct top_look *look)
{
        put_color(line, "7"); /* reverse */
        for (size_t i = 0; i < _TOP_COLUMN_N; i++) {
                if (!(layout->shown & BIT(i)))
                        continue;
                if (i > 0)
                        put_text(line, " ");
                put(line, columns[i].title, column_width(layout, (enum top_column)i),
                    columns[i].is_left);
        }
        put(line, "", line->left, true);
        put_color(line, "0");
        end_line(line, look);
}

static size_t count_rows(const struct top_view *view)
{
        size_t n = 0;

        for (size_t i = 0; view->now && i < view->now->n_sandboxes; i++)
                n += 1 + view->sandboxes[i].now->n_executions;
        return n;
}

static void draw_head(struct line *line, const struct top_view *view, const struct top_look *look)
{
        static const char *const sorts[] = { "CPU", "memory", "name" };
        size_t n = view->now ? view->now->n_sandboxes : 0;
        _cleanup_(freep) char *text = NULL;
        double cpus = 0;
        long long memory = 0;

        for (size_t i = 0; i < n; i++) {
                const Hotcell__V1__SandboxUsage *usage = view->sandboxes[i].now->usage;

                cpus += view->sandboxes[i].rates.cpus;
                memory += usage ? usage->memory_bytes : 0;
        }
        text = format_text("%zu sandbox%s  CPU %.0f%%  memory %s  every %gs  by %s%s", n,
                           n == 1 ? "" : "es", cpus * 100, show_bytes(memory), look->period,
                           sorts[view->sort], view->is_paused ? "  PAUSED" : "");
        put_color(line, "1");
        put_text(line, text);
        put_color(line, "0");
        end_line(line, look);
}

static void draw_foot(struct line *line, const struct top_look *look, size_t n_rows, size_t n_shown)
{
        _cleanup_(freep) char *text = NULL;

        if (look->note)
                text = duplicate(look->note);
        else if (n_shown < n_rows)
                text = format_text("%zu-%zu of %zu  q quit  up/down scroll  c m n sort  p pause",
                                   look->first + 1, look->first + n_shown, n_rows);
        else
                text = duplicate("q quit  c CPU  m memory  n name  p pause");
        put_text(line, text);
        end_line(line, look);
}

static size_t lines_of_rows(const struct top_look *look)
{
        size_t around = HEAD_LINES + (look->lines >= FOOT_MIN || look->note ? 1 : 0);

        return look->lines > around ? look->lines - around : 0;
}

size_t top_page(const struct top_look *look)
{
        return MAX(lines_of_rows(look), (size_t)1);
}

/* Row @index of all, counted through sandboxes and executions. */
static void draw_rows(struct line *line, const struct top_view *view, const struct layout *layout,
                      const struct top_look *look)
{
        size_t row = 0, last = look->first + lines_of_rows(look);

        for (size_t i = 0; view->now && i < view->now->n_sandboxes && row < last; i++) {
                const struct top_sandbox *sandbox = &view->sandboxes[i];

                for (size_t j = 0; j <= sandbox->now->n_executions && row < last; j++, row++) {
                        if (row < look->first)
                                continue;
                        put_row(line, layout, sandbox, j ? &sandbox->executions[j - 1] : NULL);
                        end_line(line, look);
                }
        }
}

void top_draw_screen(FILE *out, const struct top_view *view, struct top_look *look)
{
        struct line line = { .out = out, .left = look->columns, .has_color = look->has_color };
        struct layout layout = layout_of(look->columns);
        size_t n_rows = count_rows(view), n_lines = lines_of_rows(look);

        look->first = MIN(look->first, n_rows > n_lines ? n_rows - n_lines : 0);
        if (look->lines == 1 && look->note) {
                draw_foot(&line, look, 0, 0);
                return;
        }
        draw_head(&line, view, look);
        if (look->lines > 1)
                draw_titles(&line, &layout, look);
        draw_rows(&line, view, &layout, look);
        if (look->lines < FOOT_MIN && !look->note)
                return;
        for (size_t i = MIN(n_rows - look->first, n_lines); i < n_lines; i++)
                end_line(&line, look);
        draw_foot(&line, look, n_rows, MIN(n_rows - look->first, n_lines));
}

static void add_table_row(struct table *table, const struct top_sandbox *sandbox,
                          const struct top_execution *execution)
{
        char texts[_TOP_COLUMN_N][TOP_CELL_SIZE];
        const char *cells[_TOP_COLUMN_N];

        for (size_t i = 0; i < _TOP_COLUMN_N; i++) {
                top_cell((enum top_column)i, sandbox, execution, texts[i]);
                cells[i] = *texts[i] ? texts[i] : "-";
        }
        table_add(table, cells);
}

void top_draw_table(FILE *out, const struct top_view *view)
{
        const char *titles[_TOP_COLUMN_N + 1] = { NULL };
        _cleanup_(table_freep) struct table *table = NULL;

        for (size_t i = 0; i < _TOP_COLUMN_N; i++)
                titles[i] = columns[i].title;
        table = table_new(titles);
        for (size_t i = 0; i < view->now->n_sandboxes; i++) {
                const struct top_sandbox *sandbox = &view->sandboxes[i];

                add_table_row(table, sandbox, NULL);
                for (size_t j = 0; j < sandbox->now->n_executions; j++)
                        add_table_row(table, sandbox, &sandbox->executions[j]);
        }
        table_print(table, out);
        (void)fflush(out);
}

static void add_rate(struct json_object *object, const char *name, double value, bool is_known)
{
        char text[32];

        (void)snprintf(text, sizeof(text), "%.3f", value);
        (void)json_object_object_add(object, name,
                                     is_known ? must(json_object_new_double_s(value, text)) : NULL);
}

static void add_rates(struct json_object *object, const struct top_rates *rates)
{
        bool has_traffic = rates->are_known && rates->has_traffic;

        add_rate(object, "cpus", rates->cpus, rates->are_known);
        add_rate(object, "waiting_threads", rates->waiting, rates->are_known && rates->has_waiting);
        add_rate(object, "sent_bytes_per_second", rates->sent_bytes, has_traffic);
        add_rate(object, "received_bytes_per_second", rates->received_bytes, has_traffic);
}

static struct json_object *json_of(const struct top_sandbox *sandbox)
{
        struct json_object *object = json_from_message(&sandbox->now->base), *executions = NULL;

        add_rates(object, &sandbox->rates);
        (void)json_object_object_get_ex(object, "executions", &executions);
        for (size_t i = 0; executions && i < sandbox->now->n_executions; i++)
                add_rates(json_object_array_get_idx(executions, i), &sandbox->executions[i].rates);
        return object;
}

void top_print_json(FILE *out, const struct top_view *view, bool is_line)
{
        Hotcell__V1__WatchUsageResponse head = *view->now;
        _cleanup_(json_putp) struct json_object *object = NULL;
        struct json_object *array = must(json_object_new_array());

        head.n_sandboxes = 0;
        object = json_from_message(&head.base);
        for (size_t i = 0; i < view->now->n_sandboxes; i++)
                (void)json_object_array_add(array, json_of(&view->sandboxes[i]));
        (void)json_object_object_add(object, "sandboxes", array);
        (void)json_object_object_del(object, "more");
        (is_line ? json_print_line : json_print)(out, object);
}
