/* SPDX-License-Identifier: Apache-2.0
 *
 * sha256.h: SHA-256 (FIPS 180-4), incremental.
 */
#ifndef PPS_TRAIN_SHA256_H
#define PPS_TRAIN_SHA256_H

#include <stddef.h>
#include <stdint.h>

typedef struct sha256 {
    uint32_t state[8];
    uint64_t bytes; /* seen so far */
    uint8_t block[64];
} sha256;

void sha256_init(sha256 *h);
void sha256_add(sha256 *h, const void *data, size_t bytes);
void sha256_end(sha256 *h, uint8_t digest[32]); /* `h` is used up */
void sha256_hex(sha256 *h, char hex[65]);       /* sha256_end, as lower-case text with a NUL */

#endif
