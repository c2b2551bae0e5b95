/* SPDX-License-Identifier: Apache-2.0
 *
 * parse_error.c: what to say when the parser cannot go on.
 *
 * A list of tokens that could have come is the last resort: first come the mistakes that people
 * really make, each a small function that says whether it was this one. What could have come is
 * found by trying candidates on the parser's stack (gram_accepts), so it is exact.
 */
#include "lang/ast_build.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "grammar/pps.h"
#include "lang/state.h"

/* ---- Reporting ------------------------------------------------------------------------------- */

pps_diag *parse_error_start(parse_cx *cx, pps_span span, int code, const char *title, ...)
{
    char buffer[512];
    va_list args;
    va_start(args, title);
    vsnprintf(buffer, sizeof buffer, title, args);
    va_end(args);
    return pps_diag_start(cx->st, PPS_SEV_ERROR, code, span, "%s", buffer);
}

void parse_error_done(parse_cx *cx, pps_diag *d)
{
    enum { GIVE_UP = 1000 }; /* far beyond what is shown */
    pps_diag_done(d);
    if (++cx->n_errors >= GIVE_UP)
        cx->stopped = true;
}

void parse_error(parse_cx *cx, pps_span span, int code, const char *title, ...)
{
    char buffer[512];
    va_list args;
    va_start(args, title);
    vsnprintf(buffer, sizeof buffer, title, args);
    va_end(args);
    parse_error_done(cx, pps_diag_start(cx->st, PPS_SEV_ERROR, code, span, "%s", buffer));
}

void parse_too_deep(parse_cx *cx, pps_span span)
{
    if (cx->stopped || cx->status == PPS_ERR_NOMEM)
        return;
    pps_diag *d = parse_error_start(cx, span, 20, "the program is nested too deeply here");
    pps_diag_note(d, "at most %d open brackets, and %d operators in one chain", LEX_MAX_DEPTH,
                  AST_MAX_HEIGHT);
    pps_diag_help(d, "long rows and sums can be written as lists");
    parse_error_done(cx, d);
    cx->stopped = true;
}

/* ---- Lexical problems ------------------------------------------------------------------------ */

static const char *closer_text(char bracket)
{
    return bracket == '(' ? ")" : bracket == '[' ? "]" : bracket == '{' ? "}" : "\"";
}

/* "the `}` at 14:1 ... is indented like the `for` at 9:3": the open bracket whose line it matches.
 */
static void note_guess(parse_cx *cx, pps_diag *d, pps_span closer)
{
    uint32_t line, column, like_line, like_column;
    source_place(cx->st, cx->file, closer.begin, &line, &column);
    for (uint32_t i = cx->lex.depth; i > 0; i--) {
        const lex_bracket *open = &cx->lex.brackets[i - 1];
        if (open->indent != cx->lex.guess_indent)
            continue;
        uint32_t begin, end;
        source_line(cx->st, cx->file, open->begin, &like_line, &begin, &end);
        const char *word = cx->source + begin + open->indent;
        size_t n = strspn(word, "abcdefghijklmnopqrstuvwxyz");
        source_place(cx->st, cx->file, begin + open->indent, &like_line, &like_column);
        pps_diag_note(d, "the `}` at %u:%u is indented like the `%.*s` at %u:%u", line, column,
                      n != 0 ? (int)n : 1, word, like_line, like_column);
        return;
    }
    pps_diag_note(d, "the `}` at %u:%u is indented unlike the line of this `{`", line, column);
}

