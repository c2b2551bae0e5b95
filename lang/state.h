/* SPDX-License-Identifier: Apache-2.0
 *
 * state.h: what one interpreter owns. Internal to lang. Each member belongs to the file named beside
 * it, which alone changes it; others go through that file's functions.
 */
#ifndef PPS_STATE_H
#define PPS_STATE_H

#include <stdatomic.h>
#include "lang/arena.h"
#include "lang/intern.h"
#include "lang/source.h"
#include "lang/value.h"

typedef struct heap { /* heap.c */
    object *all;
    size_t bytes, peak_bytes, threshold, max_bytes;
    value *protected_values;
    size_t n_protected, cap_protected;
    object **gray; /* mark stack */
    size_t n_gray, cap_gray;
    bool gray_lost; /* an object did not fit the mark stack: look for it in `all` */
    bool reporting; /* a failed allocation is being reported; failing again stays silent */
} heap;

typedef struct filter_table { /* filter.c: interned filters; weak */
    filter **slots; /* chains through filter.next_in_slot; cap is a power of two */
    size_t n, cap;
} filter_table;

typedef struct stream_item {
    const char *name; /* interned */
    uint32_t ctas;    /* 0: not said */
} stream_item;
typedef struct stream_table { /* builtins_schedule.c */
    stream_item *items;
    uint32_t n, cap;
} stream_table;

typedef struct builtin_table { /* builtins_rng.c, builtins_mesh.c: handle types and what their payloads index */
    uint32_t rng_type, mesh_type;
    struct rng *rngs;
    struct mesh *meshes;
    uint32_t n_rngs, cap_rngs, n_meshes, cap_meshes;
} builtin_table;

struct vm;      /* vm.c: registers, frames, globals, modules, host functions, directives */
struct diag_cx; /* diag.c: hook, counts, the errors of this run */

struct pps_state {
    pps_config config;
    arena names;         /* strings of `intern` and other things that live as long as the state */
    intern_table intern; /* intern.c */
    source_table sources; /* source.c: file texts, line tables, span -> place */
    heap heap;
    filter_table filters;
    stream_table streams;
    builtin_table builtins;
    struct vm *vm;
    struct diag_cx *diag;
    pps_hooks hooks;
    struct {
        const char *pp, *mb, *pass, *comm; /* the four tag names the core knows */
    } tags;
    atomic_bool interrupted;
};

/* vm.c: what others need of the running program */
pps_span vm_current_span(pps_state *st);  /* the instruction or call now running */
void vm_current_frames(pps_state *st, pps_frame *frames, uint32_t cap, uint32_t *ret_n);
pps_status vm_charge(pps_state *st, uint64_t steps);
pps_status vm_call(pps_state *st, value fn, size_t argc, const value *argv, value *ret);
void vm_mark_roots(pps_state *st); /* called by heap_collect */
void vm_object_mark(pps_state *st, object *o); /* FN, MODULE: objects defined in vm.c */
void vm_object_free(pps_state *st, object *o);
const char *vm_object_name(object *o); /* for printing: "f" of fn f */
/* A name every module sees, bound to `v`: F, B, BI, BW. For functions pps_def does this. */
pps_status vm_def_value(pps_state *st, const char *name, value v, const char *doc);
/* The operations registered for a handle type, and their userdata; NULL when there is no such type. */
const pps_handle_ops *vm_handle_ops(pps_state *st, uint32_t handle_type, void **ret_ud);

/* diag.c: while held (nests), finished diagnostics go to no hook and no count; diag_release drops
 * what was held since and gives the first error's title (borrowed until the next hold; "" if none). */
pps_status diag_hold(pps_state *st);
const char *diag_release(pps_state *st);
/* The other end, for failures that must surface (limits, interrupts): held ones are reported. */
void diag_release_reported(pps_state *st);

#endif
