/* SPDX-License-Identifier: Apache-2.0
 *
 * prove.h: shared by the files of the proof. Each checks one property of finished plans and trusts
 * nothing but what prove.c has checked before: that every number in a plan names something.
 */
#ifndef PPS_PASSES_PROVE_H
#define PPS_PASSES_PROVE_H

#include "passes/pass.h"

/* One of several plans' steps with one sequence number: a collective that they run together. */
typedef struct prove_member {
    uint32_t seq, group, step;
} prove_member;

typedef struct prove_uses { /* of a work: 4 * bucket + prove_use, each once */
    uint32_t *list, n;
    uint32_t plan; /* whose buckets these are: group + 1 */
} prove_uses;
typedef enum prove_use {
    PROVE_USE_PARAMS,  /* reads its stored parameters */
    PROVE_USE_GRADS,   /* adds to its stored gradients */
    PROVE_USE_WINDOW,  /* adds to a window of its gradients */
    PROVE_USE_GATHERED /* reads what was gathered of its parameters */
} prove_use;

typedef struct prover {
    pps_state *st;
    const plan_set *set;
    bool buffered;
    arena *mem;            /* of the property at hand, or of the plan-by-plan part */
    uint32_t n_seq;        /* the highest sequence number */
    prove_member *members; /* of collectives that span plans, by (seq, group) */
    uint32_t n_members;
    /* what programs and works mean, found when a plan that has them is looked at */
    uint8_t *roles;         /* of each program's bindings: prove_role */
    uint32_t *roles_at;     /* [n_programs] first, in `roles` */
    bool *roles_done;       /* [n_programs] */
    prove_uses *uses;       /* [n_works] */
    uint32_t *param_bucket; /* [n_params] of the plan at hand, IR_NONE where it has it not */
} prover;

typedef enum prove_role {
    PROVE_READS = 1,  /* what an earlier step wrote */
    PROVE_WRITES = 2, /* alone: what lies there before does not matter */
    PROVE_BEGINS = 4, /* with both: or is the first, and there is nothing before */
} prove_role;
/* A letter of plan_bindings_of. */
static inline uint8_t prove_role_of(char letter)
{
    char lower = (char)(letter | 32);
    return lower == 'r' ? PROVE_READS : lower == 'w' ? PROVE_WRITES : PROVE_READS | PROVE_WRITES;
}

/* Start an error at a step: "<title>: group 1 step 12, send F PP0:3". */
pps_diag *prove_wrong(const prover *p, uint32_t group, uint32_t step, int code, const char *title,
                      ...) PPS_PRINTF(5, 6);
/* Name a second step, at its script line if it has one: "<text>: group 0 step 7, ...". */
void prove_other(const prover *p, pps_diag *diag, uint32_t group, uint32_t step, const char *text);
const char *prove_step_text(const prover *p, uint32_t group, uint32_t step, char *buffer, size_t n);
/* An error at a step and, unless IR_NONE, another of the same plan. Returns the failure. */
pps_status prove_two(const prover *p, uint32_t group, uint32_t step, int code, const char *title,
                     uint32_t other, const char *other_text);

/* First and number of a spanning collective's members in p->members; .n is 0 for others. */
ir_range prove_members(const prover *p, uint32_t seq);

/* prove_match.c: transfers meet their other ends on the same stream and in the same order, members
 * of a collective agree. Fills p->members. E0511, E0540, E0541, E0542. */
pps_status prove_match(prover *p);

/* prove_hang.c: no step waits for ever. E0502. */
pps_status prove_hang(const prover *p);

/* prove_teams.c: who sums gradients holds what is summed, and leaves out no replica and no device
 * group; experts are exchanged and computed in one way to form teams. E0550. */
pps_status prove_teams(const prover *p);

/* prove_once.c: every chunk runs each of its passes once per microbatch. E0518, E0521. */
pps_status prove_once(const prover *p);

