/* SPDX-License-Identifier: Apache-2.0
 *
 * fixture.c: what the tests of runtime/train share.
 */
#include "fixture.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

static char path_buffer[512];

static void remember(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    fixture *f = ud;
    (void)severity;
    (void)span;
    f->code = code;
    snprintf(f->text, sizeof f->text, "%s", text);
}

int fixture_open(void **state)
{
    fixture *f = calloc(1, sizeof *f);
    if (f == NULL)
        return -1;
    pps_config config = {.size = sizeof config, .diag = remember, .diag_ud = f};
    const char *base = getenv("TMPDIR");
    snprintf(f->folder, sizeof f->folder, "%.40s/pps-test-XXXXXX", base != NULL ? base : P_tmpdir);
    if (pps_open(PPS_ABI, &config, &f->st) != PPS_OK || mkdtemp(f->folder) == NULL)
        return -1;
    *state = f;
    return 0;
}

int fixture_close(void **state)
{
    fixture *f = *state;
    DIR *folder = opendir(f->folder);
    for (struct dirent *e; folder != NULL && (e = readdir(folder)) != NULL;)
        if (e->d_name[0] != '.')
            unlink(fixture_path(f, e->d_name));
    if (folder != NULL)
        closedir(folder);
    rmdir(f->folder);
    pps_close(f->st);
    free(f);
    return 0;
}

void fixture_clear(fixture *f)
{
    f->code = 0;
    f->text[0] = '\0';
    pps_clear_errors(f->st);
}

void fixture_expect(fixture *f, int code, const char *part)
{
    if (f->code != code || strstr(f->text, part) == NULL)
        fail_msg("expected E%04d with \"%s\", got E%04d: %s", code, part, f->code, f->text);
    fixture_clear(f);
}

const char *fixture_path(fixture *f, const char *name)
{
    snprintf(path_buffer, sizeof path_buffer, "%s/%s", f->folder, name);
    return path_buffer;
}

const char *fixture_file(fixture *f, const char *name, const void *bytes, size_t n)
{
    FILE *file = fopen(fixture_path(f, name), "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes, 1, n, file), n);
    assert_int_equal(fclose(file), 0);
    return path_buffer;
}

const char *fixture_oracle(const char *name)
{
    const char *folder = getenv("PPS_ORACLES"), *root = getenv("PPS_ROOT");
    if (folder != NULL)
        snprintf(path_buffer, sizeof path_buffer, "%s/%s", folder, name);
    else
        snprintf(path_buffer, sizeof path_buffer, "%s/../shared/oracles/%s",
                 root != NULL ? root : ".", name);
    if (access(path_buffer, R_OK) == 0)
        return path_buffer;
    print_message("skipped: %s is not there (set PPS_ORACLES to the folder of the oracles)\n",
                  path_buffer);
    return NULL;
}

ir_param fixture_param(const char *name, uint32_t a, uint32_t b, uint32_t c)
{
    ir_param p = {.name = name, .dims = {a, b, c}, .init = IR_INIT_NORMAL, .init_std = 0.02f};
    p.n_dims = c != 0 ? 3 : b != 0 ? 2 : 1;
    return p;
}
