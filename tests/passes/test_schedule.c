/* SPDX-License-Identifier: Apache-2.0
 *
 * The stdlib's schedules compiled for many sizes: what a plan runs is what the rows say, once each
 * and in order; waits point backward; exchanges of overlapped pairs run under the other op's
 * compute; and what the compiler makes grows with the microbatches and no faster.
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

typedef struct shape {
    const char *builder; /* of the stdlib */
    const char *devices; /* an expression with s: the devices of stage s */
    uint32_t v;          /* stages per rank */
    uint32_t R, M;
} shape;

static void write_script(char *text, size_t n, const shape *h)
{
    snprintf(text, n,
             "from \"models/mlp\" import mlp\n"
             "from \"schedules\" import %s, loop_stages, v_stages\n"
             "let p2p = stream(\"p2p\")\n"
             "train mlp(tokens(%u, 4), targets(), stages=%u, layers=%u, dim=4, vocab=8)"
             " optimizer sgd(0.1)\n"
             "split {} by MB into %u\n"
             "for s in 0..%u { place {PP: s} on %s stream p2p }\n"
             "order %s(%u, %u)\n",
             h->builder, h->M, h->R * h->v, h->R * h->v, h->M, h->R * h->v, h->devices, h->builder,
             h->R, h->M);
}

static uint32_t chunk_of(const plan_set *set, const plan_step *s)
{
    return plan_work_of(set, s)->chunk;
}

/* ---- Rows and plans -----------------------------------------------------------------------------
 */

typedef struct op {
    uint8_t pass;
    uint32_t stage, mb;
    bool joins;
} op;

/* A row's text, "F0:0 F0:2|B3:0", as ops; the text is what the script gave. */
static uint32_t parse_row(const char *text, op *ret)
{
    uint32_t n = 0;
    for (const char *at = text; *at != '\0';) {
        char pass[3];
        int used = 0;
        op *o = &ret[n];
        o->joins = n > 0 && at[-1] == '|';
        assert_int_equal(sscanf(at, "%2[BFIW]%u:%u%n", pass, &o->stage, &o->mb, &used), 3);
        o->pass = strcmp(pass, "F") == 0    ? PPS_PASS_F
                  : strcmp(pass, "B") == 0  ? PPS_PASS_B
                  : strcmp(pass, "BI") == 0 ? PPS_PASS_BI
                                            : PPS_PASS_BW;
        at += used;
        at += *at != '\0';
        n++;
    }
    return n;
}

static char *row_of_script(compiled *c, const shape *h, uint32_t rank)
{
    char expression[160];
    pps_value rows;
    snprintf(expression, sizeof expression, "%s(%u, %u)[%u]", h->builder, h->R, h->M, rank);
    assert_int_equal(
        pps_eval_expr(c->st, "row", expression, strlen(expression), "schedules", &rows), PPS_OK);
    uint32_t before = c->program->n_rows;
    assert_int_equal(ir_rows_from_value(c->program, rows, NULL), PPS_OK);
    return ir_row_text(c->program, &c->program->rows[before]);
}

/* One chunk per stage: the computes of a plan are its row's ops, in the row's order. */
static void check_plan(compiled *c, const shape *h, uint32_t rank)
{
    static op ops[8192];
    const plan *p = &c->set->plans[c->set->rank_group[rank]];
    char *text = row_of_script(c, h, rank);
    assert_non_null(text);
    assert_string_equal(text, c->set->row_text[p->group]);
    uint32_t n = parse_row(text, ops), at = 0, group = 0;
    free(text);
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        for (uint32_t k = 0; k < s->n_waits; k++) {
            assert_true(p->waits[s->waits + k] < i);
            assert_true(p->steps[p->waits[s->waits + k]].stream != s->stream);
        }
        if (s->kind != PLAN_COMPUTE)
            continue;
        assert_true(at < n);
        group += at > 0 && !ops[at].joins;
        assert_int_equal(s->pass, ops[at].pass);
        assert_int_equal(c->set->chunk_stage[chunk_of(c->set, s)], ops[at].stage);
        assert_int_equal(s->mb, ops[at].mb);
        assert_int_equal(s->row_group, group);
        at++;
    }
    assert_int_equal(at, n);
}

