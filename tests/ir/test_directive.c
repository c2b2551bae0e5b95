/* SPDX-License-Identifier: Apache-2.0
 *
 * Directives as records: what good ones say, what malformed ones are told; rows and their canonical
 * text.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "script.h"

/* Two stages, one expert region each: PP 0..1, EP 0..1. Seven lines. */
#define MODEL                                                                                    \
    "model m(x, y) {\n"                                                                          \
    "  for s in 0..2 { annotate PP as i { x = if i == 0 then embed(x, 8, 4) else linear(x, 4)\n" \
    "    let r = router(x, 2, 1)\n"                                                              \
    "    let e = nil\n"                                                                          \
    "    annotate EP { e = experts_mlp(x, r, 4) }\n"                                             \
    "    x = x + combine(e, r) } }\n"                                                            \
    "  return cross_entropy(linear(x, 8), y) }\n"
#define TRAIN "train m(tokens(4, 8), targets()) optimizer sgd(0.1)\n" /* line 8 */

static script s;

static void run(const char *text)
{
    script_run(&s, text, true);
    if (s.status != PPS_OK)
        printf("%s\n", s.said);
    assert_int_equal(s.status, PPS_OK);
}

static void records_say_what_the_script_said(void **state)
{
    (void)state;
    run(MODEL TRAIN "let pp, ep = [stream(\"pp\"), stream(\"ep\")]\n"
                    "place {PP: 0..2} on [[0, 2], [1, 3]] stream pp\n"
                    "replicate {} on [0, 2] reduce ep bucket 0.5 zero 1\n"
                    "replicate {PP: 1} on [1, 3] gather pp shard_params true every 2 prefetch 3\n"
                    "shard {EP: *, PP: -} on [0, 2] as tensor sequence true\n"
                    "split {} by MB into 4\n"
                    "recompute {PP: [0, 1], PASS: F}\n"
                    "offload {PP: 0} to host stream ep\n");
    const ir_program *p = s.program;
    assert_int_equal(p->n_directives, 7);
    static const uint8_t kinds[] = {PPS_DIR_PLACE,  PPS_DIR_REPLICATE, PPS_DIR_REPLICATE,
                                    PPS_DIR_SHARD,  PPS_DIR_SPLIT,     PPS_DIR_RECOMPUTE,
                                    PPS_DIR_OFFLOAD};
    assert_memory_equal(p->kinds, kinds, sizeof kinds);
    const ir_directive *d = p->directives;
    assert_int_equal(d[0].devices.n, 4);
    assert_int_equal(d[0].devices.n_groups, 2);
    static const uint32_t devices[] = {0, 2, 1, 3};
    assert_memory_equal(p->ints + d[0].devices.begin, devices, sizeof devices);
    assert_string_equal(pps_stream_name(s.st, d[0].stream), "pp");
    const ir_term *t = &p->terms[d[0].filter.begin];
    assert_int_equal(d[0].filter.n, 1);
    assert_int_equal(t->kind, PPS_TERM_SET);
    assert_int_equal(t->n, 2);
    assert_int_equal(p->ints[t->begin + 1], 1);
    assert_int_equal(d[1].filter.n, 0);
    assert_int_equal(d[1].bucket_bytes, 524288);
    assert_int_equal(d[1].zero, 1);
    assert_int_equal(d[1].gather, IR_NONE);
    assert_int_equal(d[2].zero, 3);
    assert_int_equal(d[2].every, 2);
    assert_int_equal(d[2].prefetch, 3);
    assert_int_equal(d[2].stream, IR_NONE);
    assert_string_equal(d[3].as, "tensor");
    assert_true(d[3].sequence);
    assert_int_equal(p->terms[d[3].filter.begin].kind, PPS_TERM_ANY);
    assert_int_equal(p->terms[d[3].filter.begin + 1].kind, PPS_TERM_ABSENT);
    assert_string_equal(d[4].tag, "MB");
    assert_int_equal(d[4].n, 4);
    assert_int_equal(p->terms[d[5].filter.begin].kind, PPS_TERM_PASS);
    assert_false(d[5].applied);
    script_close(&s);
}

static void train_names_data_and_weights(void **state)
{
    (void)state;
    run(MODEL
        "train m(tokens(4, 8), targets()) data bytes([\"a.txt\", \"b.txt\"]) weights \"w.bin\""
        " optimizer adamw(lr=0.5, weight_decay=0.1, decay=\"all\") seed 3\n");
    const ir_train *t = &s.program->train;
    assert_int_equal(t->data, IR_SOURCE_BYTES);
    assert_int_equal(t->n_data_paths, 2);
    assert_memory_equal(t->data_path, "a.txt\0b.txt", 12);
    assert_string_equal(t->weights_path, "w.bin");
    assert_true(t->optimizer.decay_all && t->has_optimizer);
    assert_true(t->optimizer.lr == 0.5f && t->optimizer.beta2 == 0.999f);
    assert_int_equal(t->seed, 3);
    script_close(&s);
}

