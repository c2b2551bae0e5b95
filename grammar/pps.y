/* SPDX-License-Identifier: Apache-2.0
 *
 * pps.y: the grammar of .pps, for Lemon. Generate with -c: without default reductions the tokens
 * that could have come instead of a wrong one are known exactly. Actions only call ast_* builders.
 * There is no error token: the driver in lang/parse.c skips a bad statement and puts BAD_STMT in its place.
 */
%include {
#ifndef NDEBUG
#define NDEBUG /* the template's tracing keeps writable globals */
#endif
#include "lang/ast_build.h"
#include "grammar/pps.h"

#define YYNOERRORRECOVERY 1
#define gram_ENGINEALWAYSONSTACK 1
/* The parser's stack lives in the parse's scratch arena; refusing to grow it is the depth limit. */
#define malloc(bytes) stack_grow(p->cx, NULL, 0, bytes)
#define realloc(ptr, bytes) stack_grow(p->cx, ptr, (size_t)p->yystksz * sizeof(yyStackEntry), bytes)
#define free(ptr) ((void)(ptr))

#pragma GCC diagnostic ignored "-Wmissing-prototypes"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wunused-variable"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wshadow"

enum { MAX_STACK_BYTES = 1 << 20 };

static void *stack_grow(parse_cx *cx, void *old, size_t old_bytes, size_t bytes)
{
    if (bytes > MAX_STACK_BYTES)
        return NULL;
    char *grown = arena_new(&cx->scratch, bytes);
    if (grown == NULL)
        cx->status = PPS_ERR_NOMEM;
    else if (old != NULL)
        __builtin_memcpy(grown, old, old_bytes);
    return grown;
}
}

%name gram_
%token_prefix TOK_
%token_type { token }
%default_type { ast_node * }
%extra_context { parse_cx *cx }
%stack_size 0
%start_symbol start
%syntax_error { parse_syntax_error(cx, &TOKEN); }
%stack_overflow { parse_too_deep(cx, cx->prev.span); }

%token FOREIGN.

%right FATARROW ELSE.
%left ARROW.
%left OR.
%left AND.
%right NOT.
%left EQEQ NE LT LE GT GE IN NOTIN. /* ast_binary refuses chains: Lemon's %nonassoc accepts them */
%left DOTDOT DOTDOTEQ.
%left BAR.
%left AMP.
%left PLUS MINUS.
%left STAR SLASH FLOORDIV PERCENT.
%right UNARY.
%right POW.
%left LPAREN LBRACKET DOT.

start ::= BEGIN_FILE.                    { cx->root = ast_file_block(cx, ast_none()); }
start ::= BEGIN_FILE statements(L).      { cx->root = ast_file_block(cx, L); }
start ::= BEGIN_EXPR expr(E).            { cx->root = E; }
start ::= BEGIN_EXPR expr(E) NEWLINE.    { cx->root = E; }

/* ---- Statements: no rule is empty before `stmt`, so BAD_STMT always finds its place. ---------- */

%type statements { ast_list }
%type open_list { ast_list }
%type ended_list { ast_list }
statements(A) ::= open_list(L).          { A = L; }
statements(A) ::= ended_list(L).         { A = L; }
open_list(A) ::= stmt(S).                { A = ast_one(S); }
open_list(A) ::= ended_list(L) stmt(S).  { A = ast_add(L, S); }
ended_list(A) ::= sep.                   { A = ast_none(); }
ended_list(A) ::= open_list(L) sep.      { A = L; }
ended_list(A) ::= ended_list(L) sep.     { A = L; }
sep ::= NEWLINE.
sep ::= SEMI.

block(A) ::= LBRACE(X) RBRACE(Y).        { A = ast_make(cx, AST_BLOCK, ast_join(X.span, Y.span), NULL, NULL, NULL); }
block(A) ::= LBRACE(X) statements(L) RBRACE(Y). { A = ast_make(cx, AST_BLOCK, ast_join(X.span, Y.span), L.first, NULL, NULL); }

