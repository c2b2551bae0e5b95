/* SPDX-License-Identifier: Apache-2.0
 *
 * pass.h: what the passes hand on to each other. Arrays over nodes are flat and named by node id.
 */
#ifndef PPS_PASS_H
#define PPS_PASS_H

#include "ir/dag.h"
#include "passes/pps_plan.h"

typedef struct pass_bind { /* what a binding of a program stands for */
    uint8_t what;          /* pass_bind_kind */
    uint32_t index; /* input or output of the chunk; GRAD_IN, GRAD_OUT: link; the last: bucket */
} pass_bind;
typedef enum pass_bind_kind {
    BIND_IN,       /* value of input k */
    BIND_OUT,      /* value of output k */
    BIND_GRAD_IN,  /* gradient that arrived over out-link `index` */
    BIND_GRAD_OUT, /* gradient this chunk sends over in-link `index` */
    BIND_SAVE_BI,  /* F to BI */
    BIND_SAVE_BW,  /* F to BW */
    BIND_HELD,     /* BI to BW */
    BIND_WORK,     /* within the step */
    BIND_CARRY,    /* c0 of this microbatch's slices: keys and values */
    BIND_CARRIED,  /* c1: their gradients */
    BIND_PARAMS,   /* parameters of bucket `index`, gathered for a window */
    BIND_GRADS,    /* gradients of bucket `index`, of a window */
} pass_bind_kind;

typedef struct pass_param_share { /* what a rank of a tensor team has of a parameter */
    bool cut;                     /* one slice of `dim`, of each of `blocks` equal parts of it */
    uint8_t dim;
    uint32_t blocks;
    bool parts; /* its gradient is a part of a sum over the team */
} pass_param_share;

typedef struct pass_program {
    uint32_t id;    /* in plan_set.programs, IR_NONE: nothing to run */
    ir_range binds; /* in pass_cx.binds */
    uint64_t work_bytes;
} pass_program;

/* What a chunk runs where what F keeps stays in memory, and where it is made again. */
typedef enum pass_variant { PASS_KEEPS, PASS_RECOMPUTES, PASS_VARIANTS } pass_variant;

typedef struct pass_chunk { /* layout of a chunk, for one unit on one rank */
    pass_program programs[PASS_VARIANTS][PPS_PASS_COUNT];
    uint64_t save_bi_bytes, save_bw_bytes; /* only PASS_KEEPS saves anything */
    uint64_t held_bytes[PASS_VARIANTS];
    uint64_t carry_bytes[2]; /* c0, c1: for all slices of a microbatch */
    uint32_t loss_first;     /* first loss slot of unit 0; the next unit's are n_loss_step on */
} pass_chunk;

enum { PASS_MEMOS = 256 };
enum { PASS_CUT_EXPERT, PASS_CUT_TENSOR }; /* plan_param.cuts: what each is */

