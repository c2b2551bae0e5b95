/* SPDX-License-Identifier: Apache-2.0
 *
 * directive.h: directives as records, checked for form but not yet applied.
 *
 * ir_program is all that the compiler reads: the traced graph and, per kind, the directives with their
 * filters taken apart. Rows of `order` are flat: entry e begins a new group unless `joins` is set.
 */
#ifndef PPS_IR_DIRECTIVE_H
#define PPS_IR_DIRECTIVE_H

#include "ir/graph.h"

enum { IR_PASS_F = 1, IR_PASS_B = 2, IR_PASS_BI = 4, IR_PASS_BW = 8 }; /* 1 << pps_pass */

typedef struct ir_filter { /* conjunction of terms; 0 terms match everything */
    uint32_t begin, n;     /* in ir_program.terms */
    pps_span span;
} ir_filter;
typedef struct ir_term {
    const char *tag;
    uint8_t kind; /* pps_term_kind */
    uint8_t pass, comm;
    uint32_t begin, n; /* PPS_TERM_SET: in ir_program.ints, ascending */
} ir_term;

typedef struct ir_devices { /* a device list; `on [[0, 2], [4, 6]]` has two groups */
    uint32_t begin, n;      /* in ir_program.ints, groups one after the other */
    uint32_t n_groups;      /* equal sizes */
    pps_span span;
} ir_devices;

typedef struct ir_directive {
    const pps_directive *source; /* spans, frames, context */
    ir_filter filter;
    ir_devices devices;    /* place, replicate, shard */
    const char *tag;       /* split: by */
    uint32_t n;            /* split: into */
    bool along_sequence;   /* split: positions of every microbatch, not rows of the batch */
    uint32_t stream;       /* place, shard, offload; replicate: reduce. Index, or IR_NONE */
    uint32_t gather;       /* replicate */
    uint32_t zero, every, prefetch; /* replicate; every: 0 when not given; prefetch: look at its clause */
    uint64_t bucket_bytes; /* replicate; 0 when not given */
    const char *as;        /* shard: "expert", "tensor", "sequence" */
    bool sequence;
    double capacity; /* 0: none */
    bool applied;    /* set by the pass that used it; a directive never used is an error */
} ir_directive;

typedef struct ir_entry { /* one op of a row */
    /* of general entries as far as the filter names one of each, else IR_NONE, PPS_PASS_COUNT */
    uint32_t stage, mb;
    uint32_t slice; /* of the microbatch, + 1; 0: all of them, or as `filter` says */
    uint8_t pass, comm;
    bool joins;           /* in the same group as the entry before it */
    bool general;         /* named by `filter`, not by stage and microbatch */
    uint32_t filter;      /* index in ir_program.filters when general */
    uint32_t origin;      /* pps_origin_span */
} ir_entry;
typedef struct ir_row {
    uint32_t begin, n; /* in ir_program.entries */
    uint32_t n_groups;
    uint32_t directive; /* index in ir_program.orders */
} ir_row;

typedef enum ir_optimizer_kind { IR_OPT_SGD, IR_OPT_ADAMW } ir_optimizer_kind;
typedef struct ir_optimizer {
    uint8_t kind;
    bool decay_all; /* decay="all"; else only parameters of two or more dimensions */
    float lr, beta1, beta2, eps, weight_decay, momentum;
} ir_optimizer;

typedef enum ir_source_kind { IR_SOURCE_NONE, IR_SOURCE_BYTES, IR_SOURCE_TOKENS } ir_source_kind;
typedef struct ir_train {
    const pps_directive *source;
    ir_source_kind data;
    const char *data_path;    /* as written; relative to the script */
    uint32_t n_data_paths;    /* bytes(["a", "b"]): paths after each other, NUL-separated, n of them */
    pps_span data_span;
    const char *weights_path; /* or NULL */
    pps_span weights_span;
    ir_optimizer optimizer;
    bool has_optimizer; /* else sgd(lr=0.01) with a note */
    uint64_t seed;
    ir_id *loss_ops;
    uint32_t n_loss_ops;
} ir_train;

typedef struct ir_program {
    ir_graph *graph;
    pps_state *st;
    arena *mem;
    ir_train train;
    bool has_train;
    ir_directive *directives; /* in script order, all kinds but train and order */
    uint8_t *kinds;           /* pps_directive_kind of each */
    uint32_t n_directives, cap_directives;
    const char *slice_tag; /* of a split along the sequence, into n_slices; NULL: there is none */
    uint32_t n_slices;
    const pps_directive **orders;
    uint32_t n_orders, cap_orders;
    ir_row *rows;
    uint32_t n_rows, cap_rows;
    ir_entry *entries;
    uint32_t n_entries, cap_entries;
    ir_filter *filters;
    uint32_t n_filters, cap_filters;
    ir_term *terms;
    uint32_t n_terms, cap_terms;
    uint32_t *ints;
    uint32_t n_ints, cap_ints;
} ir_program;

/* ---- trace.c: what ir adds to a state --------------------------------------------------------- */
/* Registers tracing builtins (tokens, targets, features, embed, linear, ..., bytes, token_file, adamw,
 * sgd, opaque) and the hooks on_model, on_annotate, on_directive. The program fills as scripts run.
 * Owned: close with ir_close after pps_close. On failure close the state too: what was registered is
 * gone. */
pps_status ir_open(pps_state *st, ir_program **ret);
void ir_close(ir_program *p);
/* After the script ended: the directives that count; what ir_program_finish begins with. Enough for
 * who reads directives alone, with or without a train. */
pps_status ir_program_collect(ir_program *p);
/* After the script ended: collects the directives that count, resolves train, cuts the graph, checks the
 * names of tags (E0203, E0204). May be called again after more was run: it starts over, and `graph` is new.
 * The graph holds what train's loss needs and nothing else.
 * PPS_ERR_SCRIPT after diagnostics (no train, bad clause values, ...). Rows without a model (for
 * `pps sim --rows`) use ir_rows_from_value instead. */
pps_status ir_program_finish(ir_program *p);
/* Turn a value (a row or a list of rows) into rows of `p`, as `order` does. */
pps_status ir_rows_from_value(ir_program *p, pps_value rows, const pps_directive *directive);
/* Canonical text of a row: "F0:0 F0:2|B3:0"; general entries as filters. Owned by the caller (free). */
char *ir_row_text(const ir_program *p, const ir_row *row);

#endif
