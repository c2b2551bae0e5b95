/* SPDX-License-Identifier: Apache-2.0
 *
 * builtins_number.c: min, max, sum and the mathematical functions. Ints stay ints and overflow is
 * an error; sums of floats run from left to right, so they are the same everywhere.
 */
#include "lang/builtins.h"

#include <math.h>
#include <stdio.h>

static pps_status overflow(pps_state *st, size_t arg, const char *what)
{
    return pps_error(st, pps_arg_span(st, arg), 602, "%s does not fit in 64 bits", what);
}

/* ---- Smallest and largest -------------------------------------------------------------------- */

/* Of all arguments, or of the elements of the only one. */
enum { KEPT_FROM, KEPT_KEY, KEPT_NOW, KEPT_BEST, KEPT_BEST_KEY, KEPT_COUNT };

/* `kept` is where the collector sees what is held here while the key function runs. */
static pps_status choose(pps_state *st, value *kept, int sign, bool *first)
{
    value key = kept[KEPT_NOW];
    int order = 1;
    PPS_TRY(vm_charge(st, 1));
    if (pps_typeof(kept[KEPT_KEY]) != PPS_NIL)
        PPS_TRY(call_one(st, kept[KEPT_KEY], kept[KEPT_NOW], &key));
    if (!*first)
        PPS_TRY(value_compare(st, kept[KEPT_BEST_KEY], key, &order));
    if (*first || sign * order > 0) {
        kept[KEPT_BEST] = kept[KEPT_NOW];
        kept[KEPT_BEST_KEY] = key;
        *first = false;
    }
    return PPS_OK;
}

static pps_status extreme_of(pps_state *st, value *kept, int sign)
{
    value_iter it;
    bool more, first = true;
    PPS_TRY(iter_begin(st, &it, kept[KEPT_FROM], pps_arg_span(st, 0)));
    pps_status status;
    while ((status = iter_next(st, &it, &kept[KEPT_NOW], &more)) == PPS_OK && more) {
        status = choose(st, kept, sign, &first);
        if (status != PPS_OK)
            break;
    }
    iter_end(&it);
    if (status == PPS_OK && first)
        status = pps_error(st, pps_arg_span(st, 0), 312, "there is no value to choose from");
    return status;
}

static pps_status extreme(pps_state *st, const value *argv, int sign, value *ret)
{
    const list *values = argv[0].as.ptr;
    if (values->n == 0)
        return pps_error(st, pps_call_span(st), 312, "there is no value to choose from");
    list *kept;
    PPS_TRY(hold(st, KEPT_COUNT, &kept));
    kept->items[KEPT_FROM] = values->n == 1 ? values->items[0] : argv[0];
    kept->items[KEPT_KEY] = argv[1];
    pps_status status = extreme_of(st, kept->items, sign);
    *ret = kept->items[KEPT_BEST];
    heap_unprotect(st, 1);
    return status;
}

pps_status builtin_min(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    return extreme(st, argv, 1, ret);
}

pps_status builtin_max(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    return extreme(st, argv, -1, ret);
}

/* ---- Sums ------------------------------------------------------------------------------------ */

static pps_status add_number(pps_state *st, value *total, value v)
{
    if (pps_typeof(v) != PPS_INT && pps_typeof(v) != PPS_FLOAT)
        return pps_error(st, pps_arg_span(st, 0), 304,
                         "only numbers can be summed, one of these is %s", value_kind(st, v));
    if (pps_typeof(v) == PPS_INT && pps_typeof(*total) == PPS_INT) {
        if (__builtin_add_overflow(total->as.i, v.as.i, &total->as.i))
            return overflow(st, 0, "the sum");
    } else {
        *total = pps_float(pps_as_number(*total) + pps_as_number(v));
    }
    return PPS_OK;
}

pps_status builtin_sum(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double ignored;
    PPS_TRY(arg_number(st, 1, argv[1], &ignored));
    value_iter it;
    value v, total = argv[1];
    bool more;
    PPS_TRY(iter_begin(st, &it, argv[0], pps_arg_span(st, 0)));
    pps_status status;
    while ((status = iter_next(st, &it, &v, &more)) == PPS_OK && more) {
        status = vm_charge(st, 1);
        if (status == PPS_OK)
            status = add_number(st, &total, v);
        if (status != PPS_OK)
            break;
    }
    iter_end(&it);
    *ret = total;
    return status;
}

