/* SPDX-License-Identifier: Apache-2.0
 *
 * lower.c: from the issue orders and the chunks' programs to one plan per device group.
 *
 *   1. parameters, optimizer state and data get their offsets
 *   2. every buffer that microbatches repeat is a family: its life for microbatch m is number base
 * + m
 *   3. a step per node: what it touches (lives), and what it waits for (clocks)
 *   4. memory.c places the lives; bindings become offsets
 *
 * Waits: a step needs to wait only for the latest of its predecessors on each other stream, and not
 * even for that if it, or what it already waits for, is known to come later. `clock` holds, per
 * step and stream, the last step known complete when the step starts.
 */
#include "passes/pass.h"

#include <stdio.h>
#include <string.h>

enum { ALIGN = 64 };

typedef enum link_family {         /* buffers along a link, in the order of dag.c's picture */
                           FX_SRC, /* forward, after the exchange at the producer */
                           F_RECV, /* received */
                           FX_DST, /* after the exchange at the consumer */
                           B_OWN,  /* gradient as the consumer makes it */
                           BX_DST, /* after the exchange at the consumer */
                           B_RECV, /* received */
                           BX_SRC, /* after the exchange at the producer */
                           LINK_FAMILIES
} link_family;

typedef struct family {
    uint64_t bytes;
    uint32_t base; /* first life */
    uint8_t what;  /* plan_block_kind */
} family;

typedef struct lower {
    pass_cx *cx;
    family *families;
    uint32_t *chunk_out;  /* [n_chunks] first family of its outputs */
    uint32_t *chunk_save; /* [n_chunks] SAVE_BI, SAVE_BW, HELD */
    uint32_t link_base;   /* families of link l: link_base + l * LINK_FAMILIES */
    uint32_t n_families;
    memory_life *lives;
    uint32_t n_lives, cap_lives;
    /* the plan being made */
    plan *plan;
    uint32_t *clock;     /* [n_steps][n_streams]: step + 1 */
    uint32_t *stream_at; /* [n_streams] latest step + 1 */
    uint32_t *need;      /* [n_streams] */
    uint32_t *touched;   /* lives of this group, by first touch */
    uint32_t n_touched;
    uint32_t *where;    /* [lives] number among those placed */
    uint32_t *live_ids; /* bindings as life numbers, until they are placed */
    uint32_t cap_bindings, cap_waits;
} lower;

static uint64_t aligned(uint64_t bytes)
{
    return (bytes + ALIGN - 1) & ~(uint64_t)(ALIGN - 1);
}

/* ---- buffers
 * ------------------------------------------------------------------------------------- */

static void add_family(lower *l, uint64_t bytes, uint8_t what)
{
    l->families[l->n_families++] =
        (family){.bytes = bytes, .base = l->n_lives, .what = what};
    l->n_lives += l->cx->dag->n_mb;
}

static pps_status make_families(lower *l)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t n = d->n_links * LINK_FAMILIES, n_compute = 0;
    for (uint32_t c = 0; c < g->n_chunks; c++)
        n += g->chunks[c].out.n + 3;
    PASS_ALLOC(l->families, cx->scratch, n);
    PASS_ALLOC(l->chunk_out, cx->scratch, g->n_chunks);
    PASS_ALLOC(l->chunk_save, cx->scratch, g->n_chunks);
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        l->chunk_out[c] = l->n_families;
        for (uint32_t k = 0; k < g->chunks[c].out.n; k++)
            add_family(l, pass_tensor_bytes(cx, g->lists[g->chunks[c].out.begin + k], c),
                       PLAN_BLOCK_ACT);
        l->chunk_save[c] = l->n_families;
        add_family(l, cx->chunks[c].save_bi_bytes, PLAN_BLOCK_SAVE);
        add_family(l, cx->chunks[c].save_bw_bytes, PLAN_BLOCK_HELD);
        add_family(l, cx->chunks[c].held_bytes, PLAN_BLOCK_HELD);
    }
    l->link_base = l->n_families;
    for (uint32_t i = 0; i < d->n_links; i++) {
        const dag_link *k = &d->links[i];
        uint64_t src = pass_tensor_bytes(cx, k->tensor, k->src);
        uint64_t dst = pass_tensor_bytes(cx, k->tensor, k->dst);
        bool at_src = k->exchange != DAG_NO_EXCHANGE && !k->exchange_at_dst;
        uint64_t wire = at_src ? dst : src; /* what a transfer between the exchanges carries */
        add_family(l, dst, PLAN_BLOCK_ACT);
        add_family(l, wire, PLAN_BLOCK_ACT);
        add_family(l, dst, PLAN_BLOCK_ACT);
        add_family(l, dst, PLAN_BLOCK_GRAD);
        add_family(l, src, PLAN_BLOCK_GRAD);
        add_family(l, wire, PLAN_BLOCK_GRAD);
        add_family(l, src, PLAN_BLOCK_GRAD);
    }
    for (uint32_t r = 0; r < d->n_runs; r++)
        n_compute += d->runs[r].kind == PLAN_COMPUTE ? d->runs[r].n : 0;
    l->cap_lives = l->n_lives + n_compute; /* and one work buffer per compute step */
    PASS_ALLOC(l->lives, cx->scratch, l->cap_lives);
    for (uint32_t f = 0; f < l->n_families; f++)
        for (uint32_t m = 0; m < d->n_mb; m++)
            l->lives[l->families[f].base + m] = (memory_life){
                .bytes = l->families[f].bytes, .first = IR_NONE, .what = l->families[f].what};
    return PPS_OK;
}

