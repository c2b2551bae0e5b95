/* SPDX-License-Identifier: Apache-2.0
 *
 * diag.c: the diagnostics of a state, from their start to the hook.
 *
 *   started --done--> held (attempt)  --release--> dropped, or --release_reported--> as if done now
 *                     batch (sorted)  --flush----> hook
 *                     else            -----------> hook
 *
 * Everything a diagnostic holds lives in one arena, reset whenever none is open or stored. Short of
 * memory a spare one in the store is used, which has a title and nothing else.
 */
#include "lang/diag.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include "lang/state.h"

enum {
    DEFAULT_MAX_ERRORS = 20,
    MAX_TITLE = 4000,
    STORED_PER_SHOWN = 8, /* a batch keeps this many times max_errors, then only counts */
    FRAMES_FIRST = 3,
    FRAMES_LAST = 2,
};

struct diag_cx {
    arena store;
    pps_diag *batch;            /* sorted */
    pps_diag *held, **held_end; /* in order of arrival */
    diag_text held_title;       /* what diag_release returned */
    uint32_t n_open, batch_depth, hold_depth, n_stored;
    size_t n_errors, n_shown, n_hidden;
    void (*attach)(pps_state *st, pps_diag *d); /* diag_on_error */
    pps_diag spare;
    char spare_title[256];
};

/* A held diagnostic's level, beside the part that others see. */
typedef struct leveled_diag {
    pps_diag d;
    uint32_t level;
} leveled_diag;

static struct diag_cx *store_of(const pps_diag *d)
{
    return d->st->diag;
}

static void reset_when_idle(struct diag_cx *cx)
{
    if (cx->n_open == 0 && cx->batch == NULL && cx->held == NULL) {
        arena_reset(&cx->store);
        cx->n_stored = 0;
    }
}

/* ---- Building -------------------------------------------------------------------------------- */

static const char *format(struct diag_cx *cx, const char *words, va_list args)
{
    va_list again;
    va_copy(again, args);
    int n = vsnprintf(NULL, 0, words, again);
    va_end(again);
    if (n < 0)
        return NULL;
    char *out = arena_new(&cx->store, (size_t)n + 4);
    if (out == NULL)
        return NULL;
    vsnprintf(out, (size_t)n + 1, words, args);
    if (n > MAX_TITLE) {
        n = MAX_TITLE;
        while (n > 0 && (out[n] & 0xc0) == 0x80)
            n--;
        memcpy(out + n, "...", 4);
    }
    return out;
}

static pps_diag *use_spare(pps_state *st, const char *title, va_list args)
{
    struct diag_cx *cx = st->diag;
    vsnprintf(cx->spare_title, sizeof cx->spare_title, title, args);
    cx->spare = (pps_diag){.title = cx->spare_title};
    return &cx->spare;
}

static pps_diag *start(pps_state *st, pps_severity severity, int code, pps_span span,
                       const char *title, va_list args)
{
    struct diag_cx *cx = st->diag;
    va_list again;
    va_copy(again, args);
    leveled_diag *leveled = arena_zero(&cx->store, sizeof *leveled);
    pps_diag *d = leveled != NULL ? &leveled->d : NULL;
    if (d != NULL)
        d->title = format(cx, title, args);
    if (d == NULL || d->title == NULL)
        d = use_spare(st, title, again);
    va_end(again);
    d->st = st;
    d->severity = severity;
    d->code = code;
    d->span = span;
    d->also_end = &d->also;
    d->notes_end = &d->notes;
    d->frames_end = &d->frames;
    cx->n_open++;
    return d;
}

pps_diag *pps_diag_start(pps_state *st, pps_severity severity, int code, pps_span span,
                         const char *title, ...)
{
    va_list args;
    va_start(args, title);
    pps_diag *d = start(st, severity, code, span, title, args);
    va_end(args);
    return d;
}

void pps_diag_label(pps_diag *d, const char *words, ...)
{
    va_list args;
    va_start(args, words);
    d->label = format(store_of(d), words, args);
    va_end(args);
}

static void add_line(pps_diag *d, diag_line ***end, const char *words)
{
    diag_line *line = words != NULL ? arena_zero(&store_of(d)->store, sizeof *line) : NULL;
    if (line == NULL)
        return;
    line->words = words;
    **end = line;
    *end = &line->next;
}

void pps_diag_also(pps_diag *d, pps_span span, const char *words, ...)
{
    va_list args;
    va_start(args, words);
    const char *label = format(store_of(d), words, args);
    va_end(args);
    if (source_get(d->st, span.file) == NULL) { /* no place: what it says is still worth saying */
        add_line(d, &d->notes_end, label);
        return;
    }
    diag_span *also = arena_zero(&store_of(d)->store, sizeof *also);
    if (also == NULL)
        return;
    also->span = span;
    also->label = label;
    *d->also_end = also;
    d->also_end = &also->next;
}

void pps_diag_note(pps_diag *d, const char *words, ...)
{
    va_list args;
    va_start(args, words);
    add_line(d, &d->notes_end, format(store_of(d), words, args));
    va_end(args);
}

