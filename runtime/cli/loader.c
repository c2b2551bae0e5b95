/* SPDX-License-Identifier: Apache-2.0
 *
 * loader.c: scripts and modules from the file system.
 *
 * Every file is named by its canonical path (realpath), which is also the key for "each module
 * once" and what the check against escaping the root compares: `..`, links and absolute paths all
 * end up there.
 */
#include "runtime/cli/loader.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef PPS_DATADIR
#define PPS_DATADIR "/usr/local/share/pps"
#endif

static char *folder_of(const char *path)
{
    const char *slash = strrchr(path, '/');
    if (!slash)
        return strdup(".");
    return slash == path ? strdup("/") : strndup(path, (size_t)(slash - path));
}

/* The canonical form of `folder`/`name` if that is a stdlib, else NULL. */
static char *stdlib_at(const char *folder, const char *name)
{
    char path[PATH_MAX], probe[PATH_MAX + 16];
    struct stat info;
    if ((size_t)snprintf(path, sizeof path, "%s/%s", folder, name) >= sizeof path)
        return NULL;
    snprintf(probe, sizeof probe, "%s/schedules.pps", path);
    return stat(probe, &info) == 0 && S_ISREG(info.st_mode) ? realpath(path, NULL) : NULL;
}

static char *find_stdlib(void)
{
    const char *named = getenv("PPS_STDLIB");
    if (named && *named)
        return realpath(named, NULL);
    char binary[PATH_MAX];
    char *found = NULL;
    ssize_t n = readlink("/proc/self/exe", binary, sizeof binary - 1);
    if (n > 0) {
        /* installed; in a build tree, where the binary is in runtime/cli; in one folder with it */
        static const char *const beside[] = {"../share/pps/stdlib", "../../stdlib", "stdlib"};
        binary[n] = 0;
        char *folder = folder_of(binary);
        for (size_t i = 0; folder && !found && i < sizeof beside / sizeof beside[0]; i++) {
            found = stdlib_at(folder, beside[i]);
        }
        free(folder);
    }
    return found ? found : stdlib_at(PPS_DATADIR, "stdlib");
}

void loader_init(loader *l, size_t max_bytes)
{
    *l = (loader){.stdlib = find_stdlib(), .max_bytes = max_bytes ? max_bytes : (size_t)1 << 30};
}

void loader_done(loader *l)
{
    free(l->root);
    free(l->stdlib);
    *l = (loader){0};
}

void loader_release(void *ud, pps_source *source)
{
    (void)ud;
    free(source->text);
    free(source->resolved);
    source->text = source->resolved = NULL;
}

/* The whole file, also one that is no regular file (a pipe), up to max_bytes. */
static pps_status read_file(FILE *file, size_t max_bytes, char **ret_text, size_t *ret_bytes,
                            char reason[256])
{
    size_t cap = 1 << 16, n = 0;
    char *text = malloc(cap);
    while (text) {
        n += fread(text + n, 1, cap - n, file);
        if (n < cap || n > max_bytes)
            break;
        char *grown = realloc(text, cap *= 2);
        if (!grown)
            free(text);
        text = grown;
    }
    if (!text) {
        snprintf(reason, 256, "out of memory");
        return PPS_ERR_NOMEM;
    }
    if (ferror(file) || n > max_bytes) {
        if (n > max_bytes)
            snprintf(reason, 256, "it is larger than %zu bytes", max_bytes);
        else
            snprintf(reason, 256, "%s", strerror(errno));
        free(text);
        return PPS_ERR_IO;
    }
    *ret_text = text;
    *ret_bytes = n;
    return PPS_OK;
}

/* `resolved` is moved into ret, or freed on failure. */
static pps_status load_file(const loader *l, char *resolved, pps_source *ret, char reason[256])
{
    struct stat info;
    FILE *file = NULL;
    if (stat(resolved, &info) == 0 && S_ISDIR(info.st_mode))
        snprintf(reason, 256, "it is a folder");
    else if (!(file = fopen(resolved, "rb")))
        snprintf(reason, 256, "%s", strerror(errno));
    pps_status status = file ? PPS_OK : PPS_ERR_IO;
    if (file) {
        status = read_file(file, l->max_bytes, &ret->text, &ret->bytes, reason);
        fclose(file);
    }
    if (status != PPS_OK) {
        free(resolved);
        return status;
    }
    ret->resolved = resolved;
    ret->release = loader_release;
    return PPS_OK;
}

static bool is_under(const char *path, const char *folder)
{
    size_t n = folder ? strlen(folder) : 0;
    return n && strncmp(path, folder, n) == 0 && (path[n] == '/' || folder[n - 1] == '/');
}

static bool ends_in_pps(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".pps") == 0;
}

/* Where `path` leads, seen from `from`; with the folder that it must not leave. */
static pps_status aim(const loader *l, const char *from, const char *path, char *ret_path,
                      size_t bytes, const char **ret_root, char reason[256])
{
    if (path[0] == '/') {
        snprintf(reason, 256, "a module's path is relative to the importing file");
        return PPS_ERR_SCRIPT;
    }
    int n;
    if (!ends_in_pps(path)) {
        if (!l->stdlib) {
            snprintf(reason, 256, "the stdlib was not found; PPS_STDLIB can name its folder");
            return PPS_ERR_IO;
        }
        *ret_root = l->stdlib;
        n = snprintf(ret_path, bytes, "%s/%s.pps", l->stdlib, path);
    } else {
        bool in_stdlib = from && l->stdlib && is_under(from, l->stdlib);
        *ret_root = in_stdlib ? l->stdlib : l->root;
        if (!from || !*ret_root) {
            snprintf(reason, 256, "there is no importing file that it could be relative to");
            return PPS_ERR_SCRIPT;
        }
        const char *slash = strrchr(from, '/');
        n = snprintf(ret_path, bytes, "%.*s%s", (int)(slash ? slash - from + 1 : 0), from, path);
    }
    if (n < 0 || (size_t)n >= bytes) {
        snprintf(reason, 256, "the path is too long");
        return PPS_ERR_SCRIPT;
    }
    return PPS_OK;
}

pps_status loader_load(void *ud, const char *from, const char *path, pps_source *ret,
                       char reason[256])
{
    const loader *l = ud;
    char aimed[PATH_MAX];
    const char *root = NULL;
    PPS_TRY(aim(l, from, path, aimed, sizeof aimed, &root, reason));
    char *resolved = realpath(aimed, NULL);
    if (!resolved) {
        if (errno == ENOENT && !ends_in_pps(path))
            snprintf(reason, 256, "the stdlib has no module of this name (a file needs its .pps)");
        else
            snprintf(reason, 256, "%s", strerror(errno));
        return PPS_ERR_IO;
    }
    if (!is_under(resolved, root)) {
        free(resolved);
        snprintf(reason, 256, "it lies outside the folder of the script");
        return PPS_ERR_SCRIPT;
    }
    return load_file(l, resolved, ret, reason);
}

pps_status loader_script(loader *l, const char *path, pps_source *ret, char reason[256])
{
    char *resolved = realpath(path, NULL);
    if (!resolved) {
        snprintf(reason, 256, "%s", strerror(errno));
        return PPS_ERR_IO;
    }
    free(l->root);
    l->root = folder_of(resolved);
    return load_file(l, resolved, ret, reason);
}
