#include "server/session/pressure.h"

#include <string.h>

#include "runtime/base/clock.h"
#include "runtime/base/macros.h"
#include "server/session/context.h"
#include "server/session/execution.h"
#include "server/session/meters.h"
#include "server/session/sandbox.h"
#include "server/session/session_private.h"

#define KIND(name) HOTCELL__RUNTIME__V1__PRESSURE_KIND__PRESSURE_KIND_##name

static const enum pressure_kind kinds[] = {
        [KIND(MEMORY_LIMIT)] = PRESSURE_MEMORY_LIMIT,
        [KIND(MEMORY_STALL)] = PRESSURE_MEMORY_STALL,
        [KIND(CPU_STALL)] = PRESSURE_CPU_STALL,
        [KIND(IO_STALL)] = PRESSURE_IO_STALL,
        [KIND(CPU_THROTTLED)] = PRESSURE_CPU_THROTTLED,
        [KIND(PROCESSES)] = PRESSURE_PROCESSES,
        [KIND(DISK)] = PRESSURE_DISK,
        [KIND(INODES)] = PRESSURE_INODES,
};
static_assert(ARRAY_SIZE(kinds) == _PRESSURE_KIND_N, "every kind has a row");

struct pressure_payload {
        int64_t used;
        int64_t limit;
        int64_t number; /* counts those of the execution */
        int32_t kind;
        int32_t unused;
};

bool pressure_payload_read(const uint8_t *payload, size_t n_payload,
                           struct sandbox_pressure *ret_pressure)
{
        struct pressure_payload read;

        if (n_payload != sizeof(read))
                return false;
        (void)memcpy(&read, payload, sizeof(read));
        if (read.kind <= 0 || read.kind >= _PRESSURE_KIND_N)
                return false;
        *ret_pressure = (struct sandbox_pressure){ .kind = (enum pressure_kind)read.kind,
                                                   .used = read.used,
                                                   .limit = read.limit };
        return true;
}

/* Without room for it, it is not told: output that somebody waits for does not go for it. */
static void tell(struct execution *execution, const struct sandbox_pressure *pressure)
{
        const struct pressure_payload payload = { .used = pressure->used,
                                                  .limit = pressure->limit,
                                                  .number = execution->n_pressures + 1,
                                                  .kind = (int32_t)pressure->kind };
        const struct ring_piece piece = { &payload, sizeof(payload) };

        if (execution->phase != PHASE_RUNNING || execution->n_pressures >= PRESSURES_TOLD_MAX ||
            !execution_make_room(execution, sizeof(payload)))
                return;
        execution_append(execution, EXECUTION_EVENT_PRESSURE, 0, &piece, 1);
        execution->n_pressures++;
}

void execution_restore_pressures(struct execution *execution)
{
        uint64_t position = ring_seek(execution->ring, 0);
        struct ring_record record;

        while (ring_read(execution->ring, &position, &record)) {
                struct pressure_payload payload;

                if (record.kind != EXECUTION_EVENT_PRESSURE || record.n_payload != sizeof(payload))
                        continue;
                (void)memcpy(&payload, record.payload, sizeof(payload));
                execution->n_pressures = MAX(execution->n_pressures, payload.number);
        }
}

void session_on_pressure(struct session *session, const Hotcell__Runtime__V1__Pressure *told)
{
        struct sandbox *sandbox = session_find_sandbox(session, NULL, told->sandbox_id);
        struct sandbox_pressure pressure;
        struct context *context;

        /* A newer runtime may know more kinds. */
        if (!sandbox || told->kind <= 0 || (size_t)told->kind >= ARRAY_SIZE(kinds))
                return;
        pressure = (struct sandbox_pressure){ .kind = kinds[told->kind],
                                              .used = meter_amount(told->used),
                                              .limit = meter_amount(told->limit),
                                              .time_usec = time_now_usec() };
        sandbox->pressures.last[pressure.kind] = pressure;
        TAILQ_FOREACH(context, &sandbox->contexts, link)
        {
                if (context->current)
                        tell(context->current, &pressure);
        }
}

size_t sandbox_pressures(const struct sandbox *sandbox,
                         struct sandbox_pressure ret_pressures[static _PRESSURE_KIND_N])
{
        int64_t now_usec = time_now_usec();
        size_t n = 0;

        for (size_t kind = 1; kind < _PRESSURE_KIND_N; kind++) {
                const struct sandbox_pressure *last = &sandbox->pressures.last[kind];

                if (last->time_usec && now_usec - last->time_usec < PRESSURE_KEPT_USEC)
                        ret_pressures[n++] = *last;
        }
        return n;
}
