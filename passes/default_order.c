/* SPDX-License-Identifier: Apache-2.0
 *
 * default_order.c: rows for device groups that have none: 1F1B by dataflow.
 *
 * A part is what a device group has of a stage; parts that feed each other both ways are one block,
 * which occupies all its groups at once. Blocks run in virtual time (F = 1, B = 2) under one rule:
 * a backward that is ready goes first; a forward may start while fewer microbatches of its block
 * are under way than blocks lie from it to the end. On one stage per group this is 1F1B. What is
 * run is written down, so the rows can be followed. Groups that have rows take part with the same
 * rule; only the others' rows are kept.
 *
 * Where sequences are split the rule counts slices, a block may have the other slices of one
 * microbatch under way as well, since their backward begins with the last, and forwards take turns
 * with backwards:
 *
 *     one stage, 2 slices    F0:0 F0:0' B0:0' F0:1 B0:0 F0:1' B0:1' B0:1     ' is the second slice
 */
#include "passes/pass.h"

#include <stdio.h>
#include <string.h>

typedef struct part {
    uint32_t stage, group, block;
    uint32_t next; /* another part of the stage, or IR_NONE */
} part;

typedef struct block {
    uint32_t cap;
    uint32_t n_f, n_b;       /* started */
    uint32_t done_f, done_b; /* finished */
    ir_range parts;          /* part ids are consecutive */
    ir_range preds, succs;   /* blocks it reads from, blocks that read from it; repeated per link */
    bool backward;
} block;

typedef struct sim {
    pass_cx *cx;
    part *parts; /* by first chunk */
    uint32_t n_parts;
    uint32_t *part_of; /* [n_chunks] */
    block *blocks;
    uint32_t n_blocks;
    uint32_t *edges;
    ir_range *group_blocks; /* [n_groups] in group_list */
    uint32_t *group_list;
    double *busy_until;
    uint32_t *running; /* [n_groups] block, or IR_NONE */
    bool *running_b;   /* stays what it was when nothing runs */
    ir_entry **rows;   /* [n_groups] */
    uint32_t *n_row;
} sim;

static pps_status make_parts(sim *s)
{
    pass_cx *cx = s->cx;
    const dag *d = cx->dag;
    const ir_graph *g = cx->program->graph;
    uint32_t *first, current = 0, n_stages = 1;
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        uint32_t tag = dag_stage(g, c);
        n_stages = tag != IR_NONE && tag >= n_stages ? tag + 1 : n_stages;
    }
    PASS_ALLOC(first, cx->phase, n_stages);
    PASS_ALLOC(s->parts, cx->phase, g->n_chunks);
    PASS_ALLOC(s->part_of, cx->phase, g->n_chunks);
    memset(first, 0xff, n_stages * sizeof *first);
    for (uint32_t c = 0; c < g->n_chunks; c++) {
        uint32_t tag = dag_stage(g, c), i;
        current = tag == IR_NONE ? current : tag;
        for (i = first[current]; i != IR_NONE && s->parts[i].group != d->chunks[c].group;)
            i = s->parts[i].next;
        if (i == IR_NONE) {
            i = s->n_parts++;
            s->parts[i] =
                (part){.stage = current, .group = d->chunks[c].group, .next = first[current]};
            first[current] = i;
        }
        s->part_of[c] = i;
    }
    return PPS_OK;
}

/* Parts between the ends of a link that leads back to an earlier part are joined. */
static pps_status join_parts(sim *s)
{
    pass_cx *cx = s->cx;
    const dag *d = cx->dag;
    int32_t *joins, depth = 0; /* how many such links begin less end at each part */
    PASS_ALLOC(joins, cx->phase, s->n_parts);
    PASS_ALLOC(s->blocks, cx->phase, s->n_parts);
    for (uint32_t l = 0; l < d->n_links; l++) {
        uint32_t a = s->part_of[d->links[l].src], b = s->part_of[d->links[l].dst];
        if (a > b) {
            joins[b]++;
            joins[a]--;
        }
    }
    for (uint32_t i = 0; i < s->n_parts; i++) {
        if (depth == 0)
            s->blocks[s->n_blocks++] = (block){.parts = {i, 0}, .cap = d->n_slices};
        depth += joins[i];
        s->parts[i].block = s->n_blocks - 1;
        s->blocks[s->n_blocks - 1].parts.n++;
    }
    for (uint32_t c = 0; c < cx->program->graph->n_chunks; c++)
        s->blocks[s->parts[s->part_of[c]].block].backward |= d->chunks[c].b != IR_NONE;
    return PPS_OK;
}

