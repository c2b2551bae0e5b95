/* SPDX-License-Identifier: Apache-2.0
 *
 * random.c: names as keys, and normals.
 */
#include "runtime/train/random.h"

#include <math.h>

uint64_t random_name_key(uint64_t key, const char *name)
{
    uint64_t h = UINT64_C(0xcbf29ce484222325);
    for (; *name != '\0'; name++)
        h = (h ^ (unsigned char)*name) * UINT64_C(0x100000001b3);
    return random_key(key, h);
}

static void normal_pair(uint64_t key, uint64_t pair, double ret[2])
{
    /* 53 bits each: u in (0, 1], so that its logarithm is finite; v in [0, 1) */
    double u = (double)((random_bits(key, 2 * pair) >> 11) + 1) * 0x1p-53;
    double v = (double)(random_bits(key, 2 * pair + 1) >> 11) * 0x1p-53;
    double radius = sqrt(-2 * log(u)), angle = 6.283185307179586477 * v;
    ret[0] = radius * cos(angle);
    ret[1] = radius * sin(angle);
}

void random_normals(uint64_t key, uint64_t first, uint64_t count, double scale, float *dest)
{
    double pair[2];
    for (uint64_t i = 0; i < count; i++) {
        uint64_t n = first + i;
        if (i == 0 || n % 2 == 0)
            normal_pair(key, n / 2, pair);
        dest[i] = (float)(scale * pair[n % 2]);
    }
}
