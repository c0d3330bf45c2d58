#include "runtime/egress/dns_name.h"

#include <string.h>

#include "runtime/base/dns_label.h"
#include "runtime/base/macros.h"

enum { POINTER = 0xc0 };

/* A name that is being read. */
struct name {
        char text[DNS_NAME_BUFFER];
        size_t n_text;
        size_t n_wire; /* as it would be without compression */
        bool is_odd;
};

bool dns_read_u16(struct dns_reader *reader, uint16_t *ret_value)
{
        const uint8_t *bytes = reader->bytes + reader->at;

        if (!dns_skip(reader, 2))
                return false;
        *ret_value = (uint16_t)(bytes[0] << 8 | bytes[1]);
        return true;
}

bool dns_read_u32(struct dns_reader *reader, uint32_t *ret_value)
{
        const uint8_t *bytes = reader->bytes + reader->at;

        if (!dns_skip(reader, 4))
                return false;
        *ret_value = (uint32_t)bytes[0] << 24 | (uint32_t)bytes[1] << 16 | (uint32_t)bytes[2] << 8 |
                     bytes[3];
        return true;
}

bool dns_skip(struct dns_reader *reader, size_t n_bytes)
{
        if (reader->n_bytes - reader->at < n_bytes)
                return false;
        reader->at += n_bytes;
        return true;
}

/* NUL: no host has that in its name. */
static char to_text(uint8_t byte)
{
        if (byte >= 'A' && byte <= 'Z')
                return (char)(byte - 'A' + 'a');
        if ((byte >= 'a' && byte <= 'z') || (byte >= '0' && byte <= '9') || byte == '-' ||
            byte == '_')
                return (char)byte;
        return '\0';
}

static bool append_label(struct name *name, const uint8_t *label, size_t n_label)
{
        name->n_wire += 1 + n_label;
        if (name->n_wire + 1 > DNS_NAME_WIRE_MAX)
                return false;
        if (name->n_text > 0)
                name->text[name->n_text++] = '.';
        for (size_t i = 0; i < n_label; i++) {
                char c = to_text(label[i]);

                name->is_odd = name->is_odd || !c;
                name->text[name->n_text++] = c;
        }
        return true;
}

int dns_name_read(struct dns_reader *reader, bool may_compress,
                  char ret_text[static DNS_NAME_BUFFER])
{
        struct dns_reader here = *reader;
        struct name name = { 0 };
        size_t segment = reader->at; /* where the labels that are read now begin */
        bool is_elsewhere = false;

        for (;;) {
                const uint8_t *label = here.bytes + here.at;
                uint16_t target;

                if (here.at == here.n_bytes)
                        return DNS_NAME_E_MALFORMED;
                if (*label >= POINTER) {
                        if (!may_compress || !dns_read_u16(&here, &target))
                                return DNS_NAME_E_MALFORMED;
                        target &= 0x3fff;
                        if (!is_elsewhere)
                                reader->at = here.at;
                        if (target >= segment)
                                return DNS_NAME_E_MALFORMED;
                        is_elsewhere = true;
                        segment = target;
                        here.at = target;
                        continue;
                }
                if (*label > DNS_LABEL_MAX || !dns_skip(&here, (size_t)1 + *label))
                        return DNS_NAME_E_MALFORMED;
                if (*label == 0)
                        break;
                if (!append_label(&name, label + 1, *label))
                        return DNS_NAME_E_MALFORMED;
        }
        if (!is_elsewhere)
                reader->at = here.at;
        if (name.is_odd)
                return DNS_NAME_E_ODD;
        memcpy(ret_text, name.text, name.n_text + 1);
        return 0;
}

size_t dns_name_write(const char *text, uint8_t ret_bytes[static DNS_NAME_WIRE_MAX])
{
        size_t n = 0;

        assert(strlen(text) < DNS_NAME_BUFFER);
        while (*text) {
                size_t n_label = strcspn(text, ".");

                assert(n_label > 0 && n_label <= DNS_LABEL_MAX);
                ret_bytes[n++] = (uint8_t)n_label;
                memcpy(ret_bytes + n, text, n_label);
                n += n_label;
                text += n_label + (text[n_label] == '.');
        }
        ret_bytes[n++] = 0;
        return n;
}
