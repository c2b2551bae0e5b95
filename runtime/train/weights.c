/* SPDX-License-Identifier: Apache-2.0
 *
 * weights.c: initial parameters from a file: opening it, comparing its tensors with the model's
 * parameters, reading slices. The formats are in safetensors.c and checkpoint.c.
 *
 * A parameter of stacked experts [E, out, in] is one tensor in files that we wrote, and E tensors
 * in Hugging Face's:  a.experts.up_proj  <-  a.experts.0.up_proj.weight,
 * a.experts.1.up_proj.weight, ...
 */
#include "runtime/train/weights.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "weights files are little-endian and are copied as they are"
#endif

enum { NAME_BYTES = 512, SHAPE_BYTES = 64, LISTED_AT_MOST = 5 };

/* ---- opening -------------------------------------------------------------------------------- */

static int compare_names(const void *a, const void *b)
{
    return strcmp(((const weights_tensor *)a)->name, ((const weights_tensor *)b)->name);
}

static pps_status read_file(pps_state *st, train_weights *w, pps_span span)
{
    char reason[128];
    if (file_map_open(w->path, &w->map, reason) != PPS_OK)
        return pps_error(st, span, 911, "cannot read the weights file '%s': %s", w->path, reason);
    if (checkpoint_is(&w->map))
        PPS_TRY(checkpoint_read(st, w, span));
    else
        PPS_TRY(safetensors_read(st, w, span));
    if (w->n_tensors > 0)
        qsort(w->tensors, w->n_tensors, sizeof *w->tensors, compare_names);
    return PPS_OK;
}

pps_status train_weights_open(pps_state *st, const char *path, pps_span span, train_weights **ret)
{
    train_weights *w = calloc(1, sizeof *w);
    if (w == NULL)
        return PPS_ERR_NOMEM;
    arena_init(&w->mem, NULL, NULL);
    w->path = arena_copy(&w->mem, path, strlen(path));
    pps_status status = w->path == NULL ? PPS_ERR_NOMEM : read_file(st, w, span);
    if (status == PPS_OK)
        *ret = w;
    else
        train_weights_close(w);
    return status;
}

void train_weights_close(train_weights *w)
{
    if (w == NULL)
        return;
    file_map_close(&w->map);
    arena_done(&w->mem);
    free(w);
}

/* ---- finding -------------------------------------------------------------------------------- */

static const weights_tensor *find(const train_weights *w, const char *name)
{
    weights_tensor key = {.name = name};
    if (w->n_tensors == 0)
        return NULL;
    return bsearch(&key, w->tensors, w->n_tensors, sizeof key, compare_names);
}

/* The name of expert e's tensor under Hugging Face's scheme; false when `p` is no parameter of
 * experts. */
static bool expert_name(const ir_param *p, uint32_t e, char name[NAME_BYTES])
{
    const char *dot = strrchr(p->name, '.');
    if (!(p->flags & IR_PARAM_EXPERT) || p->n_dims < 2 || dot == NULL)
        return false;
    int n =
        snprintf(name, NAME_BYTES, "%.*s.%u.%s.weight", (int)(dot - p->name), p->name, e, dot + 1);
    return n > 0 && n < NAME_BYTES;
}

/* Does `t` have the shape of `p` from dimension `from` on? */
static bool same_shape(const weights_tensor *t, const ir_param *p, uint32_t from)
{
    return t->n_dims + from == p->n_dims &&
           (t->n_dims == 0 || memcmp(t->dims, p->dims + from, t->n_dims * sizeof *t->dims) == 0);
}

/* ---- checking ------------------------------------------------------------------------------- */

static const char *shape_text(const uint32_t *dims, uint32_t n_dims, char buffer[SHAPE_BYTES])
{
    int n = snprintf(buffer, SHAPE_BYTES, "[");
    for (uint32_t i = 0; i < n_dims; i++)
        n += snprintf(buffer + n, SHAPE_BYTES - (size_t)n, i > 0 ? ", %u" : "%u", dims[i]);
    snprintf(buffer + n, SHAPE_BYTES - (size_t)n, "]");
    return buffer;
}

