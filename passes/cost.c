/* SPDX-License-Identifier: Apache-2.0
 *
 * cost.c: the unit-cost simulation of rows.
 *
 * Every rank has a cursor into its row. A rank runs until an input of its next group is missing,
 * then hangs itself on the list of that op's waiters; finishing a group wakes the waiters of its
 * ops. Each wake-up lets a cursor pass at least one input, so the work is linear in the number of
 * inputs, which is at most two per op. Times come out right in any order of processing, since a
 * group's begin is the maximum of ends that are already known.
 *
 * Ops are found by (stage, microbatch, slice, pass) in an open-addressed table, because indices
 * come from the user and may be sparse. Where sequences are split, a slice is its share of a
 * microbatch, and an op that names no slice is all of them: it has inputs for each, and stands in
 * for each.
 */
#include "passes/cost.h"

#include <stdlib.h>
#include <string.h>

enum { MAX_INPUTS = 2, NOTES_AT_MOST = 6 };

typedef struct op_key {
    uint32_t stage, mb;
    uint32_t slice; /* + 1; 0: all of the microbatch */
    uint8_t pass;
} op_key;

typedef struct cursor { /* a rank's place in its row */
    uint32_t entry;     /* first of the next group */
    uint32_t checked;   /* entry whose inputs come next */
    uint32_t input;     /* which of them */
    uint32_t next;      /* rank after this one in a list of waiters, or IR_NONE */
    double ready;       /* latest end among inputs seen, and of the group before */
    double share;       /* of one stage in the rank's model */
    double live;        /* activations held, rank shares */
} cursor;

typedef struct simulation {
    const ir_program *p;
    cost_rows *out;
    cost_units units;
    uint32_t *slots; /* entry + 1, or 0 */
    uint32_t mask;
    cursor *cursors;
    uint32_t *waiters; /* [entries] first rank waiting for it, or IR_NONE */
    uint32_t *ready;   /* stack of ranks that can look again */
    uint32_t n_ready;
} simulation;

static const char *const pass_names[PPS_PASS_COUNT] = {
    [PPS_PASS_F] = "F", [PPS_PASS_B] = "B", [PPS_PASS_BI] = "BI", [PPS_PASS_BW] = "BW"};

/* ---- finding ops ---------------------------------------------------------------------------- */

static uint32_t key_hash(op_key k)
{
    uint64_t h = ((uint64_t)k.mb << 32 | k.stage) * 4 + k.pass;
    h += k.slice * UINT64_C(0xd1342543de82ef95);
    h *= UINT64_C(0x9e3779b97f4a7c15);
    h ^= h >> 32;
    h *= UINT64_C(0xd6e8feb86659fd93);
    return (uint32_t)(h >> 32);
}

/* The slice + 1 that an entry names, 0 for all; false: it is no op of one stage and microbatch, or
 * of some slices. */
static bool entry_slice(const ir_program *p, const ir_entry *e, uint32_t *ret)
{
    const ir_filter *f = e->general ? &p->filters[e->filter] : NULL;
    *ret = e->slice;
    if (f == NULL)
        return true;
    if (e->stage == IR_NONE || e->mb == IR_NONE || e->pass == PPS_PASS_COUNT)
        return false;
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        if (t->kind == PPS_TERM_PASS || t->kind == PPS_TERM_COMM || strcmp(t->tag, "PP") == 0 ||
            strcmp(t->tag, "MB") == 0)
            continue;
        if (p->slice_tag == NULL || strcmp(t->tag, p->slice_tag) != 0 || t->kind != PPS_TERM_SET ||
            t->n != 1)
            return false;
        *ret = p->ints[t->begin] + 1;
    }
    return true;
}

static op_key key_of(const simulation *s, const ir_entry *e)
{
    op_key k = {.stage = e->stage, .mb = e->mb, .pass = e->pass};
    entry_slice(s->p, e, &k.slice);
    return k;
}

/* The slot that holds `k`, or the empty one where it belongs. */
static uint32_t *slot_of(const simulation *s, op_key k)
{
    uint32_t i = key_hash(k) & s->mask;
    for (; s->slots[i] != 0; i = (i + 1) & s->mask) {
        op_key there = key_of(s, &s->p->entries[s->slots[i] - 1]);
        if (there.stage == k.stage && there.mb == k.mb && there.slice == k.slice &&
            there.pass == k.pass)
            break;
    }
    return &s->slots[i];
}

