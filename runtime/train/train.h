/* SPDX-License-Identifier: Apache-2.0
 *
 * train.h: what training needs beside the plan: batches, initial parameters, weights from files,
 * logical parameters gathered, hashed and saved.
 *
 * Everything here depends on the plan_set and on (seed, step, row) or (seed, parameter name,
 * element), never on ranks: two layouts of one model see the same numbers.
 */
#ifndef PPS_RUNTIME_TRAIN_H
#define PPS_RUNTIME_TRAIN_H

#include "ir/plan.h"

/* `path` as a script in folder `base_dir` means it: absolute paths stay. Owned by the caller
 * (free); NULL when out of memory. */
char *train_path(const char *base_dir, const char *path);

/* ---- data.c --------------------------------------------------------------------------------- */
typedef struct train_data train_data;
/* Opens the data of set->train: byte text (ids are the bytes' values; several files after each
 * other), an llm.c token file, or, without `data`, ids drawn from the seed. Paths are relative to
 * `base_dir`. Reports E09xx at the clause's span: missing or unreadable file, bad header, shorter
 * than one batch plus one token, an id not under the vocabulary of the EMBED and CROSS_ENTROPY
 * kernels. Drawn ids are under that vocabulary, or under 256 where no kernel has one. `set` must
 * outlive *ret. */
pps_status train_data_open(pps_state *st, const plan_set *set, const char *base_dir,
                           train_data **ret);
void train_data_close(train_data *d);
uint64_t train_data_tokens(const train_data *d); /* 0: drawn from the seed */
/* What a rank takes of a batch: rows as one of n_replicas, positions as one of n_parts. */
typedef struct train_share {
    uint32_t replica, n_replicas, part, n_parts;
} train_share;
train_share train_share_of(const plan_set *set, uint32_t rank); /* global */
/* Fill data input `k` for training step `step` (from 0) with a share of the batch. Row r of step k is
 * the window beginning at token (k*B + r)*T, around the end; targets shifted by one. Of 2 n_parts equal
 * blocks of a row's positions part i is blocks i and 2 n_parts - 1 - i. `dest` holds B/n_replicas *
 * row_elems/n_parts 4-byte elements, unit after unit (ir/plan.h): of each microbatch the first slice of
 * all its rows, then the next. */
void train_data_fill(const train_data *d, uint32_t k, uint64_t step, train_share share,
                     void *dest);

/* ---- init.c --------------------------------------------------------------------------------- */
/* Element i of parameter P: counter-based from (seed, name of P, i), so any slice can be made
 * alone. */
void train_init_param(const ir_param *p, uint64_t seed, uint64_t first, uint64_t elems,
                      float *dest);

/* ---- weights.c ------------------------------------------------------------------------------ */
typedef struct train_weights train_weights;
/* Maps a safetensors file (names as in the file) or an llm.c version-3 checkpoint (by its magic;
 * GPT-2's tensors under our logical names, `transformer.wte.weight` with its padded rows). Reports
 * E09xx at `span`; every size and offset is checked before anything is read. The file must not
 * shrink while it is open. */
pps_status train_weights_open(pps_state *st, const char *path, pps_span span, train_weights **ret);
void train_weights_close(train_weights *w);
/* Every parameter must be there with its shape; the file's other tensors must not exist. The
 * experts' [E, out, in] parameters ("...mlp.experts.up_proj") are there under their own name, or
 * stacked from Hugging Face's tensors, one per expert ("...mlp.experts.7.up_proj.weight", [out,
 * in]). */
pps_status train_weights_check(pps_state *st, const train_weights *w, const plan_set *set,
                               pps_span span);
/* Elements [first, first + elems) of `p`, which passed train_weights_check. */
void train_weights_read(const train_weights *w, const ir_param *p, uint64_t first, uint64_t elems,
                        float *dest);

/* Fill the parameters in a rank's memory (its shards, its slices of buckets) from weights or the
 * seed. */
void train_fill_params(const plan_set *set, const plan *p, const plan_seat *seats,
                       const train_weights *w, char *memory);

/* ---- export.c ------------------------------------------------------------------------------- */
/* Logical parameters gathered into one buffer: parameter i of set->params (sorted by name in
 * `order`) at byte offset offsets[i]. */
typedef struct train_layout {
    uint32_t *order;   /* [n_params] parameter ids by name */
    uint64_t *offsets; /* [n_params] by parameter id */
    uint64_t bytes;
} train_layout;
pps_status train_layout_new(const plan_set *set, train_layout *ret); /* owned: train_layout_done */
void train_layout_done(train_layout *l);
/* Copy this rank's contribution from its memory: parameters, or gradients as they are before an
 * UPDATE step, of one bucket. Each logical element comes from one rank: its slice's owner, or the
 * first of those that hold the same. `speaks`: plan_set.rank_speaks of this rank. */
void train_export(const plan_set *set, const plan *p, const plan_bucket *bucket, plan_area area,
                  const plan_seat *seats, bool speaks, const char *memory,
                  const train_layout *layout, char *dest);
/* Digest over, per parameter by name, its name, a NUL, and its little-endian float32 elements. */
void train_sha256(const plan_set *set, const train_layout *layout, const char *gathered,
                  char hex[65]);
/* safetensors, float32, logical names; written to a temporary name beside `path`, synced, renamed.
 * Reports E0921 and returns PPS_ERR_IO when that fails; `path` is then as it was. */
pps_status train_save(pps_state *st, const plan_set *set, const train_layout *layout,
                      const char *gathered, const char *path);

#endif
