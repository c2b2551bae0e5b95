/* SPDX-License-Identifier: Apache-2.0
 *
 * driver.c: runs the passes of passes.def in order.
 */
#include "ir/plan_file.h"
#include "passes/cost.h"
#include "passes/pass.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

typedef struct pass_row {
    const char *name;
    pps_status (*run)(pass_cx *cx);
} pass_row;

static const pass_row passes[] = {
#define PASS(name, purpose, needs) {#name, pass_##name},
#include "passes/passes.def"
#undef PASS
};
enum { N_PASSES = sizeof passes / sizeof *passes };

static const char *const stages[] = {"graph",
#define PASS(name, purpose, needs) #name,
#include "passes/passes.def"
#undef PASS
                                     "rows", "plan", NULL};

const char *const *pps_compile_stages(void)
{
    return stages;
}

static void dump_rows(const pass_cx *cx)
{
    const pass_options *o = cx->options;
    for (uint32_t g = 0; g < cx->dag->n_groups; g++) {
        char *text = ir_row_text(cx->program, &cx->program->rows[cx->group_row[g]]);
        if (text != NULL) {
            o->dump(o->dump_ud, text, strlen(text));
            o->dump(o->dump_ud, "\n", 1);
        }
        free(text);
    }
}

/* What there is to see after pass number `i`. */
static void dump_after(const pass_cx *cx, const char *stage, uint32_t i)
{
    const pass_options *o = cx->options;
    bool have_dag = cx->dag->n_runs > 0;
    bool last = i + 1 == N_PASSES;
    if (strcmp(stage, "rows") == 0
            ? last
            : strcmp(stage, "order") == 0 && strcmp(passes[i].name, stage) == 0) {
        dump_rows(cx);
    } else if (strcmp(stage, "plan") == 0
                   ? last
                   : strcmp(stage, passes[i].name) == 0 && cx->set->n_groups > 0) {
        for (uint32_t g = 0; g < cx->set->n_groups; g++)
            plan_dump(cx->set, g, o->dump, o->dump_ud);
    } else if (strcmp(stage, passes[i].name) == 0) {
        if (have_dag)
            dag_dump(cx->dag, o->dump, o->dump_ud);
        else
            ir_graph_dump(cx->program->graph, o->dump, o->dump_ud);
    }
}

static pps_status run_passes(pass_cx *cx)
{
    const pass_options *o = cx->options;
    if (o->dump_stage != NULL && strcmp(o->dump_stage, "graph") == 0)
        ir_graph_dump(cx->program->graph, o->dump, o->dump_ud);
    for (uint32_t i = 0; i < N_PASSES; i++) {
        PPS_TRY(passes[i].run(cx));
        arena_done(cx->phase);
        if (passes[i].run == pass_schedule)
            arena_done(cx->ordering);
        if (passes[i].run == pass_lower) {
            arena_done(cx->nodes);
            arena_spares_done(cx->spares);
        }
        if (o->ran != NULL)
            o->ran(o->ran_ud, passes[i].name);
        if (o->verify && cx->dag->n_runs > 0)
            PPS_TRY(dag_verify(cx->dag));
        if (o->dump_stage != NULL)
            dump_after(cx, o->dump_stage, i);
    }
    return PPS_OK;
}

/* Rows' texts, and what they cost with unit costs. */
static pps_status describe_rows(pass_cx *cx)
{
    plan_set *set = cx->set;
    ir_program rows = *cx->program;
    cost_rows cost = {0};
    PASS_ALLOC(set->row_text, cx->mem, set->n_groups);
    PASS_ALLOC(rows.rows, cx->scratch, set->n_groups);
    rows.st = NULL;
    rows.n_rows = set->n_groups;
    for (uint32_t g = 0; g < set->n_groups; g++) {
        const ir_row *row = &cx->program->rows[cx->group_row[g]];
        char *text = ir_row_text(cx->program, row);
        if (text == NULL)
            return PPS_ERR_NOMEM;
        set->row_text[g] = arena_copy(cx->mem, text, strlen(text));
        free(text);
        if (set->row_text[g] == NULL)
            return PPS_ERR_NOMEM;
        rows.rows[g] = *row;
    }
    set->bubble = set->makespan = NAN; /* rows that name more than stages have no unit costs */
    if (cost_simulate_rows(&rows, NULL, &cost) == PPS_OK) {
        set->bubble = cost.bubble;
        set->makespan = cost.makespan;
    }
    cost_rows_done(&cost);
    return PPS_OK;
}

static pps_status validate(const pass_cx *cx)
{
    char reason[256];
    pps_span span;
    pps_status status = plan_validate(cx->set, reason, &span);
    return status == PPS_ERR_SCRIPT ? pps_error(cx->st, span, 1106, "an internal error: %s", reason)
                                    : status;
}

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

pps_status pass_replace_graph(pass_cx *cx, ir_graph *graph, ir_id *loss_ops)
{
    ir_program *p;
    PASS_ALLOC(p, cx->scratch, 1);
    *p = *cx->program;
    p->graph = graph;
    p->train.loss_ops = loss_ops;
    PPS_TRY(ir_graph_cut(graph, loss_ops, p->train.n_loss_ops));
    cx->program = p;
    cx->dag->program = p;
    cx->dag->graph = graph;
    return PPS_OK;
}

pps_status pps_compile(pps_state *st, ir_program *p, const pass_options *options, plan_set **ret)
{
    static const pass_options defaults = {0};
    arena scratch, nodes, ordering, phase, *mem = malloc(sizeof *mem);
    double begin = now_ms();
    pps_status status = PPS_ERR_NOMEM;
    if (mem == NULL)
        return PPS_ERR_NOMEM;
    arena_spares spares = {0};
    arena *arenas[] = {mem, &scratch, &nodes, &ordering, &phase};
    enum { N_ARENAS = sizeof arenas / sizeof *arenas };
    for (int i = 0; i < N_ARENAS; i++) {
        arena_init(arenas[i], NULL, NULL);
        arena_recycle(arenas[i], &spares);
    }
    pass_cx cx = {.st = st,
                  .program = p,
                  .options = options != NULL ? options : &defaults,
                  .mem = mem,
                  .scratch = &scratch,
                  .nodes = &nodes,
                  .ordering = &ordering,
                  .phase = &phase,
                  .spares = &spares};
    cx.dag = arena_zero(&scratch, sizeof *cx.dag);
    cx.set = arena_zero(mem, sizeof *cx.set);
    if (cx.dag != NULL && cx.set != NULL) {
        cx.dag->mem = &scratch;
        cx.dag->node_mem = &nodes;
        cx.dag->program = p;
        cx.dag->graph = p->graph;
        cx.set->mem = mem;
        status = run_passes(&cx);
        if (status == PPS_OK)
            status = describe_rows(&cx);
        if (status == PPS_OK && cx.options->verify)
            status = validate(&cx);
    }
    for (int i = 1; i < N_ARENAS; i++)
        arena_done(arenas[i]);
    arena_spares_done(&spares);
    arena_recycle(mem, NULL);
    if (status != PPS_OK) {
        arena_done(mem);
        free(mem);
        return status;
    }
    cx.set->hidden = cx.exchanged > 0.0 ? 1.0 - cx.exposed / cx.exchanged : -1.0;
    cx.set->compile_ms = now_ms() - begin;
    *ret = cx.set;
    return PPS_OK;
}

void pps_plan_free(plan_set *set)
{
    plan_set_free(set);
}
