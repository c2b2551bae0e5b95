/* SPDX-License-Identifier: Apache-2.0
 *
 * lex.c: from raw tokens to what the parser reads.
 *
 * lex_next scans a raw token and then decides: it may deliver the token, or move the cursor back to
 * it and deliver something that belongs before it (a NEWLINE, a made-up closer). Scanning changes
 * nothing but the notes about newlines and docs, so a token may be scanned twice.
 *
 * A NEWLINE is delivered when (1) the innermost open bracket is `{` or there is none, (2) the last
 * token can end a statement and (3) the next one can begin one. A keyword that only ever begins a
 * statement gets its NEWLINE even where (2) fails, which no valid program can notice: so a line
 * that breaks off is reported at its end, not on the next line. Likewise such a keyword at the
 * begin of a line inside `(` or `[` shows that the bracket was left open.
 */
#include "lang/lex.h"

#include <string.h>
#include "grammar/pps.h"

static const token_info infos[] = {
    [0] = {"the end of the file", 0},
#define TOKEN(kind, words, flags) [TOK_##kind] = {words, flags},
#include "lang/tokens.def"
#undef TOKEN
};

static const pps_span no_place = {0, 0, 0};

const token_info *lex_token_info(uint8_t kind)
{
    return &infos[kind];
}

static bool is(uint8_t kind, uint8_t flag)
{
    return (infos[kind].flags & flag) != 0;
}

static bool first_on_line(const lexer *lx, uint32_t at)
{
    return at == lx->line_begin + lx->indent;
}

/* ---- For pps.re ------------------------------------------------------------------------------ */

lex_piece lex_string_piece(const lexer *lx, const char *p, bool triple, bool holes,
                           const char **ret_end)
{
    for (; p < lx->limit; p++) {
        if (*p == '\\' && p + 1 < lx->limit && (triple || p[1] != '\n')) {
            p++;
        } else if (*p == '\n' && !triple) {
            break;
        } else if (*p == '{' && holes) {
            *ret_end = p + 1;
            return LEX_PIECE_HOLE;
        } else if (*p == '"' && (!triple || (p[1] == '"' && p[2] == '"'))) {
            *ret_end = p + (triple ? 3 : 1);
            return LEX_PIECE_END;
        }
    }
    *ret_end = p;
    return LEX_PIECE_UNCLOSED;
}

void lex_note_newline(lexer *lx, const char *newline)
{
    const char *p = newline + 1;
    while (*p == ' ' || *p == '\t')
        p++;
    if (!lx->newline)
        lx->newline_at = (uint32_t)(newline - lx->begin);
    lx->newline = true;
    lx->line_begin = (uint32_t)(newline + 1 - lx->begin);
    lx->indent = (uint32_t)(p - newline - 1);
    if (++lx->doc_newlines > 1)
        lx->doc = 0;
}

void lex_note_comment(lexer *lx, const char *hash)
{
    if (hash[1] != '#' || !first_on_line(lx, (uint32_t)(hash - lx->begin)))
        return;
    if (lx->doc == 0)
        lx->doc = (uint32_t)(hash - lx->begin) + 1;
    lx->doc_newlines = 0;
}

/* ---- Brackets -------------------------------------------------------------------------------- */

static pps_span span_at(const lexer *lx, uint32_t begin, uint32_t bytes)
{
    return (pps_span){lx->file, begin, begin + bytes};
}

static pps_span bracket_span(const lexer *lx, const lex_bracket *b)
{
    bool hole = b->kind == 'f' || b->kind == 'F';
    return span_at(lx, b->begin, b->kind == 'F' ? 4 : hole ? 2 : 1);
}

static const lex_bracket *innermost(const lexer *lx)
{
    return lx->depth != 0 ? &lx->brackets[lx->depth - 1] : NULL;
}

static bool in_statements(const lexer *lx)
{
    return lx->depth == 0 || innermost(lx)->kind == '{';
}

static void push(lexer *lx, uint8_t kind, const token *t)
{
    if (lx->depth == LEX_MAX_DEPTH) {
        lx->problem(lx->ud, LEX_TOO_DEEP, t->span, no_place);
        lx->stopped = true;
        return;
    }
    lx->brackets[lx->depth++] = (lex_bracket){t->span.begin, lx->indent, kind};
    lx->n_line_holes += kind == 'f';
}

static void pop(lexer *lx)
{
    lx->depth--;
    lx->n_line_holes -= lx->brackets[lx->depth].kind == 'f';
}

static uint8_t closer_of(uint8_t bracket)
{
    return bracket == '('   ? TOK_RPAREN
           : bracket == '[' ? TOK_RBRACKET
           : bracket == '{' ? TOK_RBRACE
                            : TOK_FSTR_END;
}

static uint8_t bracket_of(uint8_t closer)
{
    return closer == TOK_RPAREN ? '(' : closer == TOK_RBRACKET ? '[' : '{';
}

