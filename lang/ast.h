/* SPDX-License-Identifier: Apache-2.0
 *
 * ast.h: the syntax tree of one source file.
 *
 * Nodes live in the arena of their source and are freed with it. Children hang in singly linked
 * lists (`next`), so building needs no counting. Names are interned by the state: compare pointers.
 * grammar/pps.y builds trees through the ast_* functions; lang/compile.c reads them.
 * Each kind and its use of the fields is a row of ast.def.
 */
#ifndef PPS_AST_H
#define PPS_AST_H

#include "lang/pps.h"

typedef enum ast_kind {
#define AST(name, text) AST_##name,
#include "lang/ast.def"
#undef AST
    AST_KIND_COUNT
} ast_kind;

typedef enum ast_op {
    AST_OP_ADD, AST_OP_SUB, AST_OP_MUL, AST_OP_DIV, AST_OP_FLOORDIV, AST_OP_MOD, AST_OP_POW,
    AST_OP_EQ, AST_OP_NE, AST_OP_LT, AST_OP_LE, AST_OP_GT, AST_OP_GE, AST_OP_IN, AST_OP_NOT_IN,
    AST_OP_AND, AST_OP_OR, AST_OP_NOT, AST_OP_NEG, AST_OP_BITAND /* filter & filter */,
    AST_OP_BAR /* op | op */, AST_OP_ARROW /* a -> b */, AST_OP_RANGE, AST_OP_RANGE_CLOSED,
    AST_OP_COUNT
} ast_op;

typedef struct ast_node ast_node;
struct ast_node {
    uint8_t kind;   /* ast_kind */
    uint8_t op;     /* ast_op where the kind uses one */
    uint16_t flags; /* AST_FLAG_* */
    pps_span span;
    pps_span name_span; /* of `name`, where there is one */
    uint32_t height;    /* levels below, counting later siblings'; at most AST_MAX_HEIGHT */
    const char *name;   /* interned */
    ast_node *next;     /* sibling in its parent's list */
    ast_node *a, *b, *c, *d;
    union {
        int64_t i;
        double f;
        struct {
            const char *bytes; /* unescaped, NUL-terminated, in the arena */
            size_t n;
        } s;
        uint32_t n;
    } v;
};

enum {
    AST_FLAG_EXPR_BODY = 1,   /* fn f(x) => expr: body `b` is an expression */
    AST_FLAG_TOP_LEVEL = 2,   /* statement at the top level of its module */
    AST_FLAG_PARENS = 4,      /* expression was written in parentheses */
};

/* A parsed file. On errors the parser still returns what it could build (`root` may be NULL). */
typedef struct ast_file {
    uint32_t file; /* source id, as in pps_span.file */
    ast_node *root; /* AST_BLOCK */
} ast_file;

/* Trees are no higher than this (the parser refuses more), so walks over them may recurse. */
enum { AST_MAX_HEIGHT = 2000 };

const char *ast_kind_name(ast_kind kind);
const char *ast_op_text(ast_op op); /* "+", "->", "not in", ... */

#endif
