/* SPDX-License-Identifier: Apache-2.0
 *
 * Functions and types of the host. A signature is read once, into slots; a call fills one argument
 * per slot: by position, by name, from the default; `*rest` and `**named` slots take what is left
 * over. Where each slot's argument was written is kept for the time of the call, for pps_arg_span.
 */
#include "lang/vm.h"

#include <stdio.h>
#include <string.h>

#include "lang/builtins.h"

enum { MAX_SLOTS = 64 };
#define NO_SLOT  UINT32_MAX
#define LEFT_OUT UINT16_MAX

/* ---- Signatures ------------------------------------------------------------------------------ */

static const char *skip_blanks(const char *p)
{
    while (*p == ' ')
        p++;
    return p;
}

static const char *word_end(const char *p)
{
    while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
           *p == '_')
        p++;
    return p;
}

static const char *default_end(const char *p)
{
    bool quoted = false;
    for (; *p && (quoted || (*p != ',' && *p != ')')); p++)
        quoted ^= *p == '"';
    while (p[-1] == ' ')
        p--;
    return p;
}

static pps_status default_value(pps_state *st, const char *begin, const char *end, value *ret)
{
    size_t n = (size_t)(end - begin);
    int64_t i = 0;
    double f = 0;
    bool overflow = false;
    if (n == 3 && memcmp(begin, "nil", 3) == 0)
        *ret = pps_nil();
    else if (n == 4 && memcmp(begin, "true", 4) == 0)
        *ret = pps_bool(true);
    else if (n == 5 && memcmp(begin, "false", 5) == 0)
        *ret = pps_bool(false);
    else if (n >= 2 && begin[0] == '"' && end[-1] == '"')
        return string_new(st, begin + 1, n - 2, ret);
    else if (parse_int(begin, n, &i, &overflow) && !overflow)
        *ret = pps_int(i);
    else if (parse_float(begin, n, &f))
        *ret = pps_float(f);
    else
        return PPS_ERR_ARG;
    return PPS_OK;
}

/* One parameter from *p on; *p moves behind it. */
static pps_status parse_param(pps_state *st, host_fn *h, const char **p, host_param *params)
{
    const char *at = *p;
    uint32_t stars = 0, slot = h->n_params;
    for (; *at == '*'; at++)
        stars++;
    const char *end = word_end(at);
    if (end == at || stars > 2 || slot == MAX_SLOTS)
        return PPS_ERR_ARG;
    params[slot].name = intern(&st->intern, at, (size_t)(end - at));
    params[slot].fallback = (value){.tag = VM_TAG_UNSET};
    if (!params[slot].name)
        return PPS_ERR_NOMEM;
    h->n_params++;
    if (stars == 1)
        h->rest = slot;
    else if (stars == 2)
        h->named_rest = slot;
    else if (h->rest == NO_SLOT)
        h->n_positional++;
    at = skip_blanks(end);
    if (*at == '=') {
        at = skip_blanks(at + 1);
        end = default_end(at);
        PPS_TRY(default_value(st, at, end, &params[slot].fallback));
        at = skip_blanks(end);
    }
    *p = at;
    return PPS_OK;
}

static pps_status parse_signature(pps_state *st, host_fn *h, const char *signature)
{
    host_param params[MAX_SLOTS];
    const char *p = word_end(signature);
    if (p == signature || *p != '(')
        return PPS_ERR_ARG;
    h->name = intern(&st->intern, signature, (size_t)(p - signature));
    p = skip_blanks(p + 1);
    while (*p != ')') {
        PPS_TRY(parse_param(st, h, &p, params));
        if (*p == ',')
            p = skip_blanks(p + 1);
        else if (*p != ')')
            return PPS_ERR_ARG;
    }
    h->params = vm_new(st, (h->n_params + 1) * sizeof(host_param));
    if (!h->params || !h->name)
        return PPS_ERR_NOMEM;
    memcpy(h->params, params, h->n_params * sizeof(host_param));
    return PPS_OK;
}

static const char *copy_text(pps_state *st, const char *bytes)
{
    char *copy = vm_new(st, strlen(bytes) + 1);
    return copy ? strcpy(copy, bytes) : NULL;
}

