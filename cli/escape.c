#include "cli/escape.h"

#include <string.h>

#include "cli/memory.h"
#include "runtime/base/text.h"

/* Bytes of the character that @first begins; 0: none may begin so. */
static size_t character_length(uint8_t first)
{
        if (first < 0x80)
                return 1;
        if (first >= 0xc2 && first < 0xe0)
                return 2;
        if (first >= 0xe0 && first < 0xf0)
                return 3;
        if (first >= 0xf0 && first < 0xf5)
                return 4;
        return 0;
}

/* C1 controls (U+0080 to U+009F), and what changes the direction of writing or the line unseen:
 * U+061C, U+200E, U+200F, U+2028 to U+202E, U+2066 to U+2069. */
bool escape_is_hidden(const uint8_t *at, size_t length)
{
        if (length == 2)
                return (at[0] == 0xc2 && at[1] < 0xa0) || (at[0] == 0xd8 && at[1] == 0x9c);
        if (length != 3 || at[0] != 0xe2)
                return false;
        return (at[1] == 0x80 && (at[2] == 0x8e || at[2] == 0x8f)) ||
               (at[1] == 0x80 && at[2] >= 0xa8 && at[2] <= 0xae) ||
               (at[1] == 0x81 && at[2] >= 0xa6 && at[2] <= 0xa9);
}

static void write_hex(FILE *out, const uint8_t *at, size_t length)
{
        for (size_t i = 0; i < length; i++)
                (void)fprintf(out, "\\x%02x", at[i]);
}

static void write_ascii(FILE *out, uint8_t byte)
{
        if (byte == '\r')
                (void)fputs("\\r", out);
        else if ((byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f)
                write_hex(out, &byte, 1);
        else
                (void)fputc(byte, out);
}

static void write_character(FILE *out, const uint8_t *at, size_t length)
{
        if (length == 1)
                write_ascii(out, *at);
        else if (text_is_utf8(at, length) && !escape_is_hidden(at, length))
                (void)fwrite(at, 1, length, out);
        else
                write_hex(out, at, length);
}

void escaper_finish(struct escaper *escaper, FILE *out)
{
        write_hex(out, escaper->cut, escaper->n_cut);
        escaper->n_cut = 0;
}

void escaper_write(struct escaper *escaper, FILE *out, const void *bytes, size_t n_bytes)
{
        const uint8_t *at = bytes;

        for (size_t i = 0; i < n_bytes; i++) {
                if (escaper->n_cut && (at[i] & 0xc0) != 0x80)
                        escaper_finish(escaper, out);
                if (!escaper->n_cut && character_length(at[i]) == 0) {
                        write_hex(out, &at[i], 1);
                        continue;
                }
                escaper->cut[escaper->n_cut++] = at[i];
                if (escaper->n_cut == character_length(escaper->cut[0])) {
                        write_character(out, escaper->cut, escaper->n_cut);
                        escaper->n_cut = 0;
                }
        }
}

char *escape_line(const char *text)
{
        struct escaper escaper = { 0 };
        char *line = NULL;
        size_t n_line = 0;
        FILE *out = must(open_memstream(&line, &n_line));

        for (; *text; text++) {
                if (*text == '\n' || *text == '\t')
                        (void)fputs(*text == '\n' ? "\\n" : "\\t", out);
                else
                        escaper_write(&escaper, out, text, 1);
        }
        escaper_finish(&escaper, out);
        (void)fclose(out);
        return must(line);
}
