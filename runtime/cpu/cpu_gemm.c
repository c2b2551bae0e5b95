/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_gemm.c: matrix products and LINEAR.
 *
 * A product is made of tiles: ROWS rows by CPU_LANES columns of c, kept in registers while k runs.
 * b is copied into panels first, so a tile reads it in order:
 *
 *            n                  panel: [depth][CPU_LANES]
 *        +---+---+--            b[k0+0][j .. j+15]
 *     k  |   | p |     copied   b[k0+1][j .. j+15]      columns past n are zero
 *        +---+---+--            ..
 *
 * k is cut at DEPTH and rows and columns anywhere: neither changes the order in which an element's
 * products are added, as c itself carries the sum from one cut to the next.
 */
#include "runtime/cpu/lanes.h"

enum {
    ROWS = CPU_VEC_BYTES == 64   ? 8
           : CPU_VEC_BYTES == 32 ? 6
                                 : 3, /* accumulators fit the registers */
    DEPTH = 256,
    PANELS = 4, /* with DEPTH: 64 KiB of the stack */
};

typedef struct panel {
    cpu_real at[DEPTH][CPU_LANES] __attribute__((aligned(64)));
} panel;

/* One full tile: c[i][j] (+)= sum over k of a[i * a_row + k * a_col] * b[k][j]. */
static inline __attribute__((always_inline)) void tile(const cpu_real *a, size_t a_row,
                                                       size_t a_col, const panel *b, size_t depth,
                                                       cpu_real *c, size_t ldc, bool add)
{
    cpu_vec sum[ROWS][CPU_VECS];
    for (size_t i = 0; i < ROWS; ++i)
        for (size_t v = 0; v < CPU_VECS; ++v) {
            if (add)
                memcpy(&sum[i][v], c + i * ldc + v * CPU_VEC, sizeof sum[i][v]);
            else
                sum[i][v] = (cpu_vec){0};
        }
    for (size_t kk = 0; kk < depth; ++kk) {
        cpu_vec column[CPU_VECS];
        for (size_t v = 0; v < CPU_VECS; ++v)
            memcpy(&column[v], &b->at[kk][v * CPU_VEC], sizeof column[v]);
#pragma GCC unroll 8
        for (size_t i = 0; i < ROWS; ++i) {
            cpu_real factor = a[i * a_row + kk * a_col];
            for (size_t v = 0; v < CPU_VECS; ++v)
                sum[i][v] += factor * column[v];
        }
    }
    for (size_t i = 0; i < ROWS; ++i)
        for (size_t v = 0; v < CPU_VECS; ++v)
            memcpy(c + i * ldc + v * CPU_VEC, &sum[i][v], sizeof sum[i][v]);
}

static void tile_rows(const cpu_real *a, size_t lda, const panel *b, size_t depth, cpu_real *c,
                      size_t ldc, bool add)
{
    tile(a, lda, 1, b, depth, c, ldc, add);
}

static void tile_columns(const cpu_real *a, size_t lda, const panel *b, size_t depth, cpu_real *c,
                         size_t ldc, bool add)
{
    tile(a, 1, lda, b, depth, c, ldc, add);
}

/* A tile over the edge of c: on a copy, rows past the end against zeros. `a` is already packed. */
static void tile_edge(cpu_real packed[DEPTH][ROWS], const panel *b, size_t depth, cpu_real *c,
                      size_t ldc, bool add, size_t rows, size_t columns)
{
    cpu_real whole[ROWS][CPU_LANES];
    memset(whole, 0, sizeof whole);
    if (add)
        for (size_t i = 0; i < rows; ++i)
            memcpy(whole[i], c + i * ldc, columns * sizeof *c);
    tile_columns(packed[0], ROWS, b, depth, whole[0], CPU_LANES, add);
    for (size_t i = 0; i < rows; ++i)
        memcpy(c + i * ldc, whole[i], columns * sizeof *c);
}

/* Rows [0, rows) of a, rows x depth, as [depth][ROWS] with zeros for the missing rows. */
static void pack_edge(cpu_real packed[DEPTH][ROWS], const cpu_real *a, size_t a_row, size_t a_col,
                      size_t rows, size_t depth)
{
    for (size_t kk = 0; kk < depth; ++kk)
        for (size_t i = 0; i < ROWS; ++i)
            packed[kk][i] = i < rows ? a[i * a_row + kk * a_col] : 0;
}

