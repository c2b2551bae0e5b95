/* SPDX-License-Identifier: Apache-2.0
 *
 * Graphs made by hand: ops.def as data, sizes and FLOPs, trimming to a loss, cutting at regions,
 * and the verifier on broken graphs. No interpreter is involved.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/build.h"

enum { B = 4, T = 8, N = 16, VOCAB = 32, EXPERTS = 4, TOP_K = 2, HIDDEN = 24 };

typedef struct fixture {
    arena mem;
    ir_graph g;
    ir_id tagset;
} fixture;

static int setup(void **state)
{
    static fixture f;
    memset(&f, 0, sizeof f);
    arena_init(&f.mem, NULL, NULL);
    assert_int_equal(ir_graph_init(&f.g, &f.mem, NULL), PPS_OK);
    *state = &f;
    return 0;
}

static int teardown(void **state)
{
    arena_done(&((fixture *)*state)->mem);
    return 0;
}

static void enter(fixture *f, const char *a, uint32_t ia, const char *b, uint32_t ib)
{
    ir_tag tags[2] = {{a, ia}, {b, ib}};
    uint32_t n = b ? 2 : a ? 1 : 0;
    for (uint32_t i = 0; i < n; i++)
        assert_int_equal(ir_add_region(&f->g, tags[i].name, tags[i].index, 0, (pps_span){0, 0, 0}),
                         PPS_OK);
    assert_int_equal(ir_add_tagset(&f->g, tags, n, &f->tagset), PPS_OK);
}

static ir_id param(fixture *f, const char *name, uint32_t n_dims, uint32_t a, uint32_t b,
                   uint32_t c)
{
    ir_param p = {.name = name, .n_dims = (uint8_t)n_dims, .dims = {a, b, c}};
    ir_id id;
    assert_int_equal(ir_add_param(&f->g, &p, &id), PPS_OK);
    return id;
}

static ir_id op(fixture *f, ir_op o)
{
    ir_id id;
    o.tagset = f->tagset;
    assert_int_equal(ir_add_op(&f->g, &o, &id), PPS_OK);
    return id;
}

static ir_id output(fixture *f, ir_id from, ir_dtype dtype, uint8_t flags, uint32_t a, uint32_t b,
                    uint32_t c)
{
    uint32_t dims[3] = {a, b, c}, n = c ? 3 : 1;
    ir_id id;
    assert_int_equal(ir_add_output(&f->g, from, dtype, flags, n, dims, &id), PPS_OK);
    return id;
}

static ir_id linear(fixture *f, const char *name, ir_id x, uint32_t n_in, uint32_t n_out)
{
    ir_id id = op(f, (ir_op){.kind = IR_LINEAR,
                             .n_in = 1,
                             .n_param = 2,
                             .in = {x},
                             .param = {param(f, name, 2, n_out, n_in, 0), IR_NONE}});
    return output(f, id, IR_F32, IR_TENSOR_BATCH, B, T, n_out);
}

/* embed | router, dispatch | experts | combine, residual | head, loss, with experts in a region of
 * their own and two stages. Returns the loss op. */
