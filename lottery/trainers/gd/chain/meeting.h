/* Threads that wait for each other: they spin for some microseconds, and then sleep. */
#ifndef LOTTERY_MEETING_H
#define LOTTERY_MEETING_H

#include <pthread.h>
#include <stdatomic.h>

#define SPINS 4000

typedef struct {
    atomic_int arrived, phase;
    int count;
    pthread_mutex_t lock;
    pthread_cond_t next;
} Meeting;

static void meet(Meeting *m) {
    if (m->count == 1) return;
    const int phase = atomic_load(&m->phase);
    if (atomic_fetch_add(&m->arrived, 1) + 1 == m->count) {
        atomic_store(&m->arrived, 0);
        pthread_mutex_lock(&m->lock);
        atomic_store(&m->phase, phase + 1);
        pthread_cond_broadcast(&m->next);
        pthread_mutex_unlock(&m->lock);
        return;
    }
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&m->phase, memory_order_acquire) != phase) return;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    pthread_mutex_lock(&m->lock);
    while (atomic_load(&m->phase) == phase) pthread_cond_wait(&m->next, &m->lock);
    pthread_mutex_unlock(&m->lock);
}

#endif
