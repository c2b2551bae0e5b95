/* SPDX-License-Identifier: Apache-2.0
 *
 * The training DAG's text form: what is printed reads back to the same DAG, and nothing else is
 * read.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "compiled.h"
#include "ir/dag.h"

/* Pipelines with everything a DAG has: transfers, exchanges, buckets, split backwards, borders with
 * other forms of tensors behind them. */
/* slices, of which microbatch 1 goes the other way */
static const char slices[] =
    "from \"models/llama\" import llama\n"
    "train llama(tokens(4, 8), targets(), stages=2) optimizer sgd(0.1)\n"
    "split {} by MB into 2\n"
    "split {} by SEQ into 4 along sequence\n"
    "for s in 0..2 { for m in 0..2 { place {PP: s, MB: m} on [(s + m) % 2] } }\n"
    "order [[F(0, r), F(1, 1 - r), B(1, 1 - r)] + [BI(0, r, SEQ=3 - k) for k in 0..4]\n"
    "       + [BW(0, r, SEQ=k) for k in 0..4] for r in 0..2]\n";

static const char *const scripts[] = {
    "from \"models/mlp\" import mlp\n"
    "train mlp(tokens(4, 8), targets(), stages=2, dim=8, vocab=16) optimizer sgd(0.1)\n",

    "from \"models/mlp\" import mlp\n"
    "from \"schedules\" import zerobubble\n"
    "let strange = stream(\"a \\\"b\\\" \\\\ \\t end\")\n"
    "train mlp(tokens(8, 8), targets(), stages=4, dim=8, vocab=16) optimizer sgd(0.1)\n"
    "split {} by slice into 4\n"
    "for s in 0..4 { place {PP: s} on [s] stream strange }\n"
    "order zerobubble(4, 4)\n",

    "from \"models/qwen3_moe\" import qwen3_moe\n"
    "from \"schedules\" import dualpipev\n"
    "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
    "train qwen3_moe(tokens(16, 8), targets(), stages=4) optimizer sgd(0.1)\n"
    "split {} by MB into 4\n"
    "for s in 0..4 {\n"
    "  let d = if s == 0 or s == 3 then [0, 2] else [1, 3]\n"
    "  place {PP: s} on d stream pp\n"
    "  replicate {PP: s} on d reduce dp bucket 0.02\n"
    "  shard {PP: s, EP: *} on d stream ep\n"
    "}\n"
    "recompute {PP: [0, 3], MB: 1..3}\n"
    "recompute {PP: 1, EP: *}\n"
    "order dualpipev(2, 4)\n",

    /* copies to host memory, and what is made again */
    "from \"models/mlp\" import mlp\n"
    "from \"schedules\" import gpipe\n"
    "train mlp(tokens(8, 8), targets(), stages=2, dim=8, vocab=16) optimizer sgd(0.1)\n"
    "split {} by MB into 8\n"
    "for s in 0..2 { place {PP: s} on [s] }\n"
    "offload {MB: [0, 1, 3, 4]} to host\n"
    "recompute {MB: 5..8}\n"
    "order gpipe(2, 8)\n",
    /* windows of parameters and of gradients: edges of single nodes */
    "from \"models/mlp\" import mlp\n"
    "from \"schedules\" import zerobubble\n"
    "train mlp(tokens(16, 8), targets(), stages=2, dim=8, vocab=16) optimizer sgd(0.1)\n"
    "split {} by MB into 4\n"
    "for s in 0..2 {\n"
    "  place {PP: s} on [2 * s, 2 * s + 1]\n"
    "  replicate {PP: s} on [2 * s, 2 * s + 1] zero (2 + s)\n"
    "}\n"
    "order zerobubble(2, 4)\n",

    /* ranks that share sequences: shifts there, home and once more */
    "from \"models/gpt2\" import gpt2\n"
    "from \"schedules\" import zerobubble\n"
    "train gpt2(tokens(4, 16), targets(), stages=1, vocab=16) optimizer sgd(0.1)\n"
    "split {} by MB into 2\n"
    "place {} on [0, 1, 2, 3]\n"
    "replicate {} on [0, 1, 2, 3]\n"
    "shard {} on [[0, 1], [2, 3]] as sequence\n"
    "order zerobubble(1, 2)\n",

    /* a residual over two stages: several uses of one tensor; regions inside regions */
    "model m(x, y) {\n"
    "  let first, mid = [nil, nil]\n"
    "  annotate PP { first = embed(x, 16, 8) }\n"
    "  annotate PP { annotate BLOCK { mid = linear(first, 8) }\n"
    "                mid = mid + first }\n"
    "  annotate PP { mid = linear(mid, 8) + first + mid\n"
    "                return cross_entropy(linear(mid, 16), y) }\n"
    "}\n"
    "train m(tokens(4, 8), targets()) optimizer sgd(0.1)\n"
    "split {} by MB into 2\n"
    "for s in 0..3 { place {PP: s} on [s] }\n",

    slices,

    "from \"models/qwen3_moe\" import qwen3_moe\n"
    "train qwen3_moe(tokens(16, 8), targets(), stages=2, layers=2) optimizer sgd(0.1)\n"
    "split {} by MB into 2\n"
    "for s in 0..2 {\n"
    "  place {PP: s} on [2 * s, 2 * s + 1]\n"
    "  shard {PP: s, TP: *} on [2 * s, 2 * s + 1] as tensor sequence true\n"
    "}\n",
};
enum { N_SCRIPTS = sizeof scripts / sizeof *scripts };