typedef struct pass_cx {
    pps_state *st;
    ir_program *program;
    const pass_options *options;
    arena *mem;      /* lives as long as the plans */
    arena *scratch;  /* as long as the compilation */
    arena *nodes;    /* arrays over nodes: from dag to lower */
    arena *ordering; /* from order to schedule */
    arena *phase;    /* as long as one pass */
    arena_spares *spares;
    dag *dag;
    uint32_t *chunk_times; /* [chunks] which one with its tags it is, from 1 */
    uint32_t *local_rows;  /* [n_groups] batch rows of one microbatch on one rank */

    /* keep */
    uint32_t *kept_by; /* [n_chunks * n_mb] directive behind dag.kept, or IR_NONE; NULL: none */
    uint16_t (*copy_streams)[2]; /* [n_directives] of offload: out and back; before merging */

    /* order */
    uint32_t **order_of;   /* [n_groups] its compute nodes in order, updates last */
    ir_range *group_order; /* [n_groups] .n: how many */
    uint32_t *node_pos;    /* [n_nodes] compute: position in its group's order */
    uint32_t *node_slot;   /* [n_nodes] compute: its row's group, counted per device group */
    uint32_t *node_entry;  /* [n_nodes] compute: ir_program.entries index */
    uint8_t *node_overlap; /* [n_nodes] its row group has several ops */
    uint32_t *group_row;   /* [n_groups] ir_program.rows index */
    uint32_t **slot_last;  /* [n_groups][slots]: last compute node of each row group */
    uint32_t *n_slots;     /* [n_groups] */
    uint32_t *extra_src, *extra_dst; /* edges between nodes: rows with transfers, windows */
    uint32_t *extra_entry; /* the entry behind each; IR_NONE: it follows from rows that agree */
    uint32_t n_extra, cap_extra;
    struct interleave_memo *memos[PASS_MEMOS]; /* interleave.c's */
    const pass_cost **measured;                /* [chunks] machine.c's; NULL: costs from shapes */
    double exchanged, exposed; /* seconds of exchange in overlapped groups; not under compute */

    /* zero: which window of a bucket's gathered parameters a compute node uses */
    ir_range *bucket_users; /* [n_buckets] in user_chunks, ascending; NULL without zero 3 */
    uint32_t *user_chunks;
    uint32_t *user_window; /* [users][PPS_PASS_COUNT - 1][n_mb]: pass_gather_window */

    /* schedule */
    uint32_t *jit; /* [n_nodes] SEND: compute node of the receiving group its transfer waits for */
    uint32_t *sorted; /* alive nodes in one global order */
    uint32_t *seq;    /* [n_nodes] communications and copies up to it in that order */
    uint32_t *issue;  /* nodes; group g's in group_issue[g], in issue order */
    ir_range *group_issue;
    uint32_t *step; /* [n_nodes] index in its group's issue order */

    /* layout */
    pass_chunk *chunks;
    pass_bind *binds;
    uint32_t n_binds, cap_binds;
    plan_set *set; /* grows from layout on */
    uint32_t cap_programs, cap_kernels, cap_operands;
    uint32_t n_loss_step; /* loss slots per unit */

    /* tensor */
    struct pass_param_share *param_shares; /* [n_params]; NULL: no tensor directive */
    uint32_t *group_tensor;                /* [n_groups] a tensor directive about it */

    /* teams */
    uint32_t cap_teams, cap_team_ranks;
    plan_cut (*param_cuts)[PLAN_MAX_CUTS]; /* [n_params] how ranks share it out */

    /* lower */
    uint32_t *bucket_index;             /* [n_buckets] number in its plan */
    uint32_t *extra_begin, *extra_list; /* extra edges by destination node */
} pass_cx;

#define PASS(name, purpose, needs) pps_status pass_##name(pass_cx *cx);
#include "passes/passes.def"
#undef PASS

/* match.c: filters against chunks. True when `f` can match chunk `c` (its tags), whatever the
 * microbatch and pass; *ret_mbs and *ret_passes say what it asks of those (NULL: any). */
typedef struct pass_match {
    const ir_term *mb;    /* term on the tag of microbatches, or NULL */
    const ir_term *slice; /* term on the tag of their slices, or NULL */
    const ir_term *pass;  /* term on PASS, or NULL */
    const ir_term *comm;
} pass_match;
bool pass_match_chunk(const pass_cx *cx, const ir_filter *f, uint32_t chunk, pass_match *ret);
/* Does the filter name the unit, with these terms on the split's tags? */
bool pass_match_unit(const pass_cx *cx, const pass_match *m, uint32_t unit);
/* units.c: the units of work (ir/dag.h) that an entry of a row names, in the order in which it runs
 * them: microbatches ascending, in each the slices ascending forward and descending backward. */
typedef struct pass_units {
    const uint32_t *mb_set, *slice_set; /* NULL: consecutive, from mb_first and slice_first on */
    uint32_t mb_first, n_mbs, slice_first, n_slices;
    bool back;
} pass_units;
pass_units pass_entry_units(const pass_cx *cx, const ir_entry *e, pps_pass pass);
static inline uint32_t pass_n_units(const pass_units *u)
{
    return u->n_mbs * u->n_slices;
}
/* The k-th; IR_NONE where the split does not make it. */
uint32_t pass_unit(const pass_cx *cx, const pass_units *u, uint32_t k);
/* Its indices as the entry says them. */
typedef struct pass_unit_index {
    uint32_t mb, slice;
} pass_unit_index;
pass_unit_index pass_unit_at(const pass_units *u, uint32_t k);
pps_status pass_capacity(pass_cx *cx); /* capacity.c, part of the shard pass */
/* teams.c: numbers in plan_set.teams. Groups come first, each one team, with their own numbers. */
pps_status pass_teams_add(pass_cx *cx, const uint32_t *ranks, uint32_t n_ranks, uint32_t size,
                          uint32_t *ret);
pps_status pass_teams_of_groups(pass_cx *cx); /* after groups are known */
/* The teams that a directive's device lists name; together they must be the chunk's devices
 * (E0404). */
pps_status pass_teams_given(pass_cx *cx, const ir_directive *s, uint32_t chunk, uint32_t *ret);
/* Ranks of a group that have the same index in each of `by`; IR_NONE: no two do. */
pps_status pass_teams_alike(pass_cx *cx, uint32_t group, const uint32_t *by, uint32_t n_by,
                            uint32_t *ret);
