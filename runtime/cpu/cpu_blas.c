/* SPDX-License-Identifier: Apache-2.0
 *
 * cpu_blas.c: OpenBLAS, opened at run time.
 *
 * The library picks its kernels in its constructor, by a list of processors that ends before
 * today's, and takes a plain AVX2 set for those it does not know. OPENBLAS_CORETYPE overrules it,
 * when it is set before the library is loaded: the reason for dlopen. The serial build comes first:
 * a rank is one thread.
 */
#include "runtime/cpu/cpu.h"

#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char serial_path[] = "/usr/lib/x86_64-linux-gnu/openblas-serial/libopenblas.so.0";
static const char any_name[] =
    "libopenblas.so.0"; /* wherever the loader looks; maybe with threads */

/* The processor and the system can run AVX-512 F, BW, DQ, VL. The compiler's support library asks
 * CPUID and XGETBV. */
static bool has_avx512(void)
{
#if defined(__x86_64__)
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
#else
    return false;
#endif
}

static void *open_library(char reason[256])
{
    void *library = dlopen(serial_path, RTLD_NOW | RTLD_LOCAL);
    if (library != NULL)
        return library;
    if (setenv("OPENBLAS_NUM_THREADS", "1", 1) == 0)
        library = dlopen(any_name, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        const char *error = dlerror();
        snprintf(reason, 256, "%s", error ? error : "cannot set OPENBLAS_NUM_THREADS");
    }
    return library;
}

/* ISO C has no conversion from an object pointer to a function pointer; POSIX gives them one form.
 */
static bool find_function(void *library, const char *name, void *ret_function)
{
    void *symbol = dlsym(library, name);
    memcpy(ret_function, &symbol, sizeof symbol);
    return symbol != NULL;
}

pps_status cpu_blas_open(cpu_blas *ret, char reason[256])
{
    cpu_blas blas = {0};
    const char *(*core_name)(void);
    if (has_avx512() && setenv("OPENBLAS_CORETYPE", "SkylakeX", 0) != 0) {
        snprintf(reason, 256, "cannot set OPENBLAS_CORETYPE");
        return PPS_ERR_NOMEM;
    }
    blas.library = open_library(reason);
    if (blas.library == NULL)
        return PPS_ERR_MACHINE;
    if (!find_function(blas.library, "cblas_sgemm", &blas.sgemm)) {
        snprintf(reason, 256, "the OpenBLAS library has no cblas_sgemm");
        dlclose(blas.library);
        return PPS_ERR_MACHINE;
    }
    if (find_function(blas.library, "openblas_get_corename", &core_name))
        snprintf(blas.core, sizeof blas.core, "%s", core_name());
    *ret = blas;
    return PPS_OK;
}

void cpu_blas_close(cpu_blas *blas)
{
    if (blas == NULL || blas->library == NULL)
        return;
    dlclose(blas->library);
    memset(blas, 0, sizeof *blas);
}
