/* SPDX-License-Identifier: Apache-2.0
 *
 * op_case.c: see op_case.h. Sizes follow the shapes of ops.def; several are no multiples of the
 * kernels' blocks, and some cross one.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <cmocka.h>

#include "tests/cpu/op_case.h"

static const char *const lists[IR_OP_COUNT][IR_PHASE_COUNT] = {
#define OP(NAME, text, f, bi, bw) [IR_##NAME] = {f, bi, bw},
#include "ir/ops.def"
#undef OP
};

/* Tokens each of two ranks has for each of four experts: no rows, few and many. */
static const int32_t expert_counts[2][4] = {{3, 0, 2, 14}, {1, 5, 0, 2}};

const op_case op_cases[] = {
    {"embed", {.op = IR_EMBED, .B = 2, .T = 5, .n_in = 1, .n_out = 19, .attrs.vocab = 4}},
    {"position", {.op = IR_POSITION, .B = 3, .T = 4, .n_in = 7, .n_out = 7}},
    {"position, part 1 of 2",
     {.op = IR_POSITION, .B = 2, .T = 6, .n_in = 7, .n_out = 7, .attrs.parts = 2},
     .part = 1},
    {"linear", {.op = IR_LINEAR, .B = 3, .T = 5, .n_in = 21, .n_out = 37}},
    {"linear, no bias",
     {.op = IR_LINEAR, .B = 2, .T = 8, .n_in = 16, .n_out = 32},
     .no_bias = true},
    {"linear, deep", {.op = IR_LINEAR, .B = 2, .T = 1, .n_in = 261, .n_out = 3}},
    {"linear, wide", {.op = IR_LINEAR, .B = 2, .T = 1, .n_in = 3, .n_out = 133}},
    {"rmsnorm",
     {.op = IR_RMSNORM,
      .B = 2,
      .T = 3,
      .n_in = 37,
      .n_out = 37,
      .attrs = {.group = 37, .eps = 1e-5f}}},
    {"qk-norm",
     {.op = IR_RMSNORM,
      .B = 2,
      .T = 3,
      .n_in = 24,
      .n_out = 24,
      .attrs = {.group = 8, .eps = 1e-6f}}},
    {"layernorm",
     {.op = IR_LAYERNORM, .B = 2, .T = 3, .n_in = 37, .n_out = 37, .attrs.eps = 1e-5f}},
    {"rope",
     {.op = IR_ROPE,
      .B = 2,
      .T = 5,
      .n_in = 24,
      .n_out = 24,
      .attrs = {.heads = 3, .head_dim = 8, .theta = 100}}},
    {"rope, part 0 of 3",
     {.op = IR_ROPE,
      .B = 2,
      .T = 6,
      .n_in = 16,
      .n_out = 16,
      .attrs = {.heads = 2, .head_dim = 8, .theta = 100, .parts = 3}}},
    {"attention",
     {.op = IR_ATTENTION,
      .B = 2,
      .T = 9,
      .n_in = 12,
      .n_out = 12,
      .attrs = {.heads = 3, .kv_heads = 3, .head_dim = 4}}},
    {"attention, grouped",
     {.op = IR_ATTENTION,
      .B = 2,
      .T = 7,
      .n_in = 24,
      .n_out = 24,
      .attrs = {.heads = 4, .kv_heads = 2, .head_dim = 6}}},
    {"attention, long",
     {.op = IR_ATTENTION,
      .B = 1,
      .T = 70,
      .n_in = 4,
      .n_out = 4,
      .attrs = {.heads = 2, .kv_heads = 1, .head_dim = 2}}},
    {"attention, one slice", /* more of them: test_slices.c */
     {.op = IR_ATTENTION_SLICE,
      .B = 2,
      .T = 7,
      .n_in = 24,
      .n_out = 24,
      .slices = 1,
      .attrs = {.heads = 4, .kv_heads = 2, .head_dim = 6}}},
    {"attention, round 0 of 2",
     {.op = IR_ATTENTION_PART,
      .B = 2,
      .T = 10,
      .n_in = 24,
      .n_out = 24,
      .attrs = {.heads = 4, .kv_heads = 2, .head_dim = 6, .parts = 2}},
     .part = 1},
    {"attention, round 2 of 3",
     {.op = IR_ATTENTION_PART,
      .B = 2,
      .T = 74,
      .n_in = 8,
      .n_out = 8,
      .attrs = {.heads = 2, .kv_heads = 1, .head_dim = 4, .parts = 3, .shift = 2}},
     .part = 1},
    {"attention, end of rounds",
     {.op = IR_ATTENTION_END,
      .B = 2,
      .T = 6,
      .n_in = 12,
      .n_out = 12,
      .attrs = {.heads = 2, .head_dim = 6}}},
    {"gelu", {.op = IR_GELU, .B = 2, .T = 3, .n_in = 19, .n_out = 19}},
    {"swiglu", {.op = IR_SWIGLU, .B = 2, .T = 3, .n_in = 19, .n_out = 19}},
    {"add", {.op = IR_ADD, .B = 2, .T = 3, .n_in = 5, .n_out = 5}},
    {"slice", {.op = IR_SLICE, .B = 2, .T = 3, .n_in = 9, .n_out = 4, .attrs.begin = 3}},
    {"router",
     {.op = IR_ROUTER,
      .B = 2,
      .T = 5,
      .n_in = 6,
      .n_out = 3,
      .attrs = {.experts = 6, .top_k = 3, .count = 4}}},
    {"router, renorm",
     {.op = IR_ROUTER,
      .B = 2,
      .T = 5,
      .n_in = 6,
      .n_out = 2,
      .attrs = {.experts = 6, .top_k = 2, .renorm = true, .count = 4}}},
    {"router, auxiliary loss",
     {.op = IR_ROUTER,
      .B = 2,
      .T = 5,
      .n_in = 19,
      .n_out = 2,
      .attrs = {.experts = 19, .top_k = 2, .aux_coef = 0.5f, .count = 2}}},
    {"router, renorm and auxiliary loss",
     {.op = IR_ROUTER,
      .B = 3,
      .T = 4,
      .n_in = 5,
      .n_out = 3,
      .attrs = {.experts = 5, .top_k = 3, .renorm = true, .aux_coef = 0.25f, .count = 6}}},
    {"router, capacity",
     {.op = IR_ROUTER,
      .B = 3,
      .T = 8,
      .n_in = 5,
      .n_out = 3,
      .attrs = {.experts = 5, .top_k = 3, .capacity = 4, .count = 3}}},
    {"router, capacity, renorm and auxiliary loss",
     {.op = IR_ROUTER,
      .B = 2,
      .T = 9,
      .n_in = 4,
      .n_out = 2,
      .attrs =
          {.experts = 4, .top_k = 2, .capacity = 2, .renorm = true, .aux_coef = 0.5f, .count = 2}}},
    {"dispatch",
     {.op = IR_DISPATCH,
      .B = 2,
      .T = 3,
      .n_in = 5,
      .n_out = 5,
      .attrs = {.experts = 4, .top_k = 2}}},
    {"dispatch, capacity",
     {.op = IR_DISPATCH,
      .B = 2,
      .T = 7,
      .n_in = 5,
      .n_out = 5,
      .attrs = {.experts = 3, .top_k = 2, .capacity = 3}}},
    {"experts",
     {.op = IR_EXPERTS,
      .B = 1,
      .T = 19,
      .n_in = 5,
      .n_out = 5,
      .ep = 1,
      .n = 19,
      .attrs = {.experts = 4, .top_k = 1, .hidden = 6}}},
    {"experts, rank 0 of 2",
     {.op = IR_EXPERTS,
      .B = 1,
      .T = 9,
      .n_in = 5,
      .n_out = 5,
      .ep = 2,
      .n = 9,
      .attrs = {.experts = 4, .top_k = 1, .hidden = 18}}},
    {"experts, rank 1 of 2",
     {.op = IR_EXPERTS,
      .B = 1,
      .T = 18,
      .n_in = 18,
      .n_out = 18,
      .ep = 2,
      .n = 18,
      .attrs = {.experts = 4, .top_k = 1, .hidden = 7}},
     .team_index = 1},
    {"combine",
     {.op = IR_COMBINE,
      .B = 2,
      .T = 3,
      .n_in = 5,
      .n_out = 5,
      .attrs = {.experts = 4, .top_k = 2}}},
    {"combine, capacity",
     {.op = IR_COMBINE,
      .B = 2,
      .T = 7,
      .n_in = 5,
      .n_out = 5,
      .attrs = {.experts = 3, .top_k = 2, .capacity = 3}}},
    {"cross_entropy",
     {.op = IR_CROSS_ENTROPY, .B = 2, .T = 3, .n_in = 24, .attrs = {.vocab = 21, .count = 12}}},
    {"mse", {.op = IR_MSE, .B = 2, .T = 3, .n_in = 4, .attrs.count = 48}},
};
const size_t n_op_cases = sizeof op_cases / sizeof op_cases[0];

