/* SPDX-License-Identifier: Apache-2.0
 *
 * row_builder.c: the schedules as loops, written independently of the stdlib's builders.
 */
#include "row_builder.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *grow(void *items, uint32_t n, uint32_t *cap, size_t bytes)
{
    if (n < *cap)
        return items;
    *cap = *cap ? 2 * *cap : 64;
    items = realloc(items, *cap * bytes);
    if (items == NULL)
        abort();
    return items;
}

void rows_begin(ir_program *p)
{
    p->rows = grow(p->rows, p->n_rows, &p->cap_rows, sizeof *p->rows);
    p->rows[p->n_rows++] = (ir_row){.begin = p->n_entries};
}

static void add(ir_program *p, pps_pass pass, uint32_t stage, uint32_t mb, bool joins)
{
    p->entries = grow(p->entries, p->n_entries, &p->cap_entries, sizeof *p->entries);
    p->entries[p->n_entries++] =
        (ir_entry){.stage = stage, .mb = mb, .pass = (uint8_t)pass, .joins = joins};
    ir_row *row = &p->rows[p->n_rows - 1];
    row->n++;
    row->n_groups += !joins;
}

void rows_op(ir_program *p, pps_pass pass, uint32_t stage, uint32_t mb)
{
    add(p, pass, stage, mb, false);
}

void rows_join(ir_program *p, pps_pass pass, uint32_t stage, uint32_t mb)
{
    add(p, pass, stage, mb, true);
}

void rows_done(ir_program *p)
{
    free(p->rows);
    free(p->entries);
    memset(p, 0, sizeof *p);
}

void rows_parse(ir_program *p, const char *text)
{
    static const struct {
        const char *name;
        pps_pass pass;
    } passes[] = {{"BI", PPS_PASS_BI}, {"BW", PPS_PASS_BW}, {"F", PPS_PASS_F}, {"B", PPS_PASS_B}};
    bool joins = false;
    rows_begin(p);
    while (*text != '\0') {
        if (*text == '\n')
            rows_begin(p);
        if (*text == ' ' || *text == '\n' || *text == '|') {
            joins = *text++ == '|';
            continue;
        }
        size_t i = 0;
        while (strncmp(text, passes[i].name, strlen(passes[i].name)) != 0)
            i++;
        unsigned stage, mb;
        int n;
        if (sscanf(text + strlen(passes[i].name), "%u:%u%n", &stage, &mb, &n) != 2)
            abort();
        text += strlen(passes[i].name) + (size_t)n;
        add(p, passes[i].pass, stage, mb, joins);
    }
}

void rows_gpipe(ir_program *p, uint32_t R, uint32_t M)
{
    for (uint32_t r = 0; r < R; r++) {
        rows_begin(p);
        for (uint32_t m = 0; m < M; m++)
            rows_op(p, PPS_PASS_F, r, m);
        for (uint32_t m = 0; m < M; m++)
            rows_op(p, PPS_PASS_B, r, m);
    }
}

static void one_f_one_b(ir_program *p, uint32_t r, uint32_t M, uint32_t warm)
{
    rows_begin(p);
    if (warm > M)
        warm = M;
    for (uint32_t m = 0; m < warm; m++)
        rows_op(p, PPS_PASS_F, r, m);
    for (uint32_t m = warm; m < M; m++) {
        rows_op(p, PPS_PASS_F, r, m);
        rows_op(p, PPS_PASS_B, r, m - warm);
    }
    for (uint32_t m = M - warm; m < M; m++)
        rows_op(p, PPS_PASS_B, r, m);
}

void rows_1f1b(ir_program *p, uint32_t R, uint32_t M)
{
    for (uint32_t r = 0; r < R; r++)
        one_f_one_b(p, r, M, R - 1 - r);
}

void rows_eager_1f1b(ir_program *p, uint32_t R, uint32_t M)
{
    for (uint32_t r = 0; r < R; r++)
        one_f_one_b(p, r, M, 2 * (R - 1 - r));
}

/* k-th forward (or backward) of rank r: chunks advance every R ops, microbatches in groups of R. */
static void interleaved_op(ir_program *p, uint32_t R, uint32_t v, uint32_t r, uint32_t k,
                           bool forward)
{
    uint32_t chunk = k / R % v, mb = k / (R * v) * R + k % R;
    if (!forward)
        chunk = v - 1 - chunk;
    rows_op(p, forward ? PPS_PASS_F : PPS_PASS_B, r + chunk * R, mb);
}

