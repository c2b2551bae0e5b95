/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parse.c: trees, newlines, literals, messages and recovery of the front end, and that nothing
 * breaks it: deep nesting, damaged programs, failing allocations.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "front_state.h"

static const char sample[] = "# a comment\n"
                             "import \"models/moe.pps\" as models\n"
                             "from \"schedules\" import one_f_one_b, gpipe as g\n"
                             "let pp = stream(\"pp\")\n"
                             "param mbs = 10 where mbs >= 2 * 4\n"
                             "## Doubles.\n"
                             "fn twice(x, by=2) { return x * by }\n"
                             "fn half(x) => x // 2\n"
                             "model m(x=nil, layers=4) {\n"
                             "  annotate PP as i { x = f(x, i) }\n"
                             "  annotate EP { x.y(1)[0][2] = z[1:][:2] }\n"
                             "}\n"
                             "for s, t in [f(s, 1)[0] for s in 0..=3 for t in xs if t != s] {\n"
                             "  place {PP: s, EP: *, MB: -} on devices[s] stream pp\n"
                             "  if s == 0 and not t in [1] { row += F(s, 0) -> F(s, 1) | B(0, 1) } "
                             "else if s { } else { break }\n"
                             "}\n"
                             "split {} by MB into 2\n"
                             "let a, b = [f\"x{1 + {\"k\": 2}[\"k\"]} y{b}!\", -2 ** 2]\n"
                             "let c = if a then fn(x) => x else fn() { continue }\n";

/* The tree of `source` without spans. */
static char *tree(const char *source)
{
    front_state f;
    ast_file file;
    assert_true(front_open(&f, 0));
    pps_status status = front_parse(&f, "t.pps", source, strlen(source), &file);
    if (status != PPS_OK)
        print_message("%s%s\n", source, f.shown);
    assert_int_equal(status, PPS_OK);
    char *dump = front_dump(file.root), *to = dump;
    for (char *p = dump; *p != '\0'; p++) {
        if (*p == ' ' && p[1] >= '0' && p[1] <= '9') {
            size_t digits = strspn(p + 1, "0123456789");
            if (strncmp(p + 1 + digits, "..", 2) == 0 && strchr("0123456789", p[digits + 3]))
                p += strcspn(p, "\n");
        }
        *to++ = *p;
    }
    *to = '\0';
    front_close(&f);
    return dump;
}

static void assert_tree(const char *source, const char *want)
{
    char *got = tree(source);
    assert_string_equal(got, want);
    free(got);
}

static void assert_same_tree(const char *a, const char *b)
{
    char *want = tree(b);
    assert_tree(a, want);
    free(want);
}

static void assert_codes(const char *source, const char *want)
{
    char codes[256];
    front_codes(source, codes);
    if (strcmp(codes, want) != 0)
        print_message("in: %s\n", source);
    assert_string_equal(codes, want);
}

static void assert_says(const char *source, const char *want)
{
    front_state f;
    ast_file file;
    assert_true(front_open(&f, 0));
    assert_int_equal(front_parse(&f, "t.pps", source, strlen(source), &file), PPS_ERR_SCRIPT);
    if (strstr(f.shown, want) == NULL)
        print_message("in: %s\ngot: %s\nwant: %s\n", source, f.shown, want);
    assert_non_null(strstr(f.shown, want));
    front_close(&f);
}

static void precedence(void **state)
{
    (void)state;
    static const char *const same[][2] = {
        {"a -> b or c", "a -> (b or c)"},
        {"a or b and c", "a or (b and c)"},
        {"not a == b", "not (a == b)"},
        {"a == b..c", "a == (b..c)"},
        {"a..b | c", "a..(b | c)"},
        {"a | b & c", "a | (b & c)"},
        {"a & b + c", "a & (b + c)"},
        {"a - b - c", "(a - b) - c"},
        {"a + b * c", "a + (b * c)"},
        {"-a * b", "(-a) * b"},
        {"-a ** b", "-(a ** b)"},
        {"a ** b ** c", "a ** (b ** c)"},
        {"a ** -b", "a ** (-b)"},
        {"-f(x).y[0]", "-(f(x).y[0])"},
        {"a -> b -> c", "(a -> b) -> c"},
        {"a not in b and c in d", "(a not in b) and (c in d)"},
        {"if a then b else c -> d", "if a then b else (c -> d)"},
        {"fn(x) => x + 1 -> y", "fn(x) => ((x + 1) -> y)"},
        {"not not a", "not (not a)"},
    };
    for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
        char *a = tree(same[i][0]), *b = tree(same[i][1]), *mark;
        while ((mark = strstr(b, " ()")) != NULL)
            memmove(mark, mark + 3, strlen(mark + 3) + 1);
        assert_string_equal(a, b);
        free(a);
        free(b);
    }
}

