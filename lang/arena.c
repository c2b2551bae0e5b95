/* SPDX-License-Identifier: Apache-2.0
 *
 * arena.c: bump allocation in blocks that double from 4 KiB to 1 MiB.
 *
 *   block:  [ arena_block | ...used... | free ]      the newest block is first in the list
 *
 * A request that does not fit the current block gets a new one; the rest of the old block is lost,
 * except that large requests get a block of their own behind the current one.
 *
 * Really large blocks are mapped, on huge pages where there are any: first touching small ones
 * costs more than using them. And the system has them back when the arena ends, where malloc would
 * keep them if something small lies above.
 */
#include "lang/arena.h"

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

enum { ALIGN = 16, FIRST_BLOCK = 4096, LAST_BLOCK = 1 << 20 };
enum { HUGE_PAGE = 2 << 20, HUGE_BLOCK = 4 << 20 };

struct arena_block {
    struct arena_block *next;
    size_t bytes; /* with this header */
};

enum { HEADER = (sizeof(struct arena_block) + ALIGN - 1) / ALIGN * ALIGN };

void *arena_realloc(const arena *a, void *ptr, size_t old_bytes, size_t new_bytes)
{
    if (a->alloc != NULL)
        return a->alloc(a->alloc_ud, ptr, old_bytes, new_bytes);
    if (new_bytes == 0) {
        free(ptr);
        return NULL;
    }
    return realloc(ptr, new_bytes);
}

/* `bytes` on huge pages; NULL when there is no memory. */
static void *map_new(size_t bytes)
{
    char *p =
        mmap(NULL, bytes + HUGE_PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED)
        return NULL;
    size_t before = (HUGE_PAGE - (uintptr_t)p % HUGE_PAGE) % HUGE_PAGE;
    if (before > 0)
        munmap(p, before);
    munmap(p + before + bytes, HUGE_PAGE - before);
    madvise(p + before, bytes, MADV_HUGEPAGE); /* advice: failing changes nothing but speed */
    return p + before;
}

static size_t mapped_bytes(size_t bytes)
{
    size_t page = (size_t)sysconf(_SC_PAGESIZE);
    return (bytes + page - 1) / page * page;
}

static bool is_mapped(const arena *a, size_t bytes)
{
    return a->alloc == NULL && bytes >= HUGE_BLOCK;
}

static void unmap(struct arena_block *block)
{
    munmap(block, mapped_bytes(block->bytes));
}

/* The smallest spare block that fits well, or NULL. */
static struct arena_block *take_spare(arena_spares *s, size_t bytes)
{
    struct arena_block **best = NULL;
    for (struct arena_block **at = &s->blocks; *at != NULL; at = &(*at)->next)
        if ((*at)->bytes >= bytes && (*at)->bytes - bytes <= bytes / 2 &&
            (best == NULL || (*at)->bytes < (*best)->bytes))
            best = at;
    if (best == NULL)
        return NULL;
    struct arena_block *block = *best;
    *best = block->next;
    s->bytes -= block->bytes;
    return block;
}

static void drop_spares(arena_spares *s, size_t most)
{
    while (s->blocks != NULL && s->bytes > most) {
        struct arena_block *next = s->blocks->next;
        s->bytes -= s->blocks->bytes;
        unmap(s->blocks);
        s->blocks = next;
    }
}

static struct arena_block *new_mapped(arena_spares *s, size_t bytes)
{
    struct arena_block *block = s != NULL ? take_spare(s, bytes) : NULL;
    if (block == NULL) {
        if (s != NULL)
            drop_spares(s, s->most > s->used + bytes ? s->most - s->used - bytes : 0);
        if ((block = map_new(mapped_bytes(bytes))) == NULL)
            return NULL;
        block->bytes = bytes;
    }
    if (s != NULL) {
        s->used += block->bytes;
        s->most = s->used > s->most ? s->used : s->most;
    }
    return block;
}