/* prove_rounds.c: every round of attention has the keys that it believes to have. E0527. */
pps_status prove_rounds(const prover *p);
/* prove_slices.c: what slices of a microbatch carry from one to the next, in every plan. E0524. */
pps_status prove_slices(const prover *p);

/* prove_clock.c: what is known to be over when a step begins, from streams and waits alone. (A host
 * that issues computes one by one orders more; nothing here relies on it.) A lane is a stream that
 * the plan uses. */
typedef struct prove_clock {
    const plan *plan;
    uint32_t n_lanes;
    uint32_t *lane;  /* [n_streams] of the set */
    uint32_t *known; /* [n_steps][n_lanes]: the lane's last step that is over, + 1 */
} prove_clock;
pps_status prove_clock_init(prove_clock *c, const prover *p, const plan *mine, arena *mem);
static inline uint32_t prove_lane(const prove_clock *c, uint32_t step)
{
    return c->lane[c->plan->steps[step].stream];
}
/* Is `earlier` over when `step` begins? A step counts as its own past. */
static inline bool prove_before(const prove_clock *c, uint32_t earlier, uint32_t step)
{
    return earlier == step ||
           c->known[(size_t)step * c->n_lanes + prove_lane(c, earlier)] > earlier;
}
/* The same of the latest of several steps on each lane (+ 1; 0: none): the lane that is not over,
 * or IR_NONE. */
static inline uint32_t prove_all_before(const prove_clock *c, const uint32_t *latest, uint32_t step)
{
    const uint32_t *known = c->known + (size_t)step * c->n_lanes;
    for (uint32_t k = 0; k < c->n_lanes; k++)
        if (latest[k] > known[k] && latest[k] != step + 1)
            return k;
    return IR_NONE;
}

/* prove_roles.c: which bindings of a program are read and written; made when first asked for. */
pps_status prove_roles_init(prover *p);
pps_status prove_program_roles(const prover *p, uint32_t program, const uint8_t **ret);

/* prove_memory.c: every step finds in its bindings what belongs there, written before; no bytes are
 * used again before all that touched them is over; gradients are used once. E0518.. E0520, E0543,
 * E0544, E0548. */
pps_status prove_memory(const prover *p, const plan *mine, const prove_clock *clock, arena *mem);

/* prove_buckets.c: gradients are complete when they are reduced, reduced where they must be, and
 * applied once, after all uses. E0520, E0545, E0546, E0548. */
pps_status prove_buckets_init(prover *p);
pps_status prove_buckets(const prover *p, const plan *mine, const prove_clock *clock, arena *mem);

/* prove_space.c: which owner each stretch of a plan's activations has. Stretches begin and end at
 * slots, the block borders in order of address. */
typedef struct prove_space {
    uint32_t n_slots;
    uint32_t *border; /* [n_slots] in PLAN_ALIGN bytes, ascending */
    uint32_t *table;  /* border -> slot, hashed */
    uint32_t mask;
    uint32_t *owner;   /* [n_slots] of the stretch that begins here, IR_NONE */
    uint32_t *end;     /* [n_slots] slot where it ends */
    uint64_t *bits[6]; /* which slots begin one; each level says which words of the one below */
    uint32_t n_levels;
} prove_space;
pps_status prove_space_init(prove_space *s, const plan_block *blocks, uint32_t n, arena *mem);
/* The slot at this border, or IR_NONE. */
uint32_t prove_space_slot(const prove_space *s, uint32_t border);
/* Give [begin, end) to `owner`. Every stretch that loses bytes is shown to `loses` first: its
 * owner, and by how many that one's stretches change (-1, 0, or +1 when the middle is taken). A
 * status other than PPS_OK ends it. */
typedef pps_status (*prove_loses)(void *ud, uint32_t owner, int change);
pps_status prove_space_paint(prove_space *s, uint32_t begin, uint32_t end, uint32_t owner,
                             prove_loses loses, void *ud);
/* The first stretch that begins at or beyond `slot`, or IR_NONE. */
uint32_t prove_space_next(const prove_space *s, uint32_t slot);

#endif
