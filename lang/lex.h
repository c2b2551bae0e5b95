/* SPDX-License-Identifier: Apache-2.0
 *
 * lex.h: text to tokens.
 *
 * grammar/pps.re cuts the text into raw tokens (lex_scan). lang/lex.c decides what depends on
 * brackets: where NEWLINE tokens go, where an f-string goes on after `}`, and it hands the parser
 * balanced brackets only: closers that are missing are made up (TOKEN_MADE), extra ones dropped.
 * What a token means (numbers, escapes) is read later, from its bytes, by lex_text.h.
 */
#ifndef PPS_LEX_H
#define PPS_LEX_H

#include "lang/pps.h"

enum {
    TOKEN_MADE = 1,       /* a closer that is not in the text */
    TOKEN_UNCLOSED = 2,   /* a string that does not end */
    TOKEN_MALFORMED = 4,  /* a number that is none */
    TOKEN_LINE_START = 8, /* first on its line */
    TOKEN_AT_END = 16,    /* the NEWLINE before the end of the file */
    TOKEN_NEGATED = 32,   /* follows a unary minus */
};

typedef struct token {
    pps_span span;
    uint32_t doc;   /* of `fn`, `param`, `model`: 1 + offset of the doc comment before it, or 0 */
    uint8_t kind;   /* TOK_* of grammar/pps.h; 0 is the end */
    uint8_t flags;  /* TOKEN_* */
    uint16_t depth; /* open brackets around it; a bracket itself does not count */
} token;

/* What a kind of token is, for the newline rules and for messages. Rows of tokens.def. */
enum {
    LEX_ENDS = 1,      /* can end a statement: a newline after it may count */
    LEX_CONTINUES = 2, /* cannot begin a statement: a newline before it does not count */
    LEX_BEGINS = 4,    /* a keyword that only ever begins a statement */
    LEX_EXPR = 8,      /* can begin an expression */
    LEX_OPERATOR = 16, /* goes on after an expression */
    LEX_WORD = 32,     /* a reserved word */
};
typedef struct token_info {
    const char *words; /* as messages name it */
    uint8_t flags;
} token_info;
const token_info *lex_token_info(uint8_t kind);

typedef enum lex_problem {
    LEX_STRING_UNCLOSED,    /* span: opening quote */
    LEX_CLOSES_NOTHING,     /* span: the closer */
    LEX_BRACKET_UNCLOSED,   /* span: the opening bracket; other: what shows it, or no place */
    LEX_BRACKET_MISALIGNED, /* at the end: span: the bracket guessed to lack its closer;
                               other: the closer whose indentation gave it away */
    LEX_TOO_DEEP,           /* span: the bracket */
} lex_problem;

enum { LEX_MAX_DEPTH = 1000 };

typedef struct lex_bracket {
    uint32_t begin;
    uint32_t indent; /* of the line it is on */
    uint8_t kind;    /* ( [ {, f: hole of f"...", F: hole of f"""...""" */
} lex_bracket;

typedef struct lexer {
    const char *begin, *cursor, *limit; /* *limit is NUL */
    uint32_t file;
    void (*problem)(void *ud, lex_problem problem, pps_span span, pps_span other);
    void *ud;
    /* kept between tokens */
    uint8_t last; /* kind of the last token, 0 at the begin */
    bool last_minus_unary;
    bool newline; /* one lies between the last token and `cursor` */
    bool stopped, at_end, reported_end;
    uint32_t newline_at;         /* where the first of them is */
    uint32_t line_begin, indent; /* of the current line: its offset and leading blanks */
    uint32_t doc;                /* 1 + offset of the doc comment just before `cursor`, or 0 */
    uint32_t doc_newlines;
    uint32_t reported_at;  /* 1 + offset of a closer already reported as mismatched */
    uint32_t n_line_holes; /* open holes of one-line f-strings */
    uint32_t guess_open, guess_close, guess_indent; /* first pair of braces indented differently */
    bool guessed;
    uint32_t depth;
    lex_bracket brackets[LEX_MAX_DEPTH];
} lexer;

/* `text` is valid UTF-8 without NUL but for the one at text[bytes]; borrowed while lexing. */
void lex_init(lexer *lx, uint32_t file, const char *text, size_t bytes);
/* The next token. After the end: kind 0, again and again. */
void lex_next(lexer *lx, token *ret);
/* Give up on brackets deeper than `depth` and go on at `t`, the last token, as on a new line. */
void lex_abandon(lexer *lx, const token *t, uint32_t depth);
/* The innermost open bracket that is not a `{`, or NULL. */
const lex_bracket *lex_open_group(const lexer *lx);

/* pps.re: the raw token at the cursor; moves the cursor behind it and notes newlines and docs. */
void lex_scan(lexer *lx, token *ret);
/* lex.c, for pps.re: what follows the opening quote (or a hole) at `p`. */
typedef enum lex_piece { LEX_PIECE_END, LEX_PIECE_HOLE, LEX_PIECE_UNCLOSED } lex_piece;
lex_piece lex_string_piece(const lexer *lx, const char *p, bool triple, bool holes,
                           const char **ret_end);
void lex_note_newline(lexer *lx, const char *newline);
void lex_note_comment(lexer *lx, const char *hash);

#endif
