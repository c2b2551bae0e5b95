/* SPDX-License-Identifier: Apache-2.0
 *
 * test_parity.c: models whose sequences are split train as they do on one rank without directives:
 *
 *   - losses within 1e-5 relative, gradients of step 1 and parameters after 5 SGD steps within 1e-5
 * of their tensor's largest element (float32, sums in another order);
 *   - the same run again gives the same bits;
 *   - memory in use and bytes sent are those of the plan.
 *
 * Two microbatches of 2 and 4 slices, on pipelines of 1 and 2 ranks, with replicas, shared experts
 * and `zero`, in the default order and in rows of slices, backward whole and in halves.
 */
#include "zero_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

/* The rows: forward by slices, backward of each microbatch from its last slice; rank r is ahead by
 * one slice for each rank behind it, and by the rest of a microbatch. */
static const char rows[] =
    "fn unit(r, m, q, p) => if ranks == 1 then {PP: 0..2, MB: m, SEQ: q, PASS: p}\n"
    "                       else p(r, m, SEQ=q)\n"
    "fn forth(r, u) => unit(r, u // S, u % S, F)\n"
    "fn back(r, k, p) => unit(r, k // S, S - 1 - k % S, p)\n"
    "fn seq1f1b(R, M) {\n"
    "  let rows = []\n"
    "  for r in 0..R {\n"
    "    let warm = min(S - 1 + R - 1 - r, M * S)\n"
    "    let row = [forth(r, u) for u in 0..warm]\n"
    "    for u in warm..M * S { row += forth(r, u) -> back(r, u - warm, B) }\n"
    "    rows.append(row + [back(r, k, B) for k in M * S - warm..M * S])\n"
    "  }\n"
    "  return rows\n"
    "}\n"
    /* weights after all else, and the slices of these in any order */
    "fn halves(R, M) => [[forth(r, u) for u in 0..M * S] + [back(r, k, BI) for k in 0..M * S]\n"
    "                    + [unit(r, u // S, u % S, BW) for u in 0..M * S] for r in 0..R]\n"
    /* an op without SEQ is all the slices of its microbatch */
    "fn whole(R, M) => [[F(r, m) for m in 0..M] + [B(r, m) for m in 0..M] for r in 0..R]\n"
    /* microbatch 1 goes through the ranks the other way */
    "fn crossing(R, M) => [[F(0, r), F(1, 1 - r), B(1, 1 - r), B(0, r)] for r in 0..R]\n";

static const struct model {
    const char *name, *text; /* of `stages` */
} models[] = {
    {"qwen3_moe",
     "from \"models/qwen3_moe\" import qwen3_moe\n"
     "train qwen3_moe(tokens(8, 16), targets(), stages=stages, layers=4, dim=16, heads=4, "
     "kv_heads=2, head_dim=8, experts=4, top_k=2, expert_hidden=16, vocab=50, aux_loss=0.0) "},
    {"llama",
     "from \"models/llama\" import llama\n"
     "train llama(tokens(8, 16), targets(), stages=stages, layers=2, dim=16, heads=4, kv_heads=2, "
     "hidden=24, vocab=50) "},
    {"gpt2",
     "from \"models/gpt2\" import gpt2\n"
     "train gpt2(tokens(8, 16), targets(), stages=stages, layers=2, heads=2, dim=16, vocab=50, "
     "context=20) "},
    /* keys and values from other regions than attention's, on another rank if there are two */
    {"apart", "model apart(x, y) {\n"
              "  let dim = 16\n"
              "  let q, k, v = [nil, nil, nil]\n"
              "  annotate PP {\n"
              "    x = position(embed(x, 50, dim, name=\"e\"), 16, name=\"p\")\n"
              "    q = rope(linear(x, 16, name=\"q\"), 8, theta=100.0)\n"
              "    k = rope(linear(x, 8, name=\"k\"), 8, theta=100.0)\n"
              "    v = linear(x, 8, name=\"v\")\n"
              "  }\n"
              "  annotate PP {\n"
              "    x = x + linear(attention_core(q, k, v, 2, kv_heads=1) + q, dim, name=\"o\")\n"
              "    x = x + linear(k, dim, name=\"more\")\n"
              "    x = cross_entropy(linear(x, 50, name=\"head\"), y)\n"
              "  }\n"
              "  return x\n"
              "}\n"
              "train apart(tokens(8, 16), targets()) "},
};

typedef struct cell {
    const char *model;
    uint32_t ranks, replicas, slices;
    bool ep;
    const char *order;   /* function of the rows above; "": none given */
    const char *clauses; /* of replicate */
} cell;

