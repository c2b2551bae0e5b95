/* SPDX-License-Identifier: Apache-2.0
 *
 * graph.h: the model as traced: ops over tensors and parameters, the regions they lie in, and the
 * chunks that these regions cut it into.
 *
 * Everything is named by 32-bit index into flat arrays, so growth is safe and dumps are stable. Ops
 * are in trace order, which is a topological order. Shapes are logical: batch dimensions are the
 * global batch; the compiler scales them when it splits and replicates.
 */
#ifndef PPS_IR_GRAPH_H
#define PPS_IR_GRAPH_H

#include "lang/arena.h"
#include "lang/pps.h"

typedef uint32_t ir_id;
#define IR_NONE UINT32_MAX

typedef enum ir_op_kind {
#define OP(name, text, f, bi, bw) IR_##name,
#include "ir/ops.def"
#undef OP
    IR_OP_COUNT
} ir_op_kind;

typedef enum ir_dtype { IR_F32, IR_I32 } ir_dtype; /* 4 bytes each */

enum { IR_MAX_DIMS = 4, IR_MAX_IN = 8, IR_MAX_OUT = 8, IR_MAX_PARAM = 8 };

enum {                      /* ir_tensor.flags */
       IR_TENSOR_BATCH = 1, /* dims[0] is the global batch B: scaled by split and replicate */
       IR_TENSOR_GRAD = 2,  /* a gradient flows through it */
       IR_TENSOR_ROWS =
           4, /* rows in expert order, [B, T*top_k, n]: exchanged by `shard as expert` */
       IR_TENSOR_COUNTS = 8 /* tokens per expert, int32 [experts] */
};

typedef enum ir_border {
    IR_NO_BORDER,
#define BORDER(name, text, forward, backward) IR_BORDER_##name,
#include "ir/borders.def"
#undef BORDER
    IR_BORDER_COUNT
} ir_border;

typedef struct ir_tensor {
    uint8_t dtype, n_dims, flags;
    uint8_t out;    /* which output of `op` */
    uint8_t border; /* ir_border: this is tensor `of` behind it; else the producer's own */
    uint32_t dims[IR_MAX_DIMS];
    ir_id op;           /* producer, or IR_NONE for a data input */
    ir_id data;         /* index in ir_graph.data for a data input, else IR_NONE */
    ir_id of;           /* with a border: an earlier tensor of the same op, used in another chunk */
    uint32_t directive; /* with a border: what asked for it, in ir_program.directives */
    uint32_t shift;     /* IR_BORDER_SHIFT: over how many ranks of the team */
    pps_span span;
} ir_tensor;

typedef enum ir_init { IR_INIT_NORMAL, IR_INIT_ZERO, IR_INIT_ONE } ir_init;
enum { IR_PARAM_EXPERT = 1 /* dims[0] counts experts: what `shard as expert` cuts */ };

typedef struct ir_param {
    const char *name; /* logical name, unique, e.g. "model.layers.0.mlp.gate.weight" */
    uint8_t n_dims, init, flags;
    float init_std; /* IR_INIT_NORMAL */
    uint32_t dims[IR_MAX_DIMS];
    uint32_t trace; /* see ir_op.trace */
    pps_span span;  /* the call that made it */
} ir_param;

typedef struct ir_attrs { /* what an op needs beyond shapes; unused fields are 0 */
    uint32_t heads, kv_heads, head_dim; /* ROPE, ATTENTION and its parts */
    uint32_t parts, shift; /* POSITION, ROPE, ATTENTION_PART: ranks that share a sequence, 0: none;
                            * ATTENTION_PART: the keys' owner is that many ranks before this one */
    uint32_t group;                     /* RMSNORM */
    uint32_t begin;                     /* SLICE */
    uint32_t experts, top_k, hidden;    /* ROUTER, DISPATCH, EXPERTS, COMBINE */
    uint32_t capacity; /* the same: choices that an expert takes of a batch row; 0: all */
    uint32_t vocab;                     /* CROSS_ENTROPY, EMBED */
    bool renorm;                        /* ROUTER */
    float eps, theta, aux_coef;
    double count; /* CROSS_ENTROPY, MSE: global divisor; ROUTER: B_global */
    /* OPAQUE */
    const char *host;
    uint64_t save_bytes, hold_bytes; /* per global batch */
    double flops[3];                 /* F, BI, BW per global batch */
} ir_attrs;

typedef struct ir_op {
    uint8_t kind; /* ir_op_kind */
    uint8_t n_in, n_param, n_out;
    bool cut;    /* begins a chunk of its own, also among ops of its tags */
    bool shared; /* by the ranks of its device group's tensor teams: see ops.def */
    ir_id in[IR_MAX_IN];       /* tensors */
    ir_id param[IR_MAX_PARAM]; /* IR_NONE where optional and absent */
    ir_id out[IR_MAX_OUT];
    ir_id tagset;
    uint32_t trace; /* outermost model calls before it: indices and names restart with each */
    pps_span span;
    ir_attrs attrs;
} ir_op;

/* A set of (tag, index), sorted by tag name: the regions an op lies in. Tagset 0 is empty. */
typedef struct ir_tag {
    const char *name; /* interned */
    uint32_t index;
} ir_tag;
typedef struct ir_tagset {
    uint32_t begin, n; /* in ir_graph.tags */
} ir_tagset;

