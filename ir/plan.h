/* SPDX-License-Identifier: Apache-2.0
 *
 * plan.h: what runs. A plan_set holds one plan per device group (ranks of a group run the same
 * steps on their own rows), the programs that compute steps call, and the tables that tie them to
 * parameters, data and losses. It refers to nothing else: no graph, no script, no strategy.
 *
 * One rank's memory, one block:
 *
 *   | params | grads | optimizer state | data | activations ............... |
 *   0        grad_offset ...                  act_offset        total_bytes
 *
 * Activations are slots packed by liveness: a step names its buffers by their byte offset from
 * act_offset ("bindings"); a program's operands name a binding and an offset inside it. A second
 * block, of host_bytes, is host memory: what steps copy there and fetch back has slots of its own
 * in it, which only host bindings name.
 *
 * A unit of work is a microbatch or, where sequences are split, a slice of one: number u is slice
 * u % n_slices of microbatch u / n_slices. Data lies by units: [units][rows][positions of a slice].
 *
 * Order. Steps of one plan are in issue order. Steps of one stream run one after the other in that
 * order; a step also waits for the steps in its wait list (on other streams). Nothing else orders
 * them. Communication steps of all plans carry one global sequence number: steps that belong
 * together (the send and its receive) have the same one.
 */
#ifndef PPS_IR_PLAN_H
#define PPS_IR_PLAN_H

#include "ir/directive.h"
#include "ir/graph.h"

typedef enum plan_space {
    PLAN_ABSENT, /* optional operand not there */
    PLAN_BIND,   /* act_offset + plan_binding(bind) + offset */
    PLAN_PARAM,  /* parameter `index`'s values on this rank */
    PLAN_GRAD,   /* its gradient */
    PLAN_DATA,   /* data input `index`, the unit's rows */
    PLAN_LOSS,   /* the step's loss slot `index` */
} plan_space;

typedef struct plan_operand {
    uint8_t space; /* plan_space */
    uint16_t bind; /* PLAN_BIND: which binding of the step */
    uint32_t index;
    uint64_t offset; /* PLAN_BIND: bytes inside the binding */
} plan_operand;

enum { PLAN_KERNEL_SUM = IR_OP_COUNT, PLAN_KERNEL_COUNT };
/* PLAN_KERNEL_SUM: operands o, a, b, c, ...: o = a + b + c + ... in this order, `n` floats; o may
 * be a. */

typedef struct plan_kernel {
    uint16_t op;   /* ir_op_kind or PLAN_KERNEL_SUM */
    uint8_t phase; /* ir_phase */
    uint8_t n_operands;
    uint32_t operands;    /* first, in plan_set.operands */
    uint32_t graph_op;    /* for names in messages */
    uint32_t B, T;        /* local batch rows of one microbatch, positions of one slice */
    uint32_t n_in, n_out; /* last dimension of i0 and o0 (CROSS_ENTROPY, MSE: n_in = width of i0) */
    uint32_t ep;          /* EXPERTS: ranks sharing the experts; 1 otherwise */
    uint32_t slices;      /* of a microbatch's sequences: T is one's; 1 where they are whole */
    uint32_t teams;       /* whose index says which part of its work is this rank's; IR_NONE */
    uint64_t n;           /* SUM: floats; EXPERTS: most rows that fit its buffers */
    ir_attrs attrs;
} plan_kernel;

typedef struct plan_program { /* one chunk in one pass */
    uint32_t chunk;
    uint8_t pass; /* pps_pass: F, B (= BI then BW), BI, BW */
    uint32_t kernels, n_kernels;
    uint32_t n_bindings;
    uint32_t n_loss;
    double flops, bytes; /* per unit, for costs */
} plan_program;

typedef enum plan_step_kind {
#define STEP(name, text, what, bindings) PLAN_##name,
#include "ir/steps.def"
#undef STEP
    PLAN_STEP_KIND_COUNT
} plan_step_kind;

