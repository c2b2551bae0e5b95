/* SPDX-License-Identifier: Apache-2.0
 *
 * regions.c: the model graph as the directives see it, before anything is placed.
 *
 *   - Tags by which models offer their parts to `shard .. as tensor` and `as sequence` cut nothing
 * in a script that does not name them: chunks are as large as they can be.
 *   - In regions that `shard .. as tensor` names, and around them, tensors get the sizes that one
 *     rank of a team has (tensor_infer.c), and between the op that makes a form and one that needs
 *     another a border (borders.def) comes, and with it a cut:
 *
 *         made as   used as   border                        made as   used as   border
 *         partial   whole     sum                            shared    whole     gather, collect
 *         partial   shared    scatter                        whole     shared    take
 *         whole     whole     grad_sum, where the use gives parts of a gradient
 *
 *   - A cross entropy over divided columns becomes its part, and the rest behind a border.
 *
 * The caller's graph stays as it is: pass_replace_graph. Teams of ranks are tensor.c's.
 */
#include "ir/build.h"
#include "passes/tensor.h"

#include <string.h>

typedef struct rewrite {
    pass_cx *cx;
    const ir_graph *from;
    ir_graph *to;                    /* tensors have the same ids, new ones follow */
    tensor_layout *lay;              /* NULL: no tensor directive */
    ir_id *op;                       /* [from->n_ops] new ids */
    ir_id *tagset;                   /* [from->n_tagsets] without tags that do not count */
    ir_id (*forms)[IR_BORDER_COUNT]; /* [to->n_tensors at first] behind a border, IR_NONE */
    ir_id (*sums)[IR_BORDER_COUNT];  /* the same of their sums */
    ir_id chunk_first;               /* first op of the chunk that is being filled */
} rewrite;

/* ---- which tags count --------------------------------------------------------------------------
 */

static bool counts(const pass_cx *cx, const char *tag)
{
    static const char *const offers[] = {"TP", "CP"};
    const ir_program *p = cx->program;
    bool offered = false;
    for (size_t i = 0; i < sizeof offers / sizeof *offers; i++)
        offered |= strcmp(tag, offers[i]) == 0;
    for (uint32_t i = 0; i < p->n_terms; i++)
        if (p->terms[i].tag != NULL && strcmp(p->terms[i].tag, tag) == 0)
            return true;
    return !offered;
}

/* map[tagset]: the tagset of `to` that has its tags that count. *ret: some do not. */
static pps_status counting_tagsets(rewrite *r, bool *ret)
{
    const ir_graph *g = r->from;
    *ret = false;
    PASS_ALLOC(r->tagset, r->cx->scratch, g->n_tagsets);
    for (uint32_t i = 0; i < g->n_tagsets; i++) {
        ir_tag kept[PPS_MAX_TERMS];
        uint32_t n = 0;
        for (uint32_t k = 0; k < g->tagsets[i].n; k++) {
            const ir_tag *tag = &g->tags[g->tagsets[i].begin + k];
            if (counts(r->cx, tag->name))
                kept[n++] = *tag;
        }
        *ret |= n < g->tagsets[i].n;
        PPS_TRY(ir_add_tagset(r->to, kept, n, &r->tagset[i]));
    }
    return PPS_OK;
}

/* ---- which ops a directive is about ------------------------------------------------------------
 */

static bool is_tensor(const ir_program *p, uint32_t i)
{
    return p->kinds[i] == PPS_DIR_SHARD && p->directives[i].as[0] == 't';
}

static bool has_device(const ir_program *p, const ir_devices *d, uint32_t device)
{
    for (uint32_t i = 0; i < d->n; i++)
        if (p->ints[d->begin + i] == device)
            return true;
    return false;
}

static bool same_devices(const ir_program *p, const ir_devices *a, const ir_devices *b)
{
    bool same = a->n == b->n;
    for (uint32_t i = 0; i < a->n && same; i++)
        same = has_device(p, b, p->ints[a->begin + i]);
    return same;
}

