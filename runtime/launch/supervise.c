/* SPDX-License-Identifier: Apache-2.0
 *
 * supervise.c: the parent's loop. Every rank has a pipe that only it holds the writing end of:
 * reports come through it, and its end says that the rank is gone, whether process or thread. A
 * full pipe stops a rank that runs ahead, so nothing here grows.
 *
 *   rank 0 --report, report, ...-->\
 *   rank 1 --report, ...----------->  poll: a step is told once every rank reported it
 *   SIGINT, SIGTERM (signalfd)---->/
 *
 * However a run ends, every rank has ended before launch_supervise returns. After an abort, ranks
 * that are processes get GRACE_MS, then SIGKILL.
 */
#include "runtime/launch/rank.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { GRACE_MS = 2000 };

typedef struct watched { /* a rank as its parent sees it */
    launch_cx *cx;
    uint32_t rank;
    int fd, rank_fd; /* the pipe; rank_fd is the thread's to close */
    pid_t pid;       /* 0: none, or reaped */
    pthread_t thread;
    bool has_thread;
    char *report; /* header and losses */
    size_t got;   /* bytes of it */
    bool open, hung_up;
} watched;

typedef struct supervisor {
    launch_cx *cx;
    launch_result *result;
    watched *ranks;
    struct pollfd *polls;
    size_t report_bytes;
    int signal_fd;
    bool interrupted;
    uint64_t abort_ns; /* when the world was seen aborted, 0: not yet */
    bool killed;
    uint64_t last_end_ns;
    char *how;
} supervisor;

static uint64_t now_ns(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

/* ---- Starting ----------------------------------------------------------------------------------
 */

/* The host's handlers are not a rank's: a rank that crashes must end. (A sanitizer's must stay.) */
static void drop_handlers(void)
{
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    for (int i = 1; i < NSIG; i++) {
        struct sigaction action;
        if (sigaction(i, NULL, &action) == 0 && action.sa_handler != SIG_IGN)
            signal(i, SIG_DFL);
    }
#endif
}

/* In the child. Ctrl-C reaches the whole process group: only the parent acts on it. */
static void child_main(watched *w, pid_t parent, const sigset_t *old_mask)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent)
        _exit(1);
    drop_handlers();
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_DFL);
    pthread_sigmask(SIG_SETMASK, old_mask, NULL);
    pps_status status = rank_run(w->cx, w->rank, w->rank_fd);
    _exit(status == PPS_OK ? 0 : 1);
}

static void *thread_main(void *ud)
{
    watched *w = ud;
    rank_run(w->cx, w->rank, w->rank_fd);
    close(w->rank_fd);
    return NULL;
}

static pps_status start(supervisor *s, uint32_t rank, const sigset_t *old_mask)
{
    watched *w = &s->ranks[rank];
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return PPS_ERR_MACHINE;
    w->fd = ends[0];
    w->rank_fd = ends[1];
    fcntl(w->fd, F_SETFL, O_NONBLOCK);
    if (s->cx->opt->threads) {
        if (pthread_create(&w->thread, NULL, thread_main, w) != 0) {
            close(w->rank_fd);
            return PPS_ERR_MACHINE;
        }
        w->has_thread = w->open = true;
        return PPS_OK;
    }
    pid_t parent = getpid(), pid = fork();
    if (pid == 0)
        child_main(w, parent, old_mask);
    close(w->rank_fd);
    if (pid < 0)
        return PPS_ERR_MACHINE;
    w->pid = pid;
    w->open = true;
    return PPS_OK;
}

/* ---- Ending ------------------------------------------------------------------------------------
 */

static void kill_all(supervisor *s)
{
    s->killed = true;
    for (uint32_t i = 0; i < s->cx->set->n_ranks; i++)
        if (s->ranks[i].pid)
            kill(s->ranks[i].pid, SIGKILL);
}

static void take_signals(supervisor *s)
{
    struct signalfd_siginfo info;
    while (read(s->signal_fd, &info, sizeof(info)) == sizeof(info)) {
        if (s->interrupted)
            kill_all(s);
        s->interrupted = true;
        coll_world_abort(s->cx->world, IR_NONE, PPS_ERR_INTERRUPT);
    }
}

/* A rank ended badly. It is the cause unless the world was aborted before: by itself, saying why;
 * by another rank; or by a signal that was meant for all of us. */
