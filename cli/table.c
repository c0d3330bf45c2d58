#include "cli/table.h"

#include <stdlib.h>

#include "cli/escape.h"
#include "cli/memory.h"
#include "runtime/base/macros.h"

struct table {
        size_t n_columns;
        size_t n_rows;
        char **cells; /* row by row, the headers first */
};

/* Columns on a screen, near enough: one for each character. */
static size_t width_of(const char *text)
{
        size_t n = 0;

        for (; *text; text++)
                n += ((unsigned char)*text & 0xc0) != 0x80;
        return n;
}

struct table *table_new(const char *const *headers)
{
        struct table *table = allocate(1, sizeof(*table));

        while (headers[table->n_columns])
                table->n_columns++;
        table_add(table, headers);
        return table;
}

struct table *table_free(struct table *table)
{
        if (!table)
                return NULL;
        for (size_t i = 0; i < table->n_rows * table->n_columns; i++)
                free(table->cells[i]);
        free(table->cells);
        free(table);
        return NULL;
}

void table_add(struct table *table, const char *const *cells)
{
        char **row;

        table->cells = reallocate(table->cells, (table->n_rows + 1) * table->n_columns,
                                  sizeof(*table->cells));
        row = &table->cells[table->n_rows++ * table->n_columns];
        for (size_t i = 0; i < table->n_columns; i++)
                row[i] = escape_line(cells[i] ? cells[i] : "");
}

static size_t column_width(const struct table *table, size_t column)
{
        size_t width = 0;

        for (size_t i = 0; i < table->n_rows; i++)
                width = MAX(width, width_of(table->cells[i * table->n_columns + column]));
        return width;
}

void table_print(const struct table *table, FILE *out)
{
        _cleanup_(freep) size_t *widths = allocate(table->n_columns, sizeof(*widths));

        for (size_t i = 0; i < table->n_columns; i++)
                widths[i] = column_width(table, i);
        for (size_t i = 0; i < table->n_rows * table->n_columns; i++) {
                size_t column = i % table->n_columns;

                (void)fputs(table->cells[i], out);
                if (column + 1 == table->n_columns)
                        (void)fputc('\n', out);
                else
                        (void)fprintf(out, "%*s",
                                      (int)(widths[column] - width_of(table->cells[i])) + 2, "");
        }
}
