/* SPDX-License-Identifier: Apache-2.0
 *
 * The embedding API and what no script reaches: expressions, calls, references, interrupts, where
 * ops were made, the calls a directive ran in, limits at the same place each time, the bytecode
 * dump, and a run in which the n-th allocation fails, for each n.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lang/vm.h"

typedef struct host {
    pps_state *st;
    pps_config config;
    char out[4000];
    int n_errors, code;
    uint32_t line;
    char text[4000];
    size_t n_allocs, fail_at, bytes_out;
    bool interrupt_on_print;
} host;

static void on_print(void *ud, const char *words, size_t n)
{
    host *h = ud;
    size_t used = strlen(h->out);
    if (used + n < sizeof(h->out)) {
        memcpy(h->out + used, words, n);
        h->out[used + n] = 0;
    }
    if (h->interrupt_on_print)
        pps_interrupt(h->st);
}

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *words)
{
    host *h = ud;
    const char *file;
    uint32_t column;
    if (severity != PPS_SEV_ERROR)
        return;
    h->n_errors++;
    h->code = code;
    snprintf(h->text, sizeof(h->text), "%s", words);
    if (h->st)
        pps_span_place(h->st, span, &file, &h->line, &column);
}

static void *on_alloc(void *ud, void *ptr, size_t old_bytes, size_t new_bytes)
{
    host *h = ud;
    if (new_bytes == 0) {
        free(ptr);
        h->bytes_out -= old_bytes;
        return NULL;
    }
    if (new_bytes > old_bytes && ++h->n_allocs == h->fail_at)
        return NULL;
    void *p = realloc(ptr, new_bytes);
    h->bytes_out += new_bytes - old_bytes;
    return p;
}

static pps_status on_load(void *ud, const char *from, const char *path, pps_source *ret,
                          char reason[256])
{
    static char words[] = "let base = 100\nfn add(x) => base + x\n";
    (void)ud;
    (void)from;
    if (strcmp(path, "lib") != 0) {
        snprintf(reason, 256, "no such module");
        return PPS_ERR_IO;
    }
    *ret = (pps_source){.text = words, .bytes = sizeof(words) - 1, .resolved = "lib"};
    return PPS_OK;
}

static pps_status host_open(host *h)
{
    h->config = (pps_config){.size = sizeof(pps_config),
                             .alloc = on_alloc,
                             .alloc_ud = h,
                             .print = on_print,
                             .print_ud = h,
                             .diag = on_diag,
                             .diag_ud = h,
                             .load = on_load,
                             .load_ud = h,
                             .max_steps = 10000000};
    return pps_open(PPS_ABI, &h->config, &h->st);
}

static pps_status eval(host *h, const char *words)
{
    return pps_eval(h->st, "test.pps", "test.pps", words, strlen(words));
}

static pps_status eval_expr(host *h, const char *words, const char *use, pps_value *ret)
{
    return pps_eval_expr(h->st, "expr", words, strlen(words), use, ret);
}

static int setup(void **state)
{
    host *h = calloc(1, sizeof(*h));
    *state = h;
    return host_open(h) == PPS_OK ? 0 : -1;
}

static int teardown(void **state)
{
    host *h = *state;
    pps_close(h->st);
    size_t bytes = h->bytes_out;
    free(h);
    return bytes == 0 ? 0 : -1;
}

static void test_expressions(void **state)
{
    host *h = *state;
    pps_value v;
    assert_int_equal(eval_expr(h, "1 + 2", NULL, &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 3);
    assert_int_equal(eval(h, "let n = 40\nfn f(x) => n + x\n"), PPS_OK);
    assert_int_equal(eval_expr(h, "f(2)", NULL, &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 42);
    assert_int_equal(eval_expr(h, "add(n)", "lib", &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 140);
    assert_int_equal(eval_expr(h, "add(n) + f(1)", "lib", &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 181);
    assert_int_equal(eval_expr(h, "add(n)", NULL, &v), PPS_ERR_SCRIPT);
    assert_int_equal(h->code, 101);
    assert_int_equal(eval_expr(h, "1 +", NULL, &v), PPS_ERR_SCRIPT);
    assert_int_equal(eval_expr(h, "1", "nowhere", &v), PPS_ERR_SCRIPT);
    assert_int_equal(h->code, 702);
    assert_int_equal(eval_expr(h, "[F(0, m) for m in 0..3]", NULL, &v), PPS_OK);
    assert_int_equal(pps_len(v), 3);
    assert_int_equal(pps_op_mb(pps_list_at(v, 2)), 2);
}

static void test_calls_and_globals(void **state)
{
    host *h = *state;
    pps_value f, v, argv[2] = {pps_int(20), pps_int(22)};
    assert_int_equal(eval(h, "let x = 1\nfn f(a, b=5) => a + b\nfn g() { fail(\"no\") }\n"),
                     PPS_OK);
    assert_int_equal(pps_global(h->st, "f", &f), PPS_OK);
    assert_int_equal(pps_call(h->st, f, 2, argv, &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 42);
    assert_int_equal(pps_call(h->st, f, 1, argv, &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 25);
    assert_int_equal(pps_call(h->st, f, 0, argv, &v), PPS_ERR_SCRIPT);
    assert_int_equal(h->code, 301);
    assert_int_equal(pps_call(h->st, pps_int(3), 0, NULL, &v), PPS_ERR_SCRIPT);
    assert_int_equal(h->code, 303);
    assert_int_equal(pps_global(h->st, "g", &f), PPS_OK);
    assert_int_equal(pps_call(h->st, f, 0, NULL, &v), PPS_ERR_SCRIPT);
    assert_int_equal(h->code, 314);
    assert_int_equal(pps_global(h->st, "nothing", &v), PPS_ERR_ARG);
    assert_int_equal(pps_global(h->st, "len", &f), PPS_ERR_ARG); /* a builtin is no global */
}

