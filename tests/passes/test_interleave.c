/* SPDX-License-Identifier: Apache-2.0
 *
 * The order of an overlapped group: chains kept in their own order; two of them merged so that the
 * pair ends no later than merged alternately or evenly, and about as early as any merge can; groups
 * of the same runs merged alike. Costs are made by hand: chunk c is one op of given FLOPs, the link
 * to chunk c + 1 an exchange of given bytes, on a machine of one of each per second.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "passes/machine.h"

enum { CHUNKS = 300, N_MB = 2, MOST_NODES = 512 };

/* ---- A DAG of one long chain of chunks ---------------------------------------------------------
 */

typedef struct bench {
    arena ordering, phase;
    pass_cx cx;
    pass_options options;
    pass_machine machine;
    ir_program program;
    ir_graph graph;
    dag dag;
    ir_tensor tensors[CHUNKS]; /* chunk c's output, the next one's input */
    ir_op ops[CHUNKS];
    ir_chunk chunks[CHUNKS];
    uint32_t lists[CHUNKS];
    dag_chunk placed[CHUNKS];
    dag_link links[CHUNKS];
    uint32_t link_lists[CHUNKS];
    dag_run runs[5 * CHUNKS]; /* F, B, BW by chunk, then each link's exchanges */
    uint32_t node_run[5 * CHUNKS * N_MB];
    uint8_t split_bw[CHUNKS * N_MB];
    uint32_t local_rows[1];
} bench;

static uint32_t seed;

static uint32_t random_below(uint32_t n)
{
    seed = seed * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)(seed >> 8) * n) >> 24);
}

static uint32_t add_run(bench *b, dag_run run)
{
    uint32_t id = b->dag.n_runs++;
    run.n = N_MB;
    run.first = id * N_MB;
    for (uint32_t m = 0; m < N_MB; m++)
        b->node_run[run.first + m] = id;
    b->runs[id] = run;
    return id;
}

static void bench_open(bench *b)
{
    memset(b, 0, sizeof *b);
    arena_init(&b->ordering, NULL, NULL);
    arena_init(&b->phase, NULL, NULL);
    b->machine = (pass_machine){.flops = 1, .bytes = 1};
    b->options.machine = &b->machine;
    b->local_rows[0] = 1;
    b->program.graph = &b->graph;
    b->graph = (ir_graph){.tensors = b->tensors,
                          .n_tensors = CHUNKS,
                          .ops = b->ops,
                          .n_ops = CHUNKS,
                          .chunks = b->chunks,
                          .n_chunks = CHUNKS,
                          .lists = b->lists};
    b->dag = (dag){.graph = &b->graph,
                   .n_mb = N_MB,
                   .n_slices = 1,
                   .chunks = b->placed,
                   .links = b->links,
                   .n_links = CHUNKS - 1,
                   .link_lists = b->link_lists,
                   .runs = b->runs,
                   .node_run = b->node_run,
                   .split_bw = b->split_bw};
    b->cx = (pass_cx){.program = &b->program,
                      .options = &b->options,
                      .scratch = &b->phase,
                      .ordering = &b->ordering,
                      .phase = &b->phase,
                      .dag = &b->dag,
                      .local_rows = b->local_rows};
    for (uint32_t c = 0; c < CHUNKS; c++) {
        b->tensors[c] = (ir_tensor){.n_dims = 2, .dims = {1, 1}, .op = c, .data = IR_NONE};
        b->ops[c] = (ir_op){.kind = IR_OPAQUE, .n_in = 1, .n_param = 1, .n_out = 1, .out = {c}};
        b->lists[c] = b->link_lists[c] = c;
        b->chunks[c] = (ir_chunk){.ops = {c, 1}};
        b->placed[c] = (dag_chunk){.ep = 1, .out_links = {c, c + 1 < CHUNKS}};
        add_run(b, (dag_run){.kind = PLAN_COMPUTE, .pass = PPS_PASS_F, .chunk = c});
        add_run(b, (dag_run){.kind = PLAN_COMPUTE, .pass = PPS_PASS_BI, .chunk = c});
        add_run(b, (dag_run){.kind = PLAN_COMPUTE, .pass = PPS_PASS_BW, .chunk = c});
    }
    for (uint32_t l = 0; l + 1 < CHUNKS; l++) {
        b->links[l] = (dag_link){.made = l,
                                 .wire = l,
                                 .tensor = l,
                                 .src = l,
                                 .dst = l + 1,
                                 .border = {IR_NO_BORDER, IR_BORDER_ROWS},
                                 .f_border = {IR_NONE, IR_NONE},
                                 .b_border = {IR_NONE, IR_NONE},
                                 .carrier = l};
        dag_run run = {.kind = PLAN_ALL_TO_ALL,
                       .pass = PPS_PASS_F,
                       .chunk = l + 1,
                       .link = l,
                       .teams = IR_NONE};
        b->links[l].f_border[DAG_DST] = add_run(b, run);
        run.pass = PPS_PASS_BI;
        b->links[l].b_border[DAG_DST] = add_run(b, run);
    }
}