pps_status pps_def(pps_state *st, const char *signature, pps_host_fn fn, void *ud,
                   void (*free_ud)(void *ud), const char *doc)
{
    struct vm *vm = st->vm;
    host_fn *h = vm_new(st, sizeof(*h));
    if (!h)
        return PPS_ERR_NOMEM;
    h->rest = h->named_rest = NO_SLOT;
    PPS_TRY(parse_signature(st, h, signature));
    h->signature = copy_text(st, signature);
    h->doc = copy_text(st, doc ? doc : "");
    if (!h->signature || !h->doc)
        return PPS_ERR_NOMEM;
    h->fn = fn;
    h->ud = ud;
    h->is_builtin = vm->registering_builtins;
    h->makes_op = h->is_builtin && (!strcmp(h->name, "SEND") || !strcmp(h->name, "RECV"));
    void *o;
    PPS_TRY(heap_object(st, PPS_FN, sizeof(fn_object), &o));
    fn_object *f = o;
    f->kind = FN_HOST;
    f->host = h;
    PPS_TRY(vm_def_value(st, h->name, value_object(PPS_FN, f), h->doc));
    h->free_ud = free_ud; /* from here on it is ours to call */
    h->next = vm->hosts;
    vm->hosts = h;
    return PPS_OK;
}

/* ---- Calls ----------------------------------------------------------------------------------- */

static pps_status wrong_arguments(pps_state *st, pps_span span, const host_fn *h, int code,
                                  const char *what)
{
    pps_diag *d = vm_error_at(st, span, code, "%s %s", h->name, what);
    pps_diag_note(d, "it is called as %s", h->signature);
    return pps_diag_done(d);
}

static pps_status no_parameter(pps_state *st, const host_fn *h, const vm_args *args, uint32_t i)
{
    const char *names[MAX_SLOTS];
    uint32_t n = 0;
    for (uint32_t k = 0; k < h->n_params; k++)
        if (k != h->rest && k != h->named_rest)
            names[n++] = h->params[k].name;
    pps_span span = args->name_spans ? args->name_spans[i] : vm_current_span(st);
    const char *similar = pps_did_you_mean(args->names[i], names, n);
    pps_diag *d = vm_error_at(st, span, 302, "%s has no parameter `%s`", h->name, args->names[i]);
    pps_diag_note(d, "it is called as %s", h->signature);
    if (similar)
        pps_diag_help(d, "did you mean `%s`?", similar);
    return pps_diag_done(d);
}

typedef struct binding {
    value argv[MAX_SLOTS];
    uint16_t site[MAX_SLOTS]; /* slot -> argument as written */
} binding;

static pps_status bind_named(pps_state *st, const host_fn *h, const vm_args *args, binding *b)
{
    for (uint32_t i = 0; i < args->n_named; i++) {
        value v = st->vm->regs[args->first + args->n_pos + i];
        uint16_t written = (uint16_t)(args->n_pos + i);
        uint32_t k = 0;
        while (k < h->n_params &&
               (h->params[k].name != args->names[i] || k == h->rest || k == h->named_rest))
            k++;
        if (k < h->n_params) {
            if (b->site[k] != LEFT_OUT)
                return pps_diag_done(
                    vm_error_at(st, args->name_spans ? args->name_spans[i] : vm_current_span(st),
                                302, "`%s` is already given by position", args->names[i]));
            b->argv[k] = v;
            b->site[k] = written;
        } else if (h->named_rest != NO_SLOT) {
            value key;
            PPS_TRY(string_new(st, args->names[i], strlen(args->names[i]), &key));
            PPS_TRY(map_set(st, b->argv[h->named_rest].as.ptr, key, v));
            if (b->site[h->named_rest] == LEFT_OUT)
                b->site[h->named_rest] = written;
        } else {
            return no_parameter(st, h, args, i);
        }
    }
    return PPS_OK;
}

