/* SPDX-License-Identifier: Apache-2.0
 *
 * dag.h: the global training DAG: every compute and every communication of one training step, a
 * node being one of these on one device group.
 *
 * Microbatches repeat one structure, so the DAG is stored by runs: a run is the same node for every
 * microbatch (n = microbatches) or once per step (n = 1), and its nodes are numbered consecutively:
 *
 *     node = run.first + microbatch          edge (a -> b): a's node of microbatch m to b's node of
 * m, or all of a's nodes to the one of b
 *
 * Where sequences are split too, a microbatch is n_slices units of work, and a unit is what one
 * node is of: unit = microbatch * n_slices + slice. Everything named `mb` that counts nodes then
 * counts units. A carried run has edges of its own between the units of one microbatch: forward
 * from slice to slice, since attention reads the keys and values of earlier positions; backward the
 * other way.
 *
 *     F(c)  slice 0 -> slice 1 -> slice 2        B(c)  slice 2 -> slice 1 -> slice 0
 *
 * Where a chunk lies may depend on the microbatch. Microbatches that have every chunk on the same
 * group form a class, and each class has chunks and runs of its own: then `microbatch` above is the
 * number within the class (`dag_mb` says which microbatch that is). Chunks stand class after class.
 *
 * Runs of several groups may be one operation: a send and its receive, a collective whose team has
 * ranks of several groups. Such runs are a list, from `lead` along `next`, and their nodes begin
 * and end together.
 *
 * What a pass adds between runs costs nothing per microbatch; what is ordered per node (rows) lives
 * in flat arrays over nodes. A backward node is a whole B, or BI with a BW of its own, per (chunk,
 * microbatch): `split` says which; the BW nodes of unsplit ones are dead.
 *
 *     F(c) ---- SEND, RECV ----> F(c')        one hop run each, made per link; and the
 *      |                          |            collectives of borders at its ends
 *     B(c) <--- RECV, SEND ---- B(c')         mirrored for gradients
 *      |
 *     BW(c) --> ALL_REDUCE(bucket) --> UPDATE(bucket)
 *
 * What a forward pass keeps for the backward pass of its own chunk, `kept` says per (chunk,
 * microbatch): on the device, or nowhere and made again, or in host memory until it is needed:
 *
 *     F(c) --> OFFLOAD --> FETCH --> B(c)      for what BI reads, and for what BW reads; the last
 *                                              edge is a node's, not the run's
 *
 * Under `zero` a bucket's runs may have one node per window of microbatches (n = windows), which
 * the zero pass adds once the order is known:
 *
 *     zero 1     BW(c) --> REDUCE_SCATTER --> UPDATE --> ALL_GATHER
 *     zero 2     CLEAR(w) --> BW(c).. --> REDUCE_SCATTER(w) --> UPDATE --> ALL_GATHER
 *     zero 3     the same without the last, and  ALL_GATHER(v) --> F(c), BI(c), ..
 */
#ifndef PPS_IR_DAG_H
#define PPS_IR_DAG_H

#include "ir/plan.h"

typedef struct dag_run {
    uint8_t kind;  /* plan_step_kind */
    uint8_t pass;  /* pps_pass: F, BI for every backward node (B or BI), BW; copies: BI or BW */
    uint8_t flags; /* PLAN_A2A_RETURN */
    bool carried;  /* COMPUTE F, B: edges between the slices of a microbatch */
    uint16_t group, stream;
    uint32_t chunk; /* COMPUTE: its chunk; hops: the consumer chunk; PLAN_BUCKET kinds: bucket */
    uint32_t link;  /* hops: link; else IR_NONE */
    uint32_t teams; /* collectives: the ranks that take part, in plan_set.teams */
    uint32_t first, n;
    uint32_t pair;         /* SEND: its RECV run, RECV: its SEND run; else IR_NONE */
    uint32_t lead, next;   /* first run of the same operation: itself if alone; the one after it */
    ir_range preds, succs; /* run ids, in dag.run_edges */
    pps_span span;         /* the directive behind it */
} dag_run;

/* One use of a tensor by a chunk other than its producer: forward the value, backward its gradient.
 */
