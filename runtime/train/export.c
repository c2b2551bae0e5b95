/* SPDX-License-Identifier: Apache-2.0
 *
 * export.c: logical parameters gathered, hashed, saved.
 *
 * Gathered, a parameter stands whole at its offset, parameters after each other in name order. A
 * parameter of which ranks hold copies comes from the first of them, one that is cut or in a bucket
 * of slices in pieces from all.
 */
#include "runtime/train/train.h"
#include "runtime/train/sha256.h"
#include "runtime/train/weights.h"

#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef struct named {
    const char *name;
    uint32_t param;
} named;

static int compare_named(const void *a, const void *b)
{
    return strcmp(((const named *)a)->name, ((const named *)b)->name);
}

pps_status train_layout_new(const plan_set *set, train_layout *ret)
{
    size_t n = set->n_params;
    named *names = malloc((n + 1) * sizeof *names);
    train_layout l = {.order = malloc((n + 1) * sizeof *l.order),
                      .offsets = malloc((n + 1) * sizeof *l.offsets)};
    if (names == NULL || l.order == NULL || l.offsets == NULL) {
        free(names);
        train_layout_done(&l);
        return PPS_ERR_NOMEM;
    }
    for (uint32_t i = 0; i < n; i++)
        names[i] = (named){set->params[i].name, i};
    if (n > 0)
        qsort(names, n, sizeof *names, compare_named);
    for (uint32_t i = 0; i < n; i++) {
        l.order[i] = names[i].param;
        l.offsets[names[i].param] = l.bytes;
        l.bytes += ir_param_elems(&set->params[names[i].param]) * sizeof(float);
    }
    free(names);
    *ret = l;
    return PPS_OK;
}

void train_layout_done(train_layout *l)
{
    free(l->order);
    free(l->offsets);
    memset(l, 0, sizeof *l);
}

void train_export(const plan_set *set, const plan *p, const plan_bucket *bucket, plan_area area,
                  const plan_seat *seats, bool speaks, const char *memory,
                  const train_layout *layout, char *dest)
{
    /* under zero 1 a rank has gradients of all slices, but the sums of its own alone */
    bool sliced = area == PLAN_AREA_GRADS ? bucket->zero > 0 : plan_sliced(bucket, area);
    uint32_t slice = plan_slice_of(bucket, seats);
    const char *stored = memory + (area == PLAN_AREA_GRADS ? p->grad_offset : 0);
    stored += plan_bucket_at(bucket, area, slice);
    if (!speaks && !bucket->spread)
        return;
    if (!sliced && plan_reduced(bucket) && seats[bucket->teams].index > 0)
        return;
    for (uint32_t i = bucket->first; i < bucket->first + bucket->n; i++) {
        const plan_param *held = &p->params[i];
        plan_piece piece = plan_piece_of(bucket, held, sliced, slice);
        uint64_t at = (piece.begin - held->offset) / sizeof(float);
        uint64_t end = (piece.end - held->offset) / sizeof(float);
        while (at < end) {
            plan_run run = plan_held_run(set, held, seats, at, end);
            memcpy(dest + layout->offsets[held->param] + run.first * sizeof(float),
                   stored + held->offset + at * sizeof(float), run.n * sizeof(float));
            at += run.n;
        }
    }
}

void train_sha256(const plan_set *set, const train_layout *layout, const char *gathered,
                  char hex[65])
{
    sha256 h;
    sha256_init(&h);
    for (uint32_t i = 0; i < set->n_params; i++) {
        const ir_param *p = &set->params[layout->order[i]];
        sha256_add(&h, p->name, strlen(p->name) + 1);
        sha256_add(&h, gathered + layout->offsets[layout->order[i]],
                   ir_param_elems(p) * sizeof(float));
    }
    sha256_hex(&h, hex);
}

/* ---- saving --------------------------------------------------------------------------------- */

