/* SPDX-License-Identifier: Apache-2.0
 *
 * value.h: how values are laid out, for the interpreter's own files.
 *
 *   tag   63..32  origin (PPS_OP, PPS_PASS: where it was made) or handle type (PPS_HANDLE)
 *         31..8   unused, zero
 *          7..0   pps_type
 *   as    PPS_OP: mb 63..32, stage 31..8, comm 3..2, pass 1..0; else as the type says
 *
 * Heap objects begin with `object`; all live ones hang in one list per state and are marked and
 * swept, never moved. Collection happens only at the VM's safepoints (backward jumps and calls),
 * never inside an allocation, so C code need not root what it holds between two safepoints. A
 * builtin that calls back into script code keeps its values reachable from its arguments or
 * heap_protect.
 */
#ifndef PPS_VALUE_H
#define PPS_VALUE_H

#include "lang/pps.h"

typedef pps_value value;

typedef struct object {
    struct object *next_all;
    uint8_t type; /* pps_type */
    uint8_t marked;
    uint8_t frozen; /* module globals after import: lists and maps refuse change */
    uint8_t pad;
    uint32_t iterating; /* lists, maps: loops now walking it; changing it then is an error */
} object;

typedef struct string {
    object o;
    uint32_t hash;
    uint32_t n_chars; /* code points */
    size_t n_bytes;
    char bytes[]; /* UTF-8, NUL-terminated */
} string;

typedef struct range {
    object o;
    int64_t begin, end, step; /* half open; step != 0 */
} range;

typedef struct list {
    object o;
    size_t n, cap;
    value *items;
} list;

/* Insertion-ordered open addressing: `index` (a power of two) holds entry numbers or MAP_EMPTY /
 * MAP_DELETED; `entries` are in insertion order, deleted ones keep a PPS_NIL key and `live` false.
 */
typedef struct map_entry {
    value key, val;
    uint32_t hash;
    bool live;
} map_entry;
typedef struct map {
    object o;
    uint32_t n_live, n_entries, cap_entries, cap_index;
    map_entry *entries;
    int32_t *index;
} map;

/* Interned per state: equal filters are one object. */
typedef struct filter_term {
    const char *tag;
    pps_term_kind kind;
    uint8_t pass, comm;
    uint32_t ints_begin, n_ints; /* in filter.ints; ascending, no duplicates */
} filter_term;
typedef struct filter {
    object o;
    uint32_t hash, n_terms, n_ints;
    filter_term *terms; /* sorted by tag name; points into this object, as does `ints` */
    int64_t *ints;
    struct filter *next_in_slot; /* filter.c */
} filter;

typedef struct group { /* a | b | c: flat, two or more ops or filters */
    object o;
    uint32_t n;
    value items[];
} group;

enum { TAG_ORIGIN_SHIFT = 32 };

static inline value value_make(pps_type type, uint64_t bits)
{
    value v;
    v.tag = (uint64_t)type;
    v.as.bits = bits;
    return v;
}
static inline value value_object(pps_type type, void *o)
{
    value v;
    v.tag = (uint64_t)type;
    v.as.ptr = o;
    return v;
}
static inline uint64_t value_op_bits(uint32_t stage, uint32_t mb, pps_pass pass, pps_comm comm)
{
    return (uint64_t)mb << 32 | (uint64_t)(stage & 0xffffff) << 8 | (uint64_t)comm << 2 |
           (uint64_t)pass;
}
static inline value value_with_origin(value v, uint32_t origin)
{
    v.tag = (v.tag & 0xffffffffu) | (uint64_t)origin << TAG_ORIGIN_SHIFT;
    return v;
}
static inline bool value_is_heap(value v)
{
    return pps_typeof(v) >= PPS_STRING;
}

/* ---- heap.c ---------------------------------------------------------------------------------- */
/* Every byte the state owns goes through these; they count against max_bytes and fail cleanly.
 * PPS_ERR_LIMIT is reported (E0803) at the current call; PPS_ERR_NOMEM likewise (E0804). */