stmt(A) ::= BAD_STMT(T).                 { A = ast_make(cx, AST_ERROR_STMT, T.span, NULL, NULL, NULL); }
stmt(A) ::= LET(T) names(N) EQ expr(E).  { A = ast_make(cx, AST_LET, ast_join(T.span, E->span), N.first, E, NULL); }
stmt(A) ::= PARAM(T) NAME(N) EQ expr(E). { A = ast_param(cx, &T, &N, E, NULL); }
stmt(A) ::= PARAM(T) NAME(N) EQ expr(E) WHERE expr(W). { A = ast_param(cx, &T, &N, E, W); }
stmt(A) ::= expr(E).                     { A = ast_make(cx, AST_EXPR_STMT, E->span, E, NULL, NULL); }
stmt(A) ::= expr(L) EQ expr(R).          { A = ast_assign(cx, L, R); }
stmt(A) ::= expr(L) PLUSEQ expr(R).      { A = ast_aug_assign(cx, AST_OP_ADD, L, R); }
stmt(A) ::= expr(L) MINUSEQ expr(R).     { A = ast_aug_assign(cx, AST_OP_SUB, L, R); }
stmt(A) ::= if_stmt(S).                  { A = S; }
stmt(A) ::= FOR(T) names(N) IN expr(E) block(B). { A = ast_make(cx, AST_FOR, ast_join(T.span, B->span), N.first, E, B); }
stmt(A) ::= WHILE(T) expr(E) block(B).   { A = ast_make(cx, AST_WHILE, ast_join(T.span, B->span), E, B, NULL); }
stmt(A) ::= FN(T) NAME(N) LPAREN params(P) RPAREN block(B). { A = ast_fn(cx, AST_FN_STMT, &T, &N, P, B, 0); }
stmt(A) ::= FN(T) NAME(N) LPAREN params(P) RPAREN FATARROW expr(B). { A = ast_fn(cx, AST_FN_STMT, &T, &N, P, B, AST_FLAG_EXPR_BODY); }
stmt(A) ::= MODEL(T) NAME(N) LPAREN params(P) RPAREN block(B). { A = ast_fn(cx, AST_MODEL, &T, &N, P, B, 0); }
stmt(A) ::= ANNOTATE(T) NAME(N) block(B). { A = ast_named(cx, AST_ANNOTATE, ast_join(T.span, B->span), &N, NULL, B, NULL); }
stmt(A) ::= ANNOTATE(T) NAME(N) AS NAME(I) block(B). { A = ast_named(cx, AST_ANNOTATE, ast_join(T.span, B->span), &N, ast_name(cx, &I), B, NULL); }
stmt(A) ::= RETURN(T).                   { A = ast_make(cx, AST_RETURN, T.span, NULL, NULL, NULL); }
stmt(A) ::= RETURN(T) expr(E).           { A = ast_make(cx, AST_RETURN, ast_join(T.span, E->span), E, NULL, NULL); }
stmt(A) ::= BREAK(T).                    { A = ast_make(cx, AST_BREAK, T.span, NULL, NULL, NULL); }
stmt(A) ::= CONTINUE(T).                 { A = ast_make(cx, AST_CONTINUE, T.span, NULL, NULL, NULL); }
stmt(A) ::= IMPORT(T) STRING(P).         { A = ast_import(cx, &T, &P, NULL); }
stmt(A) ::= IMPORT(T) STRING(P) AS NAME(N). { A = ast_import(cx, &T, &P, &N); }
stmt(A) ::= FROM(T) STRING(P) IMPORT imports(L). { A = ast_from(cx, &T, &P, L); }
stmt(A) ::= DIRECTIVE(T) expr(E) clauses(L). { A = ast_directive(cx, &T, E, L); }

if_stmt(A) ::= IF(T) expr(C) block(B).   { A = ast_make(cx, AST_IF, ast_join(T.span, B->span), C, B, NULL); }
if_stmt(A) ::= IF(T) expr(C) block(B) ELSE block(E). { A = ast_make(cx, AST_IF, ast_join(T.span, E->span), C, B, E); }
if_stmt(A) ::= IF(T) expr(C) block(B) ELSE if_stmt(E). { A = ast_make(cx, AST_IF, ast_join(T.span, E->span), C, B, E); }

%type names { ast_list }
names(A) ::= NAME(N).                    { A = ast_one(ast_name(cx, &N)); }
names(A) ::= names(L) COMMA NAME(N).     { A = ast_add(L, ast_name(cx, &N)); }

%type imports { ast_list }
imports(A) ::= imported(I).              { A = ast_one(I); }
imports(A) ::= imports(L) COMMA imported(I). { A = ast_add(L, I); }
imported(A) ::= NAME(N).                 { A = ast_named(cx, AST_IMPORT_NAME, N.span, &N, NULL, NULL, NULL); }
imported(A) ::= NAME(N) AS NAME(B).      { A = ast_named(cx, AST_IMPORT_NAME, ast_join(N.span, B.span), &N, ast_name(cx, &B), NULL, NULL); }

