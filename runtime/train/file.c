/* SPDX-License-Identifier: Apache-2.0
 *
 * file.c: mapped files. Mapping, not reading: ranks of one machine share the pages, and a rank
 * touches only its own slices.
 */
#include "runtime/train/file.h"
#include "runtime/train/train.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

static pps_status say_errno(int error, char reason[128])
{
    char buffer[128];
    snprintf(reason, 128, "%s", strerror_r(error, buffer, sizeof buffer)); /* the GNU one */
    return PPS_ERR_IO;
}

pps_status file_map_open(const char *path, file_map *ret, char reason[128])
{
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); /* a FIFO must not hang us */
    if (fd < 0)
        return say_errno(errno, reason);
    pps_status status = PPS_OK;
    file_map map = {0};
    struct stat st;
    if (fstat(fd, &st) != 0) {
        status = say_errno(errno, reason);
    } else if (!S_ISREG(st.st_mode)) {
        snprintf(reason, 128, "%s",
                 S_ISDIR(st.st_mode) ? "it is a folder" : "it is not a regular file");
        status = PPS_ERR_IO;
    } else if (st.st_size > 0) {
        map.n = (size_t)st.st_size;
        void *bytes = mmap(NULL, map.n, PROT_READ, MAP_PRIVATE, fd, 0);
        if (bytes == MAP_FAILED)
            status = say_errno(errno, reason);
        map.bytes = bytes;
    }
    close(fd);
    if (status == PPS_OK)
        *ret = map;
    return status;
}

void file_map_close(file_map *m)
{
    if (m->bytes != NULL)
        munmap((void *)(uintptr_t)m->bytes, m->n);
    m->bytes = NULL;
    m->n = 0;
}

uint32_t file_u32(const unsigned char *at)
{
    return file_u16(at) | file_u16(at + 2) << 16;
}

uint64_t file_u64(const unsigned char *at)
{
    return (uint64_t)file_u32(at) | (uint64_t)file_u32(at + 4) << 32;
}

char *train_path(const char *base_dir, const char *path)
{
    bool plain = path[0] == '/' || base_dir == NULL || base_dir[0] == '\0';
    size_t bytes = strlen(path) + (plain ? 0 : strlen(base_dir) + 1) + 1;
    char *joined = malloc(bytes);
    if (joined != NULL)
        snprintf(joined, bytes, "%s%s%s", plain ? "" : base_dir, plain ? "" : "/", path);
    return joined;
}
