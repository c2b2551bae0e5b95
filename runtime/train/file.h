/* SPDX-License-Identifier: Apache-2.0
 *
 * file.h: whole files, mapped for reading, and numbers in them. For this folder only.
 */
#ifndef PPS_TRAIN_FILE_H
#define PPS_TRAIN_FILE_H

#include "lang/pps.h"

typedef struct file_map {
    const unsigned char *bytes; /* NULL when empty */
    size_t n;
} file_map;

/* Maps a regular file. PPS_ERR_IO with a reason ("No such file or directory"); nothing is reported.
 */
pps_status file_map_open(const char *path, file_map *ret, char reason[128]);
void file_map_close(file_map *m);

/* little-endian, at any alignment */
uint32_t file_u32(const unsigned char *at);
uint64_t file_u64(const unsigned char *at);
static inline uint32_t file_u16(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

#endif