typedef enum dag_end { DAG_SRC, DAG_DST, DAG_ENDS } dag_end;
typedef struct dag_link {
    /* `made` by the producer, behind its border `wire`, used as `tensor` behind the consumer's; all
     * the same where a border changes nothing but where rows lie */
    ir_id made, wire, tensor;
    uint32_t src, src_out;        /* producer chunk, index in its `out` */
    uint32_t dst, dst_in;         /* consumer chunk, index in its `in` */
    bool grad;                    /* a gradient comes back */
    uint8_t border[DAG_ENDS];     /* ir_border */
    uint32_t directive[DAG_ENDS]; /* behind each border, or IR_NONE */
    uint32_t carrier; /* link whose forward hops up to the consumer serve this one too; or itself */
    /* hop runs, IR_NONE where there is none */
    uint32_t f_send, f_recv, f_border[DAG_ENDS];
    uint32_t b_send, b_recv, b_border[DAG_ENDS];
    uint32_t b_again; /* the border at the consumer once more, for its backward: what it brought
                       * forward is not kept until then */
} dag_link;
/* The step of a border in pass F or BI: plan_step_kind, PLAN_NONE where nothing moves. */
enum { PLAN_NONE = PLAN_STEP_KIND_COUNT };
unsigned dag_border_step(ir_border border, pps_pass pass);
const char *dag_border_name(ir_border border);

typedef struct dag_chunk { /* what directives made of a graph chunk */
    uint32_t group;        /* IR_NONE until placed */
    uint32_t place;        /* directive indices, IR_NONE when there is none */
    uint32_t replicate, shard, sequence;
    uint32_t ep;                   /* ranks that share its experts; 1 */
    uint32_t ep_teams;             /* which ranks those are; IR_NONE */
    uint32_t f, b, w;              /* runs: F, B/BI, BW; IR_NONE where the pass has nothing to do */
    uint32_t offload[2], fetch[2]; /* runs, or IR_NONE: of what BI reads, of what BW does */
    ir_range in_links;             /* link ids: [dag.link_lists], by input index */
    ir_range out_links;
} dag_chunk;

typedef enum dag_keep { /* what becomes of what F keeps for its own chunk's backward */
                        DAG_KEEP,
                        DAG_RECOMPUTE, /* nothing is kept: B or BI runs F's kernels again */
                        DAG_OFFLOAD,   /* it is copied to host memory, and back before B or BI */
} dag_keep;

typedef struct dag_group {
    uint32_t ranks, n_ranks;     /* in dag.group_ranks */
    pps_span span;               /* the place that made it */
    uint32_t n_replicas;         /* that share out the batch */
    uint32_t tensor, sequence;   /* teams whose ranks work on the same rows together, or IR_NONE */
    bool tensor_splits_sequence; /* outside its regions they share out the positions */
} dag_group;

typedef struct dag_bucket {
    uint32_t group, directive; /* replicate; shard as tensor, where its teams alone sum; IR_NONE */
    uint32_t first, n;         /* params, in dag.bucket_params */
    uint64_t bytes;            /* with gaps for alignment; zero: and padding to equal slices */
    bool reduced;
    uint32_t teams; /* whose ranks sum their gradients, where they do */
    bool spread;    /* its parameters are cut over tensor teams */
    uint8_t zero;   /* 0 unless reduced */
    uint32_t every; /* zero 2, 3: units per window of gradients: of whole microbatches */
    uint16_t reduce_stream, gather_stream;  /* of reduced ones; of those under zero */
    uint32_t reduce, update, gather, clear; /* runs, or IR_NONE */
    uint32_t lead, next; /* buckets of the same parameters, one per group that uses them: the first,
                            and the one after it; itself and IR_NONE */
} dag_bucket;

