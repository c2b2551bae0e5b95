/* SPDX-License-Identifier: Apache-2.0
 *
 * interleave.c: the order of an overlapped group: its ops' chains of chunks merged so that the
 * group ends soonest, an exchange between two chunks of one op running under compute of the other.
 *
 *     F:  f0 ~~> e ~~> f1        f0 b0 e b1 f1 b2
 *     B:  b0 ~~> b1 ~~> b2       each ~~> runs under the compute that stands between its ends
 *
 * Two ops: the best merge, by dynamic programming over (chunks of the first done, chunks of the
 * second done). A state is the times at which the compute stream, the exchange stream and each op's
 * next input are ready; states that another one beats in all four are dropped, and at most KEEP are
 * kept. Within an op the order is kept. Costs are estimates: unless the best merge is clearly
 * shorter the chains are merged evenly, which puts compute under every exchange whatever it costs.
 * More than two ops are merged evenly too, however many they are (n log ops), and so are two whose
 * lengths multiply to more than MOST_CELLS: the best merge takes time and memory in proportion.
 * Groups of the same runs have the same answer: it is found once.
 */
#include "passes/machine.h"

#include <string.h>

enum { KEEP = 12, MOST_CELLS = 1 << 17 };
static const double clearly_shorter = 0.99;

typedef struct chain { /* one op */
    uint32_t n;
    double *compute; /* [n] */
    double *hop;     /* [n] exchange between node i - 1 and node i, 0 for none */
} chain;

typedef struct state {
    double now;      /* the compute stream is free */
    double link;     /* the exchange stream is free */
    double ready[2]; /* the next node's input is there */
    uint32_t from;   /* state before */
    uint8_t took;    /* 0 or 1: which op ran last */
} state;

struct interleave_memo { /* a merge already found */
    struct interleave_memo *next;
    uint32_t first[2], n[2]; /* first run and length of each op */
    uint8_t pass[2];
    uint32_t again[2]; /* which of their nodes recompute, mixed */
    uint32_t *took;    /* [n0 + n1] */
    double exchanged, exposed;
};

static double exchange_time(const pass_cx *cx, uint32_t from, uint32_t to)
{
    const dag *d = cx->dag;
    const dag_run *a = &d->runs[d->node_run[from]], *b = &d->runs[d->node_run[to]];
    bool forward = b->pass == PPS_PASS_F;
    const dag_chunk *src = &d->chunks[forward ? a->chunk : b->chunk];
    uint32_t dst = forward ? b->chunk : a->chunk;
    double sum = 0.0;
    for (uint32_t i = 0; i < src->out_links.n; i++) {
        const dag_link *k = &d->links[d->link_lists[src->out_links.begin + i]];
        const uint32_t *runs = forward ? k->f_border : k->b_border;
        for (int end = 0; end < DAG_ENDS; end++)
            if (k->dst == dst && runs[end] != IR_NONE)
                sum += machine_hop(cx, &d->runs[runs[end]]);
    }
    return sum;
}

static double node_time(const pass_cx *cx, uint32_t node)
{
    const dag_run *r = &cx->dag->runs[cx->dag->node_run[node]];
    double again = 0.0;
    if (pass_variant_of(cx->dag, r->chunk, node - r->first) == PASS_RECOMPUTES)
        again = machine_compute(cx, r->chunk, IR_PHASE_F);
    switch (dag_pass(cx->dag, node)) {
    case PPS_PASS_F:
        return machine_compute(cx, r->chunk, IR_PHASE_F);
    case PPS_PASS_BI:
        return again + machine_compute(cx, r->chunk, IR_PHASE_BI);
    case PPS_PASS_BW:
        return machine_compute(cx, r->chunk, IR_PHASE_BW);
    case PPS_PASS_B:
    case PPS_PASS_COUNT:
        break;
    }
    return again + machine_compute(cx, r->chunk, IR_PHASE_BI) +
           machine_compute(cx, r->chunk, IR_PHASE_BW);
}

static pps_status measure(const pass_cx *cx, arena *mem, const uint32_t *nodes, uint32_t n,
                          chain *ret)
{
    *ret = (chain){.n = n};
    PASS_ALLOC(ret->compute, mem, n);
    PASS_ALLOC(ret->hop, mem, n);
    for (uint32_t i = 0; i < n; i++) {
        ret->compute[i] = node_time(cx, nodes[i]);
        if (i > 0)
            ret->hop[i] = exchange_time(cx, nodes[i - 1], nodes[i]);
    }
    return PPS_OK;
}