%type clauses { ast_list }
clauses(A) ::= .                         { A = ast_none(); }
clauses(A) ::= clauses(L) NAME(W) expr(E). { A = ast_add(L, ast_named(cx, AST_CLAUSE, ast_join(W.span, E->span), &W, E, NULL, NULL)); }
clauses(A) ::= clauses(L) AS(W) expr(E). { A = ast_add(L, ast_named(cx, AST_CLAUSE, ast_join(W.span, E->span), &W, E, NULL, NULL)); }

%type params { ast_list }
%type some_params { ast_list }
params(A) ::= .                          { A = ast_none(); }
params(A) ::= some_params(L).            { A = L; }
params(A) ::= some_params(L) COMMA.      { A = L; }
some_params(A) ::= param(P).             { A = ast_one(P); }
some_params(A) ::= some_params(L) COMMA param(P). { A = ast_add_param(cx, L, P); }
param(A) ::= NAME(N).                    { A = ast_named(cx, AST_FN_PARAM, N.span, &N, NULL, NULL, NULL); }
param(A) ::= NAME(N) EQ expr(E).         { A = ast_named(cx, AST_FN_PARAM, ast_join(N.span, E->span), &N, E, NULL, NULL); }

/* ---- Expressions ------------------------------------------------------------------------------ */

expr(A) ::= NAME(T).                     { A = ast_variable(cx, &T); }
expr(A) ::= INT(T).                      { A = ast_int(cx, &T); }
expr(A) ::= FLOAT(T).                    { A = ast_float(cx, &T); }
expr(A) ::= STRING(T).                   { A = ast_string(cx, &T); }
expr(A) ::= TRUE(T).                     { A = ast_bool(cx, &T, true); }
expr(A) ::= FALSE(T).                    { A = ast_bool(cx, &T, false); }
expr(A) ::= NIL(T).                      { A = ast_make(cx, AST_NIL, T.span, NULL, NULL, NULL); }
expr(A) ::= pieces(L) FSTR_END(T).       { L = ast_add(L, ast_string(cx, &T)); A = ast_make(cx, AST_FSTRING, ast_join(L.first->span, T.span), L.first, NULL, NULL); }
expr(A) ::= LPAREN(X) expr(E) RPAREN(Y). { A = ast_parens(&X, E, &Y); }
expr(A) ::= LBRACKET(X) RBRACKET(Y).     { A = ast_make(cx, AST_LIST, ast_join(X.span, Y.span), NULL, NULL, NULL); }
expr(A) ::= LBRACKET(X) items(L) comma RBRACKET(Y). { A = ast_make(cx, AST_LIST, ast_join(X.span, Y.span), L.first, NULL, NULL); }
expr(A) ::= LBRACKET(X) expr(E) comp_fors(L) RBRACKET(Y). { A = ast_make(cx, AST_COMPREHENSION, ast_join(X.span, Y.span), E, L.first, NULL); }
expr(A) ::= LBRACE(X) RBRACE(Y).         { A = ast_make(cx, AST_BRACE, ast_join(X.span, Y.span), NULL, NULL, NULL); }
expr(A) ::= LBRACE(X) entries(L) comma RBRACE(Y). { A = ast_make(cx, AST_BRACE, ast_join(X.span, Y.span), L.first, NULL, NULL); }
expr(A) ::= LBRACE(X) entries(L) NEWLINE RBRACE(Y). { A = ast_make(cx, AST_BRACE, ast_join(X.span, Y.span), L.first, NULL, NULL); }
expr(A) ::= expr(F) LPAREN args(L) RPAREN(Y). { A = ast_make(cx, AST_CALL, ast_join(F->span, Y.span), F, L.first, NULL); }
expr(A) ::= expr(O) LBRACKET expr(I) RBRACKET(Y). { A = ast_make(cx, AST_INDEX, ast_join(O->span, Y.span), O, I, NULL); }
expr(A) ::= expr(O) LBRACKET bound(F) COLON bound(T) RBRACKET(Y). { A = ast_make(cx, AST_SLICE, ast_join(O->span, Y.span), O, F, T); }
expr(A) ::= expr(O) DOT NAME(N).         { A = ast_named(cx, AST_FIELD, ast_join(O->span, N.span), &N, O, NULL, NULL); }
expr(A) ::= FN(T) LPAREN params(P) RPAREN block(B). { A = ast_fn_expr(cx, &T, P, B, 0); }
expr(A) ::= FN(T) LPAREN params(P) RPAREN FATARROW expr(B). [FATARROW] { A = ast_fn_expr(cx, &T, P, B, AST_FLAG_EXPR_BODY); }
expr(A) ::= IF(T) expr(C) THEN expr(X) ELSE expr(Y). { A = ast_make(cx, AST_IF_EXPR, ast_join(T.span, Y->span), C, X, Y); }
expr(A) ::= NOT(T) expr(E).              { A = ast_unary(cx, AST_OP_NOT, &T, E); }
expr(A) ::= MINUS(T) expr(E). [UNARY]    { A = ast_unary(cx, AST_OP_NEG, &T, E); }
expr(A) ::= expr(L) ARROW expr(R).       { A = ast_binary(cx, AST_OP_ARROW, L, R); }
expr(A) ::= expr(L) OR expr(R).          { A = ast_binary(cx, AST_OP_OR, L, R); }
expr(A) ::= expr(L) AND expr(R).         { A = ast_binary(cx, AST_OP_AND, L, R); }
expr(A) ::= expr(L) EQEQ expr(R).        { A = ast_binary(cx, AST_OP_EQ, L, R); }
expr(A) ::= expr(L) NE expr(R).          { A = ast_binary(cx, AST_OP_NE, L, R); }
expr(A) ::= expr(L) LT expr(R).          { A = ast_binary(cx, AST_OP_LT, L, R); }
expr(A) ::= expr(L) LE expr(R).          { A = ast_binary(cx, AST_OP_LE, L, R); }
expr(A) ::= expr(L) GT expr(R).          { A = ast_binary(cx, AST_OP_GT, L, R); }
expr(A) ::= expr(L) GE expr(R).          { A = ast_binary(cx, AST_OP_GE, L, R); }
expr(A) ::= expr(L) IN expr(R).          { A = ast_binary(cx, AST_OP_IN, L, R); }
expr(A) ::= expr(L) NOTIN expr(R).       { A = ast_binary(cx, AST_OP_NOT_IN, L, R); }
expr(A) ::= expr(L) DOTDOT expr(R).      { A = ast_binary(cx, AST_OP_RANGE, L, R); }
expr(A) ::= expr(L) DOTDOTEQ expr(R).    { A = ast_binary(cx, AST_OP_RANGE_CLOSED, L, R); }
expr(A) ::= expr(L) BAR expr(R).         { A = ast_binary(cx, AST_OP_BAR, L, R); }
expr(A) ::= expr(L) AMP expr(R).         { A = ast_binary(cx, AST_OP_BITAND, L, R); }
expr(A) ::= expr(L) PLUS expr(R).        { A = ast_binary(cx, AST_OP_ADD, L, R); }
expr(A) ::= expr(L) MINUS expr(R).       { A = ast_binary(cx, AST_OP_SUB, L, R); }
expr(A) ::= expr(L) STAR expr(R).        { A = ast_binary(cx, AST_OP_MUL, L, R); }
expr(A) ::= expr(L) SLASH expr(R).       { A = ast_binary(cx, AST_OP_DIV, L, R); }
expr(A) ::= expr(L) FLOORDIV expr(R).    { A = ast_binary(cx, AST_OP_FLOORDIV, L, R); }
expr(A) ::= expr(L) PERCENT expr(R).     { A = ast_binary(cx, AST_OP_MOD, L, R); }
expr(A) ::= expr(L) POW expr(R).         { A = ast_binary(cx, AST_OP_POW, L, R); }

