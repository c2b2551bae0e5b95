/* SPDX-License-Identifier: Apache-2.0
 *
 * The interpreter loop: computed goto, one label per instruction. Common cases are handled here;
 * each has a slow path in vm_ops.c, vm_call.c or the file of its statement.
 *
 * The loop keeps the running frame's state in locals. Before anything that can fail, allocate,
 * report or call, `SAVE` writes pc and slice back; afterwards `LOAD` reads everything again,
 * because frames and registers may have moved. Steps are charged on backward jumps and calls alone;
 * when the slice is used up, vm_new_slice looks at the limits, the interrupt flag and the heap.
 * That, and calls of builtins, are the only points where objects are collected.
 */
#include "lang/vm.h"

#include <string.h>

#define SAVE() (fr->pc = pc, vm->slice = slice)
#define LOAD()                              \
    do {                                    \
        fr = &vm->frames[vm->n_frames - 1]; \
        pc = fr->pc;                        \
        R = vm->regs + fr->base;            \
        K = fr->proto->consts;              \
        slice = vm->slice;                  \
    } while (0)
#define CALLOUT(expr)                              \
    do {                                           \
        SAVE();                                    \
        status = (expr);                           \
        LOAD();                                    \
        if (__builtin_expect(status != PPS_OK, 0)) \
            goto failed;                           \
    } while (0)
/* R[A] = what `expr` writes to `result` */
#define RESULT(expr)         \
    do {                     \
        CALLOUT(expr);       \
        R[BC_A(i)] = result; \
    } while (0)
#define CHARGE(n)                           \
    do {                                    \
        slice -= (n);                       \
        if (__builtin_expect(slice < 0, 0)) \
            CALLOUT(vm_new_slice(st));      \
    } while (0)
#define SAFEPOINT()                                                                         \
    do {                                                                                    \
        if (__builtin_expect(st->heap.bytes >= st->heap.threshold, 0) && !vm->no_collect) { \
            SAVE();                                                                         \
            heap_collect(st);                                                               \
        }                                                                                   \
    } while (0)

#define NEXT()                  \
    do {                        \
        i = *pc++;              \
        goto *labels[BC_OP(i)]; \
    } while (0)
#define JUMP()        (pc += (int32_t)*pc + 1)
#define SKIP()        (pc++)
#define BOTH(x, y, t) ((((x)->tag ^ (uint64_t)(t)) | ((y)->tag ^ (uint64_t)(t))) == 0)

#define SET_INT(to, n)       \
    do {                     \
        value *set_ = (to);  \
        set_->tag = PPS_INT; \
        set_->as.i = (n);    \
    } while (0)
#define SET_FLOAT(to, x)       \
    do {                       \
        value *set_ = (to);    \
        set_->tag = PPS_FLOAT; \
        set_->as.f = (x);      \
    } while (0)

/* Checked integers, then floats, then the slow path. */
#define ARITHMETIC(right, slow, checked, op)                         \
    do {                                                             \
        const value *x = &R[BC_B(i)], *y = (right);                  \
        int64_t n;                                                   \
        if (BOTH(x, y, PPS_INT) && !checked(x->as.i, y->as.i, &n)) { \
            SET_INT(&R[BC_A(i)], n);                                 \
            NEXT();                                                  \
        }                                                            \
        if (BOTH(x, y, PPS_FLOAT)) {                                 \
            SET_FLOAT(&R[BC_A(i)], x->as.f op y->as.f);              \
            NEXT();                                                  \
        }                                                            \
        RESULT(vm_binary(st, slow, *x, *y, &result));                \
        NEXT();                                                      \
    } while (0)
/* Positive divisors are the common case; the rest is for the slow path. */
#define DIVISION(right, slow, fast)                   \
    do {                                              \
        const value *x = &R[BC_B(i)], *y = (right);   \
        if (BOTH(x, y, PPS_INT) && y->as.i > 0) {     \
            int64_t a = x->as.i, b = y->as.i;         \
            SET_INT(&R[BC_A(i)], fast);               \
            NEXT();                                   \
        }                                             \
        RESULT(vm_binary(st, slow, *x, *y, &result)); \
        NEXT();                                       \
    } while (0)