typedef struct dag {
    arena *mem;
    arena *node_mem; /* of arrays over nodes, which may end before the rest */
    const ir_program *program;
    const ir_graph *graph;
    uint32_t n_mb;                      /* units: microbatches times n_slices */
    uint32_t n_slices;                  /* of each microbatch's sequences; 1 where they are whole */
    const char *mb_tag;                 /* of microbatches */
    const char *slice_tag;              /* NULL where nothing splits sequences */
    uint32_t split, sequence_split;     /* directives, or IR_NONE */
    ir_range *classes;                  /* [n_classes] in class_mbs: the microbatches of each */
    uint32_t n_classes, n_model_chunks; /* chunks of one class; graph->n_chunks in all */
    uint32_t *class_mbs;                /* [n_mb] ascending within a class */
    uint32_t *mb_class, *mb_index;      /* [n_mb] its class; its number there */
    dag_chunk *chunks;                  /* [graph->n_chunks] */
    dag_group *groups;
    uint32_t n_groups;
    uint32_t *group_ranks;
    uint32_t n_ranks;
    dag_link *links;
    uint32_t n_links;
    uint32_t *link_lists;
    dag_bucket *buckets;
    uint32_t n_buckets;
    uint32_t *bucket_params;
    uint32_t *param_bucket; /* [n_params] the first of its buckets, IR_NONE: not trained */
    uint64_t *param_offset; /* [n_params] bytes from its bucket's begin */
    const char **streams;
    uint32_t n_streams;
    dag_run *runs;
    uint32_t n_runs, cap_runs;
    uint32_t *run_edges;
    uint32_t *run_src, *run_dst; /* edges as added; run_edges is built from them */
    uint32_t n_edges, cap_edges;
    uint32_t n_nodes; /* ids; dead ones included */
    uint32_t n_alive;
    uint64_t n_node_edges;   /* that edges of runs stand for */
    uint64_t n_window_edges; /* others, of single nodes: windows of zero */
    uint32_t *node_run; /* [n_nodes] */
    uint8_t *split_bw;  /* [n_chunks * n_mb], numbers within classes: backward is BI + BW */
    uint8_t *kept;      /* [n_chunks * n_mb], the same: dag_keep; NULL: DAG_KEEP everywhere */
} dag;

static inline bool dag_of_bucket(const dag_run *r)
{
    return plan_is(r->kind, PLAN_BUCKET);
}
static inline ir_range dag_class_of(const dag *d, uint32_t chunk)
{
    return d->classes[chunk / d->n_model_chunks];
}
static inline uint32_t dag_n_mb(const dag *d, uint32_t chunk) /* microbatches that it runs */
{
    return dag_class_of(d, chunk).n;
}
/* The number of microbatch `mb` within the chunk's class; IR_NONE: it is of another class. */
static inline uint32_t dag_mb_index(const dag *d, uint32_t chunk, uint32_t mb)
{
    return d->mb_class[mb] == chunk / d->n_model_chunks ? d->mb_index[mb] : IR_NONE;
}
/* Microbatch or unit; window of a bucket's node; IR_NONE for what is there once per step. */
static inline uint32_t dag_mb(const dag *d, uint32_t node)
{
    const dag_run *r = &d->runs[d->node_run[node]];
    if (dag_of_bucket(r))
        return r->n == 1 ? IR_NONE : node - r->first;
    return d->class_mbs[dag_class_of(d, r->chunk).begin + (node - r->first)];
}
/* `index`: within the chunk's class. */
static inline bool dag_split(const dag *d, uint32_t chunk, uint32_t index)
{
    return d->split_bw[(size_t)chunk * d->n_mb + index];
}
/* The bucket that holds `param` on `group`; IR_NONE: none does. */
static inline uint32_t dag_bucket_of(const dag *d, uint32_t param, uint32_t group)
{
    uint32_t b = d->param_bucket[param];
    while (b != IR_NONE && d->buckets[b].group != group)
        b = d->buckets[b].next;
    return b;
}
static inline dag_keep dag_keeps(const dag *d, uint32_t chunk, uint32_t index)
{
    return d->kept == NULL ? DAG_KEEP : (dag_keep)d->kept[(size_t)chunk * d->n_mb + index];
}
/* The end of its link at which a border's run is. */
dag_end dag_end_of(const dag *d, uint32_t run);
/* The unit whose node of this run comes before unit `mb`'s, or after it, because of what slices
 * carry; IR_NONE where none does. */
