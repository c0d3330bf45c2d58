#include <inttypes.h>
#include <stdio.h>

#include "runtime/base/macros.h"
#include "server/api/convert.h"

enum { SENTENCE_MAX = 120 };

#define KIND(name) HOTCELL__V1__PRESSURE_KIND__PRESSURE_KIND_##name

static const struct {
        Hotcell__V1__PressureKind kind;
        const char *sentence; /* before the numbers */
        bool is_bytes;
} kinds[] = {
        [PRESSURE_MEMORY_LIMIT] = { KIND(MEMORY_LIMIT), "Memory is nearly full", true },
        [PRESSURE_MEMORY_STALL] = { KIND(MEMORY_STALL), "Programs wait for memory", false },
        [PRESSURE_CPU_STALL] = { KIND(CPU_STALL), "Programs wait for a CPU", false },
        [PRESSURE_IO_STALL] = { KIND(IO_STALL), "Programs wait for disks", false },
        [PRESSURE_CPU_THROTTLED] = { KIND(CPU_THROTTLED),
                                     "Programs wait as their CPU limit is used up", false },
        [PRESSURE_PROCESSES] = { KIND(PROCESSES), "There is hardly room for another process",
                                 false },
        [PRESSURE_DISK] = { KIND(DISK), "The disk is nearly full", true },
        [PRESSURE_INODES] = { KIND(INODES), "There is hardly room for another file", false },
};
static_assert(ARRAY_SIZE(kinds) == _PRESSURE_KIND_N, "every kind has a sentence");

static void write_bytes(const struct sandbox_pressure *pressure, const char *sentence,
                        char text[static SENTENCE_MAX])
{
        bool is_small = pressure->limit < (int64_t)MIB(16);
        int64_t unit = is_small ? (int64_t)KIB(1) : (int64_t)MIB(1);

        (void)snprintf(text, SENTENCE_MAX, "%s: %" PRId64 " of %" PRId64 " %s.", sentence,
                       pressure->used / unit, pressure->limit / unit, is_small ? "KiB" : "MiB");
}

static void write_sentence(const struct sandbox_pressure *pressure, char text[static SENTENCE_MAX])
{
        const char *sentence = kinds[pressure->kind].sentence;

        if (kinds[pressure->kind].is_bytes)
                write_bytes(pressure, sentence, text);
        else if (pressure->limit)
                (void)snprintf(text, SENTENCE_MAX, "%s: %" PRId64 " of %" PRId64 ".", sentence,
                               pressure->used, pressure->limit);
        else
                (void)snprintf(text, SENTENCE_MAX, "%s, %" PRId64 " %% of the time.", sentence,
                               pressure->used / 10);
}

Hotcell__V1__Pressure *convert_pressure(struct arena *arena,
                                        const struct sandbox_pressure *pressure)
{
        Hotcell__V1__Pressure *message = arena_new(arena, Hotcell__V1__Pressure);
        char text[SENTENCE_MAX];

        if (!message)
                return NULL;
        write_sentence(pressure, text);
        hotcell__v1__pressure__init(message);
        message->kind = kinds[pressure->kind].kind;
        message->used = pressure->used;
        message->limit = pressure->limit;
        message->message = arena_text(arena, text);
        return message;
}