#define COMPARE_JUMP(left, right, op, slow_op, slow_left, slow_right)              \
    do {                                                                           \
        const value *x = (left), *y = (right);                                     \
        bool holds;                                                                \
        if (BOTH(x, y, PPS_INT)) {                                                 \
            holds = x->as.i op y->as.i;                                            \
        } else if (BOTH(x, y, PPS_FLOAT)) {                                        \
            holds = x->as.f op y->as.f;                                            \
        } else {                                                                   \
            CALLOUT(vm_compare(st, slow_op, *(slow_left), *(slow_right), &holds)); \
        }                                                                          \
        if (holds == (bool)BC_C(i))                                                \
            JUMP();                                                                \
        else                                                                       \
            SKIP();                                                                \
        NEXT();                                                                    \
    } while (0)
#define COMPARE(op, slow_op, negate)                          \
    do {                                                      \
        const value *x = &R[BC_B(i)], *y = &R[BC_C(i)];       \
        bool holds;                                           \
        if (BOTH(x, y, PPS_INT))                              \
            holds = x->as.i op y->as.i;                       \
        else {                                                \
            CALLOUT(vm_compare(st, slow_op, *x, *y, &holds)); \
            holds ^= (negate);                                \
        }                                                     \
        R[BC_A(i)] = value_make(PPS_BOOL, holds);             \
        NEXT();                                               \
    } while (0)

static inline int64_t floor_div(int64_t a, int64_t b) /* b > 0 */
{
    return a / b - (a % b < 0);
}

static inline int64_t floor_mod(int64_t a, int64_t b) /* b > 0 */
{
    int64_t r = a % b;
    return r < 0 ? r + b : r;
}

/* ---- Slow paths that need the frame -------------------------------------------------------------
 */

static pps_status unbound(pps_state *st, uint32_t slot, bool assigning)
{
    const module *m = vm_top_frame(st)->proto->mod;
    pps_diag *d = vm_error_at(st, vm_current_span(st), assigning ? 102 : 101,
                              "`%s` has no value yet", m->global_names[slot]);
    pps_diag_also(d, m->spans[slot], "it gets one here, later");
    return pps_diag_done(d);
}

static pps_status set_global(pps_state *st, uint32_t slot, value v)
{
    module *m = vm_top_frame(st)->proto->mod;
    if (m->globals[slot].tag == VM_TAG_UNBOUND)
        return unbound(st, slot, true);
    if (m->o.frozen) {
        pps_diag *d = vm_error_at(st, vm_current_span(st), 104,
                                  "`%s` belongs to an imported module and cannot change",
                                  m->global_names[slot]);
        pps_diag_also(d, m->spans[slot], "declared here");
        return pps_diag_done(d);
    }
    m->globals[slot] = v;
    return PPS_OK;
}

static pps_status set_captured(pps_state *st, cell *c, const char *name, value v)
{
    if (c->o.frozen)
        return pps_diag_done(vm_error_at(st, vm_current_span(st), 104,
                                         "`%s` belongs to an imported module and cannot change",
                                         name));
    *c->at = v;
    return PPS_OK;
}

static pps_status iter_start(pps_state *st, value *at)
{
    value_iter it;
    PPS_TRY(iter_begin(st, &it, at[0], vm_current_span(st)));
    at[1] = value_make(PPS_INT, 0);
    return PPS_OK;
}

static pps_status iter_step(pps_state *st, value *at, value *ret, bool *ret_more)
{
    value_iter it = {.c = at[0], .at = (size_t)at[1].as.i};
    PPS_TRY(iter_next(st, &it, ret, ret_more));
    at[1].as.i = (int64_t)it.at;
    return PPS_OK;
}

static pps_status bad_range_end(pps_state *st, value *at)
{
    for (uint32_t k = 0; k < 2; k++) {
        if (at[k].tag == PPS_INT)
            continue;
        pps_diag *d =
            vm_error_at(st, vm_operand_span(st, k), 304, "a range goes from int to int, this is %s",
                        value_kind(st, at[k]));
        if (at[k].tag == PPS_FLOAT)
            pps_diag_help(d, "`int(x)` gives the int");
        return pps_diag_done(d);
    }
    return pps_diag_done(vm_error_at(st, vm_current_span(st), 602,
                                     "integer overflow: the end of this closed range plus one "
                                     "does not fit in 64 bits"));
}

static pps_status make_range(pps_state *st, value from, value to, bool closed, value *ret)
{
    value ends[] = {from, to};
    if (from.tag != PPS_INT || to.tag != PPS_INT || (closed && to.as.i == INT64_MAX))
        return bad_range_end(st, ends);
    return range_new(st, from.as.i, to.as.i + closed, 1, ret);
}

