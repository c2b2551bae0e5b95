/* SPDX-License-Identifier: Apache-2.0
 *
 * buckets.c: parameters into buckets, each reduced (where its replicas hold copies) and updated
 * once per step, after the last microbatch.
 *
 * A bucket holds parameters of one group, one `replicate` and one way of being stored, in the order
 * in which a backward pass finishes them (last chunk first), cut where `bucket` says. From zero 2
 * on a bucket is of one stage, since it comes and goes with the stage's turns.
 *
 * A parameter that regions on several groups use (tied embeddings; a stage on two groups) is stored
 * and updated by each of them. Its buckets, one per group, are reduced in one operation over the
 * ranks of all.
 *
 * Under `zero` the bytes are padded so that slices are equal and aligned. Parameters that are
 * shared out already (experts of a sharded region) have one owner each: their buckets stay as they
 * are.
 */
#include "passes/pass.h"

#include <string.h>

typedef struct open_bucket {
    uint32_t param; /* one of those it has */
    uint32_t directive;
    uint32_t stage; /* zero 2, 3; else IR_NONE */
    uint32_t teams;
    bool cut, spread;
    uint32_t bucket;
    uint64_t bytes; /* of parameters, without gaps */
} open_bucket;

static uint64_t round_up(uint64_t n, uint64_t unit)
{
    return (n + unit - 1) / unit * unit;
}

/* Streams and windows of a bucket, as its directive says. */
static pps_status configure(pass_cx *cx, dag_bucket *k)
{
    if (!k->reduced)
        return PPS_OK;
    if (k->directive == IR_NONE) /* shared by groups of one rank */
        return pass_stream(cx, IR_NONE, "reduce", &k->reduce_stream);
    const ir_directive *s = &cx->program->directives[k->directive];
    bool replicates = cx->program->kinds[k->directive] == PPS_DIR_REPLICATE;
    PPS_TRY(pass_stream(cx, s->stream, replicates ? "reduce" : "tensor", &k->reduce_stream));
    k->zero = (uint8_t)s->zero;
    k->every = (s->every > 0 ? s->every : 1) * cx->dag->n_slices; /* microbatches as units */
    if (k->zero == 0)
        return PPS_OK;
    k->bytes = round_up(k->bytes, (uint64_t)PLAN_ALIGN * cx->set->teams[k->teams].size);
    /* gathers ahead of computes would queue behind the reductions on one stream */
    if (s->gather != IR_NONE || k->zero == 3)
        return pass_stream(cx, s->gather, "gather", &k->gather_stream);
    k->gather_stream = k->reduce_stream;
    return PPS_OK;
}

/* What happens to a bucket once per step: an optimizer step, after the reduction of its gradients,
 * before the gathering of what it made. Windows are the zero pass's. */
static pps_status bucket_runs(pass_cx *cx, uint32_t b)
{
    dag *d = cx->dag;
    const ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    dag_bucket *k = &d->buckets[b];
    dag_run run = {.kind = PLAN_UPDATE,
                   .pass = PPS_PASS_BW,
                   .group = (uint16_t)k->group,
                   .chunk = b,
                   .link = IR_NONE,
                   .teams = k->teams,
                   .pair = IR_NONE,
                   .span = p->train.source->span};
    PPS_TRY(dag_add_run(d, run, &k->update));
    k->reduce = k->gather = k->clear = IR_NONE;
    uint32_t sink = k->update;
    if (k->reduced && k->directive != IR_NONE)
        run.span = p->directives[k->directive].source->span;
    if (k->reduced && k->zero < 2) {
        run.kind = k->zero == 0 ? PLAN_ALL_REDUCE : PLAN_REDUCE_SCATTER;
        run.stream = k->reduce_stream;
        PPS_TRY(dag_add_run(d, run, &k->reduce));
        if (k->lead != b)
            dag_join(d, d->buckets[k->lead].reduce, k->reduce);
        PPS_TRY(dag_add_edge(d, k->reduce, k->update));
        sink = k->reduce;
    }
    if (k->zero == 1 || k->zero == 2) {
        run.kind = PLAN_ALL_GATHER;
        run.stream = k->gather_stream;
        PPS_TRY(dag_add_run(d, run, &k->gather));
        if (k->lead != b)
            dag_join(d, d->buckets[k->lead].gather, k->gather);
        PPS_TRY(dag_add_edge(d, k->update, k->gather));
    }
    if (k->zero >= 2)
        return PPS_OK; /* its gradients reach the update through reductions of windows */
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        bool uses = false;
        if (d->chunks[c].group == k->group && d->chunks[c].w != IR_NONE)
            for (uint32_t i = 0; i < g->chunks[c].params.n; i++)
                uses |= dag_bucket_of(d, g->lists[g->chunks[c].params.begin + i], k->group) == b;
        if (uses) {
            PPS_TRY(dag_add_edge(d, d->chunks[c].b, sink));
            PPS_TRY(dag_add_edge(d, d->chunks[c].w, sink));
        }
    }
    return PPS_OK;
}

