/* Matrices between examples in rows, [examples][features], and blocks of examples in columns, [features][width]. */
#ifndef LOTTERY_TURNING_H
#define LOTTERY_TURNING_H

#include <string.h>

#include "vectors.h"

#define TURNED_PAIRS(DISTANCE, FIRST, SECOND, FROM, TO)                                                                \
    for (int j = 0; j < LANES; j++) {                                                                                  \
        if (j & DISTANCE) continue;                                                                                    \
        TO[j] = __builtin_shuffle(FROM[j], FROM[j + DISTANCE], FIRST);                                                 \
        TO[j + DISTANCE] = __builtin_shuffle(FROM[j], FROM[j + DISTANCE], SECOND);                                     \
    }

/* Sixteen rows of sixteen numbers become columns; addresses need no alignment. */
static inline void turn_tile(const float *from, int64_t from_stride, float *to, int64_t to_stride) {
    vector a[LANES], b[LANES];
    for (int j = 0; j < LANES; j++) memcpy(&a[j], from + j * from_stride, sizeof(vector));
    const lanes x1 = {0, 16, 2, 18, 4, 20, 6, 22, 8, 24, 10, 26, 12, 28, 14, 30}, y1 = x1 + 1;
    const lanes x2 = {0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13, 28, 29}, y2 = x2 + 2;
    const lanes x4 = {0, 1, 2, 3, 16, 17, 18, 19, 8, 9, 10, 11, 24, 25, 26, 27}, y4 = x4 + 4;
    const lanes x8 = {0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23}, y8 = x8 + 8;
    TURNED_PAIRS(1, x1, y1, a, b)
    TURNED_PAIRS(2, x2, y2, b, a)
    TURNED_PAIRS(4, x4, y4, a, b)
    TURNED_PAIRS(8, x8, y8, b, a)
    for (int j = 0; j < LANES; j++) memcpy(to + j * to_stride, &a[j], sizeof(vector));
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