comma ::= .
comma ::= COMMA.
bound(A) ::= .                           { A = NULL; }
bound(A) ::= expr(E).                    { A = E; }

%type pieces { ast_list }
pieces(A) ::= FSTR_BEGIN(T) expr(E).     { A = ast_add(ast_one(ast_string(cx, &T)), E); }
pieces(A) ::= pieces(L) FSTR_MID(T) expr(E). { A = ast_add(ast_add(L, ast_string(cx, &T)), E); }

%type items { ast_list }
items(A) ::= expr(E).                    { A = ast_one(E); }
items(A) ::= items(L) COMMA expr(E).     { A = ast_add(L, E); }

%type comp_fors { ast_list }
comp_fors(A) ::= comp_for(F).            { A = ast_one(F); }
comp_fors(A) ::= comp_fors(L) comp_for(F). { A = ast_add(L, F); }
comp_for(A) ::= FOR(T) names(N) IN expr(E). { A = ast_make(cx, AST_COMP_FOR, ast_join(T.span, E->span), N.first, E, NULL); }
comp_for(A) ::= FOR(T) names(N) IN expr(E) IF expr(C). { A = ast_make(cx, AST_COMP_FOR, ast_join(T.span, C->span), N.first, E, C); }

%type args { ast_list }
%type some_args { ast_list }
args(A) ::= .                            { A = ast_none(); }
args(A) ::= some_args(L) comma.          { A = L; }
some_args(A) ::= arg(E).                 { A = ast_one(E); }
some_args(A) ::= some_args(L) COMMA arg(E). { A = ast_add_arg(cx, L, E); }
arg(A) ::= expr(E).                      { A = ast_make(cx, AST_ARG, E->span, E, NULL, NULL); }
arg(A) ::= NAME(N) EQ expr(E).           { A = ast_named(cx, AST_ARG, ast_join(N.span, E->span), &N, E, NULL, NULL); }

