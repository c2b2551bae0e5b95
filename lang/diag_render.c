/* SPDX-License-Identifier: Apache-2.0
 *
 * diag_render.c: a diagnostic as text.
 *
 *   error[E0203]: model 'moe' has no tag 'PPP'
 *     --> two.pps:9:10
 *      |
 *    9 |   place {PPP: s} on devices[s] stream pp
 *      |          ^^^ unknown tag
 *      |
 *     ::: models/moe.pps:6:14
 *    6 |     annotate PP as stage {
 *      |              -- tags of this model: PP, EP
 *      = help: did you mean 'PP'?
 *      in loop at two.pps:8, s = 0
 *
 * The main file comes first, each other file under its own `:::`. Within a file, lines are in
 * order,
 * `...` stands for lines left out, and every span gets a line of marks of its own. A span over
 * several lines is marked on its first. Long lines are cut around what is marked.
 */
#include "lang/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "lang/lex_text.h"
#include "lang/state.h"

enum { MAX_MARKS = 16, LONG_LINE = 200, CUT_BEFORE = 60, CUT_AFTER = 120 };

typedef struct mark {
    pps_span span;
    const char *label;
    bool main;
    uint32_t line, begin, end; /* of the line's text in the file */
} mark;

typedef struct render {
    const pps_diag *d;
    diag_text *out;
    bool color;
    int gutter; /* columns of the line number */
    mark marks[MAX_MARKS];
    uint32_t n_marks;
} render;

/* ---- Text ------------------------------------------------------------------------------------ */

static void add(diag_text *t, const char *bytes, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        size_t cap = t->cap < 512 ? 512 : t->cap;
        while (cap < t->n + n + 1)
            cap *= 2;
        char *grown = arena_realloc(t->memory, t->bytes, t->cap, cap);
        if (grown == NULL)
            return;
        t->bytes = grown;
        t->cap = cap;
    }
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
    t->bytes[t->n] = '\0';
}

static void puts_(diag_text *t, const char *words)
{
    add(t, words, strlen(words));
}

static void repeat(diag_text *t, char c, size_t n)
{
    for (; n > 0; n--)
        add(t, &c, 1);
}

static void printf_(diag_text *t, const char *words, ...) PPS_PRINTF(2, 3);
static void printf_(diag_text *t, const char *words, ...)
{
    char buffer[512];
    va_list args;
    va_start(args, words);
    vsnprintf(buffer, sizeof buffer, words, args);
    va_end(args);
    puts_(t, buffer);
}

typedef enum paint { PAINT_ERROR, PAINT_WARNING, PAINT_NOTE, PAINT_FRAME, PAINT_BOLD } paint;

static void begin_paint(const render *r, paint p)
{
    static const char *const codes[] = {
        [PAINT_ERROR] = "\033[1;31m", [PAINT_WARNING] = "\033[1;33m", [PAINT_NOTE] = "\033[1;36m",
        [PAINT_FRAME] = "\033[1;34m", [PAINT_BOLD] = "\033[1m",
    };
    if (r->color)
        puts_(r->out, codes[p]);
}

static void end_paint(const render *r)
{
    if (r->color)
        puts_(r->out, "\033[0m");
}

static paint severity_paint(const render *r)
{
    switch (r->d->severity) {
    case PPS_SEV_ERROR:
        return PAINT_ERROR;
    case PPS_SEV_WARNING:
        return PAINT_WARNING;
    case PPS_SEV_NOTE:
        break;
    }
    return PAINT_NOTE;
}

/* Columns a code point takes on a terminal. */
static size_t width_of(uint32_t c)
{
    static const struct {
        uint32_t first, last;
        uint8_t width;
    } ranges[] = {
        {0x0300, 0x036f, 0},   {0x200b, 0x200f, 0},   {0x202a, 0x202e, 0}, {0x2060, 0x2069, 0},
        {0xfe00, 0xfe0f, 0},   {0x1100, 0x115f, 2},   {0x2e80, 0xa4cf, 2}, {0xac00, 0xd7a3, 2},
        {0xf900, 0xfaff, 2},   {0xfe30, 0xfe6f, 2},   {0xff00, 0xff60, 2}, {0xffe0, 0xffe6, 2},
        {0x1f300, 0x1faff, 2}, {0x20000, 0x3fffd, 2},
    };
    for (size_t i = 0; c >= 0x300 && i < sizeof ranges / sizeof *ranges; i++)
        if (c >= ranges[i].first && c <= ranges[i].last)
            return ranges[i].width;
    return 1;
}

