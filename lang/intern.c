/* SPDX-License-Identifier: Apache-2.0
 *
 * intern.c: open addressing with linear probing; at most half full; names are never removed.
 */
#include "lang/intern.h"

#include <string.h>

enum { FIRST_CAP = 256 };

uint32_t intern_hash(const char *bytes, size_t n)
{
    uint32_t hash = 2166136261u;
    for (size_t i = 0; i < n; i++)
        hash = (hash ^ (unsigned char)bytes[i]) * 16777619u;
    return hash;
}

static size_t find_slot(const intern_table *t, const char *bytes, size_t n, uint32_t hash)
{
    size_t i = hash & (t->cap - 1);
    for (; t->slots[i] != NULL; i = (i + 1) & (t->cap - 1))
        if (t->hashes[i] == hash && strncmp(t->slots[i], bytes, n) == 0 && t->slots[i][n] == '\0')
            break;
    return i;
}

static int grow(intern_table *t)
{
    intern_table big = *t;
    big.cap = t->cap == 0 ? FIRST_CAP : t->cap * 2;
    big.slots = arena_realloc(t->strings, NULL, 0, big.cap * sizeof *big.slots);
    big.hashes = arena_realloc(t->strings, NULL, 0, big.cap * sizeof *big.hashes);
    if (big.slots == NULL || big.hashes == NULL) {
        if (big.slots != NULL)
            arena_realloc(t->strings, big.slots, big.cap * sizeof *big.slots, 0);
        if (big.hashes != NULL)
            arena_realloc(t->strings, big.hashes, big.cap * sizeof *big.hashes, 0);
        return -1;
    }
    memset(big.slots, 0, big.cap * sizeof *big.slots);
    for (size_t i = 0; i < t->cap; i++) {
        if (t->slots[i] == NULL)
            continue;
        size_t to = t->hashes[i] & (big.cap - 1);
        while (big.slots[to] != NULL)
            to = (to + 1) & (big.cap - 1);
        big.slots[to] = t->slots[i];
        big.hashes[to] = t->hashes[i];
    }
    intern_done(t);
    *t = big;
    return 0;
}

void intern_init(intern_table *t, arena *strings)
{
    *t = (intern_table){.strings = strings};
}

void intern_done(intern_table *t)
{
    if (t->cap != 0) {
        arena_realloc(t->strings, t->slots, t->cap * sizeof *t->slots, 0);
        arena_realloc(t->strings, t->hashes, t->cap * sizeof *t->hashes, 0);
    }
    *t = (intern_table){.strings = t->strings};
}

const char *intern(intern_table *t, const char *bytes, size_t n)
{
    if (t->n * 2 >= t->cap && grow(t) != 0)
        return NULL;
    uint32_t hash = intern_hash(bytes, n);
    size_t i = find_slot(t, bytes, n, hash);
    if (t->slots[i] == NULL) {
        const char *copy = arena_copy(t->strings, bytes, n);
        if (copy == NULL)
            return NULL;
        t->slots[i] = copy;
        t->hashes[i] = hash;
        t->n++;
    }
    return t->slots[i];
}