static state advance(const chain *c, const state *s, uint32_t op, uint32_t done, uint32_t from)
{
    state t = *s;
    double begin = s->now > s->ready[op] ? s->now : s->ready[op];
    t.now = t.ready[op] = begin + c->compute[done];
    if (done + 1 < c->n && c->hop[done + 1] > 0.0) {
        double go = t.link > t.now ? t.link : t.now;
        t.link = t.ready[op] = go + c->hop[done + 1];
    }
    t.from = from;
    t.took = (uint8_t)op;
    return t;
}

static bool beats(const state *a, const state *b)
{
    return a->now <= b->now && a->link <= b->link && a->ready[0] <= b->ready[0] &&
           a->ready[1] <= b->ready[1];
}

/* Add `s` to a cell unless it is beaten; when the cell is full the latest ends go. */
static void offer(state *cell, uint32_t *n, const state *s)
{
    uint32_t kept = 0, worst = 0;
    for (uint32_t i = 0; i < *n; i++)
        if (beats(&cell[i], s))
            return;
    for (uint32_t i = 0; i < *n; i++)
        if (!beats(s, &cell[i]))
            cell[kept++] = cell[i];
    *n = kept;
    if (*n < KEEP) {
        cell[(*n)++] = *s;
        return;
    }
    for (uint32_t i = 1; i < KEEP; i++)
        if (cell[i].now > cell[worst].now)
            worst = i;
    if (s->now < cell[worst].now)
        cell[worst] = *s;
}

/* took[k]: which op runs k-th. */
static pps_status best_merge(arena *mem, const chain c[2], uint32_t *took, double *ret_end)
{
    uint32_t w = c[1].n + 1;
    size_t cells = (size_t)(c[0].n + 1) * w;
    state *all;
    uint32_t *n;
    PASS_ALLOC(all, mem, cells * KEEP);
    PASS_ALLOC(n, mem, cells);
    n[0] = 1;
    for (uint32_t i = 0; i <= c[0].n; i++)
        for (uint32_t j = 0; j <= c[1].n; j++) {
            size_t at = (size_t)i * w + j;
            for (uint32_t k = 0; k < n[at]; k++) {
                uint32_t id = (uint32_t)(at * KEEP + k);
                if (i < c[0].n) {
                    state s = advance(&c[0], &all[id], 0, i, id);
                    offer(&all[(at + w) * KEEP], &n[at + w], &s);
                }
                if (j < c[1].n) {
                    state s = advance(&c[1], &all[id], 1, j, id);
                    offer(&all[(at + 1) * KEEP], &n[at + 1], &s);
                }
            }
        }
    uint32_t best = (uint32_t)((cells - 1) * KEEP);
    for (uint32_t k = 1; k < n[cells - 1]; k++)
        if (all[(cells - 1) * KEEP + k].now < all[best].now)
            best = (uint32_t)((cells - 1) * KEEP + k);
    *ret_end = all[best].now;
    for (uint32_t k = c[0].n + c[1].n; k-- > 0; best = all[best].from)
        took[k] = all[best].took;
    return PPS_OK;
}

/* An op whose next node is number `taken` of `n`. */
typedef struct turn {
    uint32_t op, taken, n;
} turn;

/* Each op's next node lies at a fraction of its chain, (taken + 1/2) / n: the earliest is next,
 * ties to the op named first. */
static bool earlier(const turn *a, const turn *b)
{
    uint64_t mine = (2ull * a->taken + 1) * b->n, theirs = (2ull * b->taken + 1) * a->n;
    return mine < theirs || (mine == theirs && a->op < b->op);
}

/* Heap: none is earlier than the one at (i - 1) / 2. Moves the one at `i` down to its place. */
static void sift(turn *heap, uint32_t n, uint32_t i)
{
    for (;;) {
        uint32_t least = i;
        for (uint32_t k = 2 * i + 1; k <= 2 * i + 2 && k < n; k++)
            if (earlier(&heap[k], &heap[least]))
                least = k;
        if (least == i)
            return;
        turn t = heap[i];
        heap[i] = heap[least];
        heap[least] = t;
        i = least;
    }
}

/* took[k]: which op runs k-th. */
static pps_status merge_evenly(arena *mem, const uint32_t *n, uint32_t n_ops, uint32_t *took)
{
    turn *heap;
    uint32_t left = 0, k = 0;
    PASS_ALLOC(heap, mem, n_ops);
    for (uint32_t i = 0; i < n_ops; i++)
        if (n[i] > 0)
            heap[left++] = (turn){.op = i, .n = n[i]};
    for (uint32_t i = left; i-- > 0;)
        sift(heap, left, i);
    while (left > 0) {
        took[k++] = heap[0].op;
        if (++heap[0].taken == heap[0].n)
            heap[0] = heap[--left];
        sift(heap, left, 0);
    }
    return PPS_OK;
}