typedef struct text {
    char *bytes;
    size_t n, cap;
} text;

static void add(void *ud, const char *bytes, size_t n)
{
    text *t = ud;
    if (t->n + n + 1 > t->cap) {
        t->cap = 2 * (t->n + n + 1);
        t->bytes = realloc(t->bytes, t->cap);
        assert_non_null(t->bytes);
    }
    memcpy(t->bytes + t->n, bytes, n);
    t->n += n;
    t->bytes[t->n] = '\0';
}

/* Reading `bytes` of `from` works out, and printing gives them again; else *ret_error says why. */
static bool reads_back(const char *from, size_t bytes, dag_read_error *ret_error)
{
    arena mem;
    dag *d = NULL;
    text again = {0};
    arena_init(&mem, NULL, NULL);
    pps_status status = dag_read(&mem, from, bytes, &d, ret_error);
    if (status == PPS_OK) {
        assert_int_equal(dag_verify(d), PPS_OK);
        dag_dump(d, add, &again);
        assert_int_equal(again.n, bytes);
        assert_memory_equal(again.bytes, from, bytes);
        char label[160];
        for (uint32_t v = 0; v < d->n_nodes; v++)
            assert_true(dag_label(d, v, label, sizeof label) > 0);
    } else {
        assert_true(status == PPS_ERR_SCRIPT);
        assert_true(ret_error->line > 0 && ret_error->text[0] != '\0');
    }
    free(again.bytes);
    arena_done(&mem);
    return status == PPS_OK;
}

static void dumps_read_back(void **state)
{
    (void)state;
    for (int i = 0; i < N_SCRIPTS; i++) {
        static const char *const stages[] = {"dag", "schedule"}; /* before and after BI, BW */
        for (int k = 0; k < 2; k++) {
            compiled c;
            dag_read_error error;
            compiled_open(&c, scripts[i], 0, stages[k]);
            if (c.status != PPS_OK)
                fail_msg("%s", c.said);
            if (!reads_back(c.dump, c.n_dump, &error))
                fail_msg("line %u: %s in\n%s", error.line, error.text, c.dump);
            compiled_close(&c);
        }
    }
}