static uint32_t find_op(const simulation *s, op_key k)
{
    uint32_t slot = *slot_of(s, k);
    if (slot == 0 && k.slice > 0) { /* with its whole microbatch? */
        k.slice = 0;
        slot = *slot_of(s, k);
    }
    return slot == 0 ? IR_NONE : slot - 1;
}

/* B or BI, whichever the rows run. */
static uint32_t find_backward(const simulation *s, op_key k)
{
    k.pass = PPS_PASS_B;
    uint32_t e = find_op(s, k);
    if (e != IR_NONE)
        return e;
    k.pass = PPS_PASS_BI;
    return find_op(s, k);
}

/* What the op `k` takes from other stages' ops (`own` false) or from its own stage's. */
static bool upstream(const simulation *s, op_key k, op_key *ret)
{
    if (k.pass == PPS_PASS_F && k.stage > 0)
        *ret = (op_key){k.stage - 1, k.mb, k.slice, PPS_PASS_F};
    else if ((k.pass == PPS_PASS_B || k.pass == PPS_PASS_BI) && k.stage + 1 < s->out->n_stages)
        *ret = (op_key){k.stage + 1, k.mb, k.slice, PPS_PASS_B};
    else
        return false;
    return true;
}

/* What one op takes: inputs of a whole microbatch, or of the slice that `k` names. */
static uint32_t inputs_of(const simulation *s, uint8_t comm, op_key k, op_key ret[MAX_INPUTS])
{
    uint32_t n = 0;
    if (comm == PPS_COMM_SEND) {
        ret[n++] = k;
        return n;
    }
    if (comm == PPS_COMM_NONE) {
        if (k.pass == PPS_PASS_B || k.pass == PPS_PASS_BI)
            ret[n++] = (op_key){k.stage, k.mb, k.slice, PPS_PASS_F};
        else if (k.pass == PPS_PASS_BW)
            ret[n++] = (op_key){k.stage, k.mb, k.slice, PPS_PASS_BI};
    }
    if (upstream(s, k, &ret[n]))
        n++;
    return n;
}

/* The i-th input of an entry, which may be several slices; false after the last. */
static bool input_at(const simulation *s, const ir_entry *e, uint32_t i, op_key *ret)
{
    op_key k = key_of(s, e), inputs[MAX_INPUTS];
    bool all = k.slice == 0 && s->p->n_slices > 1;
    uint32_t n = inputs_of(s, e->comm, k, inputs), slices = all ? s->p->n_slices : 1;
    if (n == 0 || i / n >= slices)
        return false;
    *ret = inputs[i % n];
    if (all)
        ret->slice = i / n + 1;
    return true;
}

static uint32_t find_input(const simulation *s, op_key k)
{
    return k.pass == PPS_PASS_B ? find_backward(s, k) : find_op(s, k);
}

/* ---- set-up --------------------------------------------------------------------------------- */

static int compare_stages(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return x < y ? -1 : x > y;
}

/* Each row's distinct stages, into out->stages. */
static void collect_stages(const ir_program *p, cost_rows *out)
{
    uint32_t n = 0;
    for (uint32_t r = 0; r < p->n_rows; r++) {
        const ir_row *row = &p->rows[r];
        uint32_t *mine = &out->stages[n];
        out->stage_begin[r] = n;
        for (uint32_t i = 0; i < row->n; i++)
            mine[i] = p->entries[row->begin + i].stage;
        if (row->n > 1)
            qsort(mine, row->n, sizeof *mine, compare_stages);
        for (uint32_t i = 0; i < row->n; i++)
            if (i == 0 || mine[i] != out->stages[n - 1])
                out->stages[n++] = mine[i];
    }
    out->stage_begin[p->n_rows] = n;
}

/* Of all stages of all rows, sorted, those equal to `stage`: the rows that name it. */
static uint32_t copies_of(const uint32_t *sorted, uint32_t n, uint32_t stage)
{
    uint32_t bounds[2];
    for (uint32_t above = 0; above < 2; above++) {
        uint32_t low = 0, high = n;
        while (low < high) {
            uint32_t middle = low + (high - low) / 2;
            if (sorted[middle] < stage || (above && sorted[middle] == stage))
                low = middle + 1;
            else
                high = middle;
        }
        bounds[above] = low;
    }
    return bounds[1] - bounds[0];
}

/* The ranks hold equal parts of the model. A stage that lives on k ranks is a k-th of one on each.
 */
