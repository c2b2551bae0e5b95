/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_text.c: a plan as text, one line per step, and the names that traces and messages use for
 * steps.
 */
#include "ir/plan.h"

#include <stdarg.h>
#include <stdio.h>

static const char *const step_names[PLAN_STEP_KIND_COUNT] = {
#define STEP(name, text, what, bindings) [PLAN_##name] = text,
#include "ir/steps.def"
#undef STEP
};
static const char *const pass_names[PPS_PASS_COUNT] = {"F", "B", "BI", "BW"};

const char *plan_step_name(plan_step_kind kind)
{
    return step_names[kind];
}

/* ":1", ":1{SEQ=0}" */
static int put_unit(const plan_set *set, uint32_t mb, char *buffer, size_t n)
{
    if (set->slice_tag == NULL)
        return snprintf(buffer, n, ":%u", mb);
    return snprintf(buffer, n, ":%u{%s=%u}", mb / set->n_slices, set->slice_tag,
                    mb % set->n_slices);
}

int plan_step_label(const plan_set *set, const plan *p, const plan_step *s, char *buffer, size_t n)
{
    const plan_work *w = plan_work_of(set, s);
    (void)p;
    if (plan_is(s->kind, PLAN_BUCKET) && s->mb != IR_NONE)
        return snprintf(buffer, n, "%s bucket %u:%u", step_names[s->kind], w->chunk, s->mb);
    if (plan_is(s->kind, PLAN_BUCKET))
        return snprintf(buffer, n, "%s bucket %u", step_names[s->kind], w->chunk);
    const char *chunk = w->chunk < set->n_chunks ? set->chunk_names[w->chunk] : "?";
    char unit[96];
    put_unit(set, s->mb, unit, sizeof unit);
    if (s->kind == PLAN_COMPUTE)
        return snprintf(buffer, n, "%s %s%s", pass_names[s->pass], chunk, unit);
    return snprintf(buffer, n, "%s%s %s %s%s", step_names[s->kind],
                    s->flags & PLAN_A2A_RETURN ? " back" : "", pass_names[s->pass], chunk, unit);
}

PPS_PRINTF(3, 4)
static void out(ir_print_fn print, void *ud, const char *format, ...)
{
    char line[512];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0)
        print(ud, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

void plan_dump(const plan_set *set, uint32_t group, ir_print_fn print, void *ud)
{
    const plan *p = &set->plans[group];
    char label[128];
    out(print, ud, "plan group=%u ranks=", group);
    for (uint32_t i = 0; i < p->n_ranks; i++)
        out(print, ud, i == 0 ? "%u" : ",%u", set->group_ranks[p->ranks + i]);
    out(print, ud,
        " steps=%u params=%llu grads=%llu optimizer=%llu data=%llu activations=%llu "
        "least=%llu live=%llu total=%llu",
        p->n_steps, (unsigned long long)p->param_bytes,
        (unsigned long long)(p->opt_offset - p->grad_offset), (unsigned long long)p->opt_bytes,
        (unsigned long long)p->data_bytes, (unsigned long long)p->act_bytes,
        (unsigned long long)p->least_bytes, (unsigned long long)p->max_live_bytes,
        (unsigned long long)p->total_bytes);
    if (p->host_bytes > 0)
        out(print, ud, " host=%llu host_live=%llu", (unsigned long long)p->host_bytes,
            (unsigned long long)p->host_live_bytes);
    out(print, ud, "\n");
    for (uint32_t b = 0; b < p->n_buckets; b++) {
        const plan_bucket *k = &p->buckets[b];
        out(print, ud, "bucket %u params=%u offset=%llu bytes=%llu%s", b, k->n,
            (unsigned long long)k->offset[PLAN_AREA_PARAMS], (unsigned long long)k->bytes,
            plan_reduced(k) ? " reduced" : "");
        if (k->zero > 0)
            out(print, ud, " zero=%u", k->zero);
        if (k->zero > 1)
            out(print, ud, " every=%u", k->every / set->n_slices);
        out(print, ud, "\n");
    }
    for (uint32_t i = 0; i < p->n_steps; i++) {
        const plan_step *s = &p->steps[i];
        const plan_work *w = plan_work_of(set, s);
        plan_step_label(set, p, s, label, sizeof label);
        out(print, ud, "%4u %-10s %s", i, set->streams[s->stream], label);
        if (s->seq != 0)
            out(print, ud, " seq=%u", s->seq);
        if (s->kind == PLAN_SEND || s->kind == PLAN_RECV)
            out(print, ud, " %s=group %u", s->kind == PLAN_SEND ? "to" : "from", w->peer_group);
        if (w->bytes != 0)
            out(print, ud, " bytes=%llu", (unsigned long long)w->bytes);
        if (s->flags & PLAN_STEP_OVERLAP)
            out(print, ud, " overlap");
        if (s->flags & PLAN_STEP_RECOMPUTE)
            out(print, ud, " recompute");
        for (uint32_t k = 0; k < s->n_bindings; k++)
            out(print, ud, k == 0 ? " at %s%llu" : ",%s%llu",
                plan_host_binding(s, k) ? "host " : "", (unsigned long long)plan_binding(p, s, k));
        for (uint32_t k = 0; k < s->n_waits; k++)
            out(print, ud, k == 0 ? " waits %u" : ",%u", p->waits[s->waits + k]);
        out(print, ud, "\n");
    }
}
