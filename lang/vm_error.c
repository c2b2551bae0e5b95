/* SPDX-License-Identifier: Apache-2.0
 *
 * Where the program is, in the user's terms: the span of the running instruction and of its
 * operands, the calls under way, the values of loop variables, what a name stands for. All of it
 * comes from the tables the compiler left beside the code, and is only looked at when something is
 * reported.
 */
#include "lang/vm.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

const frame *vm_top_frame(pps_state *st)
{
    const struct vm *vm = st->vm;
    return vm && vm->n_frames ? &vm->frames[vm->n_frames - 1] : NULL;
}

static uint32_t position(const frame *f)
{
    uint32_t at = (uint32_t)(f->pc - f->proto->code);
    return at ? at - 1 : 0;
}

pps_span vm_frame_span(const frame *f)
{
    uint32_t at = position(f);
    return at < f->proto->n_code ? f->proto->spans[at] : f->proto->span;
}

pps_span vm_current_span(pps_state *st)
{
    const frame *f = vm_top_frame(st);
    if (f && st->vm->span_at)
        return *st->vm->span_at;
    return f ? vm_frame_span(f) : (pps_span){0};
}

pps_span vm_operand_span(pps_state *st, uint32_t index)
{
    const frame *f = vm_top_frame(st);
    pps_span span;
    if (f && bc_arg_span(f->proto, position(f), index, &span))
        return span;
    return vm_current_span(st);
}

void vm_current_frames(pps_state *st, pps_frame *frames, uint32_t cap, uint32_t *ret_n)
{
    const struct vm *vm = st->vm;
    uint32_t n = 0;
    for (uint32_t i = vm ? vm->n_frames : 0; i-- > 0 && n < cap;) {
        const frame *f = &vm->frames[i];
        if (f->proto->is_main)
            continue;
        frames[n].function = f->proto->name;
        frames[n++].call = i > 0 ? vm_frame_span(&vm->frames[i - 1]) : (pps_span){0};
    }
    *ret_n = n;
}

/* ---- Variables ------------------------------------------------------------------------------- */

static bool in_scope(const bc_local *l, uint32_t at)
{
    return at >= l->begin && at < l->end;
}

bool vm_find_variable(pps_state *st, const char *name, size_t n, value *ret, pps_span *ret_span)
{
    const frame *f = vm_top_frame(st);
    if (!f)
        return false;
    const bc_proto *p = f->proto;
    uint32_t at = position(f);
    const char *key = intern(&st->intern, name, n);
    for (uint32_t i = p->n_locals; i-- > 0;) {
        if (p->locals[i].name == key && in_scope(&p->locals[i], at)) {
            *ret = st->vm->regs[f->base + p->locals[i].reg];
            *ret_span = p->locals[i].span;
            return true;
        }
    }
    for (uint32_t i = 0; i < p->n_upvalues; i++) {
        if (p->upvalues[i].name == key) {
            *ret = *f->fn->cells[i]->at;
            *ret_span = p->upvalues[i].span;
            return true;
        }
    }
    uint32_t slot;
    if (!key || !name_map_get(&p->mod->names, key, &slot))
        return false;
    *ret = p->mod->globals[slot];
    *ret_span = p->mod->spans[slot];
    return ret->tag != VM_TAG_UNBOUND;
}

static void add_variable(pps_state *st, char *buffer, size_t n, const char *name, size_t n_name,
                         value v)
{
    text t;
    text_init(&t, st);
    text_repr(&t, v);
    size_t used = strlen(buffer);
    if (t.status == PPS_OK && used + n_name + 48 < n)
        snprintf(buffer + used, n - used, "%s%.*s = %.36s%s", used ? ", " : "", (int)n_name, name,
                 t.bytes, t.n > 36 ? "..." : "");
    text_done(&t);
}

static bool is_plain(value v)
{
    return pps_typeof(v) < PPS_STRING ? v.tag != VM_TAG_UNBOUND && v.tag != VM_TAG_UNSET
                                      : pps_typeof(v) == PPS_STRING;
}

pps_span vm_context(pps_state *st, char *buffer, size_t n)
{
    enum { AT_MOST = 6 };
    const struct vm *vm = st->vm;
    struct {
        const char *name;
        value v;
    } last[AT_MOST];
    uint32_t count = 0;
    pps_span innermost = {0};
    buffer[0] = 0;
    for (uint32_t i = 0; vm && i < vm->n_frames; i++) {
        const frame *f = &vm->frames[i];
        uint32_t at = position(f);
        for (uint32_t k = 0; k < f->proto->n_locals; k++) {
            const bc_local *l = &f->proto->locals[k];
            value v = vm->regs[f->base + l->reg];
            if (!l->loop || !in_scope(l, at) || !is_plain(v))
                continue;
            last[count % AT_MOST].name = l->name;
            last[count++ % AT_MOST].v = v;
            innermost = l->span;
        }
    }
    for (uint32_t i = count > AT_MOST ? count - AT_MOST : 0; i < count; i++)
        add_variable(st, buffer, n, last[i % AT_MOST].name, strlen(last[i % AT_MOST].name),
                     last[i % AT_MOST].v);
    return innermost;
}

void vm_explain(pps_state *st, pps_span span, char *buffer, size_t n)
{
    const source_file *file = source_get(st, span.file);
    buffer[0] = 0;
    if (!file || span.end > file->bytes)
        return;
    const char *end = file->text + span.end, *begin = file->text + span.begin;
    for (const char *p = begin; p < end;) {
        const char *word = p;
        while (p < end && (isalnum((unsigned char)*p) || *p == '_'))
            p++;
        if (p == word) {
            p++;
            continue;
        }
        char seen[64];
        value v;
        pps_span declared;
        size_t length = (size_t)(p - word);
        if (isdigit((unsigned char)*word) || length > 40 || (word > begin && word[-1] == '.'))
            continue;
        snprintf(seen, sizeof(seen), "%.*s = ", (int)length, word);
        const char *old = strstr(buffer, seen);
        if (old && (old == buffer || old[-1] == ' '))
            continue;
        if (vm_find_variable(st, word, length, &v, &declared) && is_plain(v))
            add_variable(st, buffer, n, word, length, v);
    }
}

/* ---- Errors ---------------------------------------------------------------------------------- */

/* A frame without a function is a loop, with the values of its variables. */
void vm_attach_frames(pps_state *st, pps_diag *d)
{
    struct vm *vm = st->vm;
    char context[256];
    void *memory = NULL;
    uint32_t n = 0, in_loop;
    if (!vm || !vm->n_frames)
        return;
    pps_span loop_span = vm_context(st, context, sizeof(context));
    in_loop = loop_span.file != 0;
    size_t bytes = (vm->n_frames + 1) * sizeof(pps_frame);
    if (heap_alloc(st, bytes, &memory) != PPS_OK)
        return;
    pps_frame *frames = memory;
    if (in_loop)
        frames[0] = (pps_frame){NULL, loop_span};
    vm_current_frames(st, frames + in_loop, vm->n_frames, &n);
    if (n + in_loop)
        pps_diag_frames(d, frames, n + in_loop, context);
    heap_free(st, memory, bytes);
}