enum { PLAN_LOCAL = 1, PLAN_TRANSFER = 2, PLAN_COLLECTIVE = 4, PLAN_BUCKET = 8, PLAN_COPY = 16 };
static inline bool plan_is(unsigned kind, unsigned what) /* any of `what` */
{
    static const uint8_t of[PLAN_STEP_KIND_COUNT] = {
#define STEP(name, text, what, bindings) [PLAN_##name] = what,
#include "ir/steps.def"
#undef STEP
    };
    return (of[kind] & what) != 0;
}
static inline const char *plan_bindings_of(unsigned kind) /* letters of steps.def, or NULL */
{
    static const char *const of[PLAN_STEP_KIND_COUNT] = {
#define STEP(name, text, what, bindings) [PLAN_##name] = bindings,
#include "ir/steps.def"
#undef STEP
    };
    return of[kind];
}

/* Between ranks: what has a sequence number. */
static inline bool plan_communicates(unsigned kind)
{
    return plan_is(kind, PLAN_TRANSFER | PLAN_COLLECTIVE);
}

enum {                          /* plan_step.flags */
       PLAN_A2A_RETURN = 1,     /* rows go back to their sources (else: out to the experts' owners);
                                 * SHIFT: back to where the values came from */
       PLAN_STEP_OVERLAP = 2,   /* belongs to an overlapped group of its row */
       PLAN_STEP_RECOMPUTE = 4, /* B, BI: runs kernels of F again first */
};

/* What a run of steps has in common: the same work for every unit. */
typedef struct plan_work {
    uint32_t program; /* COMPUTE; else IR_NONE */
    uint32_t chunk;   /* chunk (comm: the consumer's; copies: whose); PLAN_BUCKET kinds: bucket */
    uint32_t peer_group; /* SEND, RECV */
    uint32_t loss;       /* COMPUTE F: first loss slot of unit 0 */
    uint32_t width;   /* ALL_TO_ALL: bytes of one row; SEQ kinds: of one rank's positions of one */
    uint32_t experts; /* COUNTS, ALL_TO_ALL */
    uint32_t shift;   /* SHIFT: ranks of the team, below its size */
    uint32_t peer;    /* SEND, RECV: the work of the other end; else IR_NONE */
    uint32_t buffers; /* what its bindings are: first, in plan_set.work_buffers */
    uint32_t n_buffers; /* as many as its steps have bindings */
    uint32_t teams;     /* PLAN_COLLECTIVE: the ranks that take part; else IR_NONE */
    uint64_t bytes;     /* payload: transfers, copies, whole buckets exact; ALL_TO_ALL: most; a
                         * team's kinds: of the larger binding */
} plan_work;

/* What bindings stand for, wherever it lies: all works that name a buffer mean the same contents.
 * So a plan says not only where a step reads, but what it must find there. */
typedef struct plan_buffer {
    uint64_t bytes;  /* 0: there is nothing to keep, and no block */
    uint8_t what;    /* plan_block_kind */
    uint32_t bucket; /* PLAN_BLOCK_PARAMS, PLAN_BLOCK_GRADS: of its plan; else IR_NONE */
    uint32_t per; /* one for so many units: m / per is its number (of a bucket's steps, which name
                   * windows, `mb` itself); 0: numbers say nothing, only order in time does */
} plan_buffer;

typedef struct plan_step { /* 36 bytes: plans have millions */
    uint8_t kind;
    uint8_t pass; /* pps_pass of the compute it belongs to; copies: BI or BW, whose values */
    uint8_t flags;
    uint8_t n_bindings;
    uint16_t stream; /* in plan_set.streams */
    uint16_t n_waits;
    uint32_t work;      /* in plan_set.works */
    uint32_t mb;        /* unit; PLAN_BUCKET kinds: window; IR_NONE for per-step work */
    uint32_t bindings;  /* first, in plan.bindings */
    uint32_t waits;     /* first, in plan.waits */
    uint32_t seq;       /* communication: global sequence number, from 1; else 0 */
    uint32_t row_group; /* its group's position in the row of this device group, or IR_NONE */
    uint32_t place;     /* in plan_set.places: the script line that caused it */
} plan_step;

enum { PLAN_ALIGN = 64 }; /* buffers begin at, and are counted in, multiples of this */

