/* SPDX-License-Identifier: Apache-2.0
 *
 * coll.c: the operations. Nothing is ever copied twice: who needs data reads it straight out of the
 * arena of who has it, then says so, which releases the owner.
 *
 *   SEND        publish; done when the peer has read
 *   RECV        wait for the entry, read, say so
 *   collective  POST    publish one entry to every peer
 *               READ    for each peer: wait for its entry, read what is for us (reductions: once
 *                       all are there, sum our slice over all ranks in group order)
 *               GATHER  ALL_REDUCE: for each peer: wait until its slice is summed, read it, say so
 *               DRAIN   wait until every peer has read
 *
 * ALL_REDUCE in place: between READ and GATHER a rank writes its own slice only, which no peer
 * reads before it is marked as summed; and a peer that marked its slice has finished reading ours.
 * Every element is summed once, by one rank, in group order, so all ranks get the same bits.
 *
 * Both ends of a lane count, and each entry names (kind, epoch, seq) and its sizes: ranks whose
 * plans disagree get PPS_ERR_COLL and a reason, not wrong data. Waiting and the segment are in
 * world.c.
 */
#include "runtime/coll/segment.h"

#include <stdio.h>
#include <string.h>

enum {
    STATE_NEW,
    STATE_PUBLISH,
    STATE_WAIT,
    STATE_POST,
    STATE_READ,
    STATE_GATHER,
    STATE_DRAIN,
    STATE_DONE
};
enum { AUX_TICKET = 0, AUX_NEXT = 0 }; /* coll_op.aux: p2p's ticket; collectives: next peer */

static const char *const kind_names[] = {
    [COLL_SEND] = "send",
    [COLL_RECV] = "receive",
    [COLL_ALL_REDUCE] = "all-reduce",
    [COLL_COUNTS] = "counts",
    [COLL_ALL_TO_ALL] = "all-to-all",
    [COLL_SHIFT] = "shift",
    [COLL_REDUCE_SCATTER] = "reduce-scatter",
    [COLL_ALL_GATHER] = "all-gather",
};

/* ---- Entries -----------------------------------------------------------------------------------
 */

static bool is_free(const coll_entry *e, uint64_t ticket)
{
    return ticket < COLL_LANE_DEPTH ||
           atomic_load_explicit(&e->done, memory_order_acquire) == ticket - COLL_LANE_DEPTH + 1;
}

static bool is_ready(const coll_entry *e, uint64_t ticket)
{
    return atomic_load_explicit(&e->ready, memory_order_acquire) == ticket + 1;
}

/* Not "equal": a later send may have taken the entry, and been read, before this one was polled. */
static bool is_done(const coll_entry *e, uint64_t ticket)
{
    return atomic_load_explicit(&e->done, memory_order_acquire) > ticket;
}

static void publish(coll_rank *r, const coll_op *op, uint32_t peer, coll_entry *e, uint64_t ticket)
{
    e->epoch = op->epoch;
    e->bytes = op->bytes;
    e->offset = op->send ? (uint64_t)((char *)op->send - r->world->base) : 0;
    e->seq = op->seq;
    e->experts = op->experts;
    e->width = op->width;
    e->group_size = op->group_size;
    e->shift = op->shift;
    e->kind = (uint8_t)op->kind;
    e->flags = (uint8_t)op->flags;
    atomic_store_explicit(&e->ready, ticket + 1, memory_order_release);
    coll_ring(r->world, peer);
}

static void say_done(coll_rank *r, uint32_t peer, coll_entry *e, uint64_t ticket)
{
    atomic_store_explicit(&e->done, ticket + 1, memory_order_release);
    coll_ring(r->world, peer);
}

/* `bytes` of the entry's owner at `offset` behind its buffer, or NULL outside its arena. */
static const char *peer_data(coll_rank *r, const coll_entry *e, uint32_t peer, uint64_t offset,
                             uint64_t bytes)
{
    coll_world *w = r->world;
    uint64_t begin = w->arena_offset[peer], end = begin + w->arena_bytes[peer];
    uint64_t at = e->offset + offset;
    if (bytes == 0)
        return w->base + begin;
    if (at < begin || at > end || bytes > end - at) {
        snprintf(r->reason, sizeof(r->reason),
                 "rank %u was to read %llu bytes outside rank %u's memory", r->rank,
                 (unsigned long long)bytes, peer);
        return NULL;
    }
    return w->base + at;
}