static void statements(void **state)
{
    (void)state;
    assert_tree("place {PP: s, EP: *, \"a\": 1} on d[0] stream pp", "BLOCK\n"
                                                                    "  a DIRECTIVE place\n"
                                                                    "    a BRACE\n"
                                                                    "      a FILTER_ENTRY PP\n"
                                                                    "        a NAME s\n"
                                                                    "      a FILTER_ENTRY EP\n"
                                                                    "        a STAR\n"
                                                                    "      a MAP_ENTRY\n"
                                                                    "        a STRING \"a\"\n"
                                                                    "        b INT 1\n"
                                                                    "    b CLAUSE on\n"
                                                                    "      a INDEX\n"
                                                                    "        a NAME d\n"
                                                                    "        b INT 0\n"
                                                                    "    b CLAUSE stream\n"
                                                                    "      a NAME pp\n");
    assert_tree("## one\n##  two\nfn f(a, b=2,) => a\n", "BLOCK\n"
                                                         "  a FN_STMT f \"one\\x0a two\" =>\n"
                                                         "    a FN_PARAM a\n"
                                                         "    a FN_PARAM b\n"
                                                         "      a INT 2\n"
                                                         "    b NAME a\n");
    assert_tree("## of the file\n\n## of p\nparam p = 1 where p", "BLOCK\n"
                                                                  "  a PARAM p \"of p\"\n"
                                                                  "    a INT 1\n"
                                                                  "    b NAME p\n");
    assert_tree("import \"a/b.pps\"; from \"c\" import d, e as f", "BLOCK\n"
                                                                   "  a IMPORT b \"a/b.pps\"\n"
                                                                   "  a FROM_IMPORT \"c\"\n"
                                                                   "    a IMPORT_NAME d\n"
                                                                   "    a IMPORT_NAME e\n"
                                                                   "      a NAME f\n");
    assert_tree("xs[1:] ; xs[:n]; xs[:]", "BLOCK\n"
                                          "  a EXPR_STMT\n"
                                          "    a SLICE\n"
                                          "      a NAME xs\n"
                                          "      b INT 1\n"
                                          "  a EXPR_STMT\n"
                                          "    a SLICE\n"
                                          "      a NAME xs\n"
                                          "      c NAME n\n"
                                          "  a EXPR_STMT\n"
                                          "    a SLICE\n"
                                          "      a NAME xs\n");
    free(tree(sample));
}

static void newlines(void **state)
{
    (void)state;
    assert_same_tree("a\n\n;;\n b\n", "a;b");
    assert_same_tree("let x = a\n  -> b\n  | c\n  .d\n", "let x = a -> b | c.d");
    assert_same_tree("f(1,\n  2\n)\n", "f(1, 2)");
    assert_same_tree("let m = {\n  \"a\": 1,\n  \"b\": 2\n}\n", "let m = {\"a\": 1, \"b\": 2}");
    assert_same_tree("if a { b }\nelse { c }\n", "if a { b } else { c }");
    assert_same_tree("f(fn() {\n  a\n  b\n})", "f(fn() { a; b })");
    assert_same_tree("let x = 1 +\n 2", "let x = 1 + 2");
    assert_same_tree("let x = 1\r\nlet y = 2\r\n", "let x = 1; let y = 2");
    assert_same_tree("\xef\xbb\xbflet x = 1", "let x = 1");
    assert_same_tree("return\nx", "return; x");
    free(tree("x.for.in.let"));
}

