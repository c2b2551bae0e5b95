/* SPDX-License-Identifier: Apache-2.0
 *
 * plan_row.c: the tables of plan_fields.def, and the way from a field of a struct to a value and
 * back. Nothing here knows what a field means.
 */
#include "ir/plan_row.h"

#include <math.h>
#include <stddef.h>
#include <string.h>
#include "lang/lex_text.h"

/* ---- Words ------------------------------------------------------------------------------------
 */

static const char *word_of(const char *const *words, uint32_t n, uint32_t value)
{
    return value < n ? words[value] : NULL;
}
#define WORDS(fn, ...)                                                \
    static const char *fn(uint32_t value)                             \
    {                                                                 \
        static const char *const words[] = {__VA_ARGS__};             \
        return word_of(words, sizeof words / sizeof words[0], value); \
    }
WORDS(plan_source_word, "none", "bytes", "tokens")
WORDS(plan_optimizer_word, "sgd", "adamw")
WORDS(plan_init_word, "normal", "zero", "one")
WORDS(plan_data_word, "tokens", "targets", "features")
WORDS(plan_block_word, "act", "grad", "save", "held", "work", "params", "grads", "carry",
      "host")
WORDS(plan_space_word, "absent", "bind", "param", "grad", "data", "loss")
WORDS(plan_phase_word, "F", "BI", "BW")
WORDS(plan_pass_word, "F", "B", "BI", "BW")

static const char *plan_kernel_word(uint32_t value)
{
    if (value == PLAN_KERNEL_SUM)
        return "sum";
    return value < IR_OP_COUNT ? ir_op_name((ir_op_kind)value) : NULL;
}

static const char *plan_step_word(uint32_t value)
{
    return value < PLAN_STEP_KIND_COUNT ? plan_step_name((plan_step_kind)value) : NULL;
}

/* ---- Tables -----------------------------------------------------------------------------------
 */

#define SELF       0
#define ANY        .rule = PLAN_RULE_ANY
#define UNDER(n)   .rule = PLAN_RULE_UNDER, .limit = (n)
#define WORD(n, f) .rule = PLAN_RULE_UNDER, .limit = (n), .word = f
#define INDEX(id)  .rule = PLAN_RULE_INDEX, .table = PLAN_TABLE_##id
#define LINK(id)   .rule = PLAN_RULE_LINK, .table = PLAN_TABLE_##id
#define NAME       .rule = PLAN_RULE_NAME
#define FIGURE     .rule = PLAN_RULE_FIGURE
#define COUNT_IN(type, member) \
    .n_offset = offsetof(type, member), .n_bytes = sizeof(((type *)0)->member)
#define RANGE(id, type, member) \
    .rule = PLAN_RULE_RANGE, .table = PLAN_TABLE_##id, COUNT_IN(type, member)
#define LISTED(type, member) .rule = PLAN_RULE_LISTED, COUNT_IN(type, member)

