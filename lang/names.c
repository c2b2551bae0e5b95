/* SPDX-License-Identifier: Apache-2.0
 *
 * names.c: the state's copies of names, and the name somebody probably meant: at most two edits
 * away (a letter more, less, other, or swapped with its neighbour; case does not count), and most
 * of the name unchanged.
 */
#include "lang/pps.h"

#include <string.h>
#include "lang/state.h"

enum { MAX_EDITS = 2, MAX_NAME = 64 };

static char fold(char c)
{
    return c >= 'A' && c <= 'Z' ? (char)(c - 'A' + 'a') : c;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Edits that turn a into b; lengths up to MAX_NAME. Three rows of the usual table. */
static size_t edits(const char *a, size_t n_a, const char *b, size_t n_b)
{
    size_t rows[3][MAX_NAME + 1];
    for (size_t k = 0; k <= n_b; k++)
        rows[0][k] = k;
    for (size_t i = 1; i <= n_a; i++) {
        size_t *row = rows[i % 3], *above = rows[(i + 2) % 3], *above2 = rows[(i + 1) % 3];
        row[0] = i;
        for (size_t k = 1; k <= n_b; k++) {
            bool equal = fold(a[i - 1]) == fold(b[k - 1]);
            row[k] = least(above[k - 1] + !equal, least(above[k], row[k - 1]) + 1);
            bool swapped = i > 1 && k > 1 && fold(a[i - 1]) == fold(b[k - 2]) &&
                           fold(a[i - 2]) == fold(b[k - 1]);
            if (swapped)
                row[k] = least(row[k], above2[k - 2] + 1);
        }
    }
    return rows[n_a % 3][n_b];
}

const char *pps_did_you_mean(const char *name, const char *const *names, size_t n)
{
    const char *best = NULL;
    size_t best_edits = MAX_EDITS + 1, n_name = strlen(name);
    for (size_t i = 0; i < n && n_name <= MAX_NAME; i++) {
        size_t bytes = strlen(names[i]), longer = bytes > n_name ? bytes : n_name;
        size_t differ = bytes > n_name ? bytes - n_name : n_name - bytes;
        if (bytes > MAX_NAME || differ > MAX_EDITS || strcmp(name, names[i]) == 0)
            continue;
        size_t distance = edits(name, n_name, names[i], bytes);
        if (distance < best_edits && distance * 2 <= longer) {
            best = names[i];
            best_edits = distance;
        }
    }
    return best;
}

const char *pps_intern(pps_state *st, const char *name)
{
    return intern(&st->intern, name, strlen(name));
}
