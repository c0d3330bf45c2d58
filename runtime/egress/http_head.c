/*
 * Byte by byte: each place in the head has a function that takes the next byte and says where the
 * one after it is. Words that matter (method, scheme, version, the name of a field) are gathered in
 * `word`, hosts in `authority`; nothing else is kept.
 *
 * llhttp is not in Debian, and http-parser, which is, has no maintainer any more; both are lenient
 * by design, and what they forgive (several Hosts, bare line feeds) is what must be refused here.
 */
#include "runtime/egress/http_head.h"

#include <string.h>

#include "runtime/base/macros.h"

enum { PORT_HTTP = 80, PORT_HTTPS = 443 };

static const char preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"; /* RFC 9113 3.4 */

enum place {
        PLACE_METHOD,
        PLACE_METHOD_CR, /* a line of one word: the next byte tells what it is */
        PLACE_PREFACE,   /* PRI */
        PLACE_TARGET,    /* its first byte */
        PLACE_ASTERISK,  /* behind the one of OPTIONS */
        PLACE_SCHEME,    /* absolute form: up to the colon */
        PLACE_SLASH_1,
        PLACE_SLASH_2,
        PLACE_AUTHORITY,
        PLACE_PATH,
        PLACE_VERSION,
        PLACE_LINE_FEED, /* after a carriage return */
        PLACE_LINE,      /* its first byte */
        PLACE_NAME,
        PLACE_BLANKS, /* before a value */
        PLACE_VALUE,
        PLACE_LAST_LINE_FEED,
        _PLACE_N,
};

static void decide(struct http_head *head, enum http_head_state state)
{
        head->state = state;
        if (state != HTTP_HEAD_FOUND)
                head->host = (struct host){ 0 };
}

static void refuse(struct http_head *head)
{
        decide(head, HTTP_HEAD_MALFORMED);
}

static void go(struct http_head *head, enum place place)
{
        head->place = (uint8_t)place;
}

static bool is_alpha(uint8_t byte)
{
        return (byte >= 'a' && byte <= 'z') || (byte >= 'A' && byte <= 'Z');
}

/* tchar, RFC 9110 5.6.2 */
static bool is_token(uint8_t byte)
{
        return is_alpha(byte) || (byte >= '0' && byte <= '9') ||
               (byte != '\0' && strchr("!#$%&'*+-.^_`|~", byte));
}

/* In a target and in a value, RFC 9110 5.5: no controls. Bytes above ASCII are common in both. */
static bool is_visible(uint8_t byte)
{
        return byte > ' ' && byte != 0x7f;
}

static bool is_blank(uint8_t byte)
{
        return byte == ' ' || byte == '\t';
}

/* Of longer ones the first bytes, which are more than any word that matters has. */
static void add_to_word(struct http_head *head, uint8_t byte)
{
        if (head->n_word < HTTP_HEAD_WORD_MAX)
                head->word[head->n_word++] = (char)byte;
        head->word[head->n_word] = '\0';
}

static void clear_word(struct http_head *head)
{
        head->n_word = 0;
        head->word[0] = '\0';
}

static void add_to_authority(struct http_head *head, uint8_t byte)
{
        if (head->n_authority == sizeof(head->authority))
                refuse(head);
        else
                head->authority[head->n_authority++] = (char)byte;
}

static void end_method(struct http_head *head)
{
        if (strcmp(head->word, "CONNECT") == 0)
                decide(head, HTTP_HEAD_CONNECT);
        else if (strcmp(head->word, "PRI") == 0)
                go(head, PLACE_PREFACE);
        else
                go(head, PLACE_TARGET);
}

/* Servers skip empty lines and blanks before a request, and take other blanks for a space. */
static bool may_be_skipped(const struct http_head *head, uint8_t byte)
{
        return is_blank(byte) || byte == '\v' || byte == '\f' ||
               (head->n_word == 0 && (byte == '\r' || byte == '\n'));
}