static void literals(void **state)
{
    (void)state;
    assert_tree("[1_000, 0x1F, 1.5, 2e9, 1_0.5e-1, 0, -9223372036854775808]\n",
                "BLOCK\n"
                "  a EXPR_STMT\n"
                "    a LIST\n"
                "      a INT 1000\n"
                "      a INT 31\n"
                "      a FLOAT 1.5\n"
                "      a FLOAT 2000000000\n"
                "      a FLOAT 1.05\n"
                "      a INT 0\n"
                "      a INT -9223372036854775808\n");
    assert_tree("[\"a\\n\\t\\\"\\{\\u{e9}\\x41\", \"\"\"b\"c\n\"\"\", \"\"]\n",
                "BLOCK\n"
                "  a EXPR_STMT\n"
                "    a LIST\n"
                "      a STRING \"a\\x0a\\x09\\\"{\xc3\xa9"
                "A\"\n"
                "      a STRING \"b\\\"c\\x0a\"\n"
                "      a STRING \"\"\n");
    assert_tree("f\"a{b}c{f\"{d}\"}\"; f\"plain\"", "BLOCK\n"
                                                    "  a EXPR_STMT\n"
                                                    "    a FSTRING\n"
                                                    "      a STRING \"a\"\n"
                                                    "      a NAME b\n"
                                                    "      a STRING \"c\"\n"
                                                    "      a FSTRING\n"
                                                    "        a STRING \"\"\n"
                                                    "        a NAME d\n"
                                                    "        a STRING \"\"\n"
                                                    "      a STRING \"\"\n"
                                                    "  a EXPR_STMT\n"
                                                    "    a STRING \"plain\"\n");
    assert_tree("0..n", "BLOCK\n"
                        "  a EXPR_STMT\n"
                        "    a BINARY ..\n"
                        "      a INT 0\n"
                        "      b NAME n\n");
    static const char *const bad[] = {
        "0x", "1_", "1__0", "12ab", "007", "1.5x", "1e999", "9223372036854775808", "1e"};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        assert_codes(bad[i], "E0018");
    assert_codes("\"\\q\"; \"\\u{d800}\"; \"\\xff\"; \"\\u\"", "E0019 E0019 E0019 E0019");
}

