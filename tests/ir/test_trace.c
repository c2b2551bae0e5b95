/* SPDX-License-Identifier: Apache-2.0
 *
 * Models traced from scripts: shapes, names, regions, the chunks that come of them, and the errors
 * of wrong models at their calls.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "script.h"

static const char moe[] =
    "model moe(x, y, stages=2) {\n"
    "  for s in 0..stages {\n"
    "    annotate PP as stage {\n"
    "      if stage == 0 { x = embed(x, 32, 16, name=\"wte\") }\n"
    "      x = x + attention(rmsnorm(x), heads=2, kv_heads=1, rope_theta=1e4, qk_norm=true)\n"
    "      let h = rmsnorm(x)\n"
    "      let route = router(h, 4, 2, aux_loss=0.01)\n"
    "      let rows = nil\n"
    "      annotate EP { rows = experts_mlp(h, route, 24) }\n"
    "      x = x + combine(rows, route)\n"
    "      if stage == stages - 1 { x = cross_entropy(linear(x, 32, name=\"head\"), y) }\n"
    "    }\n"
    "  }\n"
    "  return x\n"
    "}\n";

static script s;

static void trace(const char *text)
{
    script_run(&s, text, true);
    if (s.status != PPS_OK)
        printf("%s\n", s.said);
    assert_int_equal(s.status, PPS_OK);
}

static void a_moe_model_becomes_chunks(void **state)
{
    (void)state;
    char text[2048];
    snprintf(text, sizeof text, "%strain moe(tokens(4, 8), targets()) optimizer adamw(1e-3)\n",
             moe);
    trace(text);
    const ir_graph *g = s.program->graph;
    assert_int_equal(g->n_chunks, 6);
    static const char *const tags[] = {"{PP: 0}", "{EP: 0, PP: 0}", "{PP: 0}",
                                       "{PP: 1}", "{EP: 1, PP: 1}", "{PP: 1}"};
    char buffer[64];
    for (uint32_t i = 0; i < 6; i++)
        assert_string_equal(ir_tagset_text(g, g->chunks[i].tagset, buffer, sizeof buffer), tags[i]);
    assert_int_equal(g->chunks[1].ops.n, 1); /* EXPERTS alone: tokens are packed outside */
    assert_int_equal(g->chunks[0].n_loss, 1);
    assert_int_equal(g->chunks[5].n_loss, 1);
    assert_int_equal(g->n_regions, 4);
    assert_int_equal(s.program->train.n_loss_ops, 1);
    assert_int_equal(s.program->train.optimizer.kind, IR_OPT_ADAMW);
    const char *dump = script_dump(&s);
    assert_non_null(strstr(dump, "param p0 \"wte.weight\" [32, 16] normal 0.02\n"));
    assert_non_null(strstr(dump, "\"rmsnorm.0.weight\" [16] one\n"));
    assert_non_null(strstr(dump, "\"attention.0.q_proj.weight\" [16, 16] normal 0.02\n"));
    assert_non_null(strstr(dump, "\"attention.0.k_norm.weight\" [8] one\n"));
    assert_non_null(strstr(dump, "\"router.1.weight\" [4, 16] normal 0.02\n"));
    assert_non_null(strstr(dump, "\"experts.1.down_proj\" [4, 16, 24] normal 0.02 expert\n"));
    assert_non_null(strstr(dump, "attention %"));
    assert_non_null(strstr(dump, "heads=2 kv_heads=1 head_dim=8"));
    assert_non_null(strstr(dump, "cross_entropy"));
    script_close(&s);
}