static uint32_t link_life(const lower *l, uint32_t link, link_family which, uint32_t mb)
{
    return l->families[l->link_base + link * LINK_FAMILIES + which].base + mb;
}

static bool crosses(const dag *d, const dag_link *k)
{
    return d->chunks[k->src].group != d->chunks[k->dst].group;
}

/* The value of a link before an exchange at its consumer, if any: what the producer's side hands
 * over. */
static uint32_t value_arrived(const lower *l, uint32_t link, uint32_t mb)
{
    const dag *d = l->cx->dag;
    const dag_link *k = &d->links[link];
    if (crosses(d, k))
        return link_life(l, k->carrier, F_RECV, mb);
    if (k->exchange != DAG_NO_EXCHANGE && !k->exchange_at_dst)
        return link_life(l, link, FX_SRC, mb);
    return l->families[l->chunk_out[k->src] + k->src_out].base + mb;
}

static uint32_t value_used(const lower *l, uint32_t link, uint32_t mb)
{
    const dag_link *k = &l->cx->dag->links[link];
    if (k->exchange != DAG_NO_EXCHANGE && k->exchange_at_dst)
        return link_life(l, link, FX_DST, mb);
    return value_arrived(l, link, mb);
}

/* The gradient of a link after an exchange at its consumer, before one at its producer. */
static uint32_t grad_leaving(const lower *l, uint32_t link, uint32_t mb)
{
    const dag_link *k = &l->cx->dag->links[link];
    bool at_dst = k->exchange != DAG_NO_EXCHANGE && k->exchange_at_dst;
    return link_life(l, link, at_dst ? BX_DST : B_OWN, mb);
}

static uint32_t grad_arrived(const lower *l, uint32_t link, uint32_t mb)
{
    const dag *d = l->cx->dag;
    return crosses(d, &d->links[link]) ? link_life(l, link, B_RECV, mb) : grad_leaving(l, link, mb);
}

static uint32_t grad_used(const lower *l, uint32_t link, uint32_t mb)
{
    const dag_link *k = &l->cx->dag->links[link];
    if (k->exchange != DAG_NO_EXCHANGE && !k->exchange_at_dst)
        return link_life(l, link, BX_SRC, mb);
    return grad_arrived(l, link, mb);
}

static uint32_t program_life(lower *l, const pass_bind *b, uint32_t chunk, uint32_t mb,
                             uint64_t work_bytes)
{
    const dag *d = l->cx->dag;
    switch ((pass_bind_kind)b->what) {
    case BIND_IN:
        return value_used(l, d->link_lists[d->chunks[chunk].in_links.begin + b->index], mb);
    case BIND_OUT:
        return l->families[l->chunk_out[chunk] + b->index].base + mb;
    case BIND_GRAD_IN:
        return grad_used(l, b->index, mb);
    case BIND_GRAD_OUT:
        return link_life(l, b->index, B_OWN, mb);
    case BIND_SAVE_BI:
        return l->families[l->chunk_save[chunk]].base + mb;
    case BIND_SAVE_BW:
        return l->families[l->chunk_save[chunk] + 1].base + mb;
    case BIND_HELD:
        return l->families[l->chunk_save[chunk] + 2].base + mb;
    case BIND_WORK:
        break;
    }
    l->lives[l->n_lives] =
        (memory_life){.bytes = work_bytes, .first = IR_NONE, .what = PLAN_BLOCK_WORK};
    return l->n_lives++;
}

