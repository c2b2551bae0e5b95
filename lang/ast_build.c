/* SPDX-License-Identifier: Apache-2.0
 *
 * ast_build.c: nodes for the grammar's actions.
 *
 * `height` bounds the recursion of everyone who walks the tree, so it counts the way walks recurse:
 * down to children. A list hangs on its first node, whose height is raised to the highest of the
 * list; a parent is one higher than its highest child.
 */
#include "lang/ast_build.h"

#include <string.h>
#include "grammar/pps.h"
#include "lang/lex_text.h"
#include "lang/state.h"

/* ---- Nodes ----------------------------------------------------------------------------------- */

pps_span ast_join(pps_span from, pps_span to)
{
    return (pps_span){from.file, from.begin, to.end};
}

ast_list ast_none(void)
{
    return (ast_list){NULL, NULL};
}

ast_list ast_one(ast_node *n)
{
    return (ast_list){n, n};
}

ast_list ast_add(ast_list to, ast_node *n)
{
    if (to.first == NULL)
        return ast_one(n);
    if (n == to.last) /* the spare node, short of memory: never a cycle */
        return to;
    if (to.first->height < n->height)
        to.first->height = n->height;
    to.last->next = n;
    to.last = n;
    return to;
}

static ast_node *spare(parse_cx *cx)
{
    cx->status = PPS_ERR_NOMEM;
    cx->spare = (ast_node){.kind = AST_ERROR_STMT};
    return &cx->spare;
}

static void raise_height(parse_cx *cx, ast_node *n, const ast_node *child)
{
    if (child == NULL || child->height + 1 <= n->height)
        return;
    n->height = child->height + 1;
    if (n->height > AST_MAX_HEIGHT)
        parse_too_deep(cx, n->span);
}

ast_node *ast_make(parse_cx *cx, ast_kind kind, pps_span span, ast_node *a, ast_node *b,
                   ast_node *c)
{
    ast_node *n = cx->status == PPS_ERR_NOMEM ? NULL : arena_zero(cx->trees, sizeof *n);
    if (n == NULL)
        return spare(cx);
    n->kind = (uint8_t)kind;
    n->span = span;
    n->a = a;
    n->b = b;
    n->c = c;
    raise_height(cx, n, a);
    raise_height(cx, n, b);
    raise_height(cx, n, c);
    return n;
}

static const char *token_bytes(const parse_cx *cx, const token *t)
{
    return cx->source + t->span.begin;
}

static size_t token_size(const token *t)
{
    return t->span.end - t->span.begin;
}

static const char *intern_bytes(parse_cx *cx, const char *bytes, size_t n)
{
    const char *name = intern(&cx->st->intern, bytes, n);
    if (name == NULL) {
        cx->status = PPS_ERR_NOMEM;
        return "";
    }
    return name;
}

ast_node *ast_named(parse_cx *cx, ast_kind kind, pps_span span, const token *name, ast_node *a,
                    ast_node *b, ast_node *c)
{
    ast_node *n = ast_make(cx, kind, span, a, b, c);
    n->name = intern_bytes(cx, token_bytes(cx, name), token_size(name));
    n->name_span = name->span;
    return n;
}

/* ---- Literals -------------------------------------------------------------------------------- */

ast_node *ast_name(parse_cx *cx, const token *name)
{
    return ast_named(cx, AST_NAME, name->span, name, NULL, NULL, NULL);
}

ast_node *ast_variable(parse_cx *cx, const token *name)
{
    if (parse_foreign_word(cx, name))
        return ast_make(cx, AST_NIL, name->span, NULL, NULL, NULL);
    return ast_name(cx, name);
}

ast_node *ast_bool(parse_cx *cx, const token *t, bool b)
{
    ast_node *n = ast_make(cx, AST_BOOL, t->span, NULL, NULL, NULL);
    n->v.i = b;
    return n;
}

