/* SPDX-License-Identifier: Apache-2.0
 *
 * The tables behind bytecode.def, look-ups in a function's message tables, and the dump.
 */
#include "lang/bytecode.h"

#include <string.h>

static const struct {
    const char *name, *operands, *words;
} ops[BC_COUNT] = {
#define BC(name, operands, words) [BC_##name] = {#name, operands, words},
#include "lang/bytecode.def"
#undef BC
};

const char *bc_op_name(bc_op op)
{
    return ops[op].name;
}

const char *bc_op_operands(bc_op op)
{
    return ops[op].operands;
}

const char *bc_op_words(bc_op op)
{
    return ops[op].words;
}

bool bc_arg_span(const bc_proto *p, uint32_t pc, uint32_t index, pps_span *ret)
{
    uint32_t low = 0, high = p->n_args;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (p->args[middle].pc < pc)
            low = middle + 1;
        else
            high = middle;
    }
    for (; low < p->n_args && p->args[low].pc == pc; low++) {
        if (p->args[low].index == index) {
            *ret = p->args[low].span;
            return true;
        }
    }
    return false;
}

static void dump_const(text *t, const bc_proto *p, uint32_t k)
{
    text_printf(t, " ");
    if (k < p->n_consts)
        text_repr(t, p->consts[k]);
}

static void dump_operands(text *t, const bc_proto *p, uint32_t i)
{
    const char *kinds = ops[BC_OP(i)].operands;
    uint32_t fields[] = {BC_A(i), BC_B(i), BC_C(i)};
    for (int f = 0; kinds[f]; f++) {
        switch (kinds[f]) {
        case 'r':
            text_printf(t, " r%u", fields[f]);
            break;
        case 'k':
            dump_const(t, p, fields[f]);
            break;
        case 'n':
            text_printf(t, " %u", fields[f]);
            break;
        case 'u':
            text_printf(t, " ^%s", p->upvalues[fields[f]].name);
            break;
        case 'K':
            if (BC_OP(i) == BC_LIST)
                text_printf(t, " %u", BC_BX(i));
            else
                dump_const(t, p, BC_BX(i));
            break;
        case 'G':
            text_printf(t, " global %u", BC_BX(i));
            break;
        case 'P':
            text_printf(t, " %s", p->protos[BC_BX(i)]->name);
            break;
        default:
            break;
        }
    }
}

static void dump_word(text *t, const bc_proto *p, char kind, uint32_t word, uint32_t after)
{
    switch (kind) {
    case 'C':
        dump_const(t, p, word);
        break;
    case 'J':
        text_printf(t, " -> %u", after + word);
        break;
    case 'N':
        text_printf(t, " .%s", p->names[word]);
        break;
    case 'L':
        if (word < p->n_name_lists)
            for (uint32_t k = 0; k < p->name_lists[word].n; k++)
                text_printf(t, " %s=", p->name_lists[word].names[k]);
        break;
    case 'F':
        for (uint32_t k = 0; k < p->filters[word].n; k++)
            text_printf(t, " %s:%.1s", p->filters[word].tags[k], &p->filters[word].signs[k]);
        break;
    case 'D':
        text_printf(t, " %s", pps_directive_word(p->directives[word].kind));
        for (uint32_t k = 0; k < p->directives[word].n_clauses; k++)
            text_printf(t, " %s", p->directives[word].clauses[k].word);
        break;
    case 'T':
        text_printf(t, " %s", p->annotates[word].tag);
        break;
    default:
        break;
    }
}

static void dump_proto(text *t, const bc_proto *p)
{
    text_printf(t, "%s %s: %u parameters, %u registers\n", p->is_model ? "model" : "fn", p->name,
                p->n_params, p->n_regs);
    for (uint32_t at = 0; at < p->n_code;) {
        uint32_t i = p->code[at], begin = at++;
        text_printf(t, "%5u  %-12s", begin, ops[BC_OP(i)].name);
        dump_operands(t, p, i);
        for (const char *w = ops[BC_OP(i)].words; *w; w++, at++)
            dump_word(t, p, *w, p->code[at], at + 1);
        text_add(t, "\n", 1);
    }
    for (uint32_t i = 0; i < p->n_protos; i++)
        dump_proto(t, p->protos[i]);
}

void bc_dump(pps_state *st, const bc_proto *p, void (*print)(void *ud, const char *text, size_t n),
             void *ud)
{
    text t;
    text_init(&t, st);
    dump_proto(&t, p);
    if (t.status == PPS_OK)
        print(ud, t.bytes, t.n);
    text_done(&t);
}
