/* SPDX-License-Identifier: Apache-2.0
 *
 * ast.c: names of kinds and operators, and the text form of a tree:
 *
 *   LET 0..9
 *     a NAME x 4..5
 *     b INT 3 8..9
 *
 * A line per node: the child's place in its parent, kind, operator, name, value, flags, span.
 */
#include "lang/ast.h"
#include "lang/parse.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static const char *const kind_names[] = {
#define AST(name, use) [AST_##name] = #name,
#include "lang/ast.def"
#undef AST
};

static const char *const op_texts[] = {
    [AST_OP_ADD] = "+",    [AST_OP_SUB] = "-",       [AST_OP_MUL] = "*",
    [AST_OP_DIV] = "/",    [AST_OP_FLOORDIV] = "//", [AST_OP_MOD] = "%",
    [AST_OP_POW] = "**",   [AST_OP_EQ] = "==",       [AST_OP_NE] = "!=",
    [AST_OP_LT] = "<",     [AST_OP_LE] = "<=",       [AST_OP_GT] = ">",
    [AST_OP_GE] = ">=",    [AST_OP_IN] = "in",       [AST_OP_NOT_IN] = "not in",
    [AST_OP_AND] = "and",  [AST_OP_OR] = "or",       [AST_OP_NOT] = "not",
    [AST_OP_NEG] = "-",    [AST_OP_BITAND] = "&",    [AST_OP_BAR] = "|",
    [AST_OP_ARROW] = "->", [AST_OP_RANGE] = "..",    [AST_OP_RANGE_CLOSED] = "..=",
};

const char *ast_kind_name(ast_kind kind)
{
    return kind < AST_KIND_COUNT ? kind_names[kind] : "?";
}

const char *ast_op_text(ast_op op)
{
    return op < AST_OP_COUNT ? op_texts[op] : "?";
}

typedef struct dump {
    void (*print)(void *ud, const char *bytes, size_t n);
    void *ud;
} dump;

static void put(const dump *d, const char *bytes)
{
    d->print(d->ud, bytes, strlen(bytes));
}

static void put_quoted(const dump *d, const char *bytes, size_t n)
{
    put(d, " \"");
    for (size_t i = 0; i < n; i++) {
        char escaped[8];
        unsigned char c = (unsigned char)bytes[i];
        if (c == '"' || c == '\\')
            snprintf(escaped, sizeof escaped, "\\%c", c);
        else if (c < 0x20 || c == 0x7f)
            snprintf(escaped, sizeof escaped, "\\x%02x", c);
        else
            snprintf(escaped, sizeof escaped, "%c", c);
        put(d, escaped);
    }
    put(d, "\"");
}

static void put_value(const dump *d, const ast_node *n)
{
    char number[40] = "";
    switch ((ast_kind)n->kind) {
    case AST_INT:
        snprintf(number, sizeof number, " %" PRId64, n->v.i);
        break;
    case AST_BOOL:
        snprintf(number, sizeof number, n->v.i != 0 ? " true" : " false");
        break;
    case AST_FLOAT:
        snprintf(number, sizeof number, " %.17g", n->v.f);
        for (char *p = number + 1; *p != '\0'; p++)
            if (strchr("0123456789e+-", *p) == NULL)
                *p = '.'; /* whatever the locale */
        break;
    case AST_BINARY:
    case AST_UNARY:
    case AST_AUG_ASSIGN:
        put(d, " ");
        put(d, ast_op_text((ast_op)n->op));
        break;
    case AST_STRING:
    case AST_IMPORT:
    case AST_FROM_IMPORT:
    case AST_PARAM:
    case AST_FN_STMT:
    case AST_MODEL:
        if (n->v.s.bytes != NULL)
            put_quoted(d, n->v.s.bytes, n->v.s.n);
        break;
    default:
        break;
    }
    put(d, number);
}

/* Depth is bounded by AST_MAX_HEIGHT. */
static void put_list(const dump *d, const ast_node *n, int depth, const char *place)
{
    for (; n != NULL; n = n->next) {
        char span[40];
        for (int i = 0; i < depth; i++)
            put(d, "  ");
        put(d, place);
        put(d, ast_kind_name((ast_kind)n->kind));
        if (n->name != NULL) {
            put(d, " ");
            put(d, n->name);
        }
        put_value(d, n);
        if (n->flags & AST_FLAG_EXPR_BODY)
            put(d, " =>");
        if (n->flags & AST_FLAG_PARENS)
            put(d, " ()");
        snprintf(span, sizeof span, " %" PRIu32 "..%" PRIu32 "\n", n->span.begin, n->span.end);
        put(d, span);
        put_list(d, n->a, depth + 1, "a ");
        put_list(d, n->b, depth + 1, "b ");
        put_list(d, n->c, depth + 1, "c ");
        put_list(d, n->d, depth + 1, "d ");
    }
}

void ast_dump(const ast_node *root, void (*print)(void *ud, const char *bytes, size_t n), void *ud)
{
    dump d = {print, ud};
    put_list(&d, root, 0, "");
}
