/* SPDX-License-Identifier: Apache-2.0
 *
 * Operators beyond the loop's fast paths: mixed numbers, overflow and division errors, strings and
 * lists, handles of the host, comparisons, and the small helpers of single instructions.
 *
 * Integers are 64 bits and checked: a result that does not fit is E0602. `/` gives a float; `//`
 * and
 * `%` round down, as in Python; dividing by zero is E0601, for floats too.
 */
#include "lang/vm.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char *op_text(bc_op op)
{
    switch (op) {
    case BC_ADD:
        return "+";
    case BC_SUB:
        return "-";
    case BC_MUL:
        return "*";
    case BC_DIV:
        return "/";
    case BC_FLOORDIV:
        return "//";
    case BC_MOD:
        return "%";
    case BC_POW:
        return "**";
    case BC_BITAND:
        return "&";
    case BC_BAR:
        return "|";
    default:
        return bc_op_name(op);
    }
}

/* ---- Numbers --------------------------------------------------------------------------------- */

static pps_status overflow(pps_state *st, bc_op op, int64_t a, int64_t b)
{
    pps_diag *d = vm_error_at(st, vm_current_span(st), 602,
                              "integer overflow: %lld %s %lld does not fit in 64 bits",
                              (long long)a, op_text(op), (long long)b);
    pps_diag_help(d, "use floats (`1.0 * x`) if you want an approximation");
    return pps_diag_done(d);
}

static pps_status division_by_zero(pps_state *st)
{
    char because[160];
    pps_span span = vm_operand_span(st, 1);
    const source_file *file = source_get(st, span.file);
    vm_explain(st, span, because, sizeof(because));
    pps_diag *d = vm_error_at(st, span, 601, "division by zero");
    if (file && because[0])
        pps_diag_label(d, "%.*s is 0 because %s",
                       span.end - span.begin > 60 ? 60 : (int)(span.end - span.begin),
                       file->text + span.begin, because);
    return pps_diag_done(d);
}

static pps_status int_pow(pps_state *st, int64_t base, int64_t exponent, value *ret)
{
    if (exponent < 0) {
        if (base == 0)
            return division_by_zero(st);
        *ret = pps_float(pow((double)base, (double)exponent));
        return PPS_OK;
    }
    int64_t result = 1, b = base;
    for (int64_t e = exponent; e; e >>= 1) {
        if ((e & 1) && __builtin_mul_overflow(result, b, &result))
            return overflow(st, BC_POW, base, exponent);
        if (e > 1 && __builtin_mul_overflow(b, b, &b))
            return overflow(st, BC_POW, base, exponent);
    }
    *ret = pps_int(result);
    return PPS_OK;
}

static pps_status int_binary(pps_state *st, bc_op op, int64_t a, int64_t b, value *ret)
{
    int64_t r = 0;
    bool over = false;
    if ((op == BC_DIV || op == BC_FLOORDIV || op == BC_MOD) && b == 0)
        return division_by_zero(st);
    switch (op) {
    case BC_ADD:
        over = __builtin_add_overflow(a, b, &r);
        break;
    case BC_SUB:
        over = __builtin_sub_overflow(a, b, &r);
        break;
    case BC_MUL:
        over = __builtin_mul_overflow(a, b, &r);
        break;
    case BC_DIV:
        *ret = pps_float((double)a / (double)b);
        return PPS_OK;
    case BC_FLOORDIV:
        if (a == INT64_MIN && b == -1)
            return overflow(st, op, a, b);
        r = a / b - ((a % b != 0) && ((a < 0) != (b < 0)));
        break;
    case BC_MOD:
        r = b == -1 ? 0 : a % b;
        r += r != 0 && ((r < 0) != (b < 0)) ? b : 0;
        break;
    default:
        return int_pow(st, a, b, ret);
    }
    if (over)
        return overflow(st, op, a, b);
    *ret = pps_int(r);
    return PPS_OK;
}