/* Where a region was opened, for messages: `annotate PP` entered for the index-th time. */
typedef struct ir_region {
    const char *tag;
    uint32_t index;
    uint32_t trace; /* see ir_op.trace */
    pps_span span;
} ir_region;

typedef enum ir_data_kind { IR_DATA_TOKENS, IR_DATA_TARGETS, IR_DATA_FEATURES } ir_data_kind;
typedef struct ir_data {
    uint8_t kind;
    uint32_t key;               /* FEATURES: which stream of numbers */
    uint32_t dims[IR_MAX_DIMS]; /* B, T (, width) */
    uint8_t n_dims;
    ir_id tensor;
    pps_span span;
} ir_data;

/* A maximal run of ops with one tagset and no cut. Lists are ranges of ir_graph.lists. */
typedef struct ir_range {
    uint32_t begin, n;
} ir_range;
typedef struct ir_chunk {
    ir_id tagset;
    ir_range ops;     /* op ids, in order */
    ir_range in;      /* tensor ids from other chunks, in order of first use */
    ir_range out;     /* tensor ids used by other chunks, in whatever form */
    ir_range data;    /* indices in ir_graph.data it reads */
    ir_range params;  /* parameter ids */
    uint32_t n_loss;  /* loss slots its ops write */
    bool has_grad_in; /* some input tensor wants a gradient */
    bool has_weights; /* BW has something to do */
    pps_span span;    /* of its first op */
} ir_chunk;

typedef struct ir_graph {
    arena *mem;
    pps_state *st;
    ir_tensor *tensors;
    uint32_t n_tensors, cap_tensors;
    ir_param *params;
    uint32_t n_params, cap_params;
    ir_op *ops;
    uint32_t n_ops, cap_ops;
    ir_tag *tags;
    uint32_t n_tags, cap_tags;
    ir_tagset *tagsets;
    uint32_t n_tagsets, cap_tagsets;
    ir_region *regions;
    uint32_t n_regions, cap_regions;
    ir_data *data;
    uint32_t n_data, cap_data;
    /* by ir_graph_cut, from the ops the trained loss depends on */
    ir_chunk *chunks;
    uint32_t n_chunks;
    uint32_t *lists;
    uint32_t n_lists, cap_lists;
    ir_id *op_chunk; /* [n_ops], IR_NONE for ops the loss does not need */
} ir_graph;

/* What the op made, of a tensor behind borders. */
static inline ir_id ir_made(const ir_graph *g, ir_id tensor)
{
    while (g->tensors[tensor].border != IR_NO_BORDER)
        tensor = g->tensors[tensor].of;
    return tensor;
}

/* ops.def as data */
typedef enum ir_phase { IR_PHASE_F, IR_PHASE_BI, IR_PHASE_BW, IR_PHASE_COUNT } ir_phase;
const char *ir_op_name(ir_op_kind kind);
typedef struct ir_operand {
    char letter; /* i o p s h c d x g w l, as in ops.def */
    uint8_t index;
} ir_operand;
enum { IR_MAX_OPERANDS = 40 };
/* Has it a loss slot? */
bool ir_op_has_loss(ir_op_kind kind);
/* The operands of `op` in `phase`, in calling order (OPAQUE: from its counts). Absent optional
 * parameters are listed too. Returns how many. */
uint32_t ir_op_operands(const ir_op *op, ir_phase phase, ir_operand ret[IR_MAX_OPERANDS]);

/* Bytes of an s, h or w operand for `rows` batch rows: rows * per_row + fixed. `ep` is the number
 * of ranks that share the experts: per-row sizes of expert rows are then the worst case (see
 * ir_rows_per_batch_row). */
typedef struct ir_extent {
    uint64_t per_row, fixed;
} ir_extent;
ir_extent ir_op_extra(const ir_graph *g, const ir_op *op, ir_operand operand, uint32_t ep);
ir_extent ir_tensor_extent(const ir_graph *g, const ir_tensor *t, uint32_t ep);
/* Expert rows that one batch row of each rank can put on one rank, of T positions: T*top_k alone; with
 * the experts over `ep` ranks min(top_k, experts/ep) * T * ep, every token of every rank choosing this
 * rank's experts; under a capacity at most experts/ep * capacity * ep. `a` is of an op from ROUTER to
 * COMBINE. */
uint64_t ir_rows_per_batch_row(uint32_t T, const ir_attrs *a, uint32_t ep);
uint64_t ir_param_elems(const ir_param *p);
/* FLOPs of one phase per batch row (fixed parts excluded), for default costs. */
double ir_op_flops(const ir_graph *g, const ir_op *op, ir_phase phase);

/* Cut the part of the graph that `loss` depends on into chunks. `loss` lists the ops with a loss
 * slot that train names; router losses that feed it count too. Errors: PPS_ERR_SCRIPT with spans.
 */
pps_status ir_graph_cut(ir_graph *g, const ir_id *loss_ops, uint32_t n_loss_ops);
/* Every invariant of this header; PPS_ERR_INTERNAL with a message naming the first one broken. */
pps_status ir_graph_verify(const ir_graph *g);
/* Text form: graph, then chunks. */
void ir_graph_dump(const ir_graph *g, void (*print)(void *ud, const char *text, size_t n),
                   void *ud);
const char *ir_tagset_text(const ir_graph *g, ir_id tagset, char *buffer,
                           size_t n); /* {PP: 0, EP: 1} */

#endif