/* ---- a step
 * -------------------------------------------------------------------------------------- */

static pps_status touch(lower *l, uint32_t life, uint32_t step)
{
    memory_life *m = &l->lives[life];
    plan *p = l->plan;
    if (p->n_bindings == l->cap_bindings) {
        uint32_t cap = l->cap_bindings * 2 + 1024;
        uint32_t *bigger = arena_new(l->cx->scratch, cap * sizeof *bigger);
        if (bigger == NULL)
            return PPS_ERR_NOMEM;
        if (p->n_bindings > 0)
            memcpy(bigger, l->live_ids, p->n_bindings * sizeof *bigger);
        l->live_ids = bigger;
        l->cap_bindings = cap;
    }
    l->live_ids[p->n_bindings++] = life;
    p->steps[step].n_bindings++;
    if (m->first == IR_NONE) {
        m->first = step;
        l->touched[l->n_touched++] = life;
    }
    m->last = step;
    for (uint32_t k = 0; k < m->n_access; k++)
        if (p->steps[m->access[k]].stream == p->steps[step].stream) {
            m->access[k] = step;
            return PPS_OK;
        }
    if (m->n_access == sizeof m->access / sizeof *m->access) {
        pps_error(l->cx->st, p->steps[step].span, 9903,
                  "a buffer is touched by more than %u streams", (unsigned)m->n_access);
        return PPS_ERR_INTERNAL;
    }
    m->access[m->n_access++] = step;
    return PPS_OK;
}

static void need(lower *l, uint32_t node)
{
    const plan_step *s = &l->plan->steps[l->cx->step[node]];
    if (l->need[s->stream] < l->cx->step[node] + 1)
        l->need[s->stream] = l->cx->step[node] + 1;
}

static void needs_of(lower *l, uint32_t v)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const dag_run *r = &d->runs[d->node_run[v]];
    for (uint32_t k = 0; k < r->preds.n; k++) {
        const dag_run *p = &d->runs[d->run_edges[r->preds.begin + k]];
        if (r->n == p->n) {
            if (dag_alive(d, p->first + (v - r->first)))
                need(l, p->first + (v - r->first));
        } else {
            for (uint32_t m = 0; m < p->n; m++)
                if (dag_alive(d, p->first + m))
                    need(l, p->first + m);
        }
    }
    if (r->kind == PLAN_RECV) {
        uint32_t jit = cx->jit[d->runs[r->pair].first + (v - r->first)];
        if (jit != IR_NONE)
            need(l, jit);
    }
    if (cx->n_extra > 0)
        for (uint32_t e = l->cx->extra_begin[v]; e < l->cx->extra_begin[v + 1]; e++)
            need(l, cx->extra_list[e]);
}

static pps_status set_waits(lower *l, uint32_t v, uint32_t step)
{
    plan *p = l->plan;
    plan_step *s = &p->steps[step];
    uint32_t n = l->cx->dag->n_streams, *clock = l->clock + (size_t)step * n;
    memset(l->need, 0, n * sizeof *l->need);
    needs_of(l, v);
    uint32_t before = l->stream_at[s->stream];
    if (before > 0) {
        memcpy(clock, l->clock + (size_t)(before - 1) * n, n * sizeof *clock);
        clock[s->stream] = before;
    }
    s->waits = p->n_waits;
    for (;;) { /* latest first: it is likeliest to bring the others along */
        uint32_t best = IR_NONE;
        for (uint32_t i = 0; i < n; i++)
            if (i != s->stream && l->need[i] > clock[i] &&
                (best == IR_NONE || l->need[i] > l->need[best]))
                best = i;
        if (best == IR_NONE)
            break;
        if (p->n_waits == l->cap_waits) {
            uint32_t cap = l->cap_waits * 2 + 1024;
            uint32_t *bigger = arena_new(l->cx->mem, cap * sizeof *bigger);
            if (bigger == NULL)
                return PPS_ERR_NOMEM;
            if (p->n_waits > 0)
                memcpy(bigger, p->waits, p->n_waits * sizeof *bigger);
            p->waits = bigger;
            l->cap_waits = cap;
        }
        uint32_t target = l->need[best] - 1;
        const uint32_t *theirs = l->clock + (size_t)target * n;
        p->waits[p->n_waits++] = target;
        s->n_waits++;
        for (uint32_t i = 0; i < n; i++)
            clock[i] = theirs[i] > clock[i] ? theirs[i] : clock[i];
        clock[best] = target + 1;
    }
    l->stream_at[s->stream] = step + 1;
    return PPS_OK;
}

