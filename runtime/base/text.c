#include "runtime/base/text.h"

#include <ctype.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/macros.h"

/* Length of the sequence that @first begins, and the smallest code point that needs it; 0: no such
 * start. */
static size_t utf8_sequence(uint8_t first, uint32_t *ret_code, uint32_t *ret_min)
{
        static const struct {
                uint8_t mask;
                uint8_t lead;
                uint32_t min;
        } forms[] = {
                { 0x80, 0x00, 0 },
                { 0xe0, 0xc0, 0x80 },
                { 0xf0, 0xe0, 0x800 },
                { 0xf8, 0xf0, 0x10000 },
        };

        for (size_t i = 0; i < ARRAY_SIZE(forms); i++) {
                if ((first & forms[i].mask) != forms[i].lead)
                        continue;
                *ret_code = first & (uint8_t)~forms[i].mask;
                *ret_min = forms[i].min;
                return i + 1;
        }
        return 0;
}

bool text_is_utf8(const void *bytes, size_t n_bytes)
{
        const uint8_t *at = bytes;
        const uint8_t *end = at + n_bytes;

        while (at < end) {
                uint32_t code = 0, min = 0;
                size_t length = utf8_sequence(*at, &code, &min);

                if (length == 0 || (size_t)(end - at) < length)
                        return false;
                for (size_t i = 1; i < length; i++) {
                        if ((at[i] & 0xc0) != 0x80)
                                return false;
                        code = code << 6 | (at[i] & 0x3f);
                }
                if (code < min || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff))
                        return false;
                at += length;
        }
        return true;
}

bool text_to_uint64(const char *text, uint64_t max, uint64_t *ret_value)
{
        uint64_t value = 0;

        if (*text == '\0')
                return false;
        for (; *text; text++) {
                if (!isdigit((unsigned char)*text))
                        return false;
                if (__builtin_mul_overflow(value, 10, &value) ||
                    __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value) || value > max)
                        return false;
        }
        *ret_value = value;
        return true;
}

bool text_to_bytes(const char *text, uint64_t *ret_bytes)
{
        static const char suffixes[] = "KMGTkmgt";
        char digits[24];
        size_t n_digits = strspn(text, "0123456789");
        const char *suffix = text + n_digits;
        unsigned shift = 0;
        uint64_t value;

        if (n_digits == 0 || n_digits >= sizeof(digits))
                return false;
        memcpy(digits, text, n_digits);
        digits[n_digits] = '\0';

        if (*suffix) {
                const char *found = strchr(suffixes, *suffix);

                if (!found ||
                    (suffix[1] && strcmp(suffix + 1, "iB") != 0 && strcmp(suffix + 1, "i") != 0))
                        return false;
                shift = 10U * (unsigned)((found - suffixes) % 4 + 1);
        }
        if (!text_to_uint64(digits, UINT64_MAX >> shift, &value))
                return false;
        *ret_bytes = value << shift;
        return true;
}

bool text_to_duration(const char *text, int64_t *ret_nanoseconds)
{
        static const struct {
                const char *unit;
                double nanoseconds;
        } units[] = {
                { "", 1e9 },       { "ms", 1e6 },       { "s", 1e9 },
                { "m", 60 * 1e9 }, { "h", 3600 * 1e9 }, { "d", 86400 * 1e9 },
        };
        char *end;
        double value;

        if (!isdigit((unsigned char)*text))
                return false;
        /* strtod would also take hexadecimal and exponents. */
        if (strspn(text, "0123456789.") != strcspn(text, "msdh"))
                return false;
        value = strtod(text, &end);
        for (size_t i = 0; i < ARRAY_SIZE(units); i++) {
                if (strcmp(end, units[i].unit) != 0)
                        continue;
                value *= units[i].nanoseconds;
                if (!isfinite(value) || value >= 9.2e18)
                        return false;
                *ret_nanoseconds = (int64_t)value;
                return true;
        }
        return false;
}
