/* SPDX-License-Identifier: Apache-2.0
 *
 * front_state.c: see front_state.h.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "front_state.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "lang/diag.h"

static void *front_alloc(void *ud, void *ptr, size_t old_bytes, size_t new_bytes)
{
    front_state *f = ud;
    if (new_bytes > old_bytes && ++f->n_allocs == f->fail_at)
        return NULL;
    void *p = NULL;
    if (new_bytes == 0)
        free(ptr);
    else
        p = realloc(ptr, new_bytes);
    f->bytes_out += new_bytes - old_bytes;
    return p;
}

static void append(char **bytes, size_t *n, const char *more, size_t n_more)
{
    *bytes = realloc(*bytes, *n + n_more + 1);
    assert_non_null(*bytes);
    memcpy(*bytes + *n, more, n_more);
    *n += n_more;
    (*bytes)[*n] = '\0';
}

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *shown)
{
    front_state *f = ud;
    (void)severity;
    (void)code;
    (void)span;
    append(&f->shown, &f->n_shown, shown, strlen(shown));
    f->n_calls++;
}

bool front_open(front_state *f, size_t fail_at)
{
    *f = (front_state){.fail_at = fail_at};
    f->st.config.alloc = front_alloc;
    f->st.config.alloc_ud = f;
    f->st.config.diag = on_diag;
    f->st.config.diag_ud = f;
    append(&f->shown, &f->n_shown, "", 0);
    arena_init(&f->st.names, front_alloc, f);
    arena_init(&f->trees, front_alloc, f);
    intern_init(&f->st.intern, &f->st.names);
    return diag_open(&f->st) == PPS_OK;
}

void front_close(front_state *f)
{
    diag_close(&f->st);
    source_done(&f->st);
    intern_done(&f->st.intern);
    arena_done(&f->trees);
    arena_done(&f->st.names);
    free(f->shown);
    assert_int_equal(f->bytes_out, 0);
}

pps_status front_parse(front_state *f, const char *name, const char *source, size_t bytes,
                       ast_file *ret)
{
    uint32_t file;
    *ret = (ast_file){0};
    PPS_TRY(source_add(&f->st, name, source, bytes, &file));
    return parse_file(&f->st, file, &f->trees, ret);
}

const char *front_codes(const char *source, char out[256])
{
    front_state f;
    ast_file file;
    size_t n = 0;
    assert_true(front_open(&f, 0));
    pps_status status = front_parse(&f, "t.pps", source, strlen(source), &file);
    out[0] = '\0';
    for (const char *p = f.shown; (p = strstr(p, "[E")) != NULL && n + 8 < 256; p++) {
        if (p != f.shown && p[-1] != 'r' && p[-1] != 'g') /* "error[" or "warning[" */
            continue;
        n += (size_t)snprintf(out + n, 256 - n, "%s%.5s", n != 0 ? " " : "", p + 1);
    }
    assert_int_equal(status == PPS_OK, pps_error_count(&f.st) == 0);
    front_close(&f);
    return out;
}

typedef struct dumped {
    char *bytes;
    size_t n;
} dumped;

static void on_print(void *ud, const char *more, size_t n)
{
    dumped *d = ud;
    append(&d->bytes, &d->n, more, n);
}

char *front_dump(const ast_node *root)
{
    dumped d = {NULL, 0};
    on_print(&d, "", 0);
    ast_dump(root, on_print, &d);
    return d.bytes;
}