/* The first tensor directive about the devices that `chunk` is placed on, or IR_NONE. */
static uint32_t home_of(const pass_cx *cx, uint32_t chunk)
{
    const ir_program *p = cx->program;
    const ir_directive *place = NULL;
    pass_match m;
    for (uint32_t i = 0; i < p->n_directives && place == NULL; i++)
        if (p->kinds[i] == PPS_DIR_PLACE &&
            pass_match_chunk(cx, &p->directives[i].filter, chunk, &m))
            place = &p->directives[i];
    for (uint32_t i = 0; i < p->n_directives && place != NULL; i++)
        if (is_tensor(p, i) && same_devices(p, &p->directives[i].devices, &place->devices))
            return i;
    return IR_NONE;
}

/* Two directives may be about one region if they are about different microbatches of it. */
static bool of_microbatches(const pass_cx *cx, uint32_t directive, uint32_t chunk)
{
    pass_match m;
    return pass_match_chunk(cx, &cx->program->directives[directive].filter, chunk, &m) &&
           m.mb != NULL;
}

static pps_status check_region(pass_cx *cx, uint32_t i, uint32_t chunk, const pass_match *m,
                               uint32_t before)
{
    const ir_program *p = cx->program;
    const ir_directive *s = &p->directives[i];
    const ir_graph *g = p->graph;
    char text[256], tags[128];
    if (m->pass != NULL || m->comm != NULL)
        return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 419,
                                       "shard names regions and microbatches, not passes: %s",
                                       pass_filter_text(cx, &s->filter, text, sizeof text)));
    if (s->devices.n / s->devices.n_groups < 2)
        return pps_diag_done(
            pass_diag(cx, s, s->devices.span, 410, "shard on one device has no effect"));
    if (before == IR_NONE)
        return PPS_OK;
    const ir_directive *first = &p->directives[before];
    if (m->mb != NULL && of_microbatches(cx, before, chunk) && first->sequence == s->sequence &&
        tensor_team(cx, before) == tensor_team(cx, i))
        return PPS_OK;
    pps_diag *diag = pass_diag(cx, s, s->source->span, 411, "region %s is sharded twice",
                               ir_tagset_text(g, g->chunks[chunk].tagset, tags, sizeof tags));
    pps_diag_also(diag, p->directives[before].source->span, "first sharded here");
    return pps_diag_done(diag);
}

/* Directives about the same devices must divide alike. */
static pps_status check_alike(pass_cx *cx)
{
    const ir_program *p = cx->program;
    for (uint32_t i = 0; i < p->n_directives; i++)
        for (uint32_t k = 0; k < i && is_tensor(p, i); k++) {
            const ir_directive *a = &p->directives[k], *b = &p->directives[i];
            if (!is_tensor(p, k) || !same_devices(p, &a->devices, &b->devices))
                continue;
            bool teams = a->devices.n_groups == b->devices.n_groups &&
                         memcmp(p->ints + a->devices.begin, p->ints + b->devices.begin,
                                a->devices.n * sizeof *p->ints) == 0;
            if (teams && a->sequence == b->sequence)
                continue;
            pps_diag *diag =
                pass_diag(cx, b, teams ? b->source->span : b->devices.span, 438,
                          teams ? "`sequence` here is not what it is elsewhere on these devices"
                                : "these devices form other teams elsewhere");
            pps_diag_also(diag, teams ? a->source->span : a->devices.span, "elsewhere");
            return pps_diag_done(diag);
        }
    return PPS_OK;
}