static void bench_close(bench *b)
{
    arena_done(&b->ordering);
    arena_done(&b->phase);
}

static void set_compute(bench *b, uint32_t chunk, double f, double bi, double bw)
{
    double *flops = b->ops[chunk].attrs.flops;
    flops[IR_PHASE_F] = f, flops[IR_PHASE_BI] = bi, flops[IR_PHASE_BW] = bw;
}

/* Of the link from `chunk` to the next, in units of four bytes; 0: nothing is exchanged there. */
static void set_hop(bench *b, uint32_t chunk, uint32_t units)
{
    dag_link *k = &b->links[chunk];
    b->tensors[chunk].dims[1] = units;
    uint32_t first = 3 * CHUNKS + 2 * chunk;
    k->f_border[DAG_DST] = units > 0 ? first : IR_NONE;
    k->b_border[DAG_DST] = units > 0 ? first + 1 : IR_NONE;
}

/* ---- Groups ------------------------------------------------------------------------------------
 */

typedef struct group {
    uint32_t nodes[MOST_NODES], n[2], total;
    double compute[MOST_NODES], hop[MOST_NODES]; /* hop: before the node, in its op */
} group;

/* `n` chunks from `first` on, forward or backward, as op `which` of the group. */
static void add_op(group *g, const bench *b, uint32_t which, pps_pass pass, uint32_t first,
                   uint32_t n, uint32_t mb)
{
    static const uint32_t run_of_pass[PPS_PASS_COUNT] = {
        [PPS_PASS_F] = 0, [PPS_PASS_B] = 1, [PPS_PASS_BI] = 1, [PPS_PASS_BW] = 2};
    const pass_cx *cx = &b->cx;
    g->n[which] = n;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t at = g->total++, chunk = pass == PPS_PASS_F ? first + i : first + n - 1 - i;
        g->nodes[at] = b->runs[3 * chunk + run_of_pass[pass]].first + mb;
        g->compute[at] = pass == PPS_PASS_F ? machine_compute(cx, chunk, IR_PHASE_F) : 0.0;
        if (pass == PPS_PASS_B || pass == PPS_PASS_BI)
            g->compute[at] += machine_compute(cx, chunk, IR_PHASE_BI);
        if (pass == PPS_PASS_B || pass == PPS_PASS_BW)
            g->compute[at] += machine_compute(cx, chunk, IR_PHASE_BW);
        uint32_t link = pass == PPS_PASS_F ? chunk - 1 : chunk;
        g->hop[at] = 0.0;
        if (i == 0)
            continue;
        const dag_link *k = &b->links[link];
        uint32_t run = pass == PPS_PASS_F ? k->f_border[DAG_DST] : k->b_border[DAG_DST];
        if (run != IR_NONE)
            g->hop[at] = machine_hop(cx, &b->runs[run]);
    }
}

/* When the group ends, its nodes run in `order` (indices in the group): one compute at a time, one
 * exchange at a time, each exchange as soon as its producer is done. */
