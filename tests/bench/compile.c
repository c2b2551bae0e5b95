/* SPDX-License-Identifier: Apache-2.0
 *
 * compile: what compiling costs per node as the microbatches grow. Not a test: it times.
 *
 *   meson compile -C build/tests bench_compile && PPS_STDLIB=stdlib
 * build/tests/tests/bench/bench_compile [RANKS]
 *
 * DualPipeV on RANKS ranks (8) with two replicas and sharded experts; each row is the median of
 * five compilations, the script's evaluation left out.
 */
#include <stdio.h>
#include <stdlib.h>

#include "tests/passes/compiled.h"

enum { RUNS = 5 };

static void write_script(char *text, size_t n, unsigned R, unsigned M)
{
    snprintf(text, n,
             "from \"models/qwen3_moe\" import qwen3_moe\n"
             "from \"schedules\" import dualpipev, v_stages\n"
             "let pp, dp, ep = [stream(\"pp\"), stream(\"dp\"), stream(\"ep\")]\n"
             "train qwen3_moe(tokens(%u, 32), targets(), stages=%u, layers=%u) optimizer sgd(0.1)\n"
             "split {} by MB into %u\n"
             "for s in 0..%u {\n"
             "  let d = v_stages(%u, 2)[s]\n"
             "  place {PP: s} on d stream pp\n"
             "  replicate {PP: s} on d reduce dp\n"
             "  shard {PP: s, EP: *} on d stream ep\n"
             "}\n"
             "order dualpipev(%u, %u)\n",
             2 * M, 2 * R, 2 * R, M, 2 * R, R, R, M);
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    static compiled c;
    char text[2048];
    unsigned R = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 8;
    if (R < 1 || R > 256) {
        fprintf(stderr, "usage: bench_compile [RANKS]\n");
        return 2;
    }
    printf("dualpipev, %u ranks x 2 replicas, experts sharded\n", R);
    printf("%12s %10s %10s %10s %10s\n", "microbatches", "nodes", "edges", "ms", "ns/node");
    for (unsigned M = 2 * R; M <= 64 * R; M *= 2) {
        double ms[RUNS];
        uint32_t nodes = 0, edges = 0;
        write_script(text, sizeof text, R, M);
        for (int i = 0; i < RUNS; i++) {
            compiled_open(&c, text, 0, NULL);
            if (c.status != PPS_OK) {
                fprintf(stderr, "%s", c.said);
                return 1;
            }
            ms[i] = c.set->compile_ms;
            nodes = c.set->n_nodes;
            edges = c.set->n_edges;
            compiled_close(&c);
        }
        qsort(ms, RUNS, sizeof *ms, by_value);
        printf("%12u %10u %10u %10.2f %10.0f\n", M, nodes, edges, ms[RUNS / 2],
               ms[RUNS / 2] * 1e6 / nodes);
    }
    return 0;
}