static double float_mod(double a, double b)
{
    double r = fmod(a, b);
    return r != 0 && ((r < 0) != (b < 0)) ? r + b : r;
}

static pps_status float_binary(pps_state *st, bc_op op, double a, double b, value *ret)
{
    double r;
    if ((op == BC_DIV || op == BC_FLOORDIV || op == BC_MOD) && b == 0)
        return division_by_zero(st);
    switch (op) {
    case BC_ADD:
        r = a + b;
        break;
    case BC_SUB:
        r = a - b;
        break;
    case BC_MUL:
        r = a * b;
        break;
    case BC_DIV:
        r = a / b;
        break;
    case BC_FLOORDIV:
        r = floor((a - float_mod(a, b)) / b + 0.5);
        break;
    case BC_MOD:
        r = float_mod(a, b);
        break;
    default:
        if (a == 0 && b < 0)
            return division_by_zero(st);
        r = pow(a, b);
        break;
    }
    *ret = pps_float(r);
    return PPS_OK;
}

/* ---- Everything else --------------------------------------------------------------------------
 */

static bool is_number(value v)
{
    return v.tag == PPS_INT || v.tag == PPS_FLOAT;
}

static pps_status wrong_operands(pps_state *st, bc_op op, value a, value b)
{
    pps_diag *d = vm_error_at(st, vm_current_span(st), 304, "`%s` does not work on %s and %s",
                              op_text(op), value_kind(st, a), value_kind(st, b));
    pps_span left = vm_operand_span(st, 0), right = vm_operand_span(st, 1);
    if (memcmp(&left, &right, sizeof(left)) != 0) {
        pps_diag_also(d, left, "%s", value_kind(st, a));
        pps_diag_also(d, right, "%s", value_kind(st, b));
    }
    if (op == BC_ADD && (pps_typeof(a) == PPS_STRING || pps_typeof(b) == PPS_STRING))
        pps_diag_help(d, "`str(x)` or f\"{x}\" makes text of a value");
    return pps_diag_done(d);
}

static pps_status handle_binary(pps_state *st, const char *op, value a, value b, bool *ret_done,
                                value *ret)
{
    *ret_done = false;
    value sides[] = {a, b};
    for (int i = 0; i < 2; i++) {
        void *ud;
        if (pps_typeof(sides[i]) != PPS_HANDLE)
            continue;
        const pps_handle_ops *ops = vm_handle_ops(st, pps_handle_type_of(sides[i]), &ud);
        if (!ops || !ops->binary)
            continue;
        *ret_done = true;
        st->vm->no_collect++;
        pps_status status = ops->binary(st, ud, op, a, b, ret);
        st->vm->no_collect--;
        return status;
    }
    return PPS_OK;
}

pps_status vm_binary(pps_state *st, bc_op op, value a, value b, value *ret)
{
    pps_type ta = pps_typeof(a), tb = pps_typeof(b);
    if (is_number(a) && is_number(b) && op != BC_BITAND && op != BC_BAR) {
        if (ta == PPS_INT && tb == PPS_INT)
            return int_binary(st, op, a.as.i, b.as.i, ret);
        return float_binary(st, op, pps_as_number(a), pps_as_number(b), ret);
    }
    if (ta == PPS_HANDLE || tb == PPS_HANDLE) {
        bool done;
        PPS_TRY(handle_binary(st, op_text(op), a, b, &done, ret));
        if (done)
            return PPS_OK;
    }
    if (op == BC_BITAND)
        return filter_and(st, a, b, ret);
    if (op == BC_BAR)
        return group_or(st, a, b, ret);
    if (op == BC_ADD && ta == tb && (ta == PPS_LIST || ta == PPS_STRING))
        return value_concat(st, a, b, ret);
    if (op == BC_MUL && (ta == PPS_LIST || ta == PPS_STRING) && tb == PPS_INT)
        return value_repeat(st, a, b.as.i, ret);
    if (op == BC_MUL && (tb == PPS_LIST || tb == PPS_STRING) && ta == PPS_INT)
        return value_repeat(st, b, a.as.i, ret);
    return wrong_operands(st, op, a, b);
}