/* The callee in `base - 1` and its arguments behind it: push a frame, or finish the call here. */
static pps_status call_any(pps_state *st, uint32_t base, uint32_t n_pos, const bc_names *names)
{
    struct vm *vm = st->vm;
    value callee = vm->regs[base - 1];
    vm_args args = {.first = base, .n_pos = n_pos};
    if (names) {
        args.n_named = names->n;
        args.names = names->names;
        args.name_spans = names->spans;
    }
    const fn_object *f = pps_typeof(callee) == PPS_FN ? callee.as.ptr : NULL;
    if (f && f->kind == FN_SCRIPT) {
        const uint32_t *entry;
        PPS_TRY(vm_bind(st, f->proto, &args, &entry));
        uint32_t flags = f->proto->is_model ? FRAME_MODEL : 0;
        if (flags)
            PPS_TRY(model_enter(st, f->proto, vm_current_span(st)));
        pps_status status = vm_push_frame(st, callee.as.ptr, base, flags, entry);
        if (status != PPS_OK && flags)
            (void)(model_leave(st, f->proto, vm_current_span(st)) == PPS_OK);
        return status;
    }
    const fn_object *thunk =
        n_pos == 1 && !names && pps_typeof(vm->regs[base]) == PPS_FN ? vm->regs[base].as.ptr : NULL;
    if (f && f->kind == FN_ATTEMPT && thunk && thunk->kind == FN_SCRIPT &&
        !thunk->proto->is_model) {
        const uint32_t *entry;
        vm_args none = {.first = base + 1};
        PPS_TRY(vm_bind(st, thunk->proto, &none, &entry));
        PPS_TRY(diag_hold(st));
        pps_status status =
            vm_push_frame(st, vm->regs[base].as.ptr, base + 1, FRAME_ATTEMPT, entry);
        if (status != PPS_OK)
            diag_release_reported(st);
        return status;
    }
    value result = pps_nil();
    PPS_TRY(vm_call_other(st, callee, &args, &result));
    vm->regs[base - 1] = result;
    return PPS_OK;
}

static pps_status call_method(pps_state *st, uint32_t base, uint32_t n_pos, const char *name,
                              const bc_names *names)
{
    struct vm *vm = st->vm;
    value self = vm->regs[base - 1];
    if (pps_typeof(self) == PPS_MODULE) {
        PPS_TRY(module_field(st, self.as.ptr, name, vm_operand_span(st, BC_ARG_CALLEE),
                             &vm->regs[base - 1]));
        return call_any(st, base, n_pos, names);
    }
    vm_args args = {.first = base, .n_pos = n_pos};
    if (names) {
        args.n_named = names->n;
        args.names = names->names;
        args.name_spans = names->spans;
    }
    value result = pps_nil();
    PPS_TRY(vm_call_method(st, self, name, &args, &result));
    vm->regs[base - 1] = result;
    return PPS_OK;
}

/* Leaves the module in `reg`, or pushes the frame that runs it and then leaves it there. */
static pps_status import_module(pps_state *st, uint32_t reg, value path)
{
    module *m;
    bc_proto *p;
    value fn;
    const string *s = path.as.ptr;
    const frame *f = vm_top_frame(st);
    PPS_TRY(module_import(st, f->proto->mod, s->bytes, vm_frame_span(f), &m, &p));
    if (!p) {
        st->vm->regs[reg] = value_object(PPS_MODULE, m);
        return PPS_OK;
    }
    pps_status status = vm_closure(st, p, NULL, NULL, &fn);
    if (status == PPS_OK)
        status = vm_push_frame(st, fn.as.ptr, reg + 1, FRAME_MODULE, p->code);
    if (status != PPS_OK)
        m->state = MODULE_FAILED;
    return status;
}

static pps_status param_failed(pps_state *st, const char *name, value v)
{
    text t;
    text_init(&t, st);
    text_repr(&t, v);
    pps_diag *d = vm_error_at(st, vm_current_span(st), 105,
                              "parameter `%s` = %.60s does not hold its condition", name,
                              t.status == PPS_OK ? t.bytes : "?");
    text_done(&t);
    char because[160];
    vm_explain(st, vm_current_span(st), because, sizeof(because));
    if (because[0])
        pps_diag_label(d, "%s", because);
    return pps_diag_done(d);
}

/* ---- The loop -------------------------------------------------------------------------------- */