typedef struct plan_block { /* one life of one activation buffer, for checks and pictures */
    uint32_t offset, units; /* PLAN_ALIGN bytes each */
    uint32_t first, last;   /* steps of this plan, inclusive */
    uint8_t what;           /* plan_block_kind */
    uint8_t slack;          /* bytes of the last unit that it does not have */
} plan_block;
typedef enum plan_block_kind {
    PLAN_BLOCK_ACT,    /* output of a forward chunk, own or received */
    PLAN_BLOCK_GRAD,   /* gradient between chunks */
    PLAN_BLOCK_SAVE,   /* F to BI */
    PLAN_BLOCK_HELD,   /* F or BI to BW */
    PLAN_BLOCK_WORK,   /* within one step */
    PLAN_BLOCK_PARAMS, /* a bucket's parameters, gathered for a window */
    PLAN_BLOCK_GRADS,  /* a bucket's gradients, summed over a window, not yet over ranks */
    PLAN_BLOCK_CARRY,  /* keys and values of a microbatch's slices, or their gradients */
    PLAN_BLOCK_HOST,   /* in host memory: what F kept, from its copy there to the copy back */
    PLAN_BLOCK_KIND_COUNT
} plan_block_kind;

/* A way to form teams: equal numbers of ranks, team after team in plan_set.team_ranks. Collectives
 * run in every team at once. A rank is in one team or in none; a team's ranks may run different
 * plans. The first n_groups of a set are its groups, each one team. */
typedef struct plan_teams {
    uint32_t ranks, n_ranks; /* in plan_set.team_ranks */
    uint32_t size;           /* of a team; divides n_ranks */
} plan_teams;

typedef struct plan_seat { /* of a rank in some plan_teams */
    uint32_t team, index;  /* IR_NONE both: it is in none of them */
} plan_seat;

enum { PLAN_MAX_CUTS = 2 };
typedef struct plan_cut { /* a rank holds the slice of its index in its team */
    uint32_t teams;       /* IR_NONE: not cut */
    uint8_t dim;
    uint32_t blocks; /* equal parts of `dim`, of each of which it is a slice; 1 */
} plan_cut;

typedef struct plan_param {       /* a parameter as a group stores it */
    uint32_t param;               /* in plan_set.params */
    plan_cut cuts[PLAN_MAX_CUTS]; /* of different dimensions, one after the other */
    uint64_t offset;              /* bytes from the begin of its bucket, a multiple of PLAN_ALIGN */
    uint64_t elems;               /* held by a rank that holds the bucket whole */
} plan_param;

typedef enum plan_area {
    PLAN_AREA_PARAMS,
    PLAN_AREA_GRADS,
    PLAN_AREA_OPT,
    PLAN_AREA_COUNT
} plan_area;

/* Parameters of a group that are reduced and updated together, one flat array with gaps for
 * alignment. Under `zero` its bytes divide evenly over a team: its rank i owns slice i, whatever
 * parameters that cuts, and plan.params is the table that says what lies in it.
 *
 *   | p0 ....... | p1 .. | p2 ............ | padding |
 *   | slice 0          | slice 1          | slice 2 |        stored:  zero 0  all of everything
 *                                                                    1  optimizer state of the
 * slice 2  and gradients of the slice 3  and parameters of the slice
 */
typedef struct plan_bucket {
    uint32_t first, n; /* in plan.params */
    uint64_t bytes;
    uint64_t
        offset[PLAN_AREA_COUNT]; /* bytes from the area's begin; OPT: for one state per element */
    uint32_t teams;              /* whose ranks sum their gradients; IR_NONE: nobody does */
    uint32_t slices;             /* under zero ranks of a team, else 1 */
    uint8_t zero;                /* 1..3 only with teams */
    bool spread; /* also ranks that do not speak hold slices of their own: see plan_set.rank_speaks
                  */
    uint32_t every; /* zero 2, 3: units per window, each with a REDUCE_SCATTER of its own */
} plan_bucket;