/* A `zero` that found nothing but parameters with one owner each. */
static pps_status check_effect(pass_cx *cx)
{
    const dag *d = cx->dag;
    const ir_program *p = cx->program;
    bool *shards, *sums; /* by directive */
    uint32_t *team;      /* by directive: the tensor directive that makes its devices one, + 1 */
    PASS_ALLOC(shards, cx->scratch, p->n_directives);
    PASS_ALLOC(sums, cx->scratch, p->n_directives);
    PASS_ALLOC(team, cx->scratch, p->n_directives);
    for (uint32_t c = 0; c < p->graph->n_chunks; c++)
        for (uint32_t i = 0; d->chunks[c].replicate != IR_NONE && i < p->graph->chunks[c].params.n;
             i++) {
            uint32_t q = p->graph->lists[p->graph->chunks[c].params.begin + i];
            const dag_bucket *k = &d->buckets[dag_bucket_of(d, q, d->chunks[c].group)];
            uint32_t tensor = d->groups[k->group].tensor;
            shards[d->chunks[c].replicate] |= k->zero > 0;
            sums[d->chunks[c].replicate] |= k->reduced;
            if (tensor != IR_NONE && cx->set->teams[tensor].size == d->groups[k->group].n_ranks)
                team[d->chunks[c].replicate] = cx->group_tensor[k->group] + 1;
        }
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_directive *s = &p->directives[i];
        char text[256];
        if (p->kinds[i] != PPS_DIR_REPLICATE)
            continue;
        if (team[i] > 0 && !sums[i]) {
            pps_diag *diag = pass_diag(cx, s, s->source->span, 410,
                                       "replicate has no effect: its devices are one tensor team, "
                                       "which is one replica");
            pps_diag_also(diag, p->directives[team[i] - 1].devices.span, "the team");
            return pps_diag_done(diag);
        }
        if (s->zero == 0 || shards[i])
            continue;
        const pps_clause *c = pps_directive_clause(s->source, "zero");
        pps_diag *diag = pass_diag(cx, s, c != NULL ? c->word_span : s->source->span, 410,
                                   "`zero %u` has no effect: it has nothing of %s to share out",
                                   s->zero, pass_filter_text(cx, &s->filter, text, sizeof text));
        pps_diag_note(diag, "each of its parameters is an expert's, and has one owner already");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

/* ---- parameters into buckets ------------------------------------------------------------------
 */

typedef struct packing {
    pass_cx *cx;
    ir_range *owners; /* [n_params] groups that use it, in owner_groups, ascending */
    uint32_t *owner_groups, *owner_chunks; /* the group; the first chunk there that uses it */
    open_bucket *open;
    uint32_t n_open;
} packing;

static pps_status find_owners(packing *w)
{
    const dag *d = w->cx->dag;
    const ir_graph *g = w->cx->program->graph;
    uint32_t *seen, n = 0; /* seen: [n_params] latest group counted, + 1 */
    PASS_ALLOC(w->owners, w->cx->scratch, g->n_params);
    PASS_ALLOC(seen, w->cx->scratch, g->n_params);
    for (int fill = 0; fill < 2; fill++) {
        memset(seen, 0, g->n_params * sizeof *seen);
        for (uint32_t group = 0; group < d->n_groups; group++)
            for (uint32_t c = 0; c < g->n_chunks; c++)
                for (uint32_t i = 0; d->chunks[c].group == group && i < g->chunks[c].params.n;
                     i++) {
                    uint32_t q = g->lists[g->chunks[c].params.begin + i];
                    if (seen[q] == group + 1)
                        continue;
                    seen[q] = group + 1;
                    if (fill) {
                        w->owner_groups[w->owners[q].begin + w->owners[q].n] = group;
                        w->owner_chunks[w->owners[q].begin + w->owners[q].n] = c;
                    }
                    w->owners[q].n++;
                }
        for (uint32_t q = 0; q < g->n_params && !fill; q++) {
            w->owners[q].begin = n;
            n += w->owners[q].n;
            w->owners[q].n = 0;
        }
        if (!fill) {
            PASS_ALLOC(w->owner_groups, w->cx->scratch, n);
            PASS_ALLOC(w->owner_chunks, w->cx->scratch, n);
        }
    }
    PASS_ALLOC(w->cx->dag->buckets, w->cx->mem, n);
    PASS_ALLOC(w->cx->dag->bucket_params, w->cx->mem, n);
    return PPS_OK;
}

static const ir_directive *replicate_of(const pass_cx *cx, uint32_t chunk)
{
    uint32_t s = cx->dag->chunks[chunk].replicate;
    return s != IR_NONE ? &cx->program->directives[s] : NULL;
}

static pps_span place_span(const pass_cx *cx, uint32_t chunk)
{
    return cx->program->directives[cx->dag->chunks[chunk].place].source->span;
}

/* A parameter of several groups: they hold equal copies, so what keeps them equal must agree. */
static pps_status check_owners(const packing *w, uint32_t q)
{
    pass_cx *cx = w->cx;
    const dag *d = cx->dag;
    const ir_param *param = &cx->program->graph->params[q];
    const uint32_t *chunks = w->owner_chunks + w->owners[q].begin;
    const dag_group *first = &d->groups[d->chunks[chunks[0]].group];
    const ir_directive *a = replicate_of(cx, chunks[0]);
    for (uint32_t i = 1; i < w->owners[q].n; i++) {
        const dag_group *other = &d->groups[d->chunks[chunks[i]].group];
        const ir_directive *b = replicate_of(cx, chunks[i]);
        pps_diag *diag = NULL;
        if (other->n_ranks != first->n_ranks || other->n_replicas != first->n_replicas ||
            (other->tensor != IR_NONE) != (first->tensor != IR_NONE))
            diag = pass_diag(cx, NULL, place_span(cx, chunks[i]), 412,
                             "parameter '%s' is used on device groups of different shapes",
                             param->name);
        else if (a != NULL && b != NULL &&
                 (a->zero != b->zero || a->bucket_bytes != b->bucket_bytes))
            diag = pass_diag(cx, b, b->source->span, 424,
                             "'%s' is kept equal in another way here than there", param->name);
        else if (a != NULL && a->zero >= 2)
            diag = pass_diag(cx, a, pps_directive_clause(a->source, "zero")->span, 425,
                             "`zero %u` shares out what one device group has, and '%s' is used on "
                             "several",
                             a->zero, param->name);
        if (diag == NULL)
            continue;
        pps_diag_also(diag, a != NULL && b != NULL ? a->source->span : place_span(cx, chunks[0]),
                      "it is used here too");
        pps_diag_also(diag, param->span, "the parameter");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

static bool same_owners(const packing *w, uint32_t a, uint32_t b)
{
    return w->owners[a].n == w->owners[b].n &&
           memcmp(w->owner_groups + w->owners[a].begin, w->owner_groups + w->owners[b].begin,
                  w->owners[a].n * sizeof *w->owner_groups) == 0;
}

/* A bucket in each of the groups; the first leads. */
static void open_buckets(packing *w, open_bucket *o)
{
    dag *d = w->cx->dag;
    o->bucket = d->n_buckets;
    o->bytes = 0;
    for (uint32_t i = 0; i < w->owners[o->param].n; i++) {
        uint32_t b = d->n_buckets++;
        d->buckets[b] = (dag_bucket){.group = w->owner_groups[w->owners[o->param].begin + i],
                                     .directive = o->directive,
                                     .teams = o->teams,
                                     .spread = o->spread,
                                     .reduced = o->teams != IR_NONE,
                                     .lead = o->bucket,
                                     .next = IR_NONE};
        if (i > 0)
            d->buckets[b - 1].next = b;
    }
}

static pps_status pack_param(packing *w, uint32_t q, uint32_t chunk)
{
    pass_cx *cx = w->cx;
    dag *d = cx->dag;
    const dag_chunk *k = &d->chunks[chunk];
    const ir_directive *s = replicate_of(cx, chunk);
    uint64_t bytes = pass_held_elems(cx, q) * 4, most = s != NULL ? s->bucket_bytes : 0;
    uint32_t by = k->replicate;
    if (by == IR_NONE && pass_team_sums(cx, k->group, q))
        by = cx->group_tensor[k->group];
    open_bucket is = {.param = q,
                      .directive = by,
                      .stage = s != NULL && s->zero >= 2 ? dag_stage(d->graph, chunk) : IR_NONE,
                      .teams = IR_NONE,
                      .spread = cx->param_cuts[q][PASS_CUT_TENSOR].teams != IR_NONE};
    is.cut = is.spread || cx->param_cuts[q][PASS_CUT_EXPERT].teams != IR_NONE;
    if (cx->param_shares != NULL && cx->param_shares[q].parts && s != NULL)
        is.spread |= s->zero > 0; /* slices over the ranks of a team too */
    PPS_TRY(check_owners(w, q));
    if (by != IR_NONE || w->owners[q].n > 1)
        PPS_TRY(pass_teams_gradients(cx, w->owner_groups + w->owners[q].begin, w->owners[q].n, q,
                                     &is.teams));
    uint32_t i = 0;
    for (; i < w->n_open; i++) {
        const open_bucket *o = &w->open[i];
        if (o->directive == is.directive && o->cut == is.cut && o->spread == is.spread &&
            o->teams == is.teams && o->stage == is.stage && same_owners(w, o->param, q))
            break;
    }
    open_bucket *o = &w->open[i];
    if (i == w->n_open) {
        w->n_open++;
        *o = is;
        open_buckets(w, o);
    } else if (most > 0 && o->bytes + bytes > most) {
        open_buckets(w, o);
    }
    o->bytes += bytes;
    d->param_bucket[q] = o->bucket;
    d->param_offset[q] = d->buckets[o->bucket].bytes;
    for (uint32_t b = o->bucket; b != IR_NONE; b = d->buckets[b].next) {
        d->buckets[b].bytes += round_up(bytes, PLAN_ALIGN);
        d->buckets[b].n++;
    }
    return PPS_OK;
}

/* Parameters of each bucket, in the order in which they were packed: that of their offsets. */
static void list_params(pass_cx *cx, const uint32_t *packed, uint32_t n_packed)
{
    dag *d = cx->dag;
    uint32_t at = 0;
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        d->buckets[b].first = at;
        at += d->buckets[b].n;
        d->buckets[b].n = 0;
    }
    for (uint32_t i = 0; i < n_packed; i++)
        for (uint32_t b = d->param_bucket[packed[i]]; b != IR_NONE; b = d->buckets[b].next)
            d->bucket_params[d->buckets[b].first + d->buckets[b].n++] = packed[i];
}

pps_status pass_buckets(pass_cx *cx)
{
    dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    packing w = {.cx = cx};
    uint32_t *packed, n_packed = 0;
    PASS_ALLOC(d->param_bucket, cx->mem, g->n_params);
    PASS_ALLOC(d->param_offset, cx->mem, g->n_params);
    PASS_ALLOC(packed, cx->scratch, g->n_params);
    PASS_ALLOC(w.open, cx->scratch, g->n_params);
    memset(d->param_bucket, 0xff, g->n_params * sizeof *d->param_bucket);
    PPS_TRY(find_owners(&w));
    for (uint32_t group = 0; group < d->n_groups; group++) {
        w.n_open = 0;
        for (uint32_t c = g->n_chunks; c-- > 0;)
            for (uint32_t i = g->chunks[c].params.n; d->chunks[c].group == group && i-- > 0;) {
                uint32_t q = g->lists[g->chunks[c].params.begin + i];
                if (d->param_bucket[q] != IR_NONE)
                    continue;
                PPS_TRY(pack_param(&w, q, c));
                packed[n_packed++] = q;
            }
    }
    list_params(cx, packed, n_packed);
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        PPS_TRY(configure(cx, &d->buckets[b]));
        PPS_TRY(bucket_runs(cx, b));
    }
    return check_effect(cx);
}
