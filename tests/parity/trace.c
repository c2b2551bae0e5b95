/* SPDX-License-Identifier: Apache-2.0
 *
 * trace.c: the Chrome trace of a run, read back, and its computes held against a row.
 */
#include "trace.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_OPS = 4, MAX_STAGES = 16, MAX_CHUNKS = 16 };

/* ---- Reading ------------------------------------------------------------------------------- */

static int by_begin(const void *a, const void *b)
{
    const trace_event *x = a, *y = b;
    if (x->rank != y->rank)
        return x->rank < y->rank ? -1 : 1;
    return x->begin_us < y->begin_us ? -1 : x->begin_us > y->begin_us;
}

static int64_t whole(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    return json_is_integer(value) ? json_integer_value(value) : -1;
}

static const char *text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}

bool trace_read(const char *path, trace *ret, reason *why)
{
    json_error_t error;
    json_t *root = json_load_file(path, 0, &error), *value;
    json_t *list = json_object_get(root, "traceEvents");
    trace t = {.root = root, .events = calloc(json_array_size(list) + 1, sizeof *t.events)};
    size_t i;
    if (!json_is_array(list) || !t.events) {
        trace_done(&t);
        return fail(why, "'%s' is no trace: %s", path, root ? "it has no events" : error.text);
    }
    json_array_foreach(list, i, value)
    {
        const json_t *args = json_object_get(value, "args");
        if (strcmp(text(value, "ph"), "X") != 0)
            continue;
        int64_t bytes = whole(args, "bytes");
        t.events[t.n++] = (trace_event){.rank = (uint32_t)whole(value, "pid"),
                                        .begin_us = json_number_value(json_object_get(value, "ts")),
                                        .kind = text(args, "kind"),
                                        .pass = text(args, "pass"),
                                        .label = text(value, "name"),
                                        .stage = whole(args, "stage"),
                                        .mb = whole(args, "microbatch"),
                                        .pair = whole(args, "pair"),
                                        .bytes = bytes > 0 ? (uint64_t)bytes : 0};
    }
    qsort(t.events, t.n, sizeof *t.events, by_begin);
    *ret = t;
    return true;
}

void trace_done(trace *t)
{
    free(t->events);
    json_decref(t->root);
    *t = (trace){0};
}

uint64_t trace_sent(const trace *t, uint32_t rank, const char *kind)
{
    uint64_t sum = 0;
    for (uint32_t i = 0; i < t->n; i++) {
        if (t->events[i].rank == rank && strcmp(t->events[i].kind, kind) == 0)
            sum += t->events[i].bytes;
    }
    return sum;
}

/* ---- Against a row ------------------------------------------------------------------------- */

typedef struct op {
    char pass[4];
    uint32_t stage, mb;
    uint32_t done; /* chunks that ran, or are not there */
} op;

typedef struct walk {
    const trace *t;
    uint32_t rank, chunks, last; /* last: the stage with the loss */
    uint32_t at;                 /* the next event */
    /* the chunks of each stage by name, in forward order, as its first forward ran them */
    const char *names[MAX_STAGES][MAX_CHUNKS];
    size_t n_bytes[MAX_STAGES][MAX_CHUNKS];
} walk;

/* The ops of the group at `text`, which ends at a blank; their number, 0 when it is no group. */
static uint32_t read_group(const char *group, op ops[MAX_OPS])
{
    uint32_t n = 0;
    for (const char *at = group; n < MAX_OPS; at++) {
        int used = 0;
        ops[n] = (op){0};
        if (sscanf(at, "%3[FBIW]%u:%u%n", ops[n].pass, &ops[n].stage, &ops[n].mb, &used) != 3 ||
            ops[n].stage >= MAX_STAGES)
            return 0;
        n++;
        at += used;
        if (*at != '|')
            return *at == ' ' || *at == 0 ? n : 0;
    }
    return 0;
}

static const trace_event *next_compute(walk *w)
{
    for (; w->at < w->t->n; w->at++) {
        const trace_event *e = &w->t->events[w->at];
        if (e->rank == w->rank && strcmp(e->kind, "compute") == 0)
            return &w->t->events[w->at++];
    }
    return NULL;
}

/* The chunk in "B PP0.EP0:3" is the one that is due. */
static bool is_due(walk *w, const op *o, const trace_event *e)
{
    bool forward = strcmp(o->pass, "F") == 0;
    uint32_t position = forward ? o->done : w->chunks - 1 - o->done;
    const char *name = strchr(e->label, ' '), *end = strrchr(e->label, ':');
    if (!name || !end || end < name)
        return false;
    name++;
    size_t n = (size_t)(end - name);
    const char **known = &w->names[o->stage][position];
    if (forward && !*known) {
        *known = name;
        w->n_bytes[o->stage][position] = n;
        for (uint32_t i = 0; i < position; i++) { /* no chunk twice */
            if (w->n_bytes[o->stage][i] == n && memcmp(w->names[o->stage][i], name, n) == 0)
                return false;
        }
    }
    return *known && w->n_bytes[o->stage][position] == n && memcmp(*known, name, n) == 0;
}

static bool follow_group(walk *w, const char *group, op *ops, uint32_t n_ops, uint32_t index,
                         reason *why)
{
    int shown = (int)strcspn(group, " ");
    uint32_t left = 0;
    for (uint32_t i = 0; i < n_ops; i++) {
        ops[i].done = strcmp(ops[i].pass, "BW") == 0 && ops[i].stage != w->last;
        left += w->chunks - ops[i].done;
    }
    for (; left > 0; left--) {
        const trace_event *e = next_compute(w);
        if (!e)
            return fail(why, "rank %u ends before %.*s, group %u of its row, is done", w->rank,
                        shown, group, index);
        uint32_t i = 0;
        while (i < n_ops && (strcmp(e->pass, ops[i].pass) != 0 || e->stage != ops[i].stage ||
                             e->mb != ops[i].mb || ops[i].done == w->chunks))
            i++;
        if (i == n_ops || !is_due(w, &ops[i], e))
            return fail(why, "rank %u runs %s in %.*s, group %u of its row", w->rank, e->label,
                        shown, group, index);
        if (n_ops > 1 && e->pair != index)
            return fail(why, "rank %u runs %s outside of the pair %.*s", w->rank, e->label, shown,
                        group);
        ops[i].done++;
    }
    return true;
}

bool trace_follows(const trace *t, uint32_t rank, const char *row, uint32_t chunks, uint32_t last,
                   reason *why)
{
    walk w = {.t = t, .rank = rank, .chunks = chunks, .last = last};
    if (chunks > MAX_CHUNKS)
        return fail(why, "%u chunks per stage are more than this test knows", chunks);
    uint32_t index = 0;
    for (const char *group = row; *group; index++) {
        op ops[MAX_OPS];
        uint32_t n_ops = read_group(group, ops);
        if (n_ops == 0)
            return fail(why, "'%.40s' is no group of a row", group);
        if (!follow_group(&w, group, ops, n_ops, index, why))
            return false;
        group += strcspn(group, " ");
        group += *group == ' ';
    }
    const trace_event *more = next_compute(&w);
    return !more || fail(why, "rank %u runs %s after the end of its row", rank, more->label);
}