pps_status heap_alloc(pps_state *st, size_t bytes, void **ret);
pps_status heap_grow(pps_state *st, void **ptr, size_t old_bytes, size_t new_bytes);
void heap_free(pps_state *st, void *ptr, size_t bytes);
pps_status heap_no_memory(pps_state *st); /* E0804, for an arena or pps_intern that gave NULL */
pps_status heap_object(pps_state *st, pps_type type, size_t bytes, void **ret); /* zeroed, linked */
bool heap_wants_collection(pps_state *st); /* the VM asks at its safepoints */
void heap_collect(pps_state *st);
void heap_mark(pps_state *st, value v);
void heap_mark_object(pps_state *st, object *o);
pps_status heap_protect(pps_state *st, value v); /* until heap_unprotect(n) */
void heap_unprotect(pps_state *st, size_t n);
void filter_table_sweep(pps_state *st); /* filter.c, from heap_collect: forget unmarked filters */

/* First and last calls of a state's life. heap_done frees all objects (FN and MODULE through
 * vm_object_free, so before the VM goes) and the tables of filter.c. */
void heap_init(pps_state *st);
void heap_done(pps_state *st);
/* For arenas that should count against max_bytes: `ud` is the pps_state. NULL when refused; silent.
 */
void *heap_arena_alloc(void *ud, void *ptr, size_t old_bytes, size_t new_bytes);

/* ---- value.c, text.c: equality, order, hash, text -------------------------------------------- */
const char *value_type_name(pps_state *st,
                            value v);           /* as pps_type_name; a handle's own type name */
const char *value_kind(pps_state *st, value v); /* the same with its article: "an int" */
pps_status value_equal(pps_state *st, value a, value b, bool *ret); /* structural; depth-limited */
/* -1, 0, 1; only within numbers, strings, and lists of these: else E0304 at the current place.
 * nan comes after every number and is equal to itself here: a total order for sorting. */
pps_status value_compare(pps_state *st, value a, value b, int *ret);
pps_status value_hash(pps_state *st, value v, uint32_t *ret); /* E0305 for lists and maps */
typedef struct text { /* growing byte buffer, owned by the caller */
    pps_state *st;
    char *bytes;
    size_t n, cap;
    pps_status status; /* sticky */
} text;
void text_init(text *t, pps_state *st);
void text_add(text *t, const char *bytes, size_t n);
void text_printf(text *t, const char *format, ...) PPS_PRINTF(2, 3);
void text_repr(text *t, value v);    /* as source that parses back */
void text_display(text *t, value v); /* as print shows it: strings without quotes */
void text_done(text *t);
/* The bytes, NUL-terminated and exactly n + 1 long, or the failure; `t` is empty afterwards. The
 * caller owns them: heap_free(st, bytes, n + 1). */
pps_status text_take(text *t, char **ret_bytes, size_t *ret_n);
pps_status text_string(text *t, value *ret); /* as a string value; `t` is done afterwards */
/* Shortest decimal that reads back as `f`, always with '.', 'e', or inf/nan. */
int value_float_text(double f, char buffer[32]);

/* ---- string.c, list.c, map.c, filter.c ------------------------------------------------------- */
pps_status string_new(pps_state *st, const char *bytes, size_t n,
                      value *ret); /* trusts the UTF-8 */
bool string_is_utf8(const char *bytes, size_t n);
uint32_t string_hash(string *s);                      /* computed once; string.hash is 0 before */
size_t string_offset(const string *s, size_t i_char); /* bytes before code point i (<= n_chars) */
size_t string_find(const char *hay, size_t n_hay, const char *needle, size_t n_needle,
                   size_t from); /* byte offset at or after `from`, SIZE_MAX when absent */
int string_compare(const string *a, const string *b); /* -1, 0, 1 by code points */
pps_status list_new(pps_state *st, size_t cap, value *ret);
pps_status list_reserve(pps_state *st, list *l, size_t cap);
pps_status list_push(pps_state *st, list *l, value v);
pps_status list_extend(pps_state *st, list *l, value iterable); /* list, range, map keys, group */
void list_reverse(list *l);
pps_status map_new(pps_state *st, value *ret);
pps_status map_get(pps_state *st, map *m, value key, value *ret, bool *ret_found);
pps_status map_set(pps_state *st, map *m, value key, value val);
pps_status map_delete(pps_state *st, map *m, value key, bool *ret_found);
/* Terms in any order; sorts, checks for repeats (E0307), interns. No terms: a filter that matches
 * all. PP, MB, PASS (and COMM) with one index each give the immediate PPS_OP instead. */