double next_random(uint32_t *state)
{
    *state = *state * 1664525u + 1013904223u;
    return (double)(*state >> 8) / (1 << 23) - 1;
}

static const char letters[] = "ipoxsdghwlc";

operand *operand_of(operands *a, char letter, size_t index)
{
    return &a->all[strchr(letters, letter) - letters][index];
}

size_t operand_bytes(const operand *o)
{
    return o->n * (o->is_int ? sizeof(int32_t) : sizeof(cpu_real));
}

const char *operand_list(uint32_t op, uint32_t phase)
{
    return lists[op][phase];
}

bool list_names(const char *list, char letter, size_t index)
{
    for (const char *at = list; *at != '\0'; at += at[2] == '\0' ? 2 : 3)
        if (at[0] == letter && (size_t)(at[1] - '0') == index)
            return true;
    return false;
}

static void size_real(operands *a, char letter, size_t index, size_t n)
{
    operand_of(a, letter, index)->n = n;
}

static void size_ints(operands *a, char letter, size_t index, size_t n)
{
    operand_of(a, letter, index)->n = n;
    operand_of(a, letter, index)->is_int = true;
}

static void size_experts(operands *a, const plan_kernel *k)
{
    size_t weights = k->attrs.experts / k->ep * k->attrs.hidden * k->n_in;
    size_real(a, 'i', 0, k->n * k->n_in);
    size_ints(a, 'i', 1, k->ep * k->attrs.experts);
    for (size_t i = 0; i < 3; ++i)
        size_real(a, 'p', i, weights);
    size_real(a, 'o', 0, k->n * k->n_in);
    size_real(a, 's', 0, k->n * 2 * k->attrs.hidden);
    size_real(a, 'h', 0, k->n * 2 * k->attrs.hidden);
    size_real(a, 'w', 0, k->n * k->attrs.hidden);
}

