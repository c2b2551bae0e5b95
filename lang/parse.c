/* SPDX-License-Identifier: Apache-2.0
 *
 * parse.c: drives the lexer and the parser, and recovers from errors.
 *
 *   text --lex_next--> token --gram_feed--> tree
 *
 * When the parser cannot take a token it reports why (parse_error.c). The driver then drops the
 * statement from the parser's stack (gram_unwind), skips to the end of the statement, which is the
 * next newline, `;` or `}` at the depth of its block, and feeds a BAD_STMT in its place. Since the
 * lexer delivers balanced brackets only, no error makes others follow.
 */
#include "lang/parse.h"

#include <stdio.h>
#include <string.h>
#include "grammar/pps.h"
#include "lang/ast_build.h"
#include "lang/lex_text.h"
#include "lang/diag.h"
#include "lang/state.h"

static bool ends_statement(const token *t, uint32_t depth)
{
    return t->kind == 0 || (t->depth == depth && (t->kind == TOK_NEWLINE || t->kind == TOK_SEMI)) ||
           (t->depth + 1u == depth && t->kind == TOK_RBRACE);
}

static uint32_t line_begin(const parse_cx *cx, uint32_t offset)
{
    while (offset > 0 && cx->source[offset - 1] != '\n')
        offset--;
    return offset;
}

/* `t` is the token that could not be taken; on return the one that goes on. */
static void recover(parse_cx *cx, token *t)
{
    pps_span bad = t->span;
    int depth = gram_unwind(cx->gram);
    cx->failed = false;
    if (depth < 0) {
        cx->stopped = true;
        return;
    }
    cx->recovering = true;
    cx->bad_line = line_begin(cx, t->span.begin);
    if (cx->abandon) {
        cx->abandon = false;
        lex_abandon(&cx->lex, t, (uint32_t)depth);
        lex_next(&cx->lex, t);
    }
    while (!ends_statement(t, (uint32_t)depth))
        lex_next(&cx->lex, t);
    cx->recovering = false;
    bad.end = t->span.begin > bad.begin ? t->span.begin : bad.end;
    token stand_in = {.span = bad, .kind = TOK_BAD_STMT};
    gram_feed(cx->gram, &stand_in);
    gram_feed(cx->gram, t);
}

static void run(parse_cx *cx, uint8_t begin_kind)
{
    token t = {.span = {cx->file, 0, 0}, .kind = begin_kind};
    do {
        if (t.kind == TOK_FLOORDIV)
            cx->floordiv = t.span.begin + 1;
        gram_feed(cx->gram, &t);
        if (cx->failed)
            recover(cx, &t);
        if (t.kind == 0)
            return;
        cx->prev2 = cx->prev;
        cx->prev = t;
        lex_next(&cx->lex, &t);
    } while (!cx->stopped && cx->status != PPS_ERR_NOMEM);
    cx->root = NULL;
}

/* ---- Whole-file checks ----------------------------------------------------------------------- */

static pps_span byte_span(const parse_cx *cx, size_t at, size_t bytes)
{
    return (pps_span){cx->file, (uint32_t)at, (uint32_t)(at + bytes)};
}

static void report_bad_byte(parse_cx *cx, const source_file *file, size_t at)
{
    unsigned char c = (unsigned char)file->text[at];
    uint32_t line, column;
    source_place(cx->st, cx->file, (uint32_t)at, &line, &column);
    if (c == '\0') {
        parse_error(cx, byte_span(cx, at, 1), 10, "line %u has a NUL byte at column %u", line,
                    column);
        return;
    }
    pps_diag *d =
        parse_error_start(cx, byte_span(cx, at, 1), 10,
                          "line %u is not UTF-8 (byte 0x%02X at column %u)", line, c, column);
    if (c >= 0xa0) {
        char letter[3] = {(char)(0xc0 | c >> 6), (char)(0x80 | (c & 0x3f)), '\0'};
        pps_diag_help(d, "looks like Latin-1 `%s`; save the file as UTF-8", letter);
    } else {
        pps_diag_help(d, "save the file as UTF-8");
    }
    parse_error_done(cx, d);
}