/* ---- Functions of one number ------------------------------------------------------------------
 */

pps_status builtin_abs(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f;
    PPS_TRY(arg_number(st, 0, argv[0], &f));
    if (pps_typeof(argv[0]) == PPS_FLOAT) {
        *ret = pps_float(fabs(f));
        return PPS_OK;
    }
    if (argv[0].as.i == INT64_MIN)
        return overflow(st, 0, "9223372036854775808");
    *ret = pps_int(argv[0].as.i < 0 ? -argv[0].as.i : argv[0].as.i);
    return PPS_OK;
}

static pps_status whole(pps_state *st, double f, value *ret)
{
    char shown[32];
    if (!(f >= -0x1p63 && f < 0x1p63)) {
        value_float_text(f, shown);
        return overflow(st, 0, shown);
    }
    *ret = pps_int((int64_t)f);
    return PPS_OK;
}

/* printf rounds the exact value of the double correctly; only its decimal point is the locale's. */
static double round_decimals(double f, int digits)
{
    char printed[700], plain[700];
    size_t n = 0;
    bool point = false;
    snprintf(printed, sizeof(printed), "%.*f", digits, f);
    for (const char *p = printed; *p; p++) {
        bool kept = (*p >= '0' && *p <= '9') || *p == '-';
        if (kept || !point)
            plain[n++] = kept ? *p : '.';
        point = point || !kept;
    }
    double rounded = f;
    parse_float(plain, n, &rounded);
    return rounded;
}

static double half_even(double f)
{
    double below = floor(f), rest = f - below;
    if (rest > 0.5 || (rest == 0.5 && fmod(below, 2) != 0))
        below += 1;
    return below;
}

pps_status builtin_round(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f;
    int64_t digits = 0;
    PPS_TRY(arg_number(st, 0, argv[0], &f));
    if (pps_typeof(argv[1]) != PPS_NIL)
        PPS_TRY(arg_int(st, 1, argv[1], &digits));
    if (digits < 0 || digits > 300)
        return pps_error(st, pps_arg_span(st, 1), 312, "the digits are 0 to 300, not %lld",
                         (long long)digits);
    *ret = argv[0];
    if (pps_typeof(argv[0]) == PPS_INT)
        return PPS_OK;
    if (pps_typeof(argv[1]) == PPS_NIL)
        return whole(st, half_even(f), ret);
    if (isfinite(f) && fabs(f) < 0x1p52) /* larger ones have no decimals */
        *ret = pps_float(round_decimals(f, (int)digits));
    return PPS_OK;
}

pps_status builtin_floor(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f;
    PPS_TRY(arg_number(st, 0, argv[0], &f));
    *ret = argv[0];
    return pps_typeof(argv[0]) == PPS_INT ? PPS_OK : whole(st, floor(f), ret);
}

pps_status builtin_ceil(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f;
    PPS_TRY(arg_number(st, 0, argv[0], &f));
    *ret = argv[0];
    return pps_typeof(argv[0]) == PPS_INT ? PPS_OK : whole(st, ceil(f), ret);
}

pps_status builtin_sqrt(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f;
    PPS_TRY(arg_number(st, 0, argv[0], &f));
    if (f < 0)
        return pps_error(st, pps_arg_span(st, 0), 312, "a negative number has no square root");
    *ret = pps_float(sqrt(f));
    return PPS_OK;
}

pps_status builtin_log(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f, base;
    PPS_TRY(arg_number(st, 0, argv[0], &f));
    if (f <= 0)
        return pps_error(st, pps_arg_span(st, 0), 312, "only positive numbers have a logarithm");
    if (pps_typeof(argv[1]) == PPS_NIL) {
        *ret = pps_float(log(f));
        return PPS_OK;
    }
    PPS_TRY(arg_number(st, 1, argv[1], &base));
    if (base <= 0 || base == 1)
        return pps_error(st, pps_arg_span(st, 1), 312, "the base is positive and not 1");
    *ret = pps_float(base == 2 ? log2(f) : base == 10 ? log10(f) : log(f) / log(base));
    return PPS_OK;
}

pps_status builtin_exp(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    double f;
    PPS_TRY(arg_number(st, 0, argv[0], &f));
    *ret = pps_float(exp(f));
    if (isinf(ret->as.f) && !isinf(f))
        return pps_error(st, pps_arg_span(st, 0), 602, "this power of e is too large for a float");
    return PPS_OK;
}
