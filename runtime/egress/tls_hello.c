/*
 * Two layers, byte by byte: records (RFC 8446 5.1, RFC 5246 6.2.1) carry the message, and the
 * message (RFC 8446 4.1.2, RFC 5246 7.4.1.2) is a row of fields, each of a length that is known
 * when it begins. A field ends when `left` is 0, and what it said decides which one follows.
 *
 * OpenSSL and GnuTLS read a ClientHello only as a server's whole handshake, with allocations, and
 * both reject what they do not support themselves; so it is read here.
 */
#include "runtime/egress/tls_hello.h"

#include "runtime/base/macros.h"

enum {
        RECORD_HANDSHAKE = 22, /* ContentType, RFC 8446 5.1 */
        RECORD_MAJOR = 3,      /* of every version of TLS and of SSL 3.0 */
        RECORD_MAX = 16384,    /* 2^14, RFC 8446 5.1 */
        MESSAGE_CLIENT_HELLO = 1,
        VERSION_AND_RANDOM = 2 + 32,
        SESSION_ID_MAX = 32,
        EXTENSION_SERVER_NAME = 0, /* RFC 6066 3 */
        NAME_TYPE_HOST = 0,        /* RFC 6066 3 */
};

/* In their order. */
enum field {
        FIELD_START,
        FIELD_TYPE,
        FIELD_LENGTH,
        FIELD_VERSION_AND_RANDOM,
        FIELD_SESSION_ID_LENGTH,
        FIELD_SESSION_ID,
        FIELD_SUITES_LENGTH,
        FIELD_SUITES,
        FIELD_METHODS_LENGTH,
        FIELD_METHODS,
        FIELD_EXTENSIONS_LENGTH,
        FIELD_EXTENSION_TYPE, /* from here on again and again */
        FIELD_EXTENSION_LENGTH,
        FIELD_EXTENSION, /* of a type that does not matter here */
        FIELD_NAMES_LENGTH,
        FIELD_NAME_TYPE,
        FIELD_NAME_LENGTH,
        FIELD_NAME,
        _FIELD_N,
};

static void decide(struct tls_hello *hello, enum tls_hello_state state)
{
        hello->state = state;
        if (state != TLS_HELLO_FOUND)
                hello->name[0] = '\0';
}

static void refuse(struct tls_hello *hello)
{
        decide(hello, TLS_HELLO_MALFORMED);
}

/* A field must end within what it is a part of. */
static void enter(struct tls_hello *hello, enum field field, uint32_t n_bytes)
{
        bool is_in_extension = field >= FIELD_EXTENSION;

        if (n_bytes > (is_in_extension ? hello->extension_left : hello->message_left)) {
                refuse(hello);
                return;
        }
        hello->field = (uint8_t)field;
        hello->left = n_bytes;
        if (field != FIELD_EXTENSION_LENGTH)
                hello->value = 0;
}

static void end_start(struct tls_hello *hello)
{
        hello->message_left = 4; /* until its length is known */
        enter(hello, FIELD_TYPE, 1);
}

static void end_type(struct tls_hello *hello)
{
        if (hello->value != MESSAGE_CLIENT_HELLO)
                refuse(hello);
        else
                enter(hello, FIELD_LENGTH, 3);
}

static void end_length(struct tls_hello *hello)
{
        if (hello->value > TLS_HELLO_MAX) {
                refuse(hello);
                return;
        }
        hello->message_left = hello->value;
        enter(hello, FIELD_VERSION_AND_RANDOM, VERSION_AND_RANDOM);
}

static void end_version_and_random(struct tls_hello *hello)
{
        enter(hello, FIELD_SESSION_ID_LENGTH, 1);
}

static void end_session_id_length(struct tls_hello *hello)
{
        if (hello->value > SESSION_ID_MAX)
                refuse(hello);
        else
                enter(hello, FIELD_SESSION_ID, hello->value);
}

static void end_session_id(struct tls_hello *hello)
{
        enter(hello, FIELD_SUITES_LENGTH, 2);
}

static void end_suites_length(struct tls_hello *hello)
{
        if (hello->value < 2 || hello->value % 2 != 0)
                refuse(hello);
        else
                enter(hello, FIELD_SUITES, hello->value);
}

static void end_suites(struct tls_hello *hello)
{
        enter(hello, FIELD_METHODS_LENGTH, 1);
}

static void end_methods_length(struct tls_hello *hello)
{
        if (hello->value < 1)
                refuse(hello);
        else
                enter(hello, FIELD_METHODS, hello->value);
}

/* Before TLS 1.3 a message may end without extensions (RFC 5246 7.4.1.2). */
static void end_methods(struct tls_hello *hello)
{
        if (hello->message_left == 0)
                decide(hello, TLS_HELLO_ABSENT);
        else
                enter(hello, FIELD_EXTENSIONS_LENGTH, 2);
}

static void begin_extension(struct tls_hello *hello)
{
        if (hello->message_left > 0)
                enter(hello, FIELD_EXTENSION_TYPE, 2);
        else
                decide(hello, hello->has_name ? TLS_HELLO_FOUND : TLS_HELLO_ABSENT);
}

/* They are the last part of the message. */
static void end_extensions_length(struct tls_hello *hello)
{
        if (hello->value != hello->message_left)
                refuse(hello);
        else
                begin_extension(hello);
}

static void end_extension_type(struct tls_hello *hello)
{
        /* Its length comes behind the type in `value`. */
        enter(hello, FIELD_EXTENSION_LENGTH, 2);
}

