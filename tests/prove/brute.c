/* SPDX-License-Identifier: Apache-2.0
 *
 * brute.c: a tiny plan run in every way in which ranks can interleave, as the runtime does it:
 *
 *   host     issues steps in order; stays at a compute until it is over
 *   stream   first in, first out; its head begins once the steps it waits for are over
 *   channel  per pair of ranks, direction and stream: a send or a collective that begins puts an
 *            entry in; a receive or a collective takes the next one out, whatever it is
 *
 * A send is over when its entry was taken (buffered: at once); a collective once it has taken its
 * entries and all others took its own. A state is what has begun, taken and ended; every state that
 * can be reached is visited once. Entries go in and come out in the order of the streams, so which
 * entry meets which is known from the plan: number k of one end and number k of the other.
 */
#include "tiny.h"

#include <stdlib.h>
#include <string.h>

typedef struct state {
    uint8_t issued[TINY_RANKS];                                     /* how many steps */
    uint8_t begun[TINY_RANKS], taken[TINY_RANKS], over[TINY_RANKS]; /* bit per step */
} state;

typedef struct meeting {       /* a step and the other rank's step that its entry meets */
    bool in, out;              /* takes an entry from that rank; puts one in for it */
    uint8_t in_step, out_step; /* TINY_STEPS: there is none */
} meeting;

struct brute {
    const tiny *t;
    bool buffered;
    meeting meet[TINY_RANKS][TINY_STEPS][TINY_RANKS];
    state *states, *table;
    uint32_t n, cap, mask;
    uint32_t *index; /* table of state numbers + 1 */
    brute_result result;
};

brute *brute_new(void)
{
    brute *b = calloc(1, sizeof *b);
    if (b == NULL)
        abort();
    return b;
}

void brute_free(brute *b)
{
    free(b->states);
    free(b->index);
    free(b);
}

/* ---- who meets whom ----------------------------------------------------------------------------
 */

static bool member(const tiny *t, uint32_t rank, uint32_t seq)
{
    for (uint32_t i = 0; i < t->n_steps[rank]; i++)
        if (t->steps[rank][i].seq == seq)
            return true;
    return false;
}

static bool gives(const tiny *t, uint32_t rank, uint32_t i, uint32_t to)
{
    const tiny_step *s = &t->steps[rank][i];
    return rank != to && ((s->kind == TINY_SEND && s->peer == to) ||
                          (s->kind == TINY_COLLECTIVE && member(t, to, s->seq)));
}

static bool takes(const tiny *t, uint32_t rank, uint32_t i, uint32_t from)
{
    const tiny_step *s = &t->steps[rank][i];
    return rank != from && ((s->kind == TINY_RECV && s->peer == from) ||
                            (s->kind == TINY_COLLECTIVE && member(t, from, s->seq)));
}

/* The step of `to` that takes entry number k of the channel, or of `from` that puts it in. */
static uint8_t number(const tiny *t, uint32_t from, uint32_t to, uint32_t stream, uint32_t k,
                      bool taker)
{
    uint32_t rank = taker ? to : from;
    for (uint32_t i = 0; i < t->n_steps[rank]; i++)
        if (t->steps[rank][i].stream == stream &&
            (taker ? takes(t, to, i, from) : gives(t, from, i, to)) && k-- == 0)
            return (uint8_t)i;
    return TINY_STEPS;
}

static void find_meetings(brute *b)
{
    const tiny *t = b->t;
    memset(b->meet, 0, sizeof b->meet);
    for (uint32_t g = 0; g < t->n_ranks; g++)
        for (uint32_t o = 0; o < t->n_ranks; o++) {
            uint32_t out[TINY_STREAMS] = {0}, in[TINY_STREAMS] = {0};
            for (uint32_t i = 0; i < t->n_steps[g]; i++) {
                meeting *m = &b->meet[g][i][o];
                uint8_t stream = t->steps[g][i].stream;
                m->out = gives(t, g, i, o);
                m->in = takes(t, g, i, o);
                if (m->out)
                    m->out_step = number(t, g, o, stream, out[stream]++, true);
                if (m->in)
                    m->in_step = number(t, o, g, stream, in[stream]++, false);
            }
        }
}

/* ---- states ------------------------------------------------------------------------------------
 */