/* Rows that the experts get of a route by fill_route; every expert has more choices than that. */
static size_t rows_taken(const plan_kernel *k)
{
    return k->attrs.capacity > 0 ? (size_t)k->B * k->attrs.experts * k->attrs.capacity
                                 : cpu_positions(k) * k->attrs.top_k;
}

static void size_operands(operands *a)
{
    const plan_kernel *k = &a->c->k;
    size_t rows = cpu_positions(k), in = rows * k->n_in, out = rows * k->n_out;
    size_t chosen = rows * k->attrs.top_k;
    size_real(a, 'i', 0, in);
    size_real(a, 'o', 0, out);
    switch ((ir_op_kind)k->op) {
    case IR_EMBED:
        size_ints(a, 'i', 0, rows);
        size_real(a, 'p', 0, k->attrs.vocab / cpu_sharers(k) * k->n_out);
        break;
    case IR_POSITION:
        size_real(a, 'p', 0,
                  (k->T * cpu_sharers(k) * (k->attrs.parts > 1 ? k->attrs.parts : 1) + 2) *
                      k->n_in);
        break;
    case IR_LINEAR:
        size_real(a, 'p', 0, (size_t)k->n_in * k->n_out);
        size_real(a, 'p', 1, a->c->no_bias ? 0 : k->n_out);
        break;
    case IR_RMSNORM:
        size_real(a, 'p', 0, k->attrs.group);
        size_real(a, 's', 0, in / k->attrs.group);
        size_real(a, 'h', 0, k->attrs.group);
        break;
    case IR_LAYERNORM:
        size_real(a, 'p', 0, k->n_in);
        size_real(a, 'p', 1, k->n_in);
        size_real(a, 's', 0, 2 * rows);
        size_real(a, 'h', 0, 2 * (size_t)k->n_in);
        break;
    case IR_ATTENTION_SLICE:
        for (size_t i = 0; i < 2; ++i)
            size_real(a, 'c', i, 2 * k->slices * rows * k->attrs.kv_heads * k->attrs.head_dim);
    /* fall through */
    case IR_ATTENTION:
        size_real(a, 'i', 1, rows * k->attrs.kv_heads * k->attrs.head_dim);
        size_real(a, 'i', 2, rows * k->attrs.kv_heads * k->attrs.head_dim);
        size_real(a, 's', 0, rows * k->attrs.heads);
        break;
    case IR_ATTENTION_PART:
        size_real(a, 'i', 1, rows * k->attrs.kv_heads * k->attrs.head_dim);
        size_real(a, 'i', 2, rows * k->attrs.kv_heads * k->attrs.head_dim);
        size_real(a, 'o', 1, rows * k->attrs.heads * 2);
        if (k->attrs.shift == 0)
            break;
        size_real(a, 'i', 3, out);
        size_real(a, 'i', 4, rows * k->attrs.heads * 2);
        break;
    case IR_ATTENTION_END:
        size_real(a, 'i', 1, rows * k->attrs.heads * 2);
        size_real(a, 's', 0, rows * k->attrs.heads);
        break;
    case IR_SWIGLU:
    case IR_ADD:
        size_real(a, 'i', 1, in);
        break;
    case IR_ROUTER:
        size_ints(a, 'o', 1, 2 * chosen);
        size_ints(a, 'o', 2, k->attrs.experts);
        break;
    case IR_DISPATCH:
        size_ints(a, 'i', 1, 2 * chosen);
        size_real(a, 'o', 0, rows_taken(k) * k->n_in);
        break;
    case IR_EXPERTS:
        size_experts(a, k);
        break;
    case IR_COMBINE:
        size_real(a, 'i', 0, rows_taken(k) * k->n_in);
        size_real(a, 'i', 1, chosen);
        size_ints(a, 'i', 2, 2 * chosen);
        break;
    case IR_CROSS_ENTROPY:
        size_ints(a, 'i', 1, rows);
        size_real(a, 's', 0, rows);
        break;
    case IR_MSE:
        size_real(a, 'i', 1, in);
        break;
    case IR_CROSS_ENTROPY_PART: /* together with the whole: test_shared.c */
    case IR_CROSS_ENTROPY_MERGE:
    case IR_ROPE:
    case IR_GELU:
    case IR_SLICE:
    case IR_OPAQUE:
    case IR_OP_COUNT:
        break;
    }
    for (size_t i = 0; i < OPERAND_INDICES;
         ++i) { /* gradients are as large as what they belong to */
        size_real(a, 'x', i, operand_of(a, 'i', i)->is_int ? 0 : operand_of(a, 'i', i)->n);
        size_real(a, 'd', i, operand_of(a, 'o', i)->is_int ? 0 : operand_of(a, 'o', i)->n);
        size_real(a, 'g', i, operand_of(a, 'p', i)->n);
    }
}