void parse_lex_problem(void *ud, lex_problem problem, pps_span span, pps_span other)
{
    parse_cx *cx = ud;
    const char *at = cx->source + span.begin;
    pps_diag *d;
    if (cx->recovering && span.begin >= cx->bad_line && problem != LEX_STRING_UNCLOSED &&
        problem != LEX_TOO_DEEP)
        return; /* follows from the error that is being recovered from */
    cx->lex_error = span.begin + 1;
    switch (problem) {
    case LEX_STRING_UNCLOSED: {
        bool triple = span.end - span.begin >= 3;
        d = parse_error_start(cx, span, 11, "this string is not closed before the end of the %s",
                              triple ? "file" : "line");
        if (!triple)
            pps_diag_help(d, "close it with `\"`; a string over several lines uses `\"\"\"`");
        break;
    }
    case LEX_CLOSES_NOTHING:
        d = parse_error_start(cx, span, 12, "this `%c` closes nothing", *at);
        break;
    case LEX_BRACKET_UNCLOSED:
        d = parse_error_start(cx, span, 13, "this `%c` is never closed", *at);
        if (other.file != 0)
            pps_diag_also(d, other, "expected `%s` before this", closer_text(*at));
        break;
    case LEX_BRACKET_MISALIGNED:
        d = parse_error_start(cx, span, 13, "this `{` is never closed");
        note_guess(cx, d, other);
        break;
    case LEX_TOO_DEEP:
    default:
        parse_too_deep(cx, span);
        return;
    }
    parse_error_done(cx, d);
}

/* ---- Words and signs of other languages ------------------------------------------------------ */

typedef enum foreign_where { FOREIGN_SIGN, FOREIGN_LEAD, FOREIGN_VALUE } foreign_where;

static const struct foreign {
    foreign_where where;
    const char *theirs, *ours;
} foreigns[] = {
#define FOREIGN(where, theirs, ours) {FOREIGN_##where, theirs, ours},
#include "lang/foreign.def"
#undef FOREIGN
};

static bool is_text(const parse_cx *cx, pps_span span, const char *word)
{
    size_t n = strlen(word);
    return span.end - span.begin == n && memcmp(cx->source + span.begin, word, n) == 0;
}

static const struct foreign *find_foreign(const parse_cx *cx, foreign_where where, pps_span span)
{
    for (size_t i = 0; i < sizeof foreigns / sizeof *foreigns; i++)
        if (foreigns[i].where == where && is_text(cx, span, foreigns[i].theirs))
            return &foreigns[i];
    return NULL;
}

static bool report_foreign(parse_cx *cx, foreign_where where, pps_span span)
{
    const struct foreign *f = find_foreign(cx, where, span);
    if (f != NULL)
        parse_error(cx, span, 15, "pps writes %s, not `%s`", f->ours, f->theirs);
    return f != NULL;
}

bool parse_foreign_word(parse_cx *cx, const token *name)
{
    uint32_t n = name->span.end - name->span.begin;
    char first = cx->source[name->span.begin];
    if (n < 4 || n > 9 || strchr("nuNTF", first) == NULL) /* cheap, since every name comes here */
        return false;
    return report_foreign(cx, FOREIGN_VALUE, name->span);
}

/* ---- Words for tokens ------------------------------------------------------------------------ */

enum { MAX_FOUND = 40 };

static void describe(const parse_cx *cx, const token *t, char *out, size_t bytes)
{
    uint32_t n = t->span.end - t->span.begin;
    if (t->kind == 0 || t->flags & TOKEN_AT_END) {
        snprintf(out, bytes, "the end of the file");
    } else if (t->kind == TOK_NEWLINE) {
        snprintf(out, bytes, "the end of the line");
    } else if (t->kind == TOK_STRING || t->kind == TOK_FSTR_BEGIN) {
        snprintf(out, bytes, "a string");
    } else if (t->kind == TOK_FSTR_MID || t->kind == TOK_FSTR_END) {
        snprintf(out, bytes, "`}`");
    } else {
        const char *dots = n > MAX_FOUND ? "..." : "";
        for (n = n > MAX_FOUND ? MAX_FOUND : n;
             n > 0 && (cx->source[t->span.begin + n] & 0xc0) == 0x80; n--) {
        }
        snprintf(out, bytes, "`%.*s%s`", (int)n, cx->source + t->span.begin, dots);
    }
}

/* The kinds in the order of tokens.def, which is the order of interest. */
static const uint8_t kinds_in_order[] = {
#define TOKEN(kind, words, flags) TOK_##kind,
#include "lang/tokens.def"
#undef TOKEN
};

enum { MAX_EXPECTED = 4, N_KINDS = sizeof kinds_in_order };

