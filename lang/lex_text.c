/* SPDX-License-Identifier: Apache-2.0
 *
 * lex_text.c: see lex_text.h. Errors are found here and worded by the callers.
 */
#include "lang/lex_text.h"

#include <locale.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

size_t lex_utf8(const char *bytes, size_t n, uint32_t *ret_code_point)
{
    const unsigned char *p = (const unsigned char *)bytes;
    if (p[0] < 0x80) {
        *ret_code_point = p[0];
        return 1;
    }
    size_t length = p[0] >= 0xf0 ? 4 : p[0] >= 0xe0 ? 3 : 2;
    if (p[0] < 0xc2 || p[0] > 0xf4 || length > n)
        return 0;
    uint32_t c = p[0] & (0x7fu >> length);
    for (size_t i = 1; i < length; i++) {
        if ((p[i] & 0xc0) != 0x80)
            return 0;
        c = c << 6 | (p[i] & 0x3f);
    }
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (c < least[length] || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret_code_point = c;
    return length;
}

static bool is_bidi_control(uint32_t c)
{
    return (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
}

lex_check lex_check_source(const char *bytes, size_t n)
{
    lex_check found = {.bad_byte = SIZE_MAX, .bidi = SIZE_MAX, .long_line = SIZE_MAX};
    size_t line = 0;
    for (size_t i = 0; i < n;) {
        unsigned char c = (unsigned char)bytes[i];
        if (c == '\n' || i + 1 == n) {
            if (i - line > LEX_MAX_LINE && found.long_line == SIZE_MAX) {
                found.long_line = line;
                found.long_line_bytes = i - line + (c != '\n');
            }
            line = i + 1;
        }
        if (c < 0x80 && c != '\0') {
            i++;
            continue;
        }
        uint32_t code_point;
        size_t length = c == '\0' ? 0 : lex_utf8(bytes + i, n - i, &code_point);
        if (length == 0) {
            found.bad_byte = i;
            return found;
        }
        if (is_bidi_control(code_point) && found.n_bidi++ == 0)
            found.bidi = i;
        i += length;
    }
    return found;
}

static int digit_value(char c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

bool lex_uint(const char *bytes, size_t n, uint64_t *ret)
{
    bool hex = n > 2 && bytes[0] == '0' && (bytes[1] == 'x' || bytes[1] == 'X');
    uint64_t sum = 0;
    for (size_t i = hex ? 2 : 0; i < n; i++) {
        if (bytes[i] == '_')
            continue;
        if (__builtin_mul_overflow(sum, hex ? 16u : 10u, &sum) ||
            __builtin_add_overflow(sum, (uint64_t)digit_value(bytes[i]), &sum))
            return false;
    }
    *ret = sum;
    return true;
}

bool lex_float(const char *bytes, size_t n, double *ret)
{
    char plain[512];
    size_t n_plain = 0;
    for (size_t i = 0; i < n; i++) {
        if (bytes[i] == '_')
            continue;
        if (n_plain + 1 == sizeof plain)
            return false;
        plain[n_plain++] = bytes[i];
    }
    plain[n_plain] = '\0';
    /* The host may have set any locale; glibc hands out its built-in one without allocating. */
    locale_t c_locale = newlocale(LC_ALL_MASK, "C", (locale_t)0);
    if (c_locale == (locale_t)0)
        return false;
    *ret = strtod_l(plain, NULL, c_locale);
    freelocale(c_locale);
    return isfinite(*ret);
}

static size_t put_utf8(uint32_t c, char *out)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    size_t length = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
    for (size_t i = length - 1; i > 0; i--, c >>= 6)
        out[i] = (char)(0x80 | (c & 0x3f));
    out[0] = (char)((0xf00u >> length & 0xf0) | c);
    return length;
}

/* \xNN: `p` is behind the x. Returns the bytes read, 0 when malformed. */
static size_t hex_escape(const char *p, size_t n, uint32_t *ret)
{
    if (n < 2 || digit_value(p[0]) < 0 || digit_value(p[1]) < 0)
        return 0;
    *ret = (uint32_t)(digit_value(p[0]) * 16 + digit_value(p[1]));
    return *ret < 0x80 ? 2 : 0;
}

/* \u{...}: `p` is behind the u. */
static size_t unicode_escape(const char *p, size_t n, uint32_t *ret)
{
    size_t i = 1;
    uint32_t c = 0;
    if (n < 3 || p[0] != '{')
        return 0;
    for (; i < n && i <= 6 && digit_value(p[i]) >= 0; i++)
        c = c * 16 + (uint32_t)digit_value(p[i]);
    if (i == 1 || i == n || p[i] != '}' || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
        return 0;
    *ret = c;
    return i + 1;
}

size_t lex_unescape(const char *bytes, size_t n, char *out, size_t *ret_bad, size_t *ret_bad_end)
{
    size_t n_out = 0;
    for (size_t i = 0; i < n;) {
        if (bytes[i] == '\r' && i + 1 < n && bytes[i + 1] == '\n') {
            i++;
            continue;
        }
        if (bytes[i] != '\\') {
            out[n_out++] = bytes[i++];
            continue;
        }
        char c = i + 1 < n ? bytes[i + 1] : '\0';
        static const char plain[] = "ntr\\\"{}", means[] = "\n\t\r\\\"{}";
        const char *at = c != '\0' ? strchr(plain, c) : NULL;
        uint32_t code_point;
        size_t more = 0;
        if (at != NULL) {
            out[n_out++] = means[at - plain];
        } else {
            if (c == 'x')
                more = hex_escape(bytes + i + 2, n - i - 2, &code_point);
            else if (c == 'u')
                more = unicode_escape(bytes + i + 2, n - i - 2, &code_point);
            if (more == 0) {
                *ret_bad = i;
                *ret_bad_end = i + 2 < n ? i + 2 : n;
                while (*ret_bad_end < n && (bytes[*ret_bad_end] & 0xc0) == 0x80)
                    ++*ret_bad_end;
                return SIZE_MAX;
            }
            n_out += put_utf8(code_point, out + n_out);
        }
        i += 2 + more;
    }
    return n_out;
}