static pps_status match(coll_rank *r, const coll_op *op, const coll_entry *e, uint32_t peer)
{
    coll_kind kind = op->kind == COLL_RECV ? COLL_SEND : op->kind;
    bool equal = e->kind == kind && e->flags == op->flags && e->epoch == op->epoch &&
                 e->seq == op->seq && e->group_size == op->group_size;
    /* ALL_TO_ALL's bytes are each rank's own room */
    equal = equal && (kind == COLL_ALL_TO_ALL || e->bytes == op->bytes);
    equal = equal && e->experts == op->experts && e->width == op->width && e->shift == op->shift;
    if (equal)
        return PPS_OK;
    snprintf(
        r->reason, sizeof(r->reason),
        "rank %u is at %s %u of step %llu (%llu bytes, channel %u); rank %u is there at %s %u of "
        "step %llu (%llu bytes)",
        r->rank, kind_names[op->kind], op->seq, (unsigned long long)op->epoch,
        (unsigned long long)op->bytes, op->channel, peer, kind_names[e->kind], e->seq,
        (unsigned long long)e->epoch, (unsigned long long)e->bytes);
    return PPS_ERR_COLL;
}

/* ---- Point to point ----------------------------------------------------------------------------
 */

static pps_status poll_send(coll_rank *r, coll_op *op, bool *ret_done)
{
    uint64_t ticket = op->aux[AUX_TICKET];
    coll_entry *e = coll_lane_entry(r->world, r->rank, op->peer, op->channel, ticket);
    if (op->state == STATE_PUBLISH && is_free(e, ticket)) {
        publish(r, op, op->peer, e, ticket);
        op->state = STATE_WAIT;
    }
    *ret_done = op->state == STATE_WAIT && is_done(e, ticket);
    return PPS_OK;
}

static pps_status poll_recv(coll_rank *r, coll_op *op, bool *ret_done)
{
    uint64_t ticket = op->aux[AUX_TICKET];
    coll_entry *e = coll_lane_entry(r->world, op->peer, r->rank, op->channel, ticket);
    if (!is_ready(e, ticket))
        return PPS_OK;
    PPS_TRY(match(r, op, e, op->peer));
    const char *from = peer_data(r, e, op->peer, 0, op->bytes);
    if (!from)
        return PPS_ERR_COLL;
    if (op->bytes)
        memcpy(op->recv, from, op->bytes);
    say_done(r, op->peer, e, ticket);
    *ret_done = true;
    return PPS_OK;
}

/* ---- What a collective reads from one peer -----------------------------------------------------
 */

static void slice(uint64_t elems, uint32_t i, uint32_t n, uint64_t *ret_begin, uint64_t *ret_end)
{
    *ret_begin = elems * i / n;
    *ret_end = elems * (i + 1) / n;
}

static uint64_t rows_of(const int32_t *counts, uint64_t begin, uint64_t end)
{
    uint64_t rows = 0;
    for (uint64_t x = begin; x < end; x++)
        rows += (uint64_t)counts[x];
    return rows;
}

/* Rows for expert x from ranks before `source`, in the (expert, source, order) layout. */
static uint64_t rows_before(const coll_op *op, uint64_t x, uint32_t source)
{
    uint64_t rows = 0;
    for (uint32_t s = 0; s < source; s++)
        rows += (uint64_t)op->counts[(uint64_t)s * op->experts + x];
    return rows;
}

static pps_status copy_rows(coll_rank *r, coll_op *op, const coll_entry *e, uint32_t index,
                            uint64_t from_row, uint64_t to_row, uint64_t rows)
{
    uint64_t bytes = rows * op->width;
    const char *from = (const char *)op->send + from_row * op->width;
    if (bytes == 0)
        return PPS_OK;
    if (e)
        from = peer_data(r, e, op->group[index], from_row * op->width, bytes);
    if (!from)
        return PPS_ERR_COLL;
    memcpy((char *)op->recv + to_row * op->width, from, bytes);
    return PPS_OK;
}