/* where each table's elements are, and what they are */
#define TABLE(id, name, owner, element, array_, n) \
    typedef element row_##id;                      \
    enum { ARRAY_##id = offsetof(owner, array_), BASE_##id = 0 };
#define SINGLE(id, name, element, member) \
    typedef element row_##id;             \
    enum { ARRAY_##id = -1, BASE_##id = (member) };
#define FIELD(id, type, member, rule)
#define VALUE(id, type, name, rule)
#define COLUMN(id, owner, type, array, name, rule)
#include "ir/plan_fields.def"
#undef TABLE
#undef SINGLE
#undef FIELD
#undef VALUE
#undef COLUMN

#define TABLE(id, name, owner, element, array, n)
#define SINGLE(id, name, element, member)
#define FIELD(id, type_, member, ...)                  \
    {.name = #member,                                  \
     .table = PLAN_TABLE_##id,                         \
     .type = PLAN_TYPE_##type_,                        \
     .array = (uint32_t)ARRAY_##id,                    \
     .stride = sizeof(row_##id),                       \
     .base = BASE_##id,                                \
     .offset = BASE_##id + offsetof(row_##id, member), \
     .check = {__VA_ARGS__}},
#define VALUE(id, type_, name_, ...) \
    {.name = name_,                  \
     .table = PLAN_TABLE_##id,       \
     .type = PLAN_TYPE_##type_,      \
     .array = (uint32_t)ARRAY_##id,  \
     .stride = sizeof(row_##id),     \
     .check = {__VA_ARGS__}},
#define COLUMN(id, owner, type_, array_, name_, ...) \
    {.name = name_,                                  \
     .table = PLAN_TABLE_##id,                       \
     .type = PLAN_TYPE_##type_,                      \
     .array = offsetof(owner, array_),               \
     .stride = sizeof(*((owner *)0)->array_),        \
     .check = {__VA_ARGS__}},
static const plan_field fields[] = {
#include "ir/plan_fields.def"
};
#undef TABLE
#undef SINGLE
#undef FIELD
#undef VALUE
#undef COLUMN
enum { N_FIELDS = sizeof fields / sizeof fields[0] };

enum { OF_plan_set, OF_plan };
#define TABLE(id, name, owner, element, array, n) \
    [PLAN_TABLE_##id] = {name, OF_##owner == OF_plan, offsetof(owner, n), NULL, 0},
#define SINGLE(id, name, element, member) [PLAN_TABLE_##id] = {name, false, PLAN_SELF, NULL, 0},
#define FIELD(id, type, member, rule)
#define VALUE(id, type, name, rule)
#define COLUMN(id, owner, type, array, name, rule)
static const plan_table tables[PLAN_TABLE_COUNT] = {
#include "ir/plan_fields.def"
};

plan_table plan_table_of(uint32_t id)
{
    plan_table t = tables[id];
    uint32_t first = 0;
    while (first < N_FIELDS && fields[first].table != id)
        first++;
    t.fields = &fields[first];
    while (first + t.n_fields < N_FIELDS && fields[first + t.n_fields].table == id)
        t.n_fields++;
    return t;
}

const char *plan_table_name(uint32_t id)
{
    return tables[id].name;
}

uint32_t plan_table_n(const plan_table *t, const void *owner)
{
    uint32_t n = 1;
    if (t->n != PLAN_SELF)
        memcpy(&n, (const char *)owner + t->n, sizeof n);
    return n;
}

uint32_t plan_owners(const plan_table *t, const plan_set *set)
{
    return t->per_plan ? set->n_groups : 1;
}

void *plan_owner(const plan_table *t, const plan_set *set, uint32_t i)
{
    return t->per_plan ? (void *)&set->plans[i] : (void *)set;
}

bool plan_type_is_text(uint8_t type)
{
    return type == PLAN_TYPE_TEXT || type == PLAN_TYPE_LIST;
}

uint32_t plan_type_bytes(uint8_t type)
{
    static const uint8_t bytes[] = {
        [PLAN_TYPE_U8] = 1,   [PLAN_TYPE_U16] = 2,   [PLAN_TYPE_U32] = 4, [PLAN_TYPE_U64] = 8,
        [PLAN_TYPE_BOOL] = 1, [PLAN_TYPE_F32] = 4,   [PLAN_TYPE_F64] = 8, [PLAN_TYPE_TEXT] = 4,
        [PLAN_TYPE_LIST] = 4, [PLAN_TYPE_SPAN] = 20,
    };
    return bytes[type];
}

uint32_t plan_table_bytes(const plan_table *t)
{
    uint32_t bytes = 0;
    for (uint32_t i = 0; i < t->n_fields; i++)
        bytes += plan_type_bytes(t->fields[i].type);
    return bytes;
}

uint32_t plan_layout(void)
{
    plan_crc crc;
    plan_crc_init(&crc);
    for (uint32_t i = 0; i < PLAN_TABLE_COUNT; i++)
        plan_crc_add(&crc, tables[i].name, strlen(tables[i].name) + 1);
    for (uint32_t i = 0; i < N_FIELDS; i++) {
        const plan_field *f = &fields[i];
        unsigned char of[2] = {f->table, f->type};
        plan_crc_add(&crc, of, sizeof of);
        plan_crc_add(&crc, f->name, strlen(f->name) + 1);
        for (uint32_t k = 0; f->check.word != NULL && k < f->check.limit; k++) {
            const char *word = f->check.word(k);
            plan_crc_add(&crc, word, strlen(word) + 1);
        }
    }
    return crc.sum;
}

/* ---- Fields -----------------------------------------------------------------------------------
 */

static char *cell(const plan_field *f, const void *owner, size_t i, uint32_t offset)
{
    if (f->array == PLAN_SELF)
        return (char *)owner + offset;
    char *array;
    memcpy(&array, (const char *)owner + f->array, sizeof array);
    return array + i * f->stride + offset;
}

uint32_t plan_field_count(const plan_field *f, const void *owner, size_t i)
{
    const char *at = cell(f, owner, i, f->base + f->check.n_offset);
    uint32_t n = 0;
    uint8_t n8;
    uint16_t n16;
    switch (f->check.n_bytes) {
    case 1:
        memcpy(&n8, at, 1);
        return n8;
    case 2:
        memcpy(&n16, at, 2);
        return n16;
    default:
        memcpy(&n, at, 4);
        return n;
    }
}

static size_t list_bytes(const char *list, uint32_t n)
{
    const char *at = list;
    for (uint32_t i = 0; i < (n > 0 ? n : 1); i++)
        at += strlen(at) + 1;
    return (size_t)(at - list) - 1;
}

plan_value plan_field_get(const plan_field *f, const void *owner, size_t i)
{
    const char *at = cell(f, owner, i, f->offset);
    plan_value v = {0};
    uint8_t u8;
    uint16_t u16;
    uint32_t u32;
    bool b;
    float f32;
    switch ((plan_type)f->type) {
    case PLAN_TYPE_U8:
        memcpy(&u8, at, sizeof u8);
        v.u = u8;
        break;
    case PLAN_TYPE_U16:
        memcpy(&u16, at, sizeof u16);
        v.u = u16;
        break;
    case PLAN_TYPE_U32:
        memcpy(&u32, at, sizeof u32);
        v.u = u32;
        break;
    case PLAN_TYPE_U64:
        memcpy(&v.u, at, sizeof v.u);
        break;
    case PLAN_TYPE_BOOL:
        memcpy(&b, at, sizeof b);
        v.u = b;
        break;
    case PLAN_TYPE_F32:
        memcpy(&f32, at, sizeof f32);
        v.f = f32;
        break;
    case PLAN_TYPE_F64:
        memcpy(&v.f, at, sizeof v.f);
        break;
    case PLAN_TYPE_TEXT:
    case PLAN_TYPE_LIST:
        memcpy(&v.text, at, sizeof v.text);
        if (v.text != NULL && f->type == PLAN_TYPE_TEXT)
            v.bytes = strlen(v.text);
        else if (v.text != NULL)
            v.bytes = list_bytes(v.text, plan_field_count(f, owner, i));
        break;
    case PLAN_TYPE_SPAN:
        memcpy(&v.span, at, sizeof v.span);
        break;
    }
    return v;
}

bool plan_field_takes(const plan_field *f, double x)
{
    return isfinite(x) || (isnan(x) && f->check.rule == PLAN_RULE_FIGURE);
}

bool plan_field_put(const plan_field *f, void *owner, size_t i, const plan_value *v)
{
    static const uint64_t most[] = {[PLAN_TYPE_U8] = UINT8_MAX,
                                    [PLAN_TYPE_U16] = UINT16_MAX,
                                    [PLAN_TYPE_U32] = UINT32_MAX,
                                    [PLAN_TYPE_U64] = UINT64_MAX,
                                    [PLAN_TYPE_BOOL] = 1};
    char *at = cell(f, owner, i, f->offset);
    uint8_t u8 = (uint8_t)v->u;
    uint16_t u16 = (uint16_t)v->u;
    uint32_t u32 = (uint32_t)v->u;
    bool b = v->u != 0;
    float f32 = (float)v->f;
    if (f->type <= PLAN_TYPE_BOOL && v->u > most[f->type])
        return false;
    switch ((plan_type)f->type) {
    case PLAN_TYPE_U8:
        memcpy(at, &u8, sizeof u8);
        break;
    case PLAN_TYPE_U16:
        memcpy(at, &u16, sizeof u16);
        break;
    case PLAN_TYPE_U32:
        memcpy(at, &u32, sizeof u32);
        break;
    case PLAN_TYPE_U64:
        memcpy(at, &v->u, sizeof v->u);
        break;
    case PLAN_TYPE_BOOL:
        memcpy(at, &b, sizeof b);
        break;
    case PLAN_TYPE_F32:
        memcpy(at, &f32, sizeof f32);
        return plan_field_takes(f, f32);
    case PLAN_TYPE_F64:
        memcpy(at, &v->f, sizeof v->f);
        return plan_field_takes(f, v->f);
    case PLAN_TYPE_LIST: {
        uint32_t n = v->text != NULL;
        for (size_t k = 0; k < v->bytes; k++)
            n += v->text[k] == '\0';
        memcpy(cell(f, owner, i, f->base + f->check.n_offset), &n, sizeof n);
        memcpy(at, &v->text, sizeof v->text);
        break;
    }
    case PLAN_TYPE_TEXT:
        memcpy(at, &v->text, sizeof v->text);
        break;
    case PLAN_TYPE_SPAN:
        memcpy(at, &v->span, sizeof v->span);
        break;
    }
    return true;
}
