/* SPDX-License-Identifier: Apache-2.0
 *
 * test_mutations.c: files of Piper's JSON cut short, with bytes changed, and with allocations
 * failing: an import ends with a script or with diagnostics, and whatever it accepts evaluates.
 * Arguments: the files.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "ir/piper.h"

enum { MAX_FILE = 1 << 16, MUTATIONS = 3000 };

typedef struct example {
    char text[MAX_FILE];
    size_t bytes;
} example;

static example examples[2];
static size_t n_examples;

typedef struct host {
    pps_state *st;
    ir_program *program;
    uint32_t n_errors;
    uint64_t left; /* allocations that succeed; UINT64_MAX: all */
    char last[512];
} host;

static void on_diag(void *ud, pps_severity severity, int code, pps_span span, const char *text)
{
    host *h = ud;
    (void)code, (void)span;
    h->n_errors += severity == PPS_SEV_ERROR;
    snprintf(h->last, sizeof h->last, "%s", text);
}

static void *limited(void *ud, void *ptr, size_t old_bytes, size_t new_bytes)
{
    host *h = ud;
    (void)old_bytes;
    if (new_bytes == 0) {
        free(ptr);
        return NULL;
    }
    if (h->left == 0)
        return NULL;
    h->left -= h->left != UINT64_MAX;
    return realloc(ptr, new_bytes);
}

static pps_status host_open(host *h, uint64_t allocations)
{
    *h = (host){.left = allocations};
    pps_config config = {
        .size = sizeof config, .alloc = limited, .alloc_ud = h, .diag = on_diag, .diag_ud = h};
    pps_status status = pps_open(PPS_ABI, &config, &h->st);
    return status == PPS_OK ? ir_open(h->st, &h->program) : status;
}

static void host_close(host *h)
{
    pps_close(h->st);
    ir_close(h->program);
}

/* Import, and evaluate what comes out. */
static pps_status import(host *h, const char *json, size_t bytes)
{
    char *script = NULL;
    pps_status status = piper_import(h->st, "file.json", json, bytes, NULL, &script);
    if (status != PPS_OK) {
        assert_null(script);
        return status;
    }
    status = pps_eval(h->st, "script.pps", "script.pps", script, strlen(script));
    if (status == PPS_ERR_SCRIPT)
        print_error("%s\n%.*s\n%s\n", h->last, (int)bytes, json, script);
    assert_int_not_equal(status, PPS_ERR_SCRIPT);
    free(script);
    return status;
}

static void expect_an_end(const char *json, size_t bytes, bool may_succeed)
{
    host h;
    assert_int_equal(host_open(&h, UINT64_MAX), PPS_OK);
    pps_status status = import(&h, json, bytes);
    if (status == PPS_OK)
        assert_true(may_succeed && h.n_errors == 0);
    else
        assert_true(status == PPS_ERR_SCRIPT && h.n_errors > 0);
    host_close(&h);
}

static void truncated(void **state)
{
    (void)state;
    for (size_t i = 0; i < n_examples; i++) {
        const example *e = &examples[i];
        size_t whole = (size_t)(strrchr(e->text, ']') - e->text) + 1;
        for (size_t n = 0; n <= e->bytes; n += n < 600 || n + 50 > e->bytes ? 1 : 13)
            expect_an_end(e->text, n, n >= whole);
    }
}

static uint32_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return *seed >> 8;
}

static void changed(void **state)
{
    (void)state;
    static const char pieces[] = "{}[]\",:0123456789-.*eFBIWPMnulltruefalse\\u\x80\xff\n ";
    static char text[MAX_FILE];
    uint32_t seed = 1;
    for (size_t i = 0; i < n_examples; i++)
        for (int k = 0; k < MUTATIONS; k++) {
            size_t bytes = examples[i].bytes;
            memcpy(text, examples[i].text, bytes);
            for (uint32_t changes = next(&seed) % 3 + 1; changes > 0; changes--) {
                size_t at = next(&seed) % bytes, to = next(&seed) % bytes;
                size_t n = next(&seed) % 40 + 1;
                if (next(&seed) % 4 == 0 && at + n < bytes && to + n < bytes)
                    memmove(text + to, text + at, n);
                else
                    text[at] = pieces[next(&seed) % (sizeof pieces - 1)];
            }
            expect_an_end(text, bytes, true);
        }
}

static void no_memory(void **state)
{
    (void)state;
    const example *e = &examples[0];
    pps_status status = PPS_ERR_NOMEM;
    for (uint64_t n = 0; status != PPS_OK; n++) {
        host h;
        assert_true(n < 100000);
        status = host_open(&h, n);
        if (status == PPS_OK)
            status = import(&h, e->text, e->bytes);
        else
            assert_int_equal(status, PPS_ERR_NOMEM);
        host_close(&h);
    }
}

static bool read_example(const char *path, example *ret)
{
    FILE *file = fopen(path, "rb");
    if (!file)
        return false;
    ret->bytes = fread(ret->text, 1, MAX_FILE - 1, file);
    fclose(file);
    return ret->bytes > 0 && strrchr(ret->text, ']');
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc && n_examples < 2; i++)
        if (!read_example(argv[i], &examples[n_examples++])) {
            fprintf(stderr, "cannot read %s\n", argv[i]);
            return 2;
        }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated),
        cmocka_unit_test(changed),
        cmocka_unit_test(no_memory),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