static uint64_t row_bytes(const ir_graph *g, ir_id tensor)
{
    const ir_tensor *t = &g->tensors[tensor];
    return 4ull * t->dims[t->n_dims - 1];
}

static pps_status communication(lower *l, uint32_t v, uint32_t step)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    const dag_run *r = &d->runs[d->node_run[v]];
    const dag_link *k = &d->links[r->link];
    plan_step *s = &l->plan->steps[step];
    uint32_t mb = v - r->first, in = IR_NONE, out = IR_NONE;
    bool forward = r->pass == PPS_PASS_F;
    bool at_src = k->exchange != DAG_NO_EXCHANGE && !k->exchange_at_dst;
    s->pass = forward ? PPS_PASS_F : dag_split(d, k->src, mb) ? PPS_PASS_BI : PPS_PASS_B;
    if (r->kind == PLAN_SEND || r->kind == PLAN_RECV) {
        s->peer_group = d->runs[r->pair].group;
        if (forward)
            in = r->kind == PLAN_RECV ? link_life(l, r->link, F_RECV, mb)
                 : at_src             ? link_life(l, r->link, FX_SRC, mb)
                                      : l->families[l->chunk_out[k->src] + k->src_out].base + mb;
        else
            in = r->kind == PLAN_RECV ? link_life(l, r->link, B_RECV, mb)
                                      : grad_leaving(l, r->link, mb);
        s->bytes = pass_tensor_bytes(cx, k->tensor, at_src ? k->dst : k->src);
        return touch(l, in, step);
    }
    uint32_t sharded = k->exchange_at_dst ? k->dst : k->src;
    const ir_tensor *t = &g->tensors[k->tensor];
    if (k->exchange_at_dst) {
        in = forward ? value_arrived(l, r->link, mb) : link_life(l, r->link, B_OWN, mb);
        out = link_life(l, r->link, forward ? FX_DST : BX_DST, mb);
    } else {
        in = forward ? l->families[l->chunk_out[k->src] + k->src_out].base + mb
                     : grad_arrived(l, r->link, mb);
        out = link_life(l, r->link, forward ? FX_SRC : BX_SRC, mb);
    }
    PPS_TRY(touch(l, in, step));
    PPS_TRY(touch(l, out, step));
    s->bytes = l->lives[out].bytes;
    if (r->kind == PLAN_COUNTS) {
        s->experts = t->dims[0];
        return PPS_OK;
    }
    uint32_t counts = pass_counts_link(d, sharded, k->tensor);
    s->experts = g->tensors[d->links[counts].tensor].dims[0];
    s->width = (uint32_t)row_bytes(g, k->tensor);
    return touch(l, link_life(l, counts, FX_DST, mb), step);
}

