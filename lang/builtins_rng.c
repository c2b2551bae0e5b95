/* SPDX-License-Identifier: Apache-2.0
 *
 * builtins_rng.c: rng(seed), a random number generator that gives the same numbers everywhere:
 * PCG32 (M. O'Neill 2014, the XSH-RR output over a 64-bit linear congruential generator). A
 * generator is a handle; its payload is a row of the state's table, which lives as long as the
 * state.
 */
#include "lang/builtins.h"

#include <stdio.h>

struct rng {
    uint64_t at;
    int64_t seed;
};

#define PCG_MULTIPLIER 6364136223846793005u
#define PCG_INCREMENT  1442695040888963407u

static uint32_t next32(struct rng *r)
{
    uint64_t old = r->at;
    r->at = old * PCG_MULTIPLIER + PCG_INCREMENT;
    uint32_t x = (uint32_t)((old >> 18 ^ old) >> 27), turn = (uint32_t)(old >> 59);
    return x >> turn | x << (-turn & 31);
}

static uint64_t next64(struct rng *r)
{
    uint64_t high = next32(r);
    return high << 32 | next32(r);
}

/* 0 <= result < n without bias: the lowest 2^64 mod n numbers are drawn again. */
static uint64_t below(struct rng *r, uint64_t n)
{
    uint64_t refused = (0 - n) % n, x;
    do
        x = next64(r);
    while (x < refused);
    return x % n;
}

static struct rng *rng_of(pps_state *st, value v)
{
    return &st->builtins.rngs[pps_handle_payload(v)];
}

static void print_rng(pps_state *st, void *ud, value v, char *buffer, size_t n)
{
    (void)ud;
    snprintf(buffer, n, "rng(%lld)", (long long)rng_of(st, v)->seed);
}

pps_status rng_register(pps_state *st)
{
    static const pps_handle_ops ops = {.name = "rng", .print = print_rng};
    return pps_handle_register(st, &ops, NULL, &st->builtins.rng_type);
}

void rng_done(pps_state *st)
{
    builtin_table *t = &st->builtins;
    heap_free(st, t->rngs, t->cap_rngs * sizeof(struct rng));
    t->rngs = NULL;
    t->n_rngs = t->cap_rngs = 0;
}

pps_status builtin_rng(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    builtin_table *t = &st->builtins;
    int64_t seed;
    PPS_TRY(arg_int(st, 0, argv[0], &seed));
    if (t->n_rngs == t->cap_rngs) {
        uint32_t cap = t->cap_rngs ? 2 * t->cap_rngs : 4;
        void *p = t->rngs;
        PPS_TRY(heap_grow(st, &p, t->cap_rngs * sizeof(struct rng), cap * sizeof(struct rng)));
        t->rngs = p;
        t->cap_rngs = cap;
    }
    struct rng *r = &t->rngs[t->n_rngs];
    *r = (struct rng){.at = PCG_INCREMENT + (uint64_t)seed, .seed = seed};
    next32(r); /* so that near seeds part at once */
    *ret = pps_handle(t->rng_type, t->n_rngs++);
    return PPS_OK;
}

pps_status method_rng_int(pps_state *st, const method_args *a, value *ret)
{
    int64_t low, high;
    PPS_TRY(arg_int(st, a->written[0], a->v[0], &low));
    PPS_TRY(arg_int(st, a->written[1], a->v[1], &high));
    if (low >= high)
        return pps_error(st, pps_call_span(st), 312,
                         "there is no int from %lld up to but not including %lld", (long long)low,
                         (long long)high);
    uint64_t n = (uint64_t)high - (uint64_t)low;
    *ret = pps_int((int64_t)((uint64_t)low + below(rng_of(st, a->self), n)));
    return PPS_OK;
}

pps_status method_rng_float(pps_state *st, const method_args *a, value *ret)
{
    *ret = pps_float((double)(next64(rng_of(st, a->self)) >> 11) * 0x1p-53);
    return PPS_OK;
}

pps_status method_rng_shuffle(pps_state *st, const method_args *a, value *ret)
{
    if (pps_typeof(a->v[0]) != PPS_LIST)
        return arg_wrong(st, a->written[0], "a list", a->v[0]);
    list *l = a->v[0].as.ptr;
    PPS_TRY(object_mutable(st, &l->o));
    PPS_TRY(vm_charge(st, l->n));
    for (size_t n = l->n; n > 1; n--) {
        size_t i = below(rng_of(st, a->self), n);
        value v = l->items[i];
        l->items[i] = l->items[n - 1];
        l->items[n - 1] = v;
    }
    *ret = pps_nil();
    return PPS_OK;
}