static uint64_t hash(const state *s)
{
    uint64_t a, h;
    uint32_t c;
    memcpy(&a, s, 8);
    memcpy(&c, (const char *)s + 8, 4);
    h = (a ^ (uint64_t)c * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    return (h ^ h >> 29) * 0x94d049bb133111ebu >> 16;
}

static void grow(brute *b)
{
    b->cap = b->cap ? 4 * b->cap : 1024;
    b->mask = 2 * b->cap - 1;
    b->states = realloc(b->states, b->cap * sizeof *b->states);
    free(b->index);
    b->index = calloc(2 * (size_t)b->cap, sizeof *b->index);
    if (b->states == NULL || b->index == NULL)
        abort();
    for (uint32_t i = 0; i < b->n; i++) {
        uint64_t at = hash(&b->states[i]);
        while (b->index[at & b->mask] != 0)
            at++;
        b->index[at & b->mask] = i + 1;
    }
}

static void reach(brute *b, const state *s)
{
    uint64_t at = hash(s);
    for (; b->index[at & b->mask] != 0; at++)
        if (memcmp(&b->states[b->index[at & b->mask] - 1], s, sizeof *s) == 0)
            return;
    if (b->n == b->cap) {
        state copy = *s;
        grow(b);
        reach(b, &copy);
        return;
    }
    b->states[b->n++] = *s;
    b->index[at & b->mask] = b->n;
}

/* ---- moves --------------------------------------------------------------------------------------
 */

static bool has(uint8_t set, uint32_t i)
{
    return set >> i & 1;
}

/* Can this step take its entries now? *ret_mixed: one of them is another transfer's. */
static bool can_take(const brute *b, const state *s, uint32_t g, uint32_t i, bool *ret_mixed)
{
    const tiny *t = b->t;
    for (uint32_t o = 0; o < t->n_ranks; o++) {
        const meeting *m = &b->meet[g][i][o];
        if (!m->in)
            continue;
        if (m->in_step == TINY_STEPS || !has(s->begun[o], m->in_step))
            return false;
        *ret_mixed |= t->steps[o][m->in_step].seq != t->steps[g][i].seq;
    }
    return true;
}

static bool all_taken(const brute *b, const state *s, uint32_t g, uint32_t i)
{
    for (uint32_t o = 0; o < b->t->n_ranks; o++) {
        const meeting *m = &b->meet[g][i][o];
        if (m->out && (m->out_step == TINY_STEPS || !has(s->taken[o], m->out_step)))
            return false;
    }
    return true;
}

/* The head of a stream moves on; false when it cannot. */
static bool move_head(brute *b, const state *s, uint32_t g, uint32_t i)
{
    const tiny_step *step = &b->t->steps[g][i];
    uint8_t bit = (uint8_t)(1u << i);
    state next = *s;
    if (!has(s->begun[g], i)) {
        if ((step->waits & ~s->over[g]) != 0)
            return false;
        next.begun[g] |= bit;
    } else if (!has(s->taken[g], i) && (step->kind == TINY_RECV || step->kind == TINY_COLLECTIVE)) {
        bool mixed = false;
        if (!can_take(b, s, g, i, &mixed))
            return false;
        if (mixed) { /* the run ends here */
            b->result.blocks = true;
            return true;
        }
        next.taken[g] |= bit;
    } else {
        bool waits_for_takers =
            step->kind == TINY_COLLECTIVE || (step->kind == TINY_SEND && !b->buffered);
        if (waits_for_takers && !all_taken(b, s, g, i))
            return false;
        next.over[g] |= bit;
    }
    reach(b, &next);
    return true;
}

static bool moves_of(brute *b, uint32_t id, uint32_t g)
{
    const tiny *t = b->t;
    const state s = b->states[id];
    uint32_t k = s.issued[g], streams = 0;
    bool moved = false;
    if (k < t->n_steps[g] &&
        (k == 0 || t->steps[g][k - 1].kind != TINY_COMPUTE || has(s.over[g], k - 1))) {
        state next = s;
        next.issued[g]++;
        reach(b, &next);
        moved = true;
    }
    for (uint32_t i = 0; i < k; i++) {
        uint32_t bit = 1u << t->steps[g][i].stream;
        if (has(s.over[g], i) || (streams & bit) != 0)
            continue;
        streams |= bit;
        moved |= move_head(b, &s, g, i);
    }
    return moved;
}

/* Nothing moves: is everything over, and every entry taken? */
static bool is_complete(const brute *b, const state *s)
{
    const tiny *t = b->t;
    for (uint32_t g = 0; g < t->n_ranks; g++)
        for (uint32_t i = 0; i < t->n_steps[g]; i++)
            if (!has(s->over[g], i) || !all_taken(b, s, g, i))
                return false;
    return true;
}

brute_result brute_run(brute *b, const tiny *t, bool buffered)
{
    state first = {0};
    b->t = t;
    b->buffered = buffered;
    b->result = (brute_result){0};
    find_meetings(b);
    if (b->cap == 0)
        grow(b);
    b->n = 0;
    memset(b->index, 0, 2 * (size_t)b->cap * sizeof *b->index);
    reach(b, &first);
    for (uint32_t id = 0; id < b->n; id++) {
        bool moved = false;
        for (uint32_t g = 0; g < t->n_ranks; g++)
            moved |= moves_of(b, id, g);
        if (moved)
            continue;
        bool complete = is_complete(b, &b->states[id]);
        b->result.completes |= complete;
        b->result.blocks |= !complete;
    }
    b->result.states = b->n;
    return b->result;
}
