/* SPDX-License-Identifier: Apache-2.0
 *
 * map.c: maps that remember insertion order.
 *
 *   index    [cap_index] a power of two, linear probing: number of an entry, MAP_EMPTY or
 * MAP_DELETED entries  [cap_entries] in insertion order; removed ones stay as holes until the next
 * rebuild
 *
 * At most two thirds of the index are ever in use, holes and MAP_DELETED included: `entries` is
 * that long, and when it is full the map is rebuilt without holes, twice as large only if over half
 * of it is live. So a map used as a queue stays small.
 */
#include "lang/value.h"

#include <string.h>

#include "lang/state.h"

enum { MAP_EMPTY = -1, MAP_DELETED = -2 };
#define MAP_FIRST_INDEX 8
#define MAP_MAX_INDEX   (1u << 30)

pps_status map_new(pps_state *st, value *ret)
{
    void *p;
    PPS_TRY(heap_object(st, PPS_MAP, sizeof(map), &p));
    *ret = value_object(PPS_MAP, p);
    return PPS_OK;
}

/* Strings and immediates are told apart without a call; only groups and ranges need value_equal. */
static pps_status same_key(pps_state *st, const map_entry *e, value key, uint32_t hash, bool *ret)
{
    *ret = false;
    if (e->hash != hash)
        return PPS_OK;
    if (e->key.as.bits == key.as.bits && pps_typeof(e->key) == pps_typeof(key) &&
        pps_typeof(key) != PPS_FLOAT && pps_typeof(key) != PPS_HANDLE) {
        *ret = true;
        return PPS_OK;
    }
    return value_equal(st, e->key, key, ret);
}

/* The slot of `index` that holds `key`, or *ret_found false. */
static pps_status find(pps_state *st, map *m, value key, uint32_t hash, uint32_t *ret_slot,
                       bool *ret_found)
{
    *ret_found = false;
    if (m->n_live == 0)
        return PPS_OK;
    uint32_t mask = m->cap_index - 1;
    for (uint32_t slot = hash & mask;; slot = (slot + 1) & mask) {
        int32_t i = m->index[slot];
        if (i == MAP_EMPTY)
            return PPS_OK;
        if (i == MAP_DELETED)
            continue;
        PPS_TRY(same_key(st, &m->entries[i], key, hash, ret_found));
        if (*ret_found) {
            *ret_slot = slot;
            return PPS_OK;
        }
    }
}

pps_status map_get(pps_state *st, map *m, value key, value *ret, bool *ret_found)
{
    uint32_t hash, slot;
    bool found;
    PPS_TRY(value_hash(st, key, &hash));
    PPS_TRY(find(st, m, key, hash, &slot, &found));
    if (found)
        *ret = m->entries[m->index[slot]].val;
    *ret_found = found;
    return PPS_OK;
}

static void index_put(map *m, uint32_t hash, int32_t i_entry)
{
    uint32_t mask = m->cap_index - 1, slot = hash & mask;
    while (m->index[slot] >= 0)
        slot = (slot + 1) & mask;
    m->index[slot] = i_entry;
}

/* New arrays without holes. Takes both before it changes the map: a failure leaves it as it was. */
static pps_status rebuild(pps_state *st, map *m)
{
    uint32_t cap_index = m->cap_index ? m->cap_index : MAP_FIRST_INDEX;
    if (m->n_live > m->cap_entries / 2)
        cap_index = m->cap_index ? 2 * m->cap_index : MAP_FIRST_INDEX;
    if (cap_index > MAP_MAX_INDEX)
        return pps_error(st, vm_current_span(st), 312, "a map of %u entries is too large",
                         m->n_live);
    uint32_t cap_entries = cap_index / 3 * 2;
    void *index, *entries;
    PPS_TRY(heap_alloc(st, cap_index * sizeof(int32_t), &index));
    pps_status status = heap_alloc(st, cap_entries * sizeof(map_entry), &entries);
    if (status != PPS_OK) {
        heap_free(st, index, cap_index * sizeof(int32_t));
        return status;
    }
    map_entry *to = entries;
    uint32_t n = 0;
    for (uint32_t i = 0; i < m->n_entries; i++)
        if (m->entries[i].live)
            to[n++] = m->entries[i];
    heap_free(st, m->entries, m->cap_entries * sizeof(map_entry));
    heap_free(st, m->index, m->cap_index * sizeof(int32_t));
    m->entries = to;
    m->index = index;
    m->cap_index = cap_index;
    m->cap_entries = cap_entries;
    m->n_entries = n;
    memset(m->index, 0xff, cap_index * sizeof(int32_t)); /* MAP_EMPTY */
    for (uint32_t i = 0; i < n; i++)
        index_put(m, to[i].hash, (int32_t)i);
    return PPS_OK;
}

/* Only a new key changes what a loop over the map sees; writing to a present one is always fine
 * (unless frozen). */
pps_status map_set(pps_state *st, map *m, value key, value val)
{
    uint32_t hash, slot;
    bool found;
    PPS_TRY(value_hash(st, key, &hash));
    PPS_TRY(find(st, m, key, hash, &slot, &found));
    if (m->o.frozen || (m->o.iterating && !found))
        return object_mutable(st, &m->o);
    if (found) {
        m->entries[m->index[slot]].val = val;
        return PPS_OK;
    }
    if (m->n_entries == m->cap_entries)
        PPS_TRY(rebuild(st, m));
    m->entries[m->n_entries] = (map_entry){key, val, hash, true};
    index_put(m, hash, (int32_t)m->n_entries);
    m->n_entries++;
    m->n_live++;
    return PPS_OK;
}

pps_status map_delete(pps_state *st, map *m, value key, bool *ret_found)
{
    uint32_t hash, slot;
    bool found;
    PPS_TRY(object_mutable(st, &m->o));
    PPS_TRY(value_hash(st, key, &hash));
    PPS_TRY(find(st, m, key, hash, &slot, &found));
    *ret_found = found;
    if (!found)
        return PPS_OK;
    m->entries[m->index[slot]] = (map_entry){0};
    m->index[slot] = MAP_DELETED;
    m->n_live--;
    return PPS_OK;
}