static void lose(supervisor *s, const watched *w, int status)
{
    uint32_t rank;
    pps_status why;
    take_signals(s);
    if (coll_world_aborted(s->cx->world, &rank, &why))
        return;
    if (WIFSIGNALED(status))
        snprintf(s->how, 256, "killed by signal %d (%s)", WTERMSIG(status),
                 strsignal(WTERMSIG(status)));
    else
        snprintf(s->how, 256, "it ended with status %d", WEXITSTATUS(status));
    coll_world_abort(s->cx->world, w->rank, PPS_ERR_COLL);
}

/* The rank is gone: wait for it, and see whether it had reason to go. */
static void reap(supervisor *s, watched *w)
{
    if (w->has_thread) {
        pthread_join(w->thread, NULL);
        w->has_thread = false;
    }
    if (w->pid) {
        int status = 0;
        while (waitpid(w->pid, &status, 0) < 0 && errno == EINTR)
            ;
        w->pid = 0;
        if (!WIFEXITED(status) || WEXITSTATUS(status) != 0)
            lose(s, w, status);
    }
}

/* Milliseconds to poll for; after an abort, until the grace ends. */
static int patience(supervisor *s)
{
    uint32_t rank;
    pps_status why;
    if (s->killed || !coll_world_aborted(s->cx->world, &rank, &why))
        return -1;
    uint64_t now = now_ns();
    if (!s->abort_ns)
        s->abort_ns = now;
    uint64_t waited_ms = (now - s->abort_ns) / 1000000u;
    if (waited_ms >= GRACE_MS) {
        kill_all(s);
        return -1;
    }
    return (int)(GRACE_MS - waited_ms);
}

/* ---- Reports -----------------------------------------------------------------------------------
 */

static void receive(supervisor *s, watched *w)
{
    while (w->open && w->got < s->report_bytes) {
        ssize_t n = read(w->fd, w->report + w->got, s->report_bytes - w->got);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return; /* nothing now */
        if (n == 0) {
            w->open = false;
            reap(s, w);
            return;
        }
        w->got += (size_t)n;
    }
}

static const double *losses_of(const supervisor *s, uint32_t rank)
{
    return (const double *)(s->ranks[rank].report + sizeof(rank_report));
}

/* Slots in node order, each from every replica of its group: always added in this order. */
static void tell_step(supervisor *s)
{
    const plan_set *set = s->cx->set;
    double loss = 0, aux_loss = 0;
    for (uint32_t slot = 0; slot < set->n_losses; slot++) {
        const plan *p = &set->plans[set->losses[slot].group];
        for (uint32_t i = 0; i < p->n_ranks; i++) {
            if (!set->rank_speaks[p->ranks + i])
                continue;
            double value = losses_of(s, set->group_ranks[p->ranks + i])[slot];
            *(set->losses[slot].aux ? &aux_loss : &loss) += value;
        }
    }
    uint64_t begin_ns = UINT64_MAX, end_ns = 0;
    s->result->dropped = 0;
    for (uint32_t i = 0; i < set->n_ranks; i++) {
        rank_report report;
        uint32_t seat = set->plans[set->rank_group[i]].ranks + set->rank_index[i];
        memcpy(&report, s->ranks[i].report, sizeof(report));
        s->result->dropped += set->rank_speaks[seat] ? report.dropped : 0;
        begin_ns = report.begin_ns < begin_ns ? report.begin_ns : begin_ns;
        end_ns = report.end_ns > end_ns ? report.end_ns : end_ns;
        s->ranks[i].got = 0;
    }
    if (s->result->steps_done > 0)
        begin_ns = s->last_end_ns;
    s->last_end_ns = end_ns;
    if (s->result->steps_done++ == 0)
        s->result->first_loss = loss;
    s->result->last_loss = loss;
    if (s->cx->opt->on_step)
        s->cx->opt->on_step(s->cx->opt->on_step_ud, s->result->steps_done, loss, aux_loss,
                            (double)(end_ns - begin_ns) / 1e6);
}

/* ---- The loop ----------------------------------------------------------------------------------
 */

