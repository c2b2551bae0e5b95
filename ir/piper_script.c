/* SPDX-License-Identifier: Apache-2.0
 *
 * piper_script.c: the records of Piper's file as a script that reads as if somebody wrote it:
 *
 *   let pp = stream("pp")
 *   let devices = [[0, 2], [1, 3]]
 *   for s in 0..2 {
 *     place {PP: s} on devices[s] stream pp
 *     replicate {PP: s} on devices[s] reduce dp
 *   }
 *   split {} by MB into 2
 *   order F(0, 0) -> F(0, 1) | B(0, 0) -> B(0, 1)
 *
 * Directives that differ in the stage and its devices alone make a `series`; all series that give
 * stages 0, 1, ... the devices that a series of places does share its loop. Others stand alone.
 */
#include "ir/piper_form.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "lang/lex.h"

enum {
    LINE = 100,      /* columns */
    MAX_ARROWS = 48, /* longer rows are lists: chains of operators have a limit */
    MAX_SERIES = 64,
};

typedef struct series {
    uint32_t first, n; /* first: its directive of stage 0 */
    bool broken;       /* stages are not 0, 1, ... in this order */
    bool in_loop;
} series;

typedef struct writer {
    piper_file *f;
    const ir_program *p;
    piper_text t;
    const char **names; /* of streams, as variables */
    uint32_t *series_of;
    series series[MAX_SERIES];
    uint32_t n_series;
    uint32_t *stages; /* directive of each stage in the loop's places */
    uint32_t loop;    /* the loop's series of places, or IR_NONE */
} writer;

/* ---- Names of streams ------------------------------------------------------------------------ */

static bool is_letter(char c)
{
    return c == '_' || ((c | 32) >= 'a' && (c | 32) <= 'z');
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_keyword(const char *name)
{
    lexer lx;
    token first;
    lex_init(&lx, 0, name, strlen(name));
    lex_next(&lx, &first);
    return strcmp(lex_token_info(first.kind)->words, "a name") != 0;
}

/* Does the expression have the word `name`? A variable of that name would stand in its way. */
static bool has_word(const char *expression, const char *name)
{
    size_t n = strlen(name);
    for (const char *at = expression; at && (at = strstr(at, name)); at++)
        if ((at == expression || (!is_letter(at[-1]) && !is_digit(at[-1]))) && !is_letter(at[n]) &&
            !is_digit(at[n]))
            return true;
    return false;
}

static bool is_taken(const writer *w, uint32_t n_names, const char *name, const char *expression)
{
    static const char *const used[] = {"F", "B", "BI", "BW", "stream", "devices", "s"};
    for (size_t i = 0; i < sizeof used / sizeof *used; i++)
        if (strcmp(name, used[i]) == 0)
            return true;
    for (uint32_t i = 0; i < n_names; i++)
        if (strcmp(name, w->names[i]) == 0)
            return true;
    return is_keyword(name) || has_word(expression, name);
}

/* What of a stream's name can be a variable; "_2", "_3", ... where that is taken. */
static const char *name_stream(writer *w, uint32_t index, const char *expression)
{
    char name[300];
    size_t n = 0;
    const char *text = w->f->streams[index];
    if (is_digit(*text))
        name[n++] = 's';
    for (; *text; text++)
        if (is_letter(*text) || is_digit(*text))
            name[n++] = *text;
        else if (n > 0 && name[n - 1] != '_')
            name[n++] = '_';
    while (n > 0 && name[n - 1] == '_')
        n--;
    name[n] = 0;
    if (n == 0)
        n = (size_t)snprintf(name, sizeof name, "stream_%u", index);
    for (uint32_t k = 2; is_taken(w, index, name, expression); k++)
        snprintf(name + n, sizeof name - n, "_%u", k);
    return arena_copy(&w->f->mem, name, strlen(name));
}

static bool name_streams(writer *w, const char *expression)
{
    w->names = arena_new(&w->f->mem, (w->f->n_streams + 1) * sizeof *w->names);
    for (uint32_t i = 0; w->names && i < w->f->n_streams; i++)
        if (!(w->names[i] = name_stream(w, i, expression)))
            return false;
    return w->names != NULL;
}

static void put_string(piper_text *t, const char *text)
{
    piper_put(t, "\"");
    for (; *text; text++)
        if (*text == '"' || *text == '\\')
            piper_put(t, "\\%c", *text);
        else if ((unsigned char)*text < ' ' || *text == 127)
            piper_put(t, "\\u{%x}", (unsigned)*text);
        else
            piper_put_text(t, text, 1);
    piper_put(t, "\"");
}

/* ---- Series ---------------------------------------------------------------------------------- */

static const ir_term *stage_term(const ir_program *p, const ir_filter *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *t = &p->terms[f->begin + i];
        if (t->kind == PPS_TERM_SET && strcmp(t->tag, "PP") == 0)
            return t;
    }
    return NULL;
}