static double end_of(const group *g, const uint32_t *order)
{
    double compute = 0.0, link = 0.0, arrived[2] = {0.0, 0.0};
    for (uint32_t k = 0; k < g->total; k++) {
        uint32_t i = order[k], op = i >= g->n[0];
        bool last = i + 1 == g->n[0] || i + 1 == g->total;
        compute = (compute > arrived[op] ? compute : arrived[op]) + g->compute[i];
        arrived[op] = compute;
        if (!last && g->hop[i + 1] > 0.0) {
            link = (link > compute ? link : compute) + g->hop[i + 1];
            arrived[op] = link;
        }
    }
    return compute;
}

/* Merge; checks that each op's nodes come in order and once. ret[k]: index in the group. */
static double merge(bench *b, const group *g, uint32_t *ret)
{
    uint32_t out[MOST_NODES], next[2] = {0, g->n[0]};
    assert_int_equal(pass_interleave(&b->cx, g->nodes, g->n, 2, out), PPS_OK);
    for (uint32_t k = 0; k < g->total; k++) {
        uint32_t op = next[0] == g->n[0] || g->nodes[next[0]] != out[k];
        assert_true(next[op] < (op ? g->total : g->n[0]));
        assert_int_equal(g->nodes[next[op]], out[k]);
        ret[k] = next[op]++;
    }
    return end_of(g, ret);
}

/* a b a b ..., beginning with op `first`; what one has more than the other comes last. */
static double alternate(const group *g, uint32_t first)
{
    uint32_t order[MOST_NODES], next[2] = {0, g->n[0]};
    const uint32_t end[2] = {g->n[0], g->total};
    for (uint32_t k = 0, op = first; k < g->total; k++, op = !op) {
        if (next[op] == end[op])
            op = !op;
        order[k] = next[op]++;
    }
    return end_of(g, order);
}

/* The node whose middle lies earliest in its chain, ties to the first op. */
static double evenly(const group *g)
{
    uint32_t order[MOST_NODES], taken[2] = {0, 0};
    for (uint32_t k = 0; k < g->total; k++) {
        bool second =
            taken[0] == g->n[0] ||
            (taken[1] < g->n[1] && (2 * taken[1] + 1) * g->n[0] < (2 * taken[0] + 1) * g->n[1]);
        order[k] = second ? g->n[0] + taken[1] : taken[0];
        taken[second]++;
    }
    return end_of(g, order);
}

/* The earliest end of all merges: order[0..k) is chosen. */
static double earliest(const group *g, uint32_t *order, uint32_t k, uint32_t a, uint32_t b)
{
    double best = 0.0;
    bool any = false;
    if (k == g->total)
        return end_of(g, order);
    for (uint32_t op = 0; op < 2; op++) {
        if (op == 0 ? a == g->n[0] : b == g->n[1])
            continue;
        order[k] = op == 0 ? a : g->n[0] + b;
        double end = earliest(g, order, k + 1, a + (op == 0), b + (op == 1));
        best = !any || end < best ? end : best;
        any = true;
    }
    return best;
}

static double busy(const group *g)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < g->total; i++)
        sum += g->compute[i];
    return sum;
}

static double exchanged(const group *g)
{
    double sum = 0.0;
    for (uint32_t i = 0; i < g->total; i++)
        sum += g->hop[i];
    return sum;
}

/* ---- Any number of ops -------------------------------------------------------------------------
 */

/* Op i's nodes are forwards of its own chunks: merged "a0 b0 a1" is written "aba". */
static void check_merge(const char *want, uint32_t n_ops, const uint32_t *n)
{
    static bench b;
    uint32_t nodes[MOST_NODES] = {0}, ret[MOST_NODES], op_of[CHUNKS], begin[100], next[100] = {0};
    uint32_t total = 0;
    char text[MOST_NODES + 1];
    bench_open(&b);
    for (uint32_t i = 0; i < n_ops; i++) {
        begin[i] = total;
        for (uint32_t k = 0; k < n[i]; k++, total++) {
            assert_true(total < CHUNKS);
            op_of[total] = i;
            nodes[total] = b.runs[3 * total].first;
            set_compute(&b, total, 1, 1, 1);
            set_hop(&b, total, k + 1 < n[i]);
        }
    }
    assert_int_equal(pass_interleave(&b.cx, nodes, n, n_ops, ret), PPS_OK);
    for (uint32_t k = 0; k < total; k++) {
        uint32_t chunk = b.runs[b.node_run[ret[k]]].chunk, op = op_of[chunk];
        assert_int_equal(chunk, begin[op] + next[op]); /* in order, each node once */
        next[op]++;
        text[k] = (char)('a' + op % 26);
    }
    text[total] = '\0';
    for (uint32_t i = 0; i < n_ops; i++)
        assert_int_equal(next[i], n[i]);
    if (want != NULL)
        assert_string_equal(text, want);
    bench_close(&b);
}