/* Show source bytes: blanks for tabs, `?` for what is no text or would move the cursor. With
 * `out` NULL only measure. Returns the columns. */
static size_t put_source(diag_text *out, const char *bytes, size_t n)
{
    size_t columns = 0;
    for (size_t i = 0; i < n;) {
        uint32_t c = 0;
        size_t length = lex_utf8(bytes + i, n - i, &c);
        bool bidi = (c >= 0x202a && c <= 0x202e) || (c >= 0x2066 && c <= 0x2069);
        if (length == 0 || (c < 0x20 && c != '\t') || (c >= 0x7f && c < 0xa0) || bidi) {
            if (out != NULL)
                puts_(out, "?");
            columns++;
        } else {
            if (out != NULL)
                add(out, c == '\t' ? " " : bytes + i, length);
            columns += width_of(c);
        }
        i += length != 0 ? length : 1;
    }
    return columns;
}

/* ---- Source lines ---------------------------------------------------------------------------- */

static void gutter(const render *r, const char *sign)
{
    begin_paint(r, PAINT_FRAME);
    printf_(r->out, "%*s%s", r->gutter + 1, "", sign);
    end_paint(r);
}

static void put_label(const render *r, const char *label)
{
    for (; *label != '\0'; label++)
        add(r->out, *label == '\n' ? " " : label, 1);
}

static void put_marks(const render *r, const mark *m, uint32_t from, uint32_t to, size_t lead)
{
    const char *file = source_get(r->d->st, m->span.file)->text;
    uint32_t begin = m->span.begin < from ? from : m->span.begin > to ? to : m->span.begin;
    uint32_t end = m->span.end > to ? to : m->span.end < begin ? begin : m->span.end;
    size_t n = put_source(NULL, file + begin, end - begin);
    gutter(r, "|");
    puts_(r->out, " ");
    repeat(r->out, ' ', lead + put_source(NULL, file + from, begin - from));
    begin_paint(r, m->main ? severity_paint(r) : PAINT_FRAME);
    repeat(r->out, m->main ? '^' : '-', n != 0 ? n : 1);
    if (m->label != NULL && m->label[0] != '\0') {
        puts_(r->out, " ");
        put_label(r, m->label);
    }
    end_paint(r);
    puts_(r->out, "\n");
}

/* The line of `first` and the marks of all spans on it. */
static void put_line(const render *r, const mark *first)
{
    const char *file = source_get(r->d->st, first->span.file)->text;
    uint32_t from = first->begin, to = first->end;
    while (to > from && strchr(" \t\r", file[to - 1]) != NULL)
        to--;
    bool cut_left = false, cut_right = false;
    if (to - from > LONG_LINE) {
        uint32_t middle = first->span.begin > to ? to : first->span.begin;
        cut_left = middle - from > CUT_BEFORE;
        if (cut_left)
            from = middle - CUT_BEFORE;
        cut_right = to - middle > CUT_AFTER;
        if (cut_right)
            to = middle + CUT_AFTER;
        while (cut_left && (file[from] & 0xc0) == 0x80)
            from++;
        while (cut_right && (file[to] & 0xc0) == 0x80)
            to--;
    }
    begin_paint(r, PAINT_FRAME);
    printf_(r->out, "%*u |", r->gutter, first->line);
    end_paint(r);
    if (to > from)
        puts_(r->out, cut_left ? " ..." : " ");
    put_source(r->out, file + from, to - from);
    puts_(r->out, cut_right ? "...\n" : "\n");
    for (uint32_t i = 0; i < r->n_marks; i++) {
        const mark *m = &r->marks[i];
        if (m->span.file == first->span.file && m->line == first->line)
            put_marks(r, m, from, to, cut_left ? 3 : 0);
    }
}

/* Lines of one file, upwards; the main span decides where a long line is cut. */
static void put_file(const render *r, uint32_t file)
{
    uint32_t shown = 0;
    for (;;) {
        const mark *next = NULL;
        for (uint32_t i = 0; i < r->n_marks; i++) {
            const mark *m = &r->marks[i];
            if (m->span.file == file && m->line > shown && (next == NULL || m->line < next->line))
                next = m;
        }
        if (next == NULL)
            return;
        if (shown != 0 && next->line > shown + 1)
            puts_(r->out, "...\n");
        put_line(r, next);
        shown = next->line;
    }
}