%type entries { ast_list }
entries(A) ::= entry(E).                 { A = ast_one(E); }
entries(A) ::= entries(L) COMMA entry(E). { A = ast_add(L, E); }
entry(A) ::= NAME(N) COLON tag_value(V). { A = ast_named(cx, AST_FILTER_ENTRY, ast_join(N.span, V->span), &N, V, NULL, NULL); }
entry(A) ::= key(K) COLON expr(V).       { A = ast_make(cx, AST_MAP_ENTRY, ast_join(K->span, V->span), K, V, NULL); }
key(A) ::= STRING(T).                    { A = ast_string(cx, &T); }
key(A) ::= INT(T).                       { A = ast_int(cx, &T); }
key(A) ::= LPAREN(X) expr(E) RPAREN(Y).  { A = ast_parens(&X, E, &Y); }
tag_value(A) ::= expr(E).                { A = E; }
tag_value(A) ::= STAR(T).                { A = ast_make(cx, AST_STAR, T.span, NULL, NULL, NULL); }
tag_value(A) ::= MINUS(T).               { A = ast_make(cx, AST_MINUS, T.span, NULL, NULL, NULL); }

/* ---- What the driver and the messages ask of the tables --------------------------------------- */

%code {
void *gram_new(parse_cx *cx)
{
    yyParser *p = arena_new(&cx->scratch, sizeof *p);
    if (p == NULL)
        return NULL;
    gram_Init(p, cx);
    return p->yystack == &p->yystk0 ? NULL : p;
}

void gram_feed(void *parser, const token *t)
{
    gram_(parser, t->kind, *t);
}

/* Run the automaton on `kind` without values. Reductions pop states of the real stack; what they
 * push lies on top of it in `pushed`, which empty rules alone let grow. */
bool gram_accepts(void *parser, uint8_t kind)
{
    enum { MAX_PUSHED = 16 };
    YYACTIONTYPE pushed[MAX_PUSHED];
    int n_pushed = 0;
    const yyStackEntry *real = ((yyParser *)parser)->yytos;
    for (;;) {
        YYACTIONTYPE state = n_pushed > 0 ? pushed[n_pushed - 1] : real->stateno;
        YYACTIONTYPE act = yy_find_shift_action(kind, state);
        if (act < YY_MIN_REDUCE)
            return act <= YY_MAX_SHIFTREDUCE || act == YY_ACCEPT_ACTION;
        int n = -yyRuleInfoNRhs[act - YY_MIN_REDUCE];
        int own = n < n_pushed ? n : n_pushed;
        n_pushed -= own;
        real -= n - own;
        if (n_pushed == MAX_PUSHED)
            return false;
        state = n_pushed > 0 ? pushed[n_pushed - 1] : real->stateno;
        pushed[n_pushed++] = yy_find_reduce_action(state, yyRuleInfoLhs[act - YY_MIN_REDUCE]);
    }
}

int gram_unwind(void *parser)
{
    yyParser *p = parser;
    while (p->yytos > p->yystack &&
           yy_find_shift_action(TOK_BAD_STMT, p->yytos->stateno) > YY_MAX_SHIFTREDUCE)
        p->yytos--;
    for (const yyStackEntry *e = p->yytos; e > p->yystack; e--) {
        if (e->major == TOK_LBRACE)
            return e->minor.yy0.depth + 1;
        if (e->major == TOK_BEGIN_FILE)
            return 0;
    }
    return -1;
}

uint32_t gram_depth(void *parser)
{
    const yyParser *p = parser;
    return (uint32_t)(p->yytos - p->yystack);
}

uint8_t gram_token(void *parser, uint32_t i)
{
    const yyParser *p = parser;
    return i < gram_depth(parser) && p->yytos[-(long)i].major < YYNTOKEN ? p->yytos[-(long)i].major
                                                                        : 0;
}

pps_span gram_span(void *parser, uint32_t i)
{
    return ((const yyParser *)parser)->yytos[-(long)i].minor.yy0.span;
}
}