static void chains_are_merged_evenly(void **state)
{
    (void)state;
    check_merge("ababab", 2, (const uint32_t[]){3, 3});
    check_merge("aabaa", 2, (const uint32_t[]){4, 1});
    check_merge("abcabc", 3, (const uint32_t[]){2, 2, 2});
    check_merge("aaa", 1, (const uint32_t[]){3});
    check_merge("bbb", 2, (const uint32_t[]){0, 3});
    check_merge("ab", 2, (const uint32_t[]){1, 1}); /* ties go to the op named first */
    check_merge("babbab", 2, (const uint32_t[]){2, 4});
    check_merge("", 2, (const uint32_t[]){0, 0});
}

/* As many ops as a row can name: each has its turn, before any has its next. */
static void many_ops_take_turns(void **state)
{
    (void)state;
    uint32_t n[100];
    char want[3 * 100 + 1];
    for (uint32_t n_ops = 64; n_ops <= 100; n_ops++) {
        for (uint32_t i = 0; i < n_ops; i++) {
            n[i] = 3;
            for (uint32_t k = 0; k < 3; k++)
                want[k * n_ops + i] = (char)('a' + i % 26);
        }
        want[3 * n_ops] = '\0';
        check_merge(want, n_ops, n);
    }
}

static void any_lengths_keep_every_node(void **state)
{
    (void)state;
    seed = 7;
    for (uint32_t trial = 0; trial < 300; trial++) {
        uint32_t n[70], n_ops = 1 + trial % 70, left = CHUNKS;
        for (uint32_t i = 0; i < n_ops; i++) {
            n[i] = random_below(8);
            n[i] = n[i] > left ? left : n[i];
            left -= n[i];
        }
        check_merge(NULL, n_ops, n);
    }
}

/* Between two nodes of the longer chain stands a node of the other wherever there are enough. */
static void neighbours_of_equal_chains_alternate(void **state)
{
    static bench b;
    (void)state;
    bench_open(&b);
    for (uint32_t c = 0; c < CHUNKS; c++) {
        set_compute(&b, c, 5, 3, 2);
        set_hop(&b, c, 1);
    }
    for (uint32_t a = 1; a <= 60; a++) {
        group g = {.total = 0};
        uint32_t order[MOST_NODES];
        add_op(&g, &b, 0, PPS_PASS_F, 0, a, 0);
        add_op(&g, &b, 1, PPS_PASS_B, CHUNKS / 2, a, 1);
        merge(&b, &g, order);
        for (uint32_t i = 0; i < 2 * a; i++)
            assert_int_equal(order[i], i % 2 * a + i / 2);
    }
    bench_close(&b);
}

/* ---- Two ops by cost ---------------------------------------------------------------------------
 */

/* Costs of a kind each: about equal, exchanges for nothing, exchanges that dominate, some chunks
 * that are nearly free, no exchange at every second link. */
static void random_costs(bench *b, uint32_t kind)
{
    for (uint32_t c = 0; c < CHUNKS; c++) {
        double scale = kind == 3 && random_below(2) ? 0.01 : 1.0;
        set_compute(b, c, scale * (1 + random_below(40)), scale * (1 + random_below(40)),
                    scale * random_below(40));
        set_hop(b, c,
                kind == 1                      ? random_below(2)
                : kind == 2                    ? 10 + random_below(30)
                : kind == 4 && random_below(2) ? 0
                                               : 1 + random_below(10));
    }
    b->machine.latency = kind == 2 ? 5 : 0.5;
}

