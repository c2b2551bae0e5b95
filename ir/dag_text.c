/* SPDX-License-Identifier: Apache-2.0
 *
 * dag_text.c: a training DAG as text that reads back (dag_read.c), one line per thing, in this
 * order:
 *
 *   dag microbatches=4 tag=MB groups=2 ranks=4 streams=3 chunks=5 links=4 buckets=2 runs=31
 * nodes=.. edges=.. group 0 ranks 0 2 stream 1 "pp" chunk 1 {PP: 0, EP: 0} group=0 ep=2 split
 * chunk=1 mb 0..3 5                    whose backward is BI and BW; the rest is whole recompute
 * chunk=0 mb 0..4                      whose backward runs F's kernels again link 0
 * tensor=7 from 0.0 to 1.0 carrier=0 grad rows@to bucket 0 group=0 reduced params 4 3 %2 = send F
 * chunk=1 link=0 pair=%3 group=0 stream=1 x4 after %0 %9 = all_reduce bucket=0 group=0 stream=2 x1
 * after %1 %4
 *
 * Where sequences are split, ` slices=2 tag=SEQ` follows the first tag, x4 and `split` count units,
 * and a run of F or B whose slices of a microbatch wait for each other is `carried`.
 *
 * Things are numbered from 0 without gaps. Indices in braces are regions; `from 0.1` is output 1 of
 * chunk 0, `to 3.0` input 0 of chunk 3. Left out: spans and directives, which belong to a script.
 */
#include "ir/dag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

typedef struct sink {
    ir_print_fn print;
    void *ud;
} sink;

