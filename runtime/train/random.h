/* SPDX-License-Identifier: Apache-2.0
 *
 * random.h: counter-based random numbers: number n of a stream depends on the stream's key and n
 * alone. For this folder only.
 */
#ifndef PPS_TRAIN_RANDOM_H
#define PPS_TRAIN_RANDOM_H

#include <stdint.h>

/* splitmix64's finaliser: a bijection that spreads every bit */
static inline uint64_t random_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The key of a sub-stream. */
static inline uint64_t random_key(uint64_t key, uint64_t part)
{
    return random_mix(random_mix(key ^ UINT64_C(0x6a09e667f3bcc909)) + random_mix(part));
}

static inline uint64_t random_bits(uint64_t key, uint64_t n)
{
    return random_mix(random_mix(key + n * UINT64_C(0x9e3779b97f4a7c15)) ^ key);
}

uint64_t random_name_key(uint64_t key, const char *name); /* FNV-1a of the name as `part` */
/* Standard normals n = first .. first + count - 1 of the stream, times `scale`, by Box and Muller:
 * numbers 2j and 2j+1 are a pair. Computed in double; the same bits wherever libm's log, cos and
 * sin are. */
void random_normals(uint64_t key, uint64_t first, uint64_t count, double scale, float *dest);

#endif