static void wait_for_news(supervisor *s)
{
    uint32_t n = s->cx->set->n_ranks;
    int timeout = patience(s);
    for (uint32_t i = 0; i < n; i++) {
        const watched *w = &s->ranks[i];
        bool full = w->got == s->report_bytes;
        /* a rank that reported waits for the others; only its end is news */
        s->polls[i] = (struct pollfd){.fd = w->open && !(full && w->hung_up) ? w->fd : -1,
                                      .events = full ? 0 : POLLIN};
    }
    s->polls[n] = (struct pollfd){.fd = s->signal_fd, .events = POLLIN};
    if (poll(s->polls, n + 1, timeout) <= 0)
        return;
    if (s->polls[n].revents & POLLIN)
        take_signals(s);
    for (uint32_t i = 0; i < n; i++)
        if (s->polls[i].fd >= 0 && s->polls[i].revents & POLLHUP && !s->ranks[i].hung_up) {
            s->ranks[i].hung_up = true;
            reap(s, &s->ranks[i]);
        }
}

static void follow(supervisor *s)
{
    uint32_t n = s->cx->set->n_ranks;
    for (;;) {
        uint32_t n_full = 0, n_open = 0;
        for (uint32_t i = 0; i < n; i++) {
            receive(s, &s->ranks[i]);
            n_full += s->ranks[i].got == s->report_bytes;
            n_open += s->ranks[i].open;
        }
        if (n_full == n) {
            tell_step(s);
            continue;
        }
        uint32_t rank;
        pps_status why;
        if (n_full && coll_world_aborted(s->cx->world, &rank, &why)) {
            for (uint32_t i = 0; i < n; i++) /* nobody will be told: drain */
                if (s->ranks[i].got == s->report_bytes)
                    s->ranks[i].got = 0;
            continue;
        }
        if (n_open == 0)
            return;
        wait_for_news(s);
    }
}

static pps_status set_up(supervisor *s, sigset_t *old_mask)
{
    uint32_t n = s->cx->set->n_ranks;
    s->report_bytes = sizeof(rank_report) + s->cx->set->n_losses * sizeof(double);
    s->ranks = calloc(n, sizeof(*s->ranks));
    s->polls = calloc((size_t)n + 1, sizeof(*s->polls));
    if (!s->ranks || !s->polls)
        return PPS_ERR_NOMEM;
    for (uint32_t i = 0; i < n; i++) {
        s->ranks[i] = (watched){.cx = s->cx, .rank = i, .fd = -1};
        s->ranks[i].report = calloc(1, s->report_bytes);
        if (!s->ranks[i].report)
            return PPS_ERR_NOMEM;
    }
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &signals, old_mask);
    s->signal_fd = signalfd(-1, &signals, SFD_CLOEXEC | SFD_NONBLOCK);
    return s->signal_fd < 0 ? PPS_ERR_MACHINE : PPS_OK;
}

static void tear_down(supervisor *s, const sigset_t *old_mask)
{
    for (uint32_t i = 0; s->ranks && i < s->cx->set->n_ranks; i++) {
        free(s->ranks[i].report);
        if (s->ranks[i].cx && s->ranks[i].fd >= 0)
            close(s->ranks[i].fd);
    }
    if (s->signal_fd >= 0)
        close(s->signal_fd);
    pthread_sigmask(SIG_SETMASK, old_mask, NULL);
    free(s->ranks);
    free(s->polls);
}

pps_status launch_supervise(launch_cx *cx, launch_result *result, char ret_how[256])
{
    supervisor s = {.cx = cx, .result = result, .signal_fd = -1, .how = ret_how};
    sigset_t old_mask;
    ret_how[0] = 0;
    pthread_sigmask(SIG_BLOCK, NULL, &old_mask);
    pps_status status = set_up(&s, &old_mask);
    for (uint32_t i = 0; i < cx->set->n_ranks && status == PPS_OK; i++)
        status = start(&s, i, &old_mask);
    if (status != PPS_OK) {
        snprintf(ret_how, 256, "cannot start a rank: %s", strerror(errno));
        coll_world_abort(cx->world, IR_NONE, status);
    }
    if (s.ranks)
        follow(&s);
    uint32_t rank = IR_NONE;
    pps_status why = PPS_OK;
    if (coll_world_aborted(cx->world, &rank, &why)) {
        status = s.interrupted ? PPS_ERR_INTERRUPT : why;
        result->failed_rank = s.interrupted ? IR_NONE : rank;
    }
    tear_down(&s, &old_mask);
    return status;
}
