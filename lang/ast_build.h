/* SPDX-License-Identifier: Apache-2.0
 *
 * ast_build.h: one parse under way, and the functions by which the grammar builds trees.
 *
 * No builder fails: short of memory they set `status` and return the spare node, and the driver
 * stops before the next token. What a token means (a number, a path, a directive) is checked here;
 * mistakes are reported and a harmless node stands in.
 */
#ifndef PPS_AST_BUILD_H
#define PPS_AST_BUILD_H

#include "lang/arena.h"
#include "lang/ast.h"
#include "lang/lex.h"

typedef struct parse_cx {
    pps_state *st;
    uint32_t file;
    const char *source; /* its text */
    arena *trees;
    arena scratch; /* the parser and its stack */
    void *gram;
    ast_node *root;
    pps_status status; /* sticky; PPS_ERR_SCRIPT does not stop the parse, the others do */
    bool stopped;      /* nothing after this is worth reading */
    bool failed;       /* set by parse_syntax_error: the driver must recover */
    bool abandon;      /* with it: the brackets open in the statement are given up */
    uint32_t bad_line; /* while recovering: where the line with the error begins */
    bool recovering;
    uint32_t n_errors;
    token prev, prev2;  /* before the token now fed */
    uint32_t floordiv;  /* 1 + offset of the last `//` */
    uint32_t lex_error; /* 1 + offset of the last problem of the lexer */
    ast_node spare;
    lexer lex;
} parse_cx;

typedef struct ast_list {
    ast_node *first, *last;
} ast_list;

/* ---- ast_build.c: called by the grammar ------------------------------------------------------ */
pps_span ast_join(pps_span from, pps_span to);
ast_list ast_none(void);
ast_list ast_one(ast_node *n);
ast_list ast_add(ast_list to, ast_node *n);
/* A node with up to three children (lists by their first node). */
ast_node *ast_make(parse_cx *cx, ast_kind kind, pps_span span, ast_node *a, ast_node *b,
                   ast_node *c);
/* The same with a name. */
ast_node *ast_named(parse_cx *cx, ast_kind kind, pps_span span, const token *name, ast_node *a,
                    ast_node *b, ast_node *c);
ast_node *ast_file_block(parse_cx *cx, ast_list statements); /* marks top-level statements */
ast_node *ast_assign(parse_cx *cx, ast_node *target, ast_node *val);
ast_node *ast_aug_assign(parse_cx *cx, ast_op op, ast_node *target, ast_node *val);
ast_node *ast_param(parse_cx *cx, const token *word, const token *name, ast_node *preset,
                    ast_node *where);
/* FN_STMT, MODEL. `flags`: AST_FLAG_EXPR_BODY or 0. */
ast_node *ast_fn(parse_cx *cx, ast_kind kind, const token *word, const token *name, ast_list params,
                 ast_node *body, uint16_t flags);
ast_node *ast_fn_expr(parse_cx *cx, const token *word, ast_list params, ast_node *body,
                      uint16_t flags);
ast_list ast_add_param(parse_cx *cx, ast_list to, ast_node *n); /* defaults come last */
ast_list ast_add_arg(parse_cx *cx, ast_list to, ast_node *n);   /* names come last */
ast_node *ast_import(parse_cx *cx, const token *word, const token *path, const token *name);
ast_node *ast_from(parse_cx *cx, const token *word, const token *path, ast_list names);
ast_node *ast_directive(parse_cx *cx, const token *word, ast_node *subject, ast_list clauses);
ast_node *ast_variable(parse_cx *cx, const token *name); /* a NAME that is an expression */
ast_node *ast_name(parse_cx *cx, const token *name);     /* a NAME that binds */
ast_node *ast_bool(parse_cx *cx, const token *t, bool b);
ast_node *ast_int(parse_cx *cx, const token *t);
ast_node *ast_float(parse_cx *cx, const token *t);
ast_node *ast_string(parse_cx *cx, const token *t); /* also the pieces of an f-string */
ast_node *ast_parens(const token *open, ast_node *n, const token *close);
ast_node *ast_binary(parse_cx *cx, ast_op op, ast_node *a, ast_node *b);
ast_node *ast_unary(parse_cx *cx, ast_op op, const token *sign, ast_node *a);

/* ---- parse_error.c --------------------------------------------------------------------------- */
/* Report an error of this file; after very many the file is given up. `title` is printf-like. */
void parse_error(parse_cx *cx, pps_span span, int code, const char *title, ...) PPS_PRINTF(4, 5);
pps_diag *parse_error_start(parse_cx *cx, pps_span span, int code, const char *title, ...)
    PPS_PRINTF(4, 5);
void parse_error_done(parse_cx *cx, pps_diag *d);
void parse_syntax_error(parse_cx *cx, const token *t); /* the parser cannot take `t` */
/* `place {PP: 0} [0, 1]`; `devices` is the place of the list. */
void parse_missing_on(parse_cx *cx, pps_span devices);
void parse_too_deep(parse_cx *cx, pps_span span);
void parse_lex_problem(void *ud, lex_problem problem, pps_span span, pps_span other);
/* A word that other languages use where pps has its own (`null`): reported. */
bool parse_foreign_word(parse_cx *cx, const token *name);

/* ---- grammar/pps.y --------------------------------------------------------------------------- */
void *gram_new(parse_cx *cx);                  /* NULL when out of memory */
void gram_feed(void *parser, const token *t);  /* may call parse_syntax_error */
bool gram_accepts(void *parser, uint8_t kind); /* could a token of this kind come now? */
/* Drop the statement under way. The depth of its block, or -1 when not among statements. */
int gram_unwind(void *parser);
/* The kind `i` places below the top of the parser's stack when it is a token there, else 0. */
uint8_t gram_token(void *parser, uint32_t i);
pps_span gram_span(void *parser, uint32_t i); /* of that token */
uint32_t gram_depth(void *parser);

#endif