pps_status vm_negate(pps_state *st, value v, value *ret)
{
    if (v.tag == PPS_INT) {
        if (v.as.i == INT64_MIN) {
            pps_diag *d =
                vm_error_at(st, vm_current_span(st), 602,
                            "integer overflow: -(%lld) does not fit in 64 bits", (long long)v.as.i);
            return pps_diag_done(d);
        }
        *ret = pps_int(-v.as.i);
        return PPS_OK;
    }
    if (v.tag == PPS_FLOAT) {
        *ret = pps_float(-v.as.f);
        return PPS_OK;
    }
    bool done;
    PPS_TRY(handle_binary(st, "-", pps_int(0), v, &done, ret));
    if (done)
        return PPS_OK;
    return pps_diag_done(
        vm_error_at(st, vm_operand_span(st, 0), 304, "`-` does not work on %s", value_kind(st, v)));
}

pps_status vm_compare(pps_state *st, bc_op op, value a, value b, bool *ret)
{
    int order;
    if (op == BC_EQ)
        return value_equal(st, a, b, ret);
    if (is_number(a) && is_number(b) && (a.tag == PPS_FLOAT || b.tag == PPS_FLOAT) &&
        (isnan(pps_as_number(a)) || isnan(pps_as_number(b)))) {
        *ret = false; /* value_compare orders nan, for sorting; operators do not */
        return PPS_OK;
    }
    PPS_TRY(value_compare(st, a, b, &order));
    *ret = op == BC_LT ? order < 0 : order <= 0;
    return PPS_OK;
}

pps_status vm_add_to(pps_state *st, value a, value b, value *ret)
{
    if (pps_typeof(a) != PPS_LIST)
        return vm_binary(st, BC_ADD, a, b, ret);
    if (pps_typeof(b) != PPS_LIST && pps_typeof(b) != PPS_RANGE)
        return wrong_operands(st, BC_ADD, a, b);
    size_t n;
    PPS_TRY(value_count(st, b, vm_current_span(st), &n));
    PPS_TRY(vm_charge(st, n));
    *ret = a;
    return list_extend(st, a.as.ptr, b);
}

/* Put operands first .. first + n - 1 behind one another, into a new list or onto dest's. */
pps_status vm_row_add(pps_state *st, uint32_t dest, uint32_t first, uint32_t n, bool in_place)
{
    struct vm *vm = st->vm;
    value row = vm->regs[dest];
    if (in_place && pps_typeof(row) != PPS_LIST)
        return pps_diag_done(vm_error_at(st, vm_current_span(st), 304,
                                         "a row can be added to a list, not to %s",
                                         value_kind(st, row)));
    /* An operand that is the target itself must be read before it grows. */
    bool itself = false;
    for (uint32_t i = 1; i < n && in_place; i++)
        itself |=
            pps_typeof(vm->regs[first + i]) == PPS_LIST && vm->regs[first + i].as.ptr == row.as.ptr;
    value target = row;
    if (!in_place || itself)
        PPS_TRY(list_new(st, n, &target));
    pps_status status = PPS_OK;
    for (uint32_t i = 0; i < n && status == PPS_OK; i++) {
        pps_span span;
        value v = vm->regs[first + i];
        if (pps_typeof(v) == PPS_OP || pps_typeof(v) == PPS_GROUP) {
            status = list_push(st, target.as.ptr, v);
            continue;
        }
        span = vm_operand_span(st, i);
        vm->span_at = &span;
        status = row_append(st, target.as.ptr, v);
        vm->span_at = NULL;
    }
    if (status != PPS_OK)
        return status;
    if (itself)
        return list_extend(st, row.as.ptr, target);
    vm->regs[dest] = target;
    return PPS_OK;
}