static pps_status find_regions(pass_cx *cx, uint32_t **ret_region, uint32_t **ret_home)
{
    ir_program *p = cx->program;
    const ir_graph *g = p->graph;
    uint32_t *region, *home, *by_op;
    PPS_TRY(check_alike(cx));
    PASS_ALLOC(region, cx->phase, g->n_chunks);
    PASS_ALLOC(home, cx->phase, g->n_chunks);
    memset(region, 0xff, g->n_chunks * sizeof *region);
    for (uint32_t i = 0; i < p->n_directives; i++) {
        char text[256];
        uint32_t matched = 0;
        const ir_directive *s = &p->directives[i];
        pass_match m;
        for (uint32_t c = 0; c < g->n_chunks && is_tensor(p, i); c++) {
            if (!pass_match_chunk(cx, &s->filter, c, &m))
                continue;
            PPS_TRY(check_region(cx, i, c, &m, region[c]));
            region[c] = region[c] == IR_NONE ? i : region[c];
            matched++;
        }
        if (is_tensor(p, i) && matched == 0)
            return pps_diag_done(pass_diag(cx, s, s->source->subject_span, 206,
                                           "%s matches nothing to shard",
                                           pass_filter_text(cx, &s->filter, text, sizeof text)));
    }
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        home[c] = home_of(cx, c);
        /* on other devices than it is placed on: tensor.c says so once there are groups */
        if (home[c] == IR_NONE ||
            (region[c] != IR_NONE &&
             !same_devices(p, &p->directives[region[c]].devices, &p->directives[home[c]].devices)))
            home[c] = region[c];
    }
    for (int k = 0; k < 2; k++) {
        PASS_ALLOC(by_op, cx->scratch, g->n_ops);
        for (uint32_t i = 0; i < g->n_ops; i++)
            by_op[i] =
                g->op_chunk[i] == IR_NONE ? IR_NONE : (k == 0 ? region : home)[g->op_chunk[i]];
        *(k == 0 ? ret_region : ret_home) = by_op;
    }
    return PPS_OK;
}

/* ---- the new graph -----------------------------------------------------------------------------
 */

static pps_status begin_graph(rewrite *r)
{
    const ir_graph *g = r->from;
    arena *mem = r->cx->scratch;
    ir_graph *to = r->to;
    *to = *g;
    to->mem = mem;
    to->ops = NULL;
    to->tags = NULL;
    to->tagsets = NULL;
    to->lists = NULL;
    to->chunks = NULL;
    to->n_ops = to->cap_ops = to->n_tags = to->cap_tags = to->n_tagsets = to->cap_tagsets = 0;
    to->n_lists = to->cap_lists = to->n_chunks = 0;
    PASS_ALLOC(to->tensors, mem, g->n_tensors);
    memcpy(to->tensors, g->tensors, g->n_tensors * sizeof *g->tensors);
    to->cap_tensors = g->n_tensors;
    PASS_ALLOC(r->op, mem, g->n_ops);
    r->chunk_first = IR_NONE;
    return ir_add_tagset(to, NULL, 0, &(ir_id){0});
}

static void shrink(ir_tensor *t, tensor_form form, uint32_t team)
{
    if (form == TENSOR_SPLIT)
        t->dims[t->n_dims - 1] /= team;
    else if (form == TENSOR_SHARED)
        t->dims[1] /= team;
}

static pps_status shrink_tensors(rewrite *r)
{
    const ir_graph *g = r->from;
    PASS_ALLOC(r->forms, r->cx->scratch, g->n_tensors);
    PASS_ALLOC(r->sums, r->cx->scratch, g->n_tensors);
    memset(r->forms, 0xff, g->n_tensors * sizeof *r->forms);
    memset(r->sums, 0xff, g->n_tensors * sizeof *r->sums);
    for (uint32_t i = 0; i < g->n_tensors; i++)
        if (g->tensors[i].op != IR_NONE && r->lay->home[g->tensors[i].op] != IR_NONE)
            shrink(&r->to->tensors[i], (tensor_form)r->lay->form[ir_made(g, i)],
                   tensor_team(r->cx, r->lay->home[g->tensors[i].op]));
    return PPS_OK;
}

/* `of` behind a border, made on first demand. */
static pps_status behind(rewrite *r, ir_id of, ir_border border, uint32_t directive, ir_id *made)
{
    ir_tensor t = r->to->tensors[of];
    uint32_t team = tensor_team(r->cx, directive);
    if (*made != IR_NONE)
        return PPS_OK;
    if (border == IR_BORDER_SCATTER || border == IR_BORDER_TAKE)
        t.dims[1] /= team;
    if (border == IR_BORDER_GATHER || border == IR_BORDER_COLLECT)
        t.dims[1] *= team;
    return ir_add_form(r->to, of, border, directive, t.n_dims, t.dims, made);
}