static void random_group(group *g, const bench *b, uint32_t most)
{
    static const pps_pass passes[] = {PPS_PASS_F, PPS_PASS_B};
    g->total = 0;
    for (uint32_t op = 0; op < 2; op++)
        add_op(g, b, op, passes[random_below(2)], op * (CHUNKS / 2) + random_below(60),
               1 + random_below(most), random_below(N_MB));
}

static void no_merge_ends_much_earlier(void **state)
{
    static bench b;
    (void)state;
    uint32_t better = 0;
    for (uint32_t trial = 0; trial < 1000; trial++) {
        group g;
        uint32_t order[MOST_NODES];
        seed = trial;
        bench_open(&b);
        random_costs(&b, trial % 5);
        random_group(&g, &b, 6);
        double end = merge(&b, &g, order), best = earliest(&g, order, 0, 0, 0);
        if (end * 0.99 > best * (1 + 1e-9))
            fail_msg("trial %u: %g, the best is %g", trial, end, best);
        better += end < evenly(&g) * 0.99;
        assert_true(end >= busy(&g) * (1 - 1e-9));
        bench_close(&b);
    }
    assert_true(better > 100); /* costs matter */
}

static void long_chains_end_no_later_than_alternating(void **state)
{
    static bench b;
    (void)state;
    for (uint32_t trial = 0; trial < 600; trial++) {
        group g;
        uint32_t order[MOST_NODES];
        seed = trial;
        bench_open(&b);
        random_costs(&b, trial % 5);
        random_group(&g, &b, 40);
        double end = merge(&b, &g, order), slack = 1 + 1e-9;
        assert_true(end <= evenly(&g) * slack);
        /* within what does not count as shorter, and nothing else */
        assert_true(end * 0.99 <= alternate(&g, 0) * slack);
        assert_true(end * 0.99 <= alternate(&g, 1) * slack);
        assert_true(end >= busy(&g) * (1 - 1e-9));
        /* what cx adds up says the same */
        assert_true(b.cx.exchanged >= exchanged(&g) * (1 - 1e-9) &&
                    b.cx.exchanged <= exchanged(&g) * slack);
        double exposed = end - busy(&g);
        assert_true(b.cx.exposed >= exposed - end * 1e-9 && b.cx.exposed <= exposed + end * 1e-9);
        bench_close(&b);
    }
}

/* Where each compute is longer than each exchange, and neither op alone, all exchanges are hidden.
 */
static void cheap_exchanges_are_hidden(void **state)
{
    static bench b;
    (void)state;
    for (uint32_t n = 2; n <= 30; n++) {
        group g = {.total = 0};
        uint32_t order[MOST_NODES];
        seed = n;
        bench_open(&b);
        for (uint32_t c = 0; c < CHUNKS; c++) {
            set_compute(&b, c, 41 + random_below(40), 41 + random_below(40), random_below(40));
            set_hop(&b, c, 1 + random_below(10));
        }
        add_op(&g, &b, 0, PPS_PASS_F, 0, n, 0);
        add_op(&g, &b, 1, PPS_PASS_B, CHUNKS / 2, n, 0);
        double end = merge(&b, &g, order);
        assert_true(end <= busy(&g) * (1 + 1e-9));
        for (uint32_t i = 1; i < g.total; i++) /* an exchange has the other op's compute over it */
            assert_true((order[i] < n) != (order[i - 1] < n));
        bench_close(&b);
    }
}

/* ---- Answers found before ----------------------------------------------------------------------
 */

static void groups_of_the_same_runs_are_merged_alike(void **state)
{
    static bench b;
    (void)state;
    for (uint32_t trial = 0; trial < 100; trial++) {
        uint32_t first[2] = {random_below(20), CHUNKS / 2 + random_below(20)};
        uint32_t n[2] = {2 + random_below(12), 2 + random_below(12)};
        uint32_t orders[3][MOST_NODES];
        double ends[3], sum = 0.0, exposed = 0.0;
        seed = trial;
        bench_open(&b);
        random_costs(&b, trial % 5);
        for (uint32_t k = 0; k < 3; k++) { /* the third: other microbatches of the same runs */
            group g = {.total = 0};
            add_op(&g, &b, 0, PPS_PASS_F, first[0], n[0], k == 2);
            add_op(&g, &b, 1, PPS_PASS_B, first[1], n[1], k != 2);
            ends[k] = merge(&b, &g, orders[k]);
            sum += exchanged(&g);
            exposed += ends[k] - busy(&g);
            assert_memory_equal(orders[k], orders[0], g.total * sizeof orders[k][0]);
            assert_true(ends[k] == ends[0]);
        }
        assert_true(b.cx.exchanged >= sum * (1 - 1e-9) && b.cx.exchanged <= sum * (1 + 1e-9));
        double slack = ends[0] * 1e-9;
        assert_true(b.cx.exposed >= exposed - slack && b.cx.exposed <= exposed + slack);
        bench_close(&b);
    }
}

