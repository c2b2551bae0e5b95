/* SPDX-License-Identifier: Apache-2.0
 *
 * tensors.c: reading safetensors without the program's own reader, so that a mistake there cannot
 * hide itself, and comparing two files tensor by tensor.
 *
 *   u64 header length | JSON {name: {dtype, shape, data_offsets: [begin, end]}, ...} | data
 */
#include "tensors.h"

#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Owned by the caller; the data after the header is aligned for floats as the writer aligned it. */
static char *read_file(const char *path, size_t *ret_bytes)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return NULL;
    char *bytes = NULL;
    long n = fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    if (n > 0 && fseek(file, 0, SEEK_SET) == 0 && (bytes = malloc((size_t)n)) != NULL) {
        *ret_bytes = fread(bytes, 1, (size_t)n, file);
        if (*ret_bytes != (size_t)n) {
            free(bytes);
            bytes = NULL;
        }
    }
    fclose(file);
    return bytes;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const tensor *)a)->name, ((const tensor *)b)->name);
}

static bool read_entry(const char *name, const json_t *entry, const char *data, uint64_t data_bytes,
                       tensor *ret)
{
    const char *dtype = json_string_value(json_object_get(entry, "dtype"));
    const json_t *shape = json_object_get(entry, "shape");
    const json_t *offsets = json_object_get(entry, "data_offsets");
    if (!dtype || strcmp(dtype, "F32") != 0 || json_array_size(offsets) != 2)
        return false;
    uint64_t begin = (uint64_t)json_integer_value(json_array_get(offsets, 0));
    uint64_t end = (uint64_t)json_integer_value(json_array_get(offsets, 1));
    *ret = (tensor){.name = name,
                    .first_dim = 1,
                    .elems = 1,
                    .values = (const float *)(const void *)(data + begin)};
    for (size_t i = 0; i < json_array_size(shape); i++) {
        uint64_t dim = (uint64_t)json_integer_value(json_array_get(shape, i));
        ret->elems *= dim;
        if (i == 0)
            ret->first_dim = dim;
    }
    return begin <= end && end <= data_bytes && end - begin == 4 * ret->elems;
}

bool tensors_read(const char *path, tensor_file *ret, reason *why)
{
    tensor_file f = {0};
    size_t bytes = 0;
    uint64_t header_bytes = 0;
    f.bytes = read_file(path, &bytes);
    if (f.bytes && bytes >= 8)
        memcpy(&header_bytes, f.bytes, 8);
    if (!f.bytes || bytes < 8 || header_bytes > bytes - 8) {
        free(f.bytes);
        return fail(why, "'%s' cannot be read as safetensors", path);
    }
    f.header = json_loadb(f.bytes + 8, header_bytes, 0, NULL);
    const char *data = f.bytes + 8 + header_bytes, *name;
    bool ok = json_is_object((json_t *)f.header);
    if (ok)
        f.tensors = calloc(json_object_size(f.header) + 1, sizeof *f.tensors);
    ok = ok && f.tensors;
    json_t *entry;
    if (ok) {
        json_object_foreach((json_t *)f.header, name, entry)
        {
            if (strcmp(name, "__metadata__") != 0)
                ok &= read_entry(name, entry, data, bytes - 8 - header_bytes, &f.tensors[f.n++]);
        }
    }
    if (!ok) {
        tensors_done(&f);
        return fail(why, "'%s' is not a safetensors file of float32", path);
    }
    qsort(f.tensors, f.n, sizeof *f.tensors, by_name);
    *ret = f;
    return true;
}

void tensors_done(tensor_file *f)
{
    free(f->tensors);
    free(f->bytes);
    json_decref(f->header);
    *f = (tensor_file){0};
}

const tensor *tensors_find(const tensor_file *f, const char *name)
{
    tensor key = {.name = name};
    return f->n ? bsearch(&key, f->tensors, f->n, sizeof key, by_name) : NULL;
}

bool tensors_compare(const tensor_file *f, const tensor_file *reference, tensor_worst *ret,
                     reason *why)
{
    tensor_worst worst = {.error = -1};
    if (reference->n == 0 || f->n != reference->n)
        return fail(why, "%u tensors instead of %u", f->n, reference->n);
    for (uint32_t i = 0; i < reference->n; i++) {
        const tensor *b = &reference->tensors[i], *a = tensors_find(f, b->name);
        if (!a || a->elems != b->elems)
            return fail(why, "tensor %s is %s", b->name, a ? "of another size" : "missing");
        double most = 0, difference = 0;
        for (uint64_t k = 0; k < b->elems; k++) {
            if (!isfinite(a->values[k]))
                return fail(why, "%s[%llu] is not finite", b->name, (unsigned long long)k);
            difference = fmax(difference, fabs((double)a->values[k] - (double)b->values[k]));
            most = fmax(most, fabs((double)b->values[k]));
        }
        double error = difference / (most > 0 ? most : 1);
        if (error > worst.error)
            worst = (tensor_worst){error, difference, b->name};
    }
    *ret = worst;
    return true;
}

bool tensors_near(const tensor_file *f, const tensor_file *reference, double tolerance, reason *why)
{
    tensor_worst worst;
    if (!tensors_compare(f, reference, &worst, why))
        return false;
    if (worst.error > tolerance)
        return fail(why, "%s differs by %.3g, %.3g of its largest element, more than %g",
                    worst.name, worst.difference, worst.error, tolerance);
    return true;
}