/* The safetensors header, padded with blanks so that the data is aligned; owned by the caller. */
static char *make_header(const plan_set *set, const train_layout *layout, size_t *ret_bytes)
{
    json_t *root = json_object();
    int failed = json_object_set_new(root, "__metadata__", json_pack("{s:s}", "format", "pt"));
    for (uint32_t i = 0; i < set->n_params && !failed; i++) {
        uint32_t id = layout->order[i];
        const ir_param *p = &set->params[id];
        json_int_t begin = (json_int_t)layout->offsets[id];
        json_int_t end = begin + (json_int_t)(ir_param_elems(p) * sizeof(float));
        json_t *shape = json_array();
        for (uint32_t k = 0; k < p->n_dims; k++)
            failed |= json_array_append_new(shape, json_integer(p->dims[k]));
        failed |= json_object_set_new(root, p->name,
                                      json_pack("{s:s, s:o, s:[I, I]}", "dtype", "F32", "shape",
                                                shape, "data_offsets", begin, end));
    }
    char *text = failed ? NULL : json_dumps(root, JSON_COMPACT);
    json_decref(root);
    if (text == NULL)
        return NULL;
    size_t n = strlen(text);
    size_t padded = (8 + n + SAFETENSORS_ALIGN - 1) / SAFETENSORS_ALIGN * SAFETENSORS_ALIGN - 8;
    char *header = malloc(padded);
    if (header != NULL) {
        memcpy(header, text, n);
        memset(header + n, ' ', padded - n);
        *ret_bytes = padded;
    }
    free(text);
    return header;
}

static bool write_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t done = write(fd, bytes, n);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return false;
        bytes += done;
        n -= (size_t)done;
    }
    return true;
}

/* A rename lasts only once its folder is on disk; best effort, some file systems refuse. */
static void sync_folder(const char *path)
{
    const char *slash = strrchr(path, '/');
    char *folder =
        slash == NULL ? strdup(".") : strndup(path, slash == path ? 1 : (size_t)(slash - path));
    int fd = folder != NULL ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
    free(folder);
    if (fd < 0)
        return;
    (void)fsync(fd);
    close(fd);
}

/* errno-style: 0, or what failed; `temporary` does not stay behind. */
static int write_file(const char *temporary, const char *path, const char *header,
                      size_t header_bytes, const char *data, size_t data_bytes)
{
    unsigned char length[8];
    for (int i = 0; i < 8; i++)
        length[i] = (unsigned char)((uint64_t)header_bytes >> (8 * i));
    int fd = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    if (fd < 0)
        return errno;
    int error = 0;
    if (!write_all(fd, (const char *)length, sizeof length) ||
        !write_all(fd, header, header_bytes) || !write_all(fd, data, data_bytes) || fsync(fd) != 0)
        error = errno;
    if (close(fd) != 0 && error == 0)
        error = errno;
    if (error == 0 && rename(temporary, path) != 0)
        error = errno;
    if (error != 0)
        unlink(temporary);
    else
        sync_folder(path);
    return error;
}

pps_status train_save(pps_state *st, const plan_set *set, const train_layout *layout,
                      const char *gathered, const char *path)
{
    size_t header_bytes = 0, name_bytes = strlen(path) + 32;
    char *header = make_header(set, layout, &header_bytes);
    char *temporary = malloc(name_bytes);
    pps_status status = PPS_OK;
    if (header == NULL || temporary == NULL) {
        status = PPS_ERR_NOMEM;
        goto done;
    }
    snprintf(temporary, name_bytes, "%s.%ld.tmp", path, (long)getpid());
    int error = write_file(temporary, path, header, header_bytes, gathered, layout->bytes);
    if (error != 0) {
        char buffer[128];
        pps_error(st, (pps_span){0}, 921, "cannot write '%s': %s", path,
                  strerror_r(error, buffer, sizeof buffer));
        status = PPS_ERR_IO;
    }
done:
    free(header);
    free(temporary);
    return status;
}
