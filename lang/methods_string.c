/* SPDX-License-Identifier: Apache-2.0
 *
 * methods_string.c: methods of strings. Positions that scripts see count code points; inside, all
 * work is on bytes: in UTF-8 a whole string is found only at code point boundaries. Letter case and
 * blanks are ASCII's, so results need no tables and never change with a Unicode version.
 */
#include "lang/builtins.h"

#include <string.h>

static const string *self_string(const method_args *a)
{
    return a->self.as.ptr;
}

static pps_status part_argument(pps_state *st, const method_args *a, uint32_t i, const string **ret)
{
    PPS_TRY(arg_string(st, a->written[i], a->v[i], ret));
    return vm_charge(st, self_string(a)->n_bytes / 16 + 1);
}

pps_status method_string_bytes(pps_state *st, const method_args *a, value *ret)
{
    const string *s = self_string(a);
    PPS_TRY(vm_charge(st, s->n_bytes));
    PPS_TRY(list_new(st, s->n_bytes, ret));
    list *l = ret->as.ptr;
    for (; l->n < s->n_bytes; l->n++)
        l->items[l->n] = pps_int((unsigned char)s->bytes[l->n]);
    return PPS_OK;
}

static bool is_blank(char c)
{
    return c == ' ' || (c >= '\t' && c <= '\r');
}

static pps_status push_part(pps_state *st, list *to, const char *bytes, size_t n)
{
    value part;
    PPS_TRY(vm_charge(st, 1 + n / 16));
    PPS_TRY(string_new(st, bytes, n, &part));
    return list_push(st, to, part);
}

static pps_status split_blanks(pps_state *st, const string *s, list *to)
{
    for (size_t i = 0; i < s->n_bytes;) {
        size_t begin = i;
        while (i < s->n_bytes && !is_blank(s->bytes[i]))
            i++;
        if (i > begin)
            PPS_TRY(push_part(st, to, s->bytes + begin, i - begin));
        else
            i++;
    }
    return PPS_OK;
}

pps_status method_string_split(pps_state *st, const method_args *a, value *ret)
{
    const string *s = self_string(a), *separator;
    PPS_TRY(list_new(st, 0, ret));
    if (pps_typeof(a->v[0]) == PPS_NIL)
        return split_blanks(st, s, ret->as.ptr);
    PPS_TRY(part_argument(st, a, 0, &separator));
    if (separator->n_bytes == 0)
        return pps_error(st, pps_arg_span(st, a->written[0]), 312, "the separator is empty");
    size_t begin = 0, at;
    while ((at = string_find(s->bytes, s->n_bytes, separator->bytes, separator->n_bytes, begin)) !=
           SIZE_MAX) {
        PPS_TRY(push_part(st, ret->as.ptr, s->bytes + begin, at - begin));
        begin = at + separator->n_bytes;
    }
    return push_part(st, ret->as.ptr, s->bytes + begin, s->n_bytes - begin);
}

static pps_status join_parts(pps_state *st, const method_args *a, value_iter *it, text *t)
{
    value v;
    bool more;
    for (size_t i = 0;; i++) {
        PPS_TRY(iter_next(st, it, &v, &more));
        if (!more)
            return t->status;
        if (pps_typeof(v) != PPS_STRING) {
            pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 304, pps_arg_span(st, a->written[0]),
                                         "only strings can be joined, element %zu is %s", i,
                                         value_kind(st, v));
            pps_diag_help(d, "`xs.map(str)` makes strings of them");
            return pps_diag_done(d);
        }
        const string *part = v.as.ptr;
        if (i)
            text_add(t, self_string(a)->bytes, self_string(a)->n_bytes);
        text_add(t, part->bytes, part->n_bytes);
        PPS_TRY(vm_charge(st, 1 + (part->n_bytes + self_string(a)->n_bytes) / 16));
    }
}

pps_status method_string_join(pps_state *st, const method_args *a, value *ret)
{
    value_iter it;
    text t;
    PPS_TRY(iter_begin(st, &it, a->v[0], pps_arg_span(st, a->written[0])));
    text_init(&t, st);
    pps_status status = join_parts(st, a, &it, &t);
    iter_end(&it);
    if (status == PPS_OK)
        return text_string(&t, ret);
    text_done(&t);
    return status;
}

