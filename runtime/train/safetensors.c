/* SPDX-License-Identifier: Apache-2.0
 *
 * safetensors.c: reading the safetensors format.
 *
 *   u64 header length | header, JSON {name: {dtype, shape, data_offsets: [begin, end]}, ...} | data
 *
 * Offsets count from the data's begin. Accepted are float32 tensors that together cover the data
 * exactly, without overlap or gap: what the format demands, and what keeps a hostile header from
 * pointing anywhere.
 */
#include "runtime/train/weights.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const uint64_t max_header_bytes = 100u << 20;

static int compare_data(const void *a, const void *b)
{
    const weights_tensor *x = a, *y = b;
    if (x->data != y->data)
        return x->data < y->data ? -1 : 1;
    return x->bytes < y->bytes ? -1 : x->bytes > y->bytes; /* empty ones first */
}

/* A number from 0 to `most`, or false. */
static bool read_count(const json_t *value, uint64_t most, uint64_t *ret)
{
    if (!json_is_integer(value) || json_integer_value(value) < 0 ||
        (uint64_t)json_integer_value(value) > most)
        return false;
    *ret = (uint64_t)json_integer_value(value);
    return true;
}

/* Shape and product; what is wrong, or NULL. */
static const char *read_shape(const json_t *shape, uint64_t most_elems, weights_tensor *t)
{
    if (!json_is_array(shape))
        return "has no shape";
    if (json_array_size(shape) > IR_MAX_DIMS)
        return "has too many dimensions";
    uint64_t elems = 1;
    for (size_t i = 0; i < json_array_size(shape); i++) {
        uint64_t dim;
        if (!read_count(json_array_get(shape, i), UINT32_MAX, &dim))
            return "has a bad shape";
        if (dim != 0 && elems > most_elems / dim)
            return "has a shape larger than the file";
        t->dims[t->n_dims++] = (uint32_t)dim;
        elems *= dim;
    }
    t->bytes = 4 * elems;
    return NULL;
}

static const char *read_tensor(const json_t *entry, const unsigned char *data, uint64_t data_bytes,
                               weights_tensor *t)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *offsets = json_object_get(entry, "data_offsets");
    uint64_t begin, end;
    if (dtype == NULL)
        return "has no dtype";
    if (strcmp(dtype, "F32") != 0)
        return "is not of type F32";
    const char *wrong = read_shape(json_object_get(entry, "shape"), data_bytes / 4, t);
    if (wrong != NULL)
        return wrong;
    if (json_array_size(offsets) != 2 ||
        !read_count(json_array_get(offsets, 0), data_bytes, &begin) ||
        !read_count(json_array_get(offsets, 1), data_bytes, &end) || begin > end)
        return "has data offsets outside the file";
    if (end - begin != t->bytes)
        return "has data offsets that do not fit its shape";
    t->data = data + begin;
    return NULL;
}

/* The header's entries into w->tensors, then their order in the data checked. */
static pps_status read_entries(pps_state *st, train_weights *w, pps_span span, json_t *root,
                               const unsigned char *data, uint64_t data_bytes)
{
    w->tensors = arena_zero(&w->mem, (json_object_size(root) + 1) * sizeof *w->tensors);
    if (w->tensors == NULL)
        return PPS_ERR_NOMEM;
    const char *name;
    json_t *entry;
    json_object_foreach(root, name, entry)
    {
        if (strcmp(name, "__metadata__") == 0)
            continue;
        weights_tensor *t = &w->tensors[w->n_tensors++];
        const char *wrong = read_tensor(entry, data, data_bytes, t);
        if (wrong != NULL)
            return pps_error(st, span, 912, "in '%s', tensor '%.200s' %s", w->path, name, wrong);
        t->name = arena_copy(&w->mem, name, strlen(name));
        if (t->name == NULL)
            return PPS_ERR_NOMEM;
    }
    if (w->n_tensors > 0)
        qsort(w->tensors, w->n_tensors, sizeof *w->tensors, compare_data);
    const unsigned char *at = data;
    for (uint32_t i = 0; i < w->n_tensors; at += w->tensors[i++].bytes)
        if (w->tensors[i].data != at)
            return pps_error(st, span, 912, "in '%s', tensor '%.200s' %s", w->path,
                             w->tensors[i].name,
                             w->tensors[i].data < at ? "overlaps another" : "comes after a gap");
    if (at != data + data_bytes)
        return pps_error(st, span, 912, "'%s' has %llu bytes after its last tensor", w->path,
                         (unsigned long long)(data + data_bytes - at));
    return PPS_OK;
}

pps_status safetensors_read(pps_state *st, train_weights *w, pps_span span)
{
    if (w->map.n < 8)
        return pps_error(st, span, 912,
                         "'%s' is neither a safetensors file nor an llm.c checkpoint", w->path);
    uint64_t header_bytes = file_u64(w->map.bytes);
    if (header_bytes > w->map.n - 8 || header_bytes > max_header_bytes)
        return pps_error(st, span, 912,
                         "'%s' is neither a safetensors file nor an llm.c checkpoint", w->path);
    json_error_t error;
    json_t *root = json_loadb((const char *)w->map.bytes + 8, (size_t)header_bytes,
                              JSON_REJECT_DUPLICATES, &error);
    if (!json_is_object(root)) {
        json_decref(root);
        return pps_error(st, span, 912, "'%s' has a bad safetensors header: %s", w->path,
                         root == NULL ? error.text : "it is not an object");
    }
    pps_status status = read_entries(st, w, span, root, w->map.bytes + 8 + header_bytes,
                                     w->map.n - 8 - header_bytes);
    json_decref(root);
    return status;
}