static pps_status share_stages(simulation *s)
{
    const cost_rows *out = s->out;
    uint32_t n = out->stage_begin[out->n_ranks];
    uint32_t *sorted = malloc((n + 1) * sizeof *sorted);
    if (!sorted)
        return PPS_ERR_NOMEM;
    if (n > 0) {
        memcpy(sorted, out->stages, n * sizeof *sorted);
        qsort(sorted, n, sizeof *sorted, compare_stages);
    }
    for (uint32_t r = 0; r < out->n_ranks; r++) {
        double v = 0;
        for (uint32_t i = out->stage_begin[r]; i < out->stage_begin[r + 1]; i++)
            v += 1.0 / copies_of(sorted, n, out->stages[i]);
        s->cursors[r].share = v > 0 ? 1 / v : 0;
    }
    free(sorted);
    return PPS_OK;
}

static pps_status report_entry(const ir_program *p, const ir_entry *e, int code, const char *title)
{
    if (p->st == NULL)
        return PPS_ERR_SCRIPT;
    return pps_error(p->st, pps_origin_span(p->st, e->origin), code, "%s", title);
}

static pps_status report_twice(const ir_program *p, const ir_entry *e, const ir_entry *first)
{
    if (p->st == NULL)
        return PPS_ERR_SCRIPT;
    pps_diag *d =
        pps_diag_start(p->st, PPS_SEV_ERROR, 507, pps_origin_span(p->st, e->origin),
                       "%s(%u, %u) is in the rows twice", pass_names[e->pass], e->stage, e->mb);
    pps_diag_also(d, pps_origin_span(p->st, first->origin), "first here");
    return pps_diag_done(d);
}

static pps_status index_ops(simulation *s)
{
    const ir_program *p = s->p;
    for (uint32_t r = 0; r < p->n_rows; r++) {
        for (uint32_t i = p->rows[r].begin; i < p->rows[r].begin + p->rows[r].n; i++) {
            const ir_entry *e = &p->entries[i];
            uint32_t slice;
            if (!entry_slice(p, e, &slice))
                return report_entry(
                    p, e, 532, "unit costs are known for ops of a stage and a microbatch only");
            if (e->stage >= s->out->n_stages)
                s->out->n_stages = e->stage + 1;
            if (e->comm != PPS_COMM_NONE)
                continue;
            uint32_t *slot = slot_of(s, key_of(s, e));
            if (*slot != 0)
                return report_twice(p, e, &p->entries[*slot - 1]);
            *slot = i + 1;
        }
    }
    return PPS_OK;
}

static pps_status allocate(simulation *s, size_t n_listed)
{
    size_t n_ranks = s->p->n_rows, n_entries = s->p->n_entries;
    size_t n_slots = 16;
    while (n_slots < 2 * n_listed)
        n_slots *= 2;
    s->mask = (uint32_t)(n_slots - 1);
    cost_rows *out = s->out;
    /* one more than needed: calloc(0) may give NULL */
    s->slots = calloc(n_slots, sizeof *s->slots);
    s->cursors = calloc(n_ranks + 1, sizeof *s->cursors);
    s->waiters = malloc((n_entries + 1) * sizeof *s->waiters);
    s->ready = malloc((n_ranks + 1) * sizeof *s->ready);
    out->begin = calloc(n_entries + 1, sizeof *out->begin);
    out->end = malloc((n_entries + 1) * sizeof *out->end);
    out->busy = calloc(n_ranks + 1, sizeof *out->busy);
    out->peak = calloc(n_ranks + 1, sizeof *out->peak);
    out->stages = malloc((n_listed + 1) * sizeof *out->stages);
    out->stage_begin = calloc(n_ranks + 1, sizeof *out->stage_begin);
    out->stuck = calloc(n_ranks + 1, sizeof *out->stuck);
    if (!s->slots || !s->cursors || !s->waiters || !s->ready || !out->begin || !out->end ||
        !out->busy || !out->peak || !out->stages || !out->stage_begin || !out->stuck)
        return PPS_ERR_NOMEM;
    out->n_ranks = (uint32_t)n_ranks;
    for (size_t i = 0; i < n_entries; i++) {
        out->end[i] = -1; /* not run yet */
        s->waiters[i] = IR_NONE;
    }
    return PPS_OK;
}

/* ---- running -------------------------------------------------------------------------------- */

static uint32_t group_end(const ir_program *p, const ir_row *row, uint32_t first)
{
    uint32_t end = first + 1;
    while (end < row->begin + row->n && p->entries[end].joins)
        end++;
    return end;
}