/* Edges go from lower to higher blocks. */
static pps_status make_edges(sim *s)
{
    pass_cx *cx = s->cx;
    const dag *d = cx->dag;
    uint32_t at = 0;
    PASS_ALLOC(s->edges, cx->phase, 2 * (size_t)d->n_links);
    for (int fill = 0; fill < 2; fill++) {
        for (uint32_t l = 0; l < d->n_links; l++) {
            uint32_t a = s->parts[s->part_of[d->links[l].src]].block;
            uint32_t b = s->parts[s->part_of[d->links[l].dst]].block;
            if (a == b)
                continue;
            if (fill) {
                s->edges[s->blocks[a].succs.begin + s->blocks[a].succs.n] = b;
                s->edges[s->blocks[b].preds.begin + s->blocks[b].preds.n] = a;
            }
            s->blocks[a].succs.n++;
            s->blocks[b].preds.n++;
        }
        for (uint32_t i = 0; i < s->n_blocks && !fill; i++) {
            s->blocks[i].preds.begin = at;
            at += s->blocks[i].preds.n;
            s->blocks[i].succs.begin = at;
            at += s->blocks[i].succs.n;
            s->blocks[i].preds.n = s->blocks[i].succs.n = 0;
        }
    }
    for (uint32_t i = s->n_blocks; i-- > 0;)
        for (uint32_t k = 0; k < s->blocks[i].succs.n; k++) {
            uint32_t j = s->edges[s->blocks[i].succs.begin + k];
            if (s->blocks[j].cap + 1 > s->blocks[i].cap)
                s->blocks[i].cap = s->blocks[j].cap + 1;
        }
    return PPS_OK;
}

static pps_status index_groups(sim *s)
{
    pass_cx *cx = s->cx;
    uint32_t n_groups = cx->dag->n_groups, at = 0, *last;
    PASS_ALLOC(s->group_blocks, cx->phase, n_groups);
    PASS_ALLOC(s->group_list, cx->phase, s->n_parts);
    PASS_ALLOC(last, cx->phase, n_groups); /* block + 1 that was counted last */
    for (int fill = 0; fill < 2; fill++) {
        memset(last, 0, n_groups * sizeof *last);
        for (uint32_t i = 0; i < s->n_parts; i++) {
            const part *p = &s->parts[i];
            ir_range *list = &s->group_blocks[p->group];
            if (last[p->group] == p->block + 1)
                continue;
            last[p->group] = p->block + 1;
            if (fill)
                s->group_list[list->begin + list->n] = p->block;
            list->n++;
        }
        for (uint32_t g = 0; g < n_groups && !fill; g++) {
            s->group_blocks[g].begin = at;
            at += s->group_blocks[g].n;
            s->group_blocks[g].n = 0;
        }
    }
    return PPS_OK;
}

/* The k-th unit backward: microbatches in order, the slices of each from last to first. */
static uint32_t unit_back(const dag *d, uint32_t k)
{
    return k - k % d->n_slices + d->n_slices - 1 - k % d->n_slices;
}

/* The block of `group` whose backward is ready, of the unit that comes first; or IR_NONE. */
static uint32_t ready_backward(const sim *s, uint32_t group)
{
    uint32_t n_mb = s->cx->dag->n_mb, best = IR_NONE;
    ir_range list = s->group_blocks[group];
    for (uint32_t i = list.n; i-- > 0;) { /* later blocks first: their backward frees the most */
        const block *k = &s->blocks[s->group_list[list.begin + i]];
        bool ready = k->backward && k->n_b < n_mb && unit_back(s->cx->dag, k->n_b) < k->done_f;
        for (uint32_t j = 0; j < k->succs.n && ready; j++) {
            const block *next = &s->blocks[s->edges[k->succs.begin + j]];
            ready = !next->backward || next->done_b > k->n_b;
        }
        if (ready && (best == IR_NONE || k->n_b < s->blocks[best].n_b))
            best = s->group_list[list.begin + i];
    }
    return best;
}

