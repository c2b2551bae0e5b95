/* SPDX-License-Identifier: Apache-2.0
 *
 * loader.h: where the program finds scripts and modules. The interpreter opens no file itself.
 */
#ifndef PPS_CLI_LOADER_H
#define PPS_CLI_LOADER_H

#include "lang/pps.h"

typedef struct loader {
    char *root;       /* canonical folder of the main script; NULL without one. Owned */
    char *stdlib;     /* canonical folder of the stdlib, or NULL when none was found. Owned */
    size_t max_bytes; /* of one source file; 0: 1 GiB */
} loader;

/* Finds the stdlib: PPS_STDLIB, then beside the binary (as installed, or in the build tree), then
 * the installed data folder. */
void loader_init(loader *l, size_t max_bytes);
void loader_done(loader *l);

/* pps_config.load; `ud` is the loader. A path that ends in ".pps" is relative to the importing file
 * and must stay under that file's root after links are followed: the main script's folder, or the
 * stdlib. Any other name is the stdlib's. */
pps_status loader_load(void *ud, const char *from, const char *path, pps_source *ret,
                       char reason[256]);

/* Read the main script, a path of the command line; its folder becomes the root. `ret` is released
 * with loader_release. */
pps_status loader_script(loader *l, const char *path, pps_source *ret, char reason[256]);
void loader_release(void *ud, pps_source *source);

#endif