pps_status filter_new(pps_state *st, const filter_term *terms, uint32_t n_terms,
                      const int64_t *ints, uint32_t n_ints, value *ret);
/* {TAG: val, ...} as written: a val is an int, a range or list of ints, a pass, or for COMM the SEND
 * and RECV builtins; not read where signs[i] is '*' or '-'. `signs` NULL: from filter({...}), whose
 * map has the strings "*" and "-" for the signs. Gives the immediate PPS_OP when that is what it
 * says. E0304, E0307 at the current span. */
pps_status filter_build(pps_state *st, uint32_t n, const char *const *tags, const char *signs,
                        const value *vals, value *ret);
/* F(s, m, DIR=1): an immediate PPS_OP when there are no further tags, else a PPS_FILTER. */
pps_status filter_op(pps_state *st, pps_pass pass, int64_t stage, int64_t mb, uint32_t n_extra,
                     const char *const *tags, const value *vals, value *ret);
pps_status filter_and(pps_state *st, value a, value b, value *ret); /* a & b */
/* a | b: flattens groups; operands are ops, filters or groups. */
pps_status group_or(pps_state *st, value a, value b, value *ret);
/* a -> b: a new list of groups; operands are ops, filters, groups or lists of these. */
pps_status row_arrow(pps_state *st, value a, value b, value *ret);
/* Append operand `v` of an arrow to `row` in place (for `row += a -> b` without temporaries). */
pps_status row_append(pps_state *st, list *row, value v);

/* ---- index.c: elements and walking, for the VM's slow paths and the builtins -------------------
 */
/* c[key], strict: E0310 out of range, E0311 no such key, E0304 wrong type (help `int(x)` for
 * floats); all at the current span. Lists, strings (code points), ranges, maps, groups; negative
 * from the end. */
pps_status value_index(pps_state *st, value c, value key, value *ret);
pps_status value_index_set(pps_state *st, value c, value key, value v); /* lists, maps */
/* c[begin:end] of a list, string or range; nil bounds are open, others are clamped as in Python. */
pps_status value_slice(pps_state *st, value c, value begin, value end, value *ret);
pps_status value_contains(pps_state *st, value c, value v, bool *ret); /* v in c */
pps_status value_concat(pps_state *st, value a, value b, value *ret);  /* strings, lists: a + b */
pps_status value_repeat(pps_state *st, value a, int64_t times, value *ret); /* strings, lists */
/* Number of elements walked by iterating (list, range, map keys, group, string code points), or
 * E0304 at `span`. */
pps_status value_count(pps_state *st, value c, pps_span span, size_t *ret);
/* Walk an iterable. A list or map counts as iterated until iter_end, which each iter_begin that
 * returned PPS_OK needs. `it` is plain memory: the caller keeps `c` reachable. */
typedef struct value_iter {
    value c;
    size_t at; /* element, or byte offset (string), or entry (map) */
} value_iter;
pps_status iter_begin(pps_state *st, value_iter *it, value c, pps_span span);
/* false at the end. Fails only for strings (a new one-character string). */
pps_status iter_next(pps_state *st, value_iter *it, value *ret, bool *ret_more);
void iter_end(value_iter *it);
size_t range_count(const range *r);
pps_status range_new(pps_state *st, int64_t begin, int64_t end, int64_t step, value *ret);
/* E0308 when `o` is frozen, E0309 while a loop walks it; PPS_OK when it may change. */
pps_status object_mutable(pps_state *st, object *o);
void value_freeze(value v); /* lists and maps, deeply: module globals after import */

/* ---- builtins.c, methods.c ------------------------------------------------------------------- */
pps_status builtins_register(pps_state *st); /* len, min, print, stream, filter, ... via pps_def */
void builtins_done(pps_state *st);
/* Method `name` of `self` (xs.append, s.split, m.keys, ...); PPS_ERR_SCRIPT after E0306 with
 * did-you-mean when there is none. argv excludes self. While it runs, pps_call_span and
 * pps_arg_span (counted without self, positional first, then named) speak of this call. */
pps_status method_call(pps_state *st, value self, const char *name, pps_span name_span, size_t argc,
                       const value *argv, size_t n_named, const char *const *names,
                       const value *named, value *ret);

#endif
