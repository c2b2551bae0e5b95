/* SPDX-License-Identifier: Apache-2.0
 *
 * dag_read.c: the text form of dag_text.c back into a DAG.
 *
 * The reader takes exactly what the writer prints, so that reading and printing again changes
 * nothing: one space between words, no leading zeros, things in order of their numbers. Every
 * number is checked where it stands; nothing in the text can make the reader allocate more than a
 * small multiple of its length, but for the nodes themselves, which are limited. What is not in the
 * text (spans, directives, the program) is left empty. Which runs a chunk, a link and a bucket have
 * follows from the runs.
 */
#include "ir/dag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

enum { MAX_NODES = 1 << 26 }; /* of a DAG as text */

typedef struct reader {
    arena *mem;
    dag *d;
    ir_graph *graph; /* holds the chunks' tags, nothing else */
    const char *at, *end;
    uint32_t line;
    uint32_t n_runs, n_alive, n_classes; /* as the header says */
    uint64_t n_node_edges;
    uint32_t *with; /* [n_runs] the lead of a collective over several groups, or IR_NONE */
    dag_read_error *error;
} reader;

/* ---- Words and numbers --------------------------------------------------------------------------
 */

PPS_PRINTF(2, 3)
static pps_status fail(const reader *r, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    vsnprintf(r->error->text, sizeof r->error->text, format, args);
    va_end(args);
    r->error->line = r->line;
    return PPS_ERR_SCRIPT;
}

static bool next_is(const reader *r, const char *text)
{
    size_t n = strlen(text);
    return (size_t)(r->end - r->at) >= n && memcmp(r->at, text, n) == 0;
}

static bool take(reader *r, const char *text)
{
    if (!next_is(r, text))
        return false;
    r->at += strlen(text);
    return true;
}

static pps_status expect(reader *r, const char *text)
{
    if (take(r, text))
        return PPS_OK;
    return strcmp(text, "\n") == 0 ? fail(r, "expected the end of the line")
                                   : fail(r, "expected '%s'", text);
}

static pps_status line_end(reader *r)
{
    PPS_TRY(expect(r, "\n"));
    r->line++;
    return PPS_OK;
}

static bool is_digit(const reader *r, const char *c)
{
    return c < r->end && *c >= '0' && *c <= '9';
}

/* `text`, then a number up to `most`. */
static pps_status number(reader *r, const char *text, uint64_t most, uint64_t *ret)
{
    PPS_TRY(expect(r, text));
    const char *begin = r->at;
    uint64_t v = 0;
    if (!is_digit(r, r->at))
        return fail(r, "expected a number after '%s'", text);
    for (; is_digit(r, r->at); r->at++) {
        uint64_t digit = (uint64_t)(*r->at - '0');
        if (v > (UINT64_MAX - digit) / 10)
            return fail(r, "a number is too large");
        v = v * 10 + digit;
    }
    if (*begin == '0' && r->at > begin + 1)
        return fail(r, "a number has leading zeros");
    if (v > most)
        return fail(r, "%llu after '%s' is more than %llu", (unsigned long long)v, text,
                    (unsigned long long)most);
    *ret = v;
    return PPS_OK;
}

/* An index below `n`. */
static pps_status below(reader *r, const char *text, uint32_t n, uint32_t *ret)
{
    uint64_t v = 0;
    if (n == 0)
        return fail(r, "there is nothing that '%s' could name", text);
    PPS_TRY(number(r, text, n - 1, &v));
    *ret = (uint32_t)v;
    return PPS_OK;
}

/* The number of the thing that begins here: they come in order. */
static pps_status numbered(reader *r, const char *text, uint32_t want)
{
    uint64_t v = 0;
    PPS_TRY(number(r, text, IR_NONE - 1, &v));
    return v == want ? PPS_OK : fail(r, "expected number %u after '%s'", want, text);
}

/* Up to a character that ends names. */
static pps_status name(reader *r, const char **ret)
{
    const char *begin = r->at;
    while (r->at < r->end && (unsigned char)*r->at > ' ' && strchr("=:,{}\"", *r->at) == NULL)
        r->at++;
    if (r->at == begin)
        return fail(r, "expected a name");
    *ret = arena_copy(r->mem, begin, (size_t)(r->at - begin));
    return *ret == NULL ? PPS_ERR_NOMEM : PPS_OK;
}

