/* Matrices between examples in rows, [examples][features], and blocks of examples in columns, [features][width]. */
#ifndef LOTTERY_TURNING_H
#define LOTTERY_TURNING_H

#include <string.h>

#include "vectors.h"

#define LOW_1 0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30
#define HIGH_1 1, 17, 3, 19, 5, 21, 7, 23, 9, 25, 11, 27, 13, 29, 15, 31
#define LOW_2 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29
#define HIGH_2 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15, 30, 31
#define LOW_4 0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27
#define HIGH_4 4, 5, 6, 7, 20, 21, 22, 23, 12, 13, 14, 15, 28, 29, 30, 31
#define LOW_8 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23
#define HIGH_8 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31
#define SWAP(APART, FROM, TO)                                                                                          \
    for (int j = 0; j < LANES; j++) {                                                                                  \
        if (j & APART) continue;                                                                                       \
        TO[j] = SHUFFLED(FROM[j], FROM[j + APART], LOW_##APART);                                                       \
        TO[j + APART] = SHUFFLED(FROM[j], FROM[j + APART], HIGH_##APART);                                              \
    }

/* Rows of sixteen vectors become columns, in place. */
static inline void turn_vectors(vector *rows) {
    vector half[LANES];
    SWAP(1, rows, half)
    SWAP(2, half, rows)
    SWAP(4, rows, half)
    SWAP(8, half, rows)
}

/* Sixteen rows of sixteen numbers become columns; addresses need no alignment. */
static inline void turn_tile(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    vector tile[LANES];
    for (int j = 0; j < LANES; j++) memcpy(&tile[j], from + j * from_stride, sizeof(vector));
    turn_vectors(tile);
    for (int j = 0; j < LANES; j++) memcpy(to + j * to_stride, &tile[j], sizeof(vector));
}

/* `rows` x `columns` numbers, row by row at `from`, become columns at `to`. */
static inline void turn(const float *from, int64_t from_stride, float *to, int64_t to_stride, int64_t rows,
                        int64_t columns) {
    int64_t r = 0;
    for (; r + LANES <= rows; r += LANES) {
        int64_t c = 0;
        for (; c + LANES <= columns; c += LANES)
            turn_tile(from + r * from_stride + c, from_stride, to + c * to_stride + r, to_stride);
        for (; c < columns; c++)
            for (int j = 0; j < LANES; j++) to[c * to_stride + r + j] = from[(r + j) * from_stride + c];
    }
    for (; r < rows; r++)
        for (int64_t c = 0; c < columns; c++) to[c * to_stride + r] = from[r * from_stride + c];
}

#endif