static void messages(void **state)
{
    (void)state;
    static const char *const rows[][2] = {
        {"let s = \"abc\n", "this string is not closed before the end of the line"},
        {"let s = f\"abc {x\nlet t = 1", "this string is not closed before the end of the line"},
        {"let s = \"\"\"abc\n", "this string is not closed before the end of the file"},
        {"}\n", "error[E0012]: this `}` closes nothing"},
        {"fn f() {\n  for i in x {\n    a\n}\nb\n",
         "note: the `}` at 4:1 is indented like the `fn` at 1:1"},
        {"fn f() {\n", "error[E0013]: this `{` is never closed"},
        {"let a = [1, 2\nlet b = 3", "expected `]` before this"},
        {"foo(1, 2\nbar(3)\n", "error[E0013]: this `(` is never closed"},
        {"f([1)", "error[E0013]: this `[` is never closed"},
        {"let a = 1 let b = 2", "error[E0017]: two statements on one line"},
        {"place {PP: 0} [0, 1]", "missing `on` before the list of devices"},
        {"place {PP: 0} [0]", "missing `on` before the list of devices"},
        {"place {PP: 0} 3", "its clauses are a word and a value: on, stream"},
        {"order F(0, 0) F(1, 1)", "write `->` between the steps of a row"},
        {"fn f(a, b {", "expected `)`, `,` or `=`, found `{`"},
        {"let x =\nlet y = 1", "expected an expression, found the end of the line"},
        {"let x =", "expected an expression, found the end of the file"},
        {"let for = 1", "`for` is a reserved word and cannot be a name"},
        {"a < b < c", "comparisons do not chain"},
        {"if x = 3 { }", "to compare, write `==`"},
        {"(1, 2)", "a list is written [a, b]"},
        {"f() = 1", "this cannot be assigned to"},
        {"f(a=1, 2)", "this argument needs a name"},
        {"fn f(a=1, b) { }", "parameter `b` needs a default value"},
        {"import \"a-b.pps\"", "import \"a-b.pps\" as NAME"},
        {"else { }", "this `else` belongs to no `if`"},
        {"let x = @", "`@` means nothing here"},
        {"a && b", "pps writes `and`, not `&&`"},
        {"x++", "pps writes `x += 1`, not `++`"},
        {"x--\n", "pps writes `x -= 1`, not `--`"},
        {"let y = None", "pps writes `nil`, not `None`"},
        {"def f():\n  1", "pps writes `fn f() {`, not `def`"},
        {"if a:\n  b", "pps writes a block in `{ }`, not `:`"},
        {"// text", "pps writes comments with `#`, not `//`"},
        {"if a { } elif b { }", "pps writes `else if`, not `elif`"},
        {"let s = 'a'", "pps writes strings in double quotes"},
        {"print x", "pps writes `print(...)`, not `print`"},
        {"a ? b : c", "pps writes `if c then a else b`, not `?`"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        assert_says(rows[i][0], rows[i][1]);
}

static void bytes_that_are_no_text(void **state)
{
    (void)state;
    front_state f;
    ast_file file;
    assert_true(front_open(&f, 0));
    assert_int_equal(front_parse(&f, "t.pps", "a\n\n\nlet caf\xe9 = 1\n", 16, &file),
                     PPS_ERR_SCRIPT);
    assert_non_null(strstr(f.shown, "error[E0010]: line 4 is not UTF-8 (byte 0xE9 at column 8)"));
    assert_non_null(strstr(f.shown, "looks like Latin-1 `\xc3\xa9`"));
    assert_int_equal(front_parse(&f, "t.pps", "a\0b", 3, &file), PPS_ERR_SCRIPT);
    assert_non_null(strstr(f.shown, "line 1 has a NUL byte at column 2"));
    assert_int_equal(front_parse(&f, "t.pps", "\"\xe2\x80\xae\"", 5, &file), PPS_OK);
    assert_non_null(strstr(f.shown, "warning[E0021]"));
    front_close(&f);
}

static void one_mistake_is_one_error(void **state)
{
    (void)state;
    assert_codes("let x = 3 4\nlet y = = 5\nlet z y\nf(1 2)\nlet ok = 1\n",
                 "E0017 E0016 E0016 E0016");
    assert_codes("fn f() {\n  let m = {PP: }\n  let z = 3 4\n}\nlet e f\n", "E0016 E0017 E0016");
    assert_codes("fn f(a, b {\n  return 1\n}\nlet y = 2\n", "E0016");
    assert_codes("if a b {\n  x y\n}\nlet z = 1\n", "E0016");
    assert_codes("f(1 +\nlet x = 3\nlet y y\n", "E0013 E0016");
    assert_codes("let x = )\nlet y = ]\n", "E0012 E0012");
    assert_codes("let s = \"abc\nlet t 2\n", "E0011 E0016");
    assert_codes("while x {\n  y = [1, 2\n}\nlet z 3\n", "E0013 E0016");
}

static void bad_statements_leave_the_others(void **state)
{
    (void)state;
    front_state f;
    ast_file file;
    static const char source[] = "let a = 1\nlet b b\nfn g() {\n  x y\n  return 2\n}\n";
    assert_true(front_open(&f, 0));
    assert_int_equal(front_parse(&f, "t.pps", source, sizeof source - 1, &file), PPS_ERR_SCRIPT);
    const ast_node *n = file.root->a;
    assert_int_equal(n->kind, AST_LET);
    assert_true(n->flags & AST_FLAG_TOP_LEVEL);
    assert_int_equal(n->next->kind, AST_ERROR_STMT);
    n = n->next->next;
    assert_int_equal(n->kind, AST_FN_STMT);
    assert_int_equal(n->b->a->kind, AST_ERROR_STMT);
    assert_int_equal(n->b->a->next->kind, AST_RETURN);
    front_close(&f);
}

static char *repeated(const char *begin, const char *part, size_t n, const char *end)
{
    size_t bytes = strlen(begin) + strlen(part) * n + strlen(end) + 1;
    char *out = malloc(bytes), *to = out;
    assert_non_null(out);
    to = stpcpy(to, begin);
    for (size_t i = 0; i < n; i++)
        to = stpcpy(to, part);
    stpcpy(to, end);
    return out;
}

static void deep_nesting_is_an_error(void **state)
{
    (void)state;
    static const char *const rows[][3] = {
        {"", "(", ""},
        {"x = ", "[", ""},
        {"", "if x {\n", ""},
        {"", "not ", "x"},
        {"", "-", "x"},
        {"1", "+1", ""},
        {"1", "**1", ""},
        {"", "f\"{", ""},
        {"", "fn() => ", ""},
        {"x", ".y", ""},
        {"", "f(", ""},
        {"", "{\"a\":", ""},
        {"if a { }", "\nelse if a { }", ""},
        {"order a", " -> a", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        char *source = repeated(rows[i][0], rows[i][1], 100000, rows[i][2]);
        if (strchr(source, '\n') == NULL && strlen(source) > 1 << 20)
            source[1 << 20] = '\0';
        assert_codes(source, "E0020");
        free(source);
    }
    char *fine = repeated("let x = ", "(", 900, "1");
    char *all = repeated(fine, ")", 900, "\n");
    free(tree(all));
    free(all);
    free(fine);
    char *too_long = repeated("let x = [", "1, ", 400000, "]");
    assert_codes(too_long, "E0022");
    free(too_long);
}

/* A small generator with a fixed seed, so a failure repeats. */
static uint32_t next_random(uint64_t *seed)
{
    *seed = *seed * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(*seed >> 33);
}

static void damaged_programs_do_no_harm(void **state)
{
    (void)state;
    static const char *const parts[] = {
        "(",  ")",      "[",      "]",     "{",      "}", "\"", "f\"",     "\n",
        "->", "|",      "let",    "fn ",   "if ",    ",", ":",  "\\",      "##",
        "..", "not in", "place ", "else ", "\"\"\"", "=", "'",  "\xc3\xa9"};
    uint64_t seed = 7;
    for (int round = 0; round < 3000; round++) {
        char source[4096];
        size_t n = sizeof sample - 1;
        memcpy(source, sample, n);
        for (uint32_t edit = next_random(&seed) % 6 + 1; edit > 0; edit--) {
            size_t at = next_random(&seed) % n;
            const char *part = parts[next_random(&seed) % (sizeof parts / sizeof *parts)];
            size_t bytes = strlen(part), cut = next_random(&seed) % 3 == 0 ? n - at : 0;
            cut = cut > 20 ? next_random(&seed) % 20 : cut;
            memmove(source + at + bytes, source + at + cut, n - at - cut);
            memcpy(source + at, part, bytes);
            n += bytes - cut;
        }
        front_state f;
        ast_file file;
        assert_true(front_open(&f, 0));
        pps_status status = front_parse(&f, "t.pps", source, n, &file);
        assert_true(status == PPS_OK || status == PPS_ERR_SCRIPT);
        assert_int_equal(status == PPS_OK, pps_error_count(&f.st) == 0);
        parse_is_incomplete(source, n);
        free(front_dump(file.root));
        front_close(&f);
    }
}

static void every_failed_allocation_is_a_status(void **state)
{
    (void)state;
    char source[sizeof sample + 40];
    snprintf(source, sizeof source, "%slet y y\nlet z = (1, 2)\n", sample);
    for (size_t fail_at = 1;; fail_at++) {
        front_state f;
        ast_file file;
        pps_status status = PPS_ERR_NOMEM;
        if (front_open(&f, fail_at))
            status = front_parse(&f, "t.pps", source, strlen(source), &file);
        bool reached = f.n_allocs >= fail_at;
        assert_true(status == PPS_ERR_NOMEM || status == PPS_ERR_SCRIPT);
        front_close(&f);
        if (!reached)
            break;
    }
}

static void single_expressions(void **state)
{
    (void)state;
    static const struct {
        const char *source;
        bool good;
    } rows[] = {{"1 + 2", true},      {"[1,\n 2]\n", true}, {"", false},  {"1 2", false},
                {"let x = 1", false}, {"1; 2", false},      {"(1", false}};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        front_state f;
        uint32_t id;
        ast_node *root;
        assert_true(front_open(&f, 0));
        const char *source = rows[i].source;
        assert_int_equal(source_add(&f.st, "-D", source, strlen(source), &id), PPS_OK);
        pps_status status = parse_expr(&f.st, id, &f.trees, &root);
        assert_int_equal(status, rows[i].good ? PPS_OK : PPS_ERR_SCRIPT);
        if (!rows[i].good)
            assert_int_equal(pps_error_count(&f.st), 1);
        front_close(&f);
    }
}

static void incomplete_input(void **state)
{
    (void)state;
    static const char *const open[] = {
        "fn f() {",    "f(1,\n",       "let x =",    "a ->\n",
        "\"\"\"abc\n", "f\"\"\"a{b\n", "{\"a\": 1,", "if x {\n  y\n"};
    static const char *const done[] = {"",           "let x = 1",       "f(1)\n", "\"abc", "}",
                                       "fn f() { }", "f(1,\nlet x = 2", "x # {",  "f\"{a"};
    for (size_t i = 0; i < sizeof open / sizeof *open; i++)
        assert_true(parse_is_incomplete(open[i], strlen(open[i])));
    for (size_t i = 0; i < sizeof done / sizeof *done; i++)
        assert_false(parse_is_incomplete(done[i], strlen(done[i])));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(precedence),
        cmocka_unit_test(statements),
        cmocka_unit_test(newlines),
        cmocka_unit_test(literals),
        cmocka_unit_test(messages),
        cmocka_unit_test(bytes_that_are_no_text),
        cmocka_unit_test(one_mistake_is_one_error),
        cmocka_unit_test(bad_statements_leave_the_others),
        cmocka_unit_test(deep_nesting_is_an_error),
        cmocka_unit_test(damaged_programs_do_no_harm),
        cmocka_unit_test(every_failed_allocation_is_a_status),
        cmocka_unit_test(single_expressions),
        cmocka_unit_test(incomplete_input),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