/* Of a microbatch. */
static double part_of(const simulation *s, const ir_entry *e)
{
    return key_of(s, e).slice == 0 || s->p->n_slices < 2 ? 1.0 : 1.0 / s->p->n_slices;
}

static double cost_of(const simulation *s, const ir_entry *e, double share)
{
    if (e->comm != PPS_COMM_NONE)
        return 0;
    share *= part_of(s, e);
    switch ((pps_pass)e->pass) {
    case PPS_PASS_F:
        return s->units.f * share;
    case PPS_PASS_B:
        return (s->units.bi + s->units.bw) * share;
    case PPS_PASS_BI:
        return s->units.bi * share;
    case PPS_PASS_BW:
        return s->units.bw * share;
    case PPS_PASS_COUNT:
        break;
    }
    return 0;
}

/* All inputs of the group [c->entry, end) are there: give it its interval and wake who waited. */
static void run_group(simulation *s, uint32_t rank, uint32_t end)
{
    cursor *c = &s->cursors[rank];
    cost_rows *out = s->out;
    double cost = 0, freed = 0;
    for (uint32_t i = c->entry; i < end; i++) {
        const ir_entry *e = &s->p->entries[i];
        cost += cost_of(s, e, c->share);
        if (e->comm != PPS_COMM_NONE)
            continue;
        if (e->pass == PPS_PASS_F)
            c->live += c->share * part_of(s, e);
        else if (e->pass == PPS_PASS_B || e->pass == PPS_PASS_BW)
            freed += c->share * part_of(s, e);
    }
    if (c->live > out->peak[rank])
        out->peak[rank] = c->live;
    c->live -= freed;
    out->busy[rank] += cost;
    for (uint32_t i = c->entry; i < end; i++) {
        out->begin[i] = c->ready;
        out->end[i] = c->ready + cost;
        for (uint32_t w = s->waiters[i]; w != IR_NONE; w = s->cursors[w].next)
            s->ready[s->n_ready++] = w; /* a rank waits for one op, so each is here once */
        s->waiters[i] = IR_NONE;
    }
    c->ready += cost;
    if (c->ready > out->makespan)
        out->makespan = c->ready;
    c->entry = c->checked = end;
    c->input = 0;
}

/* Go on with `rank` until its row ends or an input is missing. */
static void advance(simulation *s, uint32_t rank)
{
    const ir_program *p = s->p;
    const ir_row *row = &p->rows[rank];
    cursor *c = &s->cursors[rank];
    while (c->entry < row->begin + row->n) {
        uint32_t end = group_end(p, row, c->entry);
        for (; c->checked < end; c->checked++, c->input = 0) {
            op_key input;
            for (; input_at(s, &p->entries[c->checked], c->input, &input); c->input++) {
                uint32_t e = find_input(s, input);
                if (e == IR_NONE)
                    return;
                if (s->out->end[e] < 0) {
                    c->next = s->waiters[e];
                    s->waiters[e] = rank;
                    return;
                }
                if (s->out->end[e] > c->ready)
                    c->ready = s->out->end[e];
            }
        }
        run_group(s, rank, end);
    }
}

/* ---- what went wrong ------------------------------------------------------------------------ */

static void collect_stuck(simulation *s)
{
    cost_rows *out = s->out;
    for (uint32_t r = 0; r < out->n_ranks; r++) {
        const ir_row *row = &s->p->rows[r];
        const cursor *c = &s->cursors[r];
        if (c->entry >= row->begin + row->n)
            continue;
        op_key k = {0};
        input_at(s, &s->p->entries[c->checked], c->input, &k);
        uint32_t e = find_input(s, k);
        out->stuck[out->n_stuck++] =
            (cost_stuck){.row = r,
                         .entry = c->checked,
                         .waits_for = e,
                         .stage = k.stage,
                         .mb = k.mb,
                         .pass = e == IR_NONE ? k.pass : s->p->entries[e].pass};
    }
}

static const cost_stuck *stuck_of_row(const cost_rows *r, uint32_t row)
{
    for (uint32_t i = 0; i < r->n_stuck; i++)
        if (r->stuck[i].row == row)
            return &r->stuck[i];
    return NULL;
}

static uint32_t row_of_entry(const ir_program *p, uint32_t entry)
{
    for (uint32_t r = 0; r < p->n_rows; r++)
        if (entry >= p->rows[r].begin && entry - p->rows[r].begin < p->rows[r].n)
            return r;
    return IR_NONE;
}

