/* SPDX-License-Identifier: Apache-2.0
 *
 * norms.c: L2 norms of tensors under outside names.
 */
#include "norms.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What llm.c calls the parameters of GPT-2; `*` is any layer. */
static const struct {
    const char *outside, *ours;
} llm_names[] = {
    {"wte", "transformer.wte.weight"},
    {"wpe", "transformer.wpe.weight"},
    {"ln1w", "transformer.h.*.ln_1.weight"},
    {"ln1b", "transformer.h.*.ln_1.bias"},
    {"qkvw", "transformer.h.*.attn.c_attn.weight"},
    {"qkvb", "transformer.h.*.attn.c_attn.bias"},
    {"attprojw", "transformer.h.*.attn.c_proj.weight"},
    {"attprojb", "transformer.h.*.attn.c_proj.bias"},
    {"ln2w", "transformer.h.*.ln_2.weight"},
    {"ln2b", "transformer.h.*.ln_2.bias"},
    {"fcw", "transformer.h.*.mlp.c_fc.weight"},
    {"fcb", "transformer.h.*.mlp.c_fc.bias"},
    {"fcprojw", "transformer.h.*.mlp.c_proj.weight"},
    {"fcprojb", "transformer.h.*.mlp.c_proj.bias"},
    {"lnfw", "transformer.ln_f.weight"},
    {"lnfb", "transformer.ln_f.bias"},
};

static double squares_of(const float *values, uint64_t elems)
{
    double sum = 0;
    for (uint64_t i = 0; i < elems; i++)
        sum += (double)values[i] * (double)values[i];
    return sum;
}

double norm_of(const float *values, uint64_t elems)
{
    return sqrt(squares_of(values, elems));
}

/* `pattern` has at most one `*`, which stands for digits. */
static bool matches(const char *pattern, const char *name)
{
    size_t before = strcspn(pattern, "*");
    if (!pattern[before])
        return strcmp(pattern, name) == 0;
    if (strncmp(pattern, name, before) != 0)
        return false;
    name += before;
    size_t digits = strspn(name, "0123456789");
    return digits > 0 && strcmp(pattern + before + 1, name + digits) == 0;
}

static bool find_pattern(const tensor_file *f, const char *pattern, double *ret)
{
    double sum = 0;
    bool found = false;
    for (uint32_t i = 0; i < f->n; i++) {
        if (!matches(pattern, f->tensors[i].name))
            continue;
        sum += squares_of(f->tensors[i].values, f->tensors[i].elems);
        found = true;
    }
    if (found)
        *ret = sqrt(sum);
    return found;
}

static bool find_expert(const tensor_file *f, const char *name, double *ret)
{
    static const char before[] = ".experts.", after[] = ".weight";
    char stacked[256], *rest;
    const char *at = strstr(name, before);
    size_t n = strlen(name);
    if (!at || n >= sizeof stacked || n < sizeof after ||
        strcmp(name + n - strlen(after), after) != 0)
        return false;
    at += strlen(before);
    uint64_t expert = strtoull(at, &rest, 10);
    if (rest == at || *rest != '.')
        return false;
    snprintf(stacked, sizeof stacked, "%.*s%.*s", (int)(at - name), name,
             (int)(strlen(rest + 1) - strlen(after)), rest + 1);
    const tensor *t = tensors_find(f, stacked);
    if (!t || expert >= t->first_dim)
        return false;
    uint64_t elems = t->elems / t->first_dim;
    *ret = norm_of(t->values + expert * elems, elems);
    return true;
}

bool norm_find(const tensor_file *f, const char *name, double *ret)
{
    const tensor *t = tensors_find(f, name);
    if (t) {
        *ret = norm_of(t->values, t->elems);
        return true;
    }
    for (size_t i = 0; i < sizeof llm_names / sizeof *llm_names; i++) {
        if (strcmp(llm_names[i].outside, name) == 0)
            return find_pattern(f, llm_names[i].ours, ret);
    }
    return find_expert(f, name, ret);
}

static bool near_one(const char *name, double norm, double expected, double tolerance,
                     double *worst, reason *why)
{
    double error = fabs(norm - expected) / (expected > 0 ? expected : 1);
    *worst = fmax(*worst, error);
    if (error <= tolerance)
        return true;
    return fail(why, "the norm of %s is %.9g instead of %.9g", name, norm, expected);
}

bool norms_near(const tensor_file *f, const json_t *expected, double tolerance, double *ret_worst,
                reason *why)
{
    double all = 0, expected_all = 0, worst = 0;
    const char *name;
    json_t *value;
    if (!json_is_object(expected) || json_object_size(expected) == 0)
        return fail(why, "the oracle has no norms");
    json_object_foreach((json_t *)expected, name, value)
    {
        double norm;
        if (!norm_find(f, name, &norm))
            return fail(why, "there is no tensor %s", name);
        if (!near_one(name, norm, json_number_value(value), tolerance, &worst, why))
            return false;
        expected_all += json_number_value(value) * json_number_value(value);
    }
    for (uint32_t i = 0; i < f->n; i++)
        all += squares_of(f->tensors[i].values, f->tensors[i].elems);
    *ret_worst = worst;
    return near_one("all tensors together", sqrt(all), sqrt(expected_all), tolerance, ret_worst,
                    why);
}
