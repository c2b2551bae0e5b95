/* SPDX-License-Identifier: Apache-2.0
 *
 * lower_named.c: what a plan's bindings stand for. A buffer of plan_set is a family of lives or the
 * workspace of a program; a work lists the buffers of its bindings once for all microbatches. The
 * proof holds every binding against this list.
 */
#include "passes/lower.h"

#include <string.h>

static pps_status grow(pass_cx *cx, void **array, uint32_t *cap, uint32_t need, size_t item)
{
    if (need <= *cap)
        return PPS_OK;
    uint32_t wanted = need * 2 + 64;
    void *bigger = arena_zero(cx->mem, wanted * item);
    if (bigger == NULL)
        return PPS_ERR_NOMEM;
    if (*cap > 0)
        memcpy(bigger, *array, *cap * item);
    *array = bigger;
    *cap = wanted;
    return PPS_OK;
}

pps_status lower_named_init(lower_named *v, const lower_buffers *b)
{
    pass_cx *cx = b->cx;
    plan_set *set = cx->set;
    uint32_t n_groups = cx->dag->n_groups;
    *v = (lower_named){.buffers = b};
    PASS_ALLOC(v->families, cx->phase, b->n_families);
    PASS_ALLOC(v->group_at, cx->phase, n_groups + 1);
    PASS_ALLOC(v->workspace, cx->phase, set->n_programs);
    PASS_ALLOC(v->done, cx->phase, set->n_works);
    memset(v->workspace, 0xff, set->n_programs * sizeof *v->workspace);
    for (uint32_t f = 0; f < b->n_families; f++)
        v->group_at[b->families[f].group + 1]++;
    for (uint32_t g = 0; g < n_groups; g++)
        v->group_at[g + 1] += v->group_at[g];
    for (uint32_t f = b->n_families; f-- > 0;) /* from the back: ends become begins */
        v->families[--v->group_at[b->families[f].group + 1]] = f;
    memmove(v->group_at, v->group_at + 1, n_groups * sizeof *v->group_at);
    v->group_at[n_groups] = b->n_families;
    set->n_buffers = b->n_families;
    PPS_TRY(
        grow(cx, (void **)&set->buffers, &v->cap_buffers, set->n_buffers, sizeof *set->buffers));
    for (uint32_t f = 0; f < b->n_families; f++) {
        const family *of = &b->families[f];
        set->buffers[f] =
            (plan_buffer){.bytes = of->bytes,
                          .what = of->what,
                          .bucket = of->bucket != IR_NONE ? cx->bucket_index[of->bucket] : IR_NONE,
                          .per = of->per};
    }
    return PPS_OK;
}

/* The family that a life of `group` belongs to: the last whose lives begin at or before it. */
static uint32_t family_of(const lower_named *v, uint32_t group, uint32_t life)
{
    uint32_t lo = v->group_at[group], hi = v->group_at[group + 1];
    while (hi - lo > 1) {
        uint32_t mid = lo + (hi - lo) / 2;
        if (v->buffers->families[v->families[mid]].base <= life)
            lo = mid;
        else
            hi = mid;
    }
    return v->families[lo];
}

static pps_status workspace_of(lower_named *v, uint32_t program, uint64_t bytes, uint32_t *ret)
{
    pass_cx *cx = v->buffers->cx;
    plan_set *set = cx->set;
    if (v->workspace[program] == IR_NONE) {
        PPS_TRY(grow(cx, (void **)&set->buffers, &v->cap_buffers, set->n_buffers + 1,
                     sizeof *set->buffers));
        set->buffers[set->n_buffers] =
            (plan_buffer){.bytes = bytes, .what = PLAN_BLOCK_WORK, .bucket = IR_NONE, .per = 1};
        v->workspace[program] = set->n_buffers++;
    }
    *ret = v->workspace[program];
    return PPS_OK;
}

pps_status lower_named_note(lower_named *v, uint32_t group, const plan_step *s,
                            const uint32_t *lives, uint64_t work_bytes)
{
    pass_cx *cx = v->buffers->cx;
    plan_set *set = cx->set;
    plan_work *w = &set->works[s->work];
    if (v->done[s->work])
        return PPS_OK;
    v->done[s->work] = true;
    w->buffers = set->n_work_buffers;
    w->n_buffers = s->n_bindings;
    PPS_TRY(grow(cx, (void **)&set->work_buffers, &v->cap_named,
                 set->n_work_buffers + s->n_bindings, sizeof *set->work_buffers));
    for (uint32_t i = 0; i < s->n_bindings; i++) {
        uint32_t buffer;
        if (lives[i] != IR_NONE)
            buffer = family_of(v, group, lives[i]);
        else
            PPS_TRY(workspace_of(v, w->program, work_bytes, &buffer));
        set->work_buffers[set->n_work_buffers++] = buffer;
    }
    return PPS_OK;
}