static void deliver(lexer *lx, token *t)
{
    if (!(t->flags & TOKEN_MADE) && first_on_line(lx, t->span.begin))
        t->flags |= TOKEN_LINE_START;
    if (lx->last == TOK_MINUS && lx->last_minus_unary)
        t->flags |= TOKEN_NEGATED;
    lx->last_minus_unary = !is(lx->last, LEX_ENDS) || is(lx->last, LEX_BEGINS);
    lx->last = t->kind;
    if (!(t->flags & TOKEN_MADE) && t->kind != TOK_NEWLINE)
        lx->newline = false;
}

/* Deliver the closer of the innermost bracket, before the token at `at`. */
static void make_closer(lexer *lx, uint32_t at, token *ret)
{
    uint8_t kind = closer_of(innermost(lx)->kind);
    pop(lx);
    lx->cursor = lx->begin + at;
    *ret = (token){.span = span_at(lx, at, 0),
                   .kind = kind,
                   .flags = TOKEN_MADE,
                   .depth = (uint16_t)lx->depth};
    deliver(lx, ret);
}

static void make_newline(lexer *lx, const token *before, uint8_t flags, token *ret)
{
    lx->cursor = lx->begin + before->span.begin;
    *ret = (token){.span = span_at(lx, lx->newline ? lx->newline_at : before->span.begin, 0),
                   .kind = TOK_NEWLINE,
                   .flags = flags,
                   .depth = (uint16_t)lx->depth};
    deliver(lx, ret);
}

/* Remember the first pair of braces whose closer begins a line with another indentation than its
 * opener's: the likely place of a brace that was left open. */
static void note_alignment(lexer *lx, const lex_bracket *open, const token *closer)
{
    if (lx->guessed || open->kind != '{' || !first_on_line(lx, closer->span.begin) ||
        lx->indent >= open->indent)
        return;
    lx->guessed = true;
    lx->guess_open = open->begin;
    lx->guess_close = closer->span.begin;
    lx->guess_indent = lx->indent;
}

static void report_end(lexer *lx)
{
    if (lx->reported_end)
        return;
    lx->reported_end = true;
    const lex_bracket *open = innermost(lx);
    if (open->kind == 'f' || open->kind == 'F')
        lx->problem(lx->ud, LEX_STRING_UNCLOSED, bracket_span(lx, open), no_place);
    else if (lx->guessed && open->kind == '{')
        lx->problem(lx->ud, LEX_BRACKET_MISALIGNED, span_at(lx, lx->guess_open, 1),
                    span_at(lx, lx->guess_close, 1));
    else
        lx->problem(lx->ud, LEX_BRACKET_UNCLOSED, bracket_span(lx, open), no_place);
}

/* A closer has come. True: `ret` is what to deliver; false: it was dropped. */
static bool close_bracket(lexer *lx, token *t, token *ret)
{
    uint8_t kind = bracket_of(t->kind);
    uint32_t i = lx->depth;
    while (i > 0) {
        uint8_t open = lx->brackets[i - 1].kind;
        if (open == kind || (kind == '{' && (open == 'f' || open == 'F')))
            break;
        i--;
    }
    if (i == lx->depth && i != 0) { /* as it should be; holes were handled by the scan */
        note_alignment(lx, innermost(lx), t);
        pop(lx);
        t->depth = (uint16_t)lx->depth;
        *ret = *t;
        deliver(lx, ret);
        return true;
    }
    bool reported = lx->reported_at == t->span.begin + 1;
    lx->reported_at = t->span.begin + 1;
    /* A `)` or `]` does not close a block around it. */
    bool crosses_block = false;
    for (uint32_t k = i; k < lx->depth && kind != '{'; k++)
        crosses_block |= lx->brackets[k].kind == '{' || lx->brackets[k].kind == 'f' ||
                         lx->brackets[k].kind == 'F';
    if (i == 0 || crosses_block) {
        if (!reported)
            lx->problem(lx->ud, LEX_CLOSES_NOTHING, t->span, no_place);
        return false;
    }
    if (!reported)
        lx->problem(lx->ud, LEX_BRACKET_UNCLOSED, bracket_span(lx, innermost(lx)), t->span);
    make_closer(lx, t->span.begin, ret);
    return true;
}

/* ---- The stream ------------------------------------------------------------------------------ */

static void unclosed_string(lexer *lx, const token *t)
{
    const lex_bracket *hole = innermost(lx);
    if (lx->reported_at == t->span.begin + 1)
        return;
    lx->reported_at = t->span.begin + 1;
    if (t->kind == TOK_FSTR_END || (lx->n_line_holes != 0 && hole->kind == 'f')) {
        lx->problem(lx->ud, LEX_STRING_UNCLOSED, bracket_span(lx, hole), no_place);
        return;
    }
    const char *p = lx->begin + t->span.begin;
    uint32_t quote = *p == 'f' ? 2 : 1;
    if (t->span.end - t->span.begin >= quote + 2 && p[quote] == '"' && p[quote + 1] == '"')
        quote += 2;
    lx->problem(lx->ud, LEX_STRING_UNCLOSED, span_at(lx, t->span.begin, quote), no_place);
}