static uint32_t ready_forward(const sim *s, uint32_t group)
{
    uint32_t n_mb = s->cx->dag->n_mb, best = IR_NONE;
    ir_range list = s->group_blocks[group];
    for (uint32_t i = list.n; i-- > 0;) {
        const block *k = &s->blocks[s->group_list[list.begin + i]];
        bool ready = k->n_f < n_mb && (!k->backward || k->n_f - k->done_b < k->cap);
        for (uint32_t j = 0; j < k->preds.n && ready; j++)
            ready = s->blocks[s->edges[k->preds.begin + j]].done_f > k->n_f;
        if (ready && (best == IR_NONE || k->n_f < s->blocks[best].n_f))
            best = s->group_list[list.begin + i];
    }
    return best;
}

/* What `group` would run now: *ret_block, *ret_backward; false when nothing is ready. The slices of
 * a microbatch become ready backward one upon the other: forwards take turns with them. */
static bool choose(const sim *s, uint32_t group, uint32_t *ret_block, bool *ret_backward)
{
    uint32_t backward = ready_backward(s, group), forward = IR_NONE;
    bool turn = s->cx->dag->n_slices > 1 && s->running_b[group];
    if (backward == IR_NONE || turn)
        forward = ready_forward(s, group);
    *ret_backward = forward == IR_NONE;
    *ret_block = *ret_backward ? backward : forward;
    return *ret_block != IR_NONE;
}

static void start(sim *s, uint32_t group, double now)
{
    uint32_t which;
    bool backward;
    if (s->running[group] != IR_NONE || !choose(s, group, &which, &backward))
        return;
    block *k = &s->blocks[which];
    for (uint32_t i = 0; i < k->parts.n; i++)
        if (s->running[s->parts[k->parts.begin + i].group] != IR_NONE)
            return; /* when it ends, all are idle or run something else that ends */
    ir_entry e = {.pass = backward ? PPS_PASS_B : PPS_PASS_F};
    const dag *d = s->cx->dag;
    uint32_t unit = backward ? unit_back(d, k->n_b++) : k->n_f++;
    e.mb = unit / d->n_slices;
    e.slice = d->slice_tag != NULL ? unit % d->n_slices + 1 : 0;
    for (uint32_t i = 0; i < k->parts.n; i++) {
        const part *p = &s->parts[k->parts.begin + (backward ? k->parts.n - 1 - i : i)];
        e.stage = p->stage;
        s->rows[p->group][s->n_row[p->group]++] = e;
        s->running[p->group] = which;
        s->running_b[p->group] = backward;
        s->busy_until[p->group] = now + (backward ? 2.0 : 1.0);
    }
}

/* Earliest group to finish; groups are few, and each turn starts at least one op. */
static bool finish_next(sim *s, double *now)
{
    uint32_t n = s->cx->dag->n_groups;
    double soonest = -1.0;
    for (uint32_t g = 0; g < n; g++)
        if (s->running[g] != IR_NONE && (soonest < 0.0 || s->busy_until[g] < soonest))
            soonest = s->busy_until[g];
    if (soonest < 0.0)
        return false;
    for (uint32_t g = 0; g < n; g++)
        if (s->running[g] != IR_NONE && s->busy_until[g] <= soonest) {
            block *k = &s->blocks[s->running[g]];
            if (s->parts[k->parts.begin].group != g) { /* counted with its first group */
                s->running[g] = IR_NONE;
                continue;
            }
            if (s->running_b[g])
                k->done_b++;
            else
                k->done_f++;
            s->running[g] = IR_NONE;
        }
    *now = soonest;
    return true;
}

