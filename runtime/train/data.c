/* SPDX-License-Identifier: Apache-2.0
 *
 * data.c: batches. The data is one long stream of token ids: the bytes of some files after each
 * other, the 16-bit ids of an llm.c token file, or numbers drawn from the seed. Row r of step k is
 * the window of T ids from (k*B + r)*T on, the stream beginning anew at its end; its targets are
 * the same, one later.
 *
 *   token file:  256 int32 header {20240520, 1, ids}  |  ids, uint16 little-endian
 */
#include "runtime/train/train.h"
#include "runtime/train/file.h"
#include "runtime/train/random.h"

#include <stdlib.h>
#include <string.h>

enum {
    TOKEN_MAGIC = 20240520,
    TOKEN_VERSION = 1,
    TOKEN_HEADER = 256 * 4,
    BYTE_VALUES = 256,
    DRAWN_VOCAB = 256 /* where no kernel names a vocabulary */
};
enum { KEY_TOKENS = 1, KEY_FEATURES = 2 }; /* sub-streams of the seed */

typedef struct data_part { /* ids that lie in one file */
    file_map map;
    uint64_t first; /* number of its first id in the stream */
    uint64_t n;
    const unsigned char *ids;
} data_part;

struct train_data {
    const plan_set *set;
    uint32_t vocab;    /* ids are under it; 0: not known */
    uint32_t id_bytes; /* 1 or 2 */
    uint64_t n;        /* ids in the stream; 0: drawn */
    uint32_t n_parts;
    data_part parts[];
};

/* ---- opening -------------------------------------------------------------------------------- */

/* The smallest vocabulary that reads or predicts ids; 0 when none does. */
static uint32_t vocabulary(const plan_set *set)
{
    uint32_t least = 0;
    for (uint32_t i = 0; i < set->n_kernels; i++) {
        const plan_kernel *k = &set->kernels[i];
        bool reads =
            k->op == IR_EMBED || k->op == IR_CROSS_ENTROPY || k->op == IR_CROSS_ENTROPY_PART;
        if (reads && k->attrs.vocab > 0 && (least == 0 || k->attrs.vocab < least))
            least = k->attrs.vocab;
    }
    return least;
}

static pps_status open_part(pps_state *st, const ir_train *train, const char *base_dir,
                            const char *path, data_part *part)
{
    char reason[128];
    char *joined = train_path(base_dir, path);
    if (joined == NULL)
        return PPS_ERR_NOMEM;
    pps_status status = file_map_open(joined, &part->map, reason);
    free(joined);
    if (status != PPS_OK)
        return pps_error(st, train->data_span, 901, "cannot read the data file '%s': %s", path,
                         reason);
    part->ids = part->map.bytes;
    part->n = part->map.n;
    if (train->data == IR_SOURCE_BYTES)
        return PPS_OK;

    const unsigned char *header = part->map.bytes;
    if (part->map.n < TOKEN_HEADER || file_u32(header) != TOKEN_MAGIC)
        return pps_error(st, train->data_span, 902, "'%s' is not an llm.c token file", path);
    if (file_u32(header + 4) != TOKEN_VERSION)
        return pps_error(st, train->data_span, 902, "'%s' is a token file of version %u, not %d",
                         path, file_u32(header + 4), TOKEN_VERSION);
    uint64_t n = file_u32(header + 8), held = (part->map.n - TOKEN_HEADER) / 2;
    if (n > held)
        return pps_error(st, train->data_span, 902, "'%s' holds %llu ids, its header says %llu",
                         path, (unsigned long long)held, (unsigned long long)n);
    part->ids = header + TOKEN_HEADER;
    part->n = n;
    return PPS_OK;
}

static uint32_t part_id(const train_data *d, const data_part *part, uint64_t i)
{
    return d->id_bytes == 1 ? part->ids[i] : file_u16(part->ids + 2 * i);
}

static pps_status check_ids(pps_state *st, const train_data *d, const char *path,
                            const data_part *part)
{
    if (d->vocab == 0 || d->vocab >= (d->id_bytes == 1 ? BYTE_VALUES : UINT16_MAX + 1))
        return PPS_OK;
    for (uint64_t i = 0; i < part->n; i++) {
        uint32_t id = part_id(d, part, i);
        if (id < d->vocab)
            continue;
        pps_diag *diag =
            pps_diag_start(st, PPS_SEV_ERROR, 904, d->set->train.data_span,
                           "'%s' has id %u, the model's vocabulary is %u", path, id, d->vocab);
        pps_diag_label(diag, "at position %llu", (unsigned long long)i);
        if (d->id_bytes == 1)
            pps_diag_help(diag, "byte text needs a vocabulary of %d", BYTE_VALUES);
        return pps_diag_done(diag);
    }
    return PPS_OK;
}

static pps_status open_parts(pps_state *st, train_data *d, const char *base_dir)
{
    const ir_train *train = &d->set->train;
    const char *path = train->data_path;
    d->id_bytes = train->data == IR_SOURCE_BYTES ? 1 : 2;
    for (uint32_t i = 0; i < d->n_parts; i++, path += strlen(path) + 1) {
        data_part *part = &d->parts[i];
        PPS_TRY(open_part(st, train, base_dir, path, part));
        PPS_TRY(check_ids(st, d, path, part));
        part->first = d->n;
        d->n += part->n;
    }
    uint64_t batch = (uint64_t)d->set->batch * d->set->T;
    if (d->n > batch)
        return PPS_OK;
    pps_diag *diag = pps_diag_start(st, PPS_SEV_ERROR, 903, train->data_span,
                                    "the data is shorter than a batch: %llu ids, %llu needed",
                                    (unsigned long long)d->n, (unsigned long long)batch + 1);
    pps_diag_note(diag, "a step takes %u rows of %u ids, and one more for the last target",
                  d->set->batch, d->set->T);
    return pps_diag_done(diag);
}