static void malformed_number(parse_cx *cx, const token *t)
{
    const char *bytes = token_bytes(cx, t);
    int n = token_size(t) > 40 ? 40 : (int)token_size(t);
    bool leading_zero = n > 1 && bytes[0] == '0' && strspn(bytes, "0123456789_") >= (size_t)n;
    pps_diag *d = parse_error_start(cx, t->span, 18, "`%.*s` is not a number", n, bytes);
    if (leading_zero)
        pps_diag_help(d, "numbers do not begin with 0; hexadecimal ones begin with 0x");
    else
        pps_diag_help(d, "numbers look like 12, 1_000, 0x1f, 1.5 and 2e9");
    parse_error_done(cx, d);
}

ast_node *ast_int(parse_cx *cx, const token *t)
{
    ast_node *n = ast_make(cx, AST_INT, t->span, NULL, NULL, NULL);
    uint64_t u = 0;
    if (t->flags & TOKEN_MALFORMED) {
        malformed_number(cx, t);
        return n;
    }
    bool fits = lex_uint(token_bytes(cx, t), token_size(t), &u);
    if (fits && u == (uint64_t)INT64_MAX + 1 && (t->flags & TOKEN_NEGATED)) {
        n->v.i = INT64_MIN; /* ast_unary completes -9223372036854775808 */
    } else if (fits && u <= INT64_MAX) {
        n->v.i = (int64_t)u;
    } else {
        pps_diag *d = parse_error_start(cx, t->span, 18, "this number does not fit in 64 bits");
        pps_diag_note(d, "whole numbers go up to 9223372036854775807");
        pps_diag_help(d, "write it as a float (with `.0`) if an approximation will do");
        parse_error_done(cx, d);
    }
    return n;
}

ast_node *ast_float(parse_cx *cx, const token *t)
{
    ast_node *n = ast_make(cx, AST_FLOAT, t->span, NULL, NULL, NULL);
    double f = 0;
    if (t->flags & TOKEN_MALFORMED)
        malformed_number(cx, t);
    else if (lex_float(token_bytes(cx, t), token_size(t), &f))
        n->v.f = f;
    else
        parse_error(cx, t->span, 18, "this number does not fit in a 64-bit float");
    return n;
}

/* The inside of a string token or of a piece of an f-string: [*ret_begin, *ret_end) of the source.
 */
static void string_inside(const parse_cx *cx, const token *t, uint32_t *ret_begin,
                          uint32_t *ret_end)
{
    const char *bytes = token_bytes(cx, t);
    uint32_t n = (uint32_t)token_size(t), begin = 1, quotes = 1;
    if (n == 0) { /* made up */
        *ret_begin = *ret_end = t->span.begin;
        return;
    }
    if (t->kind == TOK_STRING || t->kind == TOK_FSTR_BEGIN) {
        begin = bytes[0] == 'f';
        if (n >= begin + 3 && memcmp(bytes + begin, "\"\"\"", 3) == 0)
            quotes = 3;
        begin += quotes;
    } else if (t->kind == TOK_FSTR_END && n >= 4 && memcmp(bytes + n - 3, "\"\"\"", 3) == 0) {
        quotes = 3;
    }
    bool opens_hole = t->kind == TOK_FSTR_BEGIN || t->kind == TOK_FSTR_MID;
    uint32_t tail = t->flags & TOKEN_UNCLOSED ? 0 : opens_hole ? 1 : quotes;
    *ret_begin = t->span.begin + begin;
    *ret_end = t->span.end - tail;
}