static uint32_t list_expected(parse_cx *cx, const char *words[MAX_EXPECTED])
{
    uint32_t n = 0;
    bool expr = gram_accepts(cx->gram, TOK_INT) && gram_accepts(cx->gram, TOK_LBRACKET);
    bool after_expr = gram_accepts(cx->gram, TOK_PLUS);
    if (expr)
        words[n++] = "an expression";
    for (uint32_t i = 0; i < N_KINDS && n < MAX_EXPECTED; i++) {
        uint8_t kind = kinds_in_order[i];
        const token_info *info = lex_token_info(kind);
        if ((expr && (info->flags & LEX_EXPR)) || (after_expr && (info->flags & LEX_OPERATOR)) ||
            kind == TOK_SEMI || (kind == TOK_NEWLINE && !gram_accepts(cx->gram, TOK_SEMI)) ||
            info->words[0] == '\0' || kind == TOK_FOREIGN || !gram_accepts(cx->gram, kind))
            continue;
        bool twice = false;
        for (uint32_t k = 0; k < n; k++)
            twice |= strcmp(words[k], info->words) == 0;
        if (!twice)
            words[n++] = info->words;
    }
    if (n == 0 && after_expr)
        words[n++] = "an operator";
    return n;
}

/* ---- One function per mistake ---------------------------------------------------------------- */

static bool same_line(const parse_cx *cx, uint32_t from, uint32_t to)
{
    return from < to && memchr(cx->source + from, '\n', to - from) == NULL;
}

static bool is_foreign(parse_cx *cx, const token *t)
{
    pps_span span = t->span, slashes = {cx->file, cx->floordiv - 1, cx->floordiv + 1};
    if (t->kind == TOK_FOREIGN && cx->source[span.begin] == '\'')
        span.end = span.begin + 1; /* report_foreign compares the sign alone */
    if (t->kind == TOK_FOREIGN || t->kind == TOK_FLOORDIV)
        return report_foreign(cx, FOREIGN_SIGN, span);
    if (t->kind == TOK_COLON && gram_accepts(cx->gram, TOK_LBRACE) &&
        !gram_accepts(cx->gram, TOK_INT))
        return (cx->prev2.kind == TOK_NAME && report_foreign(cx, FOREIGN_LEAD, cx->prev2.span)) ||
               report_foreign(cx, FOREIGN_SIGN, span);
    if (cx->prev.kind == TOK_MINUS && cx->prev2.kind == TOK_MINUS &&
        cx->prev2.span.end == cx->prev.span.begin)
        return report_foreign(cx, FOREIGN_SIGN, ast_join(cx->prev2.span, cx->prev.span));
    if (cx->prev.kind == TOK_NAME && t->kind != TOK_NEWLINE &&
        report_foreign(cx, FOREIGN_LEAD, cx->prev.span))
        return true;
    if (t->kind == TOK_NAME && cx->source[t->span.end] != '(' &&
        report_foreign(cx, FOREIGN_LEAD, t->span))
        return true;
    return cx->floordiv != 0 && t->kind != TOK_NEWLINE &&
           same_line(cx, cx->floordiv - 1, t->span.begin) &&
           report_foreign(cx, FOREIGN_SIGN, slashes);
}

static bool is_strange_character(parse_cx *cx, const token *t)
{
    char found[MAX_FOUND + 8];
    if (t->kind != TOK_FOREIGN)
        return false;
    describe(cx, t, found, sizeof found);
    parse_error(cx, t->span, 16, "%s means nothing here", found);
    return true;
}

/* A new line at the indentation of a bracket's line, or less, where the bracket could have been
 * closed: the bracket is the mistake, not what stands on the new line. */
static bool is_unclosed_group(parse_cx *cx, const token *t)
{
    const lex_bracket *open = lex_open_group(&cx->lex);
    if (open == NULL || !(t->flags & TOKEN_LINE_START) || cx->lex.indent > open->indent ||
        (open->kind != '(' && open->kind != '['))
        return false;
    pps_span span = {cx->file, open->begin, open->begin + 1};
    parse_lex_problem(cx, LEX_BRACKET_UNCLOSED, span, t->span);
    cx->abandon = true;
    return true;
}

