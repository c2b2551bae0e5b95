/* SPDX-License-Identifier: Apache-2.0
 *
 * tensor_diff.c: a tool to look at what `pps run --save` and `--save-gradients` wrote.
 *
 *   tensor_diff [--tolerance X] FILE REFERENCE
 *       per tensor: max|difference| <= X max|reference|
 *   tensor_diff --norms FILE
 *       the L2 norm of every tensor, and of every expert in it
 *   tensor_diff [--tolerance X] --oracle JSON FILE
 *       the norms against the JSON's step1_gradient_l2
 *
 * Status 0: within the tolerance (1e-5), 1: not, 2: usage or an unreadable file.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "norms.h"

typedef struct request {
    const char *files[2], *oracle;
    int n_files;
    bool norms;
    double tolerance;
} request;

static bool read_request(int argc, char **argv, request *q)
{
    *q = (request){.tolerance = 1e-5};
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--norms") == 0) {
            q->norms = true;
        } else if (strcmp(argv[i], "--tolerance") == 0 && i + 1 < argc) {
            q->tolerance = strtod(argv[++i], NULL);
        } else if (strcmp(argv[i], "--oracle") == 0 && i + 1 < argc) {
            q->oracle = argv[++i];
        } else if (argv[i][0] != '-' && q->n_files < 2) {
            q->files[q->n_files++] = argv[i];
        } else {
            return false;
        }
    }
    return q->n_files == (q->norms || q->oracle ? 1 : 2);
}

static void print_norms(const tensor_file *f)
{
    for (uint32_t i = 0; i < f->n; i++) {
        const tensor *t = &f->tensors[i];
        printf("%-60s %.9g\n", t->name, norm_of(t->values, t->elems));
        if (!strstr(t->name, ".experts."))
            continue;
        uint64_t elems = t->elems / t->first_dim;
        for (uint64_t e = 0; e < t->first_dim; e++)
            printf("  expert %-51llu %.9g\n", (unsigned long long)e,
                   norm_of(t->values + e * elems, elems));
    }
}

static int compare_oracle(const request *q, const tensor_file *f)
{
    reason why;
    double worst = 0;
    json_error_t error;
    json_t *oracle = json_load_file(q->oracle, 0, &error);
    if (!oracle) {
        fprintf(stderr, "tensor_diff: %s: %s\n", q->oracle, error.text);
        return 2;
    }
    bool ok =
        norms_near(f, json_object_get(oracle, "step1_gradient_l2"), q->tolerance, &worst, &why);
    if (ok)
        printf("norms differ by at most %.3g of their own\n", worst);
    else
        printf("%s\n", why.text);
    json_decref(oracle);
    return !ok;
}

static int compare_files(const request *q, const tensor_file *f)
{
    reason why;
    tensor_file reference;
    tensor_worst worst;
    if (!tensors_read(q->files[1], &reference, &why)) {
        fprintf(stderr, "tensor_diff: %s\n", why.text);
        return 2;
    }
    int status = 1;
    if (!tensors_compare(f, &reference, &worst, &why)) {
        printf("%s\n", why.text);
    } else {
        printf("%u tensors; the worst is %s: %.3g, %.3g of its largest element\n", f->n, worst.name,
               worst.difference, worst.error);
        status = worst.error > q->tolerance;
    }
    tensors_done(&reference);
    return status;
}

int main(int argc, char **argv)
{
    request q;
    reason why;
    tensor_file f;
    if (!read_request(argc, argv, &q)) {
        fprintf(stderr, "usage: tensor_diff [--tolerance X] FILE REFERENCE\n"
                        "       tensor_diff --norms FILE\n"
                        "       tensor_diff [--tolerance X] --oracle JSON FILE\n");
        return 2;
    }
    if (!tensors_read(q.files[0], &f, &why)) {
        fprintf(stderr, "tensor_diff: %s\n", why.text);
        return 2;
    }
    int status = 0;
    if (q.norms)
        print_norms(&f);
    else
        status = q.oracle ? compare_oracle(&q, &f) : compare_files(&q, &f);
    tensors_done(&f);
    return status;
}