static inline uint32_t dag_slice_before(const dag *d, const dag_run *r, uint32_t mb)
{
    if (!r->carried)
        return IR_NONE;
    uint32_t slice = mb % d->n_slices;
    if (r->pass == PPS_PASS_F)
        return slice > 0 ? mb - 1 : IR_NONE;
    return slice + 1 < d->n_slices ? mb + 1 : IR_NONE;
}
static inline uint32_t dag_slice_after(const dag *d, const dag_run *r, uint32_t mb)
{
    if (!r->carried)
        return IR_NONE;
    uint32_t slice = mb % d->n_slices;
    if (r->pass != PPS_PASS_F)
        return slice > 0 ? mb - 1 : IR_NONE;
    return slice + 1 < d->n_slices ? mb + 1 : IR_NONE;
}
/* Does the chunk have attention, whose slices carry keys and values on to the next? */
bool dag_carries(const ir_graph *g, uint32_t chunk);
/* The pass a compute node really runs: F, B, BI or BW. */
static inline pps_pass dag_pass(const dag *d, uint32_t node)
{
    const dag_run *r = &d->runs[d->node_run[node]];
    if (r->kind == PLAN_COMPUTE && r->pass == PPS_PASS_BI)
        return dag_split(d, r->chunk, node - r->first) ? PPS_PASS_BI : PPS_PASS_B;
    return (pps_pass)r->pass;
}
/* Of run `r`, the node of microbatch or window `m`: BW where the backward is split, copies of what
 * is offloaded, and all others. */
static inline bool dag_all_alive(const dag_run *r)
{
    return !plan_is(r->kind, PLAN_COPY) && (r->kind != PLAN_COMPUTE || r->pass != PPS_PASS_BW);
}
static inline bool dag_run_alive(const dag *d, const dag_run *r, uint32_t m)
{
    if (dag_all_alive(r))
        return true;
    return r->kind == PLAN_COMPUTE ? dag_split(d, r->chunk, m)
                                   : dag_keeps(d, r->chunk, m) == DAG_OFFLOAD;
}
static inline bool dag_alive(const dag *d, uint32_t node)
{
    const dag_run *r = &d->runs[d->node_run[node]];
    return dag_run_alive(d, r, node - r->first);
}
/* "F(0, 1)", "B(1, 0)", "SEND(F(0, 1))", "update 3", ... */
int dag_label(const dag *d, uint32_t node, char *buffer, size_t n);
uint32_t dag_stage(const ir_graph *g, uint32_t chunk); /* index of tag PP, or IR_NONE */
/* One class of all microbatches, for d->graph's chunks. After n_mb and graph are set. */
pps_status dag_one_class(dag *d);
/* run.n is set here, unless it is a bucket's and given; it is alone until joined. */
pps_status dag_add_run(dag *d, dag_run run, uint32_t *ret);
/* `run`, alone so far, is part of the operation that `lead` leads. */
void dag_join(dag *d, uint32_t lead, uint32_t run);
pps_status dag_add_edge(dag *d, uint32_t src_run, uint32_t dst_run);
/* After all runs and edges: CSR lists, node numbers, counts. May be called again after more runs
 * were added: nodes keep their numbers. */
pps_status dag_seal(dag *d);
/* Count alive nodes and their edges anew: after `split_bw` changed. */
void dag_count(dag *d);
/* Every invariant of this header; PPS_ERR_INTERNAL, with a message (E9901) if the DAG has a
 * program. */
pps_status dag_verify(const dag *d);

/* dag_text.c: the DAG as text, which dag_read takes; the grammar stands there. */
void dag_dump(const dag *d, ir_print_fn print, void *ud);

typedef struct dag_read_error {
    uint32_t line; /* from 1; 0: none */
    char text[160];
} dag_read_error;
/* Read what dag_dump prints. *ret lies in `mem`, sealed; it has tags, but no program, spans or
 * directives, and its `graph` has nothing beside the chunks' tags. Dumping it gives `text` again.
 * Errors: PPS_ERR_SCRIPT with *ret_error for any other text, PPS_ERR_NOMEM. */
pps_status dag_read(arena *mem, const char *text, size_t bytes, dag **ret,
                    dag_read_error *ret_error);

#endif