static const ir_term *find_term(const ir_program *p, const ir_filter *f, const char *tag)
{
    for (uint32_t i = 0; i < f->n; i++)
        if (p->terms[f->begin + i].tag == tag)
            return &p->terms[f->begin + i];
    return NULL;
}

/* Equal but for the stage and the devices. */
static bool alike(const ir_program *p, uint32_t i, uint32_t k)
{
    const ir_directive *a = &p->directives[i], *b = &p->directives[k];
    if (p->kinds[i] != p->kinds[k] || a->stream != b->stream || a->gather != b->gather ||
        a->zero != b->zero || a->prefetch != b->prefetch || a->bucket_bytes != b->bucket_bytes ||
        a->filter.n != b->filter.n)
        return false;
    for (uint32_t t = 0; t < a->filter.n; t++) {
        const ir_term *x = &p->terms[a->filter.begin + t];
        const ir_term *y = find_term(p, &b->filter, x->tag);
        if (!y || x->kind != y->kind || x->pass != y->pass)
            return false;
        if (x->kind == PPS_TERM_SET && strcmp(x->tag, "PP") != 0 &&
            p->ints[x->begin] != p->ints[y->begin])
            return false;
    }
    return true;
}

static void find_series(writer *w)
{
    const ir_program *p = w->p;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        const ir_term *stage = stage_term(p, &p->directives[i].filter);
        uint32_t s = 0;
        w->series_of[i] = IR_NONE;
        if (!stage || p->kinds[i] == PPS_DIR_SPLIT)
            continue;
        while (s < w->n_series && !alike(p, w->series[s].first, i))
            s++;
        if (s == MAX_SERIES)
            continue;
        if (s == w->n_series)
            w->series[w->n_series++] = (series){.first = i};
        w->series[s].broken |= p->ints[stage->begin] != w->series[s].n;
        w->series[s].n++;
        w->series_of[i] = s;
    }
}

static bool same_devices(const ir_program *p, uint32_t i, uint32_t k)
{
    const ir_devices *a = &p->directives[i].devices, *b = &p->directives[k].devices;
    return a->n == b->n &&
           memcmp(p->ints + a->begin, p->ints + b->begin, a->n * sizeof(uint32_t)) == 0;
}

/* The first unbroken series of two or more places, and all that give its stages the same devices.
 */
static void find_loop(writer *w)
{
    const ir_program *p = w->p;
    w->loop = IR_NONE;
    for (uint32_t s = 0; s < w->n_series && w->loop == IR_NONE; s++)
        if (p->kinds[w->series[s].first] == PPS_DIR_PLACE && !w->series[s].broken &&
            w->series[s].n > 1)
            w->loop = s;
    if (w->loop == IR_NONE)
        return;
    uint32_t n = 0, places = w->series[w->loop].n;
    for (uint32_t i = 0; i < p->n_directives; i++)
        if (w->series_of[i] == w->loop)
            w->stages[n++] = i;
    for (uint32_t s = 0; s < w->n_series; s++)
        w->series[s].in_loop = !w->series[s].broken && w->series[s].n == places;
    for (uint32_t i = 0; i < p->n_directives; i++) {
        uint32_t s = w->series_of[i];
        if (s == IR_NONE || !w->series[s].in_loop)
            continue;
        uint32_t stage = p->ints[stage_term(p, &p->directives[i].filter)->begin];
        if (!same_devices(p, i, w->stages[stage]))
            w->series[s].in_loop = false;
    }
}

