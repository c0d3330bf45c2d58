#include "runtime/base/base32.h"

#include <assert.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/random.h>

#include "runtime/base/error.h"

static const char alphabet[] = "abcdefghijklmnopqrstuvwxyz234567";

int base32_random(char *ret_text, size_t n)
{
        uint8_t random[BASE32_RANDOM_MAX];

        assert(n <= sizeof(random));
        if (getrandom(random, n, 0) != (ssize_t)n)
                return error_origin(-errno);
        for (size_t i = 0; i < n; i++)
                ret_text[i] = alphabet[random[i] & 31];
        ret_text[n] = '\0';
        explicit_bzero(random, sizeof(random)); /* it may have become a secret */
        return 0;
}

bool base32_is_valid(const char *text, size_t n)
{
        return strlen(text) == n && strspn(text, alphabet) == n;
}
