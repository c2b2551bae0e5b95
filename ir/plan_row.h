/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_row.h: plan_fields.def as data, for what writes, reads and checks plan files. Internal to
 * ir.
 *
 * A record's field lies at array + i * stride + offset, `array` being a pointer in the record's
 * owner (the plan_set, or a plan for tables that every plan has).
 */
#ifndef PPS_IR_PLAN_ROW_H
#define PPS_IR_PLAN_ROW_H

#include "ir/plan_file.h"

typedef enum plan_table_id {
#define TABLE(id, name, owner, element, array, n) PLAN_TABLE_##id,
#define SINGLE(id, name, element, member)         PLAN_TABLE_##id,
#define FIELD(id, type, member, rule)
#define VALUE(id, type, name, rule)
#define COLUMN(id, owner, type, array, name, rule)
#include "ir/plan_fields.def"
#undef TABLE
#undef SINGLE
#undef FIELD
#undef VALUE
#undef COLUMN
    PLAN_TABLE_COUNT
} plan_table_id;

typedef enum plan_type {
    PLAN_TYPE_U8,
    PLAN_TYPE_U16,
    PLAN_TYPE_U32,
    PLAN_TYPE_U64,
    PLAN_TYPE_BOOL,
    PLAN_TYPE_F32,
    PLAN_TYPE_F64,
    PLAN_TYPE_TEXT,
    PLAN_TYPE_LIST,
    PLAN_TYPE_SPAN,
} plan_type;

typedef enum plan_rule {
    PLAN_RULE_ANY,
    PLAN_RULE_UNDER,
    PLAN_RULE_INDEX,
    PLAN_RULE_LINK,
    PLAN_RULE_RANGE,
    PLAN_RULE_NAME,
    PLAN_RULE_LISTED,
    PLAN_RULE_FIGURE,
} plan_rule;

typedef const char *(*plan_word_fn)(uint32_t value);

typedef struct plan_rule_of {
    uint8_t rule;               /* plan_rule */
    uint8_t table;              /* INDEX, LINK, RANGE */
    uint32_t limit;             /* UNDER */
    plan_word_fn word;          /* UNDER: names the value in text, or NULL */
    uint32_t n_offset, n_bytes; /* RANGE, LISTED: the count, a member beside it */
} plan_rule_of;

typedef struct plan_field {
    const char *name;
    uint8_t table, type;
    uint32_t array, stride;
    uint32_t base, offset; /* of the element, and of the field in it and behind `base` */
    plan_rule_of check;
} plan_field;

#define PLAN_SELF UINT32_MAX /* plan_field.array, plan_table.n: one record, the owner itself */

typedef struct plan_table {
    const char *name;
    bool per_plan;
    uint32_t n; /* offset of the count (uint32_t) in the owner */
    const plan_field *fields;
    uint32_t n_fields;
} plan_table;

typedef struct plan_value {
    uint64_t u; /* U8 .. U64, BOOL */
    double f;
    const char *text; /* NULL: none */
    size_t bytes;     /* of the text; a LIST's with the NULs between its texts */
    pps_span span;
} plan_value;

plan_table plan_table_of(uint32_t id);
const char *plan_table_name(uint32_t id);
uint32_t plan_table_n(const plan_table *t, const void *owner);
/* Owners of a table's records: `plan_owners` of them, the set, or its plans. */
uint32_t plan_owners(const plan_table *t, const plan_set *set);
void *plan_owner(const plan_table *t, const plan_set *set, uint32_t i);
bool plan_type_is_text(uint8_t type);

plan_value plan_field_get(const plan_field *f, const void *owner, size_t i);
/* May the floating-point field be `x`: finite, or NaN in a figure. */
bool plan_field_takes(const plan_field *f, double x);
/* False when a number does not fit the field. Texts are borrowed. */
bool plan_field_put(const plan_field *f, void *owner, size_t i, const plan_value *v);
/* The count of a RANGE. */
uint32_t plan_field_count(const plan_field *f, const void *owner, size_t i);

/* Bytes of a field in a binary record; of a whole one. */
uint32_t plan_type_bytes(uint8_t type);
uint32_t plan_table_bytes(const plan_table *t);
/* Digest of all tables, fields, types and words. */
uint32_t plan_layout(void);

/* CRC-32 (reflected 0x04c11db7), eight bytes at a time. Begin with 0. */
typedef struct plan_crc {
    uint32_t sum, table[8][256];
} plan_crc;
void plan_crc_init(plan_crc *c);
void plan_crc_add(plan_crc *c, const void *bytes, size_t n);

/* ---- plan_build.c: from records to a plan_set, whatever form they come from -------------------
 */
