/* SPDX-License-Identifier: Apache-2.0
 *
 * Model calls and the regions inside them. A region's index is the number of earlier entries into
 * its tag since the outermost model call began. Whatever way a region or model is left (its end,
 * `break`, `return`, an error), the hooks hear of it once.
 */
#include "lang/vm.h"

#include <string.h>

pps_status model_enter(pps_state *st, const bc_proto *p, pps_span call)
{
    struct vm *vm = st->vm;
    if (vm->model_depth == 0 && vm->tag_slots.n)
        memset(vm->tag_counts, 0, vm->tag_slots.n * sizeof(*vm->tag_counts));
    if (st->hooks.on_model)
        PPS_TRY(st->hooks.on_model(st->hooks.ud, st, true, vm->model_depth, p->name, call));
    vm->model_depth++;
    return PPS_OK;
}

pps_status model_leave(pps_state *st, const bc_proto *p, pps_span call)
{
    struct vm *vm = st->vm;
    vm->model_depth--;
    if (st->hooks.on_model)
        return st->hooks.on_model(st->hooks.ud, st, false, vm->model_depth, p->name, call);
    return PPS_OK;
}

static pps_status outside_model(pps_state *st, const bc_annotate *a)
{
    const struct vm *vm = st->vm;
    pps_diag *d = vm_error_at(st, a->span, 109, "`annotate %s` outside a model call", a->tag);
    if (vm->n_frames > 1 && !vm->frames[vm->n_frames - 1].proto->is_main)
        pps_diag_also(d, vm_frame_span(&vm->frames[vm->n_frames - 2]),
                      "called from here, which no model does");
    pps_diag_help(d, "write `model` instead of `fn` for the function that makes the model");
    return pps_diag_done(d);
}

static pps_status next_index(pps_state *st, const char *tag, uint32_t *ret)
{
    struct vm *vm = st->vm;
    uint32_t slot;
    if (!name_map_get(&vm->tag_slots, tag, &slot)) {
        slot = vm->tag_slots.n;
        void *counts = vm->tag_counts;
        PPS_TRY(vm_reserve(st, &counts, &vm->cap_tags, slot + 1, sizeof(*vm->tag_counts)));
        vm->tag_counts = counts;
        PPS_TRY(name_map_set(st, &vm->tag_slots, tag, slot));
        vm->tag_counts[slot] = 0;
    }
    *ret = vm->tag_counts[slot]++;
    return PPS_OK;
}

pps_status annotate_enter(pps_state *st, const bc_annotate *a, value *ret_index)
{
    struct vm *vm = st->vm;
    uint32_t index;
    if (!vm->model_depth)
        return outside_model(st, a);
    PPS_TRY(next_index(st, a->tag, &index));
    void *array = vm->annotations;
    PPS_TRY(
        vm_reserve(st, &array, &vm->cap_annotations, vm->n_annotations + 1, sizeof(annotation)));
    vm->annotations = array;
    if (st->hooks.on_annotate)
        PPS_TRY(st->hooks.on_annotate(st->hooks.ud, st, true, a->tag, index, a->span));
    vm->annotations[vm->n_annotations++] = (annotation){a->tag, index, vm->n_frames - 1, a->span};
    *ret_index = pps_int(index);
    return PPS_OK;
}

pps_status annotate_leave(pps_state *st)
{
    struct vm *vm = st->vm;
    annotation a = vm->annotations[--vm->n_annotations];
    if (st->hooks.on_annotate)
        return st->hooks.on_annotate(st->hooks.ud, st, false, a.tag, a.index, a.span);
    return PPS_OK;
}

void annotate_unwind(pps_state *st, uint32_t n_frames)
{
    struct vm *vm = st->vm;
    while (vm->n_annotations && vm->annotations[vm->n_annotations - 1].frame >= n_frames) {
        pps_status left = annotate_leave(st);
        (void)left; /* the failure that unwinds is the one that counts */
    }
}
