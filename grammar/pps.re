/* SPDX-License-Identifier: Apache-2.0
 *
 * pps.re: the raw tokens of .pps, in re2c. lex_scan cuts one token from the text, keeping track of
 * the newlines and doc comments it passes; it changes nothing else, so the caller may move the
 * cursor back to the token and scan again. lang/lex.c turns raw tokens into what the parser reads.
 * The text is valid UTF-8 that ends with a NUL, so no rule needs an end-of-input check: the NUL
 * matches nothing else.
 */
#include <string.h>
#include "lang/lex.h"
#include "grammar/pps.h"

/*!include:re2c "unicode_categories.re" */

static lex_piece piece(lexer *lx, const unsigned char **p, bool triple, bool holes)
{
    const char *end;
    lex_piece found = lex_string_piece(lx, (const char *)*p, triple, holes, &end);
    *p = (const unsigned char *)end;
    return found;
}

/* A string's opening quotes end at `p`; sets the token's kind by how its first piece ends. */
static int string_token(lexer *lx, const unsigned char **p, bool triple, bool holes, token *t)
{
    switch (piece(lx, p, triple, holes)) {
    case LEX_PIECE_HOLE:
        return TOK_FSTR_BEGIN;
    case LEX_PIECE_UNCLOSED:
        t->flags |= TOKEN_UNCLOSED;
        break;
    case LEX_PIECE_END:
        break;
    }
    return TOK_STRING;
}

/* `}` with a hole innermost goes on with the f-string. */
static int closing_brace(lexer *lx, const unsigned char **p, token *t)
{
    char innermost = lx->depth != 0 ? (char)lx->brackets[lx->depth - 1].kind : '\0';
    if (innermost != 'f' && innermost != 'F')
        return TOK_RBRACE;
    switch (piece(lx, p, innermost == 'F', true)) {
    case LEX_PIECE_HOLE:
        return TOK_FSTR_MID;
    case LEX_PIECE_UNCLOSED:
        t->flags |= TOKEN_UNCLOSED;
        break;
    case LEX_PIECE_END:
        break;
    }
    return TOK_FSTR_END;
}

static void skip_line(const lexer *lx, const unsigned char **p)
{
    const void *newline = memchr(*p, '\n', (size_t)(lx->limit - (const char *)*p));
    *p = newline != NULL ? newline : (const void *)lx->limit;
}

