/* SPDX-License-Identifier: Apache-2.0
 *
 * lex_text.h: what the bytes of a source or a literal say: UTF-8, numbers, escapes.
 */
#ifndef PPS_LEX_TEXT_H
#define PPS_LEX_TEXT_H

#include "lang/pps.h"

/* What a pass over a whole source found. */
typedef struct lex_check {
    size_t bad_byte; /* offset of the first byte that is NUL or not UTF-8; SIZE_MAX: none */
    size_t bidi;     /* offset of the first bidirectional control character, or SIZE_MAX */
    size_t n_bidi;
    size_t long_line,
        long_line_bytes; /* begin of the first line over LEX_MAX_LINE; SIZE_MAX: none */
} lex_check;
enum { LEX_MAX_LINE = 1 << 20 };
lex_check lex_check_source(const char *bytes, size_t n);

/* Bytes of the UTF-8 sequence at `p` (overlong forms, surrogates and truncation are 0), and its
 * code point. `p` has `n` > 0 bytes. */
size_t lex_utf8(const char *p, size_t n, uint32_t *ret_code_point);

/* A literal as the lexer accepts it: 1_000, 0x1f. False when it does not fit in 64 bits. */
bool lex_uint(const char *bytes, size_t n, uint64_t *ret);
/* 1.5, 2e9, 1_000.5, whatever the locale. False when out of range or too long to be meant. */
bool lex_float(const char *bytes, size_t n, double *ret);

/* Unescape the inside of a string into `out` (room for n bytes). SIZE_MAX: the escape at
 * *ret_bad .. *ret_bad_end makes no sense. CRLF becomes a newline. */
size_t lex_unescape(const char *bytes, size_t n, char *out, size_t *ret_bad, size_t *ret_bad_end);

#endif