typedef struct plan {
    uint32_t group;
    uint32_t n_ranks;    /* of the group */
    uint32_t ranks;      /* first, in plan_set.group_ranks */
    uint32_t n_replicas; /* that share out the batch; less than n_ranks where several ranks work on
                            a row */
    uint32_t n_parts;    /* that share out the positions of each row; 1 */
    plan_step *steps;
    uint32_t n_steps;
    uint32_t *bindings; /* in PLAN_ALIGN bytes from act_offset: plan_binding */
    uint32_t n_bindings;
    uint32_t *waits;
    uint32_t n_waits;
    plan_block *blocks;
    uint32_t n_blocks;
    plan_block *host_blocks;
    uint32_t n_host_blocks;
    plan_param *params;
    uint32_t n_params;
    plan_bucket *buckets;
    uint32_t n_buckets;
    uint64_t param_bytes, grad_offset, opt_offset, opt_bytes, data_offset, data_bytes;
    /* opt_offset: state s of the bytes at x of the OPT area are in [opt_offset + states * x, ...)
     */
    uint64_t act_offset, act_bytes, total_bytes;
    /* Lower bounds on act_bytes. Live: most bytes in use at one step, from each buffer's first step
     * to its last. Least: most bytes held at one step, a buffer being held until every later step
     * that begins one knows that its last use has ended (happens-before): no placing can do with
     * less. */
    uint64_t max_live_bytes, least_bytes;
    uint64_t host_bytes, host_live_bytes; /* of host memory, and most bytes in use there */
    bool dropless; /* act_bytes is a worst case: experts' rows depend on the data, and no capacity
                    * bounds them */
} plan;

typedef struct plan_data { /* data input k on one rank for one step: rows * row_bytes */
    uint8_t kind;          /* ir_data_kind */
    uint32_t key;
    uint32_t
        row_elems;   /* per batch row: T or T * width; 4 bytes each. A rank has plan.n_parts'th */
    uint64_t offset; /* from data_offset */
} plan_data;

typedef struct plan_loss_slot { /* in node order */
    uint32_t group;
    bool aux; /* reported as aux_loss */
} plan_loss_slot;

typedef struct plan_set {
    arena *mem;
    uint32_t n_groups, n_ranks;
    plan *plans;           /* [n_groups] */
    uint32_t *group_ranks; /* [n_ranks] grouped: plan g's ranks from plans[g].ranks */
    /* as group_ranks: which of the batch's n_replicas and which of the positions' n_parts it works
     * on, and whether it speaks for ranks that do the same (reports losses, exports what all have)
     */
    uint32_t *rank_replica, *rank_part;
    bool *rank_speaks;
    uint32_t *rank_group, *rank_index; /* [n_ranks] */
    uint32_t n_mb;                     /* units per step: microbatches, or their slices */
    uint32_t n_slices;                 /* units of one microbatch; 1 where sequences are whole */
    const char *slice_tag;             /* what names slices; NULL where nothing splits sequences */
    uint32_t batch;                    /* global batch rows */
    uint32_t T;                        /* positions per row of the data inputs */
    plan_teams *teams;
    uint32_t n_teams;
    uint32_t *team_ranks;
    uint32_t n_team_ranks;
    plan_work *works;
    uint32_t n_works;
    plan_buffer *buffers;
    uint32_t n_buffers;
    uint32_t *work_buffers; /* in `buffers` */
    uint32_t n_work_buffers;
    pps_span *places; /* [0]: none */
    uint32_t n_places;
    plan_program *programs;
    uint32_t n_programs;
    plan_kernel *kernels;
    uint32_t n_kernels;
    plan_operand *operands;
    uint32_t n_operands;
    ir_param *params; /* copies; names owned by mem */
    uint32_t n_params;
    plan_data *data;
    uint32_t n_data;
    plan_loss_slot *losses;
    uint32_t n_losses, n_mb_losses; /* in all; of one unit */
    const char **streams;
    uint32_t n_streams;       /* stream 0 is "compute" */
    const char **chunk_names; /* "PP0", "PP0.EP1", "PP0#2" */
    uint32_t *chunk_stage; /* index of tag PP, or chunk's own index: what pictures call a stage */
    uint32_t
        *chunk_model; /* chunk of the model; several are the same one for different microbatches */
    uint32_t n_chunks;
    ir_train train;
    uint32_t n_nodes, n_edges; /* of the DAG it came from */
    double bubble, makespan;   /* of the rows with unit costs; NaN where they have none */
    double
        hidden; /* part of the exchanges in overlapped groups under compute, by costs; -1: none */
    double compile_ms;
    char **row_text; /* [n_groups] canonical row each group runs, "" when it has none */
} plan_set;