void pps_diag_help(pps_diag *d, const char *words, ...)
{
    va_list args;
    if (d->help != NULL)
        return;
    va_start(args, words);
    d->help = format(store_of(d), words, args);
    va_end(args);
}

static void frame_line(pps_diag *d, const char *words, ...) PPS_PRINTF(2, 3);
static void frame_line(pps_diag *d, const char *words, ...)
{
    va_list args;
    va_start(args, words);
    add_line(d, &d->frames_end, format(store_of(d), words, args));
    va_end(args);
}

/* "of f" when all calls left out are of one function. */
static void skipped_frames(pps_diag *d, const pps_frame *frames, uint32_t n)
{
    for (uint32_t i = 1; i < n; i++)
        if (frames[i].function == NULL || frames[0].function == NULL ||
            strcmp(frames[i].function, frames[0].function) != 0) {
            frame_line(d, "... %u more calls", n);
            return;
        }
    frame_line(d, "... %u more calls of %s", n,
               frames[0].function != NULL ? frames[0].function : "fn");
}

void pps_diag_frames(pps_diag *d, const pps_frame *frames, uint32_t n, const char *context)
{
    bool has_context = context != NULL && context[0] != '\0';
    if (has_context && (n == 0 || frames[0].function != NULL))
        frame_line(d, "with %s", context);
    for (uint32_t i = 0; i < n; i++) {
        if (i == FRAMES_FIRST && n > FRAMES_FIRST + FRAMES_LAST + 1) {
            skipped_frames(d, frames + i, n - FRAMES_FIRST - FRAMES_LAST);
            i = n - FRAMES_LAST;
        }
        const char *file;
        uint32_t line, column;
        pps_span_place(d->st, frames[i].call, &file, &line, &column);
        if (frames[i].function == NULL)
            frame_line(d, "in loop at %s:%u%s%s", file, line, has_context && i == 0 ? ", " : "",
                       has_context && i == 0 ? context : "");
        else if (source_get(d->st, frames[i].call.file) == NULL)
            frame_line(d, "in %s, called by the host", frames[i].function);
        else
            frame_line(d, "in %s, called at %s:%u", frames[i].function, file, line);
    }
}

/* ---- Showing --------------------------------------------------------------------------------- */

static size_t max_errors(const pps_state *st)
{
    return st->config.max_errors != 0 ? st->config.max_errors : DEFAULT_MAX_ERRORS;
}

static void call_hook(pps_state *st, pps_severity severity, int code, pps_span span,
                      const char *words)
{
    if (st->config.diag != NULL)
        st->config.diag(st->config.diag_ud, severity, code, span, words);
}

static void show(pps_state *st, const pps_diag *d)
{
    struct diag_cx *cx = st->diag;
    if (d->severity == PPS_SEV_ERROR && cx->n_shown == max_errors(st)) {
        if (cx->n_hidden++ == 0 && cx->batch_depth == 0)
            call_hook(st, PPS_SEV_NOTE, 0, d->span, "further errors are not shown\n");
        return;
    }
    cx->n_shown += d->severity == PPS_SEV_ERROR;
    if (st->config.diag == NULL)
        return;
    diag_text rendered = {.memory = &cx->store};
    diag_render(d, st->config.color, &rendered);
    call_hook(st, d->severity, d->code, d->span,
              rendered.bytes != NULL ? rendered.bytes : d->title);
    arena_realloc(&cx->store, rendered.bytes, rendered.cap, 0);
}

static bool comes_before(const pps_diag *a, const pps_diag *b)
{
    if (a->span.file != b->span.file) /* those without a place come last */
        return a->span.file != 0 && (b->span.file == 0 || a->span.file < b->span.file);
    return a->span.begin < b->span.begin;
}

static bool same(const pps_diag *a, const pps_diag *b)
{
    return a->code == b->code && a->span.file == b->span.file && a->span.begin == b->span.begin &&
           a->span.end == b->span.end && strcmp(a->title, b->title) == 0;
}

static void store_in_batch(pps_state *st, pps_diag *d)
{
    struct diag_cx *cx = st->diag;
    pps_diag **at = &cx->batch;
    for (; *at != NULL && !comes_before(d, *at); at = &(*at)->next)
        if (same(d, *at))
            return;
    cx->n_errors += d->severity == PPS_SEV_ERROR;
    if (cx->n_stored >= max_errors(st) * STORED_PER_SHOWN) {
        cx->n_hidden += d->severity == PPS_SEV_ERROR;
        return;
    }
    cx->n_stored++;
    d->next = *at;
    *at = d;
}

static void report(pps_state *st, pps_diag *d)
{
    struct diag_cx *cx = st->diag;
    if (cx->batch_depth != 0 && d != &cx->spare) {
        store_in_batch(st, d);
        return;
    }
    cx->n_errors += d->severity == PPS_SEV_ERROR;
    show(st, d);
}