static pps_status report_shape(pps_state *st, const train_weights *w, const weights_tensor *t,
                               const ir_param *p, uint32_t from, pps_span span)
{
    char file_shape[SHAPE_BYTES], model_shape[SHAPE_BYTES];
    pps_diag *d =
        pps_diag_start(st, PPS_SEV_ERROR, 914, span, "'%s' has '%.200s' as %s, the model needs %s",
                       w->path, t->name, shape_text(t->dims, t->n_dims, file_shape),
                       shape_text(p->dims + from, p->n_dims - from, model_shape));
    if (p->span.file != 0)
        pps_diag_also(d, p->span, "the model's parameter");
    return pps_diag_done(d);
}

static pps_status report_missing(pps_state *st, const train_weights *w, const ir_param *p,
                                 uint32_t n_missing, pps_span span)
{
    pps_diag *d = pps_diag_start(st, PPS_SEV_ERROR, 913, span, "'%s' has no tensor '%.200s'",
                                 w->path, p->name);
    if (n_missing > 1)
        pps_diag_note(d, "nor %u more of the model's parameters", n_missing - 1);
    if (p->span.file != 0)
        pps_diag_also(d, p->span, "the model's parameter");
    return pps_diag_done(d);
}

static pps_status report_unused(pps_state *st, const train_weights *w, const bool *used,
                                uint32_t n_unused, pps_span span)
{
    uint32_t listed = 0;
    pps_diag *d = NULL;
    for (uint32_t i = 0; i < w->n_tensors && listed < LISTED_AT_MOST; i++) {
        if (used[i])
            continue;
        if (listed++ == 0)
            d = pps_diag_start(st, PPS_SEV_ERROR, 915, span,
                               "'%s' has tensor '%.200s', which the model does not", w->path,
                               w->tensors[i].name);
        else
            pps_diag_note(d, "and '%.200s'", w->tensors[i].name);
    }
    if (n_unused > listed)
        pps_diag_note(d, "and %u more", n_unused - listed);
    return d != NULL ? pps_diag_done(d) : PPS_OK;
}

/* Mark the tensors that make up `p`. *ret_found is false when one is not there. */
static pps_status check_param(pps_state *st, const train_weights *w, const ir_param *p,
                              pps_span span, bool *used, bool *ret_found)
{
    const weights_tensor *t = find(w, p->name);
    char name[NAME_BYTES];
    *ret_found = true;
    if (t != NULL) {
        used[t - w->tensors] = true;
        return same_shape(t, p, 0) ? PPS_OK : report_shape(st, w, t, p, 0, span);
    }
    for (uint32_t e = 0; e < p->dims[0]; e++) {
        t = expert_name(p, e, name) ? find(w, name) : NULL;
        if (t == NULL)
            break;
        used[t - w->tensors] = true;
        if (!same_shape(t, p, 1))
            return report_shape(st, w, t, p, 1, span);
    }
    *ret_found = t != NULL;
    return PPS_OK;
}

pps_status train_weights_check(pps_state *st, const train_weights *w, const plan_set *set,
                               pps_span span)
{
    bool *used = calloc((size_t)w->n_tensors + 1, sizeof *used);
    if (used == NULL)
        return PPS_ERR_NOMEM;
    pps_status status = PPS_OK;
    const ir_param *missing = NULL;
    uint32_t n_missing = 0, n_unused = 0;
    for (uint32_t i = 0; i < set->n_params && status == PPS_OK; i++) {
        bool found;
        status = check_param(st, w, &set->params[i], span, used, &found);
        if (!found && n_missing++ == 0)
            missing = &set->params[i];
    }
    for (uint32_t i = 0; i < w->n_tensors; i++)
        n_unused += !used[i];
    if (status == PPS_OK && n_missing > 0)
        status = report_missing(st, w, missing, n_missing, span);
    if (status == PPS_OK && n_unused > 0)
        status = report_unused(st, w, used, n_unused, span);
    free(used);
    return status;
}

/* ---- reading -------------------------------------------------------------------------------- */

void train_weights_read(const train_weights *w, const ir_param *p, uint64_t first, uint64_t elems,
                        float *dest)
{
    const weights_tensor *t = find(w, p->name);
    if (t != NULL) {
        memcpy(dest, t->data + 4 * first, 4 * elems);
        return;
    }
    uint64_t per_expert = ir_param_elems(p) / p->dims[0];
    while (elems > 0) {
        char name[NAME_BYTES];
        uint64_t begin = first % per_expert, n = per_expert - begin;
        if (n > elems)
            n = elems;
        expert_name(p, (uint32_t)(first / per_expert), name);
        memcpy(dest, find(w, name)->data + 4 * begin, 4 * n);
        dest += n;
        first += n;
        elems -= n;
    }
}