static void check_row(uint32_t row, const char *want)
{
    assert_true(row < s.program->n_rows);
    char *text = ir_row_text(s.program, &s.program->rows[row]);
    assert_string_equal(text, want);
    free(text);
}

static void rows_have_canonical_text(void **state)
{
    (void)state;
    run(MODEL TRAIN
        "order F(0, 0) -> B(0, 1) | F(0, 2) -> BI(0, 0) -> BW(0, 0)\n"
        "order [[F(1, 0), SEND(F(1, 1))], [F(1, 2, EP=1) | RECV(B(1, 0)), {PP: *, PASS: F}]]\n"
        "let row = [F(0, 3)]\n"
        "order row\n"
        "row.append(F(0, 4))\n");
    assert_int_equal(s.program->n_orders, 3);
    assert_int_equal(s.program->n_rows, 4);
    check_row(0, "F0:0 F0:2|B0:1 BI0:0 BW0:0");
    check_row(1, "F1:0 SEND(F1:1)");
    check_row(2, "F1:2{EP=1}|RECV(B1:0) {PASS:F,PP:*}");
    check_row(3, "F0:3"); /* as it was when the directive ran */
    assert_int_equal(s.program->rows[0].n_groups, 4);
    assert_int_equal(s.program->rows[0].n, 5);
    assert_int_equal(s.program->rows[2].directive, 1);
    assert_true(s.program->entries[s.program->rows[0].begin].origin != 0);
    script_close(&s);
}

static void rows_need_no_model(void **state)
{
    (void)state;
    script_run(&s, "let rows = [[F(0, 0), B(0, 0)], [F(1, 0)]]\n", false);
    assert_int_equal(s.status, PPS_OK);
    pps_value rows;
    assert_int_equal(pps_global(s.st, "rows", &rows), PPS_OK);
    assert_int_equal(ir_rows_from_value(s.program, rows, NULL), PPS_OK);
    assert_int_equal(s.program->n_rows, 2);
    check_row(0, "F0:0 B0:0");
    check_row(1, "F1:0");
    assert_int_equal(ir_rows_from_value(s.program, pps_int(3), NULL), PPS_ERR_SCRIPT);
    script_close(&s);
}

#define FAILS(code, place, part, text) assert_true(script_fails(text, code, place, part))

static void malformed_clauses(void **state)
{
    (void)state;
    FAILS(440, "9:1", "`place` needs the clause `on`", MODEL TRAIN "place {PP: 0}\n");
    FAILS(440, "9:1", "`split` needs the clause `into`", MODEL TRAIN "split {} by MB\n");
    FAILS(441, "9:7", "place needs a filter, got int", MODEL TRAIN "place 3 on [0]\n");
    FAILS(442, "9:18", "device 2 is in this list twice",
          MODEL TRAIN "place {PP: 0} on [2, 1, 2]\n");
    FAILS(442, "9:18", "-1 is not a device", MODEL TRAIN "place {PP: 0} on [-1]\n");
    FAILS(442, "9:18", "groups of devices must be equal",
          MODEL TRAIN "place {PP: 0} on [[0, 1], [2]]\n");
    FAILS(442, "9:18", "no devices", MODEL TRAIN "place {PP: 0} on []\n");
    FAILS(443, "9:21", "`into` is 1 or more, got 0", MODEL TRAIN "split {} by MB into 0\n");
    FAILS(443, "9:31", "`zero` is 0 to 3, got 4", MODEL TRAIN "replicate {PP: 0} on [0] zero 4\n");
    FAILS(443, "9:33", "`bucket` must be above 0",
          MODEL TRAIN "replicate {PP: 0} on [0] bucket 0\n");
    FAILS(444, "9:26", "`shard_grads true` means zero 2",
          MODEL TRAIN "replicate {PP: 0} on [0] zero 1 shard_grads true\n");
    FAILS(444, "9:22", "goes with `as tensor` only",
          MODEL TRAIN "shard {EP: *} on [0] sequence true\n");
    FAILS(450, "9:13", "cannot name parts of the batch", MODEL TRAIN "split {} by PP into 2\n");
    FAILS(450, "9:13", "names regions of the model", MODEL TRAIN "split {} by EP into 2\n");
    FAILS(451, "9:25", "did you mean `expert`?", MODEL TRAIN "shard {EP: *} on [0] as experts\n");
    FAILS(451, "9:20", "there is `host`", MODEL TRAIN "offload {PP: 0} to disk\n");
}