static pps_status make_step(lower *l, uint32_t v, uint32_t step)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    const dag_run *r = &d->runs[d->node_run[v]];
    plan_step *s = &l->plan->steps[step];
    *s = (plan_step){.kind = r->kind,
                     .pass = r->pass,
                     .flags = r->flags,
                     .stream = r->stream,
                     .program = IR_NONE,
                     .chunk = r->chunk,
                     .mb = dag_mb(d, v),
                     .bindings = l->plan->n_bindings,
                     .seq = cx->seq[v],
                     .peer_group = IR_NONE,
                     .row_group = IR_NONE,
                     .span = r->span};
    PPS_TRY(set_waits(l, v, step));
    if (r->kind == PLAN_UPDATE || r->kind == PLAN_ALL_REDUCE) {
        s->chunk = d->buckets[r->chunk].first; /* replaced by the bucket's number in its plan */
        return PPS_OK;
    }
    if (r->kind != PLAN_COMPUTE)
        return communication(l, v, step);
    pps_pass pass = dag_pass(d, v);
    const pass_chunk *c = &cx->chunks[r->chunk];
    const pass_program *program = &c->programs[pass];
    s->pass = (uint8_t)pass;
    s->program = program->id;
    s->row_group = cx->node_slot[v];
    if (cx->node_overlap[v])
        s->flags |= PLAN_STEP_OVERLAP;
    s->loss = s->mb * cx->n_loss_step + c->loss_first;
    uint32_t entry = cx->node_entry[v];
    if (entry != IR_NONE) {
        pps_span span = pps_origin_span(cx->st, cx->program->entries[entry].origin);
        if (span.file != 0)
            s->span = span;
    }
    for (uint32_t i = 0; i < program->binds.n; i++)
        PPS_TRY(touch(l,
                      program_life(l, &cx->binds[program->binds.begin + i], r->chunk, s->mb,
                                   program->work_bytes),
                      step));
    return PPS_OK;
}

/* ---- a plan
 * ----------------------------------------------------------------------------------------- */

static pps_status place_params(lower *l, uint32_t group)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    plan_set *set = cx->set;
    plan *p = l->plan;
    uint64_t at = 0;
    for (uint32_t b = 0; b < d->n_buckets; b++)
        if (d->buckets[b].group == group) {
            p->n_buckets++;
            p->n_params += d->buckets[b].n;
        }
    PASS_ALLOC(p->buckets, cx->mem, p->n_buckets);
    PASS_ALLOC(p->params, cx->mem, p->n_params);
    p->n_buckets = p->n_params = 0;
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        const dag_bucket *k = &d->buckets[b];
        if (k->group != group)
            continue;
        plan_bucket *to = &p->buckets[p->n_buckets];
        *to = (plan_bucket){.first = p->n_params, .n = k->n, .offset = at, .reduced = k->reduced};
        for (uint32_t i = 0; i < k->n; i++) {
            uint32_t q = d->bucket_params[k->first + i];
            uint32_t shards = cx->param_shards[q];
            uint64_t elems = ir_param_elems(&set->params[q]) / shards;
            p->params[p->n_params++] =
                (plan_param){.param = q, .shards = shards, .offset = at, .elems = elems};
            at += aligned(elems * 4);
        }
        to->bytes = at - to->offset;
        cx->bucket_index[b] = p->n_buckets++;
    }
    uint32_t states = cx->program->train.optimizer.kind == IR_OPT_ADAMW ? 2
                      : cx->program->train.optimizer.momentum != 0.0f   ? 1
                                                                        : 0;
    p->param_bytes = at;
    p->grad_offset = at;
    p->opt_offset = 2 * at;
    p->opt_bytes = states * at;
    p->data_offset = p->opt_offset + p->opt_bytes;
    uint64_t data = 0;
    for (uint32_t k = 0; k < set->n_data; k++) {
        set->data[k].offset = data;
        data += aligned(4ull * set->data[k].row_elems * cx->local_rows[group] * set->n_mb);
    }
    p->data_bytes = data;
    p->act_offset = p->data_offset + data;
    return PPS_OK;
}