/* Experts (position + j) % E for choice j, and their rows, expert after expert; -1 for choices of a
 * batch row that an expert has no capacity for. */
static void fill_route(const plan_kernel *k, int32_t *expert)
{
    size_t n = cpu_positions(k) * k->attrs.top_k, per_row = (size_t)k->T * k->attrs.top_k;
    int32_t *position = expert + n, next = 0;
    for (size_t c = 0; c < n; ++c)
        expert[c] = (int32_t)((c / k->attrs.top_k + c % k->attrs.top_k) % k->attrs.experts);
    for (size_t e = 0; e < k->attrs.experts; ++e)
        for (size_t c = 0, taken = 0; c < n; ++c) {
            taken = c % per_row == 0 ? 0 : taken;
            if ((size_t)expert[c] != e)
                continue;
            bool takes = k->attrs.capacity == 0 || taken < k->attrs.capacity;
            position[c] = takes ? next++ : -1;
            taken += takes;
        }
}

static void fill_ints(const op_case *c, operand *o, uint32_t *state)
{
    if (c->k.op == IR_DISPATCH || c->k.op == IR_COMBINE)
        fill_route(&c->k, o->ints);
    else if (c->k.op == IR_EXPERTS)
        memcpy(o->ints, expert_counts, operand_bytes(o));
    else /* ids: all less than the vocabulary */
        for (size_t i = 0; i < o->n; ++i)
            o->ints[i] = (int32_t)((next_random(state) + 1) / 2 * c->k.attrs.vocab);
}

