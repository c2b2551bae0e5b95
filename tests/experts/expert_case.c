/* SPDX-License-Identifier: Apache-2.0
 *
 * expert_case.c: see expert_case.h.
 */
#include "expert_case.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <cmocka.h>

static const struct {
    const char *name, *devices, *order;
    int stages;
} schedules[] = {
    {"alone", NULL, "", 4},
    {"one", "loop_stages(1, 1, replicas)", "order gpipe(1, 4)", 1},
    {"1f1b", "loop_stages(2, 1, replicas)", "order one_f_one_b(2, 4)", 2},
    {"dualpipev", "v_stages(2, replicas)", "order dualpipev(2, 4)", 4},
};

void expert_script(const expert_case *e, char *script, size_t size)
{
    size_t i = 0;
    char capacity[32] = "";
    while (strcmp(e->schedule, schedules[i].name) != 0)
        i++;
    if (e->capacity != NULL)
        snprintf(capacity, sizeof capacity, " capacity %s", e->capacity);
    size_t n = (size_t)snprintf(
        script, size,
        "from \"models/qwen3_moe\" import qwen3_moe\n"
        "from \"schedules\" import gpipe, one_f_one_b, dualpipev, loop_stages, v_stages\n"
        "train qwen3_moe(tokens(%d, %d), targets(), stages=%d, layers=%d, dim=16, heads=2, "
        "kv_heads=1, head_dim=8, experts=%d, top_k=%d, expert_hidden=16, vocab=50, aux_loss=%s) "
        "optimizer sgd(lr=0.1)\n",
        EXPERT_BATCH, EXPERT_T, schedules[i].stages, EXPERT_LAYERS, EXPERTS, TOP_K, e->aux);
    if (schedules[i].devices == NULL) {
        n += (size_t)snprintf(script + n, size - n,
                              e->capacity != NULL ? "shard {EP: *} on [0]%s\n" : "%s", capacity);
    } else {
        n += (size_t)snprintf(
            script + n, size - n,
            "let replicas = %u\n"
            "let devices = %s\n"
            "let pp, dp, ep, ga = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\"), "
            "stream(\"ga\")]\n"
            "split {} by MB into %d\n"
            "for s in 0..len(devices) {\n"
            "  place {PP: s} on devices[s] stream pp\n",
            e->replicas, schedules[i].devices, EXPERT_MB);
        if (e->replicas > 1)
            n += (size_t)snprintf(script + n, size - n,
                                  "  replicate {PP: s} on devices[s] reduce dp %s\n", e->clauses);
        if (e->teams != NULL)
            n += (size_t)snprintf(script + n, size - n,
                                  "  shard {PP: s, EP: *} on [[devices[s][d] for d in team] for "
                                  "team in %s] stream ep%s\n",
                                  e->teams, capacity);
        n += (size_t)snprintf(script + n, size - n, "}\n%s\n", schedules[i].order);
    }
    assert_true(n < size);
}

void expert_open(compiled *c, const expert_case *e)
{
    char script[4096];
    expert_script(e, script, sizeof script);
    zero_compile(c, script);
    if (c->set == NULL)
        fail_msg("refused:\n%s\n%s", script, c->said);
}

static void tensors_near(const char *what, const plan_set *set, const float *got,
                         const float *wanted)
{
    train_layout layout;
    assert_int_equal(train_layout_new(set, &layout), PPS_OK);
    for (uint32_t q = 0; q < set->n_params; q++) {
        const float *a = got + layout.offsets[q] / 4, *b = wanted + layout.offsets[q] / 4;
        double worst = 0, largest = 0;
        for (uint64_t i = 0; i < ir_param_elems(&set->params[q]); i++) {
            double d = fabs((double)a[i] - (double)b[i]);
            worst = d > worst || isnan(d) ? d : worst;
            largest = fabs((double)b[i]) > largest ? fabs((double)b[i]) : largest;
        }
        if (!(worst <= 1e-5 * largest))
            fail_msg("%s of %s off by %g of %g", what, set->params[q].name, worst, largest);
    }
    train_layout_done(&layout);
}

void expert_near(const plan_set *set, const outcome *o, const outcome *alone)
{
    for (int i = 0; i < ZERO_STEPS; i++)
        if (!(fabs(o->losses[i] - alone->losses[i]) <= 1e-5 * fabs(alone->losses[i])))
            fail_msg("loss %d is %.9g, not %.9g", i + 1, o->losses[i], alone->losses[i]);
    tensors_near("gradient", set, o->grads, alone->grads);
    tensors_near("value", set, o->params, alone->params);
}

/* Bytes that a rank's step sends; of exchanged rows as many as fit at the other end. */
static uint64_t planned_bytes(const plan_set *set, const plan_step *s, const plan_seat *seats)
{
    const plan_work *w = plan_work_of(set, s);
    if (s->kind == PLAN_SEND)
        return w->bytes;
    if (!plan_is(s->kind, PLAN_COLLECTIVE))
        return 0;
    uint64_t n = set->teams[w->teams].size, index = seats[w->teams].index;
    if (s->kind == PLAN_ALL_REDUCE) { /* the others' slices to them, our sums to all */
        uint64_t elems = w->bytes / 4, own = elems * (index + 1) / n - elems * index / n;
        return (elems - own + (n - 1) * own) * 4;
    }
    if (s->kind == PLAN_COUNTS)
        return (n - 1) * w->experts * sizeof(int32_t);
    return s->kind == PLAN_ALL_TO_ALL ? w->bytes : (n - 1) * (w->bytes / n);
}

void expert_as_planned(const plan_set *set, const outcome *o)
{
    plan_seat seats[64];
    assert_true(set->n_teams <= sizeof seats / sizeof *seats);
    for (uint32_t rank = 0; rank < set->n_ranks; rank++) {
        const plan *p = &set->plans[set->rank_group[rank]];
        uint64_t bytes[PLAN_STEP_KIND_COUNT] = {0};
        plan_find_seats(set, rank, seats);
        for (uint32_t i = 0; i < p->n_steps; i++)
            bytes[p->steps[i].kind] += planned_bytes(set, &p->steps[i], seats);
        for (int k = 0; k < PLAN_STEP_KIND_COUNT; k++) {
            uint64_t sent = o->result.sent_bytes[rank][k];
            if (k == PLAN_ALL_TO_ALL ? sent > bytes[k] : sent != bytes[k])
                fail_msg("rank %u sent %llu bytes by %s, planned are %llu", rank,
                         (unsigned long long)sent, plan_step_name((plan_step_kind)k),
                         (unsigned long long)bytes[k]);
        }
        uint64_t measured = o->result.measured_bytes[rank], planned = p->total_bytes;
        if (bytes[PLAN_ALL_TO_ALL] > 0 ? measured > planned : measured != planned)
            fail_msg("rank %u used %llu bytes, planned are %llu", rank,
                     (unsigned long long)measured, (unsigned long long)planned);
    }
}