pps_status train_data_open(pps_state *st, const plan_set *set, const char *base_dir,
                           train_data **ret)
{
    const ir_train *train = &set->train;
    uint32_t n_parts = 0;
    if (train->data != IR_SOURCE_NONE)
        n_parts = train->n_data_paths > 0 ? train->n_data_paths : 1;
    train_data *d = calloc(1, sizeof *d + n_parts * sizeof *d->parts);
    if (d == NULL)
        return PPS_ERR_NOMEM;
    d->set = set;
    d->vocab = vocabulary(set);
    d->n_parts = n_parts;
    pps_status status = n_parts > 0 ? open_parts(st, d, base_dir) : PPS_OK;
    if (status == PPS_OK)
        *ret = d;
    else
        train_data_close(d);
    return status;
}

void train_data_close(train_data *d)
{
    if (d == NULL)
        return;
    for (uint32_t i = 0; i < d->n_parts; i++)
        file_map_close(&d->parts[i].map);
    free(d);
}

uint64_t train_data_tokens(const train_data *d)
{
    return d->n;
}

/* ---- filling -------------------------------------------------------------------------------- */

static void draw_ids(const train_data *d, uint64_t begin, uint32_t n, int32_t *dest)
{
    uint64_t key = random_key(d->set->train.seed, KEY_TOKENS);
    uint64_t vocab = d->vocab > 0 ? d->vocab : DRAWN_VOCAB;
    for (uint32_t i = 0; i < n; i++)
        dest[i] = (int32_t)((random_bits(key, begin + i) >> 32) * vocab >> 32);
}

static const data_part *part_at(const train_data *d, uint64_t i)
{
    uint32_t low = 0, high = d->n_parts;
    while (high - low > 1) {
        uint32_t middle = low + (high - low) / 2;
        if (d->parts[middle].first <= i)
            low = middle;
        else
            high = middle;
    }
    return &d->parts[low]; /* not empty: among parts that begin here it is the last */
}

/* `n` ids from `begin` on, around the end. */
static void copy_ids(const train_data *d, uint64_t begin, uint32_t n, int32_t *dest)
{
    if (d->n == 0) {
        draw_ids(d, begin, n, dest);
        return;
    }
    for (uint64_t at = begin % d->n; n > 0; at = at < d->n ? at : 0) {
        const data_part *part = part_at(d, at);
        uint64_t first = at - part->first, run = part->n - first;
        if (run > n)
            run = n;
        for (uint64_t i = 0; i < run; i++)
            *dest++ = (int32_t)part_id(d, part, first + i);
        at += run;
        n -= (uint32_t)run;
    }
}

/* Elements [first, first + n) of a row. */
static void fill_row(const train_data *d, const plan_data *input, uint64_t row, uint32_t first,
                     uint32_t n, char *out)
{
    uint64_t at = row * d->set->T + first; /* of ids */
    uint64_t feature_key = random_key(random_key(d->set->train.seed, KEY_FEATURES), input->key);
    switch ((ir_data_kind)input->kind) {
    case IR_DATA_TOKENS:
        copy_ids(d, at, n, (int32_t *)(void *)out);
        break;
    case IR_DATA_TARGETS:
        copy_ids(d, at + 1, n, (int32_t *)(void *)out);
        break;
    case IR_DATA_FEATURES:
        random_normals(random_key(feature_key, row), first, n, 1, (float *)(void *)out);
        break;
    }
}

train_share train_share_of(const plan_set *set, uint32_t rank)
{
    const plan *p = &set->plans[set->rank_group[rank]];
    uint32_t at = p->ranks + set->rank_index[rank];
    return (train_share){.replica = set->rank_replica[at],
                         .n_replicas = p->n_replicas,
                         .part = set->rank_part[at],
                         .n_parts = p->n_parts};
}

void train_data_fill(const train_data *d, uint32_t k, uint64_t step, train_share share, void *dest)
{
    const plan_set *set = d->set;
    const plan_data *input = &set->data[k];
    uint32_t rows = set->batch / share.n_replicas, slices = set->n_slices;
    uint32_t mb_rows = rows / (set->n_mb / slices), all = input->row_elems / slices;
    uint32_t n = all / share.n_parts, n_blocks = share.n_parts > 1 ? 2 : 1, block = n / n_blocks;
    const uint32_t blocks[2] = {share.part, 2 * share.n_parts - 1 - share.part};
    for (uint32_t i = 0; i < rows; i++) {
        uint64_t row =
            step * set->batch + (uint64_t)share.replica * rows + i; /* since the beginning */
        for (uint32_t slice = 0; slice < slices; slice++) {
            uint64_t unit = (uint64_t)(i / mb_rows) * slices + slice;
            char *out = (char *)dest + (unit * mb_rows + i % mb_rows) * n * 4;
            for (uint32_t b = 0; b < n_blocks; b++, out += (uint64_t)block * 4)
                fill_row(d, input, row, slice * all + blocks[b] * block, block, out);
        }
    }
}