/* ---- Pieces ---------------------------------------------------------------------------------- */

/* A blank, or a new line with `indent` blanks when `n` more columns do not fit. */
static void space(piper_text *t, size_t n, int indent)
{
    if (t->n - t->line + 1 + n > LINE)
        piper_put(t, "\n%*s", indent, "");
    else
        piper_put(t, " ");
}

/* Separators of lists stay at the end of the line. */
static void put_item(piper_text *t, bool first, const char *item, size_t n, int indent)
{
    if (!first) {
        piper_put(t, ",");
        space(t, n + 1, indent);
    }
    piper_put_text(t, item, n);
}

static void put_devices(piper_text *t, const ir_program *p, const ir_devices *devices)
{
    char number[16];
    piper_put(t, "[");
    for (uint32_t i = 0; i < devices->n; i++) {
        int n = snprintf(number, sizeof number, "%u", p->ints[devices->begin + i]);
        put_item(t, i == 0, number, (size_t)n, 4);
    }
    piper_put(t, "]");
}

/* `stage`: what stands for the index of PP, or NULL. */
static void put_filter(piper_text *t, const ir_program *p, const ir_filter *f, const char *stage)
{
    uint32_t order[PPS_MAX_TERMS];
    piper_term_order(p, f, order);
    piper_put(t, "{");
    for (uint32_t i = 0; i < f->n; i++) {
        const ir_term *term = &p->terms[f->begin + order[i]];
        piper_put(t, "%s%s: ", i ? ", " : "", term->tag);
        if (term->kind == PPS_TERM_PASS)
            piper_put(t, "%s", piper_pass_names[term->pass]);
        else if (term->kind == PPS_TERM_ANY)
            piper_put(t, "*");
        else if (stage && strcmp(term->tag, "PP") == 0)
            piper_put(t, "%s", stage);
        else
            piper_put(t, "%u", p->ints[term->begin]);
    }
    piper_put(t, "}");
}

static void put_stream(writer *w, const char *word, uint32_t stream)
{
    if (stream != IR_NONE)
        piper_put(&w->t, " %s %s", word, w->names[stream]);
}

static void put_clauses(writer *w, pps_directive_kind kind, const ir_directive *d)
{
    char number[40];
    bool replicates = kind == PPS_DIR_REPLICATE;
    put_stream(w, replicates ? "reduce" : "stream", d->stream);
    put_stream(w, "gather", d->gather);
    if (d->zero)
        piper_put(&w->t, " zero %u", d->zero);
    if (d->bucket_bytes)
        piper_put(&w->t, " bucket %s", piper_mib(d->bucket_bytes, number));
    if (d->prefetch)
        piper_put(&w->t, " prefetch %u", d->prefetch);
    piper_put(&w->t, "\n");
}

static void put_directive(writer *w, uint32_t i)
{
    const ir_directive *d = &w->p->directives[i];
    pps_directive_kind kind = (pps_directive_kind)w->p->kinds[i];
    piper_put(&w->t, "%s ", pps_directive_word(kind));
    put_filter(&w->t, w->p, &d->filter, NULL);
    if (kind == PPS_DIR_SPLIT) {
        piper_put(&w->t, " by %s into %u\n", d->tag, d->n);
        return;
    }
    piper_put(&w->t, " on ");
    put_devices(&w->t, w->p, &d->devices);
    put_clauses(w, kind, d);
}

static void put_loop(writer *w)
{
    const ir_program *p = w->p;
    uint32_t n = w->series[w->loop].n;
    piper_put(&w->t, "let devices = [");
    for (uint32_t s = 0; s < n; s++) {
        piper_text group = {0};
        put_devices(&group, p, &p->directives[w->stages[s]].devices);
        w->t.failed |= group.failed;
        if (group.bytes)
            put_item(&w->t, s == 0, group.bytes, group.n, 4);
        free(group.bytes);
    }
    piper_put(&w->t, "]    # devices[stage]\nfor s in 0..%u {\n", n);
    for (uint32_t s = 0; s < w->n_series; s++) {
        const series *each = &w->series[s];
        if (!each->in_loop)
            continue;
        const ir_directive *d = &p->directives[each->first];
        pps_directive_kind kind = (pps_directive_kind)p->kinds[each->first];
        piper_put(&w->t, "  %s ", pps_directive_word(kind));
        put_filter(&w->t, p, &d->filter, "s");
        piper_put(&w->t, " on devices[s]");
        put_clauses(w, kind, d);
    }
    piper_put(&w->t, "}\n");
}