void parse_missing_on(parse_cx *cx, pps_span devices)
{
    pps_diag *d = parse_error_start(cx, (pps_span){devices.file, devices.begin, devices.begin + 1},
                                    16, "missing `on` before the list of devices");
    pps_diag_help(d, "write `on [...]`");
    parse_error_done(cx, d);
}

/* `place {PP: 0} [0, 1]`: the list was read as an index of the filter. */
static bool is_missing_on(parse_cx *cx, const token *t)
{
    if (t->kind != TOK_COMMA)
        return false;
    for (uint32_t i = 0; i + 2 < gram_depth(cx->gram); i++) {
        uint8_t kind = gram_token(cx->gram, i);
        if (kind == TOK_LPAREN || kind == TOK_LBRACE)
            return false;
        if (kind != TOK_LBRACKET)
            continue;
        if (gram_token(cx->gram, i + 2) != TOK_DIRECTIVE)
            return false;
        pps_span gap = gram_span(cx->gram, i);
        while (gap.begin > 0 && strchr(" \t", cx->source[gap.begin - 1]) != NULL)
            gap.begin--;
        parse_missing_on(cx, gap);
        return true;
    }
    return false;
}

/* `(1, 2)`: people who know tuples write it. */
static bool is_tuple(parse_cx *cx, const token *t)
{
    if (t->kind != TOK_COMMA || !gram_accepts(cx->gram, TOK_RPAREN))
        return false;
    pps_diag *d = parse_error_start(cx, t->span, 16, "`( )` holds one expression only");
    pps_diag_help(d, "a list is written [a, b]");
    parse_error_done(cx, d);
    return true;
}

static bool is_assignment_in_expression(parse_cx *cx, const token *t)
{
    if (t->kind != TOK_EQ || !gram_accepts(cx->gram, TOK_EQEQ))
        return false;
    parse_error(cx, t->span, 16, "`=` assigns, which is a statement; to compare, write `==`");
    return true;
}

/* The clauses of the directive whose keyword is at `keyword`: "on, stream"; empty for none. */
static void clause_words(const parse_cx *cx, pps_span keyword, char *out, size_t bytes)
{
    static const struct {
        bool directive;
        const char *word;
    } rows[] = {
#define DIRECTIVE(name, word)               {true, word},
#define CLAUSE(directive, word, type, json) {false, word},
#include "lang/clauses.def"
#undef DIRECTIVE
#undef CLAUSE
    };
    enum { N_ROWS = sizeof rows / sizeof *rows };
    size_t row = 0, n = 0;
    out[0] = '\0';
    while (row < N_ROWS && !(rows[row].directive && is_text(cx, keyword, rows[row].word)))
        row++;
    for (row++; row < N_ROWS && !rows[row].directive && n < bytes; row++)
        n += (size_t)snprintf(out + n, bytes - n, "%s%s", n != 0 ? ", " : "", rows[row].word);
}

/* After a directive's subject or a clause: only a clause's word, or the end, may come. */
static bool is_bad_clause(parse_cx *cx, const token *t)
{
    uint32_t i = 0;
    while (i < gram_depth(cx->gram) && gram_token(cx->gram, i) != TOK_DIRECTIVE)
        i++;
    if (i == gram_depth(cx->gram))
        return false;
    pps_span keyword = gram_span(cx->gram, i);
    char words[128], found[MAX_FOUND + 8];
    clause_words(cx, keyword, words, sizeof words);
    if (words[0] == '\0' || (lex_token_info(t->kind)->flags & LEX_BEGINS))
        return false;
    describe(cx, t, found, sizeof found);
    pps_diag *d =
        parse_error_start(cx, t->span, 16, "expected a clause of `%.*s`, found %s",
                          (int)(keyword.end - keyword.begin), cx->source + keyword.begin, found);
    pps_diag_note(d, "its clauses are a word and a value: %s%s", words,
                  t->kind == TOK_COMMA ? "; no commas between them" : "");
    parse_error_done(cx, d);
    return true;
}

/* `order F(0, 0) F(1, 1)`: the second F was read as a clause's word, `(` as the begin of its value.
 */