/* Unescape the source's bytes [begin, end) into `n`. */
static void set_string(parse_cx *cx, ast_node *n, uint32_t begin, uint32_t end)
{
    size_t bad, bad_end, bytes = end - begin;
    char *out = arena_new(cx->trees, bytes + 1);
    if (out == NULL) {
        cx->status = PPS_ERR_NOMEM;
        n->v.s.bytes = "";
        return;
    }
    size_t written = lex_unescape(cx->source + begin, bytes, out, &bad, &bad_end);
    if (written == SIZE_MAX) {
        const char *escape = cx->source + begin + bad;
        pps_span span = {cx->file, begin + (uint32_t)bad, begin + (uint32_t)bad_end};
        pps_diag *d;
        if (escape[1] == 'u')
            d = parse_error_start(cx, span, 19, "`\\u` takes a code point in braces: \\u{e9}");
        else if (escape[1] == 'x')
            d = parse_error_start(cx, span, 19, "`\\x` takes two digits up to 7f: \\x1b");
        else
            d = parse_error_start(cx, span, 19, "strings have no escape `%.*s`",
                                  (int)(bad_end - bad), escape);
        pps_diag_help(d, "for a backslash write `\\\\`; escapes are \\n \\t \\r \\\\ \\\" \\{ \\} "
                         "\\u{...} \\xNN");
        parse_error_done(cx, d);
        written = 0;
    }
    out[written] = '\0';
    n->v.s.bytes = out;
    n->v.s.n = written;
}

ast_node *ast_string(parse_cx *cx, const token *t)
{
    ast_node *n = ast_make(cx, AST_STRING, t->span, NULL, NULL, NULL);
    uint32_t begin, end;
    string_inside(cx, t, &begin, &end);
    set_string(cx, n, begin, end);
    return n;
}

/* ---- Expressions ----------------------------------------------------------------------------- */

ast_node *ast_parens(const token *open, ast_node *n, const token *close)
{
    n->flags |= AST_FLAG_PARENS;
    n->span = ast_join(open->span, close->span);
    return n;
}

static bool is_comparison(ast_op op)
{
    return op >= AST_OP_EQ && op <= AST_OP_NOT_IN;
}

static bool is_range(ast_op op)
{
    return op == AST_OP_RANGE || op == AST_OP_RANGE_CLOSED;
}

/* `a < b < c`, `0..n..2`: neither means what it looks like, so neither is accepted. */
static void refuse_chain(parse_cx *cx, ast_op op, const ast_node *a, const ast_node *b)
{
    bool compares = is_comparison(op) && is_comparison((ast_op)a->op);
    bool ranges = is_range(op) && is_range((ast_op)a->op);
    if (a->kind != AST_BINARY || a->flags & AST_FLAG_PARENS || (!compares && !ranges))
        return;
    pps_span sign = {cx->file, a->span.end, b->span.begin};
    while (sign.begin + 1 < sign.end && strchr(" \t\r\n", cx->source[sign.begin]) != NULL)
        sign.begin++;
    sign.end = sign.begin + (uint32_t)strlen(ast_op_text(op));
    pps_diag *d =
        parse_error_start(cx, sign, 16, "%s do not chain", compares ? "comparisons" : "ranges");
    if (compares)
        pps_diag_help(d, "join them with `and`: a < b and b < c");
    else
        pps_diag_help(d, "a range with a step is range(from, to, step)");
    parse_error_done(cx, d);
}

ast_node *ast_binary(parse_cx *cx, ast_op op, ast_node *a, ast_node *b)
{
    refuse_chain(cx, op, a, b);
    ast_node *n = ast_make(cx, AST_BINARY, ast_join(a->span, b->span), a, b, NULL);
    n->op = (uint8_t)op;
    return n;
}

ast_node *ast_unary(parse_cx *cx, ast_op op, const token *sign, ast_node *a)
{
    if (op == AST_OP_NEG && a->kind == AST_INT && a->v.i == INT64_MIN) {
        a->span = ast_join(sign->span, a->span);
        return a;
    }
    ast_node *n = ast_make(cx, AST_UNARY, ast_join(sign->span, a->span), a, NULL, NULL);
    n->op = (uint8_t)op;
    return n;
}