static void experts_last_in_a_region(void **state)
{
    (void)state;
    trace("model m(x, y) {\n"
          "  annotate PP { x = embed(x, 32, 16) }\n"
          "  let route = nil\n"
          "  annotate PP { route = router(x, 4, 2) }\n"
          "  let rows = nil\n"
          "  annotate EP { rows = experts_mlp(x, route, 8) }\n"
          "  annotate PP { x = linear(combine(rows, route), 32) }\n"
          "  return cross_entropy(x, y)\n"
          "}\n"
          "train m(tokens(4, 8), targets())\n");
    const ir_graph *g = s.program->graph;
    char text[64] = "", one[32];
    for (uint32_t i = 0; i < g->n_chunks; i++) {
        ir_tagset_text(g, g->chunks[i].tagset, one, sizeof one);
        strncat(text, one, sizeof text - strlen(text) - 1);
    }
    /* COMBINE lies with its router in PP 1, before the linear of PP 2 */
    assert_string_equal(text, "{PP: 0}{PP: 1}{EP: 0}{PP: 1}{PP: 2}{}");
    assert_int_equal(s.n_notes, 1); /* the default optimizer */
    script_close(&s);
}

static void tied_weights_are_one_parameter(void **state)
{
    (void)state;
    trace("model m(x, y) {\n"
          "  let w = parameter(\"wte.weight\", [128, 16], std=0.5)\n"
          "  x = position(embed(x, 128, 16, weight=w), 64, name=\"wpe\")\n"
          "  x = linear(x, 16, bias=true, name=\"fc\")\n"
          "  return cross_entropy(linear(layernorm(x, name=\"ln\"), 128, weight=w), y, vocab=100)\n"
          "}\n"
          "train m(tokens(4, 8), targets()) seed 7\n");
    const ir_graph *g = s.program->graph;
    assert_int_equal(g->n_params, 6);
    assert_int_equal(g->n_chunks, 1);
    assert_int_equal(s.program->train.seed, 7);
    const ir_op *head = &g->ops[4], *loss = &g->ops[5];
    assert_int_equal(head->param[0], g->ops[0].param[0]);
    assert_int_equal(loss->attrs.vocab, 100);
    assert_true(loss->attrs.count == 32);
    const char *dump = script_dump(&s);
    assert_non_null(strstr(dump, "\"wte.weight\" [128, 16] normal 0.5\n"));
    assert_non_null(strstr(dump, "\"wpe.weight\" [64, 16] normal 0.02\n"));
    assert_non_null(strstr(dump, "\"fc.bias\" [16] zero\n"));
    assert_non_null(strstr(dump, "\"ln.bias\" [16] zero\n"));
    script_close(&s);
}

static void losses_add_up(void **state)
{
    (void)state;
    trace("fn targets_of(B, T) { let _ = tokens(B, T)\n return targets() }\n"
          "let x = linear(features(2, 3, 8), 4)\n"
          "let a = mse(x, features(2, 3, 4, key=1))\n"
          "let b = cross_entropy(x, targets_of(2, 3))\n"
          "train 0 + a + b\n");
    assert_int_equal(s.program->train.n_loss_ops, 2);
    assert_int_equal(s.program->graph->chunks[0].n_loss, 2);
    assert_int_equal(s.program->graph->n_data, 3);
    script_close(&s);
}

static void handles_print_and_have_shapes(void **state)
{
    (void)state;
    script_run(&s,
               "let x = embed(tokens(2, 3), 32, 8)\n"
               "print(x.shape, x)\n"
               "print(parameter(\"w\", [2, 3]).shape)\n"
               "print(adamw(1e-3), bytes([\"a\", \"b\"]), router(x, 4, 2))\n",
               false);
    assert_int_equal(s.status, PPS_OK);
    assert_non_null(strstr(s.said, "[2, 3, 8] <tensor f32 [2, 3, 8]>\n[2, 3]\n"));
    assert_non_null(
        strstr(s.said, "<optimizer adamw lr=0.001> <data a> <route to 2 of 4 experts>"));
    script_close(&s);
}

