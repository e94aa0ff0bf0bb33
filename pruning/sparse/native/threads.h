/* Work on the threads that PyTorch has: GOMP_parallel of its pool, which calls a function with its argument once on
 * each thread. Who takes which piece is decided by a counter; every piece is computed by one thread in one order, so
 * that bits do not depend on how many there are. */
#ifndef LOTTERY_THREADS_H
#define LOTTERY_THREADS_H

#include <stdint.h>

typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);

static inline void on_threads(Parallel parallel, int32_t threads, void (*work)(void *), void *with) {
    if (threads > 1 && parallel) parallel(work, with, (unsigned)threads, 0);
    else work(with);
}

#endif