static double end_of(const chain c[2], const uint32_t *took)
{
    uint32_t done[2] = {0, 0};
    state s = {0};
    for (uint32_t k = 0; k < c[0].n + c[1].n; k++) {
        s = advance(&c[took[k]], &s, took[k], done[took[k]], 0);
        done[took[k]]++;
    }
    return s.now;
}

static pps_status solve(const pass_cx *cx, arena *mem, const uint32_t *nodes, const uint32_t *n,
                        struct interleave_memo *m)
{
    chain c[2];
    uint32_t *best;
    double end, best_end, busy = 0.0;
    PASS_ALLOC(best, mem, n[0] + n[1]);
    PPS_TRY(measure(cx, mem, nodes, n[0], &c[0]));
    PPS_TRY(measure(cx, mem, nodes + n[0], n[1], &c[1]));
    PPS_TRY(merge_evenly(mem, n, 2, m->took));
    end = best_end = end_of(c, m->took);
    if ((uint64_t)(n[0] + 1) * (n[1] + 1) <= MOST_CELLS)
        PPS_TRY(best_merge(mem, c, best, &best_end));
    if (best_end < clearly_shorter * end) {
        memcpy(m->took, best, (n[0] + n[1]) * sizeof *best);
        end = best_end;
    }
    for (int op = 0; op < 2; op++)
        for (uint32_t i = 0; i < n[op]; i++) {
            busy += c[op].compute[i];
            m->exchanged += c[op].hop[i];
        }
    m->exposed = end - busy;
    return PPS_OK;
}

/* Tells apart ops of the same runs, of whose chunks others recompute. */
static uint32_t mix_again(const dag *d, const uint32_t *nodes, uint32_t n)
{
    uint32_t mix = 0;
    for (uint32_t i = 0; i < n && d->kept != NULL; i++) {
        const dag_run *r = &d->runs[d->node_run[nodes[i]]];
        mix = mix * 31 + pass_variant_of(d, r->chunk, nodes[i] - r->first);
    }
    return mix;
}

static pps_status find(pass_cx *cx, const uint32_t *nodes, const uint32_t *n,
                       struct interleave_memo **ret)
{
    const dag *d = cx->dag;
    uint32_t first[2] = {d->node_run[nodes[0]], d->node_run[nodes[n[0]]]};
    uint8_t pass[2] = {(uint8_t)dag_pass(d, nodes[0]), (uint8_t)dag_pass(d, nodes[n[0]])};
    uint32_t again[2] = {mix_again(d, nodes, n[0]), mix_again(d, nodes + n[0], n[1])};
    struct interleave_memo *m, **slot = &cx->memos[(first[0] * 31 + first[1]) % PASS_MEMOS];
    for (*ret = *slot; *ret != NULL; *ret = (*ret)->next)
        if ((*ret)->first[0] == first[0] && (*ret)->first[1] == first[1] && (*ret)->n[0] == n[0] &&
            (*ret)->n[1] == n[1] && (*ret)->pass[0] == pass[0] && (*ret)->pass[1] == pass[1] &&
            (*ret)->again[0] == again[0] && (*ret)->again[1] == again[1])
            return PPS_OK;
    PASS_ALLOC(m, cx->ordering, 1);
    PASS_ALLOC(m->took, cx->ordering, n[0] + n[1]);
    for (int op = 0; op < 2; op++) {
        m->first[op] = first[op];
        m->n[op] = n[op];
        m->pass[op] = pass[op];
        m->again[op] = again[op];
    }
    arena mem; /* the states of one pair: as many as the product of its lengths */
    arena_init(&mem, NULL, NULL);
    pps_status status = solve(cx, &mem, nodes, n, m);
    arena_done(&mem);
    PPS_TRY(status);
    m->next = *slot;
    *slot = *ret = m;
    return PPS_OK;
}

pps_status pass_interleave(pass_cx *cx, const uint32_t *nodes, const uint32_t *n, uint32_t n_ops,
                           uint32_t *ret)
{
    uint32_t total = 0, pair[2], *at = pair, *took;
    if (n_ops > 2)
        PASS_ALLOC(at, cx->phase, n_ops);
    for (uint32_t i = 0; i < n_ops; i++) {
        at[i] = total;
        total += n[i];
    }
    if (n_ops == 2 && n[0] > 0 && n[1] > 0) {
        struct interleave_memo *m;
        PPS_TRY(find(cx, nodes, n, &m));
        took = m->took;
        cx->exchanged += m->exchanged;
        cx->exposed += m->exposed;
    } else {
        PASS_ALLOC(took, cx->phase, total);
        PPS_TRY(merge_evenly(cx->phase, n, n_ops, took));
    }
    for (uint32_t k = 0; k < total; k++)
        ret[k] = nodes[at[took[k]]++];
    return PPS_OK;
}
