/* Convolutions with a sparse kernel that moves by one pixel, and their gradients.
 *
 * Images are packed in blocks of LANES examples, [rows][channels][columns][LANES], inside a frame of zeros: a kept
 * weight is one multiplication with a shifted row of pixels. Nothing is unfolded. The gradient of the images is the
 * same sum over the transposed kernel; that of a weight is a row of products, which are added up at the end. */
#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "threads.h"
#include "turning.h"

typedef struct {
    float *data;
    int64_t channels, height, width, by_example, by_channel, by_row, by_column; /* by_channel or by_column is 1 */
} Images;

typedef struct {
    int64_t height, width, top, left; /* of the frame, and where in it the image begins */
} Frame;

typedef struct {
    const int32_t *starts, *offsets /* in pixels, from the pixel that is computed */, *at;
} Shifts;

typedef struct {
    Images images;
    Frame frame;
    int64_t batch;
    float *packed;
    atomic_long next;
} Packing;

typedef struct {
    Shifts shifts;
    const float *values, *packed;
    int64_t in_block, in_row /* of all channels; both in pixels */, batch;
    Images out;
    atomic_long next;
    atomic_int error;
} Sums;

typedef struct {
    Shifts shifts;
    const float *packed, *delta;
    int64_t in_block, in_row, delta_block, delta_row, delta_channel, delta_first, height, width, outputs, batch, chunks;
    float *slopes;
    atomic_long next;
    atomic_int error;
} Slopes;

static int64_t blocks_of(int64_t batch) { return (batch + LANES - 1) / LANES; }

static int64_t examples_of(int64_t batch, int64_t block) {
    const int64_t left = batch - block * LANES;
    return left < LANES ? left : LANES;
}

static void pack_row(const Packing *p, int64_t block, int64_t row) {
    const Images im = p->images;
    const Frame f = p->frame;
    const int64_t count = examples_of(p->batch, block), line_size = f.width * LANES, h = row - f.top;
    float *to = p->packed + (block * f.height + row) * im.channels * line_size;
    const int whole = h >= 0 && h < im.height && count == LANES;
    for (int64_t c = 0; c < im.channels; c++) {
        float *line = to + c * line_size;
        if (!whole) {
            memset(line, 0, (size_t)line_size * sizeof(float));
        } else {
            memset(line, 0, (size_t)(f.left * LANES) * sizeof(float));
            memset(line + (f.left + im.width) * LANES, 0, (size_t)((f.width - f.left - im.width) * LANES) * sizeof(float));
        }
    }
    if (h < 0 || h >= im.height) return;
    const float *from = im.data + block * LANES * im.by_example + h * im.by_row;
    to += f.left * LANES;
    if (im.by_channel == 1)
        for (int64_t w = 0; w < im.width; w++)
            turn(from + w * im.by_column, im.by_example, to + w * LANES, line_size, count, im.channels);
    else
        for (int64_t c = 0; c < im.channels; c++)
            turn(from + c * im.by_channel, im.by_example, to + c * line_size, LANES, count, im.width);
}

static void take_rows(void *given) {
    Packing *p = given;
    const int64_t rows = p->frame.height, all = blocks_of(p->batch) * rows;
    for (int64_t i; (i = atomic_fetch_add(&p->next, 1)) < all;) pack_row(p, i / rows, i % rows);
}

#define SHIFTED(BLOCK)                                                                                                 \
    static void shifted_##BLOCK(Shifts s, const float *values, const float *in, float *out, int64_t rows,              \
                                int64_t stride) {                                                                      \
        for (int64_t r = 0; r < rows; r++) {                                                                           \
            vector total[BLOCK];                                                                                       \
            for (int j = 0; j < BLOCK; j++) total[j] = all(0.0f);                                                      \
            for (int32_t k = s.starts[r]; k < s.starts[r + 1]; k++) {                                                  \
                const float value = values[s.at ? s.at[k] : k];                                                        \
                const vector *x = (const vector *)in + s.offsets[k];                                                   \
                for (int j = 0; j < BLOCK; j++) total[j] += value * x[j];                                              \
            }                                                                                                          \
            for (int j = 0; j < BLOCK; j++) ((vector *)(out + r * stride))[j] = total[j];                              \
        }                                                                                                              \
    }                                                                                                                  \
    static void touched_##BLOCK(Shifts s, const float *in, const float *delta, vector *sums, int64_t first,            \
                                int64_t last, int64_t stride) {                                                        \
        for (int64_t r = first; r < last; r++) {                                                                       \
            vector d[BLOCK];                                                                                           \
            for (int j = 0; j < BLOCK; j++) d[j] = ((const vector *)(delta + r * stride))[j];                          \
            for (int32_t k = s.starts[r]; k < s.starts[r + 1]; k++) {                                                  \
                const vector *x = (const vector *)in + s.offsets[k];                                                   \
                vector total = sums[k - s.starts[first]];                                                              \
                for (int j = 0; j < BLOCK; j++) total += d[j] * x[j];                                                  \
                sums[k - s.starts[first]] = total;                                                                     \
            }                                                                                                          \
        }                                                                                                              \
    }

