/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.h: memory with one lifetime. Nothing in an arena is freed alone.
 */
#ifndef PPS_ARENA_H
#define PPS_ARENA_H

#include <stddef.h>

/* realloc-style: (ud, NULL, 0, n) allocates, (ud, p, n, 0) frees. */
typedef void *(*arena_alloc_fn)(void *ud, void *ptr, size_t old_bytes, size_t new_bytes);

/* Really large blocks that arenas have given up, for the next ones: what the system gives anew has
 * to be cleared first, which takes longer than most uses. No more is kept than was in use at once.
 */
typedef struct arena_spares {
    struct arena_block *blocks;
    size_t bytes, used, most; /* spare, in use, most in use so far */
} arena_spares;

typedef struct arena {
    struct arena_block *blocks;
    arena_spares *spares; /* or NULL */
    arena_alloc_fn alloc; /* NULL: malloc and free */
    void *alloc_ud;
    size_t bytes; /* taken from the allocator */
    char *cursor, *limit;
} arena;

void arena_init(arena *a, arena_alloc_fn alloc, void *ud);
void arena_recycle(arena *a, arena_spares *spares); /* `a` is empty; or NULL */
void arena_spares_done(arena_spares *s);            /* may be used again */
void arena_done(arena *a);
void arena_reset(arena *a);               /* forget everything, keep one block */
void *arena_new(arena *a, size_t bytes);  /* 16-aligned, uninitialised; NULL when out of memory */
void *arena_zero(arena *a, size_t bytes); /* same, zeroed */
char *arena_copy(arena *a, const char *bytes, size_t n); /* NUL-terminated copy */
/* The arena's own allocator, realloc-style, for memory that is freed alone. */
void *arena_realloc(const arena *a, void *ptr, size_t old_bytes, size_t new_bytes);

#endif
