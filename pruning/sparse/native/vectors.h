/* Vectors of sixteen numbers, by the compiler's own extension: one instruction where the processor has AVX-512, two or
 * four where it has AVX or NEON. */
#ifndef LOTTERY_VECTORS_H
#define LOTTERY_VECTORS_H

#include <stdint.h>

#define LANES 16

typedef float vector __attribute__((vector_size(4 * LANES)));
typedef int32_t lanes __attribute__((vector_size(4 * LANES)));

/* GCC before 12 has its own words for what it and Clang now both know. */
#if defined(__has_builtin)
#if __has_builtin(__builtin_shufflevector)
#define SHUFFLED(X, Y, ...) __builtin_shufflevector(X, Y, __VA_ARGS__)
#endif
#endif
#ifndef SHUFFLED
#define SHUFFLED(X, Y, ...) __builtin_shuffle(X, Y, (lanes){__VA_ARGS__})
#endif

static inline vector all(float value) { return value - (vector){0}; }

static inline float sum_of(vector x) {
    x += SHUFFLED(x, x, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7);
    x += SHUFFLED(x, x, 4, 5, 6, 7, 0, 1, 2, 3, 12, 13, 14, 15, 8, 9, 10, 11);
    x += SHUFFLED(x, x, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    x += SHUFFLED(x, x, 1, 0, 3, 2, 5, 4, 7, 6, 9, 8, 11, 10, 13, 12, 15, 14);
    return x[0];
}

#endif