/* Rows of rank `index` of the group for our experts; `e` is NULL for our own. */
static pps_status pull_rows_out(coll_rank *r, coll_op *op, const coll_entry *e, uint32_t index)
{
    const int32_t *theirs = op->counts + (uint64_t)index * op->experts;
    uint64_t begin, end;
    slice(op->experts, op->group_index, op->group_size, &begin, &end);
    uint64_t from = rows_of(theirs, 0, begin), to = 0;
    for (uint64_t x = begin; x < end; x++) {
        uint64_t rows = (uint64_t)theirs[x];
        PPS_TRY(copy_rows(r, op, e, index, from, to + rows_before(op, x, index), rows));
        from += rows;
        to += rows_before(op, x, op->group_size);
    }
    return PPS_OK;
}

/* Our rows back from rank `index`, which owns their experts. */
static pps_status pull_rows_back(coll_rank *r, coll_op *op, const coll_entry *e, uint32_t index)
{
    const int32_t *ours = op->counts + (uint64_t)op->group_index * op->experts;
    uint64_t begin, end;
    slice(op->experts, index, op->group_size, &begin, &end);
    uint64_t from = 0, to = rows_of(ours, 0, begin);
    for (uint64_t x = begin; x < end; x++) {
        uint64_t rows = (uint64_t)ours[x];
        PPS_TRY(copy_rows(r, op, e, index, from + rows_before(op, x, op->group_index), to, rows));
        from += rows_before(op, x, op->group_size);
        to += rows;
    }
    return PPS_OK;
}

/* Of all peers one has what is for us. */
static pps_status pull_shifted(coll_rank *r, coll_op *op, const coll_entry *e, uint32_t index)
{
    uint32_t n = op->group_size;
    uint32_t source = (op->group_index + (op->flags & COLL_RETURN ? op->shift : n - op->shift)) % n;
    if (index != source || op->bytes == 0)
        return PPS_OK;
    const char *from = peer_data(r, e, op->group[index], 0, op->bytes);
    if (!from)
        return PPS_ERR_COLL;
    memcpy(op->recv, from, op->bytes);
    return PPS_OK;
}

static pps_status pull(coll_rank *r, coll_op *op, const coll_entry *e, uint32_t index)
{
    if (op->kind == COLL_ALL_TO_ALL)
        return op->flags & COLL_RETURN ? pull_rows_back(r, op, e, index)
                                       : pull_rows_out(r, op, e, index);
    if (op->kind == COLL_SHIFT)
        return pull_shifted(r, op, e, index);
    uint64_t bytes = op->kind == COLL_ALL_GATHER ? op->bytes / op->group_size
                                                 : (uint64_t)op->experts * sizeof(int32_t);
    const char *from = e ? peer_data(r, e, op->group[index], 0, bytes) : op->send;
    if (!from)
        return PPS_ERR_COLL;
    if (op->width > 0) {
        char *to = (char *)op->recv + (uint64_t)index * op->width;
        for (uint64_t done = 0; done < bytes; done += op->width)
            memcpy(to + done * op->group_size, from + done, op->width);
        return PPS_OK;
    }
    char *to = (char *)op->recv + index * bytes;
    if (from != to)
        memcpy(to, from, bytes);
    return PPS_OK;
}

/* ---- Collectives -------------------------------------------------------------------------------
 */

static bool reduces(const coll_op *op)
{
    return op->kind == COLL_ALL_REDUCE || op->kind == COLL_REDUCE_SCATTER;
}

static uint32_t nth_peer(const coll_op *op, uint64_t k) /* k from 1: the ring after this rank */
{
    return (uint32_t)((op->group_index + k) % op->group_size);
}

static coll_entry *out_entry(coll_rank *r, const coll_op *op, uint32_t index, uint64_t *ret_ticket)
{
    *ret_ticket = r->coll_out[op->channel * r->world->max_group + index];
    return coll_lane_entry(r->world, r->rank, op->group[index], op->channel, *ret_ticket);
}

static coll_entry *in_entry(coll_rank *r, const coll_op *op, uint32_t index, uint64_t *ret_ticket)
{
    *ret_ticket = r->coll_in[op->channel * r->world->max_group + index];
    return coll_lane_entry(r->world, op->group[index], r->rank, op->channel, *ret_ticket);
}

/* Advance `next` over the peers while `step` succeeds; true when all are through. */
typedef pps_status (*peer_step)(coll_rank *r, coll_op *op, uint32_t index, bool *ret_through);
static pps_status each_peer(coll_rank *r, coll_op *op, peer_step step, uint32_t next_state)
{
    for (; op->aux[AUX_NEXT] < op->group_size; op->aux[AUX_NEXT]++) {
        bool through = false;
        PPS_TRY(step(r, op, nth_peer(op, op->aux[AUX_NEXT]), &through));
        if (!through)
            return PPS_OK;
    }
    op->aux[AUX_NEXT] = 1;
    op->state = next_state;
    return PPS_OK;
}

