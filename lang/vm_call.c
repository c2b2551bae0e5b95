/* SPDX-License-Identifier: Apache-2.0
 *
 * Arguments to parameters. Script functions take them in registers: named ones move to their
 * parameter's place, missing ones become "unset", which the function's first code replaces by
 * defaults. Everything else that can be called goes through vm_call_other.
 */
#include "lang/vm.h"

#include <stdio.h>
#include <string.h>

/* ---- Script functions ------------------------------------------------------------------------ */

static pps_status wrong_count(pps_state *st, const bc_proto *p, uint32_t given)
{
    char wanted[64];
    if (p->n_required == p->n_params)
        snprintf(wanted, sizeof(wanted), "%u", p->n_params);
    else
        snprintf(wanted, sizeof(wanted), "%u to %u", p->n_required, p->n_params);
    pps_diag *d = vm_error_at(st, vm_current_span(st), 301, "%s takes %s argument%s, got %u",
                              p->name, wanted, p->n_params == 1 ? "" : "s", given);
    pps_diag_also(d, p->span, "declared here");
    return pps_diag_done(d);
}

static pps_status missing(pps_state *st, const bc_proto *p, const vm_args *args, const value *slots)
{
    char names[160] = "";
    size_t used = 0;
    for (uint32_t i = 0; i < p->n_required; i++)
        if (slots[i].tag == VM_TAG_UNSET && used < sizeof(names) - 48)
            used += (size_t)snprintf(names + used, sizeof(names) - used, "%s`%.40s`",
                                     used ? ", " : "", p->params[i].name);
    pps_diag *d = vm_error_at(st, vm_current_span(st), 301,
                              "%s needs %u argument%s, got %u; missing %s", p->name, p->n_required,
                              p->n_required == 1 ? "" : "s", args->n_pos + args->n_named, names);
    pps_diag_also(d, p->span, "declared here");
    return pps_diag_done(d);
}

static pps_span named_span(pps_state *st, const vm_args *args, uint32_t i)
{
    return args->name_spans ? args->name_spans[i] : vm_current_span(st);
}

static pps_status no_parameter(pps_state *st, const bc_proto *p, const vm_args *args, uint32_t i)
{
    const char *names[VM_MAX_ARGS];
    uint32_t n = 0;
    for (; n < p->n_params && n < VM_MAX_ARGS; n++)
        names[n] = p->params[n].name;
    const char *similar = pps_did_you_mean(args->names[i], names, n);
    pps_diag *d = vm_error_at(st, named_span(st, args, i), 302, "%s has no parameter `%s`", p->name,
                              args->names[i]);
    pps_diag_also(d, p->span, "declared here");
    if (similar)
        pps_diag_help(d, "did you mean `%s`?", similar);
    return pps_diag_done(d);
}

static pps_status bind_named(pps_state *st, const bc_proto *p, const vm_args *args, value *slots)
{
    value named[VM_MAX_ARGS];
    memcpy(named, slots + args->n_pos, args->n_named * sizeof(value));
    for (uint32_t i = args->n_pos; i < p->n_params; i++)
        slots[i] = (value){.tag = VM_TAG_UNSET};
    for (uint32_t i = 0; i < args->n_named; i++) {
        uint32_t k = 0;
        while (k < p->n_params && p->params[k].name != args->names[i])
            k++;
        if (k == p->n_params)
            return no_parameter(st, p, args, i);
        if (slots[k].tag != VM_TAG_UNSET)
            return pps_diag_done(vm_error_at(st, named_span(st, args, i), 302,
                                             "`%s` is already given by position", args->names[i]));
        slots[k] = named[i];
    }
    return PPS_OK;
}

pps_status vm_bind(pps_state *st, const bc_proto *p, const vm_args *args,
                   const uint32_t **ret_entry)
{
    if (args->n_pos > p->n_params)
        return wrong_count(st, p, args->n_pos + args->n_named);
    PPS_TRY(vm_reserve_regs(st, args->first + p->n_params + args->n_named + 1));
    value *slots = st->vm->regs + args->first;
    if (args->n_named) {
        PPS_TRY(bind_named(st, p, args, slots));
    } else {
        for (uint32_t i = args->n_pos; i < p->n_params; i++)
            slots[i] = (value){.tag = VM_TAG_UNSET};
    }
    bool all = true;
    for (uint32_t i = 0; i < p->n_params; i++) {
        if (slots[i].tag != VM_TAG_UNSET)
            continue;
        if (i < p->n_required)
            return missing(st, p, args, slots);
        all = false;
    }
    *ret_entry = p->code + (all ? p->body : 0);
    return PPS_OK;
}

/* ---- Passes, handles, the rest ------------------------------------------------------------------
 */

static uint32_t origin_here(pps_state *st)
{
    const frame *f = vm_top_frame(st);
    if (!f || !f->proto->origin_base)
        return 0;
    return f->proto->origin_base + (uint32_t)(f->pc - f->proto->code) - 1;
}

static pps_status op_index(pps_state *st, const char *what, uint32_t arg, value v)
{
    if (v.tag == PPS_INT)
        return PPS_OK;
    pps_diag *d = vm_error_at(st, vm_operand_span(st, arg), 304,
                              "the %s of an op is an int, not %s", what, value_kind(st, v));
    if (pps_typeof(v) == PPS_FLOAT)
        pps_diag_help(d, "`int(x)` gives the int");
    return pps_diag_done(d);
}