static void take_method(struct http_head *head, uint8_t byte)
{
        if (is_token(byte) && head->n_word < HTTP_HEAD_WORD_MAX)
                add_to_word(head, byte);
        else if (byte == ' ' && head->n_word > 0)
                end_method(head);
        else if (may_be_skipped(head, byte))
                refuse(head);
        else if (byte == '\r')
                go(head, PLACE_METHOD_CR);
        else
                decide(head, HTTP_HEAD_NOT_HTTP);
}

static void take_method_cr(struct http_head *head, uint8_t byte)
{
        decide(head, byte == '\n' ? HTTP_HEAD_NOT_HTTP : HTTP_HEAD_MALFORMED);
}

static void take_preface(struct http_head *head, uint8_t byte)
{
        if (byte != (uint8_t)preface[head->n_seen])
                refuse(head);
        else if (head->n_seen == strlen(preface) - 1)
                decide(head, HTTP_HEAD_NOT_HTTP);
}

static void take_target(struct http_head *head, uint8_t byte)
{
        bool is_options = strcmp(head->word, "OPTIONS") == 0;

        clear_word(head);
        if (byte == '/') {
                go(head, PLACE_PATH);
        } else if (byte == '*' && is_options) {
                go(head, PLACE_ASTERISK);
        } else if (is_alpha(byte)) {
                add_to_word(head, byte | 0x20);
                go(head, PLACE_SCHEME);
        } else {
                refuse(head);
        }
}

static void begin_version(struct http_head *head)
{
        clear_word(head);
        go(head, PLACE_VERSION);
}

static void take_asterisk(struct http_head *head, uint8_t byte)
{
        if (byte == ' ')
                begin_version(head);
        else
                refuse(head);
}

static void take_scheme(struct http_head *head, uint8_t byte)
{
        if (is_alpha(byte)) {
                add_to_word(head, byte | 0x20);
                return;
        }
        head->is_https = strcmp(head->word, "https") == 0;
        if (byte == ':' && (head->is_https || strcmp(head->word, "http") == 0))
                go(head, PLACE_SLASH_1);
        else
                refuse(head);
}

static void take_slash(struct http_head *head, uint8_t byte)
{
        if (byte == '/')
                go(head, head->place == PLACE_SLASH_1 ? PLACE_SLASH_2 : PLACE_AUTHORITY);
        else
                refuse(head);
}

/* A user before the host is refused as part of the host (RFC 9110 4.2.4). */
static void take_authority(struct http_head *head, uint8_t byte)
{
        if (is_visible(byte) && byte != '/' && byte != '?') {
                add_to_authority(head, byte);
                return;
        }
        if ((!is_visible(byte) && byte != ' ') ||
            !host_read(head->authority, head->n_authority, &head->target, &head->target_port)) {
                refuse(head);
                return;
        }
        head->has_target_host = true;
        head->n_authority = 0;
        if (byte == ' ')
                begin_version(head);
        else
                go(head, PLACE_PATH);
}

static void take_path(struct http_head *head, uint8_t byte)
{
        if (byte == ' ')
                begin_version(head);
        else if (!is_visible(byte))
                refuse(head);
}

/* Later minor versions are read like 1.1 (RFC 9110 2.5). */
static void take_version(struct http_head *head, uint8_t byte)
{
        static const char expected[] = "HTTP/1.";
        bool is_minor = head->n_word == strlen(expected);

        if (head->n_word > strlen(expected)) {
                if (byte == '\r')
                        go(head, PLACE_LINE_FEED);
                else
                        refuse(head);
                return;
        }
        if (is_minor ? byte < '0' || byte > '9' : byte != (uint8_t)expected[head->n_word]) {
                refuse(head);
                return;
        }
        head->has_version_0 = is_minor && byte == '0';
        add_to_word(head, byte);
}

static void take_line_feed(struct http_head *head, uint8_t byte)
{
        if (byte == '\n')
                go(head, PLACE_LINE);
        else
                refuse(head);
}

/* A blank would go on with the line before (obs-fold, RFC 9112 5.2; also 2.2 of the first). */
static void take_line(struct http_head *head, uint8_t byte)
{
        clear_word(head);
        if (byte == '\r') {
                go(head, PLACE_LAST_LINE_FEED);
        } else if (is_token(byte)) {
                add_to_word(head, is_alpha(byte) ? byte | 0x20 : byte);
                go(head, PLACE_NAME);
        } else {
                refuse(head);
        }
}

