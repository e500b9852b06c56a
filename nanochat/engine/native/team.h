// A team of threads that runs one function together, shares loops and meets at barriers.
//
// A step has a hundred barriers a few microseconds apart, so whoever waits looks again and again for a while. After
// that it sleeps: where another program wants the processor, the thread everybody waits for may be the one without one.
// (With OpenMP, which spins for milliseconds, two threads beside two other busy programs decoded ten times slower than
// one.)
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#if defined(__x86_64__) || defined(__i386__)
#define RELAX() __builtin_ia32_pause()
#elif defined(__aarch64__)
#define RELAX() __asm__ volatile("yield")
#else
#define RELAX() ((void)0)
#endif

#define MAX_THREADS 64
#define SPINS 1000
#define LOOPS 8 // counters in turn: one is reset well before it comes up again

typedef struct Team {
    int n_threads, loop;
    atomic_int arrived, phase, sleepers, started;
    _Atomic int64_t next[LOOPS];
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    void (*work)(struct Team *, void *, int member, int *loop);
    void *argument;
    pthread_t threads[MAX_THREADS];
} Team;

// Wait until `phase` is no longer `seen`
static void team_wait(Team *team, int seen) {
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&team->phase, memory_order_acquire) != seen) return;
        RELAX();
    }
    pthread_mutex_lock(&team->mutex);
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->phase) == seen) pthread_cond_wait(&team->wake, &team->mutex);
    atomic_fetch_sub(&team->sleepers, 1);
    pthread_mutex_unlock(&team->mutex);
}

static void team_next_phase(Team *team) {
    atomic_fetch_add(&team->phase, 1);
    if (atomic_load(&team->sleepers)) {
        pthread_mutex_lock(&team->mutex);
        pthread_cond_broadcast(&team->wake);
        pthread_mutex_unlock(&team->mutex);
    }
}

// Nobody goes on before everybody is here. Returns the phase that begins.
static int barrier(Team *team) {
    int seen = atomic_load(&team->phase);
    if (atomic_fetch_add(&team->arrived, 1) == team->n_threads - 1) {
        atomic_store(&team->arrived, 0);
        team_next_phase(team);
    } else {
        team_wait(team, seen);
    }
    return seen + 1;
}

// Begin a shared loop: its number, alike in every thread. The counter half a turn ahead starts afresh; nobody uses it,
// because a barrier follows after at most three loops.
static inline int begin_loop(Team *team, int *loop) {
    int number = *loop;
    *loop = (number + 1) % LOOPS;
    atomic_store_explicit(&team->next[(number + LOOPS / 2) % LOOPS], 0, memory_order_relaxed);
    return number;
}

// The first of the next `size` items of a loop; `end` or more when all are taken. Whoever is faster takes more.
static inline int64_t take(Team *team, int number, int64_t size) {
    return atomic_fetch_add_explicit(&team->next[number], size, memory_order_relaxed);
}

// How many of `n` small items to take at a time: a counter that two cores fight over costs more than such an item
static inline int64_t some_of(const Team *team, int64_t n) {
    const int64_t share = n / (8 * team->n_threads);
    return share ? share : 1;
}

static void *team_member(void *given) {
    Team *team = given;
    int seen = 0, loop = 0, member = 1 + atomic_fetch_add(&team->started, 1);
    for (;;) {
        team_wait(team, seen);
        if (!team->work) return 0;
        team->work(team, team->argument, member, &loop);
        seen = barrier(team);
    }
}

// Run `work` in every thread of the team, the caller included
static void team_run(Team *team, void (*work)(Team *, void *, int, int *), void *argument) {
    team->work = work;
    team->argument = argument;
    team_next_phase(team);
    work(team, argument, 0, &team->loop);
    barrier(team);
}

void team_end(Team *team) {
    team->work = 0;
    team_next_phase(team);
    for (int i = 0; i < team->n_threads - 1; i++) pthread_join(team->threads[i], 0);
    free(team);
}

// A team of `n_threads`, the caller included; null when the system gives no more threads
Team *team_begin(int n_threads) {
    Team *team = calloc(1, sizeof *team);
    if (!team) return 0;
    pthread_mutex_init(&team->mutex, 0);
    pthread_cond_init(&team->wake, 0);
    team->n_threads = 1;
    for (; team->n_threads < n_threads && team->n_threads < MAX_THREADS; team->n_threads++)
        if (pthread_create(&team->threads[team->n_threads - 1], 0, team_member, team)) {
            team_end(team);
            return 0;
        }
    return team;
}