/* Columns [0, columns) of b into a panel; element (k, j) is b[k * b_row + j * b_col]. */
static void pack_panel(panel *to, const cpu_real *b, size_t b_row, size_t b_col, size_t columns,
                       size_t depth)
{
    if (columns < CPU_LANES)
        memset(to->at, 0, depth * sizeof to->at[0]);
    if (b_col == 1) {
        for (size_t kk = 0; kk < depth; ++kk)
            memcpy(to->at[kk], b + kk * b_row, columns * sizeof *b);
    } else if (columns == CPU_LANES) {
        for (size_t kk = 0; kk < depth; ++kk)
            for (size_t j = 0; j < CPU_LANES; ++j)
                to->at[kk][j] = b[kk * b_row + j * b_col];
    } else {
        for (size_t j = 0; j < columns; ++j)
            for (size_t kk = 0; kk < depth; ++kk)
                to->at[kk][j] = b[kk * b_row + j * b_col];
    }
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void plain_product(cpu_form form, size_t m, size_t n, size_t k, const cpu_real *a,
                          size_t lda, const cpu_real *b, size_t ldb, cpu_real *c, size_t ldc)
{
    panel panels[PANELS];
    cpu_real packed[DEPTH][ROWS];
    bool a_turned = form == CPU_TN_ADD, b_turned = form == CPU_NT;
    size_t a_row = a_turned ? 1 : lda, a_col = a_turned ? lda : 1;
    size_t b_row = b_turned ? 1 : ldb, b_col = b_turned ? ldb : 1;
    for (size_t k0 = 0; k0 < k; k0 += DEPTH) {
        size_t depth = least(DEPTH, k - k0);
        bool add = k0 > 0 || form == CPU_NN_ADD || form == CPU_TN_ADD;
        for (size_t j0 = 0; j0 < n; j0 += PANELS * CPU_LANES) {
            size_t j1 = least(n, j0 + PANELS * CPU_LANES);
            for (size_t j = j0; j < j1; j += CPU_LANES)
                pack_panel(&panels[(j - j0) / CPU_LANES], b + k0 * b_row + j * b_col, b_row, b_col,
                           least(CPU_LANES, j1 - j), depth);
            for (size_t i = 0; i < m; i += ROWS) {
                const cpu_real *a_tile = a + i * a_row + k0 * a_col;
                size_t rows = least(ROWS, m - i);
                bool is_packed = rows < ROWS;
                if (is_packed)
                    pack_edge(packed, a_tile, a_row, a_col, rows, depth);
                for (size_t j = j0; j < j1; j += CPU_LANES) {
                    const panel *b_tile = &panels[(j - j0) / CPU_LANES];
                    cpu_real *c_tile = c + i * ldc + j;
                    size_t columns = least(CPU_LANES, j1 - j);
                    if (rows < ROWS || columns < CPU_LANES) {
                        if (!is_packed)
                            pack_edge(packed, a_tile, a_row, a_col, rows, depth);
                        is_packed = true;
                        tile_edge(packed, b_tile, depth, c_tile, ldc, add, rows, columns);
                    } else if (a_turned) {
                        tile_columns(a_tile, lda, b_tile, depth, c_tile, ldc, add);
                    } else {
                        tile_rows(a_tile, lda, b_tile, depth, c_tile, ldc, add);
                    }
                }
            }
        }
    }
}

#ifndef CPU_REAL_DOUBLE
static void blas_product(const cpu_blas *blas, cpu_form form, size_t m, size_t n, size_t k,
                         const float *a, size_t lda, const float *b, size_t ldb, float *c,
                         size_t ldc)
{
    enum { ROW_MAJOR = 101, AS_IS = 111, TURNED = 112 }; /* CBLAS's numbers */
    blas->sgemm(ROW_MAJOR, form == CPU_TN_ADD ? TURNED : AS_IS, form == CPU_NT ? TURNED : AS_IS,
                (int)m, (int)n, (int)k, 1, a, (int)lda, b, (int)ldb,
                form == CPU_NN_ADD || form == CPU_TN_ADD ? 1 : 0, c, (int)ldc);
}
#endif

void CPU_FN(product)(const cpu_blas *blas, cpu_form form, size_t m, size_t n, size_t k,
                     const cpu_real *a, size_t lda, const cpu_real *b, size_t ldb, cpu_real *c,
                     size_t ldc)
{
    if (m == 0 || n == 0 || k == 0) /* no rows at an expert; k is 0 only where nothing is added */
        return;
#ifdef CPU_REAL_DOUBLE
    (void)blas;
#else
    if (blas != NULL) {
        blas_product(blas, form, m, n, k, a, lda, b, ldb, c, ldc);
        return;
    }
#endif
    plain_product(form, m, n, k, a, lda, b, ldb, c, ldc);
}

/* i0 p0 p1 o0 */
CPU_KERNEL(linear_f)
{
    const cpu_real *in = p[0], *weight = p[1], *bias = p[2];
    cpu_real *out = p[3];
    size_t rows = cpu_positions(k), n_in = k->n_in, n_out = k->n_out;
    CPU_FN(product)(cx->blas, CPU_NT, rows, n_out, n_in, in, n_in, weight, n_in, out, n_out);
    if (bias != NULL && cpu_first(k, cx))
        for (size_t r = 0; r < rows; ++r)
            for (size_t j = 0; j < n_out; ++j)
                out[r * n_out + j] += bias[j];
    return PPS_OK;
}

/* p0 d0 x0 */
CPU_KERNEL(linear_bi)
{
    const cpu_real *weight = p[0], *d_out = p[1];
    cpu_real *d_in = p[2];
    size_t n_in = k->n_in, n_out = k->n_out;
    if (d_in != NULL)
        CPU_FN(product)
        (cx->blas, CPU_NN, cpu_positions(k), n_in, n_out, d_out, n_out, weight, n_in, d_in, n_in);
    return PPS_OK;
}

/* i0 d0 g0 g1 */
CPU_KERNEL(linear_bw)
{
    const cpu_real *in = p[0], *d_out = p[1];
    cpu_real *g_weight = p[2], *g_bias = p[3];
    size_t rows = cpu_positions(k), n_in = k->n_in, n_out = k->n_out;
    CPU_FN(product)
    (cx->blas, CPU_TN_ADD, n_out, n_in, rows, d_out, n_out, in, n_in, g_weight, n_in);
    if (g_bias != NULL)
        for (size_t r = 0; r < rows; ++r)
            for (size_t j = 0; j < n_out; ++j)
                g_bias[j] += d_out[r * n_out + j];
    return PPS_OK;
}
