/* SPDX-License-Identifier: Apache-2.0
 *
 * builtins_schedule.c: streams, computed filters, and the communication halves of ops. The stream
 * table belongs here: a name makes a stream once, later calls give the same one.
 */
#include "lang/builtins.h"

#include <string.h>

/* ---- Streams --------------------------------------------------------------------------------- */

size_t pps_stream_count(pps_state *st)
{
    return st->streams.n;
}

const char *pps_stream_name(pps_state *st, uint32_t index)
{
    return index < st->streams.n ? st->streams.items[index].name : "";
}

uint32_t pps_stream_ctas(pps_state *st, uint32_t index)
{
    return index < st->streams.n ? st->streams.items[index].ctas : 0;
}

void stream_done(pps_state *st)
{
    heap_free(st, st->streams.items, st->streams.cap * sizeof(stream_item));
    st->streams = (stream_table){0};
}

static pps_status add_stream(pps_state *st, const char *name, uint32_t ctas)
{
    stream_table *t = &st->streams;
    if (t->n == t->cap) {
        uint32_t cap = t->cap ? 2 * t->cap : 8;
        void *p = t->items;
        PPS_TRY(heap_grow(st, &p, t->cap * sizeof(stream_item), cap * sizeof(stream_item)));
        t->items = p;
        t->cap = cap;
    }
    t->items[t->n++] = (stream_item){name, ctas};
    return PPS_OK;
}

pps_status builtin_stream(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    const string *s;
    int64_t ctas = 0;
    PPS_TRY(arg_string(st, 0, argv[0], &s));
    if (s->n_bytes == 0 || strlen(s->bytes) != s->n_bytes)
        return pps_error(st, pps_arg_span(st, 0), 312, "this cannot be the name of a stream");
    if (pps_typeof(argv[1]) != PPS_NIL) {
        PPS_TRY(arg_int(st, 1, argv[1], &ctas));
        if (ctas < 1 || ctas > 65535)
            return pps_error(st, pps_arg_span(st, 1), 312,
                             "a stream has 1 to 65535 thread blocks, not %lld", (long long)ctas);
    }
    const char *name = pps_intern(st, s->bytes);
    if (!name)
        return heap_no_memory(st);
    uint32_t i = 0;
    while (i < st->streams.n && st->streams.items[i].name != name)
        i++;
    if (i == st->streams.n)
        PPS_TRY(add_stream(st, name, (uint32_t)ctas));
    uint32_t known = st->streams.items[i].ctas;
    if (ctas && known && known != (uint32_t)ctas)
        return pps_error(st, pps_arg_span(st, 1), 312,
                         "stream %s was made with ctas=%u and cannot have %lld too", name, known,
                         (long long)ctas);
    if (ctas)
        st->streams.items[i].ctas = (uint32_t)ctas;
    *ret = value_make(PPS_STREAM, i);
    return PPS_OK;
}

/* ---- Filters and ops ------------------------------------------------------------------------- */

bool is_tag_name(const char *bytes, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        char c = bytes[i];
        bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_';
        if (!letter && (i == 0 || c < '0' || c > '9'))
            return false;
    }
    return n > 0;
}

pps_status builtin_filter(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    const char *tags[PPS_MAX_TERMS];
    value vals[PPS_MAX_TERMS];
    uint32_t n = 0;
    if (pps_typeof(argv[0]) != PPS_MAP)
        return arg_wrong(st, 0, "a map of tag names", argv[0]);
    const map *m = argv[0].as.ptr;
    for (uint32_t i = 0; i < m->n_entries; i++) {
        if (!m->entries[i].live)
            continue;
        if (n == PPS_MAX_TERMS)
            return pps_error(st, pps_arg_span(st, 0), 307, "a filter has at most %d tags",
                             PPS_MAX_TERMS);
        const string *tag;
        PPS_TRY(arg_string(st, 0, m->entries[i].key, &tag));
        if (!is_tag_name(tag->bytes, tag->n_bytes))
            return pps_error(st, pps_arg_span(st, 0), 312, "\"%.40s\" cannot be the name of a tag",
                             tag->bytes);
        tags[n] = pps_intern(st, tag->bytes);
        if (!tags[n])
            return heap_no_memory(st);
        vals[n++] = m->entries[i].val;
    }
    return filter_build(st, n, tags, NULL, vals, ret);
}

static pps_status with_comm(pps_state *st, value op, pps_comm comm, value *ret)
{
    pps_term terms[PPS_MAX_TERMS];
    int64_t scratch[2];
    int n = pps_filter_terms(st, op, terms, scratch);
    if ((pps_typeof(op) != PPS_OP && pps_typeof(op) != PPS_FILTER) || n < 0)
        return arg_wrong(st, 0, "an op", op);
    for (int i = 0; i < n; i++)
        if (terms[i].kind == PPS_TERM_COMM)
            return pps_error(st, pps_arg_span(st, 0), 312, "this op is a %s already",
                             terms[i].comm == PPS_COMM_SEND ? "SEND" : "RECV");
    if (pps_typeof(op) == PPS_OP) {
        value half = pps_op(pps_op_stage(op), pps_op_mb(op), pps_op_pass(op), comm);
        *ret = value_with_origin(half, pps_op_origin(op));
        return PPS_OK;
    }
    filter_term term = {.tag = st->tags.comm, .kind = PPS_TERM_COMM, .comm = (uint8_t)comm};
    value half;
    PPS_TRY(filter_new(st, &term, 1, NULL, 0, &half));
    return filter_and(st, op, half, ret);
}

pps_status builtin_SEND(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    return with_comm(st, argv[0], PPS_COMM_SEND, ret);
}

pps_status builtin_RECV(pps_state *st, void *ud, size_t argc, const value *argv, value *ret)
{
    (void)ud, (void)argc;
    return with_comm(st, argv[0], PPS_COMM_RECV, ret);
}
