/* SPDX-License-Identifier: Apache-2.0
 *
 * piper.c: from Piper's JSON to a script: the file as records (piper_read.c), the records as a
 * script (piper_script.c). And what both directions share: text that grows, the order in which a
 * filter's terms are shown, and repetitions that Piper would take without a word.
 */
#include "ir/piper_form.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *const piper_pass_names[PPS_PASS_COUNT] = {"F", "B", "BI", "BW"};

/* ---- Text ------------------------------------------------------------------------------------ */

void piper_put_text(piper_text *t, const char *text, size_t n)
{
    if (t->n + n + 1 > t->cap) {
        size_t cap = t->cap ? t->cap : 1024;
        while (cap < t->n + n + 1)
            cap *= 2;
        char *bigger = t->failed ? NULL : realloc(t->bytes, cap);
        if (!bigger) {
            t->failed = true;
            return;
        }
        t->bytes = bigger;
        t->cap = cap;
    }
    memcpy(t->bytes + t->n, text, n);
    for (size_t i = t->n; i < t->n + n; i++)
        if (t->bytes[i] == '\n')
            t->line = i + 1;
    t->n += n;
    t->bytes[t->n] = 0;
}

void piper_put(piper_text *t, const char *format, ...)
{
    char piece[256];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(piece, sizeof piece, format, args);
    va_end(args);
    if (n >= 0 && (size_t)n < sizeof piece) {
        piper_put_text(t, piece, (size_t)n);
        return;
    }
    char *whole = n < 0 ? NULL : malloc((size_t)n + 1);
    if (!whole) {
        t->failed = true;
        return;
    }
    va_start(args, format);
    vsnprintf(whole, (size_t)n + 1, format, args);
    va_end(args);
    piper_put_text(t, whole, (size_t)n);
    free(whole);
}

char *piper_text_done(piper_text *t)
{
    char *bytes = t->bytes;
    if (t->failed) {
        free(bytes);
        bytes = NULL;
    }
    *t = (piper_text){0};
    return bytes;
}

/* Rounding the number of bytes down made it, so a little more is tried too. */
const char *piper_mib(uint64_t bytes, char buffer[40])
{
    const double unit = 1048576.0;
    for (int digits = 1; digits < 18; digits++)
        for (int more = 0; more < 2; more++) {
            snprintf(buffer, 40, "%.*g", digits, ((double)bytes + 0.5 * more) / unit);
            if ((uint64_t)(strtod(buffer, NULL) * unit) == bytes)
                return buffer;
        }
    return buffer;
}

static int term_rank(const ir_term *t)
{
    return strcmp(t->tag, "PP") == 0   ? 0
           : t->kind == PPS_TERM_PASS  ? 3
           : strcmp(t->tag, "MB") == 0 ? 2
                                       : 1;
}

void piper_term_order(const ir_program *p, const ir_filter *f, uint32_t order[PPS_MAX_TERMS])
{
    const ir_term *terms = p->terms + f->begin;
    for (uint32_t i = 0; i < f->n; i++) {
        uint32_t at = i;
        for (; at > 0; at--) {
            const ir_term *a = &terms[order[at - 1]], *b = &terms[i];
            int by_rank = term_rank(a) - term_rank(b);
            if (by_rank < 0 || (by_rank == 0 && strcmp(a->tag, b->tag) <= 0))
                break;
            order[at] = order[at - 1];
        }
        order[at] = i;
    }
}

/* ---- Repetitions ----------------------------------------------------------------------------- */

/* Are all indices of `b` among those of `a`? Both are ascending. */
static bool holds(const ir_program *p, const ir_term *a, const ir_term *b)
{
    const uint32_t *x = p->ints + a->begin, *y = p->ints + b->begin;
    uint32_t i = 0, k = 0;
    while (i < a->n && k < b->n) {
        k += x[i] == y[k];
        i++;
    }
    return k == b->n;
}

/* Does `a` match all that `b` does? Every term of `a` is one of `b`, or wider. */
static bool covers(const ir_program *p, const ir_filter *a, const ir_filter *b)
{
    for (uint32_t i = 0; i < a->n; i++) {
        const ir_term *x = &p->terms[a->begin + i], *y = NULL;
        for (uint32_t k = 0; k < b->n && !y; k++)
            if (p->terms[b->begin + k].tag == x->tag)
                y = &p->terms[b->begin + k];
        if (!y)
            return false;
        if (x->kind == PPS_TERM_ANY && y->kind != PPS_TERM_PASS)
            continue;
        if (x->kind != y->kind || x->pass != y->pass ||
            (x->kind == PPS_TERM_SET && !holds(p, x, y)))
            return false;
    }
    return true;
}

static pps_status check_pair(const ir_program *p, uint32_t first, uint32_t later)
{
    static const char *const silent[PPS_DIR_COUNT] = {
        [PPS_DIR_PLACE] = "the later `place` would silently win",
        [PPS_DIR_REPLICATE] = "every gradient of the region would silently be reduced twice",
        [PPS_DIR_SHARD] = "the exchanges around the region would be inserted twice",
        [PPS_DIR_SPLIT] = "Piper refuses it too"};
    const ir_directive *a = &p->directives[first], *b = &p->directives[later];
    pps_directive_kind kind = (pps_directive_kind)p->kinds[first];
    bool repeats = kind == PPS_DIR_SPLIT
                       ? a->tag == b->tag
                       : covers(p, &a->filter, &b->filter) || covers(p, &b->filter, &a->filter);
    if (!repeats)
        return PPS_OK;
    pps_diag *d =
        pps_diag_start(p->st, PPS_SEV_ERROR, 475, b->filter.span,
                       "an earlier `%s` is about the same regions", pps_directive_word(kind));
    pps_diag_label(d, "matched again");
    pps_diag_also(d, a->filter.span, "matched here first");
    pps_diag_note(d, "in Piper %s", silent[kind]);
    return pps_diag_done(d);
}

pps_status piper_check_repeats(const ir_program *p)
{
    pps_status status = PPS_OK;
    if (p->n_directives > PIPER_MAX_DIRECTIVES) /* a script's: the compiler finds them */
        return PPS_OK;
    for (uint32_t i = 0; i < p->n_directives && status == PPS_OK; i++)
        for (uint32_t k = 0; k < i && status == PPS_OK; k++)
            if (p->kinds[k] == p->kinds[i])
                status = check_pair(p, k, i);
    return status;
}

pps_status piper_import(pps_state *st, const char *name, const char *json, size_t bytes,
                        const piper_model *model, char **ret_script)
{
    piper_file f;
    pps_status status = piper_read(st, name, json, bytes, &f);
    if (status == PPS_OK) {
        char *script = piper_script(&f, name, model);
        status = script ? PPS_OK : PPS_ERR_NOMEM;
        *ret_script = script ? script : *ret_script;
    }
    arena_done(&f.mem);
    return status;
}