static void put_group(piper_text *t, const ir_program *p, const ir_entry *e, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++, e++) {
        piper_put(t, "%s", i ? " | " : "");
        if (e->general)
            put_filter(t, p, &p->filters[e->filter], NULL);
        else
            piper_put(t, "%s(%u, %u)", piper_pass_names[e->pass], e->stage, e->mb);
    }
}

static void put_row(writer *w, const ir_row *row)
{
    const ir_entry *entries = w->p->entries + row->begin;
    bool arrows = row->n_groups <= MAX_ARROWS;
    piper_text group = {0};
    piper_put(&w->t, "order %s", arrows ? "" : "[");
    for (uint32_t i = 0, n; i < row->n; i += n) {
        for (n = 1; i + n < row->n && entries[i + n].joins;)
            n++;
        group.n = group.line = 0;
        put_group(&group, w->p, &entries[i], n);
        if (!group.bytes || group.failed) {
            w->t.failed = true;
            break;
        }
        if (!arrows) {
            put_item(&w->t, i == 0, group.bytes, group.n, 7);
            continue;
        }
        if (i > 0) {
            space(&w->t, group.n + 3, 6);
            piper_put(&w->t, "-> ");
        }
        piper_put_text(&w->t, group.bytes, group.n);
    }
    free(group.bytes);
    piper_put(&w->t, "%s\n", arrows ? "" : "]");
}

/* ---- The script ------------------------------------------------------------------------------ */

/* An empty line, unless there is one. */
static void section(piper_text *t)
{
    if (t->n > 1 && memcmp(t->bytes + t->n - 2, "\n\n", 2) != 0)
        piper_put(t, "\n");
}

static void put_head(writer *w, const char *name, const piper_model *model)
{
    const char *slash = strrchr(name, '/');
    piper_put(&w->t, "# Directives of ");
    for (const char *c = slash ? slash + 1 : name; *c; c++)
        piper_put_text(&w->t, (unsigned char)*c < ' ' ? "?" : c, 1);
    piper_put(&w->t, ", Piper's JSON.\n");
    if (model && model->module)
        piper_put(&w->t, "from \"%s\" import %s\n", model->module, model->name);
    section(&w->t);
    for (uint32_t i = 0; i < w->f->n_streams; i++) {
        piper_put(&w->t, "let %s = stream(", w->names[i]);
        put_string(&w->t, w->f->streams[i]);
        piper_put(&w->t, ")\n");
    }
    section(&w->t);
    if (model)
        piper_put(&w->t, "train %s\n", model->expression);
    section(&w->t);
}

static void put_all(writer *w)
{
    const ir_program *p = w->p;
    find_series(w);
    find_loop(w);
    if (w->loop != IR_NONE)
        put_loop(w);
    for (int split = 0; split < 2; split++)
        for (uint32_t i = 0; i < p->n_directives; i++)
            if ((p->kinds[i] == PPS_DIR_SPLIT) == (split == 1) &&
                (w->series_of[i] == IR_NONE || !w->series[w->series_of[i]].in_loop))
                put_directive(w, i);
    if (p->n_rows)
        section(&w->t);
    for (uint32_t i = 0; i < p->n_rows; i++)
        put_row(w, &p->rows[i]);
}

char *piper_script(piper_file *f, const char *name, const piper_model *model)
{
    writer w = {.f = f, .p = &f->p};
    size_t bytes = (f->p.n_directives + 1) * sizeof(uint32_t);
    w.series_of = arena_new(&f->mem, bytes);
    w.stages = arena_new(&f->mem, bytes);
    if (!w.series_of || !w.stages || !name_streams(&w, model ? model->expression : ""))
        return NULL;
    put_head(&w, name, model);
    put_all(&w);
    return piper_text_done(&w.t);
}
