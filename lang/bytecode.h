/* SPDX-License-Identifier: Apache-2.0
 *
 * bytecode.h: compiled functions.
 *
 *   an instruction   31..24 C | 23..16 B | 15..8 A | 7..0 opcode      Bx = C and B together
 *
 * A function's code, constants and tables live in the code arena of the VM and as long as the
 * state. The tables beside the code serve messages alone; running reads none of them.
 */
#ifndef PPS_BYTECODE_H
#define PPS_BYTECODE_H

#include "lang/value.h"

typedef enum bc_op {
#define BC(name, operands, words) BC_##name,
#include "lang/bytecode.def"
#undef BC
    BC_COUNT
} bc_op;

enum { BC_MAX_REGS = 250, BC_MAX_BX = 0xffff };

static inline uint32_t bc_abc(bc_op op, uint32_t a, uint32_t b, uint32_t c)
{
    return (uint32_t)op | a << 8 | b << 16 | c << 24;
}
static inline uint32_t bc_abx(bc_op op, uint32_t a, uint32_t bx)
{
    return (uint32_t)op | a << 8 | bx << 16;
}
#define BC_OP(i) ((i)&0xff)
#define BC_A(i)  ((i) >> 8 & 0xff)
#define BC_B(i)  ((i) >> 16 & 0xff)
#define BC_C(i)  ((i) >> 24)
#define BC_BX(i) ((i) >> 16)

typedef struct bc_local { /* a variable's register while it is in scope */
    const char *name;
    pps_span span;
    uint32_t begin, end; /* code positions */
    uint8_t reg;
    bool loop; /* a loop variable: shown in messages */
} bc_local;

typedef struct bc_iter { /* a loop that walks the object in `reg` */
    uint32_t begin, end;
    uint8_t reg;
} bc_iter;

/* Where an operand was written; `pc` is the position of the instruction's last word. */
typedef struct bc_arg {
    uint32_t pc, index;
    pps_span span;
} bc_arg;
enum { BC_ARG_CALLEE = 0xffff }; /* index of the callee's span; arguments count from 0 */

typedef struct bc_upvalue {
    const char *name;
    pps_span span;
    bool from_local; /* register of the enclosing function, else its upvalue */
    uint8_t index;
} bc_upvalue;

typedef struct bc_param {
    const char *name;
    pps_span span;
    bool has_default;
} bc_param;

typedef struct bc_filter {
    uint32_t n;
    const char *tags[PPS_MAX_TERMS];
    char signs[PPS_MAX_TERMS]; /* '*' or '-' where one is written; 0: a value */
} bc_filter;

typedef struct bc_names {
    uint32_t n;
    const char **names;
    pps_span *spans;
} bc_names;

typedef enum bc_clause_type { /* the types of clauses.def */
                              BC_CLAUSE_INT,
                              BC_CLAUSE_NUMBER,
                              BC_CLAUSE_BOOL,
                              BC_CLAUSE_STRING,
                              BC_CLAUSE_STREAM,
                              BC_CLAUSE_DEVICES,
                              BC_CLAUSE_NAME,
                              BC_CLAUSE_DATA,
                              BC_CLAUSE_OPTIMIZER,
} bc_clause_type;

typedef struct bc_directive {
    pps_directive_kind kind;
    pps_span span, subject_span;
    uint32_t n_clauses;
    struct bc_directive_clause {
        const char *word;
        bc_clause_type type;
        pps_span word_span, span;
    } clauses[PPS_MAX_CLAUSES];
} bc_directive;

typedef struct bc_annotate {
    const char *tag;
    pps_span span; /* of `annotate TAG` */
} bc_annotate;

struct module;

typedef struct bc_proto {
    const char *name; /* "fn" when it has none */
    pps_span span;    /* its head: `fn f(a, b)` */
    const char *doc;  /* its ## comment, or NULL */
    struct module *mod;
    bool is_model, is_main;
    uint32_t n_params, n_required, n_regs;
    uint32_t body;        /* where the code begins when no default is needed */
    uint32_t cost;        /* steps charged by a call: the words before the first jump */
    uint32_t origin_base; /* origin id of code position 0 */
    uint32_t n_code, n_consts, n_protos, n_upvalues, n_names, n_locals, n_iters, n_args;
    uint32_t n_filters, n_name_lists, n_directives, n_annotates;
    uint32_t *code;
    value *consts;
    struct bc_proto **protos;
    bc_param *params;
    bc_upvalue *upvalues;
    const char **names;
    bc_filter *filters;
    bc_names *name_lists;
    bc_directive *directives;
    bc_annotate *annotates;
    pps_span *spans; /* one per code word */
    bc_local *locals;
    bc_iter *iters;
    bc_arg *args; /* ascending pc */
    struct bc_proto *next_all;
} bc_proto;

const char *bc_op_name(bc_op op);
const char *bc_op_operands(bc_op op);
const char *bc_op_words(bc_op op);
/* The span of operand `index` of the instruction whose last word is at `pc`; false when unknown. */
bool bc_arg_span(const bc_proto *p, uint32_t pc, uint32_t index, pps_span *ret);
/* Print a function and those inside it, one instruction per line, no pointers. */
void bc_dump(pps_state *st, const bc_proto *p, void (*print)(void *ud, const char *text, size_t n),
             void *ud);

#endif