static int hex(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static pps_status quoted(reader *r, const char **ret)
{
    PPS_TRY(expect(r, "\""));
    const char *close = memchr(r->at, '"', (size_t)(r->end - r->at));
    if (close == NULL)
        return fail(r, "a name in quotes is not closed");
    char *to = arena_new(r->mem, (size_t)(close - r->at) + 1);
    if (to == NULL)
        return PPS_ERR_NOMEM;
    *ret = to;
    while (r->at < close) {
        if (*r->at == '\n' || *r->at == '\0' || *r->at == '\r' || *r->at == '\t')
            return fail(r, "a name in quotes holds a control character");
        if (*r->at != '\\') {
            *to++ = *r->at++;
            continue;
        }
        int high = close - r->at >= 4 && r->at[1] == 'x' ? hex(r->at[2]) : -1;
        int low = high < 0 ? -1 : hex(r->at[3]);
        int c = high * 16 + low;
        if (high < 0 || low < 0 || c == 0 || strchr("\"\\\n\r\t", c) == NULL)
            return fail(r, "a name in quotes escapes what needs no escape");
        *to++ = (char)c;
        r->at += 4;
    }
    *to = '\0';
    r->at = close + 1;
    return PPS_OK;
}

#define READ_ALLOC(ptr, count)                                             \
    do {                                                                   \
        (ptr) = arena_zero(r->mem, ((size_t)(count) + 1) * sizeof *(ptr)); \
        if ((ptr) == NULL)                                                 \
            return PPS_ERR_NOMEM;                                          \
    } while (0)

/* ---- Lines --------------------------------------------------------------------------------------
 */

/* "class 0 mb 0 1 4" for each class, where there are several; chunks stand class after class. */
static pps_status read_classes(reader *r, uint32_t n_classes)
{
    dag *d = r->d;
    uint32_t at = 0;
    PPS_TRY(dag_one_class(d));
    if (n_classes < 2)
        return n_classes == 1 ? PPS_OK : fail(r, "a DAG has a class of microbatches at least");
    if (d->graph->n_chunks % n_classes != 0)
        return fail(r, "%u chunks are not as many in each of %u classes", d->graph->n_chunks,
                    n_classes);
    d->n_classes = n_classes;
    d->n_model_chunks = d->graph->n_chunks / n_classes;
    READ_ALLOC(d->classes, n_classes);
    READ_ALLOC(d->mb_index, d->n_mb);
    for (uint32_t m = 0; m < d->n_mb; m++)
        d->mb_class[m] = IR_NONE;
    for (uint32_t k = 0; k < n_classes; k++) {
        uint32_t from = 0, mb = 0;
        PPS_TRY(numbered(r, "class ", k));
        PPS_TRY(expect(r, " mb"));
        d->classes[k].begin = at;
        do {
            PPS_TRY(below(r, " ", d->n_mb, &mb));
            if (mb < from || d->mb_class[mb] != IR_NONE)
                return fail(r, "microbatch %u is out of order, or in two classes", mb);
            from = mb + 1;
            if (d->mb_class[mb - mb % d->n_slices] != (mb % d->n_slices == 0 ? IR_NONE : k))
                return fail(r, "the slices of microbatch %u are in two classes", mb / d->n_slices);
            d->mb_class[mb] = k;
            d->mb_index[mb] = d->classes[k].n++;
            d->class_mbs[at++] = mb;
        } while (next_is(r, " "));
        PPS_TRY(line_end(r));
    }
    return at == d->n_mb ? PPS_OK : fail(r, "%u microbatches are in no class", d->n_mb - at);
}

static pps_status read_header(reader *r)
{
    dag *d = r->d;
    uint64_t n[8] = {0}, slices = 1, alive = 0;
    static const char *const counts[7] = {
        " groups=", " ranks=", " streams=", " chunks=", " links=", " buckets=", " runs="};
    PPS_TRY(number(r, "dag microbatches=", MAX_NODES, &n[7]));
    PPS_TRY(expect(r, " tag="));
    PPS_TRY(name(r, &d->mb_tag));
    if (next_is(r, " slices=")) {
        PPS_TRY(number(r, " slices=", n[7] > 0 ? MAX_NODES / n[7] : 0, &slices));
        PPS_TRY(expect(r, " tag="));
        PPS_TRY(name(r, &d->slice_tag));
    }
    for (int i = 0; i < 7; i++) /* each thing takes two bytes or more of what follows */
        PPS_TRY(number(r, counts[i], (uint64_t)(r->end - r->at) / 2, &n[i]));
    uint64_t n_classes = 1;
    if (next_is(r, " classes="))
        PPS_TRY(number(r, " classes=", n[7], &n_classes));
    PPS_TRY(number(r, " nodes=", MAX_NODES, &alive));
    PPS_TRY(number(r, " edges=", UINT64_MAX, &r->n_node_edges));
    PPS_TRY(line_end(r));
    d->n_groups = (uint32_t)n[0];
    d->n_ranks = (uint32_t)n[1];
    d->n_streams = (uint32_t)n[2];
    r->graph->n_chunks = r->graph->n_tagsets = (uint32_t)n[3];
    d->n_links = (uint32_t)n[4];
    d->n_buckets = (uint32_t)n[5];
    r->n_runs = (uint32_t)n[6];
    n[7] *= slices; /* units */
    d->n_mb = (uint32_t)n[7];
    d->n_slices = (uint32_t)slices;
    r->n_alive = (uint32_t)alive;
    if (d->n_mb == 0 || d->n_groups == 0 || d->n_streams == 0)
        return fail(r, "a DAG has a microbatch, a slice, a group and a stream at least");
    if (d->n_groups > UINT16_MAX || d->n_streams > UINT16_MAX)
        return fail(r, "too many groups or streams");
    if (n[6] * n[7] > MAX_NODES || n[3] * n[7] > MAX_NODES)
        return fail(r, "more than %d nodes", (int)MAX_NODES);
    READ_ALLOC(d->groups, d->n_groups);
    READ_ALLOC(d->group_ranks, d->n_ranks);
    READ_ALLOC(d->streams, d->n_streams);
    READ_ALLOC(d->chunks, n[3]);
    READ_ALLOC(r->graph->chunks, n[3]);
    READ_ALLOC(r->graph->tagsets, n[3]);
    READ_ALLOC(d->split_bw, n[3] * n[7]);
    READ_ALLOC(d->links, d->n_links);
    READ_ALLOC(d->link_lists, 2 * (size_t)d->n_links);
    READ_ALLOC(d->buckets, d->n_buckets);
    READ_ALLOC(r->with, r->n_runs);
    memset(r->with, 0xff, r->n_runs * sizeof *r->with);
    r->n_classes = (uint32_t)n_classes;
    return PPS_OK;
}

static pps_status read_groups(reader *r)
{
    dag *d = r->d;
    uint8_t *seen;
    uint32_t at = 0;
    READ_ALLOC(seen, d->n_ranks);
    for (uint32_t g = 0; g < d->n_groups; g++) {
        PPS_TRY(numbered(r, "group ", g));
        PPS_TRY(expect(r, " ranks"));
        d->groups[g].ranks = at;
        do {
            uint32_t rank = 0;
            PPS_TRY(below(r, " ", d->n_ranks, &rank));
            if (seen[rank])
                return fail(r, "rank %u is in two groups", rank);
            seen[rank] = 1;
            d->group_ranks[at++] = rank;
        } while (next_is(r, " "));
        d->groups[g].n_ranks = at - d->groups[g].ranks;
        PPS_TRY(line_end(r));
    }
    return at == d->n_ranks ? PPS_OK : fail(r, "%u ranks are in groups, not %u", at, d->n_ranks);
}

static pps_status read_tags(reader *r, uint32_t c)
{
    ir_graph *g = r->graph;
    g->chunks[c].tagset = c;
    g->tagsets[c].begin = g->n_tags;
    while (!next_is(r, "}")) {
        uint64_t index = 0;
        if (g->tagsets[c].n > 0)
            PPS_TRY(expect(r, ", "));
        if (g->n_tags == g->cap_tags) {
            uint32_t cap = g->cap_tags * 2 + 64;
            ir_tag *bigger = arena_new(r->mem, cap * sizeof *bigger);
            if (bigger == NULL)
                return PPS_ERR_NOMEM;
            if (g->n_tags > 0)
                memcpy(bigger, g->tags, g->n_tags * sizeof *bigger);
            g->tags = bigger;
            g->cap_tags = cap;
        }
        ir_tag *tag = &g->tags[g->n_tags];
        PPS_TRY(name(r, &tag->name));
        PPS_TRY(number(r, ": ", IR_NONE - 1, &index));
        tag->index = (uint32_t)index;
        g->n_tags++;
        g->tagsets[c].n++;
    }
    return expect(r, "}");
}

static pps_status read_chunks(reader *r)
{
    dag *d = r->d;
    for (uint32_t c = 0; c < r->graph->n_chunks; c++) {
        uint64_t ep = 0;
        d->chunks[c] = (dag_chunk){.place = IR_NONE,
                                   .replicate = IR_NONE,
                                   .shard = IR_NONE,
                                   .f = IR_NONE,
                                   .b = IR_NONE,
                                   .w = IR_NONE,
                                   .offload = {IR_NONE, IR_NONE},
                                   .fetch = {IR_NONE, IR_NONE}};
        PPS_TRY(numbered(r, "chunk ", c));
        PPS_TRY(expect(r, " {"));
        PPS_TRY(read_tags(r, c));
        PPS_TRY(below(r, " group=", d->n_groups, &d->chunks[c].group));
        PPS_TRY(number(r, " ep=", d->n_ranks, &ep));
        if (ep == 0)
            return fail(r, "ep is 1 or more");
        d->chunks[c].ep = (uint32_t)ep;
        PPS_TRY(line_end(r));
    }
    return PPS_OK;
}

/* Lines of `word`, each a chunk and the microbatches whose mark becomes `value`. */
static pps_status read_marks(reader *r, const char *word, uint8_t *marks, uint8_t value)
{
    dag *d = r->d;
    char begin[32];
    snprintf(begin, sizeof begin, "%s chunk=", word);
    for (uint32_t next = 0; next_is(r, begin);) {
        uint32_t c = 0, from = 0;
        PPS_TRY(below(r, begin, r->graph->n_chunks, &c));
        if (c < next)
            return fail(r, "chunk %u comes too late", c);
        next = c + 1;
        PPS_TRY(expect(r, " mb"));
        do { /* ranges with a gap between them */
            uint32_t first = 0;
            uint64_t end = 0;
            PPS_TRY(below(r, " ", dag_n_mb(d, c), &first));
            end = (uint64_t)first + 1;
            if (next_is(r, "..")) {
                PPS_TRY(number(r, "..", dag_n_mb(d, c), &end));
                if (end < (uint64_t)first + 2)
                    return fail(r, "a range of microbatches has two or more");
            }
            if (first < from)
                return fail(r, "microbatch %u is out of order", first);
            for (uint32_t m = first; m < end; m++) {
                if (marks[(size_t)c * d->n_mb + m] != 0)
                    return fail(r, "microbatch %u of chunk %u is marked already", m, c);
                marks[(size_t)c * d->n_mb + m] = value;
            }
            from = (uint32_t)end + 1;
        } while (next_is(r, " "));
        PPS_TRY(line_end(r));
    }
    return PPS_OK;
}

static pps_status read_kept(reader *r)
{
    dag *d = r->d;
    if (!next_is(r, "recompute ") && !next_is(r, "offload "))
        return PPS_OK;
    READ_ALLOC(d->kept, (size_t)r->graph->n_chunks * d->n_mb);
    PPS_TRY(read_marks(r, "recompute", d->kept, DAG_RECOMPUTE));
    return read_marks(r, "offload", d->kept, DAG_OFFLOAD);
}

/* Links come by consumer and its inputs: these lists are ranges; the producers' need sorting. */
static void index_links(dag *d, uint32_t n_chunks)
{
    uint32_t at = d->n_links;
    for (uint32_t l = 0; l < d->n_links; l++) {
        dag_chunk *dst = &d->chunks[d->links[l].dst];
        d->link_lists[l] = l;
        if (dst->in_links.n++ == 0)
            dst->in_links.begin = l;
        d->chunks[d->links[l].src].out_links.n++;
    }
    for (uint32_t c = 0; c < n_chunks; c++) {
        d->chunks[c].out_links.begin = at;
        at += d->chunks[c].out_links.n;
        d->chunks[c].out_links.n = 0;
    }
    for (uint32_t l = 0; l < d->n_links; l++) {
        dag_chunk *src = &d->chunks[d->links[l].src];
        d->link_lists[src->out_links.begin + src->out_links.n++] = l;
    }
}

/* The border at one end, if there is one, and the form behind it. */
static pps_status read_border(reader *r, dag_link *k, dag_end end)
{
    ir_id *after = end == DAG_SRC ? &k->wire : &k->tensor;
    const char *at = r->at;
    *after = end == DAG_SRC ? k->made : k->wire;
    if (!take(r, " "))
        return PPS_OK;
    for (int b = IR_NO_BORDER + 1; b < IR_BORDER_COUNT && k->border[end] == IR_NO_BORDER; b++) {
        const char *begin = r->at;
        if (take(r, dag_border_name((ir_border)b)) && take(r, end == DAG_SRC ? "@from" : "@to"))
            k->border[end] = (uint8_t)b;
        else
            r->at = begin;
    }
    if (k->border[end] == IR_NO_BORDER) {
        r->at = at; /* the other end's, or nothing that can follow */
        return PPS_OK;
    }
    if (next_is(r, ":")) {
        ir_id before = *after;
        PPS_TRY(below(r, ":", IR_NONE, after));
        if (*after == before)
            return fail(r, "a form named is another than before the border");
    }
    return PPS_OK;
}

static pps_status read_links(reader *r)
{
    dag *d = r->d;
    uint32_t n_chunks = r->graph->n_chunks, last_dst = 0, next_in = 0;
    for (uint32_t l = 0; l < d->n_links; l++) {
        dag_link *k = &d->links[l];
        *k = (dag_link){.f_send = IR_NONE,
                        .f_recv = IR_NONE,
                        .f_border = {IR_NONE, IR_NONE},
                        .b_send = IR_NONE,
                        .b_recv = IR_NONE,
                        .b_border = {IR_NONE, IR_NONE},
                        .b_again = IR_NONE,
                        .directive = {IR_NONE, IR_NONE}};
        PPS_TRY(numbered(r, "link ", l));
        PPS_TRY(below(r, " tensor=", IR_NONE, &k->made));
        PPS_TRY(below(r, " from ", n_chunks, &k->src));
        PPS_TRY(below(r, ".", IR_NONE, &k->src_out));
        PPS_TRY(below(r, " to ", n_chunks, &k->dst));
        PPS_TRY(below(r, ".", IR_NONE, &k->dst_in));
        PPS_TRY(below(r, " carrier=", l + 1, &k->carrier));
        k->grad = take(r, " grad");
        PPS_TRY(read_border(r, k, DAG_SRC));
        PPS_TRY(read_border(r, k, DAG_DST));
        if (k->src >= k->dst)
            return fail(r, "a link leads from an earlier chunk to a later one");
        if (k->carrier != l &&
            (d->links[k->carrier].wire != k->wire || d->links[k->carrier].carrier != k->carrier))
            return fail(r, "link %u does not carry tensor %u", k->carrier, k->wire);
        next_in = k->dst != last_dst ? 0 : next_in;
        if (k->dst < last_dst || k->dst_in != next_in)
            return fail(r, "links come by consumer and input");
        last_dst = k->dst;
        next_in++;
        PPS_TRY(line_end(r));
    }
    index_links(d, n_chunks);
    return PPS_OK;
}

static pps_status read_buckets(reader *r)
{
    dag *d = r->d;
    uint32_t at = 0;
    READ_ALLOC(d->bucket_params, (r->end - r->at) / 2);
    for (uint32_t b = 0; b < d->n_buckets; b++) {
        dag_bucket *k = &d->buckets[b];
        *k = (dag_bucket){.directive = IR_NONE, .first = at, .reduce = IR_NONE, .update = IR_NONE};
        PPS_TRY(numbered(r, "bucket ", b));
        PPS_TRY(below(r, " group=", d->n_groups, &k->group));
        k->reduced = take(r, " reduced");
        k->lead = b;
        k->next = IR_NONE;
        k->gather = k->clear = IR_NONE;
        PPS_TRY(expect(r, " params"));
        do
            PPS_TRY(below(r, " ", IR_NONE, &d->bucket_params[at++]));
        while (next_is(r, " "));
        k->n = at - k->first;
        PPS_TRY(line_end(r));
    }
    return PPS_OK;
}

/* ---- Runs ---------------------------------------------------------------------------------------
 */

static pps_status read_kind(reader *r, uint8_t *ret)
{
    for (int kind = 0; kind < PLAN_STEP_KIND_COUNT; kind++) {
        const char *text = plan_step_name((plan_step_kind)kind);
        size_t n = strlen(text);
        if (next_is(r, text) && (size_t)(r->end - r->at) > n && r->at[n] == ' ') {
            r->at += n;
            *ret = (uint8_t)kind;
            return PPS_OK;
        }
    }
    return fail(r, "expected a kind of step, such as 'compute'");
}

/* The end of the link whose border has such a step; DAG_ENDS: neither. */
static dag_end border_end(const dag_link *k, const dag_run *run)
{
    for (int end = 0; end < DAG_ENDS; end++)
        if (dag_border_step((ir_border)k->border[end], (pps_pass)run->pass) == run->kind)
            return (dag_end)end;
    return DAG_ENDS;
}

/* A shift forward in a backward pass. */
static bool brings_again(const dag_run *run)
{
    return run->kind == PLAN_SHIFT && run->pass != PPS_PASS_F && !(run->flags & PLAN_A2A_RETURN);
}

/* The field of a chunk, link or bucket that says where this run is. */
static uint32_t *run_home(const dag *d, const dag_run *run)
{
    bool forward = run->pass == PPS_PASS_F;
    if (run->link != IR_NONE && run->kind != PLAN_SEND && run->kind != PLAN_RECV) {
        const dag_link *k = &d->links[run->link];
        dag_end end = border_end(k, run);
        if (brings_again(run))
            return &d->links[run->link].b_again;
        return forward ? &d->links[run->link].f_border[end] : &d->links[run->link].b_border[end];
    }
    switch ((plan_step_kind)run->kind) {
    case PLAN_COMPUTE:
        return forward                    ? &d->chunks[run->chunk].f
               : run->pass == PPS_PASS_BW ? &d->chunks[run->chunk].w
                                          : &d->chunks[run->chunk].b;
    case PLAN_SEND:
        return forward ? &d->links[run->link].f_send : &d->links[run->link].b_send;
    case PLAN_RECV:
        return forward ? &d->links[run->link].f_recv : &d->links[run->link].b_recv;
    case PLAN_ALL_REDUCE:
    case PLAN_REDUCE_SCATTER:
        return &d->buckets[run->chunk].reduce;
    case PLAN_ALL_GATHER:
        return &d->buckets[run->chunk].gather;
    case PLAN_CLEAR:
        return &d->buckets[run->chunk].clear;
    case PLAN_OFFLOAD:
        return &d->chunks[run->chunk].offload[run->pass == PPS_PASS_BW];
    case PLAN_FETCH:
        return &d->chunks[run->chunk].fetch[run->pass == PPS_PASS_BW];
    case PLAN_COUNTS: /* a border's, above */
    case PLAN_SHIFT:
    case PLAN_ALL_TO_ALL:
    case PLAN_SUM:
    case PLAN_SEQ_SCATTER:
    case PLAN_SEQ_GATHER:
    case PLAN_SEQ_TAKE:
    case PLAN_STATS:
    case PLAN_UPDATE:
    case PLAN_STEP_KIND_COUNT:
        break;
    }
    return &d->buckets[run->chunk].update;
}

/* What a run works on: a chunk in a pass, a link's tensor, a bucket. */
static pps_status read_subject(reader *r, dag_run *run, uint32_t i)
{
    dag *d = r->d;
    uint32_t group = 0;
    if (dag_of_bucket(run)) {
        run->pass = PPS_PASS_BW;
        PPS_TRY(below(r, " bucket=", d->n_buckets, &run->chunk));
        group = d->buckets[run->chunk].group;
    } else {
        run->pass = take(r, " F")    ? PPS_PASS_F
                    : take(r, " BW") ? PPS_PASS_BW
                    : take(r, " B")  ? PPS_PASS_BI
                                     : PPS_PASS_COUNT;
        if (run->pass == PPS_PASS_COUNT)
            return fail(r, "expected a pass: F, B or BW");
        PPS_TRY(below(r, " chunk=", r->graph->n_chunks, &run->chunk));
        group = d->chunks[run->chunk].group;
        run->carried = run->kind == PLAN_COMPUTE && run->pass != PPS_PASS_BW && d->n_slices > 1 &&
                       take(r, " carried");
    }
    if (plan_is(run->kind, PLAN_COPY) && run->pass == PPS_PASS_F)
        return fail(r, "a copy is of what B or BW reads");
    if (plan_communicates(run->kind) && !dag_of_bucket(run)) {
        PPS_TRY(below(r, " link=", d->n_links, &run->link));
        const dag_link *k = &d->links[run->link];
        run->flags = take(r, " return") ? PLAN_A2A_RETURN : 0;
        bool to_dst = run->pass == PPS_PASS_F || brings_again(run);
        if (run->pass == PPS_PASS_BW || run->chunk != (to_dst ? k->dst : k->src))
            return fail(r, "link %u does not lead to chunk %u in this pass", run->link, run->chunk);
        if (run->kind == PLAN_SEND || run->kind == PLAN_RECV) {
            bool at_src = (run->kind == PLAN_SEND) == (run->pass == PPS_PASS_F);
            group = d->chunks[at_src ? k->src : k->dst].group;
        } else {
            dag_end end = border_end(k, run);
            if (end == DAG_ENDS)
                return fail(r, "link %u has no such border", run->link);
            group = d->chunks[end == DAG_DST ? k->dst : k->src].group;
        }
        if (run->kind == PLAN_SEND || run->kind == PLAN_RECV)
            PPS_TRY(below(r, " pair=%", r->n_runs, &run->pair));
    }
    if (plan_is(run->kind, PLAN_COLLECTIVE) && next_is(r, " with="))
        PPS_TRY(below(r, " with=%", r->n_runs, &r->with[i]));
    uint32_t said = 0;
    PPS_TRY(below(r, " group=", d->n_groups, &said));
    if (said != group)
        return fail(r, "this belongs to group %u", group);
    run->group = (uint16_t)group;
    return PPS_OK;
}

static pps_status read_run(reader *r, uint32_t i)
{
    dag *d = r->d;
    dag_run run = {.link = IR_NONE, .pair = IR_NONE};
    uint32_t stream = 0, id;
    uint64_t n = 0;
    PPS_TRY(numbered(r, "%", i));
    PPS_TRY(expect(r, " = "));
    PPS_TRY(read_kind(r, &run.kind));
    PPS_TRY(read_subject(r, &run, i));
    PPS_TRY(below(r, " stream=", d->n_streams, &stream));
    /* a bucket's windows: at most one per pass of each microbatch */
    PPS_TRY(number(r, " x", dag_of_bucket(&run) ? 3ull * d->n_mb : d->n_mb, &n));
    uint32_t wanted = dag_of_bucket(&run) ? 1 : dag_n_mb(d, run.chunk);
    if (n == 0 || (!dag_of_bucket(&run) && n != wanted))
        return fail(r, "this run has %u nodes", wanted);
    run.n = (uint32_t)n;
    run.stream = (uint16_t)stream;
    uint32_t *home = run_home(d, &run);
    if (*home != IR_NONE)
        return fail(r, "%%%u is the same work", *home);
    *home = i;
    PPS_TRY(dag_add_run(d, run, &id));
    PPS_TRY(expect(r, " after"));
    if (!take(r, " -"))
        do {
            uint32_t before = 0;
            PPS_TRY(below(r, " %", r->n_runs, &before));
            PPS_TRY(dag_add_edge(d, before, i));
        } while (next_is(r, " "));
    return line_end(r);
}

static pps_status read_runs(reader *r)
{
    dag *d = r->d;
    for (uint32_t i = 0; i < r->n_runs; i++)
        PPS_TRY(read_run(r, i));
    if (r->at < r->end)
        return fail(r, "nothing can follow the last run");
    for (uint32_t i = 0; i < d->n_runs; i++) {
        const dag_run *run = &d->runs[i];
        bool transfers = run->kind == PLAN_SEND || run->kind == PLAN_RECV;
        if (transfers &&
            (d->runs[run->pair].pair != i || d->runs[run->pair].kind == run->kind ||
             d->runs[run->pair].link != run->link || d->runs[run->pair].pass != run->pass))
            return fail(r, "%%%u and %%%u are not the ends of one transfer", i, run->pair);
    }
    for (uint32_t i = 0; i < d->n_runs; i++) {
        if (d->runs[i].kind == PLAN_RECV)
            dag_join(d, d->runs[i].pair, i);
        else if (r->with[i] != IR_NONE) {
            const dag_run *lead = &d->runs[r->with[i]];
            if (r->with[i] >= i || r->with[r->with[i]] != IR_NONE ||
                lead->kind != d->runs[i].kind || lead->n != d->runs[i].n ||
                lead->group == d->runs[i].group)
                return fail(r, "%%%u and %%%u are not one operation", i, r->with[i]);
            dag_join(d, r->with[i], i);
        }
    }
    for (uint32_t e = 0; e < d->n_edges; e++) {
        const dag_run *src = &d->runs[d->run_src[e]], *dst = &d->runs[d->run_dst[e]];
        if (src->group != dst->group || (src->n != dst->n && dst->n != 1))
            return fail(r, "%%%u cannot wait for %%%u: other devices, or once per step",
                        d->run_dst[e], d->run_src[e]);
    }
    return PPS_OK;
}

static pps_status read_all(reader *r)
{
    dag *d = r->d;
    PPS_TRY(read_header(r));
    PPS_TRY(read_classes(r, r->n_classes));
    PPS_TRY(read_groups(r));
    for (uint32_t i = 0; i < d->n_streams; i++) {
        PPS_TRY(numbered(r, "stream ", i));
        PPS_TRY(expect(r, " "));
        PPS_TRY(quoted(r, &d->streams[i]));
        PPS_TRY(line_end(r));
    }
    PPS_TRY(read_chunks(r));
    PPS_TRY(read_marks(r, "split", d->split_bw, true));
    PPS_TRY(read_kept(r));
    PPS_TRY(read_links(r));
    PPS_TRY(read_buckets(r));
    PPS_TRY(read_runs(r));
    PPS_TRY(dag_seal(d));
    if (d->n_alive != r->n_alive || d->n_node_edges != r->n_node_edges) {
        r->line = 1;
        return fail(r, "the runs make %u nodes and %llu edges", d->n_alive,
                    (unsigned long long)d->n_node_edges);
    }
    return PPS_OK;
}

pps_status dag_read(arena *mem, const char *text, size_t bytes, dag **ret,
                    dag_read_error *ret_error)
{
    reader r = {.mem = mem, .at = text, .end = text + bytes, .line = 1, .error = ret_error};
    *ret_error = (dag_read_error){0};
    r.d = arena_zero(mem, sizeof *r.d);
    r.graph = arena_zero(mem, sizeof *r.graph);
    if (r.d == NULL || r.graph == NULL)
        return PPS_ERR_NOMEM;
    r.graph->mem = r.d->mem = r.d->node_mem = mem;
    r.d->graph = r.graph;
    r.d->split = r.d->sequence_split = IR_NONE;
    if (bytes > UINT32_MAX / 2)
        return fail(&r, "the text is longer than 2 GiB");
    PPS_TRY(read_all(&r));
    *ret = r.d;
    return PPS_OK;
}