/* The form of input k that op `id` works on. */
static pps_status convert(rewrite *r, ir_id id, uint32_t k, ir_id *ret)
{
    const tensor_layout *l = r->lay;
    ir_id t = r->from->ops[id].in[k], from = r->from->tensors[t].op;
    const tensor_use *use = &l->uses[id][k];
    *ret = t;
    if (from == IR_NONE)
        return PPS_OK;
    /* the region that makes a part of a sum, or needs something whole, is behind the border */
    uint32_t maker = l->region[from] != IR_NONE ? l->region[from] : l->home[from];
    uint32_t user = l->region[id] != IR_NONE ? l->region[id] : l->home[id];
    uint8_t made = l->form[ir_made(r->from, t)];
    ir_id(*next)[IR_BORDER_COUNT] = &r->forms[t];
    ir_border border = IR_NO_BORDER;
    if (made == TENSOR_PARTIAL && use->form == TENSOR_WHOLE)
        border = IR_BORDER_SUM;
    else if (made == TENSOR_PARTIAL && use->form == TENSOR_SHARED)
        border = IR_BORDER_SCATTER;
    else if (made == TENSOR_WHOLE && use->form == TENSOR_SHARED)
        border = IR_BORDER_TAKE;
    else if (made == TENSOR_SHARED && use->form == TENSOR_WHOLE)
        border = use->parts_back ? IR_BORDER_GATHER : IR_BORDER_COLLECT;
    if (border != IR_NO_BORDER) {
        bool by_maker = border == IR_BORDER_SUM || border == IR_BORDER_SCATTER;
        PPS_TRY(behind(r, t, border, by_maker ? maker : user, &(*next)[border]));
        *ret = (*next)[border];
        next = &r->sums[t];
    }
    if (!use->convert_grad || border == IR_BORDER_GATHER)
        return PPS_OK;
    PPS_TRY(behind(r, *ret, IR_BORDER_GRAD_SUM, user, &(*next)[IR_BORDER_GRAD_SUM]));
    *ret = (*next)[IR_BORDER_GRAD_SUM];
    return PPS_OK;
}

static void shrink_attrs(const rewrite *r, ir_id id, ir_op *op)
{
    const tensor_layout *l = r->lay;
    uint32_t team = l->mode[id] != TENSOR_PLAIN ? tensor_team(r->cx, l->home[id]) : 1;
    op->shared = l->shared[id];
    if (l->mode[id] == TENSOR_ELEMENTS) {
        op->attrs.heads /= team;
        op->attrs.kv_heads /= team;
        op->attrs.begin /= team;
    } else if (l->mode[id] == TENSOR_HIDDEN) {
        op->attrs.hidden /= team;
    }
}

/* Append the op; it begins a chunk where it must, or where something behind a border comes from the
 * chunk before. */
static pps_status append(rewrite *r, const ir_op *op, ir_id *ret)
{
    ir_graph *to = r->to;
    bool cut = op->cut || r->chunk_first == IR_NONE || to->ops[to->n_ops - 1].tagset != op->tagset;
    for (uint32_t k = 0; k < op->n_in; k++) {
        const ir_tensor *t = &to->tensors[op->in[k]];
        cut |= t->border != IR_NO_BORDER && t->op >= r->chunk_first;
    }
    PPS_TRY(ir_add_op(to, op, ret));
    if (cut)
        r->chunk_first = *ret;
    to->ops[*ret].cut = cut && *ret > 0 && to->ops[*ret - 1].tagset == op->tagset;
    return PPS_OK;
}