static pps_status lower_group(lower *l, uint32_t group)
{
    pass_cx *cx = l->cx;
    const dag *d = cx->dag;
    plan_set *set = cx->set;
    plan *p = l->plan = &set->plans[group];
    ir_range issue = cx->group_issue[group];
    *p = (plan){.group = group,
                .n_ranks = d->groups[group].n_ranks,
                .ranks = d->groups[group].ranks,
                .n_steps = issue.n};
    l->n_touched = 0;
    l->cap_bindings = l->cap_waits = 0;
    l->live_ids = NULL;
    PASS_ALLOC(p->steps, cx->mem, issue.n);
    PASS_ALLOC(l->clock, cx->scratch, (size_t)issue.n * d->n_streams);
    PASS_ALLOC(l->stream_at, cx->scratch, d->n_streams);
    PASS_ALLOC(l->need, cx->scratch, d->n_streams);
    PPS_TRY(place_params(l, group));
    for (uint32_t i = 0; i < issue.n; i++) {
        uint32_t v = cx->issue[issue.begin + i];
        PPS_TRY(make_step(l, v, i));
        plan_step *s = &p->steps[i];
        if (s->kind == PLAN_UPDATE || s->kind == PLAN_ALL_REDUCE) {
            s->chunk = cx->bucket_index[d->runs[d->node_run[v]].chunk];
            s->bytes = s->kind == PLAN_ALL_REDUCE ? p->buckets[s->chunk].bytes : 0;
        }
        if (s->kind == PLAN_ALL_TO_ALL)
            p->dropless = true;
    }
    /* place the lives, in order of first touch (which is step order) */
    memory_life *lives;
    uint32_t *where = l->where, n = 0;
    PASS_ALLOC(lives, cx->scratch, l->n_touched);
    for (uint32_t i = 0; i < l->n_touched; i++)
        if (l->lives[l->touched[i]].bytes > 0) {
            where[l->touched[i]] = n;
            lives[n++] = l->lives[l->touched[i]];
        }
    PPS_TRY(memory_place(cx->scratch, lives, n, p->steps, p->n_steps, l->clock, d->n_streams,
                         &p->act_bytes, &p->max_live_bytes));
    PASS_ALLOC(p->bindings, cx->mem, p->n_bindings);
    for (uint32_t i = 0; i < p->n_bindings; i++)
        p->bindings[i] =
            l->lives[l->live_ids[i]].bytes > 0 ? lives[where[l->live_ids[i]]].offset : 0;
    PASS_ALLOC(p->blocks, cx->mem, n);
    p->n_blocks = n;
    for (uint32_t i = 0; i < n; i++)
        p->blocks[i] = (plan_block){.offset = lives[i].offset,
                                    .bytes = lives[i].bytes,
                                    .first = lives[i].first,
                                    .last = lives[i].last,
                                    .what = lives[i].what};
    p->total_bytes = p->act_offset + p->act_bytes;
    return PPS_OK;
}

/* ---- tables of the set
 * -------------------------------------------------------------------------------- */

static pps_status copy_text(arena *mem, const char *text, const char **ret)
{
    *ret = arena_copy(mem, text, strlen(text));
    return *ret == NULL ? PPS_ERR_NOMEM : PPS_OK;
}

static pps_status name_chunks(pass_cx *cx)
{
    plan_set *set = cx->set;
    const ir_graph *g = cx->program->graph;
    uint32_t *seen; /* chunks so far with this tagset */
    PASS_ALLOC(set->chunk_names, cx->mem, g->n_chunks);
    PASS_ALLOC(set->chunk_stage, cx->mem, g->n_chunks);
    PASS_ALLOC(seen, cx->scratch, g->n_tagsets);
    set->n_chunks = g->n_chunks;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        const ir_tagset *tags = &g->tagsets[g->chunks[c].tagset];
        char name[160] = "";
        size_t at = 0;
        uint32_t stage = dag_stage(g, c), times = ++seen[g->chunks[c].tagset];
        if (stage != IR_NONE)
            at = (size_t)snprintf(name, sizeof name, "PP%u", stage);
        for (uint32_t i = 0; i < tags->n && at < sizeof name; i++) {
            const ir_tag *t = &g->tags[tags->begin + i];
            if (strcmp(t->name, "PP") != 0)
                at += (size_t)snprintf(name + at, sizeof name - at, "%s%s%u", at > 0 ? "." : "",
                                       t->name, t->index);
        }
        if (at == 0)
            at = (size_t)snprintf(name, sizeof name, "model");
        if (times > 1 && at < sizeof name)
            snprintf(name + at, sizeof name - at, "#%u", times);
        PPS_TRY(copy_text(cx->mem, name, &set->chunk_names[c]));
        set->chunk_stage[c] = stage == IR_NONE ? c : stage;
    }
    return PPS_OK;
}