SHIFTED(8)
SHIFTED(4)
SHIFTED(2)
SHIFTED(1)

#define BY_EIGHT(WIDTH, TAKE)                                                                                          \
    for (int64_t x = 0; x < WIDTH;) {                                                                                  \
        const int64_t left = WIDTH - x, at = x * LANES;                                                                \
        if (left >= 8) TAKE(8), x += 8;                                                                                \
        else if (left >= 4) TAKE(4), x += 4;                                                                           \
        else if (left >= 2) TAKE(2), x += 2;                                                                           \
        else TAKE(1), x += 1;                                                                                          \
    }

static void take_sums(void *given) {
    Sums *s = given;
    const Images o = s->out;
    const int64_t rows = o.height, stride = o.width * LANES, all_rows = blocks_of(s->batch) * rows;
    float *line = aligned_alloc(sizeof(vector), (size_t)(o.channels * stride + LANES) * sizeof(float));
    if (!line) {
        s->error = ENOMEM;
        return;
    }
    for (int64_t i; (i = atomic_fetch_add(&s->next, 1)) < all_rows;) {
        const int64_t block = i / rows, y = i % rows, count = examples_of(s->batch, block);
        const float *in = s->packed + (block * s->in_block + y * s->in_row) * LANES;
#define TAKE_SUMS(BLOCK) shifted_##BLOCK(s->shifts, s->values, in + at, line + at, o.channels, stride)
        BY_EIGHT(o.width, TAKE_SUMS)
        float *to = o.data + block * LANES * o.by_example + y * o.by_row;
        if (o.by_channel == 1)
            for (int64_t x = 0; x < o.width; x++)
                turn(line + x * LANES, stride, to + x * o.by_column, o.by_example, o.channels, count);
        else
            for (int64_t c = 0; c < o.channels; c++)
                turn(line + c * stride, LANES, to + c * o.by_channel, o.by_example, o.width, count);
    }
    free(line);
}

static void take_slopes(void *given) {
    Slopes *s = given;
    const int32_t *starts = s->shifts.starts;
    for (int64_t i; (i = atomic_fetch_add(&s->next, 1)) < s->chunks;) {
        const int64_t first = s->outputs * i / s->chunks, last = s->outputs * (i + 1) / s->chunks;
        const int64_t kept = starts[last] - starts[first];
        vector *sums = aligned_alloc(sizeof(vector), (size_t)(kept + 1) * sizeof(vector));
        if (!sums) {
            s->error = ENOMEM;
            return;
        }
        memset(sums, 0, (size_t)kept * sizeof(vector));
        for (int64_t block = 0; block < blocks_of(s->batch); block++)
            for (int64_t y = 0; y < s->height; y++) {
                const float *in = s->packed + (block * s->in_block + y * s->in_row) * LANES;
                const float *delta = s->delta + (block * s->delta_block + s->delta_first + y * s->delta_row) * LANES;
#define TAKE_SLOPES(BLOCK) touched_##BLOCK(s->shifts, in + at, delta + at, sums, first, last, s->delta_channel * LANES)
                BY_EIGHT(s->width, TAKE_SLOPES)
            }
        for (int64_t k = 0; k < kept; k++) s->slopes[starts[first] + k] = sum_of(sums[k]);
        free(sums);
    }
}

void convolution_pack(Parallel parallel, int32_t threads, Images images, Frame frame, int64_t batch, float *packed) {
    Packing packing = {images, frame, batch, packed, 0};
    on_threads(parallel, threads, take_rows, &packing);
}

/* Returns 0, or the system's error where there is no memory. */
int convolution_sums(Parallel parallel, int32_t threads, Shifts shifts, const float *values, const float *packed,
                     int64_t in_block, int64_t in_row, Images out, int64_t batch) {
    Sums sums = {shifts, values, packed, in_block, in_row, batch, out, 0, 0};
    on_threads(parallel, threads, take_sums, &sums);
    return sums.error;
}

int convolution_slopes(Parallel parallel, int32_t threads, Shifts shifts, const float *packed, int64_t in_block,
                       int64_t in_row, const float *delta, int64_t delta_block, int64_t delta_row,
                       int64_t delta_channel, int64_t delta_first, int64_t height, int64_t width, int64_t outputs,
                       int64_t batch, float *slopes) {
    Slopes work = {.shifts = shifts, .packed = packed, .delta = delta, .slopes = slopes, .batch = batch};
    work.in_block = in_block, work.in_row = in_row;
    work.delta_block = delta_block, work.delta_row = delta_row;
    work.delta_channel = delta_channel, work.delta_first = delta_first;
    work.height = height, work.width = width, work.outputs = outputs;
    work.chunks = threads > 1 && outputs >= 4 * threads ? 4 * threads : 1;
    on_threads(parallel, threads, take_slopes, &work);
    return work.error;
}