static void a_dump_says_what_is_there(void **state)
{
    (void)state;
    compiled c;
    compiled_open(&c, scripts[2], 0, "schedule");
    assert_int_equal(c.status, PPS_OK);
    static const char *const parts[] = {
        "dag microbatches=4 tag=MB groups=2 ranks=4 streams=5 ",
        "\ngroup 1 ranks 1 3\n",
        "\nstream 0 \"compute\"\n",
        "\nchunk 1 {EP: 0, PP: 0} group=0 ep=2\n",
        " mb 2..4\n",
        " rows@to\n",
        " counts@to\n",
        " reduced params ",
        " = all_to_all F chunk=",
        " return ",
        " = send B chunk=",
        " = compute BW chunk=",
        " = all_reduce bucket=",
        " stream=0 x1 after %",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(c.dump, parts[i]) == NULL)
            fail_msg("there is no '%s' in\n%s", parts[i], c.dump);
    compiled_close(&c);
}

/* `dump` with `from` replaced by `to` once: what is said, at which line (1 when the sums in the
 * header are what no longer holds). */
static void refused(const char *dump, const char *from, const char *to, const char *why)
{
    text changed = {0};
    dag_read_error error;
    const char *at = strstr(dump, from);
    if (at == NULL)
        fail_msg("there is no '%s'", from);
    add(&changed, dump, (size_t)(at - dump));
    add(&changed, to, strlen(to));
    add(&changed, at + strlen(from), strlen(at + strlen(from)));
    uint32_t line = 1;
    for (const char *p = dump; p < at; p++)
        line += *p == '\n';
    if (reads_back(changed.bytes, changed.n, &error) || strstr(error.text, why) == NULL ||
        (error.line != line && error.line != line + (from[0] == '\n') && error.line != 1 &&
         line != 1))
        fail_msg("'%s' for '%s': line %u '%s', expected line %u '%s'", to, from, error.line,
                 error.text, line, why);
    free(changed.bytes);
}

static void a_dump_says_what_slices_carry(void **state)
{
    (void)state;
    compiled c;
    compiled_open(&c, slices, 0, "schedule");
    assert_int_equal(c.status, PPS_OK);
    static const char *const parts[] = {
        "dag microbatches=2 tag=MB slices=4 tag=SEQ groups=2 ",
        "\nclass 1 mb 4 5 6 7\n",
        " = compute F chunk=0 carried group=0 stream=0 x4 after -\n",
        " = compute B chunk=0 carried group=0 ",
        " = compute BW chunk=0 group=0 ",
        "split chunk=0 mb 0..4\n",
    };
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++)
        if (strstr(c.dump, parts[i]) == NULL)
            fail_msg("there is no '%s' in\n%s", parts[i], c.dump);
    refused(c.dump, " slices=4", " slices=0", "at least");
    refused(c.dump, " slices=4 tag=SEQ", " slices=4", "expected ' tag='");
    refused(c.dump, " slices=4", " slices=99999999", "more than");
    refused(c.dump, "\nclass 0 mb 0 1 2 3", "\nclass 0 mb 0 1 2 4", "in two classes");
    refused(c.dump, "BW chunk=0 group", "BW chunk=0 carried group", "expected ' group='");
    refused(c.dump, "F chunk=0 carried", "F chunk=0", "edges");
    compiled_close(&c);
}