pps_status vm_list_extend(pps_state *st, value l, const value *items, uint32_t n)
{
    if (pps_typeof(l) != PPS_LIST)
        return pps_diag_done(vm_error_at(st, vm_current_span(st), 304,
                                         "a list can be added to a list, not to %s",
                                         value_kind(st, l)));
    for (uint32_t i = 0; i < n; i++)
        PPS_TRY(list_push(st, l.as.ptr, items[i]));
    return PPS_OK;
}

pps_status vm_not_bool(pps_state *st, value v, const char *where)
{
    pps_diag *d = vm_error_at(st, vm_current_span(st), 304, "%s needs true or false, this is %s",
                              where, value_kind(st, v));
    switch (pps_typeof(v)) {
    case PPS_INT:
    case PPS_FLOAT:
        pps_diag_help(d, "write the comparison: `x != 0`");
        break;
    case PPS_NIL:
    case PPS_HANDLE:
        pps_diag_help(d, "write the comparison: `x != nil`");
        break;
    case PPS_LIST:
    case PPS_MAP:
    case PPS_STRING:
    case PPS_RANGE:
        pps_diag_help(d, "write the comparison: `len(x) > 0`");
        break;
    case PPS_FN:
        pps_diag_help(d, "call it: `f()`");
        break;
    default:
        break;
    }
    return pps_diag_done(d);
}

pps_status vm_unpack(pps_state *st, uint32_t dest, value v, uint32_t n)
{
    struct vm *vm = st->vm;
    size_t count;
    const value *items;
    if (pps_typeof(v) == PPS_LIST) {
        count = ((list *)v.as.ptr)->n;
        items = ((list *)v.as.ptr)->items;
    } else if (pps_typeof(v) == PPS_GROUP) {
        count = ((group *)v.as.ptr)->n;
        items = ((group *)v.as.ptr)->items;
    } else {
        return pps_diag_done(vm_error_at(st, vm_current_span(st), 304,
                                         "%u names need a list of %u values, this is %s", n, n,
                                         value_kind(st, v)));
    }
    if (count != n)
        return pps_diag_done(vm_error_at(st, vm_current_span(st), 315,
                                         "%u names for a list of %zu values", n, count));
    memcpy(vm->regs + dest, items, n * sizeof(value));
    return PPS_OK;
}

pps_status vm_filter(pps_state *st, const bc_filter *f, const value *vals, value *ret)
{
    return filter_build(st, f->n, f->tags, f->signs, vals, ret);
}

pps_status vm_concat(pps_state *st, const value *vals, uint32_t n, value *ret)
{
    text t;
    text_init(&t, st);
    for (uint32_t i = 0; i < n; i++)
        text_display(&t, vals[i]);
    pps_status status = vm_charge(st, t.n / 16);
    if (status != PPS_OK) {
        text_done(&t);
        return status;
    }
    return text_string(&t, ret);
}

pps_status vm_field(pps_state *st, value v, const char *name, value *ret)
{
    pps_span span = vm_operand_span(st, 0);
    if (pps_typeof(v) == PPS_MODULE)
        return module_field(st, v.as.ptr, name, span, ret);
    if (pps_typeof(v) == PPS_HANDLE) {
        void *ud;
        const pps_handle_ops *ops = vm_handle_ops(st, pps_handle_type_of(v), &ud);
        if (ops && ops->field) {
            st->vm->no_collect++;
            pps_status status = ops->field(st, ud, v, name, ret);
            st->vm->no_collect--;
            return status;
        }
    }
    pps_diag *d = vm_error_at(st, span, 306, "%s has no field `%s`", value_kind(st, v), name);
    if (pps_typeof(v) == PPS_MAP)
        pps_diag_help(d, "an entry of a map is m[\"%s\"]", name);
    else
        pps_diag_help(d, "methods are called: `x.%s(...)`", name);
    return pps_diag_done(d);
}
