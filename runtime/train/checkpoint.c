/* SPDX-License-Identifier: Apache-2.0
 *
 * checkpoint.c: llm.c's GPT-2 checkpoints, version 3 (float32).
 *
 *   256 int32 header {20240326, 3, maxT, V, L, NH, C, Vp}, then 16 tensors after each other, those
 * of the layers stacked over layers: wte (Vp,C) wpe (maxT,C) ln1w ln1b (L,C) qkvw (L,3C,C) qkvb
 * (L,3C) attprojw (L,C,C) attprojb (L,C) ln2w ln2b (L,C) fcw (L,4C,C) fcb (L,4C) fcprojw (L,C,4C)
 * fcprojb (L,C) lnfw lnfb (C)
 *
 * Weights are (out, in) row major, as ours. A layer's slice of a stack gets our logical name.
 */
#include "runtime/train/weights.h"

#include <stdio.h>
#include <string.h>

enum { MAGIC = 20240326, VERSION = 3, HEADER = 256 * 4, N_TENSORS = 16, NAME_BYTES = 96 };
enum { MAX_DIM = 1 << 24, MAX_LAYERS = 1 << 16 }; /* far beyond any GPT-2; products fit 64 bits */

typedef enum extent { NONE, PADDED_VOCAB, CONTEXT, WIDTH, WIDTH3, WIDTH4 } extent;

static const struct {
    const char *name;
    bool stacked; /* once per layer, "transformer.h.<l>.name" */
    extent dims[2];
} layout[N_TENSORS] = {
    {"wte.weight", false, {PADDED_VOCAB, WIDTH}},  {"wpe.weight", false, {CONTEXT, WIDTH}},
    {"ln_1.weight", true, {WIDTH, NONE}},          {"ln_1.bias", true, {WIDTH, NONE}},
    {"attn.c_attn.weight", true, {WIDTH3, WIDTH}}, {"attn.c_attn.bias", true, {WIDTH3, NONE}},
    {"attn.c_proj.weight", true, {WIDTH, WIDTH}},  {"attn.c_proj.bias", true, {WIDTH, NONE}},
    {"ln_2.weight", true, {WIDTH, NONE}},          {"ln_2.bias", true, {WIDTH, NONE}},
    {"mlp.c_fc.weight", true, {WIDTH4, WIDTH}},    {"mlp.c_fc.bias", true, {WIDTH4, NONE}},
    {"mlp.c_proj.weight", true, {WIDTH, WIDTH4}},  {"mlp.c_proj.bias", true, {WIDTH, NONE}},
    {"ln_f.weight", false, {WIDTH, NONE}},         {"ln_f.bias", false, {WIDTH, NONE}},
};

bool checkpoint_is(const file_map *map)
{
    return map->n >= HEADER && file_u32(map->bytes) == MAGIC;
}

/* Add one tensor at *offset and step over it. */
static pps_status add(train_weights *w, const char *name, const uint32_t dims[2], uint64_t *offset)
{
    weights_tensor *t = &w->tensors[w->n_tensors++];
    t->name = arena_copy(&w->mem, name, strlen(name));
    if (t->name == NULL)
        return PPS_ERR_NOMEM;
    t->n_dims = dims[1] == 0 ? 1 : 2;
    t->dims[0] = dims[0];
    t->dims[1] = dims[1];
    t->bytes = 4 * (uint64_t)dims[0] * (dims[1] == 0 ? 1 : dims[1]);
    t->data = w->map.bytes + *offset;
    *offset += t->bytes;
    return PPS_OK;
}

pps_status checkpoint_read(pps_state *st, train_weights *w, pps_span span)
{
    const unsigned char *header = w->map.bytes;
    uint32_t version = file_u32(header + 4);
    if (version != VERSION)
        return pps_error(st, span, 912, "'%s' is a checkpoint of version %u, not %d (float32)",
                         w->path, version, VERSION);
    uint32_t context = file_u32(header + 8), layers = file_u32(header + 16);
    uint32_t width = file_u32(header + 24), padded = file_u32(header + 28);
    if (context - 1 >= MAX_DIM || layers - 1 >= MAX_LAYERS || width - 1 >= MAX_DIM ||
        padded - 1 >= MAX_DIM)
        return pps_error(
            st, span, 912,
            "the checkpoint '%s' has an impossible size: context %u, %u layers, width %u, "
            "padded vocabulary %u",
            w->path, context, layers, width, padded);
    const uint32_t extents[] = {[NONE] = 0,      [PADDED_VOCAB] = padded, [CONTEXT] = context,
                                [WIDTH] = width, [WIDTH3] = 3 * width,    [WIDTH4] = 4 * width};

    /* below 2^16 * 12 * 2^48 * 4: no overflow in double, exact where it can equal a file's size */
    double expected = HEADER;
    for (int i = 0; i < N_TENSORS; i++)
        expected += 4.0 * (layout[i].stacked ? layers : 1) * extents[layout[i].dims[0]] *
                    (layout[i].dims[1] == NONE ? 1 : extents[layout[i].dims[1]]);
    if (expected != (double)w->map.n)
        return pps_error(st, span, 912,
                         "the checkpoint '%s' has %llu bytes, its header asks for %.0f", w->path,
                         (unsigned long long)w->map.n, expected);

    w->tensors = arena_zero(&w->mem, (4 + 12 * (size_t)layers) * sizeof *w->tensors);
    if (w->tensors == NULL)
        return PPS_ERR_NOMEM;
    uint64_t offset = HEADER;
    for (int i = 0; i < N_TENSORS; i++) {
        const uint32_t dims[2] = {extents[layout[i].dims[0]], extents[layout[i].dims[1]]};
        char name[NAME_BYTES];
        for (uint32_t l = 0; l < (layout[i].stacked ? layers : 1); l++) {
            if (layout[i].stacked)
                snprintf(name, sizeof name, "transformer.h.%u.%s", l, layout[i].name);
            else
                snprintf(name, sizeof name, "transformer.%s", layout[i].name);
            PPS_TRY(add(w, name, dims, &offset));
        }
    }
    return PPS_OK;
}