static ir_id moe(fixture *f)
{
    uint32_t ids_dims[2] = {B, T};
    ir_id ids, targets;
    ir_graph *g = &f->g;
    ir_add_data(g, IR_DATA_TOKENS, 0, 2, ids_dims, (pps_span){0, 0, 0}, &ids);
    ir_add_data(g, IR_DATA_TARGETS, 0, 2, ids_dims, (pps_span){0, 0, 0}, &targets);

    enter(f, "PP", 0, NULL, 0);
    ir_id embed = op(f, (ir_op){.kind = IR_EMBED,
                                .n_in = 1,
                                .n_param = 1,
                                .in = {ids},
                                .param = {param(f, "wte", 2, VOCAB, N, 0)}});
    ir_id x = output(f, embed, IR_F32, IR_TENSOR_BATCH, B, T, N);
    ir_attrs a = {.experts = EXPERTS, .top_k = TOP_K, .hidden = HIDDEN, .count = B};
    ir_id logits = linear(f, "gate", x, N, EXPERTS);
    ir_id router = op(f, (ir_op){.kind = IR_ROUTER, .n_in = 1, .in = {logits}, .attrs = a});
    ir_id gates = output(f, router, IR_F32, IR_TENSOR_BATCH, B, T, TOP_K);
    ir_id route = output(f, router, IR_I32, IR_TENSOR_BATCH, B, T, 2 * TOP_K);
    ir_id counts = output(f, router, IR_I32, IR_TENSOR_COUNTS, EXPERTS, 0, 0);
    ir_id dispatch = op(f, (ir_op){.kind = IR_DISPATCH, .n_in = 2, .in = {x, route}, .attrs = a});
    uint8_t rows_flags = IR_TENSOR_BATCH | IR_TENSOR_ROWS;
    ir_id rows = output(f, dispatch, IR_F32, rows_flags, B, T * TOP_K, N);
    enter(f, "PP", 0, "EP", 0);
    ir_id mlp = op(f, (ir_op){.kind = IR_EXPERTS,
                              .n_in = 2,
                              .n_param = 3,
                              .in = {rows, counts},
                              .param = {param(f, "gate_proj", 3, EXPERTS, HIDDEN, N),
                                        param(f, "up_proj", 3, EXPERTS, HIDDEN, N),
                                        param(f, "down_proj", 3, EXPERTS, N, HIDDEN)},
                              .attrs = a});
    ir_id out = output(f, mlp, IR_F32, rows_flags, B, T * TOP_K, N);
    enter(f, "PP", 0, NULL, 0);
    ir_id combine =
        op(f, (ir_op){.kind = IR_COMBINE, .n_in = 3, .in = {out, gates, route}, .attrs = a});
    ir_id y = output(f, combine, IR_F32, IR_TENSOR_BATCH, B, T, N);
    ir_id add = op(f, (ir_op){.kind = IR_ADD, .n_in = 2, .in = {x, y}});
    y = output(f, add, IR_F32, IR_TENSOR_BATCH, B, T, N);
    ir_id unused = op(f, (ir_op){.kind = IR_GELU, .n_in = 1, .in = {y}});
    output(f, unused, IR_F32, IR_TENSOR_BATCH, B, T, N);
    enter(f, "PP", 1, NULL, 0);
    ir_id head = linear(f, "head", y, N, VOCAB);
    return op(f, (ir_op){.kind = IR_CROSS_ENTROPY,
                         .n_in = 2,
                         .in = {head, targets},
                         .attrs = {.vocab = VOCAB, .count = B * T}});
}

static void put(void *ud, const char *text, size_t n)
{
    strncat(ud, text, n);
}

static void every_op_has_a_name_and_a_forward(void **state)
{
    (void)state;
    for (int kind = 0; kind < IR_OP_COUNT; kind++) {
        ir_op o = {.kind = (uint8_t)kind, .n_in = 1, .n_out = 1, .n_param = 1};
        ir_operand operands[IR_MAX_OPERANDS];
        assert_true(strlen(ir_op_name((ir_op_kind)kind)) > 0);
        assert_true(ir_op_operands(&o, IR_PHASE_F, operands) > 0);
        for (int phase = 0; phase < IR_PHASE_COUNT; phase++) {
            uint32_t n = ir_op_operands(&o, (ir_phase)phase, operands);
            for (uint32_t i = 0; i < n; i++)
                assert_non_null(strchr("iopsdxhgwlc", operands[i].letter));
        }
    }
}

static void operands_come_in_calling_order(void **state)
{
    (void)state;
    ir_operand o[IR_MAX_OPERANDS];
    ir_op linear_op = {.kind = IR_LINEAR};
    assert_int_equal(ir_op_operands(&linear_op, IR_PHASE_BW, o), 4);
    assert_int_equal(o[0].letter, 'i');
    assert_int_equal(o[3].letter, 'g');
    assert_int_equal(o[3].index, 1);
    ir_op rope = {.kind = IR_ROPE};
    assert_int_equal(ir_op_operands(&rope, IR_PHASE_BW, o), 0);
    ir_op host = {.kind = IR_OPAQUE, .n_in = 2, .n_out = 1, .n_param = 0};
    assert_int_equal(ir_op_operands(&host, IR_PHASE_F, o), 4);  /* i0 i1 o0 s0 */
    assert_int_equal(ir_op_operands(&host, IR_PHASE_BI, o), 7); /* i0 i1 s0 d0 x0 x1 h0 */
    assert_int_equal(ir_op_operands(&host, IR_PHASE_BW, o), 0);
    host.n_param = 1;
    assert_int_equal(ir_op_operands(&host, IR_PHASE_BW, o), 6); /* i0 i1 s0 h0 d0 g0 */
}