/* Loss over divided columns: what these say of each position, and the loss once all say it. */
static pps_status divide_loss(rewrite *r, ir_id id, const ir_op *op, ir_id *ret)
{
    ir_graph *to = r->to;
    uint32_t directive = r->lay->region[id], team = tensor_team(r->cx, directive);
    const ir_tensor *logits = &to->tensors[op->in[0]];
    uint32_t dims[3] = {logits->dims[0], logits->dims[1], 3};
    ir_op part = *op, merge = *op;
    ir_id made, stats, all = IR_NONE;
    part.kind = IR_CROSS_ENTROPY_PART;
    merge.kind = IR_CROSS_ENTROPY_MERGE;
    part.shared = merge.shared = true;
    PPS_TRY(append(r, &part, &made));
    PPS_TRY(ir_add_output(to, made, IR_F32, IR_TENSOR_BATCH, 3, dims, &stats));
    dims[2] *= team;
    PPS_TRY(ir_add_form(to, stats, IR_BORDER_STATS, directive, 3, dims, &all));
    merge.n_in = 1;
    merge.in[0] = all;
    return append(r, &merge, ret);
}

static pps_status rewrite_op(rewrite *r, ir_id id)
{
    const ir_op *old = &r->from->ops[id];
    ir_op op = *old;
    op.tagset = r->tagset[old->tagset];
    if (r->lay != NULL) {
        for (uint32_t k = 0; k < op.n_in; k++)
            PPS_TRY(convert(r, id, k, &op.in[k]));
        shrink_attrs(r, id, &op);
        if (r->lay->mode[id] == TENSOR_CLASSES)
            return divide_loss(r, id, &op, &r->op[id]);
    }
    PPS_TRY(append(r, &op, &r->op[id]));
    r->to->ops[r->op[id]].n_out = old->n_out;
    for (uint32_t k = 0; k < old->n_out; k++)
        r->to->tensors[old->out[k]].op = r->op[id];
    return PPS_OK;
}

/* A directive that divides nothing says so. */
static pps_status check_effect(const rewrite *r)
{
    pass_cx *cx = r->cx;
    const ir_program *p = cx->program;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        bool any = !is_tensor(p, i), mentioned = false;
        for (ir_id id = 0; id < r->from->n_ops && !any; id++)
            mentioned |= r->lay->region[id] == i;
        any |= !mentioned; /* of other microbatches of another directive's regions */
        for (ir_id id = 0; id < r->from->n_ops && !any; id++)
            any = r->lay->region[id] == i && r->lay->mode[id] != TENSOR_PLAIN;
        if (any)
            continue;
        const ir_directive *s = &p->directives[i];
        char text[256];
        pps_diag *diag = pass_diag(cx, s, s->source->subject_span, 410,
                                   "shard has no effect: nothing in %s can be divided",
                                   pass_filter_text(cx, &s->filter, text, sizeof text));
        pps_diag_help(diag,
                      "a region holds the linear layer that is divided by outputs and the one "
                      "after it that is divided by inputs; or an embedding; or experts; or "
                      "a linear layer and its cross entropy");
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

pps_status pass_regions(pass_cx *cx)
{
    const ir_program *p = cx->program;
    rewrite r = {.cx = cx, .from = p->graph};
    tensor_layout lay = {.cx = cx, .graph = p->graph};
    uint32_t *region = NULL, *home = NULL;
    ir_id *loss_ops;
    bool any = false, drop = false;
    for (uint32_t i = 0; i < p->n_directives; i++)
        any |= is_tensor(p, i);
    PASS_ALLOC(r.to, cx->scratch, 1);
    PPS_TRY(begin_graph(&r));
    PPS_TRY(counting_tagsets(&r, &drop));
    if (!any && !drop)
        return PPS_OK;
    if (any) {
        PPS_TRY(find_regions(cx, &region, &home));
        lay.region = region;
        lay.home = home;
        PPS_TRY(tensor_infer(&lay));
        r.lay = &lay;
        PPS_TRY(check_effect(&r));
        PPS_TRY(shrink_tensors(&r));
        cx->param_shares = lay.params;
    }
    for (ir_id id = 0; id < r.from->n_ops; id++)
        PPS_TRY(rewrite_op(&r, id));
    PASS_ALLOC(loss_ops, cx->scratch, p->train.n_loss_ops);
    for (uint32_t i = 0; i < p->train.n_loss_ops; i++)
        loss_ops[i] = r.op[p->train.loss_ops[i]];
    return pass_replace_graph(cx, r.to, loss_ops);
}