static struct arena_block *block_new(arena *a, size_t bytes)
{
    struct arena_block *block;
    if (is_mapped(a, bytes))
        block = new_mapped(a->spares, bytes);
    else if ((block = arena_realloc(a, NULL, 0, bytes)) != NULL)
        block->bytes = bytes;
    if (block != NULL)
        a->bytes += block->bytes;
    return block;
}

static void block_free(arena *a, struct arena_block *block)
{
    arena_spares *s = a->spares;
    a->bytes -= block->bytes;
    if (!is_mapped(a, block->bytes)) {
        arena_realloc(a, block, block->bytes, 0);
    } else if (s == NULL) {
        unmap(block);
    } else {
        s->used -= block->bytes;
        s->bytes += block->bytes;
        block->next = s->blocks;
        s->blocks = block;
    }
}

static void block_use(arena *a, struct arena_block *block)
{
    a->cursor = (char *)block + HEADER;
    a->limit = (char *)block + block->bytes;
}

/* The slow path of arena_new: `bytes` is a multiple of ALIGN and does not fit. */
static void *new_in_new_block(arena *a, size_t bytes)
{
    size_t last = a->blocks != NULL ? a->blocks->bytes : 0;
    size_t usual = last < FIRST_BLOCK ? FIRST_BLOCK : last < LAST_BLOCK ? last * 2 : LAST_BLOCK;
    if (bytes > usual / 4) {
        struct arena_block *own = block_new(a, HEADER + bytes);
        if (own == NULL)
            return NULL;
        if (a->blocks != NULL) {
            own->next = a->blocks->next;
            a->blocks->next = own;
        } else {
            own->next = NULL;
            a->blocks = own;
            a->cursor = a->limit = (char *)own + own->bytes;
        }
        return (char *)own + HEADER;
    }
    struct arena_block *block = block_new(a, usual);
    if (block == NULL)
        return NULL;
    block->next = a->blocks;
    a->blocks = block;
    block_use(a, block);
    void *p = a->cursor;
    a->cursor += bytes;
    return p;
}

void arena_init(arena *a, arena_alloc_fn alloc, void *ud)
{
    *a = (arena){.alloc = alloc, .alloc_ud = ud};
}

void arena_recycle(arena *a, arena_spares *spares)
{
    a->spares = spares;
}

void arena_spares_done(arena_spares *s)
{
    drop_spares(s, 0);
}

void arena_done(arena *a)
{
    while (a->blocks != NULL) {
        struct arena_block *next = a->blocks->next;
        block_free(a, a->blocks);
        a->blocks = next;
    }
    a->cursor = a->limit = NULL;
}

void arena_reset(arena *a)
{
    struct arena_block *kept = a->blocks;
    if (kept == NULL)
        return;
    while (kept->next != NULL) {
        struct arena_block *next = kept->next->next;
        block_free(a, kept->next);
        kept->next = next;
    }
    block_use(a, kept);
}

void *arena_new(arena *a, size_t bytes)
{
    if (bytes > SIZE_MAX / 2)
        return NULL;
    bytes = bytes == 0 ? ALIGN : (bytes + ALIGN - 1) / ALIGN * ALIGN;
    if (bytes > (size_t)(a->limit - a->cursor))
        return new_in_new_block(a, bytes);
    void *p = a->cursor;
    a->cursor += bytes;
    return p;
}

void *arena_zero(arena *a, size_t bytes)
{
    void *p = arena_new(a, bytes);
    if (p != NULL)
        memset(p, 0, bytes);
    return p;
}

char *arena_copy(arena *a, const char *bytes, size_t n)
{
    if (n == SIZE_MAX)
        return NULL;
    char *copy = arena_new(a, n + 1);
    if (copy != NULL) {
        if (n != 0)
            memcpy(copy, bytes, n);
        copy[n] = '\0';
    }
    return copy;
}