static void malformed_trains(void **state)
{
    (void)state;
    FAILS(447, "9:1", "a script trains one loss", MODEL TRAIN TRAIN);
    FAILS(448, "1:1", "nothing to compile", "place {PP: 0} on [0]\n");
    FAILS(449, "1:7", "train needs a loss, got tensor", "train embed(tokens(4, 8), 8, 8)\n");
}

static void malformed_rows(void **state)
{
    (void)state;
    FAILS(445, "9:7", "holds ops and groups of ops", MODEL TRAIN "order [F(0, 0), 3]\n");
    FAILS(445, "9:7", "a list of rows holds rows", MODEL TRAIN "order [[F(0, 0)], F(0, 1)]\n");
    FAILS(446, "9:7", "no rows", MODEL TRAIN "order []\n");
    FAILS(446, "9:7", "no ops", MODEL TRAIN "order [[F(0, 0)], []]\n");
    FAILS(441, "9:7", "order needs a row", MODEL TRAIN "order 3\n");
}

static void unknown_tags_and_indices(void **state)
{
    (void)state;
    FAILS(203, "9:8", "model 'm' has no tag 'PPP'", MODEL TRAIN "place {PPP: 0} on [0]\n");
    FAILS(203, "9:8", "tags of this model: PP, EP", MODEL TRAIN "place {PPP: 0} on [0]\n");
    FAILS(203, "9:8", "did you mean 'PP'?", MODEL TRAIN "place {PPP: 0} on [0]\n");
    FAILS(204, "9:12", "tag PP has indices 0 to 1, there is no PP 4",
          MODEL TRAIN "place {PP: 4} on [0]\n");
    FAILS(204, "9:12", "there is no PP 2", MODEL TRAIN "place {PP: 0..3} on [0]\n");
    FAILS(204, "9:19", "2 regions come from test.pps:5",
          MODEL TRAIN "shard {PP: 0, EP: 2} on [0]\n");
    FAILS(204, "10:18", "there is no PP 7",
          MODEL TRAIN "split {} by MB into 2\n"
                      "order F(0, 0) -> F(7, 0) -> F(8, 0)\n");
    FAILS(203, "3:7", "the model has no tag 'PP'",
          "let x = linear(features(2, 3, 8), 4)\ntrain mse(x, features(2, 3, 4)) optimizer sgd(1)\n"
          "order F(0, 0) -> B(0, 0)\n");
}

static void every_mistake_is_reported(void **state)
{
    (void)state;
    script_run(&s, MODEL TRAIN "place {PPP: 0} on [0]\nplace {PP: 9} on [1]\norder [F(3, 0)]\n",
               true);
    assert_int_equal(s.status, PPS_ERR_SCRIPT);
    assert_int_equal(s.n_errors, 3);
    script_close(&s);
}

/* A form error inside attempt(...) is caught there; the directive is refused again at the end. */
static void refused_directives_are_not_forgotten(void **state)
{
    (void)state;
    FAILS(442, "9:36", "no devices",
          MODEL TRAIN "let r = attempt(fn() { place {} on [] })\nassert(not r[\"ok\"])\n");
}

static void finishing_again_starts_over(void **state)
{
    (void)state;
    run(MODEL TRAIN "place {PP: 0} on [0]\norder F(0, 0) -> B(0, 0)\n");
    assert_int_equal(s.program->graph->n_chunks, 7);
    assert_int_equal(ir_program_finish(s.program), PPS_OK);
    assert_int_equal(s.program->n_directives, 1);
    assert_int_equal(s.program->n_rows, 1);
    assert_int_equal(s.program->n_orders, 1);
    assert_int_equal(s.program->graph->n_chunks, 7);
    assert_int_equal(s.program->train.loss_ops[0], s.program->graph->n_ops - 1);
    script_close(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(records_say_what_the_script_said),
        cmocka_unit_test(train_names_data_and_weights),
        cmocka_unit_test(rows_have_canonical_text),
        cmocka_unit_test(rows_need_no_model),
        cmocka_unit_test(malformed_clauses),
        cmocka_unit_test(malformed_trains),
        cmocka_unit_test(malformed_rows),
        cmocka_unit_test(unknown_tags_and_indices),
        cmocka_unit_test(every_mistake_is_reported),
        cmocka_unit_test(refused_directives_are_not_forgotten),
        cmocka_unit_test(finishing_again_starts_over),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