static void check_once(const compiled *c)
{
    const plan_set *set = c->set;
    uint8_t *seen = calloc(set->n_chunks * set->n_mb, 1);
    assert_non_null(seen);
    for (uint32_t g = 0; g < set->n_groups; g++)
        for (uint32_t i = 0; i < set->plans[g].n_steps; i++) {
            const plan_step *s = &set->plans[g].steps[i];
            if (s->kind != PLAN_COMPUTE)
                continue;
            uint8_t *bits = &seen[chunk_of(set, s) * set->n_mb + s->mb];
            assert_false(*bits >> s->pass & 1);
            *bits |= (uint8_t)(1 << s->pass);
            if (s->pass != PPS_PASS_F) /* F, then BI, then BW */
                assert_true(*bits & 1 << PPS_PASS_F);
            if (s->pass == PPS_PASS_BW)
                assert_true(*bits & 1 << PPS_PASS_BI);
        }
    for (uint32_t i = 0; i < set->n_chunks * set->n_mb; i++) {
        const uint8_t whole = 1 << PPS_PASS_F | 1 << PPS_PASS_B;
        const uint8_t split = 1 << PPS_PASS_F | 1 << PPS_PASS_BI | 1 << PPS_PASS_BW;
        assert_true(seen[i] == whole || seen[i] == split);
    }
    free(seen);
}

static void check_shape(const shape *h)
{
    static compiled c;
    char text[1024];
    write_script(text, sizeof text, h);
    if (!compiled_ok(&c, text))
        fail_msg("%s(%u, %u) does not compile", h->builder, h->R, h->M);
    assert_int_equal(c.set->n_ranks, h->R);
    check_once(&c);
    for (uint32_t r = 0; r < h->R; r++)
        check_plan(&c, h, r);
    assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
    assert_int_equal(c.n_notes, 0);
    compiled_close(&c);
}

static void single_stage_schedules(void **state)
{
    static const char *const builders[] = {"gpipe", "one_f_one_b", "zerobubble"};
    (void)state;
    for (int b = 0; b < 3; b++)
        for (uint32_t R = 1; R <= 8; R++)
            for (uint32_t M = 1; M <= 2 * R + 3; M += 1 + M / 4)
                check_shape(&(shape){builders[b], "loop_stages(8)[s]", 1, R, M});
}

static void interleaved_schedules(void **state)
{
    char devices[64];
    (void)state;
    for (uint32_t R = 1; R <= 8; R++)
        for (uint32_t M = R; M <= 3 * R; M += R) {
            snprintf(devices, sizeof devices, "loop_stages(%u, 2)[s]", R);
            check_shape(&(shape){"interleaved_1f1b", devices, 2, R, M});
        }
}

static void dualpipev_schedules(void **state)
{
    char devices[64];
    (void)state;
    for (uint32_t R = 1; R <= 8; R++)
        for (uint32_t M = 2 * R; M <= 2 * R + 5; M += 1 + R / 3) {
            snprintf(devices, sizeof devices, "v_stages(%u)[s]", R);
            check_shape(&(shape){"dualpipev", devices, 2, R, M});
        }
}

/* ---- Overlap ------------------------------------------------------------------------------------
 */

/* Sizes at which latencies are all that costs, and at which computes outlast exchanges. */
static const char small[] = "dim=8, heads=2, kv_heads=1, head_dim=4, experts=4, top_k=2,"
                            " expert_hidden=4, vocab=16";
static const char large[] = "dim=2048, heads=16, kv_heads=4, head_dim=128, experts=4, top_k=2,"
                            " expert_hidden=768, vocab=32000";

static void write_moe(char *text, size_t n, uint32_t R, uint32_t M, uint32_t layers,
                      const char *model)
{
    snprintf(text, n,
             "from \"models/qwen3_moe\" import qwen3_moe\n"
             "from \"schedules\" import dualpipev, v_stages\n"
             "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
             "train qwen3_moe(tokens(%u, %u), targets(), stages=%u, layers=%u, %s)"
             " optimizer sgd(0.1)\n"
             "split {} by MB into %u\n"
             "for s in 0..%u {\n"
             "  let d = v_stages(%u, 2)[s]\n"
             "  place {PP: s} on d stream pp\n"
             "  replicate {PP: s} on d reduce dp\n"
             "  shard {PP: s, EP: *} on d stream ep\n"
             "}\n"
             "order dualpipev(%u, %u)\n",
             2 * M, model == large ? 2048 : 4, 2 * R, 2 * R * layers, model, M, 2 * R, R, R, M);
}