pps_status pps_diag_done(pps_diag *d)
{
    pps_state *st = d->st;
    struct diag_cx *cx = st->diag;
    pps_severity severity = d->severity;
    if (severity == PPS_SEV_ERROR && d->frames == NULL && d != &cx->spare && cx->attach != NULL)
        cx->attach(st, d);
    cx->n_open--;
    if (cx->hold_depth != 0 && d != &cx->spare) {
        ((leveled_diag *)d)->level = cx->hold_depth;
        *cx->held_end = d;
        cx->held_end = &d->next;
    } else if (cx->hold_depth == 0) {
        report(st, d);
    }
    reset_when_idle(cx);
    return severity == PPS_SEV_ERROR ? PPS_ERR_SCRIPT : PPS_OK;
}

pps_status pps_error(pps_state *st, pps_span span, int code, const char *title, ...)
{
    va_list args;
    va_start(args, title);
    pps_diag *d = start(st, PPS_SEV_ERROR, code, span, title, args);
    va_end(args);
    return pps_diag_done(d);
}

void diag_batch(pps_state *st)
{
    st->diag->batch_depth++;
}

void diag_flush(pps_state *st)
{
    struct diag_cx *cx = st->diag;
    if (cx->batch_depth == 0 || --cx->batch_depth != 0)
        return;
    size_t hidden_before = cx->n_hidden;
    cx->batch_depth = 1; /* so that show leaves the closing line to us */
    pps_span last = {0, 0, 0};
    for (const pps_diag *d = cx->batch; d != NULL; d = d->next) {
        show(st, d);
        last = d->span;
    }
    cx->batch_depth = 0;
    cx->batch = NULL;
    if (cx->n_hidden != 0 && (cx->n_hidden != hidden_before || cx->n_stored != 0)) {
        char words[80];
        snprintf(words, sizeof words, "... and %zu more error%s\n", cx->n_hidden,
                 cx->n_hidden == 1 ? "" : "s");
        call_hook(st, PPS_SEV_NOTE, 0, last, words);
    }
    reset_when_idle(cx);
}

/* ---- Holding --------------------------------------------------------------------------------- */

pps_status diag_hold(pps_state *st)
{
    st->diag->hold_depth++;
    return PPS_OK;
}

/* Take the diagnostics of the innermost hold off the list: they are its tail. */
static pps_diag *take_held(struct diag_cx *cx)
{
    pps_diag **at = &cx->held;
    while (*at != NULL && ((leveled_diag *)*at)->level < cx->hold_depth)
        at = &(*at)->next;
    pps_diag *taken = *at;
    *at = NULL;
    cx->held_end = at;
    return taken;
}

const char *diag_release(pps_state *st)
{
    struct diag_cx *cx = st->diag;
    const pps_diag *d = take_held(cx);
    while (d != NULL && d->severity != PPS_SEV_ERROR)
        d = d->next;
    const char *title = "";
    if (d != NULL) {
        size_t bytes = strlen(d->title) + 1;
        if (bytes > cx->held_title.cap) {
            char *grown =
                arena_realloc(&cx->store, cx->held_title.bytes, cx->held_title.cap, bytes);
            if (grown != NULL) {
                cx->held_title.bytes = grown;
                cx->held_title.cap = bytes;
            }
        }
        if (bytes <= cx->held_title.cap) {
            memcpy(cx->held_title.bytes, d->title, bytes);
            title = cx->held_title.bytes;
        }
    }
    cx->hold_depth--;
    reset_when_idle(cx);
    return title;
}

void diag_release_reported(pps_state *st)
{
    struct diag_cx *cx = st->diag;
    pps_diag *d = take_held(cx);
    cx->hold_depth--;
    while (d != NULL) {
        pps_diag *next = d->next;
        d->next = NULL;
        if (cx->hold_depth != 0) {
            ((leveled_diag *)d)->level = cx->hold_depth;
            *cx->held_end = d;
            cx->held_end = &d->next;
        } else {
            report(st, d);
        }
        d = next;
    }
    reset_when_idle(cx);
}

/* ---- The store ------------------------------------------------------------------------------- */

pps_status diag_open(pps_state *st)
{
    struct diag_cx *cx = arena_zero(&st->names, sizeof *cx);
    if (cx == NULL)
        return PPS_ERR_NOMEM;
    arena_init(&cx->store, st->config.alloc, st->config.alloc_ud);
    cx->held_end = &cx->held;
    st->diag = cx;
    return PPS_OK;
}

void diag_close(pps_state *st)
{
    struct diag_cx *cx = st->diag;
    if (cx == NULL)
        return;
    if (cx->held_title.bytes != NULL)
        arena_realloc(&cx->store, cx->held_title.bytes, cx->held_title.cap, 0);
    arena_done(&cx->store);
    st->diag = NULL;
}

void diag_on_error(pps_state *st, void (*attach)(pps_state *st, pps_diag *d))
{
    st->diag->attach = attach;
}

size_t pps_error_count(pps_state *st)
{
    return st->diag->n_errors;
}

void pps_clear_errors(pps_state *st)
{
    struct diag_cx *cx = st->diag;
    cx->n_errors = cx->n_shown = cx->n_hidden = 0;
}
