/* SPDX-License-Identifier: Apache-2.0
 *
 * lower.h: shared by the files of the lower pass.
 */
#ifndef PPS_PASSES_LOWER_H
#define PPS_PASSES_LOWER_H

#include "passes/pass.h"

typedef enum link_family {         /* buffers along a link, in the order of dag.c's picture */
                           FX_SRC, /* forward, behind the border at the producer */
                           F_RECV, /* received */
                           FX_DST, /* behind the border at the consumer */
                           FX_AGAIN, /* the same once more, for the backward */
                           B_OWN,  /* gradient as the consumer makes it */
                           BX_DST, /* behind the border at the consumer */
                           B_RECV, /* received */
                           BX_SRC, /* behind the border at the producer */
                           LINK_FAMILIES
} link_family;

/* Buffers that microbatches, or a bucket's windows, repeat: the m-th life is number base + m of its
 * group's. */
typedef struct family {
    uint64_t bytes;
    uint32_t group, base, n;
    uint32_t bucket, per; /* as plan_buffer's; bucket of the DAG */
    uint8_t what; /* plan_block_kind */
} family;

typedef struct lower_buffers {
    pass_cx *cx;
    family *families;
    uint32_t n_families;
    uint32_t *chunk_out;  /* [n_chunks] first family of its outputs */
    uint32_t *chunk_save; /* [n_chunks] SAVE_BI, SAVE_BW, HELD, CARRY, CARRIED */
    uint32_t *chunk_held; /* [n_chunks] HELD where F is recomputed, or IR_NONE */
    uint32_t *chunk_host; /* [n_chunks] first of what OFFLOAD has: BI's and BW's saves in host
                           * memory, then as fetched; or IR_NONE */
    uint32_t *link;       /* [n_links][LINK_FAMILIES] family, or IR_NONE */
    uint32_t *bucket_params, *bucket_grads; /* [n_buckets] family, or IR_NONE */
    uint32_t *n_lives;                      /* [n_groups] lives of its families */
} lower_buffers;

/* buffers.c's families: which there are, and their sizes. */
pps_status lower_buffers_init(lower_buffers *b, pass_cx *cx);
/* The life that a binding of a chunk's program stands for; IR_NONE for BIND_WORK. `mb` is numbered
 * within the chunk's class. */
uint32_t lower_bind_life(const lower_buffers *b, const pass_bind *bind, uint32_t chunk,
                         pps_pass pass, uint32_t mb);
/* The lives a communication node touches, in plan_step's binding order; returns how many. */
uint32_t lower_comm_lives(const lower_buffers *b, uint32_t node, uint32_t ret[3]);

/* lower_named.c: what bindings stand for, per work; made from the lives that a work's first step
 * touches. */
typedef struct lower_named {
    const lower_buffers *buffers;
    uint32_t *families;  /* by (group, base) */
    uint32_t *group_at;  /* [n_groups + 1] into them */
    uint32_t *workspace; /* [n_programs] the program's buffer, IR_NONE until met */
    bool *done;          /* [n_works] */
    uint32_t cap_buffers, cap_named;
} lower_named;
pps_status lower_named_init(lower_named *v, const lower_buffers *b);
/* `lives` of a step of `group`; IR_NONE: the workspace of its program. Only the first step of a work
 * counts. */
pps_status lower_named_note(lower_named *v, uint32_t group, const plan_step *s,
                            const uint32_t *lives, uint64_t work_bytes);

/* lower_set.c */
pps_status lower_tables(pass_cx *cx);
/* (*ret)[lower_work(d, node)]: index in plan_set.works. Needs the plans' buckets. */
pps_status lower_works(pass_cx *cx, uint32_t **ret);
enum { LOWER_WORKS = 2 * (DAG_OFFLOAD + 1) }; /* of a run: by what is kept, whole B or not */
static inline uint32_t lower_work(const dag *d, uint32_t node)
{
    uint32_t run = d->node_run[node];
    const dag_run *r = &d->runs[run];
    if (r->kind != PLAN_COMPUTE)
        return LOWER_WORKS * run;
    return LOWER_WORKS * run + 2 * dag_keeps(d, r->chunk, node - r->first) +
           (dag_pass(d, node) == PPS_PASS_B);
}
pps_status lower_places(pass_cx *cx, uint32_t **ret_run_place, uint32_t **ret_origin_place,
                        uint32_t *ret_n_origins);

#endif