void rows_interleaved(ir_program *p, uint32_t R, uint32_t M, uint32_t v)
{
    for (uint32_t r = 0; r < R; r++) {
        uint32_t warm = (v - 1) * R + 2 * (R - 1 - r), total = v * M;
        rows_begin(p);
        if (warm > total)
            warm = total;
        for (uint32_t k = 0; k < total + warm; k++) {
            if (k < total)
                interleaved_op(p, R, v, r, k, true);
            if (k >= warm)
                interleaved_op(p, R, v, r, k - warm, false);
        }
    }
}

void rows_looped_bfs(ir_program *p, uint32_t R, uint32_t M, uint32_t v)
{
    for (uint32_t r = 0; r < R; r++) {
        rows_begin(p);
        for (uint32_t c = 0; c < v; c++)
            for (uint32_t m = 0; m < M; m++)
                rows_op(p, PPS_PASS_F, r + c * R, m);
        for (uint32_t c = v; c-- > 0;)
            for (uint32_t m = 0; m < M; m++)
                rows_op(p, PPS_PASS_B, r + c * R, m);
    }
}

void rows_zerobubble(ir_program *p, uint32_t R, uint32_t M)
{
    for (uint32_t r = 0; r < R; r++) {
        uint32_t warm = R - 1 - r < M ? R - 1 - r : M, next_bw = 0;
        rows_begin(p);
        for (uint32_t m = 0; m < warm; m++)
            rows_op(p, PPS_PASS_F, r, m);
        for (uint32_t b = 0; b < M; b++) {
            if (warm + b < M)
                rows_op(p, PPS_PASS_F, r, warm + b);
            rows_op(p, PPS_PASS_BI, r, b);
            if (b + 1 > r)
                rows_op(p, PPS_PASS_BW, r, next_bw++);
        }
        while (next_bw < M)
            rows_op(p, PPS_PASS_BW, r, next_bw++);
    }
}

typedef struct dualpipev {
    ir_program *p;
    uint32_t stage[2]; /* way down, way up */
    uint32_t f[2], b[2];
    uint32_t owed_stage[4096], owed_mb[4096], n_owed, n_paid;
} dualpipev;

static void forward(dualpipev *d, int s)
{
    rows_op(d->p, PPS_PASS_F, d->stage[s], d->f[s]++);
}

static void backward(dualpipev *d, int s, bool whole)
{
    if (!whole) {
        if (d->n_owed == 4096)
            abort();
        d->owed_stage[d->n_owed] = d->stage[s];
        d->owed_mb[d->n_owed++] = d->b[s];
    }
    rows_op(d->p, whole ? PPS_PASS_B : PPS_PASS_BI, d->stage[s], d->b[s]++);
}

static void weights(dualpipev *d)
{
    if (d->n_paid < d->n_owed) {
        rows_op(d->p, PPS_PASS_BW, d->owed_stage[d->n_paid], d->owed_mb[d->n_paid]);
        d->n_paid++;
    }
}

static void pair(dualpipev *d, int f, int b)
{
    forward(d, f);
    rows_join(d->p, PPS_PASS_B, d->stage[b], d->b[b]++);
}

static void dualpipev_rank(dualpipev *d, uint32_t R, uint32_t M, uint32_t r)
{
    uint32_t inner = R - 1 - r, half = (r + 1) / 2;
    for (uint32_t i = 0; i < 2 * inner; i++)
        forward(d, 0);
    for (uint32_t i = 0; i <= r; i++) {
        forward(d, 0);
        forward(d, 1);
    }
    for (uint32_t i = 0; i < inner; i++) {
        backward(d, 1, false);
        weights(d);
        forward(d, 1);
    }
    for (uint32_t i = 0; i < M - 2 * R + r + 1; i++) {
        if (i == 0 && inner == 0) {
            forward(d, 0);
            backward(d, 1, true);
        } else {
            pair(d, 0, 1);
        }
        pair(d, 1, 0);
    }
    for (uint32_t i = 0; i < inner; i++) {
        backward(d, 1, true);
        pair(d, 1, 0);
    }
    for (uint32_t i = 0; i <= r; i++) {
        backward(d, 1, i < half || (i == half && r % 2 == 0));
        backward(d, 0, i < half);
    }
    for (uint32_t i = 0; i < inner; i++) {
        weights(d);
        backward(d, 0, false);
    }
    while (d->n_paid < d->n_owed)
        weights(d);
}

void rows_dualpipev(ir_program *p, uint32_t R, uint32_t M)
{
    dualpipev *d = malloc(sizeof *d);
    if (d == NULL)
        abort();
    for (uint32_t r = 0; r < R; r++) {
        memset(d, 0, sizeof *d);
        d->p = p;
        d->stage[0] = r;
        d->stage[1] = 2 * R - 1 - r;
        rows_begin(p);
        dualpipev_rank(d, R, M, r);
    }
    free(d);
}