static const cell cells[] = {
    {"qwen3_moe", 1, 1, 2, false, "", ""},
    {"qwen3_moe", 1, 1, 4, false, "", ""},
    {"qwen3_moe", 2, 1, 2, false, "", ""},
    {"qwen3_moe", 2, 1, 4, false, "", ""},
    {"qwen3_moe", 2, 1, 16, false, "", ""}, /* a position each */
    {"qwen3_moe", 2, 1, 4, false, "seq1f1b", ""},
    {"qwen3_moe", 2, 1, 2, false, "halves", ""},
    {"qwen3_moe", 2, 1, 4, false, "whole", ""},
    {"qwen3_moe", 2, 2, 2, false, "seq1f1b", ""},
    {"qwen3_moe", 2, 2, 4, true, "", ""},
    {"qwen3_moe", 2, 2, 2, true, "seq1f1b", ""},
    {"qwen3_moe", 2, 2, 4, true, "halves", ""},
    {"qwen3_moe", 1, 2, 4, true, "seq1f1b", ""},
    {"qwen3_moe", 2, 2, 4, true, "seq1f1b", "zero 1"},
    {"qwen3_moe", 2, 2, 2, true, "seq1f1b", "zero 2"},
    {"qwen3_moe", 2, 2, 4, false, "", "zero 2 every 2"},
    {"qwen3_moe", 2, 2, 4, true, "halves", "zero 3 bucket 0.003"},
    {"qwen3_moe", 2, 2, 2, false, "", "zero 3 every 2 prefetch 2"},
    {"llama", 2, 1, 4, false, "seq1f1b", ""},
    {"llama", 2, 1, 4, false, "crossing", ""},
    {"llama", 2, 2, 2, false, "", ""},
    {"gpt2", 1, 1, 4, false, "halves", ""},
    {"gpt2", 1, 2, 2, false, "seq1f1b", "zero 2"},
    {"apart", 1, 1, 4, false, "seq1f1b", ""},
    {"apart", 2, 1, 4, false, "", ""},
    {"apart", 2, 2, 2, false, "seq1f1b", "zero 3"},
};

/* `ranks` 0: alone, without directives. */
static void open_cell(compiled *c, const cell *z)
{
    char script[8192];
    size_t i = 0;
    int n;
    while (strcmp(models[i].name, z->model) != 0)
        i++;
    n = snprintf(script, sizeof script,
                 "let stages, S, ranks = [2, %u, %u]\n%s%soptimizer sgd(lr=0.1)\n", z->slices,
                 z->ranks, rows, models[i].text);
    if (z->ranks > 0) {
        n += snprintf(script + n, sizeof script - (size_t)n,
                      "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
                      "split {} by MB into 2\n"
                      "split {} by SEQ into S along sequence\n"
                      "for s in 0..2 {\n"
                      "  let at = [%s]\n"
                      "  %s\n",
                      z->replicas == 1 ? "s % ranks" : "s % ranks, ranks + s % ranks",
                      strcmp(z->order, "crossing") == 0
                          ? "for m in 0..2 { place {PP: s, MB: m} on [(s + m) % 2] stream pp }"
                          : "place {PP: s} on at stream pp");
        if (z->replicas > 1)
            n += snprintf(script + n, sizeof script - (size_t)n,
                          "  replicate {PP: s} on at reduce dp %s\n%s", z->clauses,
                          z->ep ? "  shard {PP: s, EP: *} on at stream ep\n" : "");
        n += snprintf(script + n, sizeof script - (size_t)n, "}\n");
    }
    if (*z->order)
        n += snprintf(script + n, sizeof script - (size_t)n, "order %s(ranks, 2)\n", z->order);
    assert_true((size_t)n < sizeof script);
    zero_compile(c, script);
    if (c->set == NULL)
        fail_msg("refused:\n%s\n%s", script, c->said);
}

static void check_cell(const cell *z, const outcome *alone)
{
    compiled c;
    outcome o, again;
    open_cell(&c, z);
    assert_int_equal(c.set->n_slices, z->slices);
    assert_int_equal(c.set->n_mb, 2 * z->slices);
    zero_run(&c, &o);
    zero_run(&c, &again);
    for (int i = 0; i < ZERO_STEPS; i++)
        if (!(fabs(o.losses[i] - alone->losses[i]) <= 1e-5 * fabs(alone->losses[i])))
            fail_msg("loss %d is %.9g, not %.9g", i + 1, o.losses[i], alone->losses[i]);
    zero_near("gradient", c.set, o.grads, alone->grads);
    zero_near("value", c.set, o.params, alone->params);
    assert_string_equal(o.result.params_sha256, again.result.params_sha256);
    assert_memory_equal(o.losses, again.losses, sizeof o.losses);
    zero_as_planned(c.set, &o, z->ep);
    outcome_done(&o);
    outcome_done(&again);
    zero_close(&c);
}

static void cells_train_the_model_of_one_rank(void **state)
{
    (void)state;
    for (size_t m = 0; m < sizeof models / sizeof *models; m++) {
        compiled c;
        outcome alone;
        open_cell(&c, &(cell){.model = models[m].name, .slices = 1, .order = "", .clauses = ""});
        zero_run(&c, &alone);
        for (size_t i = 0; i < sizeof cells / sizeof *cells; i++) {
            const cell *z = &cells[i];
            if (strcmp(z->model, models[m].name) != 0)
                continue;
            print_message("%s, %u ranks of %u%s, %u slices, %s %s\n", z->model, z->ranks,
                          z->replicas, z->ep ? ", experts shared out" : "", z->slices,
                          *z->order ? z->order : "default order", z->clauses);
            check_cell(z, &alone);
        }
        outcome_done(&alone);
        zero_close(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(cells_train_the_model_of_one_rank),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
