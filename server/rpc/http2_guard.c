/*
 * Only the nine bytes of each frame's head are read, and in DATA the five that tell the length of a
 * message; a message's place is kept for each stream that is in the midst of one. What the server
 * has closed is not known here, so the place that was used least recently makes room for a new one.
 * Where the messages of that stream and of older ones begin is not known from then on, so none of
 * them may go on; a client that keeps to `streams_max` has never so many that still matter.
 */
#include "server/rpc/http2_guard.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/base/error.h"
#include "runtime/base/macros.h"

enum {
        FRAME_HEAD = 9,
        MESSAGE_HEAD = 5, /* compression flag and length */
        FRAME_MAX = 16384,
        HEADERS_MAX = 64 << 10, /* compressed; gRPC takes 16 KiB of them decompressed */
        STRANGER_RESETS = 32,   /* in all */
        PLACES_MAX = 1024,
        CRUMBS_FREE = 256, /* frames of a message, … */
        CRUMB_BYTES = 256, /* … and one more for so many bytes of it */
};

enum frame_type {
        FRAME_DATA = 0,
        FRAME_HEADERS = 1,
        FRAME_RST_STREAM = 3,
        FRAME_WINDOW_UPDATE = 8,
        FRAME_CONTINUATION = 9,
};

enum {
        FLAG_END_STREAM = 1,
        FLAG_END_HEADERS = 4,
};

/* So many at once, and then so many a second. */
struct bucket {
        unsigned burst;
        unsigned per_second;
        uint64_t spent_thousandths;
        uint64_t when_msec;
};

/* Where a stream is in a message. */
struct place {
        uint32_t stream; /* zero: none */
        uint8_t head[MESSAGE_HEAD];
        uint8_t n_head;
        uint32_t left;
        uint32_t n_bytes;
        uint32_t n_frames;
        uint64_t used;
};

struct http2_guard {
        size_t message_max_bytes;
        size_t n_preface;
        uint8_t head[FRAME_HEAD];
        size_t n_head;
        uint8_t type, flags;
        uint32_t stream;
        uint32_t left; /* of the frame's payload */
        bool in_headers;
        size_t n_headers;
        struct place *data; /* of the DATA frame that is being read */
        struct bucket frames, resets, updates;
        unsigned n_resets;
        uint64_t clock; /* counts DATA frames */
        atomic_bool is_trusted, has_begun;
        atomic_int verdict;
        uint32_t lost_below; /* streams up to it have lost their places */
        unsigned n_places;
        unsigned n_used; /* further ones were never used */
        struct place places[];
};

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
enum { PREFACE = sizeof(preface) - 1 };

int http2_guard_new(const struct http2_limits *limits, struct http2_guard **ret_guard)
{
        unsigned n_places = MIN(MAX(limits->streams_max, 8U) * 2, (unsigned)PLACES_MAX);
        struct http2_guard *guard = calloc(1, sizeof(*guard) + n_places * sizeof(struct place));

        if (!guard)
                return error_origin(-ENOMEM);
        guard->message_max_bytes = limits->message_max_bytes;
        guard->n_places = n_places;
        guard->frames = (struct bucket){ .burst = 1000, .per_second = 500 };
        /* A client may cancel all that it has open, and again. */
        guard->resets = (struct bucket){ .burst = 1024, .per_second = 200 };
        /* A client that takes a gigabyte a second sends one or two for each 16 KiB of it at most.
         */
        guard->updates = (struct bucket){ .burst = 50000, .per_second = 100000 };
        *ret_guard = guard;
        return 0;
}

struct http2_guard *http2_guard_free(struct http2_guard *guard)
{
        free(guard);
        return NULL;
}

void http2_guard_trust(struct http2_guard *guard)
{
        atomic_store(&guard->is_trusted, true);
}

bool http2_guard_has_begun(const struct http2_guard *guard)
{
        return atomic_load(&guard->has_begun);
}

enum http2_verdict http2_guard_verdict(const struct http2_guard *guard)
{
        return (enum http2_verdict)atomic_load(&guard->verdict);
}

const char *http2_verdict_text(enum http2_verdict verdict)
{
        static const char *const texts[] = {
                [HTTP2_FINE] = "fine",
                [HTTP2_NOT_SPOKEN] = "it does not speak HTTP/2",
                [HTTP2_MALFORMED] = "malformed frame",
                [HTTP2_HEADERS_TOO_LONG] = "headers without end",
                [HTTP2_TOO_MANY_FRAMES] = "flood of empty frames",
                [HTTP2_TOO_MANY_RESETS] = "flood of resets",
                [HTTP2_MESSAGE_TOO_LONG] = "message far above receive_max",
                [HTTP2_MESSAGE_IN_CRUMBS] = "message in tiny frames",
                [HTTP2_LOST_TRACK] = "too many unfinished messages",
        };

        static_assert(ARRAY_SIZE(texts) == _HTTP2_VERDICT_N, "every verdict has a text");
        return texts[verdict];
}