static pps_status append_row(pass_cx *cx, const ir_entry *entries, uint32_t n)
{
    ir_program *p = cx->program;
    if (p->n_entries + n > p->cap_entries) {
        uint32_t cap = (p->n_entries + n) * 2;
        ir_entry *bigger = arena_new(p->mem, cap * sizeof *bigger);
        if (bigger == NULL)
            return PPS_ERR_NOMEM;
        if (p->n_entries > 0)
            memcpy(bigger, p->entries, p->n_entries * sizeof *bigger);
        p->entries = bigger;
        p->cap_entries = cap;
    }
    if (p->n_rows == p->cap_rows) {
        uint32_t cap = p->cap_rows * 2 + 16;
        ir_row *bigger = arena_new(p->mem, cap * sizeof *bigger);
        if (bigger == NULL)
            return PPS_ERR_NOMEM;
        if (p->n_rows > 0)
            memcpy(bigger, p->rows, p->n_rows * sizeof *bigger);
        p->rows = bigger;
        p->cap_rows = cap;
    }
    p->rows[p->n_rows++] =
        (ir_row){.begin = p->n_entries, .n = n, .n_groups = n, .directive = IR_NONE};
    memcpy(p->entries + p->n_entries, entries, n * sizeof *entries);
    p->n_entries += n;
    return PPS_OK;
}

pps_status pass_default_rows(pass_cx *cx, const bool *has_row)
{
    const dag *d = cx->dag;
    sim s = {.cx = cx};
    double now = 0.0;
    uint32_t *n_parts;
    if (d->n_classes > 1) {
        pps_diag *diag =
            pass_diag(cx, NULL, d->groups[d->n_groups - 1].span, 523,
                      "where a stage lies depends on the microbatch: that needs an `order`");
        pps_diag_help(diag, "write a row for each device group, such as `order dualpipe(R, M)`");
        return pps_diag_done(diag);
    }
    PPS_TRY(make_parts(&s));
    PPS_TRY(join_parts(&s));
    PPS_TRY(make_edges(&s));
    PPS_TRY(index_groups(&s));
    PASS_ALLOC(s.busy_until, cx->phase, d->n_groups);
    PASS_ALLOC(s.running, cx->phase, d->n_groups);
    PASS_ALLOC(s.running_b, cx->phase, d->n_groups);
    PASS_ALLOC(s.n_row, cx->phase, d->n_groups);
    PASS_ALLOC(s.rows, cx->phase, d->n_groups);
    PASS_ALLOC(n_parts, cx->phase, d->n_groups);
    for (uint32_t i = 0; i < s.n_parts; i++)
        n_parts[s.parts[i].group]++;
    for (uint32_t g = 0; g < d->n_groups; g++) {
        s.running[g] = IR_NONE;
        PASS_ALLOC(s.rows[g], cx->phase, 2 * (size_t)n_parts[g] * d->n_mb);
    }
    do {
        for (uint32_t g = 0; g < d->n_groups; g++)
            start(&s, g, now);
    } while (finish_next(&s, &now));

    char which[256] = "";
    size_t at = 0;
    uint32_t n = 0, multi = 0;
    for (uint32_t g = 0; g < d->n_groups; g++) {
        if (has_row[g])
            continue;
        char on[96];
        pass_devices_text(d->group_ranks + d->groups[g].ranks, d->groups[g].n_ranks, on, sizeof on);
        if (at + strlen(on) + 8 < sizeof which)
            at += (size_t)snprintf(which + at, sizeof which - at, "%s%s", n > 0 ? ", " : "", on);
        n++;
        multi += s.n_row[g] > 2;
        PPS_TRY(append_row(cx, s.rows[g], s.n_row[g]));
    }
    if (multi > 0 && d->n_groups > 1) {
        const ir_program *p = cx->program;
        pps_diag *note =
            pps_diag_start(cx->st, PPS_SEV_NOTE, 515, p->train.source->span,
                           "no `order` for devices %s: they run 1F1B by dataflow", which);
        pps_diag_done(note);
    }
    return PPS_OK;
}
