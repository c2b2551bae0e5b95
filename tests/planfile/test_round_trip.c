/* SPDX-License-Identifier: Apache-2.0
 *
 * test_round_trip.c: what is written is what is read, in both forms and across them, byte for byte;
 * the plans that come back are proved, and name the script's places without having the script.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include <math.h>
#include <stdlib.h>

#include "compiled.h"

static void both_forms(void **state)
{
    (void)state;
    for (unsigned i = 0; i < compiled_n_scripts; i++) {
        compiled a, back[2];
        compiled_script(&a, compiled_scripts[i]);
        assert_non_null(a.set);
        bytes written[2] = {bytes_of(a.st, a.set, PLAN_FILE_BINARY),
                            bytes_of(a.st, a.set, PLAN_FILE_TEXT)};
        assert_int_equal(plan_file_detect(written[0].data, written[0].n), PLAN_FILE_BINARY);
        assert_int_equal(plan_file_detect(written[1].data, written[1].n), PLAN_FILE_TEXT);
        for (int form = 0; form < 2; form++) {
            compiled_read(&back[form], written[form].data, written[form].n);
            if (back[form].set == NULL)
                print_message("%s\n", back[form].said);
            assert_non_null(back[form].set);
            assert_int_equal(pps_prove(back[form].st, back[form].set), PPS_OK);
            bytes again[2] = {bytes_of(back[form].st, back[form].set, PLAN_FILE_BINARY),
                              bytes_of(back[form].st, back[form].set, PLAN_FILE_TEXT)};
            for (int other = 0; other < 2; other++) {
                assert_true(bytes_equal(&written[other], &again[other]));
                free(again[other].data);
            }
            compiled_close(&back[form]);
        }
        free(written[0].data);
        free(written[1].data);
        compiled_close(&a);
    }
}

/* A figure that a plan does not have. */
static void no_figure(void **state)
{
    (void)state;
    compiled a, b;
    compiled_script(&a, compiled_scripts[0]);
    a.set->bubble = NAN;
    for (int form = PLAN_FILE_BINARY; form <= PLAN_FILE_TEXT; form++) {
        bytes x = bytes_of(a.st, a.set, (plan_file_form)form);
        compiled_read(&b, x.data, x.n);
        assert_non_null(b.set);
        assert_true(isnan(b.set->bubble));
        bytes y = bytes_of(b.st, b.set, (plan_file_form)form);
        assert_true(bytes_equal(&x, &y));
        free(x.data);
        free(y.data);
        compiled_close(&b);
    }
    compiled_close(&a);
}

static void same_script_same_bytes(void **state)
{
    (void)state;
    compiled a, b;
    compiled_script(&a, compiled_scripts[2]);
    compiled_script(&b, compiled_scripts[2]);
    bytes x = bytes_of(a.st, a.set, PLAN_FILE_BINARY), y = bytes_of(b.st, b.set, PLAN_FILE_BINARY);
    assert_true(bytes_equal(&x, &y));
    free(x.data);
    free(y.data);
    compiled_close(&a);
    compiled_close(&b);
}

static void places_without_sources(void **state)
{
    (void)state;
    compiled a, b;
    compiled_script(&a, compiled_scripts[1]);
    bytes x = bytes_of(a.st, a.set, PLAN_FILE_BINARY);
    compiled_read(&b, x.data, x.n);
    assert_non_null(b.set);
    for (uint32_t g = 0; g < a.set->n_groups; g++)
        for (uint32_t i = 0; i < a.set->plans[g].n_steps; i++) {
            const char *file[2];
            uint32_t line[2], column[2];
            pps_span_place(a.st, plan_place_of(a.set, &a.set->plans[g].steps[i]), &file[0],
                           &line[0], &column[0]);
            pps_span_place(b.st, plan_place_of(b.set, &b.set->plans[g].steps[i]), &file[1],
                           &line[1], &column[1]);
            assert_string_equal(file[0], file[1]);
            assert_int_equal(line[0], line[1]);
            assert_int_equal(column[0], column[1]);
        }
    pps_diag *d = pps_diag_start(b.st, PPS_SEV_ERROR, 903, b.set->train.data_span, "too short");
    pps_diag_label(d, "this data");
    pps_diag_also(d, b.set->params[0].span, "a parameter");
    pps_diag_done(d);
    assert_non_null(strstr(b.said, "error[E0903]: too short\n"));
    assert_non_null(strstr(b.said, "--> test.pps:4:71 this data\n"));
    assert_non_null(strstr(b.said, "::: models/mlp:"));
    assert_string_equal(b.set->train.data_path, "a.txt");
    assert_string_equal(b.set->train.data_path + 6, "folder/b.txt");
    assert_int_equal(b.set->train.n_data_paths, 2);
    assert_string_equal(b.set->train.weights_path, "w.safetensors");
    free(x.data);
    compiled_close(&a);
    compiled_close(&b);
}

/* A text form that somebody edited says so in place of its checksum. */
static void edited_text(void **state)
{
    (void)state;
    compiled a, b;
    compiled_script(&a, compiled_scripts[0]);
    bytes x = bytes_of(a.st, a.set, PLAN_FILE_TEXT);
    char *text = calloc(1, x.n + 100), *at;
    memcpy(text, x.data, x.n);
    at = strstr(text, "train seed=7");
    assert_non_null(at);
    at[11] = '8';
    compiled_read(&b, text, x.n);
    assert_int_equal(b.code, 1103);
    compiled_close(&b);
    at = strstr(text, " crc=");
    memcpy(at, " crc=-\n# changed the seed\n\n", 28);
    compiled_read(&b, text, strlen(text));
    assert_non_null(b.set);
    assert_int_equal(b.set->train.seed, 8);
    compiled_close(&b);
    free(text);
    free(x.data);
    compiled_close(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_forms),
        cmocka_unit_test(no_figure),
        cmocka_unit_test(same_script_same_bytes),
        cmocka_unit_test(places_without_sources),
        cmocka_unit_test(edited_text),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