static bool is_in_host_field(const struct http_head *head)
{
        return strcmp(head->word, "host") == 0;
}

/* The colon stands right behind the name (RFC 9112 5.1). */
static void take_name(struct http_head *head, uint8_t byte)
{
        if (is_token(byte)) {
                add_to_word(head, is_alpha(byte) ? byte | 0x20 : byte);
        } else if (byte == ':' && !(is_in_host_field(head) && head->has_header_host)) {
                go(head, PLACE_BLANKS);
        } else {
                refuse(head);
        }
}

/* Blanks behind the value are not part of it (RFC 9112 5). */
static void end_value(struct http_head *head)
{
        go(head, PLACE_LINE_FEED);
        if (!is_in_host_field(head))
                return;
        while (head->n_authority > 0 && is_blank((uint8_t)head->authority[head->n_authority - 1]))
                head->n_authority--;
        head->has_header_host = true;
        if (!host_read(head->authority, head->n_authority, &head->host, &head->port))
                refuse(head);
}

static void take_value(struct http_head *head, uint8_t byte)
{
        if (byte == '\r') {
                end_value(head);
                return;
        }
        if (head->place == PLACE_BLANKS && is_blank(byte))
                return;
        go(head, PLACE_VALUE);
        if (!is_visible(byte) && !is_blank(byte))
                refuse(head);
        else if (is_in_host_field(head))
                add_to_authority(head, byte);
}

/* RFC 9112 3.2.2: the host of the target and of the field are the same, or somebody lies. */
static bool do_hosts_agree(const struct http_head *head)
{
        uint16_t usual = head->is_https ? PORT_HTTPS : PORT_HTTP;
        uint16_t port = head->port ? head->port : usual;
        uint16_t target_port = head->target_port ? head->target_port : usual;

        return port == target_port && strcmp(head->host.text, head->target.text) == 0;
}

static void end_head(struct http_head *head)
{
        bool has_host = head->has_header_host || head->has_target_host;
        bool is_field_missing = !head->has_header_host && !head->has_version_0; /* RFC 9112 3.2 */
        bool is_lie = head->has_header_host && head->has_target_host && !do_hosts_agree(head);

        if (!head->has_header_host)
                head->host = head->target;
        if (is_field_missing || is_lie)
                refuse(head);
        else
                decide(head, has_host ? HTTP_HEAD_FOUND : HTTP_HEAD_ABSENT);
}

static void take_last_line_feed(struct http_head *head, uint8_t byte)
{
        if (byte == '\n')
                end_head(head);
        else
                refuse(head);
}

static void (*const takers[])(struct http_head *head, uint8_t byte) = {
        [PLACE_METHOD] = take_method,
        [PLACE_METHOD_CR] = take_method_cr,
        [PLACE_PREFACE] = take_preface,
        [PLACE_TARGET] = take_target,
        [PLACE_ASTERISK] = take_asterisk,
        [PLACE_SCHEME] = take_scheme,
        [PLACE_SLASH_1] = take_slash,
        [PLACE_SLASH_2] = take_slash,
        [PLACE_AUTHORITY] = take_authority,
        [PLACE_PATH] = take_path,
        [PLACE_VERSION] = take_version,
        [PLACE_LINE_FEED] = take_line_feed,
        [PLACE_LINE] = take_line,
        [PLACE_NAME] = take_name,
        [PLACE_BLANKS] = take_value,
        [PLACE_VALUE] = take_value,
        [PLACE_LAST_LINE_FEED] = take_last_line_feed,
};
static_assert(ARRAY_SIZE(takers) == _PLACE_N, "every place has a function");

enum http_head_state http_head_take(struct http_head *head, const void *bytes, size_t n_bytes)
{
        const uint8_t *at = bytes;

        for (size_t i = 0; i < n_bytes && head->state == HTTP_HEAD_NEED_MORE; i++) {
                takers[head->place](head, at[i]);
                if (++head->n_seen == HTTP_HEAD_MAX && head->state == HTTP_HEAD_NEED_MORE)
                        refuse(head);
        }
        return head->state;
}