static void other_texts_are_refused(void **state)
{
    (void)state;
    compiled c;
    compiled_open(&c, scripts[2], 0, "schedule");
    assert_int_equal(c.status, PPS_OK);
    refused(c.dump, "dag microbatches=4", "dag microbatches=0", "at least");
    refused(c.dump, "dag microbatches=4", "dag microbatches=04", "leading zeros");
    refused(c.dump, "dag microbatches=4", "dag microbatches=99999999999999999999", "too large");
    refused(c.dump, "dag microbatches=4", "dag microbatches=67108864", "nodes");
    refused(c.dump, " groups=2", " groups=3", "expected 'group '");
    refused(c.dump, " ranks=4", " ranks=5", "4 ranks are in groups, not 5");
    refused(c.dump, " edges=", " edges=1", "edges");
    refused(c.dump, "\ngroup 1 ranks 1 3", "\ngroup 1 ranks 1 2", "rank 2 is in two groups");
    refused(c.dump, "\ngroup 1 ranks 1 3", "\ngroup 2 ranks 1 3", "expected number 1");
    refused(c.dump, "\"compute\"", "\"com\\x41pute\"", "needs no escape");
    refused(c.dump, "\"compute\"\n", "\"compute\n", "control character");
    refused(c.dump, "\"compute\"\n", "\"compute\" \n", "end of the line");
    refused(c.dump, "\nchunk 1 {EP: 0, PP: 0}", "\nchunk 1 {EP: 0,PP: 0}", "expected ', '");
    refused(c.dump, " mb 2..4", " mb 2..3", "two or more");
    refused(c.dump, " mb 2..4", " mb 2 3", "out of order");
    refused(c.dump, "\nlink 0 tensor", "\nlink 1 tensor", "expected number 0");
    refused(c.dump, " to 1.0", " to 1.1", "by consumer and input");
    refused(c.dump, "%0 = compute F", "%0 = conpute F", "kind of step");
    refused(c.dump, "%0 = compute F", "%0 = compute G", "expected a pass");
    refused(c.dump, "%1 = compute B ", "%1 = compute F ", "is the same work");
    refused(c.dump, "stream=0 x4", "stream=0 x3", "this run has 4 nodes");
    refused(c.dump, "after %0", "after  %0", "expected ' %'");
    refused(c.dump, "after %0", "after %999999", "more than");
    refused(c.dump, "after %0", "after", "edges");
    refused(c.dump, "after -", "after %1 -", "expected ' %'");

    dag_read_error error;
    assert_false(reads_back("", 0, &error));
    assert_false(reads_back(c.dump, c.n_dump - 1, &error));
    text longer = {0};
    add(&longer, c.dump, c.n_dump);
    add(&longer, "\n", 1);
    assert_false(reads_back(longer.bytes, longer.n, &error));
    assert_non_null(strstr(error.text, "nothing can follow"));
    free(longer.bytes);
    compiled_close(&c);
}

/* Cut and changed texts are refused or read back; under AddressSanitizer this finds bad accesses.
 */
static void no_text_crashes_the_reader(void **state)
{
    (void)state;
    uint32_t random = 12345, accepted = 0;
    for (int i = 1; i < N_SCRIPTS; i++) {
        compiled c;
        dag_read_error error;
        compiled_open(&c, scripts[i], 0, "schedule");
        assert_int_equal(c.status, PPS_OK);
        for (size_t n = 0; n < c.n_dump; n += 1 + n / 40) {
            char *exact = malloc(n + 1); /* so that reading on is noticed */
            memcpy(exact, c.dump, n);
            exact = realloc(exact, n > 0 ? n : 1);
            assert_false(reads_back(exact, n, &error));
            free(exact);
        }
        for (int k = 0; k < 1500; k++) {
            static const char bytes[] = "0123456789 %=.@-\n\"{}:,xabBF\\\xff";
            char *changed = malloc(c.n_dump);
            memcpy(changed, c.dump, c.n_dump);
            for (int j = 0; j <= k % 3; j++) {
                random = random * 1664525u + 1013904223u;
                size_t at = (random >> 8) % c.n_dump;
                random = random * 1664525u + 1013904223u;
                changed[at] = bytes[(random >> 8) % (sizeof bytes - 1)];
            }
            accepted += reads_back(changed, c.n_dump, &error);
            free(changed);
        }
        compiled_close(&c);
    }
    assert_true(accepted > 0 && accepted < 3000); /* another tensor number is another good text */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dumps_read_back),
        cmocka_unit_test(a_dump_says_what_is_there),
        cmocka_unit_test(a_dump_says_what_slices_carry),
        cmocka_unit_test(other_texts_are_refused),
        cmocka_unit_test(no_text_crashes_the_reader),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