static pps_status report_missing(const ir_program *p, const cost_stuck *k)
{
    const ir_entry *e = &p->entries[k->entry];
    pps_diag *d =
        pps_diag_start(p->st, PPS_SEV_ERROR, 531, pps_origin_span(p->st, e->origin),
                       "%s(%u, %u) needs %s(%u, %u), which no row runs", pass_names[e->pass],
                       e->stage, e->mb, pass_names[k->pass], k->stage, k->mb);
    pps_diag_label(d, "in row %u", k->row);
    return pps_diag_done(d);
}

/* Follow "waits for" from a stuck row until a row comes again: that part is the cycle. */
static pps_status report_stuck(const ir_program *p, const cost_rows *r)
{
    if (p->st == NULL)
        return PPS_ERR_SCRIPT;
    const cost_stuck *k = &r->stuck[0];
    for (uint32_t i = 0; i <= r->n_stuck; i++) { /* longer than any path: ends on the cycle */
        if (k->waits_for == IR_NONE)
            return report_missing(p, k);
        k = stuck_of_row(r, row_of_entry(p, k->waits_for));
        if (k == NULL)
            return PPS_ERR_INTERNAL;
    }
    const cost_stuck *first = k;
    pps_diag *d = pps_diag_start(p->st, PPS_SEV_ERROR, 502,
                                 pps_origin_span(p->st, p->entries[k->entry].origin),
                                 "the rows wait for each other");
    pps_diag_label(d, "row %u stops here", k->row);
    uint32_t n = 0;
    do {
        const ir_entry *e = &p->entries[k->entry];
        uint32_t row = row_of_entry(p, k->waits_for);
        if (n > 0)
            pps_diag_also(d, pps_origin_span(p->st, e->origin), "row %u stops here", k->row);
        pps_diag_note(d, "row %u: %s(%u, %u) waits for %s(%u, %u) of row %u", k->row,
                      pass_names[e->pass], e->stage, e->mb, pass_names[k->pass], k->stage, k->mb,
                      row);
        k = stuck_of_row(r, row);
    } while (k != first && ++n < NOTES_AT_MOST);
    if (k != first)
        pps_diag_note(d, "... and so on, back to row %u", first->row);
    return pps_diag_done(d);
}

/* ---- public --------------------------------------------------------------------------------- */

static pps_status simulate(simulation *s)
{
    const ir_program *p = s->p;
    cost_rows *out = s->out;
    size_t n_listed = 0;
    for (uint32_t r = 0; r < p->n_rows; r++)
        n_listed += p->rows[r].n;
    PPS_TRY(allocate(s, n_listed));
    PPS_TRY(index_ops(s));
    collect_stages(p, out);
    PPS_TRY(share_stages(s));
    for (uint32_t r = 0; r < p->n_rows; r++) {
        s->cursors[r] = (cursor){.entry = p->rows[r].begin,
                                 .checked = p->rows[r].begin,
                                 .next = IR_NONE,
                                 .share = s->cursors[r].share};
        s->ready[p->n_rows - 1 - r] = r; /* rank 0 first */
    }
    s->n_ready = p->n_rows;
    while (s->n_ready > 0)
        advance(s, s->ready[--s->n_ready]);
    collect_stuck(s);
    if (out->n_stuck > 0)
        return report_stuck(p, out);

    double busy = 0;
    for (uint32_t r = 0; r < p->n_rows; r++)
        busy += out->busy[r];
    out->bubble = out->makespan > 0 ? 1 - busy / (p->n_rows * out->makespan) : 0;
    return PPS_OK;
}

pps_status cost_simulate_rows(const ir_program *p, const cost_units *units, cost_rows *ret)
{
    memset(ret, 0, sizeof *ret);
    simulation s = {.p = p, .out = ret, .units = units ? *units : (cost_units){1, 1, 1}};
    pps_status status = simulate(&s);
    free(s.slots);
    free(s.cursors);
    free(s.waiters);
    free(s.ready);
    return status;
}

uint32_t cost_entry_slice(const ir_program *p, const ir_entry *e)
{
    uint32_t slice = 0;
    return entry_slice(p, e, &slice) ? slice : 0;
}

void cost_rows_done(cost_rows *r)
{
    free(r->begin);
    free(r->end);
    free(r->busy);
    free(r->peak);
    free(r->stages);
    free(r->stage_begin);
    free(r->stuck);
    memset(r, 0, sizeof *r);
}