typedef struct plan_build {
    arena *mem;
    plan_set *set;
    uint32_t n[PLAN_TABLE_COUNT]; /* records in the file */
    plan_table table;             /* the one that is being filled */
    uint32_t owner, at;           /* next record */
} plan_build;

/* An empty set with its own arena; NULL: out of memory. */
plan_set *plan_set_new(void);
/* Begin table `id` with b->n[id] records: makes room for them. Tables come in their order. False
 * with `reason` when the numbers of records do not fit together; *ret_status may be PPS_ERR_NOMEM.
 */
pps_status plan_build_table(plan_build *b, uint32_t id, char reason[256]);
/* Where the next record goes: *ret_owner and its index. False: there are too many. */
bool plan_build_next(plan_build *b, void **ret_owner, uint32_t *ret_i);
/* What follows from the records: which rank is which of its group. */
pps_status plan_build_finish(plan_build *b, char reason[256]);

/* UTF-8 without a NUL. */
bool plan_text_valid(const char *text, size_t n);

/* ---- the two readers: `set` is filled, not validated; E1102 to E1105 are reported -------------
 */
pps_status plan_read_binary(pps_state *st, const char *name, const unsigned char *bytes, size_t n,
                            plan_set *set);
pps_status plan_read_text(pps_state *st, const char *name, const char *bytes, size_t n,
                          plan_set *set);

/* ---- the two writers, and the files that spans are in ------------------------------------------
 */
typedef struct plan_files { /* source files that spans of the set point into, in order of mention */
    uint32_t *index;        /* by pps_span.file: number from 1; 0: no place */
    const char **names;     /* [n] */
    uint32_t n, cap_index, cap_names;
} plan_files;

typedef struct plan_out {
    pps_state *st;
    const plan_set *set;
    const plan_files *files;
    ir_print_fn print;
    void *ud;
} plan_out;
pps_status plan_write_binary(const plan_out *out);
pps_status plan_write_text(const plan_out *out);

/* A span as files hold it: number of the file, line and column of begin and end. */
typedef struct plan_point {
    uint32_t file, begin[2], end[2];
} plan_point;
plan_point plan_point_of(const plan_out *out, pps_span span);

/* The binary form (PLAN_FILES.md): a header, a row per section, the sections. */
#define PLAN_MAGIC "\x89PPSPLN\n"
enum {
    PLAN_AT_VERSION = 8,
    PLAN_AT_HEADER_BYTES = 12,
    PLAN_AT_CRC = 16, /* of the header without these 4 bytes */
    PLAN_AT_LAYOUT = 20,
    PLAN_AT_TOTAL = 24,
    PLAN_AT_SECTIONS = 32,
    PLAN_AT_ROWS = 36,
    /* in a section's row */
    PLAN_ROW_ID = 0,
    PLAN_ROW_RECORD = 4,
    PLAN_ROW_OFFSET = 8,
    PLAN_ROW_LENGTH = 16,
    PLAN_ROW_CRC = 24,
    PLAN_ROW_BYTES = 28,
    /* sections: names of files, the tables, texts */
    PLAN_SECTION_FILES = 0,
    PLAN_SECTION_TABLES = 1,
    PLAN_SECTION_TEXTS = PLAN_SECTION_TABLES + PLAN_TABLE_COUNT,
    PLAN_SECTIONS,
    PLAN_HEADER_BYTES = PLAN_AT_ROWS + PLAN_SECTIONS * PLAN_ROW_BYTES,
};
#define PLAN_TEXT_MAGIC "pps-plan "

/* ---- plan_extent.c ------------------------------------------------------------------------------
 */
enum { PLAN_MAX_OPERANDS = 256 }; /* a SUM has as many parts as it likes; ret below has room */
/* The kernel's operands in calling order (an OPAQUE's letters mean nothing); false when it does not
 * have as many as it should. */
bool plan_kernel_operands(const plan_kernel *k, ir_operand ret[PLAN_MAX_OPERANDS]);
/* Elements of 4 bytes that operand `o` covers; a loss is one double. UINT64_MAX: more than can be.
 * False when the kernel's sizes make no sense together. */
bool plan_operand_elems(const plan_kernel *k, ir_operand o, uint64_t *ret);

/* ---- plan_validate.c and plan_check.c
 * ------------------------------------------------------------ */
typedef struct plan_checker {
    const plan_set *set;
    char *reason; /* [256] */
    pps_span span;
    arena mem;
    plan_table tables[PLAN_TABLE_COUNT];
} plan_checker;
PPS_PRINTF(2, 3)
pps_status plan_wrong(plan_checker *c, const char *format, ...);
/* Memory, programs and steps of every plan; indices and ranges were found to be good. */
pps_status plan_check(plan_checker *c);
enum { PLAN_MAX_RANKS = 1 << 16 };
#define PLAN_MAX_BYTES ((uint64_t)1 << 46) /* of one rank */

#endif
