/* SPDX-License-Identifier: Apache-2.0
 *
 * segment.h: what lies in the shared segment. Internal to runtime/coll.
 *
 *   | control | bells [rank] | lanes [src][dst][channel] | board | gap | arena 0 | gap | arena 1 |
 * ...
 *
 * A lane is a queue of entries that `src` publishes and `dst` reads: "here is my part of operation
 * (epoch, seq)". A send publishes one entry, a collective one to every peer of its group. Both ends
 * count the entries of a lane (tickets), so entry t of one end is entry t of the other.
 *
 *   src: writes the entry, ready = t + 1      dst: reads src's arena, done = t + 1
 *
 * `done` is the only thing that frees an entry and the buffer behind it. Gaps are unmapped pages: a
 * rank that runs over the end of its arena stops there.
 */
#ifndef PPS_RUNTIME_COLL_SEGMENT_H
#define PPS_RUNTIME_COLL_SEGMENT_H

#include "runtime/coll/coll.h"

#include <stdatomic.h>

enum { COLL_LANE_DEPTH = 4 }; /* entries of a lane; a later one waits for the oldest */

typedef struct coll_bell { /* rung by peers; its rank sleeps on `rung` */
    _Alignas(64) _Atomic uint32_t rung;
    _Atomic uint32_t asleep;
} coll_bell;

typedef struct coll_entry {
    _Alignas(64) _Atomic uint64_t ready; /* by src: ticket + 1 */
    _Atomic uint64_t reduced; /* by src, ALL_REDUCE: ticket + 1 once its slice is summed */
    uint64_t epoch, bytes;
    uint64_t offset; /* of src's data, from the segment's begin */
    uint32_t seq, experts, width, group_size, shift;
    uint8_t kind, flags;
    _Alignas(64) _Atomic uint64_t done; /* by dst: ticket + 1 */
} coll_entry;

typedef struct coll_control {
    _Alignas(64) _Atomic uint64_t aborted; /* 0, or (status << 32) + rank */
    _Alignas(64) _Atomic uint32_t arrived; /* barrier */
    _Atomic uint32_t generation;
} coll_control;

struct coll_world {
    char *base;
    uint64_t bytes;
    uint32_t n_ranks, channels, max_group;
    coll_control *control;
    coll_bell *bells;
    coll_entry *lanes;
    char *board;
    uint64_t *arena_offset, *arena_bytes; /* [n_ranks] */
};

struct coll_rank {
    coll_world *world;
    uint32_t rank;
    uint32_t seen;  /* own bell when the last wait ended: polls after it saw everything before it */
    uint32_t spins; /* looks at the bell before sleeping; 0 when there are more ranks than cores */
    uint64_t *out, *in;           /* [n_ranks * channels] next tickets */
    uint64_t *coll_out, *coll_in; /* [channels * max_group] tickets of a channel's collective */
    bool *coll_busy;              /* [channels] */
    char reason[256];
};

/* world.c */
void coll_ring(coll_world *w, uint32_t rank);

static inline coll_entry *coll_lane_entry(coll_world *w, uint32_t src, uint32_t dst,
                                          uint32_t channel, uint64_t ticket)
{
    uint64_t lane = ((uint64_t)src * w->n_ranks + dst) * w->channels + channel;
    return &w->lanes[lane * COLL_LANE_DEPTH + ticket % COLL_LANE_DEPTH];
}

static inline bool coll_is_aborted(const coll_world *w)
{
    return atomic_load_explicit(&w->control->aborted, memory_order_acquire) != 0;
}

#endif