static int scan(lexer *lx, const char **ret_begin, const char **ret_end, token *t)
{
    const unsigned char *YYCURSOR = (const unsigned char *)lx->cursor, *YYMARKER;
    for (;;) {
        const char *begin = *ret_begin = (const char *)YYCURSOR;
#define KIND(k)                                                                                    \
    do {                                                                                           \
        int kind = (k); /* may move the cursor to the end of a string */                           \
        *ret_end = (const char *)YYCURSOR;                                                         \
        return kind;                                                                               \
    } while (0)
        /*!re2c
        re2c:define:YYCTYPE = "unsigned char";
        re2c:yyfill:enable = 0;

        id_start = L | Nl | "_";
        id_part = L | Nl | "_" | Mn | Mc | Nd | Pc;
        digits = [0-9] ("_"? [0-9])*;
        exponent = [eE] [+-]? digits;
        word_part = [0-9A-Za-z_];

        [ \t\r]+    { continue; }
        "\n"        { lex_note_newline(lx, begin); continue; }
        "#"         { lex_note_comment(lx, begin); skip_line(lx, &YYCURSOR); continue; }
        "\x00"      { --YYCURSOR; KIND(0); }

        "0" | [1-9] ("_"? [0-9])*         { KIND(TOK_INT); }
        "0" [xX] [0-9a-fA-F] ("_"? [0-9a-fA-F])*  { KIND(TOK_INT); }
        digits "." digits exponent? | digits exponent { KIND(TOK_FLOAT); }
        [0-9] word_part*                  { t->flags |= TOKEN_MALFORMED; KIND(TOK_INT); }
        [0-9] word_part* "." [0-9] word_part*
                                          { t->flags |= TOKEN_MALFORMED; KIND(TOK_FLOAT); }

        ["]         { KIND(string_token(lx, &YYCURSOR, false, false, t)); }
        ["]["]["]   { KIND(string_token(lx, &YYCURSOR, true, false, t)); }
        "f" ["]     { KIND(string_token(lx, &YYCURSOR, false, true, t)); }
        "f" ["]["]["] { KIND(string_token(lx, &YYCURSOR, true, true, t)); }

        "and"       { KIND(TOK_AND); }
        "annotate"  { KIND(TOK_ANNOTATE); }
        "as"        { KIND(TOK_AS); }
        "break"     { KIND(TOK_BREAK); }
        "continue"  { KIND(TOK_CONTINUE); }
        "else"      { KIND(TOK_ELSE); }
        "false"     { KIND(TOK_FALSE); }
        "fn"        { KIND(TOK_FN); }
        "for"       { KIND(TOK_FOR); }
        "from"      { KIND(TOK_FROM); }
        "if"        { KIND(TOK_IF); }
        "import"    { KIND(TOK_IMPORT); }
        "in"        { KIND(TOK_IN); }
        "let"       { KIND(TOK_LET); }
        "model"     { KIND(TOK_MODEL); }
        "nil"       { KIND(TOK_NIL); }
        "not"       { KIND(TOK_NOT); }
        "not" [ \t]+ "in" / [^0-9A-Za-z_\x80-\U0010ffff] { KIND(TOK_NOTIN); }
        "or"        { KIND(TOK_OR); }
        "param"     { KIND(TOK_PARAM); }
        "return"    { KIND(TOK_RETURN); }
        "then"      { KIND(TOK_THEN); }
        "true"      { KIND(TOK_TRUE); }
        "where"     { KIND(TOK_WHERE); }
        "while"     { KIND(TOK_WHILE); }
        "train" | "split" | "place" | "replicate" | "shard" | "recompute" | "offload" | "order"
                    { KIND(TOK_DIRECTIVE); }
        id_start id_part* { KIND(TOK_NAME); }

        "("         { KIND(TOK_LPAREN); }
        ")"         { KIND(TOK_RPAREN); }
        "["         { KIND(TOK_LBRACKET); }
        "]"         { KIND(TOK_RBRACKET); }
        "{"         { KIND(TOK_LBRACE); }
        "}"         { KIND(closing_brace(lx, &YYCURSOR, t)); }
        ","         { KIND(TOK_COMMA); }
        ":"         { KIND(TOK_COLON); }
        ";"         { KIND(TOK_SEMI); }
        "."         { KIND(TOK_DOT); }
        ".."        { KIND(TOK_DOTDOT); }
        "..="       { KIND(TOK_DOTDOTEQ); }
        "->"        { KIND(TOK_ARROW); }
        "=>"        { KIND(TOK_FATARROW); }
        "="         { KIND(TOK_EQ); }
        "=="        { KIND(TOK_EQEQ); }
        "!="        { KIND(TOK_NE); }
        "<"         { KIND(TOK_LT); }
        "<="        { KIND(TOK_LE); }
        ">"         { KIND(TOK_GT); }
        ">="        { KIND(TOK_GE); }
        "|"         { KIND(TOK_BAR); }
        "&"         { KIND(TOK_AMP); }
        "+"         { KIND(TOK_PLUS); }
        "+="        { KIND(TOK_PLUSEQ); }
        "-"         { KIND(TOK_MINUS); }
        "-="        { KIND(TOK_MINUSEQ); }
        "*"         { KIND(TOK_STAR); }
        "**"        { KIND(TOK_POW); }
        "/"         { KIND(TOK_SLASH); }
        "//"        { KIND(TOK_FLOORDIV); }
        "%"         { KIND(TOK_PERCENT); }

        // signs of other languages, which foreign.def answers
        "&&" | "||" | "!" | "++" | "===" | "!==" | "<>" | "?" | ":=" | "..." | "::" | "/*"
        | "*=" | "/=" | "//=" | "%=" | "**=" | "&=" | "|="
                    { KIND(TOK_FOREIGN); }
        "'" [^'\n\x00]* "'"?  { KIND(TOK_FOREIGN); }
        [^\x00]     { KIND(TOK_FOREIGN); }
        *           { --YYCURSOR; KIND(0); }
        */
#undef KIND
    }
}

void lex_scan(lexer *lx, token *ret)
{
    const char *begin, *end;
    *ret = (token){.depth = (uint16_t)lx->depth};
    ret->kind = (uint8_t)scan(lx, &begin, &end, ret);
    ret->span = (pps_span){lx->file, (uint32_t)(begin - lx->begin), (uint32_t)(end - lx->begin)};
    lx->cursor = end;
}
