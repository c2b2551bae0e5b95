/* SPDX-License-Identifier: Apache-2.0
 *
 * coll.h: communication between CPU ranks of one machine, over one shared-memory segment.
 *
 * The segment holds a control block and every rank's arena, mapped before ranks start, so a rank
 * reads its peers' arenas directly (pull). Ranks are processes (forked) or threads; the code is the
 * same. Operations are small state machines: `coll_start` posts one, `coll_poll` advances it
 * without ever blocking; `coll_wait_any` sleeps on this rank's futex until a peer did something.
 * Every operation carries the plan's sequence number; peers check it, so a plan that disagrees with
 * its peer's is an error, not wrong data.
 */
#ifndef PPS_RUNTIME_COLL_H
#define PPS_RUNTIME_COLL_H

#include "lang/pps.h"

typedef struct coll_world coll_world; /* the segment, made by the launcher */
typedef struct coll_rank coll_rank;   /* one rank's view of it */

typedef struct coll_config {
    uint32_t n_ranks;
    const uint64_t *arena_bytes; /* [n_ranks] */
    uint64_t board_bytes;        /* shared scratch for losses, traces, exported parameters */
    uint32_t channels;  /* streams that communicate: per pair of ranks and channel one queue */
    uint32_t max_group; /* largest group, for collectives */
} coll_config;
/* memfd + mmap; nothing named in the file system, so nothing can be left behind. */
pps_status coll_world_new(const coll_config *config, coll_world **ret, char reason[256]);
void coll_world_free(coll_world *w);
void *coll_world_arena(coll_world *w, uint32_t rank);
void *coll_world_board(coll_world *w);
void coll_world_abort(coll_world *w, uint32_t rank,
                      pps_status why); /* wakes everyone; first one sticks */
bool coll_world_aborted(const coll_world *w, uint32_t *ret_rank, pps_status *ret_why);

pps_status coll_rank_new(coll_world *w, uint32_t rank, coll_rank **ret);
void coll_rank_free(coll_rank *r);
/* What the last failed operation found ("rank 1 expects ..., rank 0 is at ..."), or "". */
const char *coll_rank_reason(const coll_rank *r);

typedef enum coll_kind {
    COLL_SEND,
    COLL_RECV,
    COLL_ALL_REDUCE,
    COLL_COUNTS,
    COLL_ALL_TO_ALL,
    COLL_SHIFT,
    COLL_REDUCE_SCATTER,
    COLL_ALL_GATHER
} coll_kind;
enum {
    COLL_RETURN = 1, /* ALL_TO_ALL, SHIFT */
    COLL_ADD = 2,    /* REDUCE_SCATTER: added to what is at `recv` */
};

typedef struct coll_op {
    coll_kind kind;
    uint32_t flags;
    uint32_t channel;      /* the plan's stream */
    uint32_t seq;          /* the plan's global sequence number */
    uint64_t epoch;        /* training step, from 0: (epoch, seq) names an operation for good */
    uint32_t peer;         /* SEND, RECV: global rank */
    const uint32_t *group; /* collectives: global ranks in group order; borrowed until done */
    uint32_t group_size, group_index;
    /* all pointers lie in this rank's arena */
    void *
        send; /* SEND: data; ALL_REDUCE: in place; COUNTS: int32 [experts]; ALL_TO_ALL: rows sent;
               * REDUCE_SCATTER: all slices; ALL_GATHER: this rank's; SHIFT: data, apart from `recv` */
    void *recv; /* RECV, ALL_TO_ALL: rows received; COUNTS: int32 [group_size][experts];
                 * REDUCE_SCATTER: this rank's slice; ALL_GATHER: all slices */
    const int32_t
        *counts; /* ALL_TO_ALL: [group_size][experts]: rows each rank has for each expert */
    uint32_t shift;   /* SHIFT: from the rank that many places before in the group; with
                       * COLL_RETURN after */
    uint32_t experts; /* rank i owns experts [i*E/n, (i+1)*E/n) */
    uint32_t width;   /* ALL_TO_ALL: bytes of a row; REDUCE_SCATTER, ALL_GATHER: of one rank's piece
                       * where slices lie in pieces, [pieces][group_size][width]; 0: in one */
    uint64_t bytes; /* SEND, RECV, SHIFT, ALL_REDUCE; ALL_TO_ALL: room at `recv`; REDUCE_SCATTER, ALL_GATHER: of
                     * all slices, which are equal and follow each other in group order */
    uint64_t sent_bytes;     /* out: bytes that left this rank (to others, not to itself) */
    /* private */
    uint32_t state;
    uint64_t aux[4];
} coll_op;

/* One collective at a time per channel; sends and receives of a channel match in the order in which
 * both ends started them.
 *
 * ALL_TO_ALL layouts. Out: `send` is this rank's rows in (expert, own order); `recv` gets (own
 * expert, source rank, source order). With COLL_RETURN the other way: `send` is (own expert, source
 * rank, source order), `recv` gets (expert, own order). PPS_ERR_LIMIT when the rows do not fit
 * `bytes`. ALL_REDUCE and REDUCE_SCATTER sum float32 in group order: results are bit-identical
 * everywhere. The slice at `recv` (REDUCE_SCATTER) or `send` (ALL_GATHER) may be this rank's own among
 * all of them (in place), and else lies apart from them. */
pps_status coll_start(coll_rank *r, coll_op *op);
/* *ret_done is set once the operation finished (buffers may be reused). PPS_ERR_COLL when the world
 * was aborted or a peer's operation does not match. */
pps_status coll_poll(coll_rank *r, coll_op *op, bool *ret_done);
/* Sleep until some peer acted since the last wait ended, or `timeout_ns` passed: poll everything
 * that is under way between two waits. A timeout of 0 only asks whether the world was aborted. */
pps_status coll_wait_any(coll_rank *r, uint64_t timeout_ns);
pps_status coll_barrier(coll_rank *r); /* all ranks; blocking */

#endif