/* Is the code point at `p` (n bytes) one of those to strip? */
static bool is_stripped(const char *p, size_t n, const string *chars)
{
    if (!chars)
        return is_blank(*p);
    return string_find(chars->bytes, chars->n_bytes, p, n, 0) != SIZE_MAX;
}

pps_status method_string_strip(pps_state *st, const method_args *a, value *ret)
{
    const string *s = self_string(a), *chars = NULL;
    if (pps_typeof(a->v[0]) != PPS_NIL)
        PPS_TRY(part_argument(st, a, 0, &chars));
    PPS_TRY(vm_charge(st, s->n_bytes / 4));
    size_t begin = 0, end = s->n_bytes, n;
    for (; begin < end; begin += n) {
        n = 1;
        while (begin + n < end && ((unsigned char)s->bytes[begin + n] & 0xc0) == 0x80)
            n++;
        if (!is_stripped(s->bytes + begin, n, chars))
            break;
    }
    for (; begin < end; end -= n) {
        n = 1;
        while (((unsigned char)s->bytes[end - n] & 0xc0) == 0x80)
            n++;
        if (!is_stripped(s->bytes + end - n, n, chars))
            break;
    }
    return string_new(st, s->bytes + begin, end - begin, ret);
}

pps_status method_string_starts_with(pps_state *st, const method_args *a, value *ret)
{
    const string *s = self_string(a), *part;
    PPS_TRY(part_argument(st, a, 0, &part));
    *ret =
        pps_bool(part->n_bytes <= s->n_bytes && memcmp(s->bytes, part->bytes, part->n_bytes) == 0);
    return PPS_OK;
}

pps_status method_string_ends_with(pps_state *st, const method_args *a, value *ret)
{
    const string *s = self_string(a), *part;
    PPS_TRY(part_argument(st, a, 0, &part));
    *ret = pps_bool(part->n_bytes <= s->n_bytes &&
                    memcmp(s->bytes + s->n_bytes - part->n_bytes, part->bytes, part->n_bytes) == 0);
    return PPS_OK;
}

pps_status method_string_replace(pps_state *st, const method_args *a, value *ret)
{
    const string *s = self_string(a), *old, *new;
    PPS_TRY(part_argument(st, a, 0, &old));
    PPS_TRY(arg_string(st, a->written[1], a->v[1], &new));
    if (old->n_bytes == 0)
        return pps_error(st, pps_arg_span(st, a->written[0]), 312, "the text to replace is empty");
    text t;
    text_init(&t, st);
    size_t begin = 0, at;
    while ((at = string_find(s->bytes, s->n_bytes, old->bytes, old->n_bytes, begin)) != SIZE_MAX &&
           t.status == PPS_OK) {
        text_add(&t, s->bytes + begin, at - begin);
        text_add(&t, new->bytes, new->n_bytes);
        begin = at + old->n_bytes;
        if (t.status == PPS_OK)
            t.status = vm_charge(st, 1 + new->n_bytes / 16);
    }
    text_add(&t, s->bytes + begin, s->n_bytes - begin);
    return text_string(&t, ret);
}

static pps_status change_case(pps_state *st, const method_args *a, char first, value *ret)
{
    const string *s = self_string(a);
    PPS_TRY(vm_charge(st, s->n_bytes / 16));
    PPS_TRY(string_new(st, s->bytes, s->n_bytes, ret));
    char *bytes = ((string *)ret->as.ptr)->bytes; /* new, nobody has seen or hashed it */
    for (size_t i = 0; i < s->n_bytes; i++)
        if (bytes[i] >= first && bytes[i] < first + 26)
            bytes[i] ^= 'a' ^ 'A';
    return PPS_OK;
}

pps_status method_string_upper(pps_state *st, const method_args *a, value *ret)
{
    return change_case(st, a, 'a', ret);
}

pps_status method_string_lower(pps_state *st, const method_args *a, value *ret)
{
    return change_case(st, a, 'A', ret);
}

pps_status method_string_find(pps_state *st, const method_args *a, value *ret)
{
    const string *s = self_string(a), *part;
    PPS_TRY(part_argument(st, a, 0, &part));
    size_t at = string_find(s->bytes, s->n_bytes, part->bytes, part->n_bytes, 0);
    int64_t chars = -1;
    if (at != SIZE_MAX) {
        chars = 0;
        for (size_t i = 0; i < at; i++)
            chars += ((unsigned char)s->bytes[i] & 0xc0) != 0x80;
    }
    *ret = pps_int(chars);
    return PPS_OK;
}