static void test_references(void **state)
{
    host *h = *state;
    pps_value v;
    pps_ref_id a, b, c;
    assert_int_equal(eval_expr(h, "[1, [2, 3]]", NULL, &v), PPS_OK);
    assert_int_equal(pps_ref(h->st, v, &a), PPS_OK);
    assert_int_equal(eval_expr(h, "fn() => 7", NULL, &v), PPS_OK);
    assert_int_equal(pps_ref(h->st, v, &b), PPS_OK);
    heap_collect(h->st);
    assert_int_equal(pps_as_int(pps_list_at(pps_list_at(pps_deref(h->st, a), 1), 1)), 3);
    assert_int_equal(pps_call(h->st, pps_deref(h->st, b), 0, NULL, &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 7);
    pps_unref(h->st, a);
    pps_unref(h->st, a);
    assert_int_equal(pps_typeof(pps_deref(h->st, a)), PPS_NIL);
    assert_int_equal(pps_ref(h->st, pps_int(5), &c), PPS_OK);
    assert_int_equal(c, a);
    assert_int_equal(pps_as_int(pps_deref(h->st, c)), 5);
}

static void test_interrupt(void **state)
{
    host *h = *state;
    pps_value v;
    h->interrupt_on_print = true;
    assert_int_equal(eval(h, "print(1)\nattempt(fn() { while true { } })\n"), PPS_ERR_INTERRUPT);
    assert_int_equal(h->code, 805);
    h->interrupt_on_print = false;
    assert_int_equal(eval_expr(h, "6 * 7", NULL, &v), PPS_OK);
    assert_int_equal(pps_as_int(v), 42);
}

static void test_origins(void **state)
{
    host *h = *state;
    pps_value v;
    const char *file;
    uint32_t line, column;
    assert_int_equal(eval(h,
                          "fn f(m) {\n  return F(0, m)\n}\nlet row = f(1) -> B(2, 3) | BW(0, 0)\n"
                          "let s = SEND(row[0])\nlet g = F(0, 1, DIR=1)\n"),
                     PPS_OK);
    assert_int_equal(pps_global(h->st, "row", &v), PPS_OK);
    uint32_t origin = pps_op_origin(pps_list_at(v, 0));
    pps_span_place(h->st, pps_origin_span(h->st, origin), &file, &line, &column);
    assert_string_equal(file, "test.pps");
    assert_int_equal(line, 2);
    assert_int_equal(column, 10);
    v = pps_group_at(pps_list_at(v, 1), 1);
    pps_span_place(h->st, pps_origin_span(h->st, pps_op_origin(v)), &file, &line, &column);
    assert_int_equal(line, 4);
    assert_int_equal(column, 29);
    assert_int_equal(pps_global(h->st, "s", &v), PPS_OK);
    pps_span_place(h->st, pps_origin_span(h->st, pps_op_origin(v)), &file, &line, &column);
    assert_int_equal(line, 5);
    assert_int_equal(pps_global(h->st, "g", &v), PPS_OK);
    pps_span_place(h->st, pps_origin_span(h->st, pps_op_origin(v)), &file, &line, &column);
    assert_int_equal(line, 6);
    assert_int_equal(pps_origin_span(h->st, 0).file, 0);
    assert_int_equal(pps_origin_span(h->st, 1000000).file, 0);
}

static void test_directive_place(void **state)
{
    host *h = *state;
    assert_int_equal(eval(h, "fn put(s) { place {PP: s} on [s] }\nfn all() {\n"
                             "  for s in 0..2 { put(s) }\n}\nall()\n"),
                     PPS_OK);
    assert_int_equal(pps_directive_count(h->st), 2);
    const pps_directive *d = pps_directive_at(h->st, 1);
    assert_int_equal(d->kind, PPS_DIR_PLACE);
    assert_string_equal(d->context, "s = 1");
    assert_int_equal(d->n_frames, 2);
    assert_string_equal(d->frames[0].function, "put");
    assert_string_equal(d->frames[1].function, "all");
    const char *file;
    uint32_t line, column;
    pps_span_place(h->st, d->frames[0].call, &file, &line, &column);
    assert_int_equal(line, 3);
    const pps_clause *on = pps_directive_clause(d, "on");
    assert_non_null(on);
    assert_int_equal(pps_as_int(pps_list_at(on->value, 0)), 1);
    assert_null(pps_directive_clause(d, "stream"));
    assert_null(pps_directive_at(h->st, 2));
}

static void test_many_errors(void **state)
{
    host *h = *state;
    assert_int_equal(eval(h, "let a = x1\nlet b = x2\nlet c = )\nlet d = x3\n"), PPS_ERR_SCRIPT);
    assert_int_equal(h->n_errors, 1); /* the syntax first: names may come from what did not parse */
    h->n_errors = 0;
    assert_int_equal(eval(h, "let a = x1\nlet b = x2\nlet d = x3\n"), PPS_ERR_SCRIPT);
    assert_int_equal(h->n_errors, 3);
    assert_int_equal(h->line, 3);
}

static void test_limit_place(void **state)
{
    uint32_t lines[2];
    char outs[2][4000];
    (void)state;
    for (int i = 0; i < 2; i++) {
        host h = {0};
        assert_int_equal(host_open(&h), PPS_OK);
        h.st->config.max_steps = 54321;
        assert_int_equal(eval(&h,
                              "let n = 0\nwhile true {\n  n += 1\n  if n % 100 == 0 { print(n) }\n"
                              "  for i in 0..n % 7 { n += 1 }\n}\n"),
                         PPS_ERR_LIMIT);
        assert_int_equal(h.code, 802);
        lines[i] = h.line;
        memcpy(outs[i], h.out, sizeof(h.out));
        pps_close(h.st);
    }
    assert_int_equal(lines[0], lines[1]);
    assert_string_equal(outs[0], outs[1]);
}

static void test_dump(void **state)
{
    host *h = *state;
    const char *words =
        "fn f(a, b=1) { for i in 0..a { if i == b { return {PP: i} } } }\n"
        "let xs = [1]\nxs += F(0, 1) -> f(3, b=2)\nplace {} on xs\nprint(f\"{xs}\")\n";
    assert_int_equal(module_dump(h->st, "d.pps", words, strlen(words), on_print, h), PPS_OK);
    static const char *const parts[] = {"fn d.pps", "FORLOOP", "FILTER", " PP:",  "ROWADD",
                                        "place on", "CONCAT",  "b=",     "RETURN"};
    for (size_t i = 0; i < sizeof(parts) / sizeof(parts[0]); i++)
        if (!strstr(h->out, parts[i]))
            fail_msg("no %s in\n%s", parts[i], h->out);
    assert_null(strstr(h->out, "0x"));
}

static void test_wrong_open(void **state)
{
    pps_state *st = NULL;
    pps_config config = {.size = sizeof(config)};
    (void)state;
    assert_int_equal(pps_open(PPS_ABI + 1, &config, &st), PPS_ERR_ARG);
    config.size = 8;
    assert_int_equal(pps_open(PPS_ABI, &config, &st), PPS_ERR_ARG);
    pps_close(NULL);
}

static const char everything[] =
    "import \"lib\" as lib\n"
    "param n = 3 where n > 0\n"
    "let fs = []\n"
    "for i in 0..n { fs.append(fn(x, y=i) => [x, y, i]) }\n"
    "model net(k) { annotate PP as p { return f\"{p} {k}\" } }\n"
    "fn row(R) => F(0, 0) -> F(0, 1) | B(0, 0) -> [BW(0, m) for m in 0..R]\n"
    "print(net(1), row(2), [f(1) for f in fs], {\"k\": {PP: 0..3}}, lib.add(n))\n"
    "place {PP: 0} on [0, 1] stream stream(\"s\")\n"
    "let r = attempt(fn() => [1, 2].map(fn(x) => 1 // (x - 2)))\n"
    "print(r[\"error\"], mesh(pp=2, dp=2), max([3, 1], key=fn(x) => -x))\n"
    "let bad = fs[0](1, z=2)\n";

/* Whatever allocation fails, the run ends with a status and gives every byte back. */
static void test_nth_allocation_fails(void **state)
{
    (void)state;
    size_t n_allocs = 0;
    for (size_t n = 0; n <= n_allocs; n++) {
        host h = {.fail_at = n};
        pps_status status = host_open(&h);
        if (status == PPS_OK) {
            status = eval(&h, everything);
            if (n == 0) {
                assert_int_equal(h.code, 302);
                n_allocs = h.n_allocs;
            }
            pps_close(h.st);
        }
        assert_int_not_equal(status, PPS_OK);
        if (h.bytes_out)
            fail_msg("allocation %zu: %zu bytes were not given back", n, h.bytes_out);
    }
    assert_in_range(n_allocs, 200, 100000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_expressions, setup, teardown),
        cmocka_unit_test_setup_teardown(test_calls_and_globals, setup, teardown),
        cmocka_unit_test_setup_teardown(test_references, setup, teardown),
        cmocka_unit_test_setup_teardown(test_interrupt, setup, teardown),
        cmocka_unit_test_setup_teardown(test_origins, setup, teardown),
        cmocka_unit_test_setup_teardown(test_directive_place, setup, teardown),
        cmocka_unit_test_setup_teardown(test_many_errors, setup, teardown),
        cmocka_unit_test(test_limit_place),
        cmocka_unit_test_setup_teardown(test_dump, setup, teardown),
        cmocka_unit_test(test_wrong_open),
        cmocka_unit_test(test_nth_allocation_fails),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