/* The teams of both, of equal sizes, each once; `a` if it has all. IR_NONE: a rank has another team
 * in one than in the other. */
pps_status pass_teams_merge(pass_cx *cx, uint32_t a, uint32_t b, uint32_t *ret);
/* Ranks of these groups, all of the same shape, that hold the same slice of a parameter and
 * different shares of its gradient; IR_NONE: every rank has its gradient whole. */
pps_status pass_teams_gradients(pass_cx *cx, const uint32_t *groups, uint32_t n_groups,
                                uint32_t param, uint32_t *ret);
/* Per rank of a group: plan_set.rank_replica, .rank_part and .rank_speaks. */
pps_status pass_rank_roles(pass_cx *cx, uint32_t group, uint32_t *ret_replica, uint32_t *ret_part,
                           bool *ret_speaks);
/* tensor.c: the gradient of a parameter is the sum over one tensor team that is the whole group, so
 * that it needs no `replicate`. */
bool pass_team_sums(const pass_cx *cx, uint32_t group, uint32_t param);
/* Elements of a parameter that one rank holds. */
uint64_t pass_held_elems(const pass_cx *cx, uint32_t param);

/* driver.c: from here on the passes see `graph`, whose ops `loss_ops` are program->train's; it is
 * cut here. The caller's program stays as it is. */
pps_status pass_replace_graph(pass_cx *cx, ir_graph *graph, ir_id *loss_ops);

/* classes.c: chunks for every class of microbatches that `placed` tells apart: [n_mb][n_chunks],
 * the directive that places each; group_of: [n_directives]. */
pps_status pass_classes(pass_cx *cx, const uint32_t *placed, const uint32_t *group_of);
/* Does a directive about parameters, with this term on microbatches (or NULL), mean `chunk`? It
 * cannot mean some of the chunk's microbatches only (E0419). */
pps_status pass_match_class(pass_cx *cx, const ir_directive *s, const ir_term *mb, uint32_t chunk,
                            bool *ret);

/* A directive's "filter text" for messages: {PP: 0, EP: *}. */
const char *pass_filter_text(const pass_cx *cx, const ir_filter *f, char *buffer, size_t n);
enum { PASS_NAME_BYTES = 160 };
/* "PP0", "PP0.EP1", "PP0#2" (the second one with its tags): what plans call a chunk. */
const char *pass_chunk_name(const pass_cx *cx, uint32_t chunk, char buffer[PASS_NAME_BYTES]);
pps_status pass_count_names(pass_cx *cx); /* once before; after places are known */
/* The region must be placed on exactly the directive's devices (E0404). */
pps_status pass_check_devices(pass_cx *cx, const ir_directive *s, uint32_t chunk);
const char *pass_devices_text(const uint32_t *ranks, uint32_t n, char *buffer, size_t size);
/* Start an error at a directive, with its frames and loop variables attached. */
pps_diag *pass_diag(pass_cx *cx, const ir_directive *d, pps_span span, int code, const char *title,
                    ...) PPS_PRINTF(5, 6);

/* dag.c: the dag stream of a state's stream, or of `fallback` (made when first asked for). */
pps_status pass_stream(pass_cx *cx, uint32_t stream, const char *fallback, uint16_t *ret);
/* The in-link of sharded `chunk` that brings the counts belonging to these expert rows. */
uint32_t pass_counts_link(const dag *d, uint32_t chunk, ir_id rows);
pps_status pass_buckets(pass_cx *cx); /* buckets.c, part of the dag pass */
/* keep.c, part of the dag pass: cx->copy_streams. */
pps_status pass_copy_streams(pass_cx *cx);
/* The way back of a stream that carries transfers or copies: "pp" and "pp<". */
pps_status pass_back_stream(pass_cx *cx, uint16_t stream, uint16_t *ret);

/* interleave.c: merge the chains of an overlapped group's ops. `nodes` holds the ops' nodes one op
 * after the other, n[i] of op i; `ret` gets them in the order in which they are to run. */
pps_status pass_interleave(pass_cx *cx, const uint32_t *nodes, const uint32_t *n, uint32_t n_ops,
                           uint32_t *ret);

/* transfer_order.c: rows that name transfers, SEND(F(0, 1)), as extra edges. */
pps_status pass_transfer_order(pass_cx *cx);
/* `src` before `dst`, because of `entry` (IR_NONE: see extra_entry). Before the schedule pass. */
pps_status pass_add_extra(pass_cx *cx, uint32_t src, uint32_t dst, uint32_t entry);

/* zero.c: arrays over nodes, when there are more than `n_before` of them. */
pps_status pass_extend_nodes(pass_cx *cx, uint32_t n_before);