static void opaque_chunks_are_the_hosts(void **state)
{
    (void)state;
    trace("model m(x, y) {\n"
          "  let w = parameter(\"w\", [8, 8], init=\"zero\")\n"
          "  let a, b = opaque(\"host\", [x], [[2, 3, 8], [2, 5]], params=[w], save=64, hold=7,\n"
          "                    flops=[10, 20, 30])\n"
          "  return mse(opaque(\"join\", [a, b], [[2, 3, 8]]), y)\n"
          "}\n"
          "train m(features(2, 3, 8), features(2, 3, 8, key=1))\n");
    const ir_graph *g = s.program->graph;
    assert_int_equal(g->ops[0].n_out, 2);
    assert_string_equal(g->ops[0].attrs.host, "host");
    assert_int_equal(ir_op_extra(g, &g->ops[0], (ir_operand){'s', 0}, 1).per_row, 32);
    assert_int_equal(ir_op_extra(g, &g->ops[0], (ir_operand){'h', 0}, 1).per_row, 4);
    assert_true(ir_op_flops(g, &g->ops[0], IR_PHASE_BI) == 10);
    assert_true(g->tensors[g->ops[0].out[1]].flags & IR_TENSOR_GRAD);
    script_close(&s);
}

static void a_second_trace_does_not_disturb_the_first(void **state)
{
    (void)state;
    char text[4096];
    snprintf(text, sizeof text,
             "%slet other = moe(tokens(2, 8), targets(), stages=4)\n"
             "train moe(tokens(4, 8), targets()) optimizer sgd(0.1)\n"
             "let third = moe(tokens(2, 8), targets(), stages=3)\n",
             moe);
    trace(text);
    const ir_graph *g = s.program->graph;
    assert_int_equal(g->n_chunks, 6);
    assert_int_equal(g->n_regions, 4);
    assert_int_equal(g->n_data, 2);
    assert_int_equal(g->data[0].dims[0], 4);
    assert_non_null(strstr(script_dump(&s), "\"experts.0.gate_proj\""));
    script_close(&s);
}

#define FAILS(code, place, part, text) assert_true(script_fails(text, code, place, part))

static void wrong_shapes_are_errors_at_the_call(void **state)
{
    (void)state;
    FAILS(1002, "3:9", "cannot add tensors of shapes [2, 3, 8] and [2, 3, 4]",
          "let a = embed(tokens(2, 3), 32, 8)\nlet b = linear(a, 4)\nlet c = a + b\n");
    FAILS(1005, "1:16", "x must be floats [batch, positions, width], got ints [2, 3]",
          "let a = linear(tokens(2, 3), 4)\n");
    FAILS(1001, "1:16", "x must be a tensor, got int", "let a = linear(3, 4)\n");
    FAILS(1003, "2:19", "n must be 1 to", "let x = features(2, 3, 8)\nlet a = linear(x, 0)\n");
    FAILS(1004, "2:33", "does not divide into 3 heads",
          "let x = features(2, 3, 8)\nlet a = attention_core(x, x, x, 3)\n");
    FAILS(
        1002, "3:27", "k must have shape [2, 3, 4]",
        "let x = features(2, 3, 8)\nlet k = features(2, 3, 6)\nlet a = attention_core(x, k, k, 4, "
        "kv_heads=2)\n");
    FAILS(1002, "2:21", "x has 3 positions, context is 2",
          "let x = features(2, 3, 8)\nlet a = position(x, 2)\n");
    FAILS(1004, "2:17", "even head_dim", "let x = features(2, 3, 9)\nlet a = rope(x, 3)\n");
    FAILS(1002, "2:18", "elements 6 to 9 of a width of 8",
          "let x = features(2, 3, 8)\nlet a = slice(x, 6, 4)\n");
    FAILS(1002, "2:22", "top_k = 5 of 4", "let x = features(2, 3, 8)\nlet a = router(x, 4, 5)\n");
    FAILS(1002, "2:16", "y must have shape",
          "let x = linear(features(2, 3, 8), 4)\nlet l = mse(x, features(2, 3, 5))\n");
    FAILS(1003, "2:9", "too large",
          "let x = features(2000000, 2000, 8)\nlet a = linear(x, 2000000000)\n");
}