ast_list ast_add_arg(parse_cx *cx, ast_list to, ast_node *n)
{
    if (to.last->name != NULL && n->name == NULL) {
        pps_diag *d = parse_error_start(cx, n->span, 16, "this argument needs a name");
        pps_diag_also(d, to.last->span, "arguments after a named one are named too");
        parse_error_done(cx, d);
    }
    return ast_add(to, n);
}

ast_list ast_add_param(parse_cx *cx, ast_list to, ast_node *n)
{
    if (to.last->a != NULL && n->a == NULL) {
        pps_diag *d =
            parse_error_start(cx, n->span, 16, "parameter `%s` needs a default value", n->name);
        pps_diag_also(d, to.last->span, "parameters after one with a default have one too");
        parse_error_done(cx, d);
    }
    return ast_add(to, n);
}

ast_node *ast_fn_expr(parse_cx *cx, const token *word, ast_list params, ast_node *body,
                      uint16_t flags)
{
    ast_node *n =
        ast_make(cx, AST_FN_EXPR, ast_join(word->span, body->span), params.first, body, NULL);
    n->flags |= flags;
    return n;
}

/* ---- Statements ------------------------------------------------------------------------------ */

/* The text of the ## lines from offset `doc` - 1 up to `end`, without the marks. */
static void set_doc(parse_cx *cx, ast_node *n, uint32_t doc, uint32_t end)
{
    if (doc == 0)
        return;
    const char *p = cx->source + doc - 1, *limit = cx->source + end;
    char *out = arena_new(cx->trees, (size_t)(limit - p) + 1), *to = out;
    if (out == NULL) {
        cx->status = PPS_ERR_NOMEM;
        return;
    }
    while (p < limit) {
        const char *newline = memchr(p, '\n', (size_t)(limit - p));
        const char *line_end = newline != NULL ? newline : limit;
        while (p < line_end && (*p == ' ' || *p == '\t'))
            p++;
        if (line_end - p >= 2 && p[0] == '#' && p[1] == '#') {
            p += 2;
            if (p < line_end && *p == ' ')
                p++;
            if (to != out)
                *to++ = '\n';
            size_t length = (size_t)(line_end - p);
            memcpy(to, p, length);
            to += length;
            while (to > out && (to[-1] == ' ' || to[-1] == '\r' || to[-1] == '\t'))
                to--;
        }
        p = line_end + 1;
    }
    *to = '\0';
    n->v.s.bytes = out;
    n->v.s.n = (size_t)(to - out);
}

ast_node *ast_file_block(parse_cx *cx, ast_list statements)
{
    for (ast_node *n = statements.first; n != NULL; n = n->next)
        n->flags |= AST_FLAG_TOP_LEVEL;
    uint32_t end = (uint32_t)(cx->lex.limit - cx->lex.begin);
    return ast_make(cx, AST_BLOCK, (pps_span){cx->file, 0, end}, statements.first, NULL, NULL);
}

static void check_target(parse_cx *cx, const ast_node *target)
{
    bool parens = target->flags & AST_FLAG_PARENS;
    if ((target->kind == AST_NAME || target->kind == AST_INDEX) && !parens)
        return;
    pps_diag *d = parse_error_start(cx, target->span, 16, "this cannot be assigned to");
    if (target->kind == AST_BINARY || target->kind == AST_CALL)
        pps_diag_help(d, "to compare, write `==`");
    else if (target->kind == AST_FIELD)
        pps_diag_note(d, "fields are read only; a map's entry is written m[\"%s\"]", target->name);
    else
        pps_diag_note(d, "variables (x = ...) and elements (xs[i] = ...) can be");
    parse_error_done(cx, d);
}

ast_node *ast_assign(parse_cx *cx, ast_node *target, ast_node *val)
{
    check_target(cx, target);
    return ast_make(cx, AST_ASSIGN, ast_join(target->span, val->span), target, val, NULL);
}