static void end_extension_length(struct tls_hello *hello)
{
        uint32_t type = hello->value >> 16;
        uint32_t n_bytes = hello->value & UINT16_MAX;

        if (n_bytes > hello->message_left) {
                refuse(hello);
                return;
        }
        hello->extension_left = n_bytes;
        if (type != EXTENSION_SERVER_NAME)
                enter(hello, FIELD_EXTENSION, n_bytes);
        else if (hello->has_name) /* each type once, RFC 8446 4.2: else which one counts? */
                refuse(hello);
        else
                enter(hello, FIELD_NAMES_LENGTH, 2);
}

static void end_extension(struct tls_hello *hello)
{
        begin_extension(hello);
}

static void end_names_length(struct tls_hello *hello)
{
        if (hello->value != hello->extension_left)
                refuse(hello);
        else
                enter(hello, FIELD_NAME_TYPE, 1);
}

/* There is no other type, and one name of each (RFC 6066 3): so it is the only one in the list. */
static void end_name_type(struct tls_hello *hello)
{
        if (hello->value != NAME_TYPE_HOST)
                refuse(hello);
        else
                enter(hello, FIELD_NAME_LENGTH, 2);
}

static void end_name_length(struct tls_hello *hello)
{
        if (hello->value != hello->extension_left || hello->value > sizeof(hello->name))
                refuse(hello);
        else
                enter(hello, FIELD_NAME, hello->value);
}

/* RFC 6066 3 wants no dot at the end and no address; the dot some clients leave there. */
static void end_name(struct tls_hello *hello)
{
        hello->has_name = true;
        if (host_name_read(hello->name, hello->n_name, hello->name))
                begin_extension(hello);
        else
                refuse(hello);
}

static void (*const field_ends[])(struct tls_hello *hello) = {
        [FIELD_START] = end_start,
        [FIELD_TYPE] = end_type,
        [FIELD_LENGTH] = end_length,
        [FIELD_VERSION_AND_RANDOM] = end_version_and_random,
        [FIELD_SESSION_ID_LENGTH] = end_session_id_length,
        [FIELD_SESSION_ID] = end_session_id,
        [FIELD_SUITES_LENGTH] = end_suites_length,
        [FIELD_SUITES] = end_suites,
        [FIELD_METHODS_LENGTH] = end_methods_length,
        [FIELD_METHODS] = end_methods,
        [FIELD_EXTENSIONS_LENGTH] = end_extensions_length,
        [FIELD_EXTENSION_TYPE] = end_extension_type,
        [FIELD_EXTENSION_LENGTH] = end_extension_length,
        [FIELD_EXTENSION] = end_extension,
        [FIELD_NAMES_LENGTH] = end_names_length,
        [FIELD_NAME_TYPE] = end_name_type,
        [FIELD_NAME_LENGTH] = end_name_length,
        [FIELD_NAME] = end_name,
};
static_assert(ARRAY_SIZE(field_ends) == _FIELD_N, "every field has an end");

/* Fields may be empty, so several may end at one byte. */
static void end_fields(struct tls_hello *hello)
{
        while (hello->state == TLS_HELLO_NEED_MORE && hello->left == 0)
                field_ends[hello->field](hello);
}

static void take_message_byte(struct tls_hello *hello, uint8_t byte)
{
        if (hello->field == FIELD_START)
                end_fields(hello);
        if (hello->field == FIELD_NAME)
                hello->name[hello->n_name++] = (char)byte;
        hello->value = hello->value << 8 | byte;
        hello->left--;
        hello->message_left--;
        if (hello->field >= FIELD_EXTENSION)
                hello->extension_left--;
        end_fields(hello);
}

/* The version in it is history (RFC 8446 5.1): only its first byte tells TLS from other things. */
static bool is_record_byte_good(const struct tls_hello *hello, uint8_t byte)
{
        switch (hello->n_record_header) {
        case 0:
                return byte == RECORD_HANDSHAKE;
        case 1:
                return byte == RECORD_MAJOR;
        default:
                return true;
        }
}

/* No other record may come between those of a message, and none is empty (RFC 8446 5.1). */
static void take_record_byte(struct tls_hello *hello, uint8_t byte)
{
        if (!is_record_byte_good(hello, byte)) {
                decide(hello, hello->has_record ? TLS_HELLO_MALFORMED : TLS_HELLO_NOT_TLS);
                return;
        }
        hello->n_record_header++;
        hello->record_left = (uint16_t)(hello->record_left << 8 | byte);
        if (hello->n_record_header < 5) {
                return;
        }
        hello->n_record_header = 0;
        hello->has_record = true;
        if (hello->record_left == 0 || hello->record_left > RECORD_MAX)
                refuse(hello);
}

static void take_byte(struct tls_hello *hello, uint8_t byte)
{
        if (hello->n_record_header > 0 || hello->record_left == 0) {
                take_record_byte(hello, byte);
                return;
        }
        hello->record_left--;
        take_message_byte(hello, byte);
}

enum tls_hello_state tls_hello_take(struct tls_hello *hello, const void *bytes, size_t n_bytes)
{
        const uint8_t *at = bytes;

        for (size_t i = 0; i < n_bytes && hello->state == TLS_HELLO_NEED_MORE; i++) {
                take_byte(hello, at[i]);
                if (++hello->n_seen == TLS_HELLO_MAX && hello->state == TLS_HELLO_NEED_MORE)
                        refuse(hello);
        }
        return hello->state;
}