static pps_status fill_set(pass_cx *cx)
{
    plan_set *set = cx->set;
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    set->n_groups = d->n_groups;
    set->n_ranks = d->n_ranks;
    set->n_mb = d->n_mb;
    set->train = p->train;
    set->n_nodes = d->n_alive;
    set->n_edges = d->n_node_edges > UINT32_MAX ? UINT32_MAX : (uint32_t)d->n_node_edges;
    PASS_ALLOC(set->plans, cx->mem, d->n_groups);
    PASS_ALLOC(set->group_ranks, cx->mem, d->n_ranks);
    PASS_ALLOC(set->rank_group, cx->mem, d->n_ranks);
    PASS_ALLOC(set->rank_index, cx->mem, d->n_ranks);
    for (uint32_t i = 0; i < d->n_groups; i++)
        for (uint32_t k = 0; k < d->groups[i].n_ranks; k++) {
            uint32_t rank = d->group_ranks[d->groups[i].ranks + k];
            set->group_ranks[d->groups[i].ranks + k] = rank;
            set->rank_group[rank] = i;
            set->rank_index[rank] = k;
        }
    set->n_params = g->n_params;
    PASS_ALLOC(set->params, cx->mem, g->n_params);
    for (uint32_t i = 0; i < g->n_params; i++) {
        set->params[i] = g->params[i];
        PPS_TRY(copy_text(cx->mem, g->params[i].name, &set->params[i].name));
    }
    set->n_data = g->n_data;
    PASS_ALLOC(set->data, cx->mem, g->n_data);
    for (uint32_t k = 0; k < g->n_data; k++) {
        uint32_t elems = 1;
        for (uint32_t i = 1; i < g->data[k].n_dims; i++)
            elems *= g->data[k].dims[i];
        set->data[k] =
            (plan_data){.kind = g->data[k].kind, .key = g->data[k].key, .row_elems = elems};
        set->batch = g->data[k].dims[0];
        set->T = g->data[k].n_dims > 1 ? g->data[k].dims[1] : 1;
    }
    set->n_losses = d->n_mb * cx->n_loss_step;
    PASS_ALLOC(set->losses, cx->mem, set->n_losses);
    for (uint32_t m = 0, at = 0; m < d->n_mb; m++)
        for (uint32_t c = 0; c < g->n_chunks; c++)
            for (uint32_t i = 0; i < g->chunks[c].ops.n; i++) {
                const ir_op *op = &g->ops[g->lists[g->chunks[c].ops.begin + i]];
                if (op->kind == IR_ROUTER || op->kind == IR_CROSS_ENTROPY || op->kind == IR_MSE)
                    set->losses[at++] =
                        (plan_loss_slot){.group = d->chunks[c].group, .aux = op->kind == IR_ROUTER};
            }
    PASS_ALLOC(set->streams, cx->mem, d->n_streams);
    set->n_streams = d->n_streams;
    for (uint32_t i = 0; i < d->n_streams; i++)
        PPS_TRY(copy_text(cx->mem, d->streams[i], &set->streams[i]));
    return name_chunks(cx);
}

/* How many ranks share each parameter: experts of sharded regions, 1 for the rest. */
static pps_status find_shards(pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    PASS_ALLOC(cx->param_shards, cx->scratch, g->n_params);
    PASS_ALLOC(cx->bucket_index, cx->scratch, d->n_buckets);
    for (uint32_t i = 0; i < g->n_params; i++)
        cx->param_shards[i] = 1;
    for (uint32_t c = 0; c < g->n_chunks; c++)
        if (d->chunks[c].ep > 1)
            for (uint32_t i = 0; i < g->chunks[c].params.n; i++) {
                uint32_t q = g->lists[g->chunks[c].params.begin + i];
                if (g->params[q].flags & IR_PARAM_EXPERT)
                    cx->param_shards[q] = d->chunks[c].ep;
            }
    return PPS_OK;
}

pps_status pass_lower(pass_cx *cx)
{
    lower l = {.cx = cx};
    PPS_TRY(fill_set(cx));
    PPS_TRY(find_shards(cx));
    PPS_TRY(make_families(&l));
    PASS_ALLOC(l.touched, cx->scratch, l.cap_lives);
    PASS_ALLOC(l.where, cx->scratch, l.cap_lives);
    for (uint32_t g = 0; g < cx->dag->n_groups; g++)
        PPS_TRY(lower_group(&l, g));
    return PPS_OK;
}
