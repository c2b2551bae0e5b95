/* SPDX-License-Identifier: Apache-2.0
 *
 * text.c: output helpers shared by the pictures.
 */
#include "runtime/view/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

void view_printf(const view_out *o, const char *format, ...)
{
    char line[1024];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0)
        o->print(o->ud, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static const char *replacement(view_quoting quoting, unsigned char c, char buffer[8])
{
    if (quoting == VIEW_XML) {
        switch (c) {
        case '&':
            return "&amp;";
        case '<':
            return "&lt;";
        case '>':
            return "&gt;";
        case '"':
            return "&quot;";
        }
        /* XML 1.0 has no way to write control characters */
        return c < 0x20 && c != '\n' && c != '\t' ? "?" : NULL;
    }
    if (c == '"')
        return "\\\"";
    if (c == '\\')
        return "\\\\";
    if (c >= 0x20)
        return NULL;
    snprintf(buffer, 8, "\\u%04x", c);
    return buffer;
}

void view_escape(const view_out *o, view_quoting quoting, const char *text)
{
    const char *plain = text;
    for (const char *c = text; *c != '\0'; c++) {
        char buffer[8];
        const char *other = replacement(quoting, (unsigned char)*c, buffer);
        if (other == NULL)
            continue;
        if (c > plain)
            o->print(o->ud, plain, (size_t)(c - plain));
        o->print(o->ud, other, strlen(other));
        plain = c + 1;
    }
    if (*plain != '\0')
        o->print(o->ud, plain, strlen(plain));
}

const char *view_number(double x, int decimals, char buffer[VIEW_NUMBER_BYTES])
{
    int n = snprintf(buffer, VIEW_NUMBER_BYTES, "%.*f", decimals, x);
    if (n <= 0 || n >= VIEW_NUMBER_BYTES) { /* too long to write out */
        snprintf(buffer, VIEW_NUMBER_BYTES, "%g", x);
        return buffer;
    }
    if (decimals > 0) {
        while (buffer[n - 1] == '0')
            n--;
        if (buffer[n - 1] == '.')
            n--;
        buffer[n] = '\0';
    }
    if (strcmp(buffer, "-0") == 0)
        memcpy(buffer, "0", 2);
    return buffer;
}

const char *view_time(const view_timeline *t, double x, char buffer[VIEW_NUMBER_BYTES])
{
    bool ns = t->unit != NULL && strcmp(t->unit, "ns") == 0;
    char number[VIEW_NUMBER_BYTES];
    if (!ns)
        return view_number(x, 4, buffer);
    snprintf(buffer, VIEW_NUMBER_BYTES, "%.40s ms", view_number(x / 1e6, 3, number));
    return buffer;
}

int view_op_label(const view_span *s, char buffer[VIEW_LABEL_BYTES])
{
    static const char letters[PPS_PASS_COUNT] = {
        [PPS_PASS_F] = 'F', [PPS_PASS_B] = 'B', [PPS_PASS_BI] = 'I', [PPS_PASS_BW] = 'W'};
    char letter = s->pass < PPS_PASS_COUNT ? letters[s->pass] : '?';
    char slice[16] = "";
    if (s->slice > 0)
        snprintf(slice, sizeof slice, ".%u", s->slice - 1);
    if (s->upper > 3) /* too many primes to count at a glance */
        return snprintf(buffer, VIEW_LABEL_BYTES, "%c%u%s'%u", letter, s->mb, slice, s->upper);
    return snprintf(buffer, VIEW_LABEL_BYTES, "%c%u%s%.*s", letter, s->mb, slice, (int)s->upper,
                    "'''");
}

bool view_is_op(const view_span *s)
{
    return s->kind == PLAN_COMPUTE && s->lane == 0 && s->mb != IR_NONE;
}

void view_rank_range(const view_timeline *t, uint32_t rank, uint32_t *begin, uint32_t *end)
{
    uint32_t i = *end;
    while (i < t->n_spans && t->spans[i].rank < rank)
        i++;
    *begin = i;
    while (i < t->n_spans && t->spans[i].rank == rank)
        i++;
    *end = i;
}