static bool is_stats(const op_case *c, char letter, size_t index)
{
    return letter == 'i' && ((c->k.op == IR_ATTENTION_PART && index == 4) ||
                             (c->k.op == IR_ATTENTION_END && index == 1));
}

void operands_init(operands *a, const op_case *c, uint32_t seed, int poison)
{
    memset(a, 0, sizeof *a);
    a->c = c;
    size_operands(a);
    for (size_t l = 0; letters[l] != '\0'; ++l)
        for (size_t i = 0; i < OPERAND_INDICES; ++i) {
            operand *o = &a->all[l][i];
            bool is_loss = letters[l] == 'l' && i == 0;
            size_t bytes = is_loss ? sizeof(double) : operand_bytes(o);
            if (bytes == 0)
                continue;
            o->at = malloc(bytes);
            assert_non_null(o->at);
            memset(o->at, poison, bytes);
            if (strchr("ipdg", letters[l]) == NULL)
                continue;
            for (size_t j = 0; !o->is_int && j < o->n; ++j)
                o->real[j] = (cpu_real)next_random(&seed);
            if (o->is_int)
                fill_ints(c, o, &seed);
            /* sums of exponentials are positive */
            for (size_t j = 1; is_stats(c, letters[l], i) && j < o->n; j += 2)
                o->real[j] += 2;
        }
}

void operands_done(operands *a)
{
    for (size_t l = 0; l < OPERAND_LETTERS; ++l)
        for (size_t i = 0; i < OPERAND_INDICES; ++i)
            free(a->all[l][i].at);
}

void operands_run(operands *a, find_fn find, uint32_t phase, const cpu_blas *blas)
{
    void *p[OPERAND_LETTERS * OPERAND_INDICES];
    plan_kernel k = a->c->k;
    cpu_context cx = {.team_index = a->c->team_index, .part = a->c->part, .blas = blas};
    const char *list = operand_list(k.op, phase);
    k.phase = (uint8_t)phase;
    k.n_operands = 0;
    for (const char *at = list; *at != '\0'; at += at[2] == '\0' ? 2 : 3)
        p[k.n_operands++] = operand_of(a, at[0], (size_t)(at[1] - '0'))->at;
    assert_int_equal(find(k.op, phase)(&k, p, &cx), PPS_OK);
}

void operands_run_all(operands *a, find_fn find, const cpu_blas *blas)
{
    for (uint32_t phase = 0; phase < IR_PHASE_COUNT; ++phase)
        if (operand_list(a->c->k.op, phase)[0] != '\0')
            operands_run(a, find, phase, blas);
}
