/* SPDX-License-Identifier: Apache-2.0
 *
 * tiny.c: see tiny.h.
 */
#include "tiny.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

uint32_t random_below(random_source *r, uint32_t n)
{
    r->state += 0x9e3779b97f4a7c15u;
    uint64_t x = r->state;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return (uint32_t)((x ^ x >> 31) % n);
}

bool test_options(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--all") == 0)
            setenv("PPS_TEST_ALL", "1", 1);
        else if (strcmp(argv[i], "--seed") == 0 && i + 1 < argc)
            setenv("PPS_TEST_SEED", argv[++i], 1);
        else
            return false;
    }
    return true;
}

uint64_t random_seed(void)
{
    const char *seed = getenv("PPS_TEST_SEED");
    return seed != NULL && seed[0] != '\0' ? strtoull(seed, NULL, 10) : 1;
}

bool run_everything(void)
{
    const char *all = getenv("PPS_TEST_ALL");
    return all != NULL && all[0] != '\0';
}

void tiny_add(tiny *t, uint32_t rank, tiny_step step)
{
    assert(t->n_steps[rank] < TINY_STEPS);
    t->steps[rank][t->n_steps[rank]++] = step;
}

void tiny_print(const tiny *t)
{
    static const char *const names[] = {"compute", "send", "recv", "collective"};
    for (uint32_t g = 0; g < t->n_ranks; g++)
        for (uint32_t i = 0; i < t->n_steps[g]; i++) {
            const tiny_step *s = &t->steps[g][i];
            printf("rank %u step %u: %s seq %u peer %u stream %u waits", g, i, names[s->kind],
                   s->seq, s->peer, s->stream);
            for (uint32_t w = 0; w < TINY_STEPS; w++)
                if (s->waits >> w & 1)
                    printf(" %u", w);
            printf("\n");
        }
}

static bool has_room(const tiny *t, uint32_t rank)
{
    return t->n_steps[rank] < TINY_STEPS;
}

/* Exchange a random neighbour pair on one rank: orders that disagree. */
static void stir(tiny *t, random_source *r, uint32_t times)
{
    while (times-- > 0) {
        uint32_t g = random_below(r, t->n_ranks);
        if (t->n_steps[g] < 2)
            continue;
        uint32_t i = random_below(r, t->n_steps[g] - 1);
        tiny_step was = t->steps[g][i];
        t->steps[g][i] = t->steps[g][i + 1];
        t->steps[g][i + 1] = was;
    }
}

static void add_waits(tiny *t, random_source *r)
{
    for (uint32_t g = 0; g < t->n_ranks; g++)
        for (uint32_t i = 1; i < t->n_steps[g]; i++) {
            uint32_t w = random_below(r, i);
            if (random_below(r, 3) == 0 && t->steps[g][w].stream != t->steps[g][i].stream)
                t->steps[g][i].waits |= (uint8_t)(1u << w);
        }
}

void tiny_random(tiny *t, random_source *r, uint32_t n_comm)
{
    uint32_t n_streams = 1 + random_below(r, TINY_STREAMS);
    memset(t, 0, sizeof *t);
    t->n_ranks = 2 + random_below(r, TINY_RANKS - 1);
    for (uint32_t seq = 1; seq <= n_comm; seq++) {
        uint8_t stream = (uint8_t)random_below(r, n_streams);
        uint32_t a = random_below(r, t->n_ranks), b = random_below(r, t->n_ranks - 1);
        b += b >= a;
        if (random_below(r, 4) == 0) {
            uint32_t members = 1 + random_below(r, (1u << t->n_ranks) - 1);
            for (uint32_t g = 0; g < t->n_ranks; g++)
                if (members >> g & 1 && has_room(t, g))
                    tiny_add(t, g, (tiny_step){TINY_COLLECTIVE, stream, (uint8_t)seq, 0, 0});
        } else if (has_room(t, a) && has_room(t, b)) {
            uint8_t other = stream;
            if (random_below(r, 12) == 0)
                other = (uint8_t)random_below(r, n_streams);
            tiny_add(t, a, (tiny_step){TINY_SEND, stream, (uint8_t)seq, (uint8_t)b, 0});
            tiny_add(t, b, (tiny_step){TINY_RECV, other, (uint8_t)seq, (uint8_t)a, 0});
        }
        for (uint32_t g = 0; g < t->n_ranks; g++)
            if (random_below(r, 4) == 0 && has_room(t, g))
                tiny_add(t, g,
                         (tiny_step){.kind = TINY_COMPUTE,
                                     .stream = (uint8_t)(random_below(r, 3) == 0
                                                             ? random_below(r, n_streams)
                                                             : 0)});
    }
    stir(t, r, random_below(r, 5));
    add_waits(t, r);
}
