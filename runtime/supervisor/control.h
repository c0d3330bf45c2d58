/*
 * The requests of hotcelld: bytes in, a checked message out. Pure: no descriptors, no clock, no
 * state, so that it can be tested and fuzzed for itself.
 *
 * What comes out needs no further checks of form: ids are DNS labels, limits positive and sane,
 * argv[0] and the working directory absolute paths, variables well-formed.
 */
#pragma once

#include <hotcell/runtime/v1/runtime.pb-c.h>
#include <stddef.h>
#include <stdint.h>

#include "runtime/base/wire.h"
#include "runtime/supervisor/failure.h"

enum {
        CONTROL_E_MALFORMED = 1, /* no message, or one without a request number: not answerable */
        CONTROL_E_INVALID,       /* a field is wrong: answer with the failure */
};

enum {
        CONTROL_PROTOCOL_OLDEST = 1,   /* versions that we speak */
        CONTROL_PROTOCOL_EGRESS = 3,   /* the first with EgressReady */
        CONTROL_PROTOCOL_PRESSURE = 4, /* the first with Pressure */
        CONTROL_PROTOCOL_NEWEST = 4,
        CONTROL_PACKET_MAX = 128 << 10, /* bytes */
        CONTROL_ARENA_MAX = 2 << 20,    /* bytes that unpacking one packet may take */
        CONTROL_ARGV_MAX = 256,         /* words */
        CONTROL_VARIABLES_MAX = 1024,
        CONTROL_ENVIRONMENT_MAX = 64 << 10, /* bytes, `=` and NUL included */
        CONTROL_WORD_MAX = 64 << 10,        /* bytes of one argument */
        CONTROL_PATH_MAX = 4095,            /* bytes */
        CONTROL_ID_MAX = 65532, /* greatest user or group of a program; the init has the next */
        CONTROL_CPU_MILLIS_MIN = 10, /* the kernel takes quotas from 1 ms in 100 ms on */
        CONTROL_CPU_MILLIS_MAX = 1024 * 1000,
        CONTROL_PROCESSES_MAX = 1 << 22, /* the kernel's PID_MAX_LIMIT */
        CONTROL_OPEN_FILES_MIN = 16,
        CONTROL_OPEN_FILES_MAX = 1 << 20,
        CONTROL_CPU_WEIGHT_MAX = 10000,
        CONTROL_DISK_INODES_MAX = 1 << 30,
        CONTROL_METERS_MAX = 64, /* sandboxes in an answer to ReadMeters, or asked for by one */
};

#define CONTROL_MEMORY_MAX ((uint64_t)1 << 44)  /* 16 TiB */
#define CONTROL_DISK_ROOM  ((uint64_t)64 << 20) /* memory beyond what files may take */

/* A checked request. The message lives in the arena. */
struct control_request {
        struct wire_arena *arena;
        uint64_t number;
        Hotcell__Runtime__V1__ToRuntime *message;
};

/*
 * Reads a packet into @arena, which must hold nothing else. @ret_request is to be deinitialised
 * after success and after CONTROL_E_INVALID, which sets its number and @ret_failure.
 */
int control_decode(struct wire_arena *arena, const uint8_t *bytes, size_t n_bytes,
                   struct control_request *ret_request, struct failure *ret_failure);

void control_request_deinit(struct control_request *request);