static void cutting_follows_regions_and_loss(void **state)
{
    fixture *f = *state;
    ir_id loss = moe(f);
    assert_int_equal(ir_graph_cut(&f->g, &loss, 1), PPS_OK);
    assert_int_equal(ir_graph_verify(&f->g), PPS_OK);
    static char text[8192];
    text[0] = '\0';
    ir_graph_dump(&f->g, put, text);
    const char *chunks = strstr(text, "chunk 0");
    assert_string_equal(
        chunks,
        "chunk 0 {PP: 0}: ops 0 1 2 3 in - out %2 %4 %5 %6 %7 data d0 params p0 p1 loss 1 weights\n"
        "chunk 1 {EP: 0, PP: 0}: ops 4 in %7 %6 out %8 data - params p2 p3 p4 loss 0 grad_in "
        "weights\n"
        "chunk 2 {PP: 0}: ops 5 6 in %8 %4 %5 %2 out %10 data - params - loss 0 grad_in\n"
        "chunk 3 {PP: 1}: ops 8 9 in %10 out - data d1 params p5 loss 1 grad_in weights\n");
    assert_non_null(strstr(text, "op 4 {EP: 0, PP: 0} experts %7 %6 p2 p3 p4"));
    assert_int_equal(f->g.op_chunk[7], IR_NONE);
    assert_true(f->g.tensors[4].flags & IR_TENSOR_GRAD);   /* gates */
    assert_false(f->g.tensors[5].flags & IR_TENSOR_GRAD);  /* route */
    assert_false(f->g.tensors[11].flags & IR_TENSOR_GRAD); /* what the loss does not need */
}

static void trimming_keeps_what_the_loss_needs(void **state)
{
    fixture *f = *state;
    ir_id loss = moe(f), new_loss;
    ir_graph small;
    assert_int_equal(ir_graph_trim(&f->g, &f->mem, &loss, 1, &small, &new_loss), PPS_OK);
    assert_int_equal(small.n_ops, f->g.n_ops - 1);
    assert_int_equal(small.n_params, 6);
    assert_int_equal(small.ops[new_loss].kind, IR_CROSS_ENTROPY);
    assert_int_equal(small.n_regions, f->g.n_regions);
    assert_int_equal(ir_graph_cut(&small, &new_loss, 1), PPS_OK);
    assert_int_equal(small.n_chunks, 4);
    assert_int_equal(ir_graph_verify(&small), PPS_OK);
}

static void data_gets_no_gradient(void **state)
{
    fixture *f = *state;
    uint32_t dims[3] = {B, T, N};
    ir_id x, y;
    ir_add_data(&f->g, IR_DATA_FEATURES, 0, 3, dims, (pps_span){0, 0, 0}, &x);
    ir_add_data(&f->g, IR_DATA_FEATURES, 1, 3, dims, (pps_span){0, 0, 0}, &y);
    enter(f, NULL, 0, NULL, 0);
    ir_id gelu = op(f, (ir_op){.kind = IR_GELU, .n_in = 1, .in = {x}});
    ir_id a = output(f, gelu, IR_F32, IR_TENSOR_BATCH, B, T, N);
    ir_id b = linear(f, "w", a, N, N);
    ir_id loss = op(f, (ir_op){.kind = IR_MSE, .n_in = 2, .in = {b, y}, .attrs = {.count = 1}});
    assert_int_equal(ir_graph_cut(&f->g, &loss, 1), PPS_OK);
    assert_int_equal(f->g.n_chunks, 1);
    assert_false(f->g.tensors[a].flags & IR_TENSOR_GRAD);
    assert_true(f->g.tensors[b].flags & IR_TENSOR_GRAD);
    assert_int_equal(f->g.chunks[0].data.n, 2);
    assert_true(f->g.chunks[0].has_weights);
    assert_int_equal(f->g.chunks[0].n_loss, 1);
}

