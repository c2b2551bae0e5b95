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
 * act_offset ("bindings"); a program's operands name a binding and an offset inside it.
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
    PLAN_DATA,   /* data input `index`, the microbatch's rows */
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
    uint32_t B, T;        /* local batch rows of one microbatch, positions */
    uint32_t n_in, n_out; /* last dimension of i0 and o0 (CROSS_ENTROPY, MSE: n_in = width of i0) */
    uint32_t ep;          /* EXPERTS: ranks sharing the experts; 1 otherwise */
    uint64_t n;           /* SUM: floats; EXPERTS: most rows that fit its buffers */
    ir_attrs attrs;
} plan_kernel;

typedef struct plan_program { /* one chunk in one pass */
    uint32_t chunk;
    uint8_t pass; /* pps_pass: F, B (= BI then BW), BI, BW */
    uint32_t kernels, n_kernels;
    uint32_t n_bindings;
    uint32_t n_loss;
    double flops, bytes; /* per microbatch, for costs */
} plan_program;

typedef enum plan_step_kind {
    PLAN_COMPUTE,
    PLAN_SEND, /* to rank of `peer_group` with the same index in its group */
    PLAN_RECV,
    PLAN_ALL_REDUCE, /* bucket's gradients, summed in rank order, in place */
    PLAN_COUNTS,     /* binding 0: own int32 [experts]; binding 1: all ranks' [ep][experts] */
    PLAN_ALL_TO_ALL, /* binding 0: rows sent, 1: rows received, 2: counts [ep][experts] */
    PLAN_UPDATE,     /* optimizer on a bucket; then its gradients are zeroed */
    PLAN_STEP_KIND_COUNT
} plan_step_kind;

enum {                        /* plan_step.flags */
       PLAN_A2A_RETURN = 1,   /* rows go back to their sources (else: out to the experts' owners) */
       PLAN_STEP_OVERLAP = 2, /* belongs to an overlapped group of its row */
};

/* What a run of steps has in common: the same work for every microbatch. */
typedef struct plan_work {
    uint32_t program;    /* COMPUTE; else IR_NONE */
    uint32_t chunk;      /* chunk (comm: the consumer's); UPDATE, ALL_REDUCE: bucket index */
    uint32_t peer_group; /* SEND, RECV */
    uint32_t loss;       /* COMPUTE F: first loss slot of microbatch 0 */
    uint32_t width;      /* ALL_TO_ALL: bytes of one row */
    uint32_t experts;    /* COUNTS, ALL_TO_ALL */
    uint64_t bytes;      /* payload: SEND, RECV, ALL_REDUCE exact; ALL_TO_ALL: most */
} plan_work;

typedef struct plan_step { /* 36 bytes: plans have millions */
    uint8_t kind;
    uint8_t pass; /* pps_pass of the compute it belongs to */
    uint8_t flags;
    uint8_t n_bindings;
    uint16_t stream; /* in plan_set.streams */
    uint16_t n_waits;
    uint32_t work;      /* in plan_set.works */
    uint32_t mb;        /* microbatch; IR_NONE for per-step work */
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
    PLAN_BLOCK_ACT,  /* output of a forward chunk, own or received */
    PLAN_BLOCK_GRAD, /* gradient between chunks */
    PLAN_BLOCK_SAVE, /* F to BI */
    PLAN_BLOCK_HELD, /* F or BI to BW */
    PLAN_BLOCK_WORK, /* within one step */
} plan_block_kind;

typedef struct plan_param { /* a parameter as a group stores it */
    uint32_t param;         /* in plan_set.params */
    uint32_t shards; /* 1, or the group's size: this rank holds dims[0] slice `index` of `shards` */
    uint64_t offset; /* bytes from the begin of params, and of grads */
    uint64_t elems;  /* held here */
} plan_param;

typedef struct plan_bucket { /* contiguous range of the group's parameters, updated together */
    uint32_t first, n;       /* in plan.params */
    uint64_t offset, bytes;
    bool reduced; /* has an ALL_REDUCE step */
} plan_bucket;

typedef struct plan {
    uint32_t group;
    uint32_t n_ranks; /* of the group */
    uint32_t ranks;   /* first, in plan_set.group_ranks */
    plan_step *steps;
    uint32_t n_steps;
    uint32_t *bindings; /* in PLAN_ALIGN bytes from act_offset: plan_binding */
    uint32_t n_bindings;
    uint32_t *waits;
    uint32_t n_waits;
    plan_block *blocks;
    uint32_t n_blocks;
    plan_param *params;
    uint32_t n_params;
    plan_bucket *buckets;
    uint32_t n_buckets;
    uint64_t param_bytes, grad_offset, opt_offset, opt_bytes, data_offset, data_bytes;
    uint64_t act_offset, act_bytes, total_bytes;
    uint64_t max_live_bytes; /* lower bound on act_bytes: most bytes live at once */
    bool dropless;           /* act_bytes is a worst case: experts' rows depend on the data */
} plan;

typedef struct plan_data { /* data input k on one rank for one step: rows * row_bytes */
    uint8_t kind;          /* ir_data_kind */
    uint32_t key;
    uint32_t row_elems; /* per batch row: T or T * width; 4 bytes each */
    uint64_t offset;    /* from data_offset */
} plan_data;

typedef struct plan_loss_slot { /* in node order */
    uint32_t group;
    bool aux; /* reported as aux_loss */
} plan_loss_slot;

typedef struct plan_set {
    arena *mem;
    uint32_t n_groups, n_ranks;
    plan *plans;                       /* [n_groups] */
    uint32_t *group_ranks;             /* [n_ranks] grouped: plan g's ranks from plans[g].ranks */
    uint32_t *rank_group, *rank_index; /* [n_ranks] */
    uint32_t n_mb;                     /* microbatches per step */
    uint32_t batch;                    /* global batch rows */
    uint32_t T;                        /* positions per row of the data inputs */
    plan_work *works;
    uint32_t n_works;
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
    uint32_t n_losses, n_mb_losses; /* in all; of one microbatch */
    const char **streams;
    uint32_t n_streams;       /* stream 0 is "compute" */
    const char **chunk_names; /* "PP0", "PP0.EP1", "PP0#2" */
    uint32_t *chunk_stage; /* index of tag PP, or chunk's own index: what pictures call a stage */
    uint32_t n_chunks;
    ir_train train;
    uint32_t n_nodes, n_edges; /* of the DAG it came from */
    double bubble, makespan;   /* of the rows with unit costs; NaN where they have none */
    double hidden; /* part of the exchanges in overlapped groups under compute, by costs; -1: none */
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
/* Bytes from act_offset of binding `i` of a step. */
static inline uint64_t plan_binding(const plan *p, const plan_step *s, uint32_t i)
{
    return (uint64_t)p->bindings[s->bindings + i] * PLAN_ALIGN;
}

static inline uint64_t plan_block_bytes(const plan_block *b)
{
    return (uint64_t)b->units * PLAN_ALIGN - b->slack;
}

/* plan_text.c: one line per step. Deterministic, no pointers. */
typedef void (*ir_print_fn)(void *ud, const char *text, size_t n);
void plan_dump(const plan_set *set, uint32_t group, ir_print_fn print, void *ud);
const char *plan_step_name(plan_step_kind kind);
/* "F1:0", "SEND F1:0", "A2A BI2:3", ...: a step as traces and messages name it. */
int plan_step_label(const plan_set *set, const plan *p, const plan_step *s, char *buffer, size_t n);

#endif