static void wrong_models_are_errors(void **state)
{
    (void)state;
    FAILS(1008, "1:9", "there are none yet", "let y = targets()\n");
    FAILS(1007, "2:29", "weight must have shape [4, 8], 'w' has [8, 4]",
          "let x = features(2, 3, 8)\nlet a = linear(x, 4, weight=parameter(\"w\", [8, 4]))\n");
    FAILS(1006, "3:9", "'fc.weight' of shape [5, 8] exists already, with shape [4, 8]",
          "let x = features(2, 3, 8)\nlet a = linear(x, 4, name=\"fc\")\nlet b = linear(x, 5, "
          "name=\"fc\")\n");
    FAILS(1017, "1:34", "init is normal, zero or one",
          "let w = parameter(\"w\", [2], init=\"zeros\")\n");
    FAILS(1009, "2:9", "`*` does not go with tensor and int",
          "let x = features(2, 3, 8)\nlet a = x * 2\n");
    FAILS(1009, "2:9", "cannot add tensor and int", "let x = features(2, 3, 8)\nlet a = x + 1\n");
    FAILS(1010, "2:9", "a tensor has no field 'shap'",
          "let x = features(2, 3, 8)\nlet a = x.shap\n");
    FAILS(1011, "3:5", "lies inside another one",
          "model m(x) {\n  annotate PP {\n    annotate PP { x = gelu(x) }\n  }\n  return x\n}\n"
          "let a = m(features(2, 3, 8))\n");
    FAILS(
        1012, "3:9", "already part of the sum",
        "let x = linear(features(2, 3, 8), 4)\nlet l = mse(x, features(2, 3, 4))\nlet m = l + l\n");
    FAILS(1013, "4:20", "not sent along this route",
          "let x = features(2, 3, 8)\nlet a, b = [router(x, 4, 2), router(x, 4, 2)]\n"
          "let r = experts_mlp(x, a, 8)\nlet y = combine(r, b)\n");
    FAILS(1015, "2:47", "data of different sizes",
          "let x = embed(tokens(2, 4), 8, 8)\n"
          "let y = mse(x, features(2, 4, 8)) + mse(embed(tokens(4, 4), 8, 8), features(4, 4, 8))\n"
          "train y\n");
    FAILS(1016, "2:26", "outputs has 1 to 8 items, got 0",
          "let x = features(2, 3, 8)\nlet a = opaque(\"h\", [x], [])\n");
    FAILS(1018, "1:7", "depends on no parameter",
          "train mse(gelu(features(2, 3, 8)), features(2, 3, 8, key=1))\n");
    FAILS(1019, "2:16", "y must be data",
          "let x = linear(features(2, 3, 8), 4)\nlet l = mse(x, x)\n");
    FAILS(1003, "1:13", "lr must be at least 0", "let o = sgd(-1)\n");
}

static void two_model_calls_in_one_loss(void **state)
{
    (void)state;
    FAILS(1014, "1:39", "regions of two model calls",
          "model m(x, y) { annotate PP { x = mse(linear(x, 4), y) }\n return x }\n"
          "let x, y = [features(2, 3, 8), features(2, 3, 4)]\n"
          "train m(x, y) + m(x, y)\n");
    FAILS(1006, "1:28", "two parameters are named 'linear.0.weight'",
          "model m(x, y) { return mse(linear(x, 4), y) }\n"
          "let x, y = [features(2, 3, 8), features(2, 3, 4)]\n"
          "train m(linear(x, 8), y)\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_moe_model_becomes_chunks),
        cmocka_unit_test(experts_last_in_a_region),
        cmocka_unit_test(tied_weights_are_one_parameter),
        cmocka_unit_test(losses_add_up),
        cmocka_unit_test(handles_print_and_have_shapes),
        cmocka_unit_test(opaque_chunks_are_the_hosts),
        cmocka_unit_test(a_second_trace_does_not_disturb_the_first),
        cmocka_unit_test(wrong_shapes_are_errors_at_the_call),
        cmocka_unit_test(wrong_models_are_errors),
        cmocka_unit_test(two_model_calls_in_one_loss),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