static void put_place(const render *r, const char *arrow, pps_span span)
{
    const char *name;
    uint32_t line, column;
    pps_span_place(r->d->st, span, &name, &line, &column);
    begin_paint(r, PAINT_FRAME);
    printf_(r->out, "%*s%s ", r->gutter, "", arrow);
    end_paint(r);
    puts_(r->out, name);
    printf_(r->out, ":%u:%u", line, column);
}

/* Without its text a place is a line of its own, with what is said there. */
static bool has_text(const render *r, const mark *m)
{
    return source_get(r->d->st, m->span.file)->text != NULL;
}

static void put_far_place(const render *r, const mark *m, const char *arrow)
{
    put_place(r, arrow, m->span);
    if (m->label != NULL && m->label[0] != '\0') {
        puts_(r->out, " ");
        put_label(r, m->label);
    }
    puts_(r->out, "\n");
}

static void put_snippets(const render *r)
{
    for (uint32_t i = 0; i < r->n_marks; i++) {
        uint32_t file = r->marks[i].span.file;
        bool seen = false;
        if (!has_text(r, &r->marks[i])) {
            put_far_place(r, &r->marks[i], i != 0 ? ":::" : "-->");
            continue;
        }
        for (uint32_t k = 0; k < i; k++)
            seen |= r->marks[k].span.file == file;
        if (seen)
            continue;
        if (i != 0) {
            gutter(r, "|\n");
            put_place(r, ":::", r->marks[i].span);
            puts_(r->out, "\n");
        } else {
            put_place(r, "-->", r->marks[i].span);
            puts_(r->out, "\n");
            gutter(r, "|\n");
        }
        put_file(r, file);
    }
}

/* ---- The whole ------------------------------------------------------------------------------- */

static void add_mark(render *r, pps_span span, const char *label, bool main)
{
    if (r->n_marks == MAX_MARKS || source_get(r->d->st, span.file) == NULL)
        return;
    mark *m = &r->marks[r->n_marks++];
    *m = (mark){.span = span, .label = label, .main = main};
    source_line(r->d->st, span.file, span.begin, &m->line, &m->begin, &m->end);
    int digits = snprintf(NULL, 0, "%u", m->line);
    if (digits > r->gutter)
        r->gutter = digits;
}

static void put_title(const render *r)
{
    static const char *const words[] = {
        [PPS_SEV_ERROR] = "error", [PPS_SEV_WARNING] = "warning", [PPS_SEV_NOTE] = "note"};
    begin_paint(r, severity_paint(r));
    puts_(r->out, words[r->d->severity]);
    if (r->d->code != 0)
        printf_(r->out, "[E%04d]", r->d->code);
    end_paint(r);
    begin_paint(r, PAINT_BOLD);
    puts_(r->out, ": ");
    puts_(r->out, r->d->title);
    end_paint(r);
    puts_(r->out, "\n");
}

/* "   = note: ...", further lines of it under the first. */
static void put_remark(const render *r, const char *kind, const char *words)
{
    gutter(r, "= ");
    begin_paint(r, PAINT_BOLD);
    puts_(r->out, kind);
    end_paint(r);
    puts_(r->out, ": ");
    for (; *words != '\0'; words++) {
        add(r->out, words, 1);
        if (*words == '\n')
            repeat(r->out, ' ', (size_t)r->gutter + 5 + strlen(kind));
    }
    puts_(r->out, "\n");
}

void diag_render(const pps_diag *d, bool color, diag_text *ret)
{
    render r = {.d = d, .out = ret, .color = color, .gutter = 2};
    add_mark(&r, d->span, d->label, true);
    for (const diag_span *also = d->also; also != NULL; also = also->next)
        add_mark(&r, also->span, also->label, false);
    put_title(&r);
    put_snippets(&r);
    if (r.n_marks == 0 && d->label != NULL)
        put_remark(&r, "note", d->label);
    for (const diag_line *note = d->notes; note != NULL; note = note->next)
        put_remark(&r, "note", note->words);
    if (d->help != NULL)
        put_remark(&r, "help", d->help);
    for (const diag_line *frame = d->frames; frame != NULL; frame = frame->next)
        printf_(ret, "%*s%s\n", r.gutter + 1, "", frame->words);
}