static bool forward(const plan_step *s)
{
    return s->pass == PPS_PASS_F;
}

/* The compute that needs what an exchange brings. */
static uint32_t consumer_of(const plan_set *set, const plan *p, uint32_t exchange)
{
    const plan_step *s = &p->steps[exchange];
    for (uint32_t i = exchange + 1; i < p->n_steps; i++)
        if (p->steps[i].kind == PLAN_COMPUTE && chunk_of(set, &p->steps[i]) == chunk_of(set, s) &&
            p->steps[i].mb == s->mb && forward(&p->steps[i]) == forward(s))
            return i;
    return IR_NONE;
}

/* Does step `i` wait for `for_step`, itself or through a later one of its stream? */
static bool waits_for(const plan *p, uint32_t i, uint32_t for_step)
{
    for (uint32_t k = 0; k < p->steps[i].n_waits; k++) {
        uint32_t w = p->waits[p->steps[i].waits + k];
        if (w >= for_step && p->steps[w].stream == p->steps[for_step].stream)
            return true;
    }
    return false;
}

static bool same_op(const plan_set *set, const plan_step *a, const plan_step *b)
{
    return a->mb == b->mb &&
           set->chunk_stage[chunk_of(set, a)] == set->chunk_stage[chunk_of(set, b)] &&
           forward(a) == forward(b);
}

/* Counts the exchanges inside overlapped pairs; each has a compute of the other op between its
 * issue and the first step that waits for it. */
static uint32_t check_overlap(const plan_set *set, const plan *p)
{
    uint32_t inside = 0;
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        uint32_t end = s->kind == PLAN_ALL_TO_ALL ? consumer_of(set, p, i) : IR_NONE;
        if (end == IR_NONE || !(p->steps[end].flags & PLAN_STEP_OVERLAP))
            continue;
        /* the compute before it that made the rows is of the same pair? */
        uint32_t producer = IR_NONE;
        for (uint32_t k = 0; k < i; k++)
            if (p->steps[k].kind == PLAN_COMPUTE && same_op(set, &p->steps[k], &p->steps[end]))
                producer = k;
        if (producer == IR_NONE || p->steps[producer].row_group != p->steps[end].row_group)
            continue;
        inside++;
        uint32_t waiter = i + 1;
        while (waiter < end && !waits_for(p, waiter, i))
            waiter++;
        uint32_t under = 0;
        for (uint32_t k = i + 1; k < waiter; k++)
            under += p->steps[k].kind == PLAN_COMPUTE &&
                     p->steps[k].row_group == p->steps[end].row_group &&
                     !same_op(set, &p->steps[k], &p->steps[end]);
        if (under == 0) {
            char label[128];
            plan_step_label(set, p, s, label, sizeof label);
            fail_msg("group %u step %u, %s: nothing runs under it", p->group, i, label);
        }
    }
    return inside;
}

static void check_pairs(const char *model)
{
    static compiled c;
    char text[2048];
    for (uint32_t R = 1; R <= 4; R++)
        for (uint32_t layers = 1; layers <= 2; layers++)
            for (uint32_t M = 2 * R; M <= 2 * R + 2; M += 2) {
                uint32_t inside = 0;
                write_moe(text, sizeof text, R, M, layers, model);
                assert_true(compiled_ok(&c, text));
                for (uint32_t g = 0; g < c.set->n_groups; g++)
                    inside += check_overlap(c.set, &c.set->plans[g]);
                /* each pair has an F and a B, each with two exchanges per layer */
                uint32_t pairs = 0;
                for (uint32_t g = 0; g < c.set->n_groups; g++)
                    for (const char *at = c.set->row_text[g]; (at = strchr(at, '|')) != NULL; at++)
                        pairs++;
                assert_int_equal(inside, 4 * layers * pairs);
                assert_true(c.set->hidden <= 1.0);
                if (model == large) /* all but ends that are longer than what runs beside them */
                    assert_true(c.set->hidden > 0.7);
                assert_int_equal(pps_prove(c.st, c.set), PPS_OK);
                compiled_close(&c);
            }
}