/* A newline inside the hole of a one-line f-string: the string was not closed. */
static void close_line_hole(lexer *lx, const token *t, token *ret)
{
    uint32_t i = 0;
    while (lx->brackets[i].kind != 'f')
        i++;
    if (lx->reported_at != lx->brackets[i].begin + 1)
        lx->problem(lx->ud, LEX_STRING_UNCLOSED, bracket_span(lx, &lx->brackets[i]), no_place);
    lx->reported_at = lx->brackets[i].begin + 1;
    make_closer(lx, t->span.begin, ret);
}

static bool wants_newline(const lexer *lx, const token *t)
{
    if (!lx->newline || !in_statements(lx) || t->kind == 0)
        return false;
    if (is(t->kind, LEX_BEGINS))
        return lx->last != 0 && lx->last != TOK_NEWLINE && lx->last != TOK_SEMI &&
               lx->last != TOK_LBRACE;
    return is(lx->last, LEX_ENDS) && !is(t->kind, LEX_CONTINUES);
}

/* The end of the text: closers for all that is open, a NEWLINE, and then kind 0 for ever. */
static void at_end(lexer *lx, const token *t, token *ret)
{
    if (lx->depth != 0) {
        report_end(lx);
        make_closer(lx, t->span.begin, ret);
    } else if (lx->at_end || lx->last == 0) {
        *ret = *t;
    } else {
        lx->at_end = true;
        make_newline(lx, t, TOKEN_AT_END, ret);
    }
}

/* Look at one raw token. False: it was dropped, look at the next. */
static bool next(lexer *lx, token *ret)
{
    token t;
    lex_scan(lx, &t);
    if (lx->newline && lx->n_line_holes != 0) {
        close_line_hole(lx, &t, ret);
        return true;
    }
    if (lx->newline && is(t.kind, LEX_BEGINS) && !in_statements(lx) && lx->last != TOK_DOT) {
        if (lx->reported_at != t.span.begin + 1)
            lx->problem(lx->ud, LEX_BRACKET_UNCLOSED, bracket_span(lx, innermost(lx)), t.span);
        lx->reported_at = t.span.begin + 1;
        make_closer(lx, t.span.begin, ret);
        return true;
    }
    if (lx->last == TOK_DOT && is(t.kind, LEX_WORD))
        t.kind = TOK_NAME;
    if (wants_newline(lx, &t)) {
        make_newline(lx, &t, 0, ret);
        lx->newline = false;
        return true;
    }
    if (t.flags & TOKEN_UNCLOSED)
        unclosed_string(lx, &t);
    switch (t.kind) {
    case 0:
        at_end(lx, &t, ret);
        return true;
    case TOK_LPAREN:
        push(lx, '(', &t);
        break;
    case TOK_LBRACKET:
        push(lx, '[', &t);
        break;
    case TOK_LBRACE:
        push(lx, '{', &t);
        break;
    case TOK_FSTR_BEGIN:
        push(lx, memcmp(lx->begin + t.span.begin, "f\"\"\"", 4) == 0 ? 'F' : 'f', &t);
        break;
    case TOK_FSTR_END:
        pop(lx);
        t.depth = (uint16_t)lx->depth;
        break;
    case TOK_RPAREN:
    case TOK_RBRACKET:
    case TOK_RBRACE:
        return close_bracket(lx, &t, ret);
    }
    if (t.kind == TOK_FN || t.kind == TOK_PARAM || t.kind == TOK_MODEL)
        t.doc = lx->doc;
    lx->doc = 0;
    *ret = t;
    deliver(lx, ret);
    return true;
}

void lex_init(lexer *lx, uint32_t file, const char *begin, size_t bytes)
{
    /* not the brackets: they are large, and depth says how many count */
    memset(lx, 0, offsetof(lexer, brackets));
    lx->begin = lx->cursor = begin;
    lx->limit = begin + bytes;
    lx->file = file;
    while (begin[lx->indent] == ' ' || begin[lx->indent] == '\t')
        lx->indent++;
}

void lex_next(lexer *lx, token *ret)
{
    while (!lx->stopped && !next(lx, ret)) {
    }
    if (lx->stopped)
        *ret = (token){.span = span_at(lx, (uint32_t)(lx->limit - lx->begin), 0)};
}

void lex_abandon(lexer *lx, const token *t, uint32_t depth)
{
    while (lx->depth > depth)
        pop(lx);
    lx->cursor = lx->begin + t->span.begin;
    lx->newline = true;
    lx->last = TOK_NAME; /* whatever it was, the next token begins a statement */
}

const lex_bracket *lex_open_group(const lexer *lx)
{
    return in_statements(lx) ? NULL : innermost(lx);
}