static inline const plan_work *plan_work_of(const plan_set *set, const plan_step *s)
{
    return &set->works[s->work];
}
static inline pps_span plan_place_of(const plan_set *set, const plan_step *s)
{
    return set->places[s->place];
}
/* Does rank i of the group store slice i alone? */
static inline bool plan_sliced(const plan_bucket *b, plan_area area)
{
    static const uint8_t from[PLAN_AREA_COUNT] = {
        [PLAN_AREA_PARAMS] = 3, [PLAN_AREA_GRADS] = 2, [PLAN_AREA_OPT] = 1};
    return b->zero >= from[area];
}
static inline bool plan_reduced(const plan_bucket *b)
{
    return b->teams != IR_NONE;
}
static inline uint64_t plan_slice_bytes(const plan_bucket *b)
{
    return b->bytes / b->slices;
}
static inline uint64_t plan_stored_bytes(const plan_bucket *b, plan_area area)
{
    return plan_sliced(b, area) ? plan_slice_bytes(b) : b->bytes;
}
/* The slice of a bucket that the rank with these seats owns; 0 where there are no slices. */
static inline uint32_t plan_slice_of(const plan_bucket *b, const plan_seat *seats)
{
    return b->slices > 1 ? seats[b->teams].index : 0;
}
/* Where the bucket's byte 0 lies, from the area's begin. Of a sliced bucket only the slice's bytes
 * are there; its byte 0 may be before the area (modulo 2^64). */
static inline uint64_t plan_bucket_at(const plan_bucket *b, plan_area area, uint32_t slice)
{
    return b->offset[area] - (plan_sliced(b, area) ? slice * plan_slice_bytes(b) : 0);
}
/* Bytes [begin, end) of the bucket that belong to parameter `q` and, if `sliced`, to the rank's
 * slice; begin == end where nothing does. */
typedef struct plan_piece {
    uint64_t begin, end;
} plan_piece;
static inline plan_piece plan_piece_of(const plan_bucket *b, const plan_param *q, bool sliced,
                                       uint32_t slice)
{
    plan_piece piece = {q->offset, q->offset + q->elems * 4};
    uint64_t begin = slice * plan_slice_bytes(b), end = begin + plan_slice_bytes(b);
    if (sliced && piece.begin < begin)
        piece.begin = begin;
    if (sliced && piece.end > end)
        piece.end = end;
    if (piece.begin >= piece.end)
        piece.end = piece.begin;
    return piece;
}
/* Is binding `i` of a step in host memory? Else it is among the activations. */
static inline bool plan_host_binding(const plan_step *s, uint32_t i)
{
    return i == 1 && plan_is(s->kind, PLAN_COPY);
}
/* Bytes from act_offset, or from the begin of host memory, of binding `i` of a step. */
static inline uint64_t plan_binding(const plan *p, const plan_step *s, uint32_t i)
{
    return (uint64_t)p->bindings[s->bindings + i] * PLAN_ALIGN;
}

static inline uint64_t plan_block_bytes(const plan_block *b)
{
    return (uint64_t)b->units * PLAN_ALIGN - b->slack;
}

/* plan_teams.c */
/* ret[i]: the seat of `rank` in set->teams[i]. */
void plan_find_seats(const plan_set *set, uint32_t rank, plan_seat *ret);
/* A stretch of a held parameter that lies together in the logical parameter too. */
typedef struct plan_run {
    uint64_t first, n; /* elements of the logical parameter */
} plan_run;
/* The longest run beginning at element `at` (< q->elems) of what the rank with these seats holds of
 * `q`, at most to element `end` of it. */
plan_run plan_held_run(const plan_set *set, const plan_param *q, const plan_seat *seats,
                       uint64_t at, uint64_t end);

/* plan_text.c: one line per step. Deterministic, no pointers. */
typedef void (*ir_print_fn)(void *ud, const char *text, size_t n);
void plan_dump(const plan_set *set, uint32_t group, ir_print_fn print, void *ud);
const char *plan_step_name(plan_step_kind kind);
/* "F1:0", "SEND F1:0", "A2A BI2:3", ...: a step as traces and messages name it. */
int plan_step_label(const plan_set *set, const plan *p, const plan_step *s, char *buffer, size_t n);

#endif