static pps_status post_to(coll_rank *r, coll_op *op, uint32_t index, bool *ret_through)
{
    uint64_t ticket;
    coll_entry *e = out_entry(r, op, index, &ticket);
    *ret_through = is_free(e, ticket);
    if (*ret_through)
        publish(r, op, op->group[index], e, ticket);
    return PPS_OK;
}

static pps_status read_from(coll_rank *r, coll_op *op, uint32_t index, bool *ret_through)
{
    uint64_t ticket;
    coll_entry *e = in_entry(r, op, index, &ticket);
    *ret_through = is_ready(e, ticket);
    if (!*ret_through)
        return PPS_OK;
    PPS_TRY(match(r, op, e, op->group[index]));
    if (reduces(op))
        return peer_data(r, e, op->group[index], 0, op->bytes) ? PPS_OK : PPS_ERR_COLL;
    PPS_TRY(pull(r, op, e, index));
    say_done(r, op->group[index], e, ticket);
    return PPS_OK;
}

static pps_status gather_from(coll_rank *r, coll_op *op, uint32_t index, bool *ret_through)
{
    uint64_t ticket, begin, end;
    coll_entry *e = in_entry(r, op, index, &ticket);
    *ret_through = atomic_load_explicit(&e->reduced, memory_order_acquire) == ticket + 1;
    if (!*ret_through)
        return PPS_OK;
    slice(op->bytes / sizeof(float), index, op->group_size, &begin, &end);
    const float *from = (const float *)(r->world->base + e->offset);
    memcpy((float *)op->send + begin, from + begin, (end - begin) * sizeof(float));
    say_done(r, op->group[index], e, ticket);
    return PPS_OK;
}

static pps_status drain_of(coll_rank *r, coll_op *op, uint32_t index, bool *ret_through)
{
    uint64_t ticket;
    coll_entry *e = out_entry(r, op, index, &ticket);
    *ret_through = is_done(e, ticket);
    return PPS_OK;
}

/* Sum elements [begin, end) over the group to `to`, which may be the same of our own. */
static void sum_range(coll_rank *r, const coll_op *op, uint64_t begin, uint64_t end, float *to)
{
    enum { BLOCK = 1024 };
    float sum[BLOCK];
    uint64_t ticket;
    for (uint64_t at = begin; at < end; at += BLOCK) {
        size_t n = end - at < BLOCK ? (size_t)(end - at) : BLOCK;
        for (uint32_t g = 0; g < op->group_size; g++) {
            const float *part = op->send;
            if (g != op->group_index)
                part = (const float *)(r->world->base + in_entry(r, op, g, &ticket)->offset);
            if (g == 0)
                memcpy(sum, part + at, n * sizeof(float));
            for (size_t i = 0; i < n && g > 0; i++)
                sum[i] += part[at + i];
        }
        for (size_t i = 0; i < n && op->flags & COLL_ADD; i++)
            sum[i] = to[at - begin + i] + sum[i];
        memcpy(to + (at - begin), sum, n * sizeof(float));
    }
}

/* Sum our slice over the group to `to`. */
static void sum_slice(coll_rank *r, const coll_op *op, float *to)
{
    uint64_t begin, end, n = op->width / sizeof(float), all = op->bytes / sizeof(float);
    if (op->width == 0) {
        slice(all, op->group_index, op->group_size, &begin, &end);
        sum_range(r, op, begin, end, to);
        return;
    }
    for (begin = op->group_index * n; begin < all; begin += op->group_size * n) {
        sum_range(r, op, begin, begin + n, to);
        to += n;
    }
}

/* ALL_REDUCE: sum our slice in place, then show it to the peers. */
static void reduce_slice(coll_rank *r, coll_op *op)
{
    uint64_t begin, end, ticket;
    slice(op->bytes / sizeof(float), op->group_index, op->group_size, &begin, &end);
    sum_slice(r, op, (float *)op->send + begin);
    for (uint32_t k = 1; k < op->group_size; k++) {
        uint32_t index = nth_peer(op, k);
        coll_entry *e = out_entry(r, op, index, &ticket);
        atomic_store_explicit(&e->reduced, ticket + 1, memory_order_release);
        coll_ring(r->world, op->group[index]);
    }
}