static pps_status bind_arguments(pps_state *st, const host_fn *h, const vm_args *args, binding *b)
{
    for (uint32_t i = 0; i < h->n_params; i++) {
        b->argv[i] = h->params[i].fallback;
        b->site[i] = LEFT_OUT;
    }
    uint32_t by_position = h->n_positional;
    for (uint32_t i = 0; i < args->n_pos && i < by_position; i++) {
        b->argv[i] = st->vm->regs[args->first + i];
        b->site[i] = (uint16_t)i;
    }
    if (h->rest != NO_SLOT) {
        PPS_TRY(list_new(st, args->n_pos, &b->argv[h->rest]));
        for (uint32_t i = by_position; i < args->n_pos; i++)
            PPS_TRY(list_push(st, b->argv[h->rest].as.ptr, st->vm->regs[args->first + i]));
        if (args->n_pos > by_position)
            b->site[h->rest] = (uint16_t)by_position;
    } else if (args->n_pos > by_position) {
        return wrong_arguments(st, vm_operand_span(st, by_position), h, 301,
                               "is given too many arguments");
    }
    if (h->named_rest != NO_SLOT)
        PPS_TRY(map_new(st, &b->argv[h->named_rest]));
    if (args->n_named)
        PPS_TRY(bind_named(st, h, args, b));
    for (uint32_t i = 0; i < h->n_params; i++) {
        if (b->argv[i].tag != VM_TAG_UNSET)
            continue;
        char what[96];
        snprintf(what, sizeof(what), "misses its argument `%s`", h->params[i].name);
        return wrong_arguments(st, vm_current_span(st), h, 301, what);
    }
    return PPS_OK;
}

pps_status host_call_fn(pps_state *st, host_fn *h, const vm_args *args, value *ret)
{
    struct vm *vm = st->vm;
    binding b;
    PPS_TRY(bind_arguments(st, h, args, &b));
    /* Arguments are in the caller's registers; only what was collected here is nowhere else. */
    size_t n_protected = st->heap.n_protected;
    if (h->rest != NO_SLOT)
        PPS_TRY(heap_protect(st, b.argv[h->rest]));
    if (h->named_rest != NO_SLOT)
        PPS_TRY(heap_protect(st, b.argv[h->named_rest]));
    host_call call = {vm->call, vm->n_frames, h->n_params, b.site};
    vm->call = &call;
    vm->no_collect += !h->is_builtin;
    value result = pps_nil();
    pps_status status = h->fn(st, h->ud, h->n_params, b.argv, &result);
    vm->no_collect -= !h->is_builtin;
    vm->call = call.outer;
    heap_unprotect(st, st->heap.n_protected - n_protected);
    if (status == PPS_OK)
        *ret = result;
    return status;
}

pps_span pps_call_span(pps_state *st)
{
    const host_call *call = st->vm->call;
    if (call && call->n_frames)
        return vm_frame_span(&st->vm->frames[call->n_frames - 1]);
    return vm_current_span(st);
}

pps_span pps_arg_span(pps_state *st, size_t arg)
{
    const host_call *call = st->vm->call;
    pps_span span;
    if (!call || !call->n_frames || arg >= call->n_args)
        return pps_call_span(st);
    const frame *f = &st->vm->frames[call->n_frames - 1];
    uint32_t written = call->site ? call->site[arg] : (uint32_t)arg;
    if (written != LEFT_OUT &&
        bc_arg_span(f->proto, (uint32_t)(f->pc - f->proto->code) - 1, written, &span))
        return span;
    return vm_frame_span(f);
}

pps_status pps_charge(pps_state *st, uint64_t steps)
{
    return vm_charge(st, steps);
}

/* ---- Handle types ---------------------------------------------------------------------------- */

pps_status pps_handle_register(pps_state *st, const pps_handle_ops *ops, void *ud,
                               uint32_t *ret_type)
{
    struct vm *vm = st->vm;
    void *p = vm->handles;
    PPS_TRY(vm_reserve(st, &p, &vm->cap_handles, vm->n_handles + 1, sizeof(handle_type)));
    vm->handles = p;
    vm->handles[vm->n_handles++] = (handle_type){*ops, ud};
    *ret_type = vm->n_handles;
    return PPS_OK;
}

const pps_handle_ops *vm_handle_ops(pps_state *st, uint32_t type, void **ret_ud)
{
    const struct vm *vm = st->vm;
    if (!vm || type == 0 || type > vm->n_handles)
        return NULL;
    if (ret_ud)
        *ret_ud = vm->handles[type - 1].ud;
    return &vm->handles[type - 1].ops;
}
