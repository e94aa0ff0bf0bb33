/* Products with a sparse matrix. Activations are feature-major: [features][width], the examples of a feature side by
 * side; width is a multiple of LANES.
 *
 *   forward   out[r] = bias[r] + sum over the kept weights of row r of value * in[column]
 *   gradients slope[k] = delta[row of k] . in[column of k], at the kept weights and nowhere else
 *   backward  is forward with the transpose, whose values are found through `at`
 */
#ifndef LOTTERY_PRODUCTS_H
#define LOTTERY_PRODUCTS_H

#include "vectors.h"

/* Rows `first` to `last` of one block of columns, BLOCK vectors wide. */
#define PRODUCTS(BLOCK)                                                                                                \
    static void sums_##BLOCK(const int32_t *starts, const int32_t *columns, const int32_t *at, const float *values,    \
                             const float *bias, const uint8_t *wanted, const float *in, float *out, int rows,          \
                             int64_t width) {                                                                          \
        for (int r = 0; r < rows; r++) {                                                                               \
            if (wanted && !wanted[r]) continue;                                                                        \
            vector total[BLOCK];                                                                                       \
            for (int j = 0; j < BLOCK; j++) total[j] = all(bias ? bias[r] : 0.0f);                                     \
            for (int32_t k = starts[r]; k < starts[r + 1]; k++) {                                                      \
                const float value = values[at ? at[k] : k];                                                            \
                const vector *x = (const vector *)(in + columns[k] * width);                                           \
                for (int j = 0; j < BLOCK; j++) total[j] += value * x[j];                                              \
            }                                                                                                          \
            vector *y = (vector *)(out + r * width);                                                                   \
            for (int j = 0; j < BLOCK; j++) y[j] = total[j];                                                           \
        }                                                                                                              \
    }                                                                                                                  \
    static void slopes_##BLOCK(const int32_t *starts, const int32_t *columns, const int32_t *at,                       \
                               const uint8_t *wanted, const float *in, const float *delta, float *slopes, int rows,    \
                               int64_t width, int add) {                                                               \
        for (int r = 0; r < rows; r++) {                                                                               \
            if (wanted && !wanted[r]) continue;                                                                        \
            vector d[BLOCK];                                                                                           \
            for (int j = 0; j < BLOCK; j++) d[j] = ((const vector *)(delta + r * width))[j];                           \
            for (int32_t k = starts[r]; k < starts[r + 1]; k++) {                                                      \
                const vector *x = (const vector *)(in + columns[k] * width);                                           \
                vector total = d[0] * x[0];                                                                            \
                for (int j = 1; j < BLOCK; j++) total += d[j] * x[j];                                                  \
                float *slope = slopes + (at ? at[k] : k);                                                              \
                *slope = sum_of(total) + (add ? *slope : 0.0f);                                                        \
            }                                                                                                          \
        }                                                                                                              \
    }

PRODUCTS(8)
PRODUCTS(4)
PRODUCTS(2)
PRODUCTS(1)

typedef struct {
    const int32_t *starts, *columns; /* row by row */
    const int32_t *at;               /* where the value of an entry lies; NULL where they lie in order */
} Pattern;

static void sparse_sums(Pattern p, const float *values, const float *bias, const uint8_t *wanted, const float *in,
                        float *out, int rows, int64_t width) {
    int64_t from = 0;
    while (from < width) {
        const int64_t left = (width - from) / LANES;
        const float *x = in + from;
        float *y = out + from;
        if (left >= 8) sums_8(p.starts, p.columns, p.at, values, bias, wanted, x, y, rows, width), from += 8 * LANES;
        else if (left >= 4) sums_4(p.starts, p.columns, p.at, values, bias, wanted, x, y, rows, width), from += 4 * LANES;
        else if (left >= 2) sums_2(p.starts, p.columns, p.at, values, bias, wanted, x, y, rows, width), from += 2 * LANES;
        else sums_1(p.starts, p.columns, p.at, values, bias, wanted, x, y, rows, width), from += LANES;
    }
}

static void sparse_slopes(Pattern p, const uint8_t *wanted, const float *in, const float *delta, float *slopes,
                          int rows, int64_t width) {
    int64_t from = 0;
    while (from < width) {
        const int64_t left = (width - from) / LANES;
        const float *x = in + from, *d = delta + from;
        const int add = from > 0;
        if (left >= 8) slopes_8(p.starts, p.columns, p.at, wanted, x, d, slopes, rows, width, add), from += 8 * LANES;
        else if (left >= 4) slopes_4(p.starts, p.columns, p.at, wanted, x, d, slopes, rows, width, add), from += 4 * LANES;
        else if (left >= 2) slopes_2(p.starts, p.columns, p.at, wanted, x, d, slopes, rows, width, add), from += 2 * LANES;
        else slopes_1(p.starts, p.columns, p.at, wanted, x, d, slopes, rows, width, add), from += LANES;
    }
}

#endif