ast_node *ast_aug_assign(parse_cx *cx, ast_op op, ast_node *target, ast_node *val)
{
    check_target(cx, target);
    ast_node *n =
        ast_make(cx, AST_AUG_ASSIGN, ast_join(target->span, val->span), target, val, NULL);
    n->op = (uint8_t)op;
    return n;
}

ast_node *ast_param(parse_cx *cx, const token *word, const token *name, ast_node *preset,
                    ast_node *where)
{
    pps_span end = where != NULL ? where->span : preset->span;
    ast_node *n = ast_named(cx, AST_PARAM, ast_join(word->span, end), name, preset, where, NULL);
    set_doc(cx, n, word->doc, word->span.begin);
    return n;
}

ast_node *ast_fn(parse_cx *cx, ast_kind kind, const token *word, const token *name, ast_list params,
                 ast_node *body, uint16_t flags)
{
    ast_node *n =
        ast_named(cx, kind, ast_join(word->span, body->span), name, params.first, body, NULL);
    n->flags |= flags;
    set_doc(cx, n, word->doc, word->span.begin);
    return n;
}

static bool is_name(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)bytes[i];
        bool letter = (c | 0x20) >= 'a' && (c | 0x20) <= 'z';
        if (!letter && c != '_' && c < 0x80 && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return n != 0;
}

/* `import "models/moe.pps"` binds `moe`. */
static void bind_import(parse_cx *cx, ast_node *n)
{
    const char *path = n->v.s.bytes, *slash = strrchr(path, '/');
    const char *base = slash != NULL ? slash + 1 : path;
    size_t bytes = strlen(base);
    if (bytes > 4 && strcmp(base + bytes - 4, ".pps") == 0)
        bytes -= 4;
    n->name = intern_bytes(cx, base, bytes);
    if (is_name(base, bytes))
        return;
    pps_diag *d = parse_error_start(cx, n->name_span, 16, "this path gives the module no name");
    pps_diag_help(d, "name it: import \"%.100s\" as NAME", path);
    parse_error_done(cx, d);
}

ast_node *ast_import(parse_cx *cx, const token *word, const token *path, const token *name)
{
    const token *last = name != NULL ? name : path;
    ast_node *n =
        ast_named(cx, AST_IMPORT, ast_join(word->span, last->span), last, NULL, NULL, NULL);
    uint32_t begin, end;
    string_inside(cx, path, &begin, &end);
    set_string(cx, n, begin, end);
    if (name == NULL)
        bind_import(cx, n);
    return n;
}

ast_node *ast_from(parse_cx *cx, const token *word, const token *path, ast_list names)
{
    ast_node *n = ast_make(cx, AST_FROM_IMPORT, ast_join(word->span, names.last->span), names.first,
                           NULL, NULL);
    uint32_t begin, end;
    n->name_span = path->span;
    string_inside(cx, path, &begin, &end);
    set_string(cx, n, begin, end);
    return n;
}

static const char *const directive_words[] = {
#define DIRECTIVE(name, word) [PPS_DIR_##name] = word,
#define CLAUSE(directive, word, type, json)
#include "lang/clauses.def"
#undef DIRECTIVE
#undef CLAUSE
};

ast_node *ast_directive(parse_cx *cx, const token *word, ast_node *subject, ast_list clauses)
{
    pps_span end = clauses.last != NULL ? clauses.last->span : subject->span;
    ast_node *n =
        ast_named(cx, AST_DIRECTIVE, ast_join(word->span, end), word, subject, clauses.first, NULL);
    while (n->v.n + 1 < PPS_DIR_COUNT && strcmp(directive_words[n->v.n], n->name) != 0)
        n->v.n++;
    /* `place {PP: 0} [0]` reads as an index into a filter, which nobody means */
    if (subject->kind == AST_INDEX && subject->a->kind == AST_BRACE)
        parse_missing_on(cx, (pps_span){cx->file, subject->a->span.end, subject->span.end});
    return n;
}