static void sizes(void **state)
{
    fixture *f = *state;
    moe(f);
    const ir_graph *g = &f->g;
    ir_extent e = ir_tensor_extent(g, &g->tensors[2], 1);
    assert_int_equal(e.per_row, 4 * T * N);
    assert_int_equal(e.fixed, 0);
    e = ir_tensor_extent(g, &g->tensors[6], 1); /* counts */
    assert_int_equal(e.fixed, 4 * EXPERTS);
    assert_int_equal(ir_tensor_extent(g, &g->tensors[6], 2).fixed, 2 * 4 * EXPERTS);
    assert_int_equal(ir_tensor_extent(g, &g->tensors[7], 1).per_row, 4 * T * TOP_K * N);
    /* 4 experts over 2 ranks: 2 choices of each of 2 * T tokens may all come here */
    assert_int_equal(ir_tensor_extent(g, &g->tensors[7], 2).per_row, 4 * 2 * T * 2 * N);
    /* over 4 ranks this rank has one expert */
    ir_attrs a = {.experts = EXPERTS, .top_k = TOP_K};
    assert_int_equal(ir_rows_per_batch_row(T, &a, 4), 4 * T);
    assert_int_equal(ir_rows_per_batch_row(T, &a, 1), T * TOP_K);
    /* whose capacity bounds it; and where there are fewer choices than capacity */
    a.capacity = 1;
    assert_int_equal(ir_rows_per_batch_row(T, &a, 1), EXPERTS);
    assert_int_equal(ir_rows_per_batch_row(T, &a, 2), EXPERTS / 2 * 2);
    assert_int_equal(ir_rows_per_batch_row(T, &a, 4), 4);
    a.capacity = T;
    assert_int_equal(ir_rows_per_batch_row(T, &a, 1), T * TOP_K);
    assert_int_equal(ir_rows_per_batch_row(T, &a, 4), 4 * T);
    const ir_op *mlp = &g->ops[4];
    ir_operand s0 = {'s', 0}, w0 = {'w', 0}, h0 = {'h', 0};
    assert_int_equal(ir_op_extra(g, mlp, s0, 1).per_row, 4 * T * TOP_K * 2 * HIDDEN);
    assert_int_equal(ir_op_extra(g, mlp, h0, 1).per_row, 4 * T * TOP_K * 2 * HIDDEN);
    assert_int_equal(ir_op_extra(g, mlp, w0, 2).per_row, 4 * 2 * T * 2 * HIDDEN);
    assert_true(ir_op_flops(g, &g->ops[1], IR_PHASE_F) == 2.0 * T * N * EXPERTS);
    assert_true(ir_op_flops(g, mlp, IR_PHASE_BW) == 6.0 * T * TOP_K * N * HIDDEN);
    assert_true(ir_op_flops(g, &g->ops[6], IR_PHASE_BW) == 0);
    assert_int_equal(ir_param_elems(&g->params[2]), EXPERTS * HIDDEN * N);
}

static void the_verifier_finds_broken_graphs(void **state)
{
    fixture *f = *state;
    ir_id loss = moe(f);
    ir_graph *g = &f->g;
    assert_int_equal(ir_graph_cut(g, &loss, 1), PPS_OK);
    assert_int_equal(ir_graph_verify(g), PPS_OK);
    ir_id kept = g->ops[1].in[0];
    g->ops[1].in[0] = 9; /* a later op's output */
    assert_int_equal(ir_graph_verify(g), PPS_ERR_INTERNAL);
    g->ops[1].in[0] = kept;
    g->ops[3].param[0] = 0, g->ops[3].n_param = 9;
    assert_int_equal(ir_graph_verify(g), PPS_ERR_INTERNAL);
    g->ops[3].n_param = 0;
    uint32_t in = g->chunks[2].in.n--;
    assert_int_equal(ir_graph_verify(g), PPS_ERR_INTERNAL);
    g->chunks[2].in.n = in;
    g->tensors[5].flags |= IR_TENSOR_GRAD;
    assert_int_equal(ir_graph_verify(g), PPS_ERR_INTERNAL);
    g->tensors[5].flags &= (uint8_t)~IR_TENSOR_GRAD;
    g->tensors[2].dims[1] = 0;
    assert_int_equal(ir_graph_verify(g), PPS_ERR_INTERNAL);
    g->tensors[2].dims[1] = T;
    assert_int_equal(ir_graph_verify(g), PPS_OK);
}

/* An allocator that fails from the n-th call on: every n must end in PPS_ERR_NOMEM or success. */
typedef struct failing {
    int left;
} failing;

static void *fail_later(void *ud, void *ptr, size_t old_bytes, size_t new_bytes)
{
    failing *f = ud;
    (void)old_bytes;
    if (new_bytes == 0) {
        free(ptr);
        return NULL;
    }
    return f->left-- > 0 ? realloc(ptr, new_bytes) : NULL;
}

static void running_out_of_memory_is_a_status(void **state)
{
    fixture *f = *state;
    ir_id loss = moe(f), new_loss;
    for (int n = 0; n < 12; n++) {
        failing left = {n};
        arena mem;
        arena_init(&mem, fail_later, &left);
        ir_graph small;
        pps_status status = ir_graph_trim(&f->g, &mem, &loss, 1, &small, &new_loss);
        if (status == PPS_OK)
            status = ir_graph_cut(&small, &new_loss, 1);
        assert_true(status == PPS_OK || status == PPS_ERR_NOMEM);
        arena_done(&mem);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_op_has_a_name_and_a_forward),
        cmocka_unit_test(operands_come_in_calling_order),
        cmocka_unit_test_setup_teardown(cutting_follows_regions_and_loss, setup, teardown),
        cmocka_unit_test_setup_teardown(trimming_keeps_what_the_loss_needs, setup, teardown),
        cmocka_unit_test_setup_teardown(data_gets_no_gradient, setup, teardown),
        cmocka_unit_test_setup_teardown(sizes, setup, teardown),
        cmocka_unit_test_setup_teardown(the_verifier_finds_broken_graphs, setup, teardown),
        cmocka_unit_test_setup_teardown(running_out_of_memory_is_a_status, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
