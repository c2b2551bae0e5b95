/* SPDX-License-Identifier: Apache-2.0
 *
 * string.c: immutable UTF-8 strings. Code points are counted once, when a string is made;
 * ASCII-only strings (as many code points as bytes) index in constant time, others by walking.
 * Searching is for string.c, what scripts call (`.split`, `.find`) for methods_string.c.
 */
#include "lang/value.h"

#include <string.h>

#include "lang/intern.h"
#include "lang/state.h"

static bool is_continuation(char c)
{
    return ((unsigned char)c & 0xc0) == 0x80;
}

static size_t count_chars(const char *bytes, size_t n)
{
    size_t chars = 0;
    for (size_t i = 0; i < n; i++)
        chars += !is_continuation(bytes[i]);
    return chars;
}

pps_status string_new(pps_state *st, const char *bytes, size_t n, value *ret)
{
    if (n >= UINT32_MAX)
        return pps_error(st, vm_current_span(st), 312, "a string of %zu bytes is too long", n);
    void *p;
    PPS_TRY(heap_object(st, PPS_STRING, sizeof(string) + n + 1, &p));
    string *s = p;
    s->n_bytes = n;
    s->n_chars = (uint32_t)count_chars(bytes, n);
    memcpy(s->bytes, bytes, n);
    s->bytes[n] = '\0';
    *ret = value_object(PPS_STRING, s);
    return PPS_OK;
}

/* Length of the well-formed sequence at `p`, 0 when there is none: no overlong forms, no
 * surrogates, nothing above U+10FFFF. */
static size_t sequence_bytes(const unsigned char *p, size_t n)
{
    if (p[0] < 0x80)
        return 1;
    size_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || n < length)
        return 0;
    unsigned char low = 0x80, high = 0xbf; /* of the second byte */
    if (p[0] == 0xe0)
        low = 0xa0;
    else if (p[0] == 0xed)
        high = 0x9f;
    else if (p[0] == 0xf0)
        low = 0x90;
    else if (p[0] == 0xf4)
        high = 0x8f;
    if (p[1] < low || p[1] > high)
        return 0;
    for (size_t i = 2; i < length; i++)
        if (!is_continuation((char)p[i]))
            return 0;
    return length;
}

bool string_is_utf8(const char *bytes, size_t n)
{
    const unsigned char *p = (const unsigned char *)bytes;
    for (size_t i = 0; i < n;) {
        size_t length = sequence_bytes(p + i, n - i);
        if (length == 0)
            return false;
        i += length;
    }
    return true;
}

uint32_t string_hash(string *s)
{
    if (s->hash == 0) {
        uint32_t h = intern_hash(s->bytes, s->n_bytes);
        s->hash = h ? h : 1;
    }
    return s->hash;
}

size_t string_offset(const string *s, size_t i_char)
{
    if (s->n_chars == s->n_bytes)
        return i_char;
    size_t at = 0;
    for (; i_char > 0; i_char--) {
        at++;
        while (is_continuation(s->bytes[at])) /* stops at the NUL */
            at++;
    }
    return at;
}

size_t string_find(const char *hay, size_t n_hay, const char *needle, size_t n_needle, size_t from)
{
    if (from > n_hay || n_needle > n_hay - from)
        return SIZE_MAX;
    const char *at = memmem(hay + from, n_hay - from, needle, n_needle);
    return at ? (size_t)(at - hay) : SIZE_MAX;
}

int string_compare(const string *a, const string *b)
{
    size_t n = a->n_bytes < b->n_bytes ? a->n_bytes : b->n_bytes;
    int order = memcmp(a->bytes, b->bytes, n); /* UTF-8 sorts as its code points do */
    if (order == 0)
        return (a->n_bytes > b->n_bytes) - (a->n_bytes < b->n_bytes);
    return order < 0 ? -1 : 1;
}