/* zero.c: windows of a bucket, from 0: whose gathered parameters `chunk` reads in this pass of `mb`
 * (which it does; numbered within its class), and into whose gradients microbatch `mb` is summed.
 */
uint32_t pass_gather_window(const pass_cx *cx, uint32_t bucket, uint32_t chunk, pps_pass pass,
                            uint32_t mb);
static inline uint32_t pass_reduce_window(const dag_bucket *k, uint32_t mb)
{
    return mb / k->every;
}

/* default_order.c: rows for groups that have none: 1F1B by dataflow. Adds to cx->program's rows. */
pps_status pass_default_rows(pass_cx *cx, const bool *has_row);

/* memory.c: where blocks lie, by liveness. */
typedef struct memory_uses {
    uint32_t last[4]; /* step + 1 of the last access by each stream that touches it; 0: none */
} memory_uses;
/* With its size; without offset, first and last step. */
plan_block memory_block_of(uint64_t bytes, uint8_t what);
/* (*ret)[i], in `mem`: the first step from which on every step that begins a block knows that all
 * accesses to block i are over. blocks[0..n) are sorted by `first`. lane[stream]: a number below
 * n_lanes of each stream that has steps. `clock[step * n_lanes + lane]`: the lane's highest step
 * known complete when `step` starts, plus 1. */
pps_status memory_ends(arena *mem, arena *scratch, const plan_block *blocks,
                       const memory_uses *uses, uint32_t n, const plan_step *steps,
                       uint32_t n_steps, const uint32_t *clock, const uint32_t *lane,
                       uint32_t n_lanes, uint32_t **ret);
typedef struct memory_sizes {
    uint64_t bytes, live, least; /* plan.act_bytes, .max_live_bytes, .least_bytes */
} memory_sizes;
/* Block i's bytes are its own from step `first` up to, not including, end[i]. Results: offsets,
 * *ret. PPS_ERR_LIMIT, unreported: offsets would not fit 32 bits. */
pps_status memory_place(arena *scratch, plan_block *blocks, const uint32_t *end, uint32_t n,
                        uint32_t n_steps, memory_sizes *ret);

static inline pass_variant pass_variant_of(const dag *d, uint32_t chunk, uint32_t index)
{
    return dag_keeps(d, chunk, index) == DAG_RECOMPUTE ? PASS_RECOMPUTES : PASS_KEEPS;
}
/* The program of a compute node. */
static inline const pass_program *pass_program_of(const pass_cx *cx, uint32_t node)
{
    const dag_run *r = &cx->dag->runs[cx->dag->node_run[node]];
    pass_variant variant = pass_variant_of(cx->dag, r->chunk, node - r->first);
    return &cx->chunks[r->chunk].programs[variant][dag_pass(cx->dag, node)];
}

/* offload.c: bytes that a node of OFFLOAD or FETCH copies. */
static inline uint64_t pass_copy_bytes(const pass_cx *cx, const dag_run *r)
{
    const pass_chunk *c = &cx->chunks[r->chunk];
    return r->pass == PPS_PASS_BW ? c->save_bw_bytes : c->save_bi_bytes;
}
/* sizes.c: cx->local_rows (E0210 where the batch does not divide); bytes of `tensor` as `chunk`
 * holds it, for one microbatch on one rank, and of the gradient for it that a chunk makes: the form
 * before those borders that have no way back. */
pps_status pass_local_rows(pass_cx *cx);
uint64_t pass_tensor_bytes(const pass_cx *cx, ir_id tensor, uint32_t chunk);
uint64_t pass_grad_bytes(const pass_cx *cx, ir_id tensor, uint32_t chunk);
/* A link's value as its producer makes it, between the borders of its ends, and as it is used. */
typedef struct pass_link_bytes {
    uint64_t made, wire, used;
} pass_link_bytes;
pass_link_bytes pass_bytes_of_link(const pass_cx *cx, const dag_link *k);

/* `count` zeroed items; PASS_NEW: not zeroed. */
#define PASS_ALLOC(ptr, arena_, count)                                       \
    do {                                                                     \
        (ptr) = arena_zero((arena_), ((size_t)(count) + 1) * sizeof *(ptr)); \
        if ((ptr) == NULL)                                                   \
            return PPS_ERR_NOMEM;                                            \
    } while (0)

#define PASS_NEW(ptr, arena_, count)                                        \
    do {                                                                    \
        (ptr) = arena_new((arena_), ((size_t)(count) + 1) * sizeof *(ptr)); \
        if ((ptr) == NULL)                                                  \
            return PPS_ERR_NOMEM;                                           \
    } while (0)

#endif