pps_status vm_run(pps_state *st, uint32_t stop)
{
    static const void *const labels[] = {
#define BC(name, operands, words) [BC_##name] = &&L_##name,
#include "lang/bytecode.def"
#undef BC
    };
    struct vm *vm = st->vm;
    pps_status status;
    frame *fr;
    const uint32_t *pc;
    value *R;
    const value *K;
    int64_t slice;
    uint32_t i;
    value result;
    bool flag;

    LOAD();
    NEXT();

L_MOVE:
    R[BC_A(i)] = R[BC_B(i)];
    NEXT();
L_LOADK:
    R[BC_A(i)] = K[BC_BX(i)];
    NEXT();
L_LOADKX:
    R[BC_A(i)] = K[*pc++];
    NEXT();
L_GETG : {
    value v = fr->proto->mod->globals[BC_BX(i)];
    if (__builtin_expect(v.tag == VM_TAG_UNBOUND, 0))
        CALLOUT(unbound(st, BC_BX(i), false));
    R[BC_A(i)] = v;
    NEXT();
}
L_SETG : {
    module *m = fr->proto->mod;
    if (__builtin_expect(m->o.frozen || m->globals[BC_BX(i)].tag == VM_TAG_UNBOUND, 0))
        CALLOUT(set_global(st, BC_BX(i), R[BC_A(i)]));
    m->globals[BC_BX(i)] = R[BC_A(i)];
    NEXT();
}
L_DEFG:
    fr->proto->mod->globals[BC_BX(i)] = R[BC_A(i)];
    NEXT();
L_GETUP:
    R[BC_A(i)] = *fr->fn->cells[BC_B(i)]->at;
    NEXT();
L_SETUP : {
    cell *c = fr->fn->cells[BC_B(i)];
    if (__builtin_expect(c->o.frozen, 0))
        CALLOUT(set_captured(st, c, fr->proto->upvalues[BC_B(i)].name, R[BC_A(i)]));
    *c->at = R[BC_A(i)];
    NEXT();
}
L_CLOSE:
    vm_close_cells(st, R + BC_A(i));
    NEXT();
L_CLOSURE:
    SAFEPOINT();
    RESULT(vm_closure(st, fr->proto->protos[BC_BX(i)], fr->fn, R, &result));
    NEXT();

L_ADD:
    ARITHMETIC(&R[BC_C(i)], BC_ADD, __builtin_add_overflow, +);
L_SUB:
    ARITHMETIC(&R[BC_C(i)], BC_SUB, __builtin_sub_overflow, -);
L_MUL:
    ARITHMETIC(&R[BC_C(i)], BC_MUL, __builtin_mul_overflow, *);
L_ADDK:
    ARITHMETIC(&K[BC_C(i)], BC_ADD, __builtin_add_overflow, +);
L_SUBK:
    ARITHMETIC(&K[BC_C(i)], BC_SUB, __builtin_sub_overflow, -);
L_MULK:
    ARITHMETIC(&K[BC_C(i)], BC_MUL, __builtin_mul_overflow, *);
L_FLOORDIV:
    DIVISION(&R[BC_C(i)], BC_FLOORDIV, floor_div(a, b));
L_MOD:
    DIVISION(&R[BC_C(i)], BC_MOD, floor_mod(a, b));
L_FLOORDIVK:
    DIVISION(&K[BC_C(i)], BC_FLOORDIV, floor_div(a, b));
L_MODK:
    DIVISION(&K[BC_C(i)], BC_MOD, floor_mod(a, b));
L_DIV:
    RESULT(vm_binary(st, BC_DIV, R[BC_B(i)], R[BC_C(i)], &result));
    NEXT();
L_DIVK:
    RESULT(vm_binary(st, BC_DIV, R[BC_B(i)], K[BC_C(i)], &result));
    NEXT();
L_POW:
    RESULT(vm_binary(st, BC_POW, R[BC_B(i)], R[BC_C(i)], &result));
    NEXT();
L_NEG:
    RESULT(vm_negate(st, R[BC_B(i)], &result));
    NEXT();
L_NOT : {
    value v = R[BC_B(i)];
    if (__builtin_expect(v.tag != PPS_BOOL, 0))
        CALLOUT(vm_not_bool(st, v, "`not`"));
    R[BC_A(i)] = value_make(PPS_BOOL, !v.as.i);
    NEXT();
}
L_BITAND:
    SAFEPOINT();
    RESULT(vm_binary(st, BC_BITAND, R[BC_B(i)], R[BC_C(i)], &result));
    NEXT();
L_BAR:
    SAFEPOINT();
    RESULT(vm_binary(st, BC_BAR, R[BC_B(i)], R[BC_C(i)], &result));
    NEXT();
L_EQ:
    COMPARE(==, BC_EQ, false);
L_NE:
    COMPARE(!=, BC_EQ, true);
L_LT:
    COMPARE(<, BC_LT, false);
L_LE:
    COMPARE(<=, BC_LE, false);
L_IN:
    CALLOUT(value_contains(st, R[BC_C(i)], R[BC_B(i)], &flag));
    R[BC_A(i)] = value_make(PPS_BOOL, flag);
    NEXT();
L_NOT_IN:
    CALLOUT(value_contains(st, R[BC_C(i)], R[BC_B(i)], &flag));
    R[BC_A(i)] = value_make(PPS_BOOL, !flag);
    NEXT();
L_IADD : {
    const value *x = &R[BC_A(i)], *y = &R[BC_B(i)];
    int64_t n;
    if (BOTH(x, y, PPS_INT) && !__builtin_add_overflow(x->as.i, y->as.i, &n)) {
        SET_INT(&R[BC_A(i)], n);
        NEXT();
    }
    RESULT(vm_add_to(st, *x, *y, &result));
    NEXT();
}
L_ROW:
    SAFEPOINT();
    CALLOUT(vm_row_add(st, fr->base + BC_A(i), fr->base + BC_B(i), BC_C(i), false));
    NEXT();
L_ROWADD:
    SAFEPOINT();
    CALLOUT(vm_row_add(st, fr->base + BC_A(i), fr->base + BC_B(i), BC_C(i), true));
    NEXT();
L_LISTEXTEND:
    CALLOUT(vm_list_extend(st, R[BC_A(i)], &R[BC_B(i)], BC_C(i)));
    NEXT();
L_RANGE:
    RESULT(make_range(st, R[BC_B(i)], R[BC_C(i)], false, &result));
    NEXT();
L_RANGE_CLOSED:
    RESULT(make_range(st, R[BC_B(i)], R[BC_C(i)], true, &result));
    NEXT();

L_JMP:
    JUMP();
    NEXT();
L_JBACK:
    CHARGE(-(int64_t)(int32_t)*pc);
    JUMP();
    NEXT();
L_JBOOL : {
    value v = R[BC_A(i)];
    if (__builtin_expect(v.tag != PPS_BOOL, 0))
        CALLOUT(vm_not_bool(st, v, "a condition"));
    if ((uint32_t)v.as.i == BC_C(i))
        JUMP();
    else
        SKIP();
    NEXT();
}
L_JEQ:
    COMPARE_JUMP(&R[BC_A(i)], &R[BC_B(i)], ==, BC_EQ, x, y);
L_JLT:
    COMPARE_JUMP(&R[BC_A(i)], &R[BC_B(i)], <, BC_LT, x, y);
L_JLE:
    COMPARE_JUMP(&R[BC_A(i)], &R[BC_B(i)], <=, BC_LE, x, y);
L_JEQK:
    COMPARE_JUMP(&R[BC_A(i)], &K[BC_B(i)], ==, BC_EQ, x, y);
L_JLTK:
    COMPARE_JUMP(&R[BC_A(i)], &K[BC_B(i)], <, BC_LT, x, y);
L_JLEK:
    COMPARE_JUMP(&R[BC_A(i)], &K[BC_B(i)], <=, BC_LE, x, y);
L_JGTK:
    COMPARE_JUMP(&R[BC_A(i)], &K[BC_B(i)], >, BC_LT, y, x);
L_JGEK:
    COMPARE_JUMP(&R[BC_A(i)], &K[BC_B(i)], >=, BC_LE, y, x);
L_CHECK_BOOL:
    if (__builtin_expect(R[BC_A(i)].tag != PPS_BOOL, 0))
        CALLOUT(vm_not_bool(st, R[BC_A(i)], BC_C(i) ? "`or`" : "`and`"));
    NEXT();

L_FORPREP : {
    value *at = &R[BC_A(i)];
    bool closed = BC_C(i);
    if (__builtin_expect(at[0].tag != PPS_INT || at[1].tag != PPS_INT ||
                             (closed && at[1].as.i == INT64_MAX),
                         0)) {
        SKIP();
        CALLOUT(bad_range_end(st, at));
    }
    at[1].as.i += closed;
    if (at[0].as.i >= at[1].as.i) {
        JUMP();
    } else {
        at[2] = at[0];
        SKIP();
    }
    NEXT();
}
L_FORLOOP : {
    value *at = &R[BC_A(i)];
    int64_t n = at[0].as.i + 1;
    if (n < at[1].as.i) {
        at[0].as.i = n;
        SET_INT(&at[2], n);
        CHARGE(-(int64_t)(int32_t)*pc);
        JUMP();
    } else {
        SKIP();
    }
    NEXT();
}
L_ITER:
    CALLOUT(iter_start(st, &R[BC_A(i)]));
    NEXT();
L_ITERNEXT : {
    value *at = &R[BC_A(i)];
    if (at[0].tag == PPS_LIST) {
        const list *l = at[0].as.ptr;
        size_t n = (size_t)at[1].as.i;
        flag = n < l->n;
        if (flag) {
            at[1].as.i++;
            result = l->items[n];
        }
    } else {
        CALLOUT(iter_step(st, &R[BC_A(i)], &result, &flag));
    }
    if (flag) {
        R[BC_B(i)] = result;
        SKIP();
    } else {
        JUMP();
    }
    NEXT();
}
L_ITEREND : {
    value_iter it = {.c = R[BC_A(i)]};
    iter_end(&it);
    R[BC_A(i)] = value_make(PPS_NIL, 0);
    NEXT();
}
L_UNPACK:
    CALLOUT(vm_unpack(st, fr->base + BC_A(i), R[BC_B(i)], BC_C(i)));
    NEXT();

L_LIST:
    SAFEPOINT();
    RESULT(list_new(st, BC_BX(i), &result));
    NEXT();
L_LISTADD : {
    list *l = R[BC_A(i)].as.ptr;
    if (l->n < l->cap) {
        l->items[l->n++] = R[BC_B(i)];
        NEXT();
    }
    CALLOUT(list_push(st, l, R[BC_B(i)]));
    NEXT();
}
L_MAP:
    SAFEPOINT();
    RESULT(map_new(st, &result));
    NEXT();
L_MAPADD:
    CALLOUT(map_set(st, R[BC_A(i)].as.ptr, R[BC_B(i)], R[BC_C(i)]));
    NEXT();
L_FILTER : {
    const bc_filter *f = &fr->proto->filters[*pc++];
    SAFEPOINT();
    RESULT(vm_filter(st, f, &R[BC_B(i)], &result));
    NEXT();
}
L_INDEX : {
    value c = R[BC_B(i)], key = R[BC_C(i)];
    if (c.tag == PPS_LIST && key.tag == PPS_INT && (uint64_t)key.as.i < ((list *)c.as.ptr)->n) {
        R[BC_A(i)] = ((list *)c.as.ptr)->items[key.as.i];
        NEXT();
    }
    RESULT(value_index(st, c, key, &result));
    NEXT();
}
L_SETINDEX:
    CALLOUT(value_index_set(st, R[BC_A(i)], R[BC_B(i)], R[BC_C(i)]));
    NEXT();
L_SLICE:
    SAFEPOINT();
    RESULT(value_slice(st, R[BC_B(i)], R[BC_C(i)], R[BC_C(i) + 1], &result));
    NEXT();
L_FIELD : {
    const char *name = fr->proto->names[*pc++];
    RESULT(vm_field(st, R[BC_B(i)], name, &result));
    NEXT();
}
L_CONCAT:
    SAFEPOINT();
    RESULT(vm_concat(st, &R[BC_B(i)], BC_C(i), &result));
    NEXT();

L_CALL : {
    value *callee = &R[BC_A(i)];
    uint32_t n = BC_B(i);
    if (callee->tag == PPS_FN) {
        fn_object *f = callee->as.ptr;
        bc_proto *p = f->proto;
        if (f->kind == FN_SCRIPT && n == p->n_params && !p->is_model) {
            CHARGE(p->cost); /* may collect: nothing of the callee is in locals that matter */
            uint32_t base = fr->base + BC_A(i) + 1;
            if (__builtin_expect(vm->n_frames < vm->cap_frames && vm->n_frames < vm->max_depth &&
                                     base + p->n_regs < vm->cap_regs,
                                 1)) {
                fr->pc = pc;
                fr = &vm->frames[vm->n_frames++];
                fr->fn = f;
                fr->proto = p;
                fr->base = base;
                fr->flags = 0;
                pc = p->code + p->body;
                R = vm->regs + base;
                K = p->consts;
                NEXT();
            }
            CALLOUT(vm_push_frame(st, f, base, 0, p->code + p->body));
            NEXT();
        }
    } else if (callee->tag == PPS_PASS && n == 2 && BOTH(callee + 1, callee + 2, PPS_INT) &&
               (uint64_t)callee[1].as.i <= 0xffffff && (uint64_t)callee[2].as.i <= UINT32_MAX &&
               fr->proto->origin_base) {
        uint32_t origin = fr->proto->origin_base + (uint32_t)(pc - fr->proto->code) - 1;
        uint64_t bits = value_op_bits((uint32_t)callee[1].as.i, (uint32_t)callee[2].as.i,
                                      (pps_pass)callee->as.bits, PPS_COMM_NONE);
        callee->tag = (uint64_t)PPS_OP | (uint64_t)origin << TAG_ORIGIN_SHIFT;
        callee->as.bits = bits;
        CHARGE(1);
        NEXT();
    }
    CHARGE(4);
    SAFEPOINT();
    CALLOUT(call_any(st, fr->base + BC_A(i) + 1, BC_B(i), NULL));
    NEXT();
}
L_CALLN : {
    uint32_t names = *pc++;
    CHARGE(4);
    SAFEPOINT();
    CALLOUT(call_any(st, fr->base + BC_A(i) + 1, BC_B(i), &fr->proto->name_lists[names]));
    NEXT();
}
L_METHOD : {
    const char *name = fr->proto->names[pc[0]];
    uint32_t names = pc[1];
    pc += 2;
    value *self = &R[BC_A(i)];
    if (name == vm->name_append && self->tag == PPS_LIST && BC_B(i) == 1 && BC_C(i) == 0) {
        list *l = self->as.ptr;
        if (l->n < l->cap && !(l->o.frozen | l->o.iterating)) {
            l->items[l->n++] = self[1];
            self->tag = PPS_NIL;
            self->as.bits = 0;
            CHARGE(1);
            NEXT();
        }
    }
    CHARGE(4);
    SAFEPOINT();
    CALLOUT(call_method(st, fr->base + BC_A(i) + 1, BC_B(i), name,
                        BC_C(i) ? &fr->proto->name_lists[names] : NULL));
    NEXT();
}
L_RETNIL:
    result = value_make(PPS_NIL, 0);
    goto leave_frame;
L_RETURN:
    result = R[BC_A(i)];
leave_frame:
    if (vm->open && vm->open->at >= R)
        vm_close_cells(st, R);
    if (__builtin_expect(fr->flags != 0, 0))
        CALLOUT(vm_leave(st, &result));
    R[-1] = result;
    if (--vm->n_frames == stop) {
        vm->slice = slice;
        return PPS_OK;
    }
    fr = &vm->frames[vm->n_frames - 1];
    pc = fr->pc;
    R = vm->regs + fr->base;
    K = fr->proto->consts;
    NEXT();
L_ARGDEF:
    if (R[BC_A(i)].tag != VM_TAG_UNSET)
        JUMP();
    else
        SKIP();
    NEXT();

L_IMPORT:
    CHARGE(4);
    CALLOUT(import_module(st, fr->base + BC_A(i), K[BC_BX(i)]));
    NEXT();
L_PARAM : {
    const char *name = fr->proto->names[*pc++];
    RESULT(param_apply(st, name, R[BC_A(i)], &result));
    NEXT();
}
L_PARAM_FAIL : {
    const char *name = fr->proto->names[*pc++];
    CALLOUT(param_failed(st, name, R[BC_A(i)]));
    NEXT();
}
L_ANNOTATE : {
    const bc_annotate *a = &fr->proto->annotates[*pc++];
    RESULT(annotate_enter(st, a, &result));
    NEXT();
}
L_ANNOTATE_END:
    CALLOUT(annotate_leave(st));
    NEXT();
L_DIRECTIVE : {
    const bc_directive *d = &fr->proto->directives[*pc++];
    CALLOUT(directive_record(st, d, &R[BC_A(i)]));
    NEXT();
}

failed:
    status = vm_unwind(st, stop, status);
    if (status != PPS_OK)
        return status;
    LOAD();
    NEXT();
}