PPS_PRINTF(2, 3)
static void put(const sink *s, const char *format, ...)
{
    char line[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (n > 0)
        s->print(s->ud, line, (size_t)n < sizeof line ? (size_t)n : sizeof line - 1);
}

static void put_text(const sink *s, const char *text) /* of any length */
{
    s->print(s->ud, text, strlen(text));
}

/* A stream may have any name: what could end the string or the line is written \xNN. */
static void put_quoted(const sink *s, const char *text)
{
    put_text(s, "\"");
    for (const char *c = text; *c; c++) {
        size_t n = strcspn(c, "\"\\\n\r\t");
        s->print(s->ud, c, n);
        c += n;
        if (!*c)
            break;
        put(s, "\\x%02x", (unsigned char)*c);
    }
    put_text(s, "\"");
}

static void put_chunk(const sink *s, const dag *d, uint32_t c)
{
    const ir_graph *g = d->graph;
    const ir_tagset *set = &g->tagsets[g->chunks[c].tagset];
    put(s, "chunk %u {", c);
    for (uint32_t i = 0; i < set->n; i++) {
        put_text(s, i > 0 ? ", " : "");
        put_text(s, g->tags[set->begin + i].name);
        put(s, ": %u", g->tags[set->begin + i].index);
    }
    put(s, "} group=%u ep=%u\n", d->chunks[c].group, d->chunks[c].ep);
}

static void put_class(const sink *s, const dag *d, uint32_t k)
{
    put(s, "class %u mb", k);
    for (uint32_t i = 0; i < d->classes[k].n; i++)
        put(s, " %u", d->class_mbs[d->classes[k].begin + i]);
    put_text(s, "\n");
}

/* The microbatches of a chunk that `marks` [n_mb] gives this value. */
static void put_marks(const sink *s, const dag *d, const char *word, uint32_t c,
                      const uint8_t *marks, uint8_t value)
{
    bool any = false;
    for (uint32_t m = 0; m < dag_n_mb(d, c); m++) {
        uint32_t end = m;
        while (end < dag_n_mb(d, c) && marks[end] == value)
            end++;
        if (end == m)
            continue;
        if (!any)
            put(s, "%s chunk=%u mb", word, c);
        any = true;
        if (end == m + 1)
            put(s, " %u", m);
        else
            put(s, " %u..%u", m, end);
        m = end;
    }
    if (any)
        put_text(s, "\n");
}

static void put_link(const sink *s, const dag *d, uint32_t l)
{
    const dag_link *k = &d->links[l];
    put(s, "link %u tensor=%u from %u.%u to %u.%u carrier=%u%s", l, k->made, k->src, k->src_out,
        k->dst, k->dst_in, k->carrier, k->grad ? " grad" : "");
    for (int end = 0; end < DAG_ENDS; end++) {
        ir_id before = end == DAG_SRC ? k->made : k->wire;
        ir_id after = end == DAG_SRC ? k->wire : k->tensor;
        if (k->border[end] == IR_NO_BORDER)
            continue;
        put(s, " %s@%s", dag_border_name((ir_border)k->border[end]),
            end == DAG_SRC ? "from" : "to");
        if (after != before)
            put(s, ":%u", after);
    }
    put_text(s, "\n");
}

static void put_run(const sink *s, const dag *d, uint32_t i)
{
    static const char *const passes[] = {"F", "B", "B", "BW"};
    const dag_run *r = &d->runs[i];
    put(s, "%%%u = %s", i, plan_step_name(r->kind));
    if (dag_of_bucket(r))
        put(s, " bucket=%u", r->chunk);
    else
        put(s, " %s chunk=%u%s", passes[r->pass], r->chunk, r->carried ? " carried" : "");
    if (r->link != IR_NONE)
        put(s, " link=%u", r->link);
    if (r->flags & PLAN_A2A_RETURN)
        put_text(s, " return");
    if (r->pair != IR_NONE)
        put(s, " pair=%%%u", r->pair);
    else if (r->lead != i)
        put(s, " with=%%%u", r->lead);
    put(s, " group=%u stream=%u x%u after", r->group, r->stream, r->n);
    if (r->preds.n == 0)
        put_text(s, " -");
    for (uint32_t k = 0; k < r->preds.n; k++)
        put(s, " %%%u", d->run_edges[r->preds.begin + k]);
    put_text(s, "\n");
}

void dag_dump(const dag *d, ir_print_fn print, void *ud)
{
    const sink s = {print, ud};
    uint32_t n_chunks = d->graph->n_chunks;
    put(&s, "dag microbatches=%u tag=", d->n_mb / d->n_slices);
    put_text(&s, d->mb_tag);
    if (d->slice_tag != NULL) {
        put(&s, " slices=%u tag=", d->n_slices);
        put_text(&s, d->slice_tag);
    }
    put(&s, " groups=%u ranks=%u streams=%u chunks=%u links=%u buckets=%u runs=%u", d->n_groups,
        d->n_ranks, d->n_streams, n_chunks, d->n_links, d->n_buckets, d->n_runs);
    if (d->n_classes > 1)
        put(&s, " classes=%u", d->n_classes);
    put(&s, " nodes=%u edges=%llu\n", d->n_alive, (unsigned long long)d->n_node_edges);
    for (uint32_t k = 0; d->n_classes > 1 && k < d->n_classes; k++)
        put_class(&s, d, k);
    for (uint32_t g = 0; g < d->n_groups; g++) {
        put(&s, "group %u ranks", g);
        for (uint32_t i = 0; i < d->groups[g].n_ranks; i++)
            put(&s, " %u", d->group_ranks[d->groups[g].ranks + i]);
        put_text(&s, "\n");
    }
    for (uint32_t i = 0; i < d->n_streams; i++) {
        put(&s, "stream %u ", i);
        put_quoted(&s, d->streams[i]);
        put_text(&s, "\n");
    }
    for (uint32_t c = 0; c < n_chunks; c++)
        put_chunk(&s, d, c);
    for (uint32_t c = 0; c < n_chunks; c++)
        put_marks(&s, d, "split", c, d->split_bw + (size_t)c * d->n_mb, true);
    for (uint32_t c = 0; c < n_chunks && d->kept != NULL; c++)
        put_marks(&s, d, "recompute", c, d->kept + (size_t)c * d->n_mb, DAG_RECOMPUTE);
    for (uint32_t c = 0; c < n_chunks && d->kept != NULL; c++)
        put_marks(&s, d, "offload", c, d->kept + (size_t)c * d->n_mb, DAG_OFFLOAD);
    for (uint32_t l = 0; l < d->n_links; l++)
        put_link(&s, d, l);
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        const dag_bucket *k = &d->buckets[b];
        put(&s, "bucket %u group=%u%s params", b, k->group, k->reduced ? " reduced" : "");
        for (uint32_t i = 0; i < k->n; i++)
            put(&s, " %u", d->bucket_params[k->first + i]);
        put_text(&s, "\n");
    }
    for (uint32_t i = 0; i < d->n_runs; i++)
        put_run(&s, d, i);
}