static void exchanges_of_pairs_run_under_compute(void **state)
{
    (void)state;
    check_pairs(small);
    check_pairs(large);
}

/* Fewer physical streams: the same work, provable, and compute on stream 0 in the same order. */
static void merged_streams_keep_the_rows(void **state)
{
    static compiled c, merged;
    char text[2048];
    (void)state;
    write_moe(text, sizeof text, 2, 4, 1, small);
    assert_true(compiled_ok(&c, text));
    for (uint32_t streams = 1; streams <= 3; streams++) {
        compiled_open(&merged, text, streams, NULL);
        assert_int_equal(merged.status, PPS_OK);
        assert_int_equal(merged.set->n_streams, streams);
        assert_int_equal(pps_prove(merged.st, merged.set), PPS_OK);
        for (uint32_t g = 0; g < c.set->n_groups; g++) {
            const plan *a = &c.set->plans[g], *b = &merged.set->plans[g];
            assert_int_equal(a->n_steps, b->n_steps);
            for (uint32_t i = 0, k = 0; i < a->n_steps; i++) {
                if (a->steps[i].kind != PLAN_COMPUTE)
                    continue;
                while (b->steps[k].kind != PLAN_COMPUTE)
                    k++;
                assert_int_equal(chunk_of(c.set, &a->steps[i]), chunk_of(merged.set, &b->steps[k]));
                assert_int_equal(a->steps[i].mb, b->steps[k].mb);
                assert_int_equal(a->steps[i].pass, b->steps[k].pass);
                k++;
            }
        }
        compiled_close(&merged);
    }
    compiled_close(&c);
}

/* ---- Growth -------------------------------------------------------------------------------------
 */

typedef struct sizes {
    uint32_t nodes, edges, steps, waits, bindings, blocks;
} sizes;

static sizes count(const char *text)
{
    static compiled c;
    assert_true(compiled_ok(&c, text));
    sizes n = {.nodes = c.set->n_nodes, .edges = c.set->n_edges};
    for (uint32_t g = 0; g < c.set->n_groups; g++) {
        n.steps += c.set->plans[g].n_steps;
        n.waits += c.set->plans[g].n_waits;
        n.bindings += c.set->plans[g].n_bindings;
        n.blocks += c.set->plans[g].n_blocks;
    }
    compiled_close(&c);
    return n;
}

/* What M microbatches need beyond what one step needs grows tenfold with ten times the
 * microbatches. */
static void ten_times_the_microbatches_is_ten_times_the_work(void **state)
{
    char text[2048];
    sizes at[3];
    static const uint32_t factor[3] = {1, 2, 10};
    (void)state;
    for (int which = 0; which < 2; which++) {
        for (int i = 0; i < 3; i++) {
            if (which == 0)
                write_script(text, sizeof text,
                             &(shape){"one_f_one_b", "loop_stages(8)[s]", 1, 4, 8 * factor[i]});
            else
                write_moe(text, sizeof text, 2, 8 * factor[i], 1, small);
            at[i] = count(text);
        }
        assert_int_equal(at[2].nodes - at[0].nodes, 9 * (at[1].nodes - at[0].nodes));
        assert_int_equal(at[2].edges - at[0].edges, 9 * (at[1].edges - at[0].edges));
        assert_int_equal(at[2].steps - at[0].steps, 9 * (at[1].steps - at[0].steps));
        assert_int_equal(at[2].steps, at[2].nodes);
        assert_true(at[2].nodes <= 10 * at[0].nodes);
        /* the first microbatches of a step wait for less than the others */
        assert_true(at[2].waits <= 11 * at[0].waits);
        assert_true(at[2].bindings <= 10 * at[0].bindings);
        assert_true(at[2].blocks <= 10 * at[0].blocks);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(single_stage_schedules),
        cmocka_unit_test(interleaved_schedules),
        cmocka_unit_test(dualpipev_schedules),
        cmocka_unit_test(exchanges_of_pairs_run_under_compute),
        cmocka_unit_test(merged_streams_keep_the_rows),
        cmocka_unit_test(ten_times_the_microbatches_is_ten_times_the_work),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