static bool bucket_take(struct bucket *bucket, uint64_t now_msec)
{
        uint64_t regained = (now_msec - bucket->when_msec) * bucket->per_second;

        bucket->spent_thousandths -= MIN(bucket->spent_thousandths, regained);
        bucket->when_msec = now_msec;
        if (bucket->spent_thousandths + 1000 > (uint64_t)bucket->burst * 1000)
                return false;
        bucket->spent_thousandths += 1000;
        return true;
}

/* --- places --- */

static struct place *find_place(struct http2_guard *guard, uint32_t stream)
{
        for (unsigned i = 0; i < guard->n_used; i++)
                if (guard->places[i].stream == stream)
                        return &guard->places[i];
        return NULL;
}

static struct place *new_place(struct http2_guard *guard, uint32_t stream)
{
        struct place *oldest = &guard->places[0];

        for (unsigned i = 0; i < guard->n_used && oldest->stream; i++)
                if (!guard->places[i].stream || guard->places[i].used < oldest->used)
                        oldest = &guard->places[i];
        if (oldest->stream && guard->n_used < guard->n_places)
                oldest = &guard->places[guard->n_used];
        if (oldest == &guard->places[guard->n_used])
                guard->n_used++;
        guard->lost_below = MAX(guard->lost_below, oldest->stream);
        *oldest = (struct place){ .stream = stream };
        return oldest;
}

static void forget_place(struct place *place)
{
        *place = (struct place){ 0 };
}

/* --- frames --- */

static enum http2_verdict begin_data(struct http2_guard *guard)
{
        if (guard->flags & ~FLAG_END_STREAM)
                return HTTP2_MALFORMED; /* gRPC takes no padding */
        guard->data = find_place(guard, guard->stream);
        if (guard->left == 0)
                return HTTP2_FINE;
        if (!guard->data && guard->stream <= guard->lost_below)
                return HTTP2_LOST_TRACK;
        if (!guard->data)
                guard->data = new_place(guard, guard->stream);
        guard->data->used = ++guard->clock;
        guard->data->n_frames++;
        return HTTP2_FINE;
}

static enum http2_verdict begin_reset(struct http2_guard *guard, uint64_t now_msec)
{
        struct place *place = find_place(guard, guard->stream);

        if (place)
                forget_place(place);
        if (!atomic_load(&guard->is_trusted) && ++guard->n_resets > STRANGER_RESETS)
                return HTTP2_TOO_MANY_RESETS;
        return bucket_take(&guard->resets, now_msec) ? HTTP2_FINE : HTTP2_TOO_MANY_RESETS;
}

static enum http2_verdict begin_headers(struct http2_guard *guard)
{
        if (guard->type == FRAME_HEADERS)
                guard->n_headers = 0;
        guard->n_headers += guard->left;
        guard->in_headers = !(guard->flags & FLAG_END_HEADERS);
        return guard->n_headers > HEADERS_MAX ? HTTP2_HEADERS_TOO_LONG : HTTP2_FINE;
}

static bool is_idle_frame(const struct http2_guard *guard)
{
        switch (guard->type) {
        case FRAME_DATA:
                return guard->left == 0 && !(guard->flags & FLAG_END_STREAM);
        case FRAME_HEADERS:
        case FRAME_RST_STREAM: /* these have bounds of their own */
        case FRAME_WINDOW_UPDATE:
                return false;
        default:
                return true;
        }
}

static enum http2_verdict begin_frame(struct http2_guard *guard, uint64_t now_msec)
{
        const uint8_t *head = guard->head;

        guard->left = (uint32_t)head[0] << 16 | (uint32_t)head[1] << 8 | head[2];
        guard->type = head[3];
        guard->flags = head[4];
        guard->stream = ((uint32_t)head[5] & 0x7f) << 24 | (uint32_t)head[6] << 16 |
                        (uint32_t)head[7] << 8 | head[8];
        if (guard->left > FRAME_MAX)
                return HTTP2_MALFORMED;
        /* Nothing may come between the pieces of one header block. */
        if (guard->in_headers != (guard->type == FRAME_CONTINUATION))
                return HTTP2_MALFORMED;
        if (is_idle_frame(guard) && !bucket_take(&guard->frames, now_msec))
                return HTTP2_TOO_MANY_FRAMES;