/* REDUCE_SCATTER: our slice is all that we read of the peers. */
static void scatter_slice(coll_rank *r, coll_op *op)
{
    uint64_t ticket;
    sum_slice(r, op, op->recv);
    for (uint32_t k = 1; k < op->group_size; k++) {
        uint32_t index = nth_peer(op, k);
        coll_entry *e = in_entry(r, op, index, &ticket);
        say_done(r, op->group[index], e, ticket);
    }
}

static pps_status poll_collective(coll_rank *r, coll_op *op, bool *ret_done)
{
    if (op->state == STATE_POST)
        PPS_TRY(each_peer(r, op, post_to, STATE_READ));
    if (op->state == STATE_READ) {
        PPS_TRY(each_peer(r, op, read_from, STATE_GATHER));
        if (op->state == STATE_GATHER && op->kind == COLL_ALL_REDUCE)
            reduce_slice(r, op);
        else if (op->state == STATE_GATHER && op->kind == COLL_REDUCE_SCATTER)
            scatter_slice(r, op);
        if (op->state == STATE_GATHER && op->kind != COLL_ALL_REDUCE)
            op->state = STATE_DRAIN;
    }
    if (op->state == STATE_GATHER)
        PPS_TRY(each_peer(r, op, gather_from, STATE_DRAIN));
    if (op->state == STATE_DRAIN)
        PPS_TRY(each_peer(r, op, drain_of, STATE_DONE));
    if (op->state == STATE_DONE) {
        r->coll_busy[op->channel] = false;
        *ret_done = true;
    }
    return PPS_OK;
}

/* ---- Starting ----------------------------------------------------------------------------------
 */

static bool in_arena(const coll_rank *r, const void *p, uint64_t bytes)
{
    const coll_world *w = r->world;
    const char *arena = w->base + w->arena_offset[r->rank];
    const char *begin = p;
    return begin >= arena && begin <= arena + w->arena_bytes[r->rank] &&
           bytes <= (uint64_t)(arena + w->arena_bytes[r->rank] - begin);
}

/* Bytes that will leave this rank, and whether what arrives fits. */
static pps_status measure_rows(coll_op *op)
{
    uint64_t own_begin, own_end, in = 0, self = 0, out;
    for (uint64_t i = 0; i < (uint64_t)op->group_size * op->experts; i++)
        if (op->counts[i] < 0)
            return PPS_ERR_ARG;
    slice(op->experts, op->group_index, op->group_size, &own_begin, &own_end);
    const int32_t *ours = op->counts + (uint64_t)op->group_index * op->experts;
    self = rows_of(ours, own_begin, own_end);
    for (uint64_t x = own_begin; x < own_end; x++)
        in += rows_before(op, x, op->group_size);
    out = rows_of(ours, 0, op->experts);
    if (op->flags & COLL_RETURN) { /* what came in goes back */
        uint64_t swap = in;
        in = out;
        out = swap;
    }
    op->sent_bytes = (out - self) * op->width;
    return op->width && in > op->bytes / op->width ? PPS_ERR_LIMIT : PPS_OK;
}