/* Two groups that differ in one thing alone: its answer is its own, also when the other was asked
 * before. F is of microbatch 0; of a backward, microbatch 0 runs B and 1 runs BI. */
typedef struct asked {
    pps_pass pass[2];
    uint32_t first[2], n[2];
} asked;

static void open_with_halves(bench *b, uint32_t trial)
{
    bench_open(b);
    seed = trial;
    random_costs(b, trial % 5);
    for (uint32_t c = 0; c < CHUNKS; c++) {
        b->ops[c].attrs.flops[IR_PHASE_BW] *= 10;
        b->split_bw[c * N_MB + 1] = 1;
    }
}

static uint32_t ask(bench *b, const asked *a, uint32_t *ret_order)
{
    group g = {.total = 0};
    for (uint32_t op = 0; op < 2; op++)
        add_op(&g, b, op, a->pass[op], a->first[op], a->n[op], a->pass[op] == PPS_PASS_BI);
    merge(b, &g, ret_order);
    return g.total;
}

static void groups_of_other_runs_are_not(void **state)
{
    static const asked base = {{PPS_PASS_F, PPS_PASS_B}, {5, 10}, {6, 6}};
    /* the last three have the base's place in the memo table: of 256, at 31 * first + second run */
    static const asked others[] = {
        {{PPS_PASS_F, PPS_PASS_BI}, {5, 10}, {6, 6}},  {{PPS_PASS_F, PPS_PASS_B}, {5, 10}, {5, 6}},
        {{PPS_PASS_F, PPS_PASS_B}, {5, 11}, {6, 5}},   {{PPS_PASS_F, PPS_PASS_B}, {13, 18}, {6, 6}},
        {{PPS_PASS_F, PPS_PASS_B}, {261, 10}, {6, 6}}, {{PPS_PASS_F, PPS_PASS_B}, {5, 266}, {6, 6}},
    };
    static bench b, fresh;
    enum { N = sizeof others / sizeof *others };
    _Static_assert(PASS_MEMOS == 256, "the cases above count on it");
    uint32_t differ[N] = {0};
    (void)state;
    for (uint32_t trial = 0; trial < 200; trial++)
        for (uint32_t k = 0; k < N; k++) {
            uint32_t orders[3][MOST_NODES] = {{0}};
            open_with_halves(&b, trial);
            open_with_halves(&fresh, trial);
            ask(&b, &base, orders[0]);
            uint32_t total = ask(&b, &others[k], orders[1]);
            ask(&fresh, &others[k], orders[2]);
            assert_memory_equal(orders[1], orders[2], total * sizeof orders[0][0]);
            differ[k] += memcmp(orders[0], orders[1], total * sizeof orders[0][0]) != 0;
            bench_close(&b);
            bench_close(&fresh);
        }
    for (uint32_t k = 0; k < N; k++)
        assert_true(differ[k] > 10); /* so the answers can be told apart */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(chains_are_merged_evenly),
        cmocka_unit_test(many_ops_take_turns),
        cmocka_unit_test(any_lengths_keep_every_node),
        cmocka_unit_test(neighbours_of_equal_chains_alternate),
        cmocka_unit_test(no_merge_ends_much_earlier),
        cmocka_unit_test(long_chains_end_no_later_than_alternating),
        cmocka_unit_test(cheap_exchanges_are_hidden),
        cmocka_unit_test(groups_of_the_same_runs_are_merged_alike),
        cmocka_unit_test(groups_of_other_runs_are_not),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
