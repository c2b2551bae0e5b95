/* SPDX-License-Identifier: Apache-2.0
 *
 * dag.c: building, sealing and checking the training DAG. What the nodes mean is for the passes
 * that add them; its text form is dag_text.c's and dag_read.c's.
 */
#include "ir/dag.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *name;
    uint8_t forward, backward;
} border_table[IR_BORDER_COUNT] = {
    [IR_NO_BORDER] = {"none", PLAN_NONE, PLAN_NONE},
#define BORDER(name, text, forward, backward) \
    [IR_BORDER_##name] = {text, PLAN_##forward, PLAN_##backward},
#include "ir/borders.def"
#undef BORDER
};

const char *dag_border_name(ir_border border)
{
    return border_table[border].name;
}

unsigned dag_border_step(ir_border border, pps_pass pass)
{
    return pass == PPS_PASS_F ? border_table[border].forward : border_table[border].backward;
}

dag_end dag_end_of(const dag *d, uint32_t run)
{
    const dag_link *k = &d->links[d->runs[run].link];
    return k->f_border[DAG_DST] == run || k->b_border[DAG_DST] == run || k->b_again == run
               ? DAG_DST
               : DAG_SRC;
}

uint32_t dag_stage(const ir_graph *g, uint32_t chunk)
{
    const ir_tagset *set = &g->tagsets[g->chunks[chunk].tagset];
    for (uint32_t i = 0; i < set->n; i++)
        if (strcmp(g->tags[set->begin + i].name, "PP") == 0)
            return g->tags[set->begin + i].index;
    return IR_NONE;
}

bool dag_carries(const ir_graph *g, uint32_t chunk)
{
    ir_range ops = g->chunks[chunk].ops;
    for (uint32_t i = 0; i < ops.n; i++)
        if (g->ops[g->lists[ops.begin + i]].kind == IR_ATTENTION)
            return true;
    return false;
}

static int label_op(const dag *d, uint32_t chunk, pps_pass pass, uint32_t mb, char *buffer,
                    size_t n)
{
    static const char *const names[] = {"F", "B", "BI", "BW"};
    const ir_tagset *set = &d->graph->tagsets[d->graph->chunks[chunk].tagset];
    uint32_t stage = dag_stage(d->graph, chunk);
    uint32_t of = mb / d->n_slices;
    int k = stage == IR_NONE ? snprintf(buffer, n, "%s(%u", names[pass], of)
                             : snprintf(buffer, n, "%s(%u, %u", names[pass], stage, of);
    if (d->slice_tag != NULL && k >= 0 && (size_t)k < n)
        k += snprintf(buffer + k, n - (size_t)k, ", %s=%u", d->slice_tag, mb % d->n_slices);
    for (uint32_t i = 0; i < set->n; i++) {
        const ir_tag *tag = &d->graph->tags[set->begin + i];
        if (strcmp(tag->name, "PP") != 0 && k >= 0 && (size_t)k < n)
            k += snprintf(buffer + k, n - (size_t)k, ", %s=%u", tag->name, tag->index);
    }
    if (k >= 0 && (size_t)k < n)
        k += snprintf(buffer + k, n - (size_t)k, ")");
    return k;
}

int dag_label(const dag *d, uint32_t node, char *buffer, size_t n)
{
    const dag_run *r = &d->runs[d->node_run[node]];
    char op[96] = "";
    if (dag_of_bucket(r) && r->n > 1)
        return snprintf(buffer, n, "%s(bucket %u, %u)", plan_step_name(r->kind), r->chunk,
                        node - r->first);
    if (dag_of_bucket(r))
        return snprintf(buffer, n, "%s(bucket %u)", plan_step_name(r->kind), r->chunk);
    if (plan_is(r->kind, PLAN_COPY)) {
        label_op(d, r->chunk, (pps_pass)r->pass, node - r->first, op, sizeof op);
        return snprintf(buffer, n, "%s(%s)", plan_step_name(r->kind), op);
    }
    uint32_t chunk = r->kind == PLAN_COMPUTE ? r->chunk
                     : r->kind == PLAN_RECV
                         ? (r->pass == PPS_PASS_F ? d->links[r->link].dst : d->links[r->link].src)
                         : (r->pass == PPS_PASS_F ? d->links[r->link].src : d->links[r->link].dst);
    pps_pass pass = r->kind == PLAN_COMPUTE                ? dag_pass(d, node)
                    : r->pass == PPS_PASS_F                ? PPS_PASS_F
                    : dag_split(d, chunk, node - r->first) ? PPS_PASS_BI
                                                           : PPS_PASS_B;
    label_op(d, chunk, pass, dag_mb(d, node), op, sizeof op);
    if (r->kind == PLAN_COMPUTE)
        return snprintf(buffer, n, "%s", op);
    return snprintf(buffer, n, "%s(%s)", plan_step_name(r->kind), op);
}

static pps_status grow(arena *mem, void **array, uint32_t *cap, uint32_t n, size_t item)
{
    if (n < *cap)
        return PPS_OK;
    uint32_t wanted = *cap == 0 ? 64 : *cap * 2;
    void *bigger = arena_new(mem, wanted * item);
    if (bigger == NULL)
        return PPS_ERR_NOMEM;
    if (n > 0)
        memcpy(bigger, *array, n * item);
    *array = bigger;
    *cap = wanted;
    return PPS_OK;
}

pps_status dag_add_run(dag *d, dag_run run, uint32_t *ret)
{
    PPS_TRY(grow(d->mem, (void **)&d->runs, &d->cap_runs, d->n_runs, sizeof *d->runs));
    if (!dag_of_bucket(&run))
        run.n = dag_n_mb(d, run.chunk);
    else if (run.n == 0)
        run.n = 1;
    run.lead = d->n_runs;
    run.next = IR_NONE;
    *ret = d->n_runs;
    d->runs[d->n_runs++] = run;
    return PPS_OK;
}

void dag_join(dag *d, uint32_t lead, uint32_t run)
{
    uint32_t last = lead;
    while (d->runs[last].next != IR_NONE)
        last = d->runs[last].next;
    d->runs[last].next = run;
    d->runs[run].lead = lead;
}

pps_status dag_one_class(dag *d)
{
    ir_range *classes = arena_new(d->mem, sizeof *classes);
    uint32_t *mbs = arena_new(d->mem, d->n_mb * sizeof *mbs);
    uint32_t *zeros = arena_zero(d->mem, d->n_mb * sizeof *zeros);
    if (classes == NULL || mbs == NULL || zeros == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t m = 0; m < d->n_mb; m++)
        mbs[m] = m;
    classes[0] = (ir_range){0, d->n_mb};
    d->classes = classes;
    d->n_classes = 1;
    d->n_model_chunks = d->graph->n_chunks;
    d->class_mbs = d->mb_index = mbs;
    d->mb_class = zeros;
    return PPS_OK;
}

pps_status dag_add_edge(dag *d, uint32_t src_run, uint32_t dst_run)
{
    uint32_t cap = d->cap_edges;
    PPS_TRY(grow(d->mem, (void **)&d->run_src, &cap, d->n_edges, sizeof *d->run_src));
    PPS_TRY(grow(d->mem, (void **)&d->run_dst, &d->cap_edges, d->n_edges, sizeof *d->run_dst));
    d->run_src[d->n_edges] = src_run;
    d->run_dst[d->n_edges++] = dst_run;
    return PPS_OK;
}

/* Microbatches of which both runs have nodes that are alive. */
static uint32_t alive_in_both(const dag *d, const dag_run *a, const dag_run *b)
{
    const dag_run *ends[2] = {a, b};
    uint32_t n = 0;
    bool all = true;
    for (int i = 0; i < 2; i++)
        all &= dag_all_alive(ends[i]);
    if (all)
        return a->n;
    for (uint32_t m = 0; m < a->n; m++)
        n += dag_run_alive(d, a, m) && dag_run_alive(d, b, m);
    return n;
}

void dag_count(dag *d)
{
    d->n_alive = 0;
    d->n_node_edges = 0;
    for (uint32_t i = 0; i < d->n_runs; i++)
        d->n_alive += alive_in_both(d, &d->runs[i], &d->runs[i]);
    for (uint32_t e = 0; e < d->n_edges; e++) { /* what many lead to is always alive */
        const dag_run *src = &d->runs[d->run_src[e]], *dst = &d->runs[d->run_dst[e]];
        d->n_node_edges += alive_in_both(d, src, dst->n == src->n ? dst : src);
    }
    for (uint32_t i = 0; i < d->n_runs; i++) /* one less than slices, per microbatch */
        if (d->runs[i].carried)
            d->n_node_edges += d->runs[i].n - d->runs[i].n / d->n_slices;
}

pps_status dag_seal(dag *d)
{
    /* node numbers */
    uint64_t nodes = 0;
    for (uint32_t i = 0; i < d->n_runs; i++) {
        d->runs[i].first = (uint32_t)nodes;
        nodes += d->runs[i].n;
    }
    if (nodes >= IR_NONE)
        return PPS_ERR_LIMIT;
    d->n_nodes = (uint32_t)nodes;
    d->node_run = arena_new(d->node_mem, (nodes + 1) * sizeof *d->node_run);
    d->run_edges = arena_new(d->mem, (2 * (size_t)d->n_edges + 1) * sizeof *d->run_edges);
    if (d->node_run == NULL || d->run_edges == NULL)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < d->n_runs; i++)
        for (uint32_t m = 0; m < d->runs[i].n; m++)
            d->node_run[d->runs[i].first + m] = i;

    /* neighbour lists, each sorted by the order in which edges were added */
    for (uint32_t i = 0; i < d->n_runs; i++)
        d->runs[i].preds.n = d->runs[i].succs.n = 0;
    for (uint32_t e = 0; e < d->n_edges; e++) {
        d->runs[d->run_src[e]].succs.n++;
        d->runs[d->run_dst[e]].preds.n++;
    }
    uint32_t at = 0;
    for (uint32_t i = 0; i < d->n_runs; i++) {
        d->runs[i].preds.begin = at;
        at += d->runs[i].preds.n;
        d->runs[i].succs.begin = at;
        at += d->runs[i].succs.n;
        d->runs[i].preds.n = d->runs[i].succs.n = 0;
    }
    for (uint32_t e = 0; e < d->n_edges; e++) {
        dag_run *src = &d->runs[d->run_src[e]], *dst = &d->runs[d->run_dst[e]];
        d->run_edges[src->succs.begin + src->succs.n++] = d->run_dst[e];
        d->run_edges[dst->preds.begin + dst->preds.n++] = d->run_src[e];
    }
    dag_count(d);
    return PPS_OK;
}