static pps_status call_pass(pps_state *st, pps_pass pass, const vm_args *args, value *ret)
{
    static const char *const names[] = {"F", "B", "BI", "BW"};
    const value *argv = st->vm->regs + args->first;
    if (args->n_pos != 2) {
        pps_diag *d =
            vm_error_at(st, vm_current_span(st), 301,
                        "%s needs a stage and a microbatch, got %u argument%s by position",
                        names[pass], args->n_pos, args->n_pos == 1 ? "" : "s");
        pps_diag_help(d, "`%s(0, 1)`; further tags go by name: `%s(0, 1, EP=2)`", names[pass],
                      names[pass]);
        return pps_diag_done(d);
    }
    PPS_TRY(op_index(st, "stage", 0, argv[0]));
    PPS_TRY(op_index(st, "microbatch", 1, argv[1]));
    PPS_TRY(
        filter_op(st, pass, argv[0].as.i, argv[1].as.i, args->n_named, args->names, argv + 2, ret));
    *ret = value_with_origin(*ret, origin_here(st));
    return PPS_OK;
}

static void begin_call(pps_state *st, host_call *call, uint32_t n_args)
{
    struct vm *vm = st->vm;
    *call = (host_call){.outer = vm->call, .n_frames = vm->n_frames, .n_args = n_args};
    vm->call = call;
}

static pps_status call_handle(pps_state *st, value callee, const vm_args *args, value *ret)
{
    void *ud;
    struct vm *vm = st->vm;
    const pps_handle_ops *ops = vm_handle_ops(st, pps_handle_type_of(callee), &ud);
    if (!ops || !ops->call)
        return PPS_ERR_ARG;
    value argv[VM_MAX_ARGS];
    uint32_t n = args->n_pos + args->n_named;
    memcpy(argv, vm->regs + args->first, n * sizeof(value));
    host_call call;
    begin_call(st, &call, n);
    vm->no_collect++;
    pps_status status = ops->call(st, ud, callee, args->n_pos, argv, args->n_named, args->names,
                                  argv + args->n_pos, ret);
    vm->no_collect--;
    vm->call = call.outer;
    return status;
}

/* `attempt` called by C code: from the loop it needs no nested run. */
static pps_status call_attempt(pps_state *st, const vm_args *args, value *ret)
{
    if (args->n_pos != 1 || args->n_named)
        return pps_error(st, vm_current_span(st), 301, "attempt takes one function");
    value v = pps_nil();
    PPS_TRY(diag_hold(st));
    pps_status status = vm_call(st, st->vm->regs[args->first], 0, NULL, &v);
    if (status == PPS_OK || status == PPS_ERR_SCRIPT) {
        const char *title = diag_release(st);
        bool ok = status == PPS_OK;
        return vm_attempt_result(st, ok, ok ? v : pps_nil(), ok ? NULL : title, ret);
    }
    diag_release_reported(st);
    return status;
}

static pps_status not_callable(pps_state *st, value callee)
{
    pps_span span = vm_operand_span(st, BC_ARG_CALLEE), declared;
    const source_file *file = source_get(st, span.file);
    value v;
    text t;
    text_init(&t, st);
    text_repr(&t, callee);
    bool is_short = t.status == PPS_OK && t.n <= 40;
    pps_diag *d = is_short
                      ? vm_error_at(st, span, 303, "%s is %s, it cannot be called", t.bytes,
                                    value_kind(st, callee))
                      : vm_error_at(st, span, 303, "%s cannot be called", value_kind(st, callee));
    if (file && vm_find_variable(st, file->text + span.begin, span.end - span.begin, &v, &declared))
        pps_diag_also(d, declared, "declared here");
    text_done(&t);
    return pps_diag_done(d);
}

pps_status vm_call_other(pps_state *st, value callee, const vm_args *args, value *ret)
{
    if (pps_typeof(callee) == PPS_PASS)
        return call_pass(st, (pps_pass)callee.as.bits, args, ret);
    if (pps_typeof(callee) == PPS_FN) {
        const fn_object *f = callee.as.ptr;
        if (f->kind == FN_ATTEMPT)
            return call_attempt(st, args, ret);
        PPS_TRY(host_call_fn(st, f->host, args, ret));
        if (f->host->makes_op && pps_typeof(*ret) == PPS_OP)
            *ret = value_with_origin(*ret, origin_here(st));
        return PPS_OK;
    }
    if (pps_typeof(callee) == PPS_HANDLE) {
        void *ud;
        const pps_handle_ops *ops = vm_handle_ops(st, pps_handle_type_of(callee), &ud);
        if (ops && ops->call)
            return call_handle(st, callee, args, ret);
    }
    return not_callable(st, callee);
}

pps_status vm_call_method(pps_state *st, value self, const char *name, const vm_args *args,
                          value *ret)
{
    struct vm *vm = st->vm;
    void *ud;
    if (pps_typeof(self) == PPS_HANDLE) {
        const pps_handle_ops *ops = vm_handle_ops(st, pps_handle_type_of(self), &ud);
        if (ops && ops->field) {
            value field;
            PPS_TRY(vm_field(st, self, name, &field));
            return vm_call_other(st, field, args, ret);
        }
    }
    value argv[VM_MAX_ARGS];
    uint32_t n = args->n_pos + args->n_named;
    memcpy(argv, vm->regs + args->first, n * sizeof(value));
    host_call call;
    begin_call(st, &call, n);
    pps_status status = method_call(st, self, name, vm_operand_span(st, BC_ARG_CALLEE), args->n_pos,
                                    argv, args->n_named, args->names, argv + args->n_pos, ret);
    vm->call = call.outer;
    return status;
}