static void warn_bidi(parse_cx *cx, const source_file *file, const lex_check *found)
{
    uint32_t code_point;
    size_t n = lex_utf8(file->text + found->bidi, file->bytes - found->bidi, &code_point);
    pps_diag *d = pps_diag_start(cx->st, PPS_SEV_WARNING, 21, byte_span(cx, found->bidi, n),
                                 "a control character (U+%04X) changes the direction of the text "
                                 "that follows",
                                 code_point);
    pps_diag_note(d, "what is shown may differ from what is run");
    if (found->n_bidi > 1)
        pps_diag_note(d, "the file has %zu of them", found->n_bidi);
    pps_diag_help(d, "remove it, or write it as \\u{%x} in a string", code_point);
    pps_diag_done(d);
}

static void check_source(parse_cx *cx, const source_file *file)
{
    lex_check found = lex_check_source(file->text, file->bytes);
    if (found.bad_byte != SIZE_MAX)
        report_bad_byte(cx, file, found.bad_byte);
    if (found.long_line != SIZE_MAX) {
        pps_diag *d =
            parse_error_start(cx, byte_span(cx, found.long_line, 1), 22, "this line is too long");
        pps_diag_note(d, "it has %zu bytes; a line may have %d", found.long_line_bytes,
                      LEX_MAX_LINE);
        parse_error_done(cx, d);
    }
    if (found.bidi != SIZE_MAX)
        warn_bidi(cx, file, &found);
    cx->stopped |= cx->n_errors != 0;
}

/* ---- Entries --------------------------------------------------------------------------------- */

static pps_status parse(pps_state *st, uint32_t file_id, arena *trees, uint8_t begin_kind,
                        ast_node **ret)
{
    const source_file *file = source_get(st, file_id);
    parse_cx cx;
    *ret = NULL;
    if (file == NULL)
        return PPS_ERR_ARG;
    /* not the lexer: lex_init knows which of its parts need clearing */
    memset(&cx, 0, offsetof(parse_cx, lex));
    cx.st = st;
    cx.file = file_id;
    cx.source = file->text;
    cx.trees = trees;
    arena_init(&cx.scratch, trees->alloc, trees->alloc_ud);
    lex_init(&cx.lex, file_id, file->text, file->bytes);
    cx.lex.problem = parse_lex_problem;
    cx.lex.ud = &cx;
    diag_batch(st);
    check_source(&cx, file);
    if (!cx.stopped) {
        cx.gram = gram_new(&cx);
        if (cx.gram != NULL)
            run(&cx, begin_kind);
        else
            cx.status = PPS_ERR_NOMEM;
    }
    diag_flush(st);
    arena_done(&cx.scratch);
    if (cx.status != PPS_OK)
        return cx.status;
    *ret = cx.root;
    return cx.n_errors != 0 ? PPS_ERR_SCRIPT : PPS_OK;
}

pps_status parse_file(pps_state *st, uint32_t file, arena *trees, ast_file *ret)
{
    ret->file = file;
    return parse(st, file, trees, TOK_BEGIN_FILE, &ret->root);
}

pps_status parse_expr(pps_state *st, uint32_t file, arena *trees, ast_node **ret)
{
    return parse(st, file, trees, TOK_BEGIN_EXPR, ret);
}

typedef struct prompt {
    lexer lex;
    bool open, wrong;
} prompt;

static void note_problem(void *ud, lex_problem problem, pps_span span, pps_span other)
{
    prompt *p = ud;
    bool open = problem == LEX_STRING_UNCLOSED    ? span.end - span.begin >= 3
                : problem == LEX_BRACKET_UNCLOSED ? other.file == 0
                                                  : problem == LEX_BRACKET_MISALIGNED;
    p->open |= open;
    p->wrong |= !open;
}

bool parse_is_incomplete(const char *input, size_t bytes)
{
    prompt p = {.open = false};
    token t, last = {.kind = TOK_NEWLINE};
    arena scratch;
    arena_init(&scratch, NULL, NULL);
    const char *copy = arena_copy(&scratch, input, bytes); /* the lexer needs the NUL */
    if (copy != NULL && lex_check_source(copy, bytes).bad_byte == SIZE_MAX) {
        lex_init(&p.lex, 1, copy, bytes);
        p.lex.problem = note_problem;
        p.lex.ud = &p;
        for (lex_next(&p.lex, &t); t.kind != 0 && !(t.flags & TOKEN_AT_END); lex_next(&p.lex, &t))
            if (!(t.flags & TOKEN_MADE))
                last = t;
        bool ends = lex_token_info(last.kind)->flags & LEX_ENDS || last.kind == TOK_NEWLINE ||
                    last.kind == TOK_SEMI;
        p.open |= !ends;
    }
    arena_done(&scratch);
    return p.open && !p.wrong;
}