pps_status dag_verify(const dag *d)
{
    pps_span none = {0};
#define CHECK(condition, ...)                                                        \
    do {                                                                             \
        if (!(condition)) {                                                          \
            if (d->program != NULL)                                                  \
                pps_error(d->program->st, none, 9901, "training DAG: " __VA_ARGS__); \
            return PPS_ERR_INTERNAL;                                                 \
        }                                                                            \
    } while (0)
    uint32_t next = 0;
    CHECK(d->n_slices > 0 && d->n_mb % d->n_slices == 0, "%u units of %u slices", d->n_mb,
          d->n_slices);
    for (uint32_t i = 0; i < d->n_runs; i++) {
        const dag_run *r = &d->runs[i];
        CHECK(r->first == next, "run %u begins at node %u, not %u", i, r->first, next);
        next += r->n;
        CHECK(dag_of_bucket(r) ? r->n > 0 : r->n == dag_n_mb(d, r->chunk), "run %u has %u nodes", i,
              r->n);
        CHECK(r->kind < PLAN_STEP_KIND_COUNT, "run %u has kind %u", i, r->kind);
        CHECK(!r->carried || (r->kind == PLAN_COMPUTE && r->pass != PPS_PASS_BW && d->n_slices > 1),
              "run %u carries nothing from slice to slice", i);
        CHECK(r->group < d->n_groups, "run %u is on group %u", i, r->group);
        CHECK(r->stream < d->n_streams, "run %u is on stream %u", i, r->stream);
        if (r->kind == PLAN_SEND || r->kind == PLAN_RECV) {
            CHECK(r->pair < d->n_runs && d->runs[r->pair].pair == i, "run %u has no pair", i);
            CHECK(d->runs[r->pair].group != r->group, "run %u sends to its own group", i);
            CHECK(r->lead == (r->kind == PLAN_SEND ? i : r->pair), "run %u and its pair are two",
                  i);
        }
        CHECK(d->runs[r->lead].lead == r->lead && d->runs[r->lead].n == r->n, "run %u's lead", i);
        for (uint32_t k = 0; k < r->preds.n; k++) {
            const dag_run *p = &d->runs[d->run_edges[r->preds.begin + k]];
            CHECK(p->n == r->n || r->n == 1, "edge into run %u from one per step", i);
            CHECK(p->group == r->group, "edge into run %u crosses groups without a transfer", i);
        }
    }
    CHECK(next == d->n_nodes, "%u nodes numbered, %u counted", next, d->n_nodes);
    for (uint32_t l = 0; l < d->n_links; l++) {
        const dag_link *k = &d->links[l];
        CHECK(k->src < d->graph->n_chunks && k->dst < d->graph->n_chunks && k->src < k->dst,
              "link %u joins chunks %u and %u", l, k->src, k->dst);
        CHECK(k->carrier <= l && d->links[k->carrier].wire == k->wire, "link %u's carrier", l);
        for (pps_pass pass = PPS_PASS_F; pass <= PPS_PASS_B; pass++) {
            unsigned step = dag_border_step((ir_border)k->border[DAG_SRC], pass);
            CHECK(step == PLAN_NONE || step != dag_border_step((ir_border)k->border[DAG_DST], pass),
                  "link %u has the same step at both ends", l);
        }
    }
#undef CHECK
    return PPS_OK;
}
