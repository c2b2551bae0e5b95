/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_crc.c: CRC-32 over long runs of bytes, eight at a time: table k holds what a byte does to
 * the sum k bytes later. Every single flipped bit, and every burst of up to 32, changes the sum.
 */
#include "ir/plan_row.h"

enum { POLYNOMIAL = 0xedb88320 };

void plan_crc_init(plan_crc *c)
{
    c->sum = 0;
    for (uint32_t i = 0; i < 256; i++) {
        uint32_t r = i;
        for (int bit = 0; bit < 8; bit++)
            r = r >> 1 ^ (r & 1 ? (uint32_t)POLYNOMIAL : 0);
        c->table[0][i] = r;
    }
    for (uint32_t i = 0; i < 256; i++)
        for (int k = 1; k < 8; k++)
            c->table[k][i] = c->table[k - 1][i] >> 8 ^ c->table[0][c->table[k - 1][i] & 0xff];
}

void plan_crc_add(plan_crc *c, const void *bytes, size_t n)
{
    const unsigned char *p = bytes;
    uint32_t sum = ~c->sum;
    for (; n >= 8; n -= 8, p += 8) {
        sum ^= (uint32_t)p[0] | (uint32_t)p[1] << 8 | (uint32_t)p[2] << 16 | (uint32_t)p[3] << 24;
        sum = c->table[7][sum & 0xff] ^ c->table[6][sum >> 8 & 0xff] ^
              c->table[5][sum >> 16 & 0xff] ^ c->table[4][sum >> 24] ^ c->table[3][p[4]] ^
              c->table[2][p[5]] ^ c->table[1][p[6]] ^ c->table[0][p[7]];
    }
    for (; n > 0; n--, p++)
        sum = sum >> 8 ^ c->table[0][(sum ^ *p) & 0xff];
    c->sum = ~sum;
}