static bool is_call_as_clause(parse_cx *cx, const token *t)
{
    void *gram = cx->gram;
    uint32_t i = 0;
    while (i < gram_depth(gram) && gram_token(gram, i) != TOK_LPAREN)
        i++;
    if (t->kind != TOK_COMMA || i + 4 >= gram_depth(gram) || gram_token(gram, i + 1) != TOK_NAME ||
        gram_token(gram, i + 4) != TOK_DIRECTIVE)
        return false;
    pps_span word = gram_span(gram, i + 1), keyword = gram_span(gram, i + 4);
    char words[128];
    clause_words(cx, keyword, words, sizeof words);
    pps_diag *d = parse_error_start(cx, word, 16, "this is no clause of `%.*s`",
                                    (int)(keyword.end - keyword.begin), cx->source + keyword.begin);
    if (words[0] != '\0')
        pps_diag_note(d, "its clauses are a word and a value: %s", words);
    else if (is_text(cx, keyword, "order"))
        pps_diag_help(d, "write `->` between the steps of a row");
    parse_error_done(cx, d);
    return true;
}

static bool is_second_statement(parse_cx *cx, const token *t)
{
    uint8_t flags = lex_token_info(t->kind)->flags;
    if (!gram_accepts(cx->gram, TOK_SEMI) || t->kind == TOK_NEWLINE || t->kind == 0)
        return false;
    if (t->kind == TOK_ELSE) {
        parse_error(cx, t->span, 16, "this `else` belongs to no `if`");
        return true;
    }
    if (gram_accepts(cx->gram, TOK_NAME) && !gram_accepts(cx->gram, TOK_INT) &&
        is_bad_clause(cx, t))
        return true;
    if (!(flags & (LEX_EXPR | LEX_BEGINS)) && t->kind != TOK_FOR)
        return false;
    pps_diag *d = parse_error_start(cx, t->span, 17, "two statements on one line");
    pps_diag_label(d, "the second begins here");
    pps_diag_help(d, "put a newline or `;` between them");
    parse_error_done(cx, d);
    return true;
}

static bool is_reserved(parse_cx *cx, const token *t)
{
    if (!(lex_token_info(t->kind)->flags & LEX_WORD) || !gram_accepts(cx->gram, TOK_NAME) ||
        gram_accepts(cx->gram, TOK_INT) || gram_accepts(cx->gram, TOK_SEMI))
        return false;
    parse_error(cx, t->span, 16, "`%.*s` is a reserved word and cannot be a name",
                (int)(t->span.end - t->span.begin), cx->source + t->span.begin);
    return true;
}

static void report_expected(parse_cx *cx, const token *t)
{
    const char *words[MAX_EXPECTED];
    char found[MAX_FOUND + 8], expected[256];
    uint32_t n = list_expected(cx, words);
    size_t used = 0;
    expected[0] = '\0';
    for (uint32_t i = 0; i < n; i++)
        used += (size_t)snprintf(expected + used, sizeof expected - used, "%s%s",
                                 i == 0       ? ""
                                 : i + 1 == n ? " or "
                                              : ", ",
                                 words[i]);
    describe(cx, t, found, sizeof found);
    if (n == 0)
        parse_error(cx, t->span, 16, "%s cannot stand here", found);
    else
        parse_error(cx, t->span, 16, "expected %s, found %s", expected, found);
}

void parse_syntax_error(parse_cx *cx, const token *t)
{
    cx->failed = true;
    if ((t->flags | cx->prev.flags) & TOKEN_MADE)
        return; /* a bracket that was reported already */
    if (cx->lex_error != 0 && same_line(cx, cx->lex_error - 1, t->span.begin))
        return; /* likely the same mistake */
    bool known = is_foreign(cx, t) || is_strange_character(cx, t) || is_unclosed_group(cx, t) ||
                 is_missing_on(cx, t) || is_call_as_clause(cx, t) || is_tuple(cx, t) ||
                 is_assignment_in_expression(cx, t) || is_second_statement(cx, t) ||
                 is_reserved(cx, t);
    if (!known)
        report_expected(cx, t);
}