        switch (guard->type) {
        case FRAME_DATA:
                return guard->stream ? begin_data(guard) : HTTP2_MALFORMED;
        case FRAME_RST_STREAM:
                return guard->stream ? begin_reset(guard, now_msec) : HTTP2_MALFORMED;
        case FRAME_WINDOW_UPDATE:
                return bucket_take(&guard->updates, now_msec) ? HTTP2_FINE : HTTP2_TOO_MANY_FRAMES;
        case FRAME_HEADERS:
        case FRAME_CONTINUATION:
                return begin_headers(guard);
        default:
                return HTTP2_FINE;
        }
}

static enum http2_verdict end_frame(struct http2_guard *guard)
{
        struct place *place = take(guard->data);

        guard->n_head = 0;
        if (!place)
                return HTTP2_FINE;
        if (guard->flags & FLAG_END_STREAM || place->n_head == 0)
                forget_place(place);
        else if (place->n_frames > CRUMBS_FREE + place->n_bytes / CRUMB_BYTES)
                return HTTP2_MESSAGE_IN_CRUMBS;
        return HTTP2_FINE;
}

/* --- messages --- */

static enum http2_verdict take_message_head(struct http2_guard *guard, struct place *place,
                                            uint8_t byte)
{
        place->head[place->n_head++] = byte;
        if (place->n_head < MESSAGE_HEAD)
                return HTTP2_FINE;
        place->left = (uint32_t)place->head[1] << 24 | (uint32_t)place->head[2] << 16 |
                      (uint32_t)place->head[3] << 8 | place->head[4];
        place->n_bytes = 0;
        place->n_frames = 1;
        if (place->left == 0)
                place->n_head = 0;
        return place->left > guard->message_max_bytes ? HTTP2_MESSAGE_TOO_LONG : HTTP2_FINE;
}

static enum http2_verdict take_data(struct http2_guard *guard, const uint8_t *bytes, size_t n)
{
        struct place *place = guard->data;
        enum http2_verdict verdict = HTTP2_FINE;

        while (n > 0 && verdict == HTTP2_FINE) {
                size_t taken = 1;

                if (place->n_head < MESSAGE_HEAD) {
                        verdict = take_message_head(guard, place, *bytes);
                } else {
                        taken = MIN(n, (size_t)place->left);
                        place->left -= (uint32_t)taken;
                        place->n_bytes += (uint32_t)taken;
                        if (place->left == 0)
                                place->n_head = 0;
                }
                bytes += taken;
                n -= taken;
        }
        return verdict;
}

/* --- the stream of bytes --- */

static enum http2_verdict take_preface(struct http2_guard *guard, const uint8_t *bytes, size_t n)
{
        if (memcmp(preface + guard->n_preface, bytes, n) != 0)
                return HTTP2_NOT_SPOKEN;
        guard->n_preface += n;
        if (guard->n_preface == PREFACE)
                atomic_store(&guard->has_begun, true);
        return HTTP2_FINE;
}

static enum http2_verdict take_frame_head(struct http2_guard *guard, const uint8_t *bytes, size_t n,
                                          uint64_t now_msec)
{
        enum http2_verdict verdict;

        memcpy(guard->head + guard->n_head, bytes, n);
        guard->n_head += n;
        if (guard->n_head < FRAME_HEAD)
                return HTTP2_FINE;
        verdict = begin_frame(guard, now_msec);
        return verdict || guard->left ? verdict : end_frame(guard);
}

static enum http2_verdict take_payload(struct http2_guard *guard, const uint8_t *bytes, size_t n)
{
        enum http2_verdict verdict = HTTP2_FINE;

        if (guard->type == FRAME_DATA)
                verdict = take_data(guard, bytes, n);
        guard->left -= (uint32_t)n;
        return verdict || guard->left ? verdict : end_frame(guard);
}

enum http2_verdict http2_guard_take(struct http2_guard *guard, const void *bytes, size_t n_bytes,
                                    uint64_t now_msec)
{
        enum http2_verdict verdict = http2_guard_verdict(guard);
        const uint8_t *at = bytes;

        while (n_bytes > 0 && verdict == HTTP2_FINE) {
                size_t taken;

                if (guard->n_preface < PREFACE) {
                        taken = MIN(n_bytes, PREFACE - guard->n_preface);
                        verdict = take_preface(guard, at, taken);
                } else if (guard->n_head < FRAME_HEAD) {
                        taken = MIN(n_bytes, FRAME_HEAD - guard->n_head);
                        verdict = take_frame_head(guard, at, taken, now_msec);
                } else {
                        taken = MIN(n_bytes, (size_t)guard->left);
                        verdict = take_payload(guard, at, taken);
                }
                at += taken;
                n_bytes -= taken;
        }
        if (verdict)
                atomic_store(&guard->verdict, (int)verdict);
        return verdict;
}
