/* SPDX-License-Identifier: Apache-2.0
 *
 * prove_space.c: which owner each stretch of a plan's activations has.
 *
 *   slots    0    1       2   3      4        borders of all blocks, in order of address
 *            |----|-------|---|------|
 *   owner    A            B   -      -        end[0] = 2, end[2] = 4
 *
 * Painting a stretch cuts the owners at its ends and drops those inside: each paint adds at most
 * two stretches more than it drops, so all paints together are linear in their number, times the
 * search for the stretch before a slot: a tree of 64-bit words, as deep as log64 of the slots.
 */
#include "passes/prove.h"

#include <stdlib.h>
#include <string.h>

static uint32_t hash(uint32_t border)
{
    return border * 2654435761u ^ border >> 15;
}

/* Where `border` is in the table, or the empty place where it belongs. */
static uint32_t place_of(const prove_space *s, uint32_t border)
{
    uint32_t at = hash(border) & s->mask;
    while (s->table[at] != IR_NONE && s->border[s->table[at]] != border)
        at = (at + 1) & s->mask;
    return at;
}

uint32_t prove_space_slot(const prove_space *s, uint32_t border)
{
    return s->table[place_of(s, border)];
}

static int compare(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    return (x > y) - (x < y);
}

/* The borders of all blocks, each once: a plan's steady state has few, so they are told apart
 * before they are sorted. */
static pps_status find_borders(prove_space *s, const plan_block *blocks, uint32_t n, arena *mem)
{
    uint32_t cap = 64;
    PASS_ALLOC(s->border, mem, cap);
    s->mask = 2 * cap - 1;
    s->table = arena_new(mem, 2 * cap * sizeof *s->table);
    if (s->table == NULL)
        return PPS_ERR_NOMEM;
    memset(s->table, 0xff, 2 * cap * sizeof *s->table);
    for (uint32_t i = 0; i < n; i++)
        for (int end = 0; end < 2; end++) {
            uint32_t border = blocks[i].offset + (end ? blocks[i].units : 0);
            uint32_t at = place_of(s, border);
            if (s->table[at] != IR_NONE)
                continue;
            if (s->n_slots == cap) {
                uint32_t *bigger;
                cap *= 4;
                PASS_ALLOC(bigger, mem, cap);
                memcpy(bigger, s->border, s->n_slots * sizeof *bigger);
                s->border = bigger;
                s->mask = 2 * cap - 1;
                s->table = arena_new(mem, 2 * (size_t)cap * sizeof *s->table);
                if (s->table == NULL)
                    return PPS_ERR_NOMEM;
                memset(s->table, 0xff, 2 * (size_t)cap * sizeof *s->table);
                for (uint32_t k = 0; k < s->n_slots; k++)
                    s->table[place_of(s, s->border[k])] = k;
                at = place_of(s, border);
            }
            s->border[s->n_slots] = border;
            s->table[at] = s->n_slots++;
        }
    qsort(s->border, s->n_slots, sizeof *s->border, compare);
    memset(s->table, 0xff, ((size_t)s->mask + 1) * sizeof *s->table);
    for (uint32_t k = 0; k < s->n_slots; k++)
        s->table[place_of(s, s->border[k])] = k;
    return PPS_OK;
}

pps_status prove_space_init(prove_space *s, const plan_block *blocks, uint32_t n_blocks, arena *mem)
{
    *s = (prove_space){0};
    PPS_TRY(find_borders(s, blocks, n_blocks, mem));
    PASS_ALLOC(s->owner, mem, s->n_slots);
    PASS_ALLOC(s->end, mem, s->n_slots);
    memset(s->owner, 0xff, s->n_slots * sizeof *s->owner);
    for (uint32_t n = s->n_slots; s->n_levels == 0 || n > 1; s->n_levels++) {
        n = n / 64 + 1;
        PASS_ALLOC(s->bits[s->n_levels], mem, n);
    }
    return PPS_OK;
}

/* ---- stretches ---------------------------------------------------------------------------------
 */

static void begin_at(prove_space *s, uint32_t slot)
{
    for (uint32_t l = 0; l < s->n_levels; l++, slot /= 64)
        s->bits[l][slot / 64] |= (uint64_t)1 << slot % 64;
}

static void drop_at(prove_space *s, uint32_t slot)
{
    for (uint32_t l = 0; l < s->n_levels; l++, slot /= 64)
        if ((s->bits[l][slot / 64] &= ~((uint64_t)1 << slot % 64)) != 0)
            return;
}

uint32_t prove_space_next(const prove_space *s, uint32_t slot)
{
    for (uint32_t l = 0; l < s->n_levels; l++, slot = slot / 64 + 1) {
        uint64_t word = s->bits[l][slot / 64] & ~(uint64_t)0 << slot % 64;
        if (word == 0)
            continue;
        slot = slot / 64 * 64 + (uint32_t)__builtin_ctzll(word);
        while (l-- > 0)
            slot = slot * 64 + (uint32_t)__builtin_ctzll(s->bits[l][slot]);
        return slot;
    }
    return IR_NONE;
}

/* The last stretch that begins before `slot`, or IR_NONE. */
static uint32_t previous(const prove_space *s, uint32_t slot)
{
    for (uint32_t l = 0; l < s->n_levels; l++, slot /= 64) {
        uint64_t word = s->bits[l][slot / 64] & (((uint64_t)1 << slot % 64) - 1);
        if (word == 0)
            continue;
        slot = slot / 64 * 64 + 63 - (uint32_t)__builtin_clzll(word);
        while (l-- > 0)
            slot = slot * 64 + 63 - (uint32_t)__builtin_clzll(s->bits[l][slot]);
        return slot;
    }
    return IR_NONE;
}

static void own(prove_space *s, uint32_t begin, uint32_t end, uint32_t owner)
{
    s->owner[begin] = owner;
    s->end[begin] = end;
    begin_at(s, begin);
}

pps_status prove_space_paint(prove_space *s, uint32_t begin, uint32_t end, uint32_t owner,
                             prove_loses loses, void *ud)
{
    uint32_t left = previous(s, begin), at;
    if (left != IR_NONE && s->end[left] > begin) {
        uint32_t old_end = s->end[left];
        PPS_TRY(loses(ud, s->owner[left], old_end > end ? 1 : 0));
        s->end[left] = begin;
        if (old_end > end)
            own(s, end, old_end, s->owner[left]);
    }
    while ((at = prove_space_next(s, begin)) != IR_NONE && at < end) {
        uint32_t old_end = s->end[at], old_owner = s->owner[at];
        PPS_TRY(loses(ud, old_owner, old_end > end ? 0 : -1));
        drop_at(s, at);
        s->owner[at] = IR_NONE;
        if (old_end > end)
            own(s, end, old_end, old_owner);
    }
    own(s, begin, end, owner);
    return PPS_OK;
}