static pps_status check_collective(coll_rank *r, coll_op *op)
{
    if (op->group_size == 0 || op->group_size > r->world->max_group ||
        op->group_index >= op->group_size || op->group[op->group_index] != r->rank ||
        r->coll_busy[op->channel])
        return PPS_ERR_ARG;
    for (uint32_t i = 0; i < op->group_size; i++)
        if (op->group[i] >= r->world->n_ranks || (i != op->group_index && op->group[i] == r->rank))
            return PPS_ERR_ARG;
    uint64_t peers = op->group_size - 1, begin, end;
    uint64_t counts_bytes = (uint64_t)op->experts * sizeof(int32_t);
    uint64_t part = op->bytes / op->group_size;
    bool gathers = op->kind == COLL_ALL_GATHER;
    switch (op->kind) {
    case COLL_ALL_REDUCE:
        if (op->bytes % sizeof(float) || !in_arena(r, op->send, op->bytes))
            return PPS_ERR_ARG;
        slice(op->bytes / sizeof(float), op->group_index, op->group_size, &begin, &end);
        op->sent_bytes =
            op->bytes - (end - begin) * sizeof(float);           /* others' slices, to be summed */
        op->sent_bytes += peers * (end - begin) * sizeof(float); /* our sums */
        return PPS_OK;
    case COLL_REDUCE_SCATTER:
    case COLL_ALL_GATHER:
        if (op->bytes % (op->group_size * sizeof(float)) ||
            !in_arena(r, op->send, gathers ? part : op->bytes) ||
            !in_arena(r, op->recv, gathers ? op->bytes : part))
            return PPS_ERR_ARG;
        if (op->width % sizeof(float) || (op->width && part % op->width))
            return PPS_ERR_ARG;
        op->sent_bytes = peers * part;
        return PPS_OK;
    case COLL_COUNTS:
        if (!in_arena(r, op->send, counts_bytes) ||
            !in_arena(r, op->recv, op->group_size * counts_bytes))
            return PPS_ERR_ARG;
        op->sent_bytes = peers * counts_bytes;
        return PPS_OK;
    case COLL_ALL_TO_ALL:
        if (!in_arena(r, op->send, 0) || !in_arena(r, op->recv, op->bytes) || !op->counts)
            return PPS_ERR_ARG;
        return measure_rows(op);
    case COLL_SHIFT:
        if (op->shift == 0 || op->shift >= op->group_size || !in_arena(r, op->send, op->bytes) ||
            !in_arena(r, op->recv, op->bytes))
            return PPS_ERR_ARG;
        op->sent_bytes = op->bytes;
        return PPS_OK;
    case COLL_SEND:
    case COLL_RECV:
        break;
    }
    return PPS_ERR_ARG;
}

static pps_status start_collective(coll_rank *r, coll_op *op)
{
    PPS_TRY(check_collective(r, op));
    for (uint32_t k = 1; k < op->group_size; k++) {
        uint32_t index = nth_peer(op, k), peer = op->group[index];
        uint32_t lane = peer * r->world->channels + op->channel;
        uint32_t part = op->channel * r->world->max_group + index;
        r->coll_out[part] = r->out[lane]++;
        r->coll_in[part] = r->in[lane]++;
    }
    if (!reduces(op))
        PPS_TRY(pull(r, op, NULL, op->group_index));
    r->coll_busy[op->channel] = true;
    op->aux[AUX_NEXT] = 1;
    op->state = STATE_POST;
    return PPS_OK;
}

pps_status coll_start(coll_rank *r, coll_op *op)
{
    op->sent_bytes = 0;
    op->state = STATE_NEW;
    if (op->channel >= r->world->channels)
        return PPS_ERR_ARG;
    if (op->kind != COLL_SEND && op->kind != COLL_RECV)
        return start_collective(r, op);
    void *data = op->kind == COLL_SEND ? op->send : op->recv;
    if (op->peer >= r->world->n_ranks || (op->bytes && !in_arena(r, data, op->bytes)))
        return PPS_ERR_ARG;
    op->group_size = op->experts = op->width = op->shift =
        0; /* what a send does not have must compare equal */
    uint32_t lane = op->peer * r->world->channels + op->channel;
    op->aux[AUX_TICKET] = op->kind == COLL_SEND ? r->out[lane]++ : r->in[lane]++;
    op->state = STATE_PUBLISH;
    if (op->kind == COLL_SEND)
        op->sent_bytes = op->peer == r->rank ? 0 : op->bytes;
    return PPS_OK;
}

pps_status coll_poll(coll_rank *r, coll_op *op, bool *ret_done)
{
    bool done = op->state == STATE_DONE;
    if (coll_is_aborted(r->world))
        return PPS_ERR_COLL;
    if (op->state == STATE_NEW)
        return PPS_ERR_ARG;
    if (!done) {
        switch (op->kind) {
        case COLL_SEND:
            PPS_TRY(poll_send(r, op, &done));
            break;
        case COLL_RECV:
            PPS_TRY(poll_recv(r, op, &done));
            break;
        case COLL_ALL_REDUCE:
        case COLL_REDUCE_SCATTER:
        case COLL_ALL_GATHER:
        case COLL_COUNTS:
        case COLL_ALL_TO_ALL:
        case COLL_SHIFT:
            PPS_TRY(poll_collective(r, op, &done));
            break;
        }
        if (done)
            op->state = STATE_DONE;
    }
    *ret_done = done;
    return PPS_OK;
}
